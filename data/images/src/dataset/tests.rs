//! Tests of the readers on small fixtures that each test makes.

use std::fs;
use std::io::Write;
use std::path::Path;

use ctk_core::data::dataset::Dataset;

use super::*;

mod archives;
mod broken;
mod captions;
mod layouts;
mod limits;
mod parquets;
mod tables;

/// A picture with `value` in its corner and a gradient elsewhere.
fn png(value: u8) -> Vec<u8> {
    let picture = ::image::RgbImage::from_fn(4, 3, |x, y| ::image::Rgb([value, (x * 20) as u8, (y * 20) as u8]));
    let mut out = std::io::Cursor::new(Vec::new());
    picture.write_to(&mut out, ::image::ImageFormat::Png).unwrap();
    out.into_inner()
}

fn put(root: &Path, name: &str, bytes: &[u8]) {
    let path = root.join(name);
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    fs::write(path, bytes).unwrap();
}

/// The data at `path` for training.
fn open(path: &Path, format: Option<Format>) -> Result<Splits> {
    let splits = super::open(path, format, &Columns::default())?;
    splits.found.trainable().at(path.display())?;
    Ok(splits)
}

/// The message of an attempt that must fail.
fn refusal(path: &Path, format: Option<Format>) -> String {
    open(path, format).err().expect("this must not open").to_string()
}

/// The name, label and first value of each image.
fn listed(images: &Images) -> Vec<(String, Option<u32>, u8)> {
    (0..images.len()).map(|i| (images.name(i), images.label(i), images.get(i).unwrap().pixels[0])).collect()
}

fn row(name: &str, label: impl Into<Option<u32>>, value: u8) -> (String, Option<u32>, u8) {
    (name.into(), label.into(), value)
}

#[test]
fn class_folders_with_splits() {
    let folder = tempfile::tempdir().unwrap();
    let root = folder.path();
    for (name, value) in [("train/dog/b.png", 1), ("train/dog/a.PNG", 2), ("train/cat/deep/x.png", 3), ("val/dog/z.png", 4)] {
        put(root, name, &png(value));
    }
    put(root, "unlabelled/u.png", &png(5));
    put(root, "train/dog/.DS_Store", b"x");
    put(root, "train/dog/notes.txt", b"x");
    let splits = open(root, None).unwrap();
    assert_eq!(splits.train.classes(), ["cat", "dog"]);
    let train = [row("train/cat/deep/x.png", 0, 3), row("train/dog/a.PNG", 1, 2), row("train/dog/b.png", 1, 1)];
    assert_eq!(listed(&splits.train), train);
    assert_eq!(listed(splits.test.as_ref().unwrap()), [row("val/dog/z.png", 1, 4)], "numbered as in training");
    let names = |images: &Images| images.names();
    assert_eq!(names(&splits.pretraining()), ["train/cat/deep/x.png", "train/dog/a.PNG", "train/dog/b.png", "unlabelled/u.png"]);
    assert_eq!(splits.all().len(), 5);
    assert_eq!(splits.pretraining().labels(), None);
    let picture = splits.train.get(0).unwrap();
    assert_eq!((picture.height, picture.width, picture.at(2, 3)), (3, 4, [3, 60, 40]));
}

#[test]
fn class_folders_alone_also_one_folder_deeper() {
    let folder = tempfile::tempdir().unwrap();
    put(folder.path(), "archive/v1/b/1.png", &png(1));
    put(folder.path(), "archive/v1/a/1.png", &png(2));
    put(folder.path(), "archive/README.txt", b"x");
    let splits = open(folder.path(), None).unwrap();
    assert!(splits.test.is_none() && splits.unlabelled.is_none() && splits.labelled());
    assert_eq!(listed(&splits.train), [row("a/1.png", 0, 2), row("b/1.png", 1, 1)]);
}

#[test]
fn a_flat_folder_has_no_labels() {
    let folder = tempfile::tempdir().unwrap();
    put(folder.path(), "2.png", &png(2));
    put(folder.path(), "1.png", &png(1));
    let splits = open(folder.path(), None).unwrap();
    assert_eq!(listed(&splits.train), [row("1.png", None, 1), row("2.png", None, 2)]);
    assert!(!splits.labelled());
    // With the format given, classes are ignored and folders are searched.
    put(folder.path(), "cat/3.png", &png(3));
    assert_eq!(open(folder.path(), Some(Format::Flat)).unwrap().train.len(), 3);
}

fn cifar_record(labels: &[u8], value: u8) -> Vec<u8> {
    let planes = [value, 100, 200].into_iter().flat_map(|v| (0..1024).map(move |i| if i == 33 { v + 1 } else { v }));
    labels.iter().copied().chain(planes).collect()
}

#[test]
fn cifar_10_and_100() {
    let folder = tempfile::tempdir().unwrap();
    let inner = "cifar-10-batches-bin";
    let root = folder.path().join(inner);
    put(&root, "data_batch_2.bin", &[cifar_record(&[9], 3), cifar_record(&[0], 4)].concat());
    put(&root, "data_batch_1.bin", &cifar_record(&[5], 1));
    put(&root, "test_batch.bin", &cifar_record(&[7], 2));
    put(&root, "batches.meta.txt", b"a\nb\nc\nd\ne\nf\ng\nh\ni\nj\n\n");
    let splits = open(folder.path(), None).unwrap();
    let train = [row("data_batch_1.bin/00000", 5, 1), row("data_batch_2.bin/00000", 9, 3), row("data_batch_2.bin/00001", 0, 4)];
    assert_eq!(listed(&splits.train), train);
    assert_eq!(listed(splits.test.as_ref().unwrap()), [row("test_batch.bin/00000", 7, 2)]);
    assert_eq!(splits.train.classes()[2], "c");
    let picture = splits.train.get(0).unwrap();
    assert_eq!((picture.at(0, 0), picture.at(1, 1), picture.at(1, 0)), ([1, 100, 200], [2, 101, 201], [1, 100, 200]));

    put(&root, "data_batch_2.bin", &cifar_record(&[9], 3)[1..]);
    let cut = refusal(&root, None);
    assert!(
        cut.contains("3072 bytes are not a whole number") && cut.contains("data_batch_2.bin") && cut.contains("hint:"),
        "{cut}"
    );
    put(&root, "data_batch_2.bin", &cifar_record(&[10], 3));
    let label = refusal(&root, None);
    assert!(label.contains("label 10, and there are 10 classes") && label.contains("record 0"), "{label}");

    let hundred = tempfile::tempdir().unwrap();
    put(hundred.path(), "train.bin", &[cifar_record(&[1, 99], 8), cifar_record(&[0, 3], 9)].concat());
    put(hundred.path(), "test.bin", &cifar_record(&[1, 42], 7));
    let splits = open(hundred.path(), None).unwrap();
    assert_eq!(listed(&splits.train), [row("train.bin/00000", 99, 8), row("train.bin/00001", 3, 9)], "the fine label");
    assert_eq!((splits.train.classes().len(), listed(&splits.test.unwrap())[0].1), (100, Some(42)));
}

#[test]
fn stl_10() {
    let folder = tempfile::tempdir().unwrap();
    let root = folder.path();
    // Column-major: the second byte of a plane is one row down.
    let record = |value: u8| {
        let mut bytes = vec![value; 3 * 96 * 96];
        (bytes[1], bytes[96 * 96 + 96]) = (111, 222);
        bytes
    };
    put(root, "train_X.bin", &[record(1), record(2)].concat());
    put(root, "train_y.bin", &[10, 1]);
    put(root, "test_X.bin", &record(3));
    put(root, "test_y.bin", &[4]);
    put(root, "unlabeled_X.bin", &[record(5), record(6), record(7)].concat());
    let splits = open(root, None).unwrap();
    assert_eq!(listed(&splits.train), [row("train_X.bin/000000", 9, 1), row("train_X.bin/000001", 0, 2)]);
    assert_eq!(splits.test.as_ref().unwrap().label(0), Some(3));
    assert_eq!(splits.pretraining().len(), 5, "training and unlabelled images, no test image");
    let picture = splits.train.get(0).unwrap();
    assert_eq!((picture.at(1, 0), picture.at(0, 1)), ([111, 1, 1], [1, 222, 1]));
    put(root, "train_y.bin", &[10]);
    assert!(refusal(root, None).contains("there are 1 labels"));
    put(root, "train_y.bin", &[10, 0]);
    assert!(refusal(root, None).contains("label 0, and labels are 1 to 10"));
}

fn idx(shape: &[u32], body: &[u8]) -> Vec<u8> {
    let header = [0, 0, 8, shape.len() as u8].into_iter().chain(shape.iter().flat_map(|d| d.to_be_bytes()));
    header.chain(body.iter().copied()).collect()
}

fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut out = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    out.write_all(bytes).unwrap();
    out.finish().unwrap()
}

#[test]
fn idx_plain_and_zipped() {
    let folder = tempfile::tempdir().unwrap();
    let root = folder.path();
    put(root, "train-images-idx3-ubyte", &idx(&[2, 2, 3], &(0..12).collect::<Vec<u8>>()));
    put(root, "train-labels-idx1-ubyte", &idx(&[2], &[1, 0]));
    put(root, "t10k-images-idx3-ubyte.gz", &gzip(&idx(&[1, 2, 3], &(50..56).collect::<Vec<u8>>())));
    put(root, "t10k-labels-idx1-ubyte.gz", &gzip(&idx(&[1], &[2])));
    let splits = open(root, None).unwrap();
    let name = "train-images-idx3-ubyte";
    assert_eq!(listed(&splits.train), [row(&format!("{name}/00000"), 1, 0), row(&format!("{name}/00001"), 0, 6)]);
    let picture = splits.train.get(1).unwrap();
    assert_eq!((picture.height, picture.width, picture.at(1, 2)), (2, 3, [11; 3]));
    assert_eq!(listed(splits.test.as_ref().unwrap()), [row("t10k-images-idx3-ubyte.gz/00000", 2, 50)]);
    assert_eq!(splits.train.classes().len(), 3);
    put(root, "train-labels-idx1-ubyte", &idx(&[3], &[1, 0, 1]));
    assert!(refusal(root, None).contains("3 labels, and there are 2 images"));
    put(root, "train-labels-idx1-ubyte", &idx(&[2], &[1, 0]));
    put(root, name, &idx(&[2, 2, 3], &[0; 11]));
    assert!(refusal(root, None).contains("is shorter than its header says"));
    put(root, name, &idx(&[u32::MAX, u32::MAX, 3], &[0; 11]));
    assert!(refusal(root, None).contains("hint") || refusal(root, None).contains("images"), "no allocation of what is not there");
    put(root, name, b"\x00\x00\x0d\x03");
    assert!(refusal(root, None).contains("not an IDX file"));
}

fn tar(entries: &[(&str, &[u8])]) -> Vec<u8> {
    let mut builder = ::tar::Builder::new(Vec::new());
    for (name, bytes) in entries {
        let mut header = ::tar::Header::new_gnu();
        header.set_size(bytes.len() as u64);
        header.set_mode(0o644);
        builder.append_data(&mut header, name, *bytes).unwrap();
    }
    builder.into_inner().unwrap()
}

#[test]
fn tar_files_by_webdatasets_names() {
    let folder = tempfile::tempdir().unwrap();
    let root = folder.path();
    let first = tar(&[
        ("a/0001.png", &png(1)),
        ("a/0001.cls", b"2\n"),
        ("a/0001.json", b"{}"),
        ("a/0002.cls", b"0"),
        ("a/0002.png", &png(2)),
    ]);
    let second = tar(&[("x.png", &png(3)), ("x.cls", b"1"), ("x.seg.png", &png(9)), ("y.jpg.bak", b"")]);
    put(root, "shard-1.tar", &second);
    put(root, "shard-0.tar", &first);
    put(root, "val-0.tar", &tar(&[("v.png", &png(4)), ("v.cls", b"1")]));
    let splits = open(root, None).unwrap();
    let train = [row("shard-0.tar/a/0001", 2, 1), row("shard-0.tar/a/0002", 0, 2), row("shard-1.tar/x", 1, 3)];
    assert_eq!(listed(&splits.train), train);
    assert_eq!(listed(splits.test.as_ref().unwrap()), [row("val-0.tar/v", 1, 4)]);
    assert_eq!(splits.train.classes(), ["0", "1", "2"]);
    // One file alone, without labels.
    put(root, "val-0.tar", &tar(&[("v.png", &png(4)), ("w.png", &png(5))]));
    let alone = open(&root.join("val-0.tar"), None).unwrap();
    assert!(!alone.labelled() && alone.test.is_none() && alone.train.len() == 2);
    put(root, "mixed/m.tar", &tar(&[("v.png", &png(4)), ("v.cls", b"1"), ("w.png", &png(5))]));
    let mixed = open(&root.join("mixed"), None).unwrap();
    assert_eq!(
        (listed(&mixed.train), listed(mixed.unlabelled.as_ref().unwrap())),
        (vec![row("m.tar/v", 1, 4)], vec![row("m.tar/w", None, 5)])
    );
    assert!(mixed.found.notes[0].contains("without a .cls (m.tar/w)"), "{:?}", mixed.found.notes);
    put(root, "bad/m.tar", &tar(&[("v.png", &png(4)), ("v.cls", b"cat")]));
    assert!(refusal(&root.join("bad"), None).contains("`cat` is not a class number"));
    put(root, "cut/m.tar", &first[..600]);
    let cut = refusal(&root.join("cut"), None);
    assert!(cut.contains("m.tar") && cut.contains("hint"), "{cut}");
}

#[test]
fn bad_paths_say_what_where_and_what_to_do() {
    let folder = tempfile::tempdir().unwrap();
    let root = folder.path();
    for (make, wanted) in [
        (None, "there is no such file or folder"),
        (Some("empty/.keep"), "there is no image to train on"),
        (Some("text/a.txt"), "there is no image to train on"),
        (Some("untested/test/cat/1.png"), "there is a test split here (`test`), and no train/ beside it"),
        (Some("pickles/cifar-10-batches-py/data_batch_1"), "Python pickles"),
    ] {
        let name = make.map_or("missing", |file| file.split('/').next().unwrap());
        if let Some(file) = make {
            put(root, file, &png(1));
            if name == "pickles" {
                put(root, "pickles/cifar-10-batches-py/batches.meta", b"");
            }
        }
        let path = root.join(name);
        let error = open(&path, None).err().unwrap();
        let text = error.to_string();
        assert!(text.contains(wanted) && text.contains(&path.display().to_string()) && text.contains("hint:"), "{text}");
        assert_eq!(error.exit_code(), 2, "{text}");
    }
    put(root, "two/cat/1.png", &png(1));
    put(root, "two/dog/1.png", &png(1));
    for (format, wanted) in [
        (Format::Cifar, "not CIFAR's binary version"),
        (Format::Stl, "not STL-10's binary folder"),
        (Format::Idx, "no IDX training set"),
        (Format::Tar, "no image in these archives"),
    ] {
        let text = refusal(&root.join("two"), Some(format));
        assert!(text.contains(wanted) && text.contains("hint:") && text.contains("two"), "{text}");
    }
}

#[test]
fn an_unreadable_image_is_named() {
    let folder = tempfile::tempdir().unwrap();
    put(folder.path(), "good.png", &png(1));
    put(folder.path(), "half.png", &png(2)[..50]);
    let images = open(folder.path(), None).unwrap().train;
    let text = images.get(1).unwrap_err().to_string();
    assert!(text.contains("cannot decode the image") && text.contains("half.png") && text.contains("hint:"), "{text}");
    assert!(images.digests().unwrap_err().to_string().contains("half.png"));
}

fn real(name: &str) -> PathBuf {
    PathBuf::from(std::env::var("CTK_DATA").expect("CTK_DATA names the folder of real data")).join("vision").join(name)
}

#[test]
#[cfg_attr(not(ctk_data), ignore = "needs CTK_DATA")]
fn cifars_own_layout() {
    let splits = open(&real("cifar10-mini-bin"), None).unwrap();
    let test = splits.test.unwrap();
    for (images, each) in [(&splits.train, 100), (&test, 20)] {
        let labels = images.labels().unwrap();
        assert!((0..10).all(|class| labels.iter().filter(|&&l| l == class).count() == each));
    }
    assert_eq!(splits.train.classes()[9], "truck");
    // Photos are smooth if planes and rows are read correctly: neighbouring pixels differ far less than distant ones.
    let picture = splits.train.get(17).unwrap();
    let step = |dy: usize, dx: usize| -> f64 {
        let differences = (0..16 * 16).map(|i| {
            let (a, b) = (picture.at(i / 16, i % 16), picture.at(i / 16 + dy, i % 16 + dx));
            (0..3).map(|c| f64::from(a[c].abs_diff(b[c]))).sum::<f64>()
        });
        differences.sum()
    };
    assert!(step(0, 1) < 0.6 * step(0, 16) && step(1, 0) < 0.6 * step(16, 0));
}

#[test]
#[cfg_attr(not(ctk_data), ignore = "needs CTK_DATA")]
fn photos_of_mixed_sizes_decode() {
    let splits = open(&real("imagenet-sample-60"), None);
    // Their extension is .JPEG, and they are in no class folder.
    let images = splits.unwrap().train;
    assert_eq!(images.len(), 60);
    let gray = (0..60).filter(|&i| images.get(i).unwrap().pixels.as_chunks::<3>().0.iter().all(|p| p[0] == p[1] && p[1] == p[2]));
    assert_eq!(gray.count(), 20);
    assert!(images.median_side(60).unwrap() > 100);
    // They are decoded without the `image` crate, which is the oracle here: the pixels are the same.
    for (i, name) in images.names().into_iter().enumerate() {
        let theirs = image::open(real("imagenet-sample-60").join(&name)).unwrap().into_rgb8();
        assert_eq!(images.get(i).unwrap().pixels, theirs.into_raw(), "{name}");
    }
}

#[test]
#[cfg_attr(not(ctk_data), ignore = "needs CTK_DATA")]
fn flowers_copies_stay_on_one_side() {
    let images = open(&real("flowers128"), None).unwrap().train;
    assert_eq!((images.len(), images.classes().len()), (4317, 5));
    let digests = images.digests().unwrap();
    let distinct: std::collections::HashSet<_> = digests.iter().collect();
    assert_eq!(images.len() - distinct.len(), 6, "exact duplicates");
    let split = crate::holdout::Holdout::draw(&images, crate::holdout::SHARE, 0).unwrap();
    let splits = split.apply(&images).unwrap();
    let side = |images: &Images| images.digests().unwrap().into_iter().collect::<std::collections::HashSet<_>>();
    assert!(side(&splits.train).is_disjoint(&side(&splits.test.unwrap())));
    assert!((860..=866).contains(&split.held_out.len()), "{}", split.line());
}
