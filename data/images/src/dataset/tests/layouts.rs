//! Tests of folders in all usual layouts: parts by any name, labels that are not clear, files that are not images.

use super::*;

/// A folder of images; each name is a file in it, and its value counts from 1.
fn folder(names: &[&str]) -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    for (name, value) in names.iter().zip(1..) {
        put(folder.path(), name, &png(value));
    }
    folder
}

fn opened(names: &[&str]) -> Splits {
    let folder = folder(names);
    let splits = open(folder.path(), None).unwrap();
    // Images stay in memory when the folder is deleted.
    (0..splits.images()).for_each(|i| drop(splits.all().picture(i).unwrap()));
    splits
}

/// Images of train, val, test, unlabelled, apart.
fn sizes(splits: &Splits) -> [usize; 5] {
    let of = |images: &Option<Images>| images.as_ref().map_or(0, |images| images.len());
    let apart = splits.apart.iter().map(|images| images.len()).sum();
    [splits.train.len(), of(&splits.val), of(&splits.test), of(&splits.unlabelled), apart]
}

/// The one note that contains `words`.
fn noted(splits: &Splits, words: &[&str]) {
    let found = splits.found.notes.iter().filter(|note| words.iter().all(|word| note.contains(word))).count();
    assert_eq!(found, 1, "{words:?} in {:?}", splits.found.notes);
}

#[test]
fn parts_by_the_names_that_people_use() {
    for (train, val, test) in [
        ("Train", None, Some("Test")),
        ("Training", Some("Validation"), None),
        ("TRAIN", Some("VALID"), Some("TEST")),
        ("train", Some("dev"), Some("test")),
        ("train", Some("eval"), None),
        ("seg_train", Some("seg_valid"), Some("seg_test")),
        ("train2017", Some("val2017"), None),
        ("train-images", None, Some("Test-1")),
        ("TrainSet", Some("ValSet"), Some("TestSet")),
    ] {
        let parts = [Some(train), val, test];
        let names: Vec<String> =
            parts.iter().flatten().flat_map(|part| [format!("{part}/cat/1.png"), format!("{part}/dog/2.png")]).collect();
        let splits = opened(&names.iter().map(String::as_str).collect::<Vec<_>>());
        assert_eq!(splits.train.classes(), ["cat", "dog"], "{train}");
        let both = val.is_some() && test.is_some();
        assert_eq!(sizes(&splits), [2, if both { 2 } else { 0 }, 2, 0, 0], "{train}");
        let count = |is: bool| if is { 2 } else { 0 };
        assert_eq!(["train", "val", "test"].map(|part| splits.count(part)), [2, count(val.is_some()), count(test.is_some())]);
        assert_eq!(splits.measured().unwrap().names()[0], format!("{}/cat/1.png", val.or(test).unwrap()));
        assert_eq!(splits.test.as_ref().unwrap().names()[0], format!("{}/cat/1.png", test.or(val).unwrap()));
        let why = &splits.found.parts.last().unwrap().why;
        assert!(why.contains("by the folder's name") && (!why.contains("there is no test part") || test.is_none()), "{why}");
    }
}

#[test]
fn classes_lie_deeper_or_the_other_way_round_or_in_several_folders() {
    let intel = opened(&[
        "seg_train/seg_train/sea/1.png",
        "seg_train/seg_train/street/2.png",
        "seg_test/seg_test/sea/3.png",
        "seg_test/seg_test/street/4.png",
        "seg_pred/seg_pred/5.png",
    ]);
    assert_eq!((intel.train.classes(), sizes(&intel)), (&["sea".to_string(), "street".to_string()][..], [2, 0, 2, 0, 0]));
    assert_eq!(intel.found.not_read["image outside the parts"].count, 1);
    noted(&intel, &["no part is called seg_pred"]);

    let turned =
        opened(&["bottle/train/1.png", "bottle/test/2.png", "cable/train/3.png", "cable/test/bent/4.png", "cable/masks/5.png"]);
    assert_eq!(listed(&turned.train), [row("bottle/train/1.png", 0, 1), row("cable/train/3.png", 1, 3)]);
    assert_eq!(listed(turned.test.as_ref().unwrap()), [row("bottle/test/2.png", 0, 2), row("cable/test/bent/4.png", 1, 4)]);
    assert_eq!(turned.found.unread(), 1);
    noted(&turned, &["class/train"]);

    let several = opened(&["train.X1/b/1.png", "train.X2/a/2.png", "train.X2/b/3.png", "val.X/a/4.png"]);
    let train = [row("train.X2/a/2.png", 0, 2), row("train.X1/b/1.png", 1, 1), row("train.X2/b/3.png", 1, 3)];
    assert_eq!((listed(&several.train), sizes(&several)), (train.to_vec(), [3, 0, 1, 0, 0]));
}

#[test]
fn a_test_part_that_nobody_can_judge_by_is_put_aside() {
    for test in [&["test/1.png", "test/2.png"][..], &["test/unknown/1.png", "test/unknown/2.png"]] {
        let names = [&["train/cat/1.png", "train/cat/2.png", "train/dog/3.png"][..], test].concat();
        let splits = opened(&names);
        assert_eq!(sizes(&splits), [3, 0, 0, 0, 2]);
        assert_eq!((splits.pretraining().len(), splits.all().len(), splits.count("test")), (3, 5, 2));
        noted(&splits, &["the test part", "its 2 images are used neither for evaluation nor for training"]);
        noted(&splits, &["one is drawn from the training part"]);
    }
    // If val has labels, it is evaluated on.
    let val = opened(&["train/a/1.png", "train/b/2.png", "valid/a/3.png", "test/4.png", "test/5.png"]);
    assert_eq!((sizes(&val), val.count("val"), val.count("test")), ([2, 0, 1, 0, 2], 1, 2));
}

#[test]
fn a_class_that_is_in_one_part_only() {
    let splits =
        opened(&["train/a/1.png", "train/b/2.png", "train/only/3.png", "test/a/4.png", "test/B/5.png", "test/new/6.png"]);
    assert_eq!(listed(splits.test.as_ref().unwrap()), [row("test/B/5.png", 1, 5), row("test/a/4.png", 0, 4)]);
    noted(&splits, &["1 class of the test part has no training image", "`new`", "1 image left out"]);
    noted(&splits, &["1 of 3 classes has no test image: `only`"]);
    assert_eq!(splits.found.not_read["image without a class of the training part"].first, ["test/new/6.png"]);
}

#[test]
fn labels_that_are_not_clear_are_done_without() {
    let beside = opened(&["cat/1.png", "dog/2.png", "loose.png"]);
    assert_eq!((beside.labelled(), sizes(&beside)), (false, [3, 0, 0, 0, 0]));
    noted(&beside, &["1 image beside 2 folders (loose.png)", "all go without labels", "data.format = \"folder\""]);

    let one = opened(&["cat/1.png", "cat/2.png"]);
    assert_eq!((one.labelled(), listed(&one.train)), (false, vec![row("cat/1.png", None, 1), row("cat/2.png", None, 2)]));
    noted(&one, &["only one class, `cat`"]);

    let around = opened(&["train/images/1.png", "valid/images/2.png"]);
    assert_eq!((around.labelled(), sizes(&around)), (false, [1, 0, 1, 0, 0]));

    let empty = folder(&["cat/1.png", "dog/2.png"]);
    put(empty.path(), "bird/.keep", b"");
    let empty = open(empty.path(), None).unwrap();
    assert_eq!(empty.train.classes(), ["cat", "dog"], "labels that are clear stay");
    noted(&empty, &["`bird` holds no image: it is left out"]);
}

#[test]
fn a_few_strays_do_not_cost_the_labels() {
    let names: Vec<String> = (0..200).map(|i| format!("{}/{i}.png", i % 2)).chain(["stray.png".to_string()]).collect();
    let splits = opened(&names.iter().map(String::as_str).collect::<Vec<_>>());
    assert_eq!((splits.train.classes().len(), sizes(&splits)), (2, [200, 0, 0, 1, 0]));
    noted(&splits, &["1 image has no class (stray.png)"]);
    let forced = open(folder(&["a/1.png", "b/2.png", "c.png"]).path(), Some(Format::Folder)).unwrap();
    assert_eq!(sizes(&forced), [2, 0, 0, 1, 0], "the recipe says that folders are classes");
}

#[test]
fn parts_that_are_held_back_beside_classes_are_parts() {
    let test = ["cat/1.png", "dog/2.png", "test/cat/3.png", "test/dog/4.png"];
    let splits = opened(&test);
    assert_eq!((splits.train.classes(), sizes(&splits)), (&["cat".to_string(), "dog".to_string()][..], [2, 0, 2, 0, 0]));
    assert_eq!((splits.train.names()[0].as_str(), splits.count("test")), ("cat/1.png", 2));
    noted(&splits, &["`test` is a part that is held back", "rename it"]);
    let both = opened(&[&test[..], &["Val/cat/5.png"]].concat());
    assert_eq!(sizes(&both), [2, 1, 2, 0, 0]);
    noted(&both, &["`Val`, `test` are parts"]);
    // Images without labels, on both sides.
    assert_eq!(sizes(&opened(&["1.png", "2.png", "test/3.png"])), [2, 0, 1, 0, 0]);
    assert_eq!(sizes(&opened(&["images/1.png", "test/3.png"])), [1, 0, 1, 0, 0]);
    // A class of the same name would have its images in the folder itself: it is set apart, and that is said.
    let class = opened(&["bus/1.png", "car/2.png", "test/3.png"]);
    assert_eq!(sizes(&class), [2, 0, 0, 0, 1]);
    noted(&class, &["`test` is a part that is held back"]);
}

#[test]
fn a_part_that_is_held_back_can_be_used_without_training() {
    for names in [&["test/cat/1.png", "test/dog/2.png"][..], &["dev/1.png", "qa/2.png"]] {
        let folder = folder(names);
        let splits = super::super::open(folder.path(), None, &Columns::default()).unwrap();
        assert_eq!((splits.all().len(), splits.train.classes().len(), splits.found.trainable().is_err()), (2, 2, true));
        noted(&splits, &["no train/ beside it", "all images are read"]);
    }
}

#[test]
fn a_folder_of_tests_alone_is_refused_whatever_its_case() {
    for name in ["test", "Test", "Validation", "dev"] {
        let folder = folder(&[&format!("{name}/cat/1.png"), &format!("{name}/dog/2.png")]);
        let text = refusal(folder.path(), None);
        assert!(text.contains("no train/ beside it") && text.contains("hint:") && text.contains(name), "{text}");
    }
}

#[test]
#[cfg_attr(feature = "heif", ignore = "HEIC and AVIF are read")]
fn files_that_are_no_images_are_counted_and_named() {
    let folder = folder(&["cat/1.PNG", "cat/2.png", "dog/3.png", "dog/IMG_0004", "dog/5.jpg_large"]);
    for (name, bytes) in
        [("cat/a.HEIC", &b"x"[..]), ("dog/b.heic", b"x"), ("notes.txt", b"x"), (".DS_Store", b"x"), ("cat/.x.png", b"x")]
    {
        put(folder.path(), name, bytes);
    }
    put(folder.path(), ".git/objects/1.png", &png(1));
    put(folder.path(), "dog/README", b"text");
    put(folder.path(), "dog/._3.png", b"macOS");
    let splits = open(folder.path(), None).unwrap();
    assert_eq!((splits.train.len(), splits.found.files), (5, 10), "two are images by their first bytes");
    let counts: Vec<(&str, usize)> = splits.found.not_read.iter().map(|(kind, of)| (kind.as_str(), of.count)).collect();
    assert_eq!(counts, [("heic", 2), ("hidden", 1), ("txt", 1), ("without extension", 1)]);
    let warning = splits.found.warning().unwrap();
    assert!(
        warning.starts_with("5 of 10 files are not read: 2 heic (cat/a.HEIC, dog/b.heic)") && warning.contains("Convert"),
        "{warning}"
    );
    let lines = splits.lines();
    assert_eq!(lines[0], "5 images in 2 classes: cat 2, dog 3");
    assert_eq!(lines[1], "train: 5 images: trained on");
    let heic = refusal(
        &{
            put(folder.path(), "phone/x/1.heic", b"x");
            folder.path().join("phone")
        },
        None,
    );
    assert!(heic.contains("no image to train on: 1 of 1 file is not read: 1 heic (x/1.heic)"), "{heic}");
}

#[test]
fn an_archive_beside_images_is_not_read_instead_of_them() {
    let folder = folder(&["cat/1.png", "dog/2.png"]);
    put(folder.path(), "backup.tar", &tar(&[("x.png", &png(9))]));
    let splits = open(folder.path(), None).unwrap();
    assert_eq!((splits.train.classes().len(), splits.train.len()), (2, 2));
    noted(&splits, &["archives beside the images are not read (`backup.tar`)"]);
    assert_eq!(splits.found.not_read["tar"].count, 1);
    // The other way round: a preview image beside archives.
    put(folder.path(), "shards/preview.png", &png(1));
    put(folder.path(), "shards/0.tar", &tar(&[("x.png", &png(9)), ("y.png", &png(8))]));
    let shards = open(&folder.path().join("shards"), None).unwrap();
    assert_eq!((shards.train.len(), shards.found.not_read["image beside archives"].count), (2, 1));
}

#[test]
fn one_image_is_data_too() {
    let folder = folder(&["a b.png"]);
    let splits = open(&folder.path().join("a b.png"), None).unwrap();
    assert_eq!(listed(&splits.train), [row("a b.png", None, 1)]);
    put(folder.path(), "notes.txt", b"text");
    let text = refusal(&folder.path().join("notes.txt"), None);
    assert!(text.contains("not an image, an archive or a table") && text.contains("hint:"), "{text}");
}
