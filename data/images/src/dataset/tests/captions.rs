//! Tests of captions: in tables of every kind, in tables beside images, in archives; and that images are read as before without them.

use super::archives::zip;
use super::*;
use crate::holdout::Holdout;
use crate::recipe::DataRecipe;

/// The data at `path` with captions.
fn captioned(path: &Path) -> Splits {
    open_captioned(path, None, &Columns::default()).unwrap()
}

/// The message of an attempt that must fail.
fn refused(path: &Path, columns: &Columns) -> String {
    let text = open_captioned(path, None, columns).err().expect("this must not open").to_string();
    assert!(text.contains("hint:") && text.contains(&file_name(path)), "{text}");
    text
}

fn named(names: &[&str]) -> Columns {
    let names = match names {
        [only] => ColumnNames::One((*only).to_string()),
        several => ColumnNames::Many(several.iter().map(ToString::to_string).collect()),
    };
    Columns { captions: Some(names), ..Columns::default() }
}

/// Each image's name and captions.
fn told(images: &Images) -> Vec<(String, Vec<String>)> {
    (0..images.len()).map(|i| (images.name(i), images.captions(i).iter().map(ToString::to_string).collect())).collect()
}

fn said(name: &str, captions: &[&str]) -> (String, Vec<String>) {
    (name.into(), captions.iter().map(ToString::to_string).collect())
}

fn text(splits: &Splits) -> String {
    splits.lines().join("\n")
}

fn says(splits: &Splits, parts: &[&str]) {
    let text = text(splits);
    assert!(parts.iter().all(|part| text.contains(part)), "{parts:?} in {text}");
}

/// A folder of images `1.png` to `8.png` in `images/`, and a table beside them.
fn folder(name: &str, table: &str) -> (tempfile::TempDir, PathBuf) {
    let folder = tempfile::tempdir().unwrap();
    (1..=8).for_each(|value| put(folder.path(), &format!("images/{value}.png"), &png(value)));
    put(folder.path(), name, table.as_bytes());
    let path = folder.path().join(name);
    (folder, path)
}

fn fixtures() -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    let packed = flate2::read::GzDecoder::new(&include_bytes!("../../../tests/fixtures/captions.tar.gz")[..]);
    ::tar::Archive::new(packed).unpack(folder.path()).unwrap();
    folder
}

#[test]
fn tables_of_every_kind_have_captions() {
    let json = "{\"file_name\": \"1.png\", \"text\": \"a, \\\"b\\\"\"}\n{\"file_name\": \"2.png\", \"text\": [\" c \", \"d\\ne\", null]}\n";
    for (name, table) in [
        ("one.csv", "image,caption\n1.png,\"a, \"\"b\"\"\"\n2.png,c\n2.png,\"d\ne\"\n"),
        ("bom.csv", "\u{feff}filename;title\r\n1.png;a, \"b\"\r\n2.png;  c\t\r\n2.png;\"d\ne\"\r\n"),
        ("one.tsv", "path\tDescription\nimages\\1.png\ta, \"b\"\nimages/2.png\t\"[\"\"c\"\", \"\"d\\ne\"\"]\"\n"),
        ("numbered.csv", "file,caption_2,caption_1\n1.png,,\"a, \"\"b\"\"\"\n2.png,\"d\ne\",c\n"),
        ("bare.csv", "images/1.png,\"a, \"\"b\"\"\"\nimages/2.png,c\nimages/2.png,\"d\ne\"\n"),
        ("captions.txt", "image,caption\n1.png,\"a, \"\"b\"\"\"\n2.png,c\n2.png,\"d\ne\"\n"),
        ("one.jsonl", json),
    ] {
        let (_folder, path) = folder(name, table);
        let splits = captioned(&path);
        let of: Vec<Vec<String>> = told(&splits.train).into_iter().map(|(_, captions)| captions).collect();
        assert_eq!(of, [vec!["a, \"b\""], vec!["c", "d\ne"]], "{name}");
        says(&splits, &["holds captions", "2 images with 3 captions"]);
        assert_eq!(splits.scanned(&path, OnError::Fail).unwrap().train.captions(1).len(), 2, "{name}");
    }
    let common = ["caption", "captions", "text", "texts", "title", "sentence", "sentences", "description", "prompt", "alt_text"];
    for name in common {
        let (_folder, path) = folder("one.csv", &format!("image,label,{name}\n1.png,x,hello\n2.png,y,\n"));
        assert_eq!(told(&captioned(&path).train), [said("1.png", &["hello"])], "{name}");
    }
}

#[test]
fn several_rows_of_an_image_are_one_image_and_repeats_are_counted() {
    let table = "image,caption,label\n2.png,b,x\n1.png,a,x\n2.png,c,x\n2.png, b ,x\n1.png,,y\n3.png,\" \",x\n4.png,d,y\n,e,x\ngone.png,f,y\n";
    let (_folder, path) = folder("rows.csv", table);
    let splits = captioned(&path);
    assert_eq!(told(&splits.train), [said("2.png", &["b", "c"]), said("4.png", &["d"]), said("gone.png", &["f"])]);
    assert_eq!(told(splits.unlabelled.as_ref().unwrap()), [said("1.png", &["a"])], "classes that differ are none, as before");
    says(
        &splits,
        &[
            "3 rows name an image that another row names: it is read once with the captions of all its rows; 1 image of several",
            "1 caption repeats a caption of its image and is left out",
            "1 image without a caption (3.png)",
            "1 row without a path",
            "4 images with 5 captions",
        ],
    );
    let missing = splits.clone().scanned(&path, OnError::Fail).err().unwrap().to_string();
    assert!(missing.starts_with("1 image cannot be read") && missing.contains("gone.png"), "{missing}");
    let skipped = splits.scanned(&path, OnError::Skip).unwrap();
    assert_eq!((told(&skipped.train).len(), skipped.found.skipped.len()), (2, 1));
    // Many captions of one image.
    let rows: String = (0..5000).map(|i| format!("1.png,caption {}\n", i % 4000)).collect();
    let (_folder, path) = folder("many.csv", &format!("image,caption\n{rows}"));
    let splits = captioned(&path);
    assert_eq!((splits.train.len(), splits.train.captions(0).len()), (1, 4000));
    says(&splits, &["1,000 captions repeat captions of their images and are left out"]);
}

#[test]
fn columns_are_named_and_a_table_without_captions_is_refused() {
    let (_folder, path) = folder("odd.csv", "image,label,caption,en,de\n1.png,x,no,hello,hallo\n2.png,y,no,bye,\n");
    let open = |columns: &Columns| open_captioned(&path, None, columns).map(|splits| told(&splits.train));
    assert_eq!(open(&named(&["en"])).unwrap(), [said("1.png", &["hello"]), said("2.png", &["bye"])]);
    let both = open(&named(&["DE", "en"])).unwrap();
    assert_eq!(both, [said("1.png", &["hallo", "hello"]), said("2.png", &["bye"])], "the order of the names");
    for columns in [named(&["fr"]), named(&["en", "fr"])] {
        let text = refused(&path, &columns);
        assert!(text.contains("there is no column `fr`: the table has image, label, caption, en, de"), "{text}");
        assert!(text.contains("set data.columns.captions to one of them"), "{text}");
        let plain = super::super::open(&path, None, &columns).err().unwrap().to_string();
        assert!(plain.contains("no column `fr`"), "also where captions are not read: {plain}");
    }
    for (table, wanted) in [
        ("image,label\n1.png,x\n", "no column of this table is known to hold captions: it has image, label"),
        ("image,text\n1.png,\n2.png,\" \"\n", "no image of this table has a caption: `text` of every row is empty"),
        ("image,caption\n1.png,a,b\n", "a cell with a comma in it needs quotes around it"),
    ] {
        let (_folder, path) = folder("none.csv", table);
        let text = refused(&path, &Columns::default());
        assert!(text.contains(wanted) && (text.contains("--set data.columns.captions=NAME") || table.contains("a,b")), "{text}");
    }
    let (_folder, path) = folder("none.jsonl", "{\"image\": \"1.png\", \"captions\": []}\n");
    assert!(refused(&path, &Columns::default()).contains("`captions` of every row is empty"));
    // A column that is used otherwise is not a column of captions.
    let (_folder, path) = folder("text.csv", "text,title\n1.png,hello\n");
    let columns = Columns { path: Some("text".into()), ..Columns::default() };
    assert_eq!(told(&open_captioned(&path, None, &columns).unwrap().train), [said("1.png", &["hello"])]);
}

#[test]
fn a_recipe_names_one_column_or_several() {
    let of = |text: &str| serde_json::from_str::<Columns>(text);
    assert_eq!(of("{\"captions\": \"en\"}").unwrap(), named(&["en"]));
    assert_eq!(of("{\"captions\": [\"en\", \"de\"]}").unwrap(), named(&["en", "de"]));
    assert!(of("{\"captions\": 3}").unwrap_err().to_string().contains("the name of a column in quotes, or a list of names"));
    let (_folder, path) = folder("t.csv", "image,label,en\n1.png,x,hello\n2.png,y,bye\n");
    let recipe =
        |columns: Columns| DataRecipe { path: Some(crate::recipe::Paths::One(path.clone())), columns, ..DataRecipe::default() };
    let splits = recipe(named(&["en"])).open_captioned().unwrap();
    assert_eq!((splits.train.captions(1)[0].as_ref(), splits.labelled()), ("bye", true));
    assert!(recipe(named(&["en"])).open_captioned_to_use().unwrap().train.has_captions());
    assert!(!recipe(named(&["en"])).open().unwrap().train.has_captions());
    assert!(recipe(Columns::default()).open_captioned().is_err());
    let generated = DataRecipe { train: 9, test: 9, ..DataRecipe::default() }.open_captioned().unwrap();
    assert!(!generated.train.has_captions() && generated.labelled());
}

#[test]
fn images_are_read_as_before_where_captions_are_not_asked_for() {
    let table = "image,label,caption,split\n1.png,x,a,train\n2.png,y,,train\n3.png,x,c,test\n4.png,y,d,test\n1.png,x,e,train\n";
    let plain = "image,label,split\n1.png,x,train\n2.png,y,train\n3.png,x,test\n4.png,y,test\n1.png,x,train\n";
    let ((_one, with), (_two, without)) = (folder("t.csv", table), folder("t.csv", plain));
    let (with, without) = (open(&with, None).unwrap(), open(&without, None).unwrap());
    assert_eq!(
        (listed(&with.train), listed(with.test.as_ref().unwrap())),
        (listed(&without.train), listed(without.test.as_ref().unwrap()))
    );
    assert_eq!(text(&with), text(&without), "the same report");
    assert_eq!(with.all().identity().unwrap(), without.all().identity().unwrap(), "the same data");
    assert!(!with.all().has_captions() && with.train.captions(0).is_empty());
    // A first look without captions is not what is opened with them.
    let (_folder, path) = folder("t.csv", "image,caption\n1.png,a\n");
    let paths = [path];
    let columns = Columns::default();
    assert!(!first_look(&paths).unwrap().train.has_captions());
    assert!(open_all_captioned(&paths, None, &columns).unwrap().train.has_captions());
    assert!(first_look_captioned(&paths).unwrap().train.has_captions());
    assert!(!open_all(&paths, None, &columns).unwrap().train.has_captions());
}

#[test]
fn captions_stay_with_their_images() {
    let table = "image,label,caption\n1.png,x,a\n2.png,y,b\n3.png,x,c\n4.png,y,d\n5.png,x,e\n6.png,y,f\n";
    let (_folder, path) = folder("t.csv", table);
    let images = captioned(&path).train;
    let [a, c, e, b, d, f] = [("1.png", "a"), ("3.png", "c"), ("5.png", "e"), ("2.png", "b"), ("4.png", "d"), ("6.png", "f")]
        .map(|(name, caption)| said(name, &[caption]));
    assert_eq!(told(&images), [a.clone(), c.clone(), e.clone(), b.clone(), d.clone(), f]);
    assert_eq!(told(&images.select(&[4, 0]).and(&images.select(&[3]))), [d, a, b]);
    let bare = images.without_labels();
    assert_eq!((told(&bare), bare.label(0)), (told(&images), None));
    let splits = Holdout::draw(&images, 0.3, 0).unwrap().apply(&images).unwrap();
    let mut both = [told(&splits.train), told(splits.test.as_ref().unwrap())].concat();
    both.sort();
    let mut all = told(&images);
    all.sort();
    assert_eq!(both, all);
    assert_eq!(told(&Splits::of(images.clone()).cached(Cache::new(0)).train), told(&images));
    let (_folder, other) = folder("t.csv", &table.replace(",b", ",other"));
    assert_ne!(images.identity().unwrap(), captioned(&other).train.identity().unwrap(), "captions are part of the data");
    // An image that is replaced brings its own captions.
    let (folder, path) = folder("t.csv", "image,caption\n1.png,a\n2.png,b\n");
    let images = captioned(&path).train.lenient(true);
    fs::write(folder.path().join("images/1.png"), b"x").unwrap();
    assert_eq!((images.readable(0).unwrap().0, images.readable(1).unwrap().0), (1, 1));
}

#[test]
fn parts_of_a_table_and_parts_that_have_no_captions() {
    let table = "image,caption,label,split\n1.png,a,x,train\n2.png,b,y,train\n3.png,c,,val\n4.png,d,z,val\n5.png,,x,test\n6.png,,y,test\n";
    let (_folder, path) = folder("t.csv", table);
    let splits = captioned(&path);
    assert_eq!(told(splits.val.as_ref().unwrap()), [said("3.png", &["c"]), said("4.png", &["d"])], "pairs need no class");
    let test = splits.test.as_ref().unwrap();
    assert_eq!((test.has_captions(), test.labels()), (false, Some(vec![0, 1])));
    says(&splits, &["the test part has no captions: its 2 images are kept for their labels", "4 images with 4 captions"]);
    let (_folder, path) = folder("t.csv", "image,caption,split\n1.png,a,train\n2.png,b,test\n3.png,,test\n4.png,,val\n");
    let splits = captioned(&path);
    assert_eq!((told(splits.test.as_ref().unwrap()), splits.val.is_none()), (vec![said("2.png", &["b"])], true));
    says(&splits, &["2 images without a caption (4.png, 3.png)"]);
    let (_folder, path) = folder("t.csv", "image,caption,split\n1.png,,train\n2.png,b,test\n");
    let text = refused(&path, &Columns::default());
    assert!(text.contains("no image to train on has a caption") && text.contains("1 image without a caption (1.png)"), "{text}");
}

#[test]
fn parquet_tables_have_texts_and_lists() {
    let folder = fixtures();
    let file = |name: &str| folder.path().join(format!("{name}.parquet"));
    let lists = captioned(&file("lists"));
    assert_eq!(told(&lists.train), [said("1.png", &["a cat", "a cat sits"]), said("3.png", &["a dog", "Ümlaut, \"dog\"\nruns"])]);
    says(
        &lists,
        &["`image` holds images, `caption` holds captions", "1 caption repeats", "2 images without a caption (2.png, 4.png)"],
    );
    assert!(lists.scanned(&file("lists"), OnError::Fail).is_ok());
    let plain = open(&file("lists"), None).unwrap();
    assert_eq!((plain.images(), plain.train.has_captions()), (4, false));
    let many = captioned(&file("many"));
    assert_eq!(many.train.len(), 750);
    for (name, captions) in told(&many.train) {
        let row: usize = name.split(['/', '.']).nth(1).unwrap().parse().unwrap();
        assert_eq!(captions, (0..row % 4).map(|place| format!("{row}.{place}")).collect::<Vec<_>>());
    }
    assert_eq!(told(&captioned(&file("large")).train), [said("1.png", &["a"]), said("2.png", &["b", "c"])]);
    for name in ["structures", "columns"] {
        assert_eq!(told(&captioned(&file(name)).train), [said("1.png", &["A cat.", "It sits."])], "{name}");
    }
    let rows = captioned(&file("rows"));
    let of: Vec<(Vec<String>, u8)> = told(&rows.all()).into_iter().zip(listed(&rows.all())).map(|(a, b)| (a.1, b.2)).collect();
    assert_eq!(of, [(vec!["c".to_string()], 2), (vec!["a".into(), "b".into()], 1)], "five rows of two images");
    says(
        &rows,
        &["3 rows have the image of another row: it is read once with the captions of all its rows", "1 caption repeats"],
    );
    assert_eq!(open(&file("rows"), None).unwrap().images(), 5, "without captions each row is an image, as before");
    let paths = captioned(&file("paths"));
    assert_eq!(told(&paths.train), [said("1.png", &["a", "b", "e"]), said("2.png", &["c", "d"])]);
    for (name, columns, wanted) in [
        ("none", Columns::default(), "known to hold captions: it has image (a structure), label, pixels (lists)"),
        ("empty", Columns::default(), "no image of this table has a caption: `caption` of every row is empty"),
        ("numbers", Columns::default(), "known to hold captions"),
        ("lists", named(&["words"]), "there is no column `words`: the table has image (a structure), caption (lists)"),
        (
            "none",
            named(&["pixels"]),
            "the column `pixels` holds no text, nor lists of it, and captions are text or lists of text",
        ),
    ] {
        let text = refused(&file(name), &columns);
        assert!(text.contains(wanted) && text.contains("data.columns.captions"), "{text}");
    }
    let numbers = open_captioned(&file("numbers"), None, &named(&["Title"])).unwrap();
    assert_eq!(told(&numbers.train)[0].1, ["1984"], "numbers are texts where the column is named");
    // As a folder of parts.
    for (from, to) in [("lists", "train-00000"), ("large", "test-00000")] {
        fs::create_dir_all(folder.path().join("hub/data")).unwrap();
        fs::copy(file(from), folder.path().join(format!("hub/data/{to}.parquet"))).unwrap();
    }
    let hub = open_captioned(&folder.path().join("hub"), None, &Columns::default()).unwrap();
    assert_eq!((told(&hub.train).len(), told(hub.test.as_ref().unwrap())[1].1.len()), (2, 2));
}

#[test]
fn a_table_beside_the_images_of_a_folder() {
    let json =
        "{\"file_name\": \"images/1.png\", \"text\": \"a\"}\n{\"file_name\": \"./images/2.png\", \"text\": [\"b\", \"c\"]}\n";
    for (name, table) in [
        ("metadata.csv", "file_name,text\nimages/1.png,a\nimages/2.png,b\nimages/2.png,c\n"),
        ("metadata.jsonl", json),
        ("metadata.tsv", "file_name\ttext\nimages\\1.png\ta\nimages\\2.png\tb\nimages\\2.png\tc\n"),
        ("captions.txt", "image,caption\n1.png,a\n2.png,b\n2.png,c\n"),
        ("train_captions.csv", "image,caption\r\n1,a\r\n2,b\r\n2,c\r\n"),
    ] {
        let (folder, _) = folder(name, table);
        put(folder.path(), "images/notes.txt", b"x");
        let splits = captioned(folder.path());
        assert_eq!(told(&splits.train), [said("images/1.png", &["a"]), said("images/2.png", &["b", "c"])], "{name}");
        says(
            &splits,
            &["6 images that are in no table (images/3.png, images/4.png, images/5.png, …)", "1 txt (images/notes.txt)"],
        );
        assert_eq!((splits.found.files, splits.found.unread()), (9, 7), "{name}: the table is read");
        assert!(text(&splits).contains(&format!("{name}: of the table's columns")), "{}", text(&splits));
        let plain = open(folder.path(), None).unwrap();
        assert_eq!((plain.images(), plain.found.files, plain.train.has_captions()), (8, 10, false), "{name}: as before");
        for format in [Format::Folder, Format::Flat] {
            let splits = open_captioned(folder.path(), Some(format), &Columns::default()).unwrap();
            assert_eq!((splits.images(), splits.train.captions(1).len()), (2, 2), "{name}");
        }
    }
    // Flickr8k's folder.
    let flickr = tempfile::tempdir().unwrap();
    let rows: String = (1..=3).flat_map(|i| (0..5).map(move |n| format!("{i}.jpg,\"caption {n}, of {i} .\"\n"))).collect();
    (1..=3).for_each(|i| put(flickr.path(), &format!("Images/{i}.jpg"), &png(i)));
    put(flickr.path(), "captions.txt", format!("image,caption\n{rows}").as_bytes());
    let splits = captioned(flickr.path());
    assert_eq!((splits.train.len(), splits.found.unread()), (3, 0));
    assert_eq!(splits.train.captions(2)[4].as_ref(), "caption 4, of 3 .");
    says(&splits, &["3 images with 15 captions", "12 rows name an image"]);
}

#[test]
fn tables_in_the_folders_of_parts_and_parquet_beside_images() {
    let folder = tempfile::tempdir().unwrap();
    let root = folder.path();
    for (part, value) in [("train", 1), ("val", 3), ("test", 5)] {
        put(root, &format!("{part}/a.png"), &png(value));
        put(root, &format!("{part}/b.png"), &png(value + 1));
        put(root, &format!("{part}/metadata.csv"), format!("file_name,text\na.png,{part} a\nb.png,{part} b\n").as_bytes());
    }
    let splits = captioned(root);
    assert_eq!(told(&splits.train), [said("train/a.png", &["train a"]), said("train/b.png", &["train b"])]);
    assert_eq!(told(splits.val.as_ref().unwrap())[1], said("val/b.png", &["val b"]));
    assert_eq!(told(splits.test.as_ref().unwrap())[0], said("test/a.png", &["test a"]));
    assert_eq!(splits.found.unread(), 0);
    // With labels in the tables; one image is in no table and one row has no image.
    for part in ["train", "val", "test"] {
        let table = format!("file_name,text,label\na.png,{part} a,x\ngone.png,{part} gone,y\n");
        put(root, &format!("{part}/metadata.csv"), table.as_bytes());
    }
    let splits = captioned(root);
    assert_eq!((splits.train.classes().len(), splits.train.len(), splits.val.as_ref().unwrap().len()), (2, 2, 2));
    assert_eq!((splits.found.files, splits.found.unread()), (9, 3));
    let missing = splits.scanned(root, OnError::Fail).err().unwrap().to_string();
    assert!(missing.starts_with("3 images cannot be read") && missing.contains("val/gone.png"), "{missing}");
    // One table for all parts, at the root; and two tables of one image.
    let folder = tempfile::tempdir().unwrap();
    let root = folder.path();
    ["train/1.png", "train/2.png", "test/3.png"].iter().zip(1..).for_each(|(name, value)| put(root, name, &png(value)));
    put(root, "metadata.csv", b"file_name,text\ntrain/1.png,a\ntrain/2.png,b\ntest/3.png,c\n");
    put(root, "train/more_captions.csv", b"file_name,text\n1.png,d\n1.png,a\n");
    let splits = captioned(root);
    assert_eq!(told(&splits.train), [said("train/1.png", &["a", "d"]), said("train/2.png", &["b"])]);
    assert_eq!(told(splits.test.as_ref().unwrap()), [said("test/3.png", &["c"])]);
    says(&splits, &["1 caption repeats"]);
    let (folder, _) = self::folder("notes.md", "");
    fs::copy(fixtures().path().join("paths.parquet"), folder.path().join("metadata.parquet")).unwrap();
    let splits = captioned(folder.path());
    assert_eq!(told(&splits.train), [said("images/1.png", &["a", "b", "e"]), said("images/2.png", &["c", "d"])]);
    says(&splits, &["6 images that are in no table", "1 md (notes.md)"]);
}

#[test]
fn tables_beside_images_that_have_no_captions() {
    let (folder, _) = folder("metadata.csv", "file_name,label\nimages/1.png,x\n");
    put(folder.path(), "results.csv", b"x");
    let splits = captioned(folder.path());
    assert_eq!((splits.images(), splits.train.has_captions()), (8, false));
    says(&splits, &["no column of metadata.csv is known to hold captions"]);
    let text = refused(folder.path(), &named(&["words"]));
    assert!(
        text.contains("there is no column `words`: the table has file_name, label") && text.contains("metadata.csv"),
        "{text}"
    );
    fs::remove_file(folder.path().join("metadata.csv")).unwrap();
    says(&captioned(folder.path()), &["tables beside the images are not read (results.csv): give the table itself"]);
    put(folder.path(), "captions.csv", b"file_name,caption\nimages/1.png,\n");
    assert!(refused(folder.path(), &Columns::default()).contains("no image of this table has a caption: `caption` of every row"));
    put(folder.path(), "captions.csv", b"file_name,caption\nimages/1.png,a,b\n");
    assert!(refused(folder.path(), &Columns::default()).contains("captions.csv"));
}

#[test]
fn archives_by_webdatasets_names() {
    let pictures: Vec<Vec<u8>> = (1..=6).map(png).collect();
    let entries: Vec<(&str, &[u8])> = vec![
        ("a/1.txt", b" a caption,\r\nof two lines\n"),
        ("a/1.png", &pictures[0]),
        ("a/1.json", b"{\"caption\": \"other\", \"width\": 3}"),
        ("a/2.png", &pictures[1]),
        ("a/2.json", b"\xef\xbb\xbf{\"captions\": [\"b\", \"c\", \"b\"], \"url\": null}"),
        ("a/photo.v1.png", &pictures[2]),
        ("a/photo.v1.txt", b"caf\xe9"),
        ("a/4.png", &pictures[3]),
        ("a/5.png", &pictures[4]),
        ("a/5.json", b"{\"width\": 3}"),
        ("a/6.seg.png", &pictures[5]),
        ("a/6.png", &pictures[5]),
        ("a/6.txt", "\u{feff}six".as_bytes()),
        ("a/README.txt", b"x"),
        ("a/4.json", b"{broken"),
    ];
    let folder = tempfile::tempdir().unwrap();
    let plain = super::tar(&entries);
    for (name, bytes) in [
        ("s.tar", plain.clone()),
        ("s.tar.gz", gzip(&plain)),
        ("s.tar.zst", zstd::encode_all(&plain[..], 1).unwrap()),
        ("s.zip", zip(&entries, true)),
        ("t.zip", zip(&entries, false)),
    ] {
        put(folder.path(), name, &bytes);
        let splits = captioned(&folder.path().join(name));
        let of: Vec<Vec<String>> = told(&splits.train).into_iter().map(|(_, captions)| captions).collect();
        let mut expected = vec![vec!["a caption,\r\nof two lines"], vec!["b", "c"], vec!["caf\u{fffd}"], vec!["six"]];
        if !name.ends_with(".tar") {
            // Read as a folder, in the order of names.
            expected.swap(2, 3);
        }
        assert_eq!(of, expected, "{name}");
        says(
            &splits,
            &[
                "1 image has captions in a .txt and in a .json: the .txt is read",
                "1 caption repeats",
                "1 caption is not text in UTF-8: its wrong bytes are replaced",
                "1 file of captions that is not JSON (a/4.json)",
                "1 txt (a/README.txt)",
                "4 images with 5 captions",
                "without a caption",
            ],
        );
        let before = open(&folder.path().join(name), None).unwrap();
        assert!(!before.train.has_captions() && before.found.not_read["txt"].count == 4, "{name}: as before");
        let fields = open_captioned(&folder.path().join(name), None, &named(&["caption"])).unwrap();
        assert_eq!(fields.train.captions(0)[0].as_ref(), "other", "{name}: a field that is named comes first");
    }
    let texts = open_captioned(&folder.path().join("s.tar"), None, &named(&["alt"])).unwrap();
    assert_eq!(
        told(&texts.train),
        [
            said("s.tar/a/1", &["a caption,\r\nof two lines"]),
            said("s.tar/a/photo.v1", &["caf\u{fffd}"]),
            said("s.tar/a/6", &["six"])
        ]
    );
}

#[test]
fn archives_with_classes_parts_and_without_captions() {
    let folder = tempfile::tempdir().unwrap();
    let root = folder.path();
    let [one, two] = [1, 2].map(png);
    let train = tar(&[("1.png", &one), ("1.txt", b"a"), ("1.cls", b"1"), ("2.png", &two), ("2.cls", b"0"), ("2.txt", b"b")]);
    put(root, "train-0.tar", &train);
    put(root, "val-0.tar", &tar(&[("3.png", &one), ("3.txt", b"c"), ("4.png", &two), ("4.cls", b"1")]));
    let splits = captioned(root);
    assert_eq!(told(&splits.train), [said("train-0.tar/1", &["a"]), said("train-0.tar/2", &["b"])]);
    assert_eq!((splits.train.label(0), told(splits.test.as_ref().unwrap())), (Some(1), vec![said("val-0.tar/3", &["c"])]));
    put(root, "none.tar", &tar(&[("1.png", &one), ("1.json", b"{\"width\": 3}"), ("2.png", &two)]));
    let none = captioned(&root.join("none.tar"));
    assert_eq!((none.images(), none.train.has_captions()), (2, false));
    let text = refused(&root.join("none.tar"), &named(&["alt"]));
    assert!(text.contains("no image of these archives has a caption: no key.json has a field `alt`"), "{text}");
    let long = vec![b'x'; (1 << 20) + 1];
    put(root, "long.tar", &tar(&[("1.png", &one), ("1.txt", &long), ("2.png", &two), ("2.txt", b"b")]));
    let long = captioned(&root.join("long.tar"));
    assert_eq!(told(&long.train), [said("long.tar/2", &["b"])]);
    says(&long, &["1 file of captions that is longer than 1 MB (1.txt)", "1 image without a caption (long.tar/1)"]);
}

#[test]
fn formats_without_captions_and_several_paths() {
    let folder = tempfile::tempdir().unwrap();
    let root = folder.path();
    put(root, "cifar/data_batch_1.bin", &cifar_record(&[5], 1));
    put(root, "cifar/test_batch.bin", &cifar_record(&[7], 2));
    put(root, "idx/train-images-idx3-ubyte", &idx(&[2, 2, 3], &(0..12).collect::<Vec<u8>>()));
    put(root, "idx/train-labels-idx1-ubyte", &idx(&[2], &[1, 0]));
    put(root, "classes/cat/1.png", &png(1));
    put(root, "classes/dog/2.png", &png(2));
    for name in ["cifar", "idx", "classes"] {
        let (with, without) = (captioned(&root.join(name)), open(&root.join(name), None).unwrap());
        assert!(!with.all().has_captions() && with.train.captions(0).is_empty() && with.labelled(), "{name}");
        assert_eq!((listed(&with.train), text(&with)), (listed(&without.train), text(&without)), "{name}");
    }
    put(root, "pairs/captions.csv", b"image,caption\n3.png,a\n4.png,b\n");
    put(root, "pairs/3.png", &png(3));
    put(root, "pairs/4.png", &png(4));
    let paths = [root.join("pairs"), root.join("classes")];
    let both = open_all_captioned(&paths, None, &Columns::default()).unwrap();
    assert_eq!(told(&both.pretraining()), [said("pairs/3.png", &["a"]), said("pairs/4.png", &["b"])]);
    says(&both, &["2 images without a caption (classes/", "2 images with 2 captions"]);
}
