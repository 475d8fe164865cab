//! Tests of Parquet tables of images, written by `datasets`, pandas and pyarrow (`tests/make_parquet.py`).

use super::*;

fn fixtures() -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    let packed = flate2::read::GzDecoder::new(&include_bytes!("../../../tests/fixtures/parquet.tar.gz")[..]);
    ::tar::Archive::new(packed).unpack(folder.path()).unwrap();
    folder
}

fn text(splits: Splits) -> String {
    splits.finish().lines().join("\n")
}

/// The label and first value of each image.
fn shown(images: &Images) -> Vec<(Option<u32>, u8)> {
    listed(images).into_iter().map(|(_, label, value)| (label, value)).collect()
}

#[test]
fn a_data_set_of_the_hub_is_read_as_its_library_writes_it() {
    let folder = fixtures();
    let root = folder.path().join("hub");
    let splits = open(&root, None).unwrap();
    assert_eq!(splits.train.classes(), ["cat", "dog", "owl"]);
    let train = |shard: usize, number: u8, label: u32| {
        row(&format!("data/train-0000{shard}-of-00002.parquet/{number:04}.png"), label, number)
    };
    let expected =
        [train(0, 3, 0), train(1, 6, 0), train(0, 1, 1), train(0, 4, 1), train(0, 2, 2), train(1, 5, 2), train(1, 8, 2)];
    assert_eq!(listed(&splits.train), expected, "classes by the names that the file notes");
    assert_eq!(shown(splits.unlabelled.as_ref().unwrap()), [(None, 7)]);
    assert_eq!(shown(splits.val.as_ref().unwrap()), [(Some(1), 31), (Some(2), 32)]);
    assert_eq!(shown(splits.test.as_ref().unwrap()), [(Some(0), 21), (Some(1), 22), (Some(2), 23)]);
    let whole = splits.scanned(&root, OnError::Fail).unwrap();
    let sizes = whole.found.sizes.unwrap();
    assert_eq!((sizes.smallest, sizes.largest, sizes.pixels), ((3, 4), (3, 4), 13 * 12));
    assert_eq!((whole.found.files, whole.found.unread(), whole.found.bytes > 13 * 60), (15, 2, true));
    let text = text(whole);
    for said in [
        "`image` holds images, `label` holds labels",
        "1 image has no class: its label is -1",
        "are unpacked to a temporary file in",
        "measured on while training, by the file's name",
        "1 image beside tables (preview.png); 1 md (README.md)",
    ] {
        assert!(text.contains(said), "{said} in {text}");
    }
    // The folder of tables, a glob, and one table alone.
    assert_eq!(open(&root.join("data"), None).unwrap().images(), 13);
    let glob = open_all(&[root.join("data/*.parquet")], None, &Columns::default()).unwrap();
    assert_eq!((glob.train.len(), glob.test.as_ref().unwrap().len()), (7, 3));
    assert_eq!(glob.train.name(0), "train-00000-of-00002.parquet/0003.png");
    let test = root.join("data/test-00000-of-00001.parquet");
    let alone = open(&test, None).unwrap();
    assert_eq!(
        (alone.train.names(), alone.test.is_none()),
        (["0021.png", "0022.png", "0023.png"].map(String::from).to_vec(), true)
    );
    assert_eq!(open(&test, Some(Format::Table)).unwrap().train.len(), 3);
    let two = open_all(&[root.join("data/train-00001-of-00002.parquet"), test], None, &Columns::default()).unwrap();
    assert_eq!((two.train.len(), two.test.unwrap().len()), (3, 2), "no dog to learn from");
    fs::remove_file(root.join("data/train-00000-of-00002.parquet")).unwrap();
    fs::remove_file(root.join("data/train-00001-of-00002.parquet")).unwrap();
    let text = refusal(&root, None);
    assert!(text.contains("tables of a test split here, and none to train on") && text.contains("hint:"), "{text}");
}

#[test]
fn parts_by_folders_and_several_kinds_of_classes() {
    let folder = fixtures();
    let root = folder.path().join("converted");
    let splits = open(&root, None).unwrap();
    assert_eq!(splits.train.classes(), ["u", "v", "w", "x", "y", "z"]);
    assert_eq!(listed(&splits.train)[0], row("default/train/0000.parquet/00005", 0, 6), "a row without a file's name");
    assert_eq!(shown(splits.test.as_ref().unwrap()), [(Some(0), 12), (Some(1), 13), (Some(5), 11)]);
    let text = text(splits);
    let said = "several columns hold classes (`coarse_label`, `fine_label`): `fine_label` is read, which has the most";
    assert!(text.contains(said) && text.contains("--set data.columns.label=NAME"), "{text}");
    let columns = Columns { label: Some("coarse_label".into()), ..Columns::default() };
    assert_eq!(super::super::open(&root, None, &columns).unwrap().train.classes(), ["a", "b"]);
}

#[test]
fn every_way_to_write_bytes_of_images() {
    let folder = fixtures();
    for name in ["none", "snappy", "gzip", "zstd", "lz4", "second"] {
        let splits = open(&folder.path().join(format!("{name}.parquet")), None).unwrap();
        assert_eq!(splits.train.classes(), ["a", "b"], "{name}");
        let expected =
            [(0, 2), (0, 4), (0, 6), (0, 8), (1, 1), (1, 3), (1, 7), (1, 9)].map(|(label, value)| (Some(label), value));
        assert_eq!((shown(&splits.train), splits.train.name(0)), (expected.to_vec(), "00001".to_string()), "{name}");
        assert_eq!(listed(splits.unlabelled.as_ref().unwrap()), [row("00004", None, 5)], "{name}: a row without a label");
        assert!(text(splits).contains("1 image has no class (00004): trained on without"));
    }
    // Empty cells, numbers that pandas turned into decimals, parts and groups.
    let splits = open(&folder.path().join("pandas.parquet"), None).unwrap();
    assert_eq!(splits.train.classes(), ["0", "1"]);
    assert_eq!(shown(&splits.train), [(Some(0), 4), (Some(0), 6), (Some(1), 1), (Some(1), 5)]);
    assert_eq!(splits.train.group(0), Some("2"));
    assert_eq!(shown(splits.test.as_ref().unwrap()), [(Some(0), 8), (Some(1), 7), (Some(1), 9)]);
    let text = text(splits);
    for said in [
        "1 of 9 files is not read: 1 row without an image (00001)",
        "labels are numbers, and the table does not say what they mean: classes are called by their numbers",
        "`split` holds parts, `patient` holds groups",
    ] {
        assert!(text.contains(said), "{said} in {text}");
    }
}

#[test]
fn tables_of_paths_are_read_as_others_are() {
    let folder = fixtures();
    let splits = open(&folder.path().join("paths.parquet"), None).unwrap();
    assert_eq!(splits.train.classes(), ["cat", "dog"]);
    let cats = [row("2.png", 0, 2), row("3.png", 0, 3), row("4.png", 0, 4)];
    assert_eq!((&listed(&splits.train)[..3], splits.train.len()), (&cats[..], 8));
    assert!(text(splits).contains("1 rows name an image that another row names: it is read once; 1 image of several classes"));
    let splits = open(&folder.path().join("numbers.parquet"), None).unwrap();
    assert_eq!((splits.train.classes().len(), shown(&splits.train)[0]), (3, (Some(0), 3)), "a number is a file's name");
    let splits = open(&folder.path().join("outside/table.parquet"), None).unwrap();
    assert_eq!(listed(&splits.train), [row("2.png", 0, 2), row("4.png", 0, 4), row("1.png", 1, 1), row("3.png", 1, 3)]);
}

#[test]
fn columns_are_named_and_what_is_no_table_of_images_is_told() {
    let folder = fixtures();
    let file = |name: &str| folder.path().join(format!("{name}.parquet"));
    for (name, parts) in [
        ("empty", &["this table has no row"][..]),
        ("nulls", &["this table has no row with an image"]),
        ("lists", &["no column of this table is known to hold images: it has images (lists), pixels (lists), label"]),
        ("figures", &["it has width, box (a structure), label", "--set data.columns.path=NAME"]),
        ("brotli", &["compressed by Brotli, which ctk cannot read", "Snappy"]),
        ("encrypted", &["is encrypted"]),
        ("half-encrypted", &["cannot read the column `image`", "or this column is encrypted"]),
        ("classes", &["row 1 is of class 2, and the table names 2 classes"]),
    ] {
        let text = refusal(&file(name), None);
        assert!(parts.iter().all(|part| text.contains(part)) && text.contains("hint:"), "{name}: {text}");
        assert!(text.contains(&format!("{name}.parquet")), "{text}");
    }
    let with = |name: &str, columns: Columns| super::super::open(&file(name), None, &columns);
    let path = |name: &str| Columns { path: Some(name.into()), ..Columns::default() };
    for (name, columns, wanted) in [
        ("lists", path("images"), "the column `images` holds lists, which are not images"),
        ("figures", path("box"), "the column `box` holds a structure without `bytes`"),
        ("figures", path("photo"), "there is no column `photo`: the table has width, box (a structure), label"),
        (
            "labels",
            Columns { label: Some("label".into()), ..Columns::default() },
            "`label` holds lists, and a label is text or a number",
        ),
        ("labels", Columns { group: Some("taken".into()), ..Columns::default() }, "and a group is text or a number"),
    ] {
        let text = with(name, columns).err().unwrap().to_string();
        assert!(text.contains(wanted) && text.contains("hint:") && text.contains(name), "{text}");
    }
    let splits = open(&file("labels"), None).unwrap();
    assert_eq!((splits.labelled(), splits.images()), (false, 2));
    assert!(text(splits).contains("the column `label` is not read: it holds lists"));
    assert_eq!(with("zstd", path("PICTURE")).unwrap().images(), 9, "capitals do not matter");
    // A cell that is not an image is one bad image, named by its row.
    let text = open(&file("text"), None).unwrap().scanned(&file("text"), OnError::Fail).err().unwrap().to_string();
    assert!(text.starts_with("1 image cannot be read") && text.contains("00000: "), "{text}");
    assert_eq!(open(&file("text"), None).unwrap().scanned(&file("text"), OnError::Skip).unwrap().images(), 2);
    put(folder.path(), "pointer/train.parquet", b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 12345\n");
    let text = refusal(&folder.path().join("pointer"), None);
    assert!(text.contains("Git LFS") && text.contains("git lfs pull"), "{text}");
    put(folder.path(), "pointer/all.tar", &tar(&[("a.png", &png(1)), ("b.png", &png(2))]));
    let text = open(&folder.path().join("pointer"), None).unwrap().finish().lines().join("\n");
    assert!(text.contains("1 table beside archives (train.parquet)"), "{text}");
    put(folder.path(), "bare/a.txt", b"");
    let text = refusal(&folder.path().join("bare"), Some(Format::Table));
    assert!(text.contains("no Parquet table in this folder"), "{text}");
}
