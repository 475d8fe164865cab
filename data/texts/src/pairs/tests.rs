//! Tests of whole files: every format and kind, weights, parts that are held out, and what is refused.

use std::io::Write as _;
use std::path::{Path, PathBuf};

use ctk_core::Result;
use ctk_core::data::dataset::Dataset;
use ctk_core::data::feed::Order;
use ctk_core::data::source::Source;
use ctk_core::recipe::Recipe;
use ctk_core::rng::Key;
use ctk_core::store::files;
use ctk_core::store::parquet::{Cells, write};

use super::recipe::SentencesDataRecipe;
use super::{Kind, Pairs, Sentences};

struct Folder(tempfile::TempDir);

impl Folder {
    fn new() -> Folder {
        Folder(tempfile::tempdir().unwrap())
    }

    fn write(&self, name: &str, content: impl AsRef<[u8]>) -> PathBuf {
        let path = self.0.path().join(name);
        std::fs::write(&path, content).unwrap();
        path
    }
}

#[derive(serde::Deserialize)]
#[serde(deny_unknown_fields)]
struct Whole {
    data: SentencesDataRecipe,
}

/// Opens a file, with further lines of `[data]`.
fn open(path: &Path, more: &str) -> Result<Sentences> {
    recipe(&format!("[data]\npath = {:?}\n{more}", path.display().to_string()))?.open()
}

fn recipe(text: &str) -> Result<SentencesDataRecipe> {
    let recipe = Recipe::new("a.toml", text);
    let data = recipe.parse::<Whole>()?.data;
    data.check(&recipe)?;
    Ok(data)
}

fn rows(pairs: &Pairs) -> Vec<Vec<String>> {
    (0..pairs.len()).map(|index| pairs.get(index).unwrap()).collect()
}

fn error(result: Result<Sentences>) -> String {
    result.err().expect("this is refused").to_string()
}

#[test]
fn the_same_pairs_come_out_of_every_format() {
    let folder = Folder::new();
    let wanted = [["one, two", "eins"], ["three \"3\"", "drei"], ["vier", "four"]];
    let tsv = "query\tid\tanswer\none, two\t1\teins\nthree \"3\"\t2\tdrei\nvier\t3\tfour\n";
    let bare = "one, two\teins\nthree \"3\"\tdrei\nvier\tfour\n";
    let csv = "Query,id,ANSWER\r\n\"one, two\",1,eins\r\n\"three \"\"3\"\"\",2,drei\r\nvier,3,four\r\n";
    let semicolons = "query;id;answer\none, two;1;eins\n\"three \"\"3\"\"\";2;drei\nvier;3;four\n";
    let objects = "{\"id\": 1, \"query\": \"one, two\", \"answer\": \"eins\"}\n{\"query\": \"three \\\"3\\\"\", \"answer\": \"drei\"}\n\
                   {\"answer\": \"four\", \"query\": \"vier\"}\n";
    let lists = "[\"one, two\", \"eins\"]\n[\"three \\\"3\\\"\", \"drei\"]\n[\"vier\", \"four\"]\n";
    let column = |at: usize| Cells::Texts(wanted.iter().map(|row| Some(row[at])).collect());
    let parquet = folder.0.path().join("x.parquet");
    let columns = [("number", Cells::Numbers(vec![1.0, 2.0, 3.0])), ("anchor", column(0)), ("positive", column(1))];
    files::write_with(&parquet, |out| write(out, &columns)).unwrap();
    let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    gzip.write_all(tsv.as_bytes()).unwrap();
    let paths = [
        folder.write("a.tsv", tsv),
        folder.write("bare.tsv", bare),
        folder.write("bare.txt", bare),
        folder.write("a.csv", csv),
        folder.write("b.csv", semicolons),
        folder.write("a.jsonl", objects),
        folder.write("b.jsonl", lists),
        folder.write("objects.txt", objects),
        folder.write("a.tsv.gz", gzip.finish().unwrap()),
        folder.write("a.jsonl.zst", zstd::encode_all(objects.as_bytes(), 1).unwrap()),
        folder.write("renamed", std::fs::read(&parquet).unwrap()),
        parquet,
    ];
    for path in paths {
        let Sentences { train, dev, notes } = open(&path, "").unwrap();
        assert_eq!((train.kind(), train.columns(), train.samples()), (Kind::Pairs, 2, 3), "{path:?}");
        assert_eq!(rows(&train), wanted, "{path:?}");
        assert!(dev.is_none() && notes.iter().any(|note| note.contains("pairs of")), "{notes:?}");
        assert_eq!((train.different_texts(), train.score(0), train.label(0)), (6, None, None));
        assert_eq!((train.content(1, 0), train.content(1, 1), train.content(1, 2)), (Some(2), Some(3), None));
        let first = if path.to_string_lossy().contains("bare") { 1 } else { 2 };
        if path.extension().is_some_and(|ending| ending == "tsv" || ending == "csv") {
            assert_eq!(train.name(1), format!("{}:{}", path.display(), first + 1));
        }
    }
    let noted = open(&folder.write("c.tsv", tsv), "").unwrap().notes;
    assert!(noted[0].contains("`query`, `answer`; not read: `id`"), "{noted:?}");
}

#[test]
fn every_kind_is_recognised_or_named() {
    let folder = Folder::new();
    let kind = |content: &str, more: &str| {
        let opened = open(&folder.write("x.tsv", content), more).unwrap();
        (opened.train.kind(), rows(&opened.train), opened.train)
    };
    let (of, found, _) = kind("a b\nc d\n\n e\n", "");
    assert_eq!((of, found), (Kind::Texts, vec![vec!["a b"], vec!["c d"], vec!["e"]].into_iter().map(own).collect()));
    let (of, _, scored) = kind("split\tscore\tsentence1\tsentence2\ntest\t3.5\ta\tb\ntrain\t-1\tc\td\n", "");
    assert_eq!((of, scored.score(0), scored.score(1)), (Kind::Scored, Some(3.5), Some(-1.0)));
    let (of, _, scored) = kind("a\tb\t0.5\nc\td\t1e-1\n", "");
    assert_eq!((of, scored.score(0), scored.score(1)), (Kind::Scored, Some(0.5), Some(0.1)));
    let (of, found, _) = kind("a\tb\tc\nd\te\tf\n", "");
    assert_eq!((of, found[1].clone()), (Kind::Triplets, own(vec!["d", "e", "f"])));
    let (of, found, many) = kind("anchor\tnegative_2\tpositive\tnegative_1\na\tn2\tp\tn1\nb\tn4\tq\tn3\n", "");
    assert_eq!((of, found[0].clone(), many.columns()), (Kind::Triplets, own(vec!["a", "p", "n2", "n1"]), 4));
    let (of, _, labelled) = kind("text\tlabel\nx y\tpos\nz w\tneg\nv w\tpos\n", "");
    assert_eq!((of, labelled.classes().to_vec()), (Kind::Labelled, own(vec!["neg", "pos"])));
    assert_eq!((0..3).map(|index| labelled.label(index)).collect::<Vec<_>>(), [Some(1), Some(0), Some(1)]);
    let (of, found, labelled) = kind("1\tgood film\n0\tbad film\n1\tfine film\n", "kind = \"labelled\"");
    assert_eq!((of, found[1].clone(), labelled.label(1)), (Kind::Labelled, own(vec!["bad film"]), Some(0)));
    let (of, found, _) = kind("a\tb\tc\nd\te\tf\n", "columns.anchor = 3\ncolumns.positive = 1");
    assert_eq!((of, found[1].clone()), (Kind::Pairs, own(vec!["f", "d"])));
    let (of, found, _) =
        kind("x\ty\tz\nd\te\tf\ng\th\ti\n", "columns.anchor = \"z\"\ncolumns.positive = \"x\"\ncolumns.negative = [\"y\"]");
    assert_eq!((of, found[0].clone()), (Kind::Triplets, own(vec!["f", "d", "e"])));
    // A label beside two texts may mean anything.
    let nli = "premise\thypothesis\tlabel\na\tb\t1\nc\td\t0\n";
    assert!(error(open(&folder.write("n.tsv", nli), "")).contains("`label`"));
    assert_eq!(kind(nli, "kind = \"pairs\"").0, Kind::Pairs);
    assert_eq!(kind(nli, "kind = \"scored\"").2.score(0), Some(1.0));
    assert_eq!(kind("a\tb\nc\td\n", "format = \"text\"").1[0], ["a\tb"]);
}

fn own(row: Vec<&str>) -> Vec<String> {
    row.into_iter().map(String::from).collect()
}

#[test]
fn what_is_skipped_or_odd_is_counted_and_bad_rows_are_refused_by_their_line() {
    let folder = Folder::new();
    let path = folder.write("x.tsv", "a\tb\n\tc\nd\t \n\ne\te\na\tb\nf\tg\n");
    let Sentences { train, notes, .. } = open(&path, "").unwrap();
    assert_eq!(rows(&train), [["a", "b"], ["e", "e"], ["a", "b"], ["f", "g"]]);
    assert_eq!(train.name(1), format!("{}:5", path.display()));
    for wanted in [
        "3 of 7 rows are skipped, because a cell that is used is empty (the first in line 2)",
        "4 pairs with 5 different texts",
        "1 of 4 samples have a positive that equals its anchor",
        "1 of 4 samples repeat the texts",
    ] {
        assert!(notes.iter().any(|note| note.contains(wanted)), "{wanted}: {notes:?}");
    }
    for (name, content, more, wanted) in [
        ("x.tsv", "a\tb\nc\td\te\n", "", &["this line has 3 columns, not 2", "line 2"][..]),
        ("x.csv", "anchor,positive\na,b\nc\n", "", &["1 columns, not 2", "line 3"]),
        ("x.tsv", "anchor\tpositive\tscore\na\tb\tNaN\n", "", &["`NaN` is not a number", "line 2"]),
        ("x.tsv", "anchor\tpositive\tscore\na\tb\t1\nc\td\t\n", "", &["the score is missing", "line 3"]),
        ("x.tsv", "a\tb\tinf\nc\td\t1\n", "", &["`inf` is not a number", "line 1"]),
        ("x.tsv", "1\ta\tb\n2\tc\td\n", "", &["are not recognised", "1 (“1”), 2 (“a”), 3 (“b”)", "data.columns.anchor"]),
        ("x.tsv", "1\ta\tb\t5\n2\tc\td\t6\n", "", &["are not recognised", "data.columns.anchor"]),
        ("x.tsv", "a\tb\nc\td\n", "columns.anchor = 3", &["no column 3", "1 (“a”), 2 (“b”)"]),
        ("x.tsv", "a\tb\nc\td\n", "columns.anchor = \"q\"", &["no column `q`"]),
        ("x.tsv", "a\tb\nc\td\n", "kind = \"scored\"", &["data.kind is", "not recognised"]),
        ("x.tsv", "anchor\tpositive\na\tb\n", "kind = \"triplets\"", &["the negative is not recognised"]),
        ("x.tsv", "anchor\tpositive\n\tb\n", "", &["no row of pairs"]),
        ("x.tsv", "anchor\tpositive\n", "", &["no row of pairs"]),
        ("x.tsv", "a\tb\n", "", &["one sample to train on", "at least two"]),
        ("x.tsv", "", "", &["no text"]),
        ("x.jsonl", "{\"anchor\": \"a\", \"positive\": [\"b\"]}\n", "", &["`positive` is a list", "line 1", "for each positive"]),
        ("x.jsonl", "[\"a\", \"b\"]\n[\"c\"]\n", "", &["1 cells, not 2", "line 2"]),
        ("x.jsonl", "{\"anchor\": \"a\", \"positive\": \"b\"}\n{\"anchor\": NaN}\n", "", &["line 2"]),
        ("x.jsonl", "{\"anchor\": \"a\", \"positive\": \"b\"}\n[1]\n", "", &["line 2"]),
        ("x.tsv", "a\tb\nb\tc\n", "dev_share = 0.5", &["none can be", "data.dev"]),
    ] {
        let said = error(open(&folder.write(name, content), more));
        assert!(wanted.iter().all(|wanted| said.contains(wanted)) && said.contains("hint: "), "{content:?}: {said}");
    }
}

#[test]
fn sources_have_one_kind_and_an_epoch_meets_them_by_their_weights() {
    let folder = Folder::new();
    let lines = |name: &str, count: usize| (0..count).map(|i| format!("{name}{i}\t{name} {i}\n")).collect::<String>();
    let (a, b) = (folder.write("a.tsv", lines("a", 20)), folder.write("b.tsv", lines("b", 30)));
    let triplets = folder.write("t.tsv", "a\tb\tc\nd\te\tf\n");
    let text = |second: &Path| {
        format!(
            "[[data.source]]\npath = {a:?}\nweight = 2.0\n[[data.source]]\npath = {second:?}\nweight = 0.5\ncolumns.anchor = 2\n\
                 columns.positive = 1\n"
        )
    };
    let said = error(
        recipe(&text(&triplets).replace("columns.positive = 1", "columns.positive = 1\ncolumns.negative = 3")).unwrap().open(),
    );
    assert!(said.contains("t.tsv") && said.contains("a.tsv") && said.contains("triplets of 3 texts"), "{said}");
    let Sentences { train, notes, .. } = recipe(&text(&b)).unwrap().open().unwrap();
    assert_eq!((train.samples(), train.len(), train.per_epoch()), (50, 70, 55));
    assert_eq!((train.get(45).unwrap(), train.name(45)), (own(vec!["b 5", "b5"]), format!("{}:6", b.display())));
    assert_eq!((train.get(25).unwrap(), train.name(25)), (own(vec!["a5", "a 5"]), format!("{}:6", a.display())));
    assert!(notes.iter().any(|note| note.contains("an epoch has 55 samples of 50")), "{notes:?}");
    // In a feed: both indices of a sample of weight 2 are in the epoch, and never in one batch.
    struct Only(Pairs);
    impl Source for Only {
        type Batch = ();

        fn len(&self) -> usize {
            self.0.len()
        }

        fn per_epoch(&self) -> usize {
            self.0.per_epoch()
        }

        fn arrange(&self, order: &mut Vec<u32>, batch: usize, epoch: usize) -> ctk_core::data::distinct::Arranged {
            self.0.arrange(order, batch, epoch)
        }

        fn draw(&self, _: &[u32], _: Key) -> Result<()> {
            Ok(())
        }
    }
    let source = Only(train);
    let order = Order::new(source.per_epoch(), 11, 11, true, true, Key::new(0)).arranged_by(&source);
    let mut met = vec![0; 50];
    for epoch in 0..2 {
        for step in 0..order.steps() {
            let batch = order.samples(epoch, step, 0);
            let mut texts: Vec<String> = batch.iter().flat_map(|index| source.0.get(*index as usize).unwrap()).collect();
            let count = texts.len();
            texts.sort_unstable();
            texts.dedup();
            assert_eq!((batch.len(), texts.len()), (11, count));
            batch.iter().for_each(|index| met[source.0.weights.sample(*index as usize)] += 1);
        }
    }
    assert!(met[..20].iter().all(|count| *count == 4) && met[20..].iter().all(|count| *count == 1), "{met:?}");
}

#[test]
fn a_part_is_held_out_or_read_and_prompts_stand_before_texts() {
    let folder = Folder::new();
    let lines: String = (0..100).map(|i| format!("a{}\tb{i}\n", i % 60)).collect();
    let path = folder.write("a.tsv", &lines);
    let more = "dev_share = 0.1\nprompts.anchor = \"query: \"\nprompts.positive = \"passage: \"";
    let Sentences { train, dev, notes } = open(&path, more).unwrap();
    let dev = dev.unwrap();
    assert_eq!((train.samples(), dev.samples()), (90, 10));
    assert!(notes.iter().any(|note| note.contains("10 of 100 samples are held out")), "{notes:?}");
    let row = train.get(0).unwrap();
    assert!(row[0].starts_with("query: a") && row[1].starts_with("passage: b"), "{row:?}");
    assert_eq!((train.text(0, 0), train.prompt(1)), (&row[0][7..], "passage: "));
    for of in [&train, &dev] {
        for index in 0..of.len() {
            let line: usize = of.name(index).rsplit_once(':').unwrap().1.parse().unwrap();
            assert_eq!(of.text(index, 1), format!("b{}", line - 1));
        }
    }
    let anchors = |of: &Pairs| (0..of.len()).map(|index| of.content(index, 0)).collect::<std::collections::BTreeSet<_>>();
    assert!(anchors(&train).is_disjoint(&anchors(&dev)), "texts have one number in both");
    let read = format!("dev = {:?}", folder.write("dev.tsv", "a1\tb1\nx\ty\n"));
    let Sentences { train, dev, notes } = open(&path, &read).unwrap();
    assert_eq!((train.samples(), dev.unwrap().samples()), (100, 2));
    assert!(
        notes.iter().any(|note| note.contains("2 samples are measured on (data.dev), and 1 of them are trained on")),
        "{notes:?}"
    );
    let triplets = format!("prompts.positive = \"p: \"\ndev = {:?}", folder.write("t.tsv", "a\tb\tc\nd\te\tf\n"));
    assert!(error(open(&path, &triplets)).contains("t.tsv"));
    let row = open(&folder.write("u.tsv", "a\tb\tc\nd\te\tf\n"), "prompts.positive = \"p: \"").unwrap().train.get(1).unwrap();
    assert_eq!(row, ["d", "p: e", "p: f"], "negatives have the prompt of positives");
}

#[test]
fn mistakes_in_a_recipe_are_told_with_their_line() {
    for (more, wanted) in [
        ("path = []", &["data.path: names no file", "a.toml:2"][..]),
        ("path = \"a\"\n[[data.source]]\npath = \"b\"", &["data.path: cannot be beside"]),
        ("[[data.source]]\npath = \"b\"\nweight = 0.0", &["data.source.0.weight: must be above 0", "a.toml:4"]),
        ("[[data.source]]\npath = \"b\"\nwaight = 2.0", &["a.toml:4", "did you mean `weight`?"]),
        ("columns.positive = 1", &["data.columns.anchor: is missing"]),
        ("columns.anchor = 0", &["numbered from 1", "a.toml:2"]),
        ("columns.anchor = 1\ncolumns.positive = 1", &["another meaning already", "a.toml:3"]),
        ("columns.anchor = 1\ncolumns.score = 2", &["data.columns.positive: is missing"]),
        ("columns.anchor = 1\ncolumns.positive = 2\ncolumns.label = 3", &["data.columns.label: cannot be beside", "a.toml:4"]),
        ("columns.anchor = true", &["its number from 1 on", "a.toml:2"]),
        ("dev_share = 1.0", &["data.dev_share", "a.toml:2"]),
        ("dev_share = 0.1\ndev = \"x\"", &["cannot be beside data.dev"]),
        ("encoding = \"klingon\"", &["klingon", "a.toml:2"]),
    ] {
        let said = recipe(&format!("[data]\n{more}")).expect_err("this is refused").to_string();
        assert!(wanted.iter().all(|wanted| said.contains(wanted)), "{more}: {said}");
    }
    let generated = recipe("[data]\npairs = 30").unwrap().open().unwrap().train;
    assert_eq!((generated.samples(), generated.kind()), (30, Kind::Pairs), "without a file");
    assert_eq!(recipe("[data]").unwrap(), SentencesDataRecipe::default());
}

#[test]
#[cfg_attr(not(ctk_data), ignore = "needs CTK_DATA")]
fn real_pairs_are_read_and_their_batches_have_no_text_twice() {
    let data = PathBuf::from(std::env::var_os("CTK_DATA").expect("CTK_DATA")).join("text");
    let at = |name: &str| data.join(name).display().to_string();
    let text = format!(
        "[[data.source]]\npath = {:?}\ncolumns.anchor = 3\ncolumns.positive = 4\n[[data.source]]\npath = {:?}\ncolumns.anchor = 2\n\
         columns.positive = 3\n",
        at("sentence-pairs/wordnet/train.tsv"),
        at("sentence-pairs/chitchat/train.tsv")
    );
    let Sentences { train, .. } = recipe(&text).unwrap().open().unwrap();
    assert_eq!(train.samples(), 111_087 + 79_495);
    let mut order: Vec<u32> = (0..train.len() as u32).collect();
    rand::seq::SliceRandom::shuffle(&mut order[..], &mut Key::new(0).rng());
    let arranged = train.arrange(&mut order, 256, 0);
    assert!(arranged.moved > 0, "{arranged:?}");
    // A text that stands in two samples of a batch is there because no other place was found.
    let repeated: usize = order
        .chunks(256)
        .map(|batch| {
            let mut owners = std::collections::HashMap::new();
            let mut owned = |index: u32, view| *owners.entry(train.content(index as usize, view)).or_insert(index) == index;
            batch.iter().filter(|index| !(owned(**index, 0) & owned(**index, 1))).count()
        })
        .sum();
    assert!(repeated <= arranged.unplaced && arranged.unplaced < 100, "{repeated}, {arranged:?}");
    let sts = open(Path::new(&at("sentence-similarity/sts-2012-2014.tsv")), "").unwrap();
    assert_eq!((sts.train.kind(), sts.train.samples()), (Kind::Scored, 9092));
    let sick = open(Path::new(&at("sentence-similarity/sick2014.tsv")), "").unwrap();
    assert_eq!((sick.train.kind(), sick.train.samples()), (Kind::Scored, 9927));
}
