//! Tests of tables of paths and labels in their usual forms.

use super::*;
use crate::holdout::Holdout;

/// A folder of images `1.png` to `8.png` in `images/`, and a table beside them.
fn folder(name: &str, table: &str) -> (tempfile::TempDir, PathBuf) {
    let folder = tempfile::tempdir().unwrap();
    (1..=8).for_each(|value| put(folder.path(), &format!("images/{value}.png"), &png(value)));
    put(folder.path(), name, table.as_bytes());
    let path = folder.path().join(name);
    (folder, path)
}

#[test]
fn columns_are_found_by_name_in_every_kind_of_table() {
    let json = "{\"file_name\": \"1.png\", \"label\": \"cat\"}\n{\"label\": \"dog\", \"file_name\": \"2.png\", \"x\": null}\n\n{\"file_name\": \"3.png\", \"label\": \"cat\"}\n";
    for (name, table) in [
        ("labels.csv", "image,label\n1.png,cat\n2.png,dog\n3.png,cat\n"),
        ("labels.CSV", "\u{feff}species;filename;x\r\ncat;images/1.png;0\r\ndog;images/2.png;0\r\n\"cat\";images/3.png;0\r\n"),
        ("labels.tsv", "Path\tClass\nimages/1.png\tcat\nimages/2.png\tdog\nimages/3.png\tcat\n"),
        ("metadata.jsonl", json),
        ("train.csv", "id,breed\n1,cat\n2,dog\n3,cat\n"),
        ("bare.csv", "images/1.png,cat\nimages/2.png,dog\nimages/3.png,cat\n"),
    ] {
        let (_folder, path) = folder(name, table);
        let splits = open(&path, None).unwrap();
        assert_eq!(splits.train.classes(), ["cat", "dog"], "{name}");
        let rows: Vec<(Option<u32>, u8)> = listed(&splits.train).into_iter().map(|(_, label, value)| (label, value)).collect();
        assert_eq!(rows, [(Some(0), 1), (Some(0), 3), (Some(1), 2)], "{name}");
        assert!(splits.scanned(&path, OnError::Fail).is_ok(), "{name}");
    }
}

#[test]
fn parts_missing_labels_and_files() {
    let table = "path,label,split\n1.png,3,train\n2.png,10,Train\n3.png,,train\n4.png,3,validation\n5.png,10,test\n6.png,,test\n7.png,3,other\n8.png,99,test\n";
    let (_folder, path) = folder("all.csv", table);
    let splits = open(&path, None).unwrap();
    assert_eq!(splits.train.classes(), ["3", "10"], "numbers in their order");
    let names = |images: &Option<Images>| images.as_ref().unwrap().names();
    assert_eq!(
        (splits.train.names(), names(&splits.unlabelled)),
        (vec!["1.png".to_string(), "2.png".into()], vec!["3.png".to_string()])
    );
    assert_eq!((names(&splits.val), names(&splits.test)), (vec!["4.png".to_string()], vec!["5.png".to_string()]));
    let kinds: Vec<(&str, usize)> = splits.found.not_read.iter().map(|(kind, of)| (kind.as_str(), of.count)).collect();
    assert_eq!(kinds, [("image outside the parts", 1), ("image without a class of the training part", 2)]);
    let text = splits.lines().join("\n");
    for said in [
        "`path` holds paths, `label` holds labels, `split` holds parts",
        "1 image has no class (3.png): trained on without",
        "measured on while training, by the table",
    ] {
        assert!(text.contains(said), "{said} in {text}");
    }
    let (_folder, path) = folder("gone.csv", "path,label\n1.png,a\ngone.png,b\n2.png,b\n");
    let text = open(&path, None).unwrap().scanned(&path, OnError::Fail).err().unwrap().to_string();
    assert!(text.starts_with("1 image cannot be read") && text.contains("gone.png: No such file"), "{text}");
}

#[test]
fn columns_that_are_named_and_tables_that_are_none() {
    let (_folder, path) = folder("odd.csv", "where,what,label\n1.png,a,x\n2.png,b,x\n");
    let text = refusal(&path, None);
    assert!(text.contains("it has where, what, label") && text.contains("data.columns.path"), "{text}");
    let columns = Columns { path: Some("where".into()), label: Some("what".into()), ..Columns::default() };
    assert_eq!(super::super::open(&path, None, &columns).unwrap().train.classes(), ["a", "b"]);
    let wrong = Columns { label: Some("which".into()), ..columns };
    let text = super::super::open(&path, None, &wrong).err().unwrap().to_string();
    assert!(text.contains("no column `which`") && text.contains("hint:"), "{text}");
    for (table, wanted) in [("path,label\n1.png,a\n2.png\n", "line: 3"), ("path,label\n", "no row"), ("", "paths of images")] {
        let (_folder, path) = folder("bad.csv", table);
        let text = refusal(&path, None);
        assert!(text.contains(wanted) && text.contains("hint:") && text.contains("bad.csv"), "{text}");
    }
    let (_folder, path) = folder("bad.jsonl", "{\"path\": \"1.png\"}\nnot json\n");
    assert!(refusal(&path, None).contains("line 2"));
}

#[test]
fn an_image_of_several_rows_is_one_image() {
    let (_folder, path) = folder("boxes.csv", "image,label\n1.png,a\n1.png,a\n2.png,a\n2.png,b\n3.png,b\n4.png,a\n");
    let splits = open(&path, None).unwrap();
    assert_eq!((splits.train.len(), splits.unlabelled.as_ref().unwrap().names()), (3, vec!["2.png".to_string()]));
    assert!(
        splits
            .lines()
            .join("\n")
            .contains("2 rows name an image that another row names: it is read once; 1 image of several classes")
    );
}

#[test]
fn a_hold_out_never_splits_a_group() {
    let folder = tempfile::tempdir().unwrap();
    let mut table = "path,label,patient\n".to_string();
    for i in 0..60_u8 {
        put(folder.path(), &format!("{i}.png"), &png(i));
        table.push_str(&format!("{i}.png,{},p{}\n", ["sick", "well"][usize::from(i % 2)], i / 6));
    }
    put(folder.path(), "scans.csv", table.as_bytes());
    let all = open(&folder.path().join("scans.csv"), None).unwrap().train;
    let mut drawn = std::collections::BTreeSet::new();
    for seed in 0..10 {
        let splits = Holdout::draw(&all, 0.2, seed).unwrap().apply(&all).unwrap();
        let groups = |images: &Images| {
            (0..images.len()).map(|i| images.group(i).unwrap().to_string()).collect::<std::collections::BTreeSet<_>>()
        };
        let (train, test) = (groups(&splits.train), groups(splits.test.as_ref().unwrap()));
        assert!(train.is_disjoint(&test) && test.len() == 2, "seed {seed}: {test:?}");
        drawn.extend(test);
    }
    assert!(drawn.len() > 4, "the seed chooses");
}
