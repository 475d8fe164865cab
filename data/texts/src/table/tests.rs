//! Tests of how columns are recognised, which texts are held out, and what is refused.

use super::*;

#[test]
fn tables_of_every_form_are_read() {
    let expected = |texts: &Texts| (texts.texts.clone(), texts.labels.clone(), texts.classes.clone(), texts.test.clone());
    let plain = Texts::parse("b\tone two\na\tthree\n").unwrap();
    assert_eq!(expected(&plain).1, Some(vec![1, 0]));
    for text in [
        "label\ttext\nb\tone two\n\na\tthree\r\n",
        "text\tmore\tlabel\none two\t7\tb\nthree\t8\ta\n",
        "coarse\tfine\ttext\nb\tx\tone two\na\ty\tthree\n",
    ] {
        assert_eq!(expected(&Texts::parse(text).unwrap()), expected(&plain), "{text}");
    }
    let news = Texts::parse("split\tgroup\tid\tbody_escaped\ntest\tz\t7\\n\ta\\nb\\\\n\\t\ntrain\ty\t8\tc\n").unwrap();
    assert_eq!(news.texts, ["7\\n\na\nb\\n\t", "8\nc"]);
    assert_eq!((news.test.clone(), news.labels.clone()), (Some(vec![true, false]), Some(vec![1, 0])));
    let (test, origin) = news.part(Split::Test).unwrap();
    // A part has the classes that its texts are of.
    assert_eq!((&test.names[..], test.labels, origin), (&["2".to_string()][..], Some(vec![0]), Some("the file's own")));
    assert_eq!(test.classes, ["z"]);
    let bare = Texts::parse("one two\nthree\tfour\n").unwrap();
    assert_eq!((bare.texts.len(), &bare.labels), (2, &None));
    assert_eq!(bare.part(Split::Train).unwrap_err().exit_code(), 2);
    assert_eq!(Texts::parse("x\ta\tb\n").unwrap().texts, ["a\tb"], "a text may hold tabs");
}

#[test]
fn a_fifth_of_each_class_is_held_out_whatever_the_order() {
    let line = |i: usize| format!("{}\ttext {}\n", if i % 10 < 3 { "few" } else { "many" }, i.min(197));
    let forth: String = (0..200).map(line).collect();
    let back: String = (0..200).rev().map(line).collect();
    let part = |text: &str, split| Texts::parse(text).unwrap().part(split).unwrap();
    let (test, origin) = part(&forth, Split::Test);
    assert!(origin.unwrap().contains("seed 0"));
    let count = |texts: &Texts, class| texts.labels.as_ref().unwrap().iter().filter(|l| **l == class).count();
    assert_eq!(count(&test, 0), 12);
    // Three equal texts of a class stay together.
    assert!((28..=30).contains(&count(&test, 1)), "{}", count(&test, 1));
    let copies = test.texts.iter().filter(|t| *t == "text 197").count();
    assert!(copies == 0 || copies == 3);
    let sorted = |mut texts: Vec<String>| {
        texts.sort();
        texts
    };
    assert_eq!(sorted(part(&back, Split::Test).0.texts), sorted(test.texts.clone()));
    let train = part(&forth, Split::Train).0;
    assert_eq!(train.len() + test.len(), 200);
    assert_eq!(part("a\tx\na\ty\nb\tx\nb\ty\n", Split::Test).0.len(), 2, "one of two");
    assert!(Texts::parse("a\tx\na\tx\n").unwrap().part(Split::Test).is_err(), "copies alone");
}

#[test]
fn what_cannot_be_read_is_said_with_its_place() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("t.tsv");
    let read = |bytes: &[u8], invalid| {
        std::fs::write(&path, bytes).unwrap();
        Texts::read(&path, Encoding::default(), invalid)
    };
    let said = |bytes: &[u8]| read(bytes, Invalid::Refuse).unwrap_err().to_string();
    assert!(said(b"a\tx\nb y\n").contains("line 2"));
    assert!(said(b"split\tlabel\ttext\ndev\ta\tx\n").contains("`dev`"));
    assert!(said(b"").contains("no text") && said(b"label\ttext\n").contains("no text"));
    assert!(said(b"a\tx\xff\n").contains("byte 3"));
    assert_eq!(read(b"a\tx\xff\n", Invalid::Replace).unwrap().texts, ["x\u{fffd}"]);
    assert!(read(b"\xef\xbb\xbfa\tx\n", Invalid::Refuse).unwrap().names[0].ends_with("t.tsv:1"));
    assert_eq!(Texts::read(&folder.path().join("none"), Encoding::default(), Invalid::Refuse).unwrap_err().exit_code(), 2);
}

/// The labels by name, and the texts.
fn read_as(text: &str, csv: bool) -> (Vec<String>, Vec<String>, Vec<String>) {
    let texts = rows::parse(text, csv, &Wish::default()).unwrap();
    let labels = texts.labels.iter().flatten().map(|label| texts.classes[*label as usize].clone()).collect();
    (labels, texts.texts, texts.notes)
}

#[test]
fn columns_are_known_by_the_names_that_data_sets_give_them() {
    let wanted = (["1", "0"].map(String::from).to_vec(), ["a fine film", "a bad one"].map(String::from).to_vec());
    for (text, csv, noted) in [
        // GLUE's SST-2.
        ("sentence\tlabel\na fine film \t1\na bad one \t0\n", false, false),
        ("index\tsentence\tlabel\n0\ta fine film\t1\n1\ta bad one\t0\n", false, true),
        ("Label\tSentence\n1\ta fine film\n0\ta bad one\n", false, false),
        ("\tText\tLabel\n0\ta fine film\t1\n1\ta bad one\t0\n", false, false),
        ("\"review\",\"sentiment\"\n\"a fine film\",1\n\"a bad one\",0\n", true, false),
        ("review;sentiment\na fine film;1\na bad one;0\n", true, false),
        // Not called .csv.
        ("review,sentiment\na fine film,1\na bad one,0\n", false, false),
        ("id,class,comment,score\n7,1,a fine film,0.5\n8,0,a bad one,0.1\n", true, true),
        // No names at all.
        ("a fine film\t1\na bad one\t0\n", false, true),
        ("1\ta fine film\n0\ta bad one\n", false, false),
        ("1,a fine film\n0,a bad one\n", true, false),
    ] {
        let (labels, texts, notes) = read_as(text, csv);
        let texts: Vec<String> = texts.iter().map(|text| text.trim().to_string()).collect();
        assert_eq!((labels, texts), wanted, "{text}");
        assert_eq!(notes.iter().any(|note| note.contains("`label`")), noted, "{text}: {notes:?}");
    }
    // Two texts in a row: QNLI, MRPC, and tables that say so.
    for (text, csv) in [
        ("index\tquestion\tsentence\tlabel\n0\twho?\tnobody\tno\n", false),
        ("Quality\t#1 ID\t#2 ID\t#1 String\t#2 String\nno\t7\t8\twho?\tnobody\n", false),
        ("no,who?,nobody\n", true),
        ("sentence1,sentence2,label\nwho?,nobody,no\n", true),
    ] {
        let (labels, texts, notes) = read_as(text, csv);
        assert_eq!((labels, texts), (vec!["no".to_string()], vec!["who?\nnobody".to_string()]), "{text}");
        assert!(!notes.is_empty(), "{text}");
    }
    // No label.
    let test = rows::parse("index\tsentence\n0\ta fine film\n1\ta bad one\n", false, &Wish::default()).unwrap();
    assert_eq!((test.labels, test.texts.clone(), test.names), (None, wanted.1.clone(), wanted.1.clone()));
    assert_eq!(rows::parse("text\na fine film\na bad one\n", true, &Wish::default()).unwrap().texts, wanted.1);
}

#[test]
fn csv_cells_hold_what_lines_cannot() {
    let text = "text,label\n\"said \"\"no\"\", then\nleft\",a\n\"x, y\",b\n\n";
    let texts = rows::parse(text, true, &Wish::default()).unwrap();
    assert_eq!(texts.texts, ["said \"no\", then\nleft", "x, y"]);
    assert_eq!((texts.names, texts.classes.len()), (vec!["2".to_string(), "4".to_string()], 2));
    let error = rows::parse("text,label\nx, y,a\n", true, &Wish::default()).unwrap_err().to_string();
    assert!(error.contains("line 2") && error.contains("3 columns, not 2") && error.contains("in quotes"), "{error}");
    let folder = tempfile::tempdir().unwrap();
    let packed = folder.path().join("t.CSV.gz");
    let mut gzip = flate2::write::GzEncoder::new(std::fs::File::create(&packed).unwrap(), flate2::Compression::fast());
    std::io::Write::write_all(&mut gzip, text.as_bytes()).unwrap();
    gzip.finish().unwrap();
    assert_eq!(Texts::read(&packed, Encoding::default(), Invalid::Refuse).unwrap().texts, texts.texts);
}

#[test]
fn a_label_that_is_another_in_every_line_is_noted() {
    let text: String = (0..40).map(|i| format!("id{i}\ttext number {i}\n")).collect();
    let (labels, _, notes) = read_as(&text, false);
    assert_eq!(labels.len(), 40);
    assert!(notes[0].contains("40 different values in 40 lines"), "{notes:?}");
    // The texts come first, whatever they contain.
    let text: String = (0..40).map(|i| format!("word{i}\tclass {}\n", i % 3)).collect();
    let (labels, texts, notes) = read_as(&text, false);
    assert_eq!((labels[1].as_str(), texts[1].as_str()), ("class 1", "word1"));
    assert!(notes[0].contains("the label is the last column"), "{notes:?}");
}
