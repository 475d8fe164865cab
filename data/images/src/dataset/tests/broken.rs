//! Tests of images that cannot be read: they are found before training, and listed or left out.

use super::*;

/// Images `0.png` to `count - 1` in two classes, some of them replaced by broken content.
fn folder(count: usize, broken: &[(usize, &[u8])]) -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    for i in 0..count {
        put(folder.path(), &format!("{}/{i:03}.png", ["cat", "dog"][i % 2]), &png(i as u8));
    }
    for (i, bytes) in broken {
        put(folder.path(), &format!("{}/{i:03}.png", ["cat", "dog"][i % 2]), bytes);
    }
    folder
}

#[test]
fn all_of_them_are_listed_before_training() {
    let whole = png(7);
    let cut = &whole[..whole.len() - 14];
    let folder = folder(20, &[(1, b""), (4, b"no image at all"), (9, cut), (12, &whole[..30])]);
    let splits = || open(folder.path(), None).unwrap();
    let error = splits().scanned(folder.path(), OnError::Fail).err().unwrap();
    let text = error.to_string();
    assert!(text.starts_with("4 images cannot be read"), "{text}");
    for name in ["dog/001.png: this file is empty", "cat/004.png: ", "dog/009.png: ", "cat/012.png: "] {
        assert!(text.contains(&format!("--> {name}")), "{name} in {text}");
    }
    assert!(text.contains("hint:") && text.contains("data.on_error=skip"), "{text}");

    let kept = splits().scanned(folder.path(), OnError::Skip).unwrap();
    assert_eq!((kept.train.len(), kept.count("train"), kept.skipped().len()), (16, 16, 4));
    assert!(kept.train.names().iter().all(|name| !["001", "004", "009", "012"].iter().any(|bad| name.contains(bad))));
    let line = kept.found.skipped_line().unwrap();
    assert!(line.starts_with("4 images that cannot be read left out: ") && line.ends_with(", …"), "{line}");
    let sizes = kept.found.sizes.unwrap();
    assert_eq!((sizes.median, sizes.pixels, kept.found.bytes > 16 * 50), ((3, 4), 16 * 12, true));
}

#[test]
fn whole_files_of_every_place_pass() {
    let folder = folder(6, &[]);
    assert_eq!(open(folder.path(), None).unwrap().scanned(folder.path(), OnError::Fail).unwrap().train.len(), 6);
    let (one, two) = (png(1), png(2));
    put(folder.path(), "a.tar", &tar(&[("a.png", &one), ("b.png", &two[..40])]));
    put(folder.path(), "a.tar.gz", &gzip(&tar(&[("a.png", &one), ("b.png", &two[..40])])));
    for name in ["a.tar", "a.tar.gz"] {
        let at = folder.path().join(name);
        let text = open(&at, None).unwrap().scanned(&at, OnError::Fail).err().unwrap().to_string();
        assert!(text.starts_with("1 image cannot be read") && text.contains("b"), "{text}");
        assert_eq!(open(&at, None).unwrap().scanned(&at, OnError::Skip).unwrap().train.len(), 1);
    }
    let none = self::folder(2, &[(0, b"x"), (1, b"y")]);
    let text = open(none.path(), None).unwrap().scanned(none.path(), OnError::Skip).err().unwrap().to_string();
    assert!(text.contains("2 images cannot be read"), "nothing is left to train on: {text}");
}

#[test]
fn one_that_goes_bad_while_training_is_replaced_by_the_next_of_its_class() {
    let folder = folder(8, &[]);
    let splits = open(folder.path(), None).unwrap().scanned(folder.path(), OnError::Skip).unwrap();
    put(folder.path(), "cat/002.png", b"gone bad");
    let images = splits.train.clone();
    let place = images.names().iter().position(|name| name == "cat/002.png").unwrap();
    assert_eq!(images.picture(place).unwrap(), images.picture(place + 1).unwrap());
    assert_eq!(images.label(place), images.label(place + 1));
    // Reported once, whichever part of the images it occurred in.
    assert!(images.select(&[place]).picture(0).is_err(), "there is no other");
    let met = splits.skipped();
    assert_eq!(met.iter().map(|bad| bad.path.as_str()).collect::<Vec<_>>(), ["cat/002.png"]);
    let parted = Splits { test: Some(images.clone()), ..splits.clone() };
    assert_eq!(parted.skipped().len(), 1, "parts of the same images know of the same ones");
    let strict = open(folder.path(), None).unwrap().train;
    assert!(strict.picture(place).unwrap_err().to_string().contains("002.png"));
}

#[test]
fn a_check_tells_files_copies_and_leaks() {
    let folder = tempfile::tempdir().unwrap();
    let root = folder.path();
    let names = ["train/cat/1.png", "train/cat/2.png", "train/dog/3.png", "test/cat/4.png", "test/dog/5.png"];
    names.iter().zip(1..).for_each(|(name, value)| put(root, name, &png(value)));
    put(root, "train/dog/copy.png", &png(1));
    put(root, "test/dog/leak.png", &png(3));
    put(root, "train/cat/broken.png", b"x");
    put(root, "notes.txt", b"x");
    let augment = crate::augment::AugmentRecipe::default().check(&ctk_core::recipe::Recipe::new("test", "")).unwrap();
    let found = crate::check::check(open(root, None).unwrap(), root, &augment, 0).unwrap();
    let keys: Vec<&String> = found.figures.as_object().unwrap().keys().collect();
    assert_eq!(keys, ["files", "images", "labelled", "classes", "parts", "not_read", "bad", "duplicates", "leaks", "bytes"]);
    let figures = &found.figures;
    let counts = ["files", "images", "labelled", "duplicates", "leaks"].map(|key| figures[key].as_u64().unwrap());
    assert_eq!(counts, [9, 7, 7, 2, 1]);
    assert_eq!(figures["classes"], serde_json::json!({"cat": 3, "dog": 4}));
    assert_eq!(figures["parts"], serde_json::json!({"train": 4, "val": 0, "test": 3}));
    assert_eq!(figures["not_read"], serde_json::json!({"txt": 1}));
    assert_eq!((&figures["bad"][0]["path"], figures["bad"].as_array().unwrap().len()), (&"train/cat/broken.png".into(), 1));
    assert!(figures["bad"][0]["why"].as_str().unwrap().len() > 5 && figures["bytes"].as_u64().unwrap() > 300);
    let text = found.lines.join("\n");
    for line in [
        "2 copies of other images",
        "1 image under several classes",
        "1 image that is held out and also trained on: test/dog/leak.png = train/dog/3.png",
        "  train/cat/broken.png: ",
    ] {
        assert!(text.contains(line), "{line} in {text}");
    }
}
