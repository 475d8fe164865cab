//! Tests of BEIR's layout and that of passages with questions: ids that do not match, and what is refused.

use std::fs;

use super::*;

const CORPUS: &str = "{\"_id\": \"d1\", \"title\": \"Cats\", \"text\": \"They sleep.\", \"metadata\": {\"url\": \"x\"}}\n\
                      {\"_id\": \"d2\", \"title\": \"\", \"text\": \"Dogs \\\"run\\\".\"}\n\n{\"_id\": 3, \"text\": \"\"}\n";
const QUERIES: &str = "{\"_id\": \"q1\", \"text\": \"who sleeps?\"}\n{\"_id\": \"q2\", \"text\": \"who runs?\", \"metadata\": {}}\n\
                       {\"_id\": \"q3\", \"text\": \"nobody asks\"}\n";
const HEAD: &str = "query-id\tcorpus-id\tscore\n";

fn beir(qrels: &[(&str, &str)]) -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("corpus.jsonl"), CORPUS).unwrap();
    fs::write(folder.path().join("queries.jsonl"), QUERIES).unwrap();
    fs::create_dir(folder.path().join("qrels")).unwrap();
    for (name, text) in qrels {
        fs::write(folder.path().join("qrels").join(name), text).unwrap();
    }
    folder
}

fn read(folder: &Path, split: Option<&str>) -> Result<Collection> {
    Collection::read(folder, &Options { split, ..Options::default() })
}

#[test]
fn beirs_layout_is_read_and_what_does_not_fit_is_counted() {
    let text = format!("{HEAD}q1\td1\t2\nq1\td2\t0\nq2\td2\t1\nq2\tlost\t1\nq1\tlost\t1\nq9\td1\t1\nq2\td2\t3\n");
    let folder = beir(&[("test.tsv", &text), ("dev.tsv", &format!("{HEAD}q3\t3\t1\n"))]);
    let found = read(folder.path(), None).unwrap();
    assert_eq!(found.documents, ["Cats They sleep.", "Dogs \"run\".", ""]);
    assert_eq!((found.document_ids, found.split), (["d1", "d2", "3"].map(String::from).to_vec(), Some("test".to_string())));
    assert_eq!(
        (found.query_ids.clone(), found.queries),
        (vec!["q1".into(), "q2".into()], vec!["who sleeps?".into(), "who runs?".into()])
    );
    assert_eq!(found.relevance, [vec![(0, 2.0), (1, 0.0), (3, 1.0)], vec![(1, 3.0), (3, 1.0)]]);
    let said = found.notes.join("\n");
    for note in [
        "1 judgements are of queries that are not there",
        "1 judgements of the same query and document",
        "2 judgements are of 1 documents that are not there, as of `lost`",
        "1 queries have no judgement in `test`",
        "1 of 3 documents are empty",
    ] {
        assert!(said.contains(note), "{note}: {said}");
    }
    let dev = read(folder.path(), Some("dev")).unwrap();
    assert_eq!((dev.query_ids, dev.relevance), (vec!["q3".to_string()], vec![vec![(2, 1.0)]]));
    let error = read(folder.path(), Some("train")).unwrap_err();
    assert!(error.to_string().contains("there are: dev, test") && error.exit_code() == 2, "{error}");
}

#[test]
fn files_may_be_compressed_and_the_only_split_is_taken() {
    let folder = beir(&[("dev.tsv", "q1\td1\t1\n")]);
    let at = folder.path();
    let packed = zstd::encode_all(CORPUS.as_bytes(), 1).unwrap();
    fs::write(at.join("corpus.jsonl.zst"), packed).unwrap();
    fs::remove_file(at.join("corpus.jsonl")).unwrap();
    let found = read(at, None).unwrap();
    assert_eq!((found.documents.len(), found.relevance), (3, vec![vec![(0, 1.0)]]), "judgements without a header");
    assert!(found.notes[0].contains("those of `dev` are read, the only ones"), "{:?}", found.notes);
}

#[test]
fn passages_and_questions_are_read() {
    let folder = tempfile::tempdir().unwrap();
    let at = folder.path();
    fs::write(at.join("passages.tsv"), "0\tThe \"first\" one.\tAnd more.\n7\t\n").unwrap();
    fs::write(at.join("questions.tsv"), "7\twhat is it?\tnothing\n0\twhich one?\n9\twhere?\tnowhere\n").unwrap();
    let found = read(at, None).unwrap();
    assert_eq!(found.documents, ["The \"first\" one.\tAnd more.", ""]);
    assert_eq!(found.queries, ["what is it?", "which one?", "where?"]);
    assert_eq!(found.query_ids[1], "questions.tsv:2");
    assert_eq!(found.relevance, [vec![(1, 1.0)], vec![(0, 1.0)], vec![(2, 1.0)]]);
    let said = found.notes.join("\n");
    assert!(said.contains("1 judgements are of 1 documents that are not there, as of `9`"), "{said}");
    assert!(said.contains("1 of 2 documents are empty"), "{said}");
}

#[test]
fn what_cannot_be_read_is_said_with_its_place() {
    let said = |folder: &tempfile::TempDir| read(folder.path(), None).unwrap_err().to_string();
    let changed = |name: &str, text: &str| {
        let folder = beir(&[("test.tsv", &format!("{HEAD}q1\td1\t1\n"))]);
        fs::write(folder.path().join(name), text).unwrap();
        said(&folder)
    };
    assert!(changed("corpus.jsonl", "{\"_id\": \"a\", \"text\": \"b\"}\n{\"text\": \"c\"}\n").contains("corpus.jsonl:2"));
    assert!(changed("corpus.jsonl", "{\"_id\": \"a\"}\n{\"_id\": \"a\"}\n").contains("`a` stands twice"));
    assert!(changed("queries.jsonl", "not json\n").contains("queries.jsonl:1"));
    assert!(changed("qrels/test.tsv", &format!("{HEAD}q1\td1\n")).contains("2 columns, not 3"));
    let gain = changed("qrels/test.tsv", &format!("{HEAD}q1\td1\t1\nq1\td2\tmuch\n"));
    assert!(gain.contains("`much` is not a gain") && gain.contains("test.tsv:3"), "{gain}");
    assert!(changed("qrels/test.tsv", &format!("{HEAD}q7\td1\t1\n")).contains("no query has a judgement"));
    assert!(said(&beir(&[])).contains("no judgements of the part `test`"));
    let bare = tempfile::tempdir().unwrap();
    assert!(said(&bare).contains("neither `corpus.jsonl` nor `passages.tsv`"));
    fs::write(bare.path().join("passages.tsv"), "0\ta\n").unwrap();
    assert!(said(&bare).contains("no `questions.tsv`"));
    fs::write(bare.path().join("questions.tsv"), "0\ta\n0 b\n").unwrap();
    assert!(said(&bare).contains("questions.tsv:2"));
    assert_eq!(read(&bare.path().join("questions.tsv"), None).unwrap_err().exit_code(), 2);
}

#[test]
#[cfg_attr(not(ctk_data), ignore = "needs CTK_DATA")]
fn questions_about_wikipedia_reviews_and_forums_are_read() {
    let data = Path::new(&std::env::var("CTK_DATA").expect("CTK_DATA names the folder of real data")).join("text/qa-nli");
    let sizes: Vec<[usize; 2]> = ["newwiki", "amazon", "reddit", "squad-dev"]
        .map(|name| {
            let found = read(&data.join(name), None).unwrap();
            assert!(found.notes.is_empty() && found.relevance.iter().all(|list| list[0].0 < found.documents.len()), "{name}");
            [found.documents.len(), found.queries.len()]
        })
        .to_vec();
    assert_eq!(sizes.iter().map(|[documents, _]| documents).sum::<usize>(), 7731);
    assert_eq!(sizes.iter().map(|[_, queries]| queries).sum::<usize>(), 37_593);
}
