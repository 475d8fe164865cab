//! Distillation of a tiny teacher: its vocabulary against an oracle, texts with rows that are kept, and what is refused.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use ctk_core::Device;
use ctk_core::data::dataset::Dataset as _;
use ctk_core::modality::{Modality as _, Summary};
use ctk_core::nn::pass::Precision;
use ctk_core::observer::Observer;
use ctk_core::process::Stop;
use ctk_core::recipe::Recipe;
use ctk_core::store::checkpoint::Checkpoint;
use ctk_core::store::run::Place;

use super::*;
use crate::sentences::Sentences;
use crate::sentences::encoder::encode;
use crate::sentences::folder::Folder;
use crate::sentences::tests::{MEAN, TOKENIZER, write};

/// A teacher of 8 values whose pieces are a, b, c, d, `[unused3]` and special tokens.
fn teacher(folder: &Path) -> PathBuf {
    let place = folder.join("a teacher");
    std::fs::create_dir_all(&place).unwrap();
    write(&place, &[("Transformer", ""), ("Pooling", "1_Pooling")], MEAN);
    let vocabulary = r###""c": 6, "d": 7, "[unused3]": 8}"###;
    let file = TOKENIZER
        .replace(r#""c": 6, "d": 7}"#, vocabulary)
        .replace("WordLevel", "WordPiece")
        .replace("\"unk_token\"", r###""continuing_subword_prefix": "##", "max_input_chars_per_word": 20, "unk_token""###);
    std::fs::write(place.join("tokenizer.json"), file).unwrap();
    place
}

/// Texts of the teacher's pieces.
fn texts(count: usize) -> String {
    let word = |number: usize| ["a", "b", "c", "d"][number % 4];
    (0..count).map(|at| format!("{} {} {} {}\n", word(at), word(at / 4), word(at / 16), word(at / 64))).collect()
}

fn recipe(teacher: &Path, more: &str) -> Recipe {
    Recipe::new("r.toml", format!("[task.distill]\nteacher = {:?}\n{more}", teacher.display().to_string()))
}

/// Collects what is said.
#[derive(Clone, Default)]
struct Said(Arc<Mutex<Vec<String>>>);

impl Observer for Said {
    fn event(&mut self, event: &Event) {
        if let Event::Note(text) | Event::About(text) = event {
            self.0.lock().unwrap().push(text.to_string());
        }
    }
}

impl Said {
    fn has(&self, part: &str) -> bool {
        self.0.lock().unwrap().iter().any(|text| text.contains(part))
    }
}

fn run_by(place: Place, recipe: &Recipe, stop: Option<&Stop>) -> (Result<Summary>, Said) {
    let said = Said::default();
    let result = Sentences.plan(recipe).and_then(|job| {
        let mut process = Process::new(Device::Cpu).observed_by(Box::new(said.clone()));
        if let Some(stop) = stop {
            process = process.stopped_by(stop.clone());
        }
        job.run(&mut Run::new(place, "sentences", recipe.clone())?, &mut process)
    });
    (result, said)
}

fn new_run(folder: &Path, name: &str, recipe: &Recipe) -> (Result<Summary>, Said) {
    run_by(Place::New(folder.join(name)), recipe, None)
}

fn table_of(run: &Path) -> Vec<Vec<f32>> {
    let tensors = Checkpoint::open(run).unwrap().reader().tensors("model.safetensors").unwrap();
    tensors[table::ROWS].to_vec2().unwrap()
}

fn error(recipe: &Recipe) -> String {
    let folder = tempfile::tempdir().unwrap();
    let error = new_run(folder.path(), "run", recipe).0.err().map(|e| e.to_string());
    assert!(!folder.path().join("run/checkpoints").exists());
    error.unwrap_or_default()
}

/// The products of centred rows with their first components, by power iteration in f64.
fn components(rows: &[Vec<f64>], kept: usize) -> Vec<Vec<f64>> {
    let (n, d) = (rows.len(), rows[0].len());
    let mean: Vec<f64> = (0..d).map(|at| rows.iter().map(|row| row[at]).sum::<f64>() / n as f64).collect();
    let mut rest: Vec<Vec<f64>> = rows.iter().map(|row| row.iter().zip(&mean).map(|(v, m)| v - m).collect()).collect();
    let dot = |a: &[f64], b: &[f64]| a.iter().zip(b).map(|(a, b)| a * b).sum::<f64>();
    let mut scores = vec![Vec::new(); n];
    for _ in 0..kept {
        let mut v: Vec<f64> = (0..d).map(|at| 1.0 + (at as f64).sin()).collect();
        for _ in 0..20_000 {
            let mut next = vec![0.0; d];
            rest.iter().for_each(|row| {
                let along = dot(row, &v);
                next.iter_mut().zip(row).for_each(|(sum, x)| *sum += along * x);
            });
            let length = dot(&next, &next).sqrt();
            v = next.into_iter().map(|x| x / length).collect();
        }
        let along: Vec<f64> = rest.iter().map(|row| dot(row, &v)).collect();
        let top = along.iter().copied().max_by(|a, b| a.abs().total_cmp(&b.abs())).unwrap();
        for (row, score) in along.iter().enumerate() {
            rest[row].iter_mut().zip(&v).for_each(|(x, v)| *x -= score * v);
            scores[row].push(score * top.signum());
        }
    }
    scores
}

#[test]
fn the_vocabulary_is_the_teachers_means_by_components_and_weights() {
    let folder = tempfile::tempdir().unwrap();
    let place = teacher(folder.path());
    let (summary, said) = new_run(folder.path(), "run", &recipe(&place, "[encoder.static]\nwidth = 2\n"));
    let summary = summary.unwrap();
    // The oracle: each piece between [CLS] (2) and [SEP] (3), through the folder's own encoder.
    let own = Folder::read(&place).unwrap().encoder(&Device::Cpu).unwrap();
    let mut means = Vec::new();
    let sequences: Vec<[u32; 3]> = (4..8).map(|piece| [2, piece, 3]).collect();
    encode(&own.network, Precision::F32, &sequences.iter().map(|ids| &ids[..]).collect::<Vec<_>>(), &mut means).unwrap();
    let means: Vec<Vec<f64>> = means.chunks_exact(8).map(|row| row.iter().map(|v| f64::from(*v)).collect()).collect();
    let scores = components(&means, 2);
    let table = table_of(&folder.path().join("run"));
    // [PAD], [UNK], a, b, c, d: others are left out, and the first two are zeros.
    assert_eq!((table.len(), &table[0][..], &table[1][..]), (6, &[0.0, 0.0][..], &[0.0, 0.0][..]));
    let sum: f64 = (2..8).map(|rank| 1.0 / f64::from(rank)).sum();
    for (row, scores) in scores.iter().enumerate() {
        let p = 1.0 / (row as f64 + 4.0) / sum;
        for (found, score) in table[row + 2].iter().zip(scores) {
            let wanted = score * 1e-4 / (1e-4 + p);
            assert!((f64::from(*found) - wanted).abs() < 1e-4 * wanted.abs().max(1e-4), "{row}: {found} {wanted}");
        }
    }
    for part in ["left out of the vocabulary ([unused…], special tokens): 3", "weighted by frequencies that follow"] {
        assert!(said.has(part), "{part}: {:?}", said.0);
    }
    let figure = |name: &str| summary.figures.iter().find(|(known, _)| *known == name).unwrap().1.clone();
    assert_eq!((figure("pieces"), figure("width"), figure("frequencies")), (json!(6), json!(2), json!("ranks")));
    assert!(figure("explained").as_f64().unwrap() > 0.5);
    // The run is one that every verb opens, and is not trained on.
    let checkpoint = Checkpoint::open(&folder.path().join("run")).unwrap();
    let model = Sentences.open(&checkpoint, &Device::Cpu).unwrap();
    let rows = model.texts(&["a b".to_string(), "b zzz a".to_string(), "[CLS]".to_string()]).unwrap();
    assert!(rows.row(0).iter().zip(rows.row(1)).all(|(a, b)| (a - b).abs() < 1e-6), "what is not known is left out");
    assert_eq!(rows.row(2), [0.0, 0.0]);
    let again = recipe(&place, "[encoder.static]\nwidth = 2\n");
    let (resumed, said) = run_by(Place::Resume(folder.path().join("run")), &again, None);
    assert!(resumed.is_ok() && said.has("is whole"));
}

#[test]
fn threads_do_not_change_a_bit_of_the_vocabulary() {
    let folder = tempfile::tempdir().unwrap();
    let place = teacher(folder.path());
    std::fs::write(folder.path().join("t.txt"), texts(40)).unwrap();
    let more = format!(
        "[encoder.static]\nwidth = 3\n[data]\npath = {:?}\n[train]\nbatch = 8\nepochs = 1\n[loss.infonce]\n",
        folder.path().join("t.txt").display().to_string()
    );
    for (kind, more) in [("vocabulary", "[encoder.static]\nwidth = 3\n"), ("texts", &more)] {
        let tables = [1, 2, 3].map(|threads| {
            let name = format!("{kind}-{threads}");
            let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
            pool.install(|| new_run(folder.path(), &name, &recipe(&place, more)).0.unwrap());
            table_of(&folder.path().join(name))
        });
        assert!(tables[0] == tables[1] && tables[0] == tables[2], "{kind}");
    }
}

#[test]
fn words_join_the_vocabulary_and_what_cannot_is_counted() {
    let folder = tempfile::tempdir().unwrap();
    let place = teacher(folder.path());
    let words = folder.path().join("my words.txt");
    std::fs::write(&words, "ab\nab\n\na\nb c\ndd\n").unwrap();
    let with = format!("vocabulary = {:?}\n[encoder.static]\nwidth = 2\n", words.display().to_string());
    let (summary, said) = new_run(folder.path(), "run", &recipe(&place, &with));
    summary.unwrap();
    for part in [
        "words that join the vocabulary: 2 of 5",
        "stand twice, or differ only as the tokenizer does not see, so that they join once: 1",
        "are pieces of the vocabulary already: 1",
        "divides them: 1 (the first: `b c`)",
    ] {
        assert!(said.has(part), "{part}: {:?}", said.0);
    }
    let run = folder.path().join("run");
    assert_eq!(table_of(&run).len(), 8);
    let model = Sentences.open(&Checkpoint::open(&run).unwrap(), &Device::Cpu).unwrap();
    let rows = model.texts(&["ab".to_string(), "dd".to_string(), "abc".to_string()]).unwrap();
    assert!(rows.row(0).iter().any(|v| *v != 0.0) && rows.row(2).iter().all(|v| *v == 0.0), "{:?}", rows.rows);

    // The most frequent words of texts.
    std::fs::write(folder.path().join("t.txt"), format!("{}x y y y\ny z x\na z\n", texts(30))).unwrap();
    let data = folder.path().join("t.txt").display().to_string();
    let with = format!(
        "words = 2\nfrequencies = \"counts\"\n[encoder.static]\nwidth = 2\n[data]\npath = {data:?}\n[train]\nbatch = 8\nepochs = 1\n[loss.mse]\n"
    );
    let (summary, said) = new_run(folder.path(), "frequent", &recipe(&place, &with));
    summary.unwrap();
    assert!(said.has("words that join the vocabulary: 2 of 2") && said.has("frequencies of the pieces in the texts"));
    let start = Start::again(&Checkpoint::open(&folder.path().join("frequent")).unwrap()).unwrap();
    assert!(
        ["x", "y"].iter().all(|word| start.tokenizer.token_to_id(word).is_some()) && start.tokenizer.token_to_id("z").is_none()
    );

    std::fs::write(&words, "b c\nd, a\n").unwrap();
    let with = format!("vocabulary = {:?}\n[encoder.static]\nwidth = 2\n", words.display().to_string());
    let said = error(&recipe(&place, &with));
    assert!(said.contains("all 1, such as `b c`") || said.contains("such as `b c`"), "{said}");
    std::fs::write(&words, "\n \n").unwrap();
    assert!(error(&recipe(&place, &with)).contains("no word in this file"));
}

/// A recipe that learns texts, and its folder.
fn learning(folder: &Path, count: usize, more: &str) -> Recipe {
    std::fs::write(folder.join("t.txt"), texts(count)).unwrap();
    let data = folder.join("t.txt").display().to_string();
    recipe(
        &teacher(folder),
        &format!(
            "{more}\n[data]\npath = {data:?}\ndev_share = 0.2\n[encoder.static]\nwidth = 4\n[optimizer.adamw]\nrate = 0.05\n[schedule]\nwarmup = 0.5\ndecay = \"linear\"\nscaling = \"none\"\nlength = \"steps\"\n[train]\nepochs = 6\nbatch = 16\nlog_every = 1\n"
        ),
    )
}

#[test]
fn a_student_learns_its_teachers_rows_and_a_stopped_run_ends_as_an_unbroken_one() {
    for loss in ["mse]\nnormalise = true", "mse]", "kl]\ntemperature = 0.1", "infonce]\ntemperature = 0.07", "ranking]"] {
        let folder = tempfile::tempdir().unwrap();
        let at = folder.path();
        // By weights the rows of a small vocabulary would be short, and a step at this rate would be longer than they are.
        let recipe = learning(at, 120, "frequencies = \"none\"");
        let recipe = Recipe::new("r.toml", format!("{}[loss.{loss}\n", recipe.text()));
        let (summary, said) = new_run(at, "whole", &recipe);
        let summary = summary.unwrap();
        let metrics = std::fs::read_to_string(at.join("whole/metrics.jsonl")).unwrap();
        let losses: Vec<f64> =
            metrics.lines().filter_map(|line| serde_json::from_str::<Value>(line).unwrap()["loss"].as_f64()).collect();
        let epoch = |steps: &[f64]| steps.iter().sum::<f64>() / steps.len() as f64;
        let [first, last] = [&losses[..6], &losses[losses.len() - 6..]].map(epoch);
        assert!(last < 0.95 * first, "{loss}: {losses:?}");
        let agreement = summary.figures.iter().find(|(name, _)| *name == "dev_agreement").unwrap().1.as_f64().unwrap();
        assert!(agreement > 0.3, "{loss}: {agreement}");
        assert!(said.has("the teacher's rows of 120 texts are kept in") && said.has("batches of 16"), "{:?}", said.0);

        let stop = Stop::default();
        stop.raise();
        let (stopped, _) = run_by(Place::New(at.join("parts")), &recipe, Some(&stop));
        assert!(stopped.is_err());
        let mut tries = 0;
        while run_by(Place::Resume(at.join("parts")), &recipe, if tries < 3 { Some(&stop) } else { None }).0.is_err() {
            tries += 1;
            assert!(tries < 9);
        }
        assert!(tries >= 2, "a stop is heard");
        assert!(table_of(&at.join("parts")) == table_of(&at.join("whole")), "{loss}");
    }
}

#[test]
fn a_linear_layer_begins_as_the_regression_of_the_teachers_rows() {
    let loss = |head: &str, norms: &str| {
        let folder = tempfile::tempdir().unwrap();
        let at = folder.path();
        let recipe = learning(at, 120, "frequencies = \"none\"").text().replace("rate = 0.05", "rate = 1e-9");
        let recipe = format!("{recipe}max_steps = 1\n[loss.mse]\n[head]\nlayers = {head}\nwidth = 4\nnorms = \"{norms}\"\n");
        let (summary, said) = new_run(at, "run", &Recipe::new("r.toml", recipe));
        (summary.unwrap().loss, said.has("ridge regression"))
    };
    let [(regressed, said), (bare, not), (drawn, other)] = [loss("1", "none"), loss("0", "none"), loss("1", "all")];
    assert!(said && !not && !other);
    assert!(regressed < 0.9 * bare && regressed < 0.9 * drawn, "{regressed} {bare} {drawn}");
}

#[test]
fn the_teacher_reads_texts_once_and_damage_is_noticed() {
    let folder = tempfile::tempdir().unwrap();
    let at = folder.path();
    let rows = at.join("kept/t.rows");
    let recipe = learning(at, 60, &format!("rows = {:?}", rows.display().to_string()));
    let recipe = Recipe::new("r.toml", format!("{}[loss.mse]\n", recipe.text()));
    let (first, said) = new_run(at, "first", &recipe);
    first.unwrap();
    assert!(!said.has("were there already"));
    let (second, said) = new_run(at, "second", &recipe);
    second.unwrap();
    assert!(said.has("rows of 60 of 60 texts were there already"), "{:?}", said.0);
    assert!(table_of(&at.join("first")) == table_of(&at.join("second")));
    // The rows are not computed, but read: changed ones with a right digest cannot be made, damaged ones are made again.
    let mut bytes = std::fs::read(&rows).unwrap();
    let last = bytes.len() - 40;
    bytes[last] ^= 1;
    std::fs::write(&rows, &bytes).unwrap();
    let (third, said) = new_run(at, "third", &recipe);
    third.unwrap();
    assert!(said.has("t.rows is damaged: its rows from 0 on are computed again"), "{:?}", said.0);
    assert!(table_of(&at.join("first")) == table_of(&at.join("third")));
    // Other texts, another kind of rows, another teacher.
    std::fs::write(at.join("t.txt"), texts(60).replace('a', "b")).unwrap();
    assert!(error(&recipe).contains("another model or of other texts"));
    std::fs::write(at.join("t.txt"), texts(60)).unwrap();
    let other = Recipe::new("r.toml", recipe.text().replace("[task.distill]", "[task.distill]\ntargets = \"features\""));
    assert!(error(&other).contains("another model or of other texts"));
}

#[test]
fn a_transformer_learns_from_texts_and_a_run_goes_on_as_a_new_one() {
    let folder = tempfile::tempdir().unwrap();
    let at = folder.path();
    let network = "[encoder.transformer]\nlayers = 1\nwidth = 8\nheads = 2\npositions = 12\n";
    let recipe = learning(at, 80, "targets = \"features\"").text().replace("[encoder.static]\nwidth = 4\n", network);
    let (summary, said) = new_run(at, "student", &Recipe::new("r.toml", format!("{recipe}[loss.mse]\nnormalise = true\n")));
    summary.unwrap();
    assert!(said.has("its teacher's tokenizer"), "{:?}", said.0);
    // Its own student is a static embedding of a run.
    let (summary, _) = new_run(at, "small", &super::tests::recipe(&at.join("student"), "[encoder.static]\nwidth = 3\n"));
    summary.unwrap();
    let mut next = Checkpoint::open(&at.join("small")).unwrap().recipe();
    Sentences.set_init(&mut next, &at.join("small")).unwrap();
    assert!(!next.states("task") && next.states("encoder.static.weights"), "{}", next.text());
    let pairs: String = (0..30).map(|at| format!("a b {}\tb a {}\n", "c ".repeat(at), "c ".repeat(at))).collect();
    std::fs::write(at.join("p.tsv"), pairs).unwrap();
    next.set_path("data.path", &at.join("p.tsv")).unwrap();
    next.set("train.batch", "8").unwrap();
    next.set("train.epochs", "1").unwrap();
    next.set("optimizer.adamw.rate", "1e-12").unwrap();
    let (summary, _) = new_run(at, "more", &next);
    summary.unwrap();
    let close = |a: &[f32], b: &[f32]| a.iter().zip(b).all(|(a, b)| (a - b).abs() < 1e-6);
    assert!(table_of(&at.join("small")).iter().zip(&table_of(&at.join("more"))).all(|(a, b)| close(a, b)));
}

#[test]
fn mistakes_are_named_before_anything_is_written() {
    let folder = tempfile::tempdir().unwrap();
    let at = folder.path();
    let place = teacher(at);
    std::fs::write(at.join("one.txt"), "a b\n").unwrap();
    std::fs::write(at.join("same.txt"), "a b\na b\n").unwrap();
    std::fs::write(at.join("empty.txt"), "").unwrap();
    std::fs::write(at.join("few.txt"), "a b\nb a\nc d\n").unwrap();
    let of = |text: &str| error(&recipe(&place, text));
    let data = |name: &str| {
        format!("[loss.mse]\n[encoder.static]\nwidth = 4\n[data]\npath = {:?}\n", at.join(name).display().to_string())
    };
    for (text, part) in [
        ("[encoder.static]\nwidth = 9\n", "encoder.static.width: is more than the teacher's 8 values"),
        ("[encoder.static]\nwidth = 8\n", "give a width of at most 4"),
        ("sif = 0.0\n", "task.distill.sif"),
        ("words = 5\n", "needs texts"),
        ("rows = \"x\"\n", "needs texts"),
        ("frequencies = \"counts\"\n", "needs texts"),
        ("[encoder.transformer]\nlayers = 1\n", "needs texts to learn from"),
        ("[tokenizer]\nfile = \"t.json\"\n", "has its teacher's tokenizer"),
        ("tragets = \"tokens\"\n", "tragets"),
        (&data("one.txt"), "one sample"),
        (&data("same.txt"), "one text"),
        (&data("empty.txt"), "there is no text in this file"),
        (&data("few.txt"), "3 texts do not have 4 principal components"),
        (&data("few.txt").replace("loss.mse", "loss.nt-xent"), "does not compare a text with its teacher's embedding"),
        (&data("few.txt").replace("width = 4", "width = 9"), "encoder.static.width: is more than the teacher's 8 values"),
    ] {
        let said = of(text);
        assert!(said.contains(part), "{text}: {said}");
    }
    let said = error(&Recipe::new("r.toml", "[task.distill]\n"));
    assert!(said.contains("task.distill.teacher") && said.contains("r.toml"), "{said}");
    let (made, _) = new_run(at, "static", &recipe(&place, "[encoder.static]\nwidth = 2\n"));
    made.unwrap();
    assert!(error(&recipe(&at.join("static"), "[encoder.static]\nwidth = 2\n")).contains("static embedding already"));
    assert!(error(&recipe(&at.join("nothing"), "")).contains("no run or checkpoint here"));
}

#[test]
fn different_texts_are_those_of_all_columns_once() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("p.tsv"), "anchor\tpositive\na\tb\nb\tc\na\tc\n").unwrap();
    let text = format!("[data]\npath = {:?}\n", folder.path().join("p.tsv").display().to_string());
    let recipe: SentencesRecipe = Recipe::new("r.toml", text).parse().unwrap();
    let pairs = recipe.data.open().unwrap().train;
    assert_eq!((pairs.len(), texts::different(&pairs)), (3, ["a", "b", "c"].map(String::from).to_vec()));
}
