//! The program from a user's view: exit codes, JSON keys, and error messages that say what, where and what to do.

use std::fs;
use std::path::Path;
use std::process::{Command, Output};

use serde_json::Value;
use tempfile::TempDir;

fn ctk(folder: &Path, arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_ctk")).current_dir(folder).args(arguments).output().expect("ctk starts")
}

/// Runs and expects success; the last line of stdout as JSON.
fn json(folder: &Path, arguments: &[&str]) -> Value {
    let output = ctk(folder, arguments);
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{arguments:?}\n{stderr}");
    let stdout = String::from_utf8(output.stdout).unwrap();
    serde_json::from_str(stdout.lines().last().unwrap_or_default()).unwrap_or_else(|e| panic!("{e}: {stdout}"))
}

/// Runs and expects `code`, an `error:` that fits a screen and contains each of `parts`, and no run folder left behind.
fn fails(folder: &Path, arguments: &[&str], code: i32, parts: &[&str]) {
    let output = ctk(folder, arguments);
    let stderr = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(code), "{arguments:?}\n{stderr}");
    assert!(stderr.contains("error: ") && stderr.lines().count() <= 24, "{stderr}");
    assert!(!stderr.contains("panicked"), "{stderr}");
    for part in parts {
        assert!(stderr.contains(part), "`{part}` is missing in:\n{stderr}");
    }
    assert!(!folder.join("out").exists(), "something was left behind");
    assert!(!folder.join("runs").exists() || fs::read_dir(folder.join("runs")).unwrap().count() == 0);
    assert!(output.stdout.is_empty(), "errors belong on stderr");
}

fn folder() -> TempDir {
    tempfile::tempdir().unwrap()
}

fn write(folder: &Path, name: &str, content: impl AsRef<[u8]>) {
    let path = folder.join(name);
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    fs::write(path, content).unwrap();
}

/// A PNG of one colour with a lighter square, without an encoder: 8-bit RGB, stored deflate blocks.
fn png(size: u32, colour: [u8; 3]) -> Vec<u8> {
    fn crc(data: &[u8]) -> u32 {
        !data
            .iter()
            .fold(!0u32, |c, &b| (0..8).fold(c ^ u32::from(b), |c, _| if c & 1 == 1 { 0xedb8_8320 ^ (c >> 1) } else { c >> 1 }))
    }
    fn chunk(out: &mut Vec<u8>, kind: &[u8], data: &[u8]) {
        out.extend((data.len() as u32).to_be_bytes());
        let body = [kind, data].concat();
        out.extend(&body);
        out.extend(crc(&body).to_be_bytes());
    }
    let mut raw = Vec::new();
    for y in 0..size {
        raw.push(0);
        for x in 0..size {
            let inside = (size / 4..size / 2).contains(&x) && (size / 4..size / 2).contains(&y);
            raw.extend(colour.map(|c| if inside { c.saturating_add(60) } else { c }));
        }
    }
    let (mut a, mut b) = (1u32, 0u32);
    raw.iter().for_each(|&v| {
        a = (a + u32::from(v)) % 65521;
        b = (b + a) % 65521;
    });
    let mut zlib = vec![0x78, 1, 1];
    zlib.extend((raw.len() as u16).to_le_bytes());
    zlib.extend((!(raw.len() as u16)).to_le_bytes());
    zlib.extend(&raw);
    zlib.extend(((b << 16) | a).to_be_bytes());
    let mut out = b"\x89PNG\r\n\x1a\n".to_vec();
    chunk(&mut out, b"IHDR", &[&size.to_be_bytes()[..], &size.to_be_bytes()[..], &[8, 2, 0, 0, 0]].concat());
    chunk(&mut out, b"IDAT", &zlib);
    chunk(&mut out, b"IEND", &[]);
    out
}

/// A class folder of different small images.
fn class(folder: &Path, name: &str, count: u8, hue: u8) {
    (0..count).for_each(|i| write(folder, &format!("{name}/{i}.png"), png(16, [hue, i * 7, 90])));
}

const QUICK: [&str; 14] = [
    "--set",
    "train.max_steps=3",
    "--set",
    "train.batch=8",
    "--set",
    "encoder.resnet.width=0.25",
    "--set",
    "schedule.warmup=0",
    "--set",
    "eval.knn.every=1000",
    "--quiet",
    "--json",
    "--out",
    "out",
];

#[test]
fn vision_trains_probes_embeds_and_exports() {
    let dir = folder();
    let at = dir.path();
    class(at, "pictures/cat", 12, 20);
    class(at, "pictures/dog", 12, 160);
    let trained = json(at, &[&["train", "vision", "--data", "pictures"][..], &QUICK].concat());
    for key in ["run", "checkpoint", "modality", "steps", "epochs", "loss", "seconds", "images_per_second"] {
        assert!(!trained[key].is_null(), "{key} is missing in {trained}");
    }
    assert_eq!((&trained["modality"], &trained["steps"]), (&"vision".into(), &3.into()));
    let run = trained["run"].as_str().unwrap();
    assert!(at.join(run).join("splits.json").is_file(), "the hold-out is stored");

    let encoder = Path::new(trained["checkpoint"].as_str().unwrap()).join("model.safetensors");
    let before = fs::read(at.join(&encoder)).unwrap();
    let probe = json(at, &["eval", "linear-probe", run, "--baseline", "--json"]);
    for key in ["top1", "train", "test", "classes", "untrained_top1", "pixels_top1"] {
        assert!(probe[key].is_number(), "{key} is missing in {probe}");
    }
    assert!(probe.get("top5").is_some_and(Value::is_null), "top5 means nothing with two classes");
    assert_eq!(probe["train"].as_u64().unwrap() + probe["test"].as_u64().unwrap(), 24);
    let knn = json(at, &["eval", "knn", trained["checkpoint"].as_str().unwrap(), "--json"]);
    assert!(knn["top1"].is_number() && knn["k"].is_number());
    let geometry = json(at, &["eval", "geometry", run, "--json"]);
    assert!(geometry["uniformity"].is_number() && geometry["alignment"].is_number(), "{geometry}");
    let sgd = json(at, &["eval", "linear-probe", run, "--method", "sgd", "--json"]);
    assert!(sgd["top1"].is_number());
    assert!(before == fs::read(at.join(&encoder)).unwrap(), "judging an encoder changes no byte of it");

    json(at, &["embed", run, "--data", "pictures", "--out", "f.safetensors", "--json"]);
    json(at, &["embed", run, "--out", "f.npy", "--json"]);
    assert!(at.join("f.safetensors").is_file() && at.join("f.npy").is_file());
    assert!(ctk(at, &["export", run, "--format", "safetensors", "--out", "encoder.safetensors"]).status.success());
    assert!(ctk(at, &["preview", "--data", "pictures", "--out", "views.png"]).status.success());
    assert_eq!(&fs::read(at.join("views.png")).unwrap()[1..4], b"PNG");

    // The run exists, so another run must not write into its folder.
    let again = ctk(at, &[&["train", "vision", "--data", "pictures"][..], &QUICK].concat());
    assert_eq!(again.status.code(), Some(2));
    assert!(String::from_utf8_lossy(&again.stderr).contains("--resume"));
}

const TINY: [&str; 11] = ["bench", "vision", "--encoder", "resnet20", "--size", "8", "--batch", "4", "--steps", "1", "--quiet"];

#[test]
fn bench_times_a_recipe_and_leaves_nothing_behind() {
    let dir = folder();
    let at = dir.path();
    let timed = json(at, &[&TINY[..], &["--width", "0.5", "--threads", "1", "--seed", "3", "--json"]].concat());
    for key in
        ["images_per_second", "gflops", "gemm_peak_gflops", "peak_share", "peak_rss_mb", "simclr_peak_rss_mb", "epoch_seconds"]
    {
        assert!(timed[key].as_f64().unwrap_or(0.0) > 0.0, "{key} is missing in {timed}");
    }
    assert!(timed["step_ms"]["best"].as_f64().unwrap() <= timed["step_ms"]["median"].as_f64().unwrap());
    for key in ["augment", "forward", "backward", "loss", "optimizer", "total"] {
        assert!(timed["simclr_step_ms"][key].as_f64().unwrap_or(0.0) > 0.0, "{key} is missing in {timed}");
    }
    assert_eq!((&timed["threads"], &timed["precision"], &timed["epoch_images"]), (&1.into(), &"f32".into(), &50_000.into()));
    assert!(timed["isa"].is_string() && timed["width"] == 0.5 && timed["data"] == "random");
    let seconds = 5e4 / timed["images_per_second"].as_f64().unwrap();
    assert!((timed["epoch_seconds"].as_f64().unwrap() / seconds - 1.0).abs() < 0.01);

    // The recipe's own encoder, batch, loss and images; flags change them; missing data is reported.
    class(at, "pictures/cat", 12, 20);
    write(at, "mine.toml", "[encoder.resnet]\ndepth = 20\nwidth = 0.5\n[train]\nbatch = 6\npart = 3\n");
    let mine = ["bench", "vision", "--config", "mine.toml", "--size", "8", "--steps", "1", "--quiet", "--json"];
    let timed = json(at, &[&mine[..], &["--data", "pictures"]].concat());
    assert_eq!((&timed["batch"], &timed["epoch_images"], &timed["data"]), (&6.into(), &12.into(), &"pictures".into()));
    let away = json(at, &[&mine[..], &["--set", "data.path=away"]].concat());
    assert_eq!(away["epoch_images"], 50_000);
    assert!(away["data"].as_str().unwrap().contains("not here"), "{away}");

    let mixed = json(at, &[&TINY[..], &["--precision", "bf16", "--json"]].concat());
    assert_eq!(mixed["precision"], "bf16");
    fails(at, &["bench", "vision", "--set", "train.precision=fp16"], 2, &["fp16", "bf16", "hint: "]);

    let table = String::from_utf8(ctk(at, &TINY).stdout).unwrap();
    assert!(table.contains("SimCLR step") && table.contains("images a second"), "{table}");
    fails(at, &["bench", "vision", "--encoder", "vgg16"], 2, &["vgg16", "hint: "]);
    for (wrong, parts) in [
        (["--stem", "imagenet"], ["ResNet-20", "hint: "]),
        (["--width", "0"], ["width", "hint: "]),
        (["--set", "train.batch"], ["section.key=value", "hint: "]),
        (["--config", "none.toml"], ["none.toml", "hint: "]),
    ] {
        let arguments: Vec<&str> = ["bench", "vision", "--encoder", "resnet20"].into_iter().chain(wrong).collect();
        fails(at, &arguments, 2, &parts);
    }
    fails(at, &["bench", "word2vec", "--encoder", "resnet18"], 2, &["--encoder", "--set", "hint: "]);
    assert!(!at.join("runs").exists(), "nothing is written");
}

#[test]
fn bench_times_word2vec_on_the_generated_language_or_a_text() {
    let dir = folder();
    let at = dir.path();
    let bench = ["bench", "word2vec", "--steps", "3", "--quiet"];
    let timed = json(at, &[&bench[..], &["--set", "data.words=50000", "--json"]].concat());
    let positive = [
        "words_per_second",
        "kept_per_second",
        "pairs_per_second",
        "gflops",
        "gemm_peak_gflops",
        "bytes_per_word",
        "epoch_seconds",
    ];
    for key in positive {
        assert!(timed[key].as_f64().unwrap_or(0.0) > 0.0, "{key} is missing in {timed}");
    }
    for part in ["windows", "negatives", "training", "waiting"] {
        assert!(timed["split"][part].is_number(), "{part} is missing in {timed}");
    }
    assert_eq!((&timed["steps"], &timed["data"]), (&3.into(), &"generated".into()));
    assert!((50_000..51_000).contains(&timed["epoch_words"].as_u64().unwrap()), "{timed}");
    write(at, "some.txt", "one two three four five six\n".repeat(500));
    let table = String::from_utf8(ctk(at, &[&bench[..], &["--data", "some.txt", "--batch", "2"]].concat()).stdout).unwrap();
    assert!(table.contains("words a second") && table.contains("batch 2") && table.contains("data some.txt"), "{table}");
    fails(at, &["bench", "word2vec", "--data", "nowhere.txt"], 2, &["nowhere.txt", "hint: "]);
    assert!(!at.join("runs").exists(), "nothing is written");
}

#[test]
fn word2vec_trains_and_answers() {
    let dir = folder();
    let at = dir.path();
    let trained = json(at, &["train", "word2vec", "--set", "train.epochs=1", "--quiet", "--json", "--out", "out"]);
    for key in ["run", "checkpoint", "loss", "tokens", "vocabulary", "words_per_second", "total_seconds"] {
        assert!(!trained[key].is_null(), "{key} is missing in {trained}");
    }
    write(at, "questions.txt", ": gram1-test\nthis is not known\n");
    write(at, "pairs.tsv", "one\ttwo\t3.5\n");
    let written =
        [("word2vec-text", "v.txt"), ("word2vec-binary", "v.bin"), ("glove", "v.glove"), ("safetensors", "v.safetensors")];
    for (format, file) in written {
        assert!(ctk(at, &["export", "out", "--format", format, "--out", file]).status.success());
    }
    let text = fs::read_to_string(at.join("v.txt")).unwrap();
    let word = text.lines().nth(5).unwrap().split(' ').next().unwrap();
    let near = json(at, &["neighbors", "out", word, "--count", "3", "--json"]);
    assert_eq!(near[word].as_array().unwrap().len(), 3);
    // The same answers in every format of vectors.
    for (_, file) in written {
        assert_eq!(json(at, &["neighbors", file, word, "--count", "3", "--json"]), near, "{file}");
    }
    assert_eq!(json(at, &["eval", "geometry", "v.bin", "--json"]), json(at, &["eval", "geometry", "out", "--json"]));
    for arguments in [
        ["eval", "similarity", "out", "--pairs", "none.tsv"],
        ["eval", "analogy", "out", "--questions", "none.tsv"],
        ["eval", "categorize", "out", "none.tsv", "--quiet"],
        ["embed", "out", "--out", "none.tsv", "--quiet"],
    ] {
        let wrong = ctk(at, &arguments);
        let said = String::from_utf8(wrong.stderr).unwrap();
        assert_eq!(wrong.status.code(), Some(2), "{said}");
        assert!(said.contains("none.tsv") && said.contains("hint: "), "{said}");
    }
    write(
        at,
        "sets/places.csv",
        ",category,word\n0,country,france\n1,country,Egypt\n2,city,paris\n3,city,cairo\n4,city,zzzzzz\n",
    );
    let found = json(at, &["eval", "categorize", "out", "sets", "sets/places.csv", "--json"]);
    let set = &found["sets"][1];
    assert_eq!(
        (&set["set"], &set["words"], &set["missing"], &set["categories"]),
        (&"places".into(), &4.into(), &1.into(), &2.into())
    );
    assert!(
        set["purity"] == found["purity"] && set["nmi"] == found["nmi"] && found["purity"].as_f64().unwrap() >= 0.5,
        "{found}"
    );
    // Which of two words a text is about, among words of the generated language.
    let lines = |from: usize, to: usize| -> String {
        let line = |i: usize| {
            format!("{}\tthe {} zzzzzz\n", ["place", "thing"][i % 2], [["paris", "cairo"], ["dog", "car"]][i % 2][i / 2 % 2])
        };
        (from..to).map(line).collect()
    };
    write(at, "train.tsv", format!("label\ttext\n{}", lines(0, 40)));
    write(at, "test.tsv", lines(40, 60));
    let classify = ["eval", "text-classification", "out", "train.tsv"];
    let found = json(at, &[&classify[..], &["test.tsv", "--baseline", "random", "--seeds", "2", "--json"]].concat());
    assert_eq!((&found["train"], &found["test"], &found["classes"]), (&40.into(), &20.into(), &2.into()));
    assert!(found["accuracy"] == 1.0 && found["random_seeds"] == 2 && found["random_sd"].is_number(), "{found}");
    assert!(found["missing"].as_f64().unwrap() >= 1.0 / 3.0 && found["random_mean"].is_number(), "{found}");
    let drawn = json(at, &[&classify[..], &["--json"]].concat());
    assert!(drawn["split"].as_str().unwrap().contains("fifth") && drawn["random_mean"].is_null(), "{drawn}");
    let probe = json(at, &["eval", "knn", "out", "--data", "train.tsv", "--baseline", "--json"]);
    assert!(probe["top1"].is_number() && probe["random_top1"].is_number() && probe["missing"] == drawn["missing"], "{probe}");
    for (more, parts) in [
        (["--baseline", "pixels"], ["pixels", "random"]),
        (["--data", "train.tsv"], ["train.tsv", "hint: "]),
        (["none.tsv", "--quiet"], ["none.tsv", "hint: "]),
    ] {
        let wrong = ctk(at, &[&classify[..], &more].concat());
        let said = String::from_utf8(wrong.stderr).unwrap();
        assert!(wrong.status.code() == Some(2) && parts.iter().all(|part| said.contains(part)), "{said}");
    }
    let unknown = ctk(at, &["neighbors", "out", "zzzzzz"]);
    assert!(!unknown.status.success() && String::from_utf8_lossy(&unknown.stderr).contains("zzzzzz"));
    assert_eq!(
        json(at, &["train", "word2vec", "--resume", "out", "--quiet", "--json"])["steps"],
        trained["steps"],
        "a finished run stays finished"
    );
}

/// Directions of sex and rank, and one that has neither.
const ROYAL: &str = "5 3\nman 1 0 0.1\nwoman 0 1 0.1\nking 1 0 1\nqueen 0 1 1\ncart 1 1 0\n";

#[test]
fn vectors_of_other_programs_are_asked() {
    let dir = folder();
    let at = dir.path();
    write(at, "royal.vec", ROYAL);
    let said = |arguments: &[&str]| {
        let output = ctk(at, arguments);
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap()
    };
    let first = |text: String| text.lines().next().and_then(|l| l.split_whitespace().last()).unwrap().to_string();
    assert_eq!(first(said(&["analogy", "royal.vec", "man", "king", "woman"])), "queen");
    assert_eq!(first(said(&["neighbors", "royal.vec", "king", "woman", "--negative", "man"])), "queen");
    assert_eq!(said(&["neighbors", "royal.vec", "woman", "queen", "king", "--doesnt-match"]), "king\n");
    let answers = json(at, &["analogy", "royal.vec", "man", "king", "woman", "--count", "2", "--json"]);
    assert_eq!((&answers["answers"][0]["name"], answers["answers"].as_array().unwrap().len()), (&"queen".into(), 2));
    let together = json(at, &["neighbors", "royal.vec", "king", "queen", "--together", "--json"]);
    assert_eq!((&together["positive"][1], together["neighbors"].as_array().unwrap().len()), (&"queen".into(), 3));
    let odd = json(at, &["neighbors", "royal.vec", "woman", "queen", "king", "--doesnt-match", "--json"]);
    assert!(odd["doesnt_match"] == "king" && odd["cosines"]["king"].is_number(), "{odd}");
    fails(at, &["neighbors", "royal.vec", "kong"], 1, &["`kong`", "did you mean `king`"]);
    fails(at, &["analogy", "royal.vec", "man", "king", "woman", "--data", "x"], 2, &["texts"]);

    // Other spellings give the same answers; damaged files are named.
    for (format, file) in [("word2vec-binary", "r.bin"), ("glove", "r.txt"), ("safetensors", "r.safetensors")] {
        said(&["export", "royal.vec", "--format", format, "--out", file]);
        assert_eq!(first(said(&["analogy", file, "man", "king", "woman"])), "queen", "{file}");
    }
    assert_eq!(ROYAL, {
        said(&["export", "r.bin", "--format", "word2vec-text", "--out", "r.vec"]);
        fs::read_to_string(at.join("r.vec")).unwrap()
    });
    write(at, "short.vec", &ROYAL[..50]);
    fails(at, &["neighbors", "short.vec", "man"], 1, &["short.vec", "line", "hint: "]);
    write(at, "twice.txt", [&ROYAL[4..], "man 9 9 9\n"].concat());
    let noted = ctk(at, &["neighbors", "twice.txt", "man"]);
    assert!(String::from_utf8(noted.stderr).unwrap().contains("note: ") && noted.status.success());
    write(at, "prose.txt", "to be or not to be\nthat is the question\n");
    fails(at, &["neighbors", "prose.txt", "be"], 2, &["prose.txt", "hint: "]);
    fails(at, &["neighbors", "nowhere.bin", "be"], 2, &["nowhere.bin", "hint: give the folder", "or vectors"]);

    // Every set in a folder is one line of output, whatever its format.
    write(at, "sets/analogies/google.txt", ": royals\nMan Woman King Queen\n: gram1\nman woman king cart\n");
    write(at, "sets/analogies/table.csv", ",type,word1,word2,word3,target\n0,x,man,king,woman,queen\n1,x,a,b,c,d\n");
    write(at, "sets/pairs.csv", ",word1,word2,similarity\n0,king,queen,9\n1,king,man,3\n2,woman,cart,1\n3,a,b,5\n");
    write(at, "sets/unknown.tsv", "left\tright\t3.0\n");
    let pairs = json(at, &["eval", "similarity", "royal.vec", "--pairs", "sets", "--json"]);
    let sets: Vec<&str> = pairs["sets"].as_array().unwrap().iter().map(|s| s["set"].as_str().unwrap()).collect();
    assert_eq!(sets, ["pairs.csv", "unknown.tsv"]);
    assert_eq!((&pairs["sets"][0]["pairs"], &pairs["sets"][0]["missing"]), (&3.into(), &1.into()));
    assert!(pairs["sets"][0]["spearman"].is_number() && pairs["sets"][1]["spearman"].is_null(), "{pairs}");
    let asked = json(at, &["eval", "analogy", "r.bin", "--questions", "sets", "--json"]);
    let accuracy = |set: usize| (&asked["sets"][set]["accuracy"], &asked["sets"][set]["answered"]);
    assert_eq!((accuracy(0), accuracy(1)), ((&0.5.into(), &2.into()), (&1.0.into(), &1.into())));
    let table = said(&["eval", "analogy", "royal.vec", "--questions", "sets", "--quiet"]);
    assert_eq!(table.lines().count(), 3, "{table}");
    assert!(table.contains("analogies/google.txt") && table.contains("50.0 %"), "{table}");
    fails(at, &["eval", "similarity", "royal.vec", "--pairs", "sets/analogies"], 2, &["word pairs", "hint: "]);
}

#[test]
fn a_run_of_words_goes_on_with_another_text() {
    let dir = folder();
    let at = dir.path();
    let text = |words: [&str; 4], lines: usize| -> String {
        (0..lines).map(|i| format!("{} {} the {}\n", words[i % 4], words[(i + 1) % 4], words[i * 7 % 3])).collect()
    };
    write(at, "old.txt", text(["cat", "dog", "ant", "owl"], 400));
    write(at, "new.txt", text(["cat", "dog", "new", "newer"], 300) + "cat once once\nowl cat\n");
    let quiet = ["--threads", "1", "--quiet", "--json"];
    let train = |arguments: &[&str]| json(at, &[&["train", "word2vec"], arguments, &quiet].concat());
    train(&["--data", "old.txt", "--set", "encoder.table.width=8", "--set", "train.epochs=2", "--out", "old"]);
    // The recipe, with its width, is the old run's.
    let begun = ctk(at, &["train", "word2vec", "--init", "old", "--data", "new.txt", "--out", "new", "--threads", "1"]);
    let said = String::from_utf8(begun.stderr).unwrap();
    assert!(begun.status.success(), "{said}");
    for part in ["the vectors of 5 words, 1 of which are not in this text", "2 words are new", "its peak again, 0.05"] {
        assert!(said.contains(part), "`{part}` is missing in:\n{said}");
    }
    let vectors = |run: &str, tensor: &str| {
        assert!(ctk(at, &["export", run, "--format", "safetensors", "--out", "v.safetensors", "--force"]).status.success());
        let bytes = fs::read(at.join("v.safetensors")).unwrap();
        let length = u64::from_le_bytes(*bytes.first_chunk().unwrap()) as usize;
        let header: Value = serde_json::from_slice(&bytes[8..8 + length]).unwrap();
        let start = 8 + length + header[tensor]["data_offsets"][0].as_u64().unwrap() as usize;
        let words = fs::read_to_string(at.join("v.tsv")).unwrap();
        let rows: Vec<(String, u64, Vec<u8>)> = words
            .lines()
            .enumerate()
            .map(|(row, line)| {
                let (word, count) = line.split_once('\t').unwrap();
                (word.to_string(), count.parse().unwrap(), bytes[start + 32 * row..start + 32 * (row + 1)].to_vec())
            })
            .collect();
        move |word: &str| rows.iter().find(|(name, ..)| name == word).map(|(_, count, row)| (*count, row.clone()))
    };
    for tensor in ["input", "output"] {
        let (old, new) = (vectors("old", tensor), vectors("new", tensor));
        // Rarer than min_count, but known.
        assert_eq!((new("owl").unwrap().0, new("once"), old("new")), (1, None, None));
        // Not in the new text: neither trained nor drawn as a negative.
        assert_eq!((new("ant").unwrap().0, new("ant").unwrap().1), (0, old("ant").unwrap().1));
        assert_ne!(new("cat").unwrap().1, old("cat").unwrap().1);
        assert_eq!(new("newer").unwrap().0, 150);
    }

    // Such a run is resumed without the run that it began with.
    let again = ["--init", "old", "--data", "new.txt"];
    train(&[&again[..], &["--set", "train.epochs=3", "--out", "straight"]].concat());
    train(&[&again[..], &["--set", "train.epochs=3", "--set", "checkpoint.every=1 epoch", "--out", "cut"]].concat());
    let mut steps: Vec<usize> = fs::read_dir(at.join("cut/checkpoints"))
        .unwrap()
        .map(|e| e.unwrap().file_name().to_str().unwrap().parse().unwrap())
        .collect();
    steps.sort_unstable();
    fs::remove_dir_all(at.join("cut/checkpoints").join(steps.pop().unwrap().to_string())).unwrap();
    assert_eq!(steps.len(), 1, "an earlier checkpoint is left");
    fs::rename(at.join("old"), at.join("gone")).unwrap();
    train(&["--resume", "cut"]);
    let (straight, cut) = (vectors("straight", "output"), vectors("cut", "output"));
    assert!(["cat", "owl", "ant", "newer"].into_iter().all(|word| straight(word).unwrap() == cut(word).unwrap()));
    // Without a checkpoint it would have to begin again, and the error says what is missing.
    fs::remove_dir_all(at.join("cut/checkpoints")).unwrap();
    let lost = ctk(at, &["train", "word2vec", "--resume", "cut"]);
    let said = String::from_utf8_lossy(&lost.stderr).to_string();
    assert!(lost.status.code() == Some(2) && said.contains("recipe.toml:") && said.contains("init = \""), "{said}");
}

#[test]
fn what_cannot_begin_a_run_is_said() {
    let dir = folder();
    let at = dir.path();
    write(at, "a.txt", "a b c d\n".repeat(200));
    let arguments = ["train", "word2vec", "--data", "a.txt", "--set", "encoder.table.width=4", "--quiet", "--out", "from"];
    assert!(ctk(at, &arguments).status.success());
    let begin = ["train", "word2vec", "--init", "from", "--data", "a.txt", "--out", "out"];
    write(at, "wide.toml", "[encoder.table]\nwidth = 5\n");
    let place = ["wide.toml:2:", "vectors of width 4", "--set encoder.table.width=4"];
    fails(at, &[&begin[..], &["--config", "wide.toml"]].concat(), 2, &place);
    fails(at, &["train", "word2vec", "--init", "nowhere", "--data", "a.txt"], 2, &["nowhere", "hint: "]);
    fails(at, &["train", "word2vec", "--set", "train.init=nowhere", "--data", "a.txt"], 2, &["nowhere", "hint: "]);
    fails(at, &["train", "vision", "--init", "from", "--out", "out"], 2, &["from", "a run of word2vec, not of vision"]);
    fails(at, &["train", "word2vec", "--init", "from", "--resume", "from"], 2, &["--init"]);
}

#[test]
fn mistakes_in_the_recipe_name_line_and_meaning() {
    let dir = folder();
    let at = dir.path();
    write(at, "typo.toml", "[train]\nepochs = 2\nbtach = 64\n");
    fails(
        at,
        &["train", "vision", "--config", "typo.toml", "--out", "out"],
        2,
        &["typo.toml:3:1", "btach", "did you mean `batch`?"],
    );
    write(at, "type.toml", "[train]\nepochs = \"ten\"\n");
    fails(at, &["train", "word2vec", "--config", "type.toml", "--out", "out"], 2, &["type.toml:2:10", "hint: "]);
    write(at, "range.toml", "[loss.nt-xent]\ntemperature = 0.0\n");
    fails(at, &["train", "vision", "--config", "range.toml", "--out", "out"], 2, &["range.toml:2", "temperature"]);
    fails(at, &["train", "vision", "--config", "none.toml", "--out", "out"], 2, &["none.toml", "hint: "]);
    fails(at, &["train", "vision", "--set", "train.epochs", "--out", "out"], 2, &["section.key=value"]);
    fails(at, &["train", "vision", "--set", "train.epoch=3", "--out", "out"], 2, &["no such key", "did you mean train.epochs?"]);
    fails(at, &["train", "vision", "--device", "tpu", "--out", "out"], 2, &["tpu", "cpu"]);
    fails(at, &["train", "vison"], 2, &["vision"]);
    fails(at, &["train", "vision", "--resume", "nowhere"], 2, &["nowhere", "hint: "]);
    fails(at, &["eval", "linear-probe", "nowhere"], 2, &["nowhere", "hint: "]);
}

#[test]
fn bad_images_are_named() {
    let dir = folder();
    let at = dir.path();
    let train = |data: &'static str| [&["train", "vision", "--data", data][..], &QUICK].concat();
    fails(at, &train("nowhere"), 2, &["nowhere", "hint: "]);
    fs::create_dir(at.join("empty")).unwrap();
    fails(at, &train("empty"), 2, &["empty", "hint: "]);
    (0..12).for_each(|i| write(at, &format!("broken/{i}.png"), b"this is no image"));
    fails(at, &train("broken"), 1, &["broken", ".png", "hint: "]);
    write(at, "cifar-10-batches-py/data_batch_1", b"\x80\x02}q");
    fails(at, &train("cifar-10-batches-py"), 2, &["cifar-10-batches-py", "hint: ", "binary"]);
}

#[test]
fn probing_without_classes_says_so() {
    let dir = folder();
    let at = dir.path();
    class(at, "flat", 12, 90);
    let trained = json(at, &[&["train", "vision", "--data", "flat"][..], &QUICK].concat());
    let no_labels = ctk(at, &["eval", "linear-probe", trained["run"].as_str().unwrap()]);
    let said = String::from_utf8(no_labels.stderr).unwrap();
    assert_eq!(no_labels.status.code(), Some(2), "{said}");
    assert!(said.contains("no labels") && said.contains("hint: "), "{said}");
    class(at, "single/only", 12, 90);
    let one_class = ctk(at, &["eval", "linear-probe", trained["run"].as_str().unwrap(), "--data", "single"]);
    let said = String::from_utf8(one_class.stderr).unwrap();
    assert_eq!(one_class.status.code(), Some(2), "{said}");
    assert!(said.contains("no labels") && said.contains("hint: "), "{said}");
}

#[test]
#[cfg_attr(not(ctk_data), ignore = "needs CTK_DATA")]
fn photos_in_class_folders_train_and_are_probed() {
    let dir = folder();
    let at = dir.path();
    let flowers =
        Path::new(&std::env::var("CTK_DATA").expect("CTK_DATA names the folder of real data")).join("vision/flowers128");
    let data = ["train", "vision", "--data", flowers.to_str().unwrap()];
    let trained = json(at, &[&data[..], &QUICK].concat());
    let splits: Value = serde_json::from_slice(&fs::read(at.join("out/splits.json")).unwrap()).unwrap();
    let held_out = splits["held_out"].as_array().unwrap().len() as u64;
    assert_eq!(splits["images"], 4317);
    let knn = json(at, &["eval", "knn", trained["run"].as_str().unwrap(), "--json"]);
    assert_eq!((knn["train"].as_u64(), knn["test"].as_u64()), (Some(4317 - held_out), Some(held_out)));
    assert!(knn["top1"].as_f64().unwrap() > 0.25, "chance is a fifth: {knn}");
}

#[test]
fn bad_text_is_named() {
    let dir = folder();
    let at = dir.path();
    let train = |data: &'static str| ["train", "word2vec", "--data", data, "--quiet", "--out", "out"];
    fails(at, &train("nowhere.txt"), 2, &["nowhere.txt", "hint: "]);
    write(at, "empty.txt", "");
    fails(at, &train("empty.txt"), 1, &["empty.txt", "hint: "]);
    write(at, "one.txt", "word ".repeat(100));
    fails(at, &train("one.txt"), 1, &["vocabulary", "hint: "]);
    write(at, "few.txt", "a b c d\n".repeat(20));
    fails(at, &train("few.txt"), 1, &["1.6 of the text's 80 words", "hint: raise pairs.subsample (it is 1e-4;"]);
    write(at, "bad.txt", b"good words here\nbad \xff byte\n");
    fails(at, &train("bad.txt"), 1, &["bad.txt", "20", "hint: "]);
}

#[test]
fn every_help_shows_an_example() {
    let dir = folder();
    let verbs = [
        "train",
        "eval",
        "embed",
        "neighbors",
        "analogy",
        "export",
        "preview",
        "bench",
        "matrix",
        "config",
        "completions",
        "eval linear-probe",
        "eval knn",
        "eval similarity",
        "eval analogy",
        "eval categorize",
        "eval text-classification",
        "eval geometry",
        "config check",
        "config show",
        "config schema",
    ];
    for verb in verbs {
        let arguments: Vec<&str> = verb.split(' ').chain(["--help"]).collect();
        let help = String::from_utf8(ctk(dir.path(), &arguments).stdout).unwrap();
        assert!(
            help.contains("Example") && help.contains(&format!("ctk {}", verb.split(' ').next().unwrap())),
            "{verb}:\n{help}"
        );
    }
    assert!(String::from_utf8(ctk(dir.path(), &["completions", "bash"]).stdout).unwrap().contains("word2vec"));
    for modality in ["vision", "word2vec"] {
        let shown = ctk(dir.path(), &["config", "show", modality]);
        write(dir.path(), "shown.toml", &shown.stdout);
        assert!(ctk(dir.path(), &["config", "check", modality, "shown.toml"]).status.success());
        let schema = json_text(&ctk(dir.path(), &["config", "schema", modality]));
        assert!(schema["properties"]["train"].is_object(), "{schema}");
    }
}

fn json_text(output: &Output) -> Value {
    serde_json::from_slice(&output.stdout).expect("JSON on stdout")
}
