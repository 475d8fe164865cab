//! Exports that ctk opens again: a run, its files, and its folder give the same results for the same words and images.

use std::fs;
use std::path::Path;
use std::process::{Command, Output};

use serde_json::Value;

fn ctk(folder: &Path, arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_ctk")).current_dir(folder).args(arguments).output().expect("ctk starts")
}

/// Runs and expects success; the last line of stdout as JSON.
fn json(folder: &Path, arguments: &[&str]) -> Value {
    let output = ctk(folder, arguments);
    assert!(output.status.success(), "{arguments:?}\n{}", String::from_utf8_lossy(&output.stderr));
    let stdout = String::from_utf8(output.stdout).unwrap();
    serde_json::from_str(stdout.lines().last().unwrap_or_default()).unwrap_or_else(|e| panic!("{e}: {stdout}"))
}

/// Runs and expects `code`; what stderr says.
fn fails(folder: &Path, code: i32, arguments: &[&str]) -> String {
    let output = ctk(folder, arguments);
    let stderr = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(code), "{arguments:?}\n{stderr}");
    stderr
}

#[test]
fn subwords_answer_for_words_never_seen_and_travel_as_a_fasttext_model() {
    let dir = tempfile::tempdir().unwrap();
    let at = dir.path();
    let line = |i: usize| format!("the {} house of number{} and a dog\n", ["old", "older", "oldest"][i % 3], i % 9);
    fs::write(at.join("text.txt"), (0..1000).map(line).collect::<String>()).unwrap();
    let sizes = ["encoder.subwords.width=10", "encoder.subwords.buckets=500", "train.epochs=3", "pairs.subsample=0"];
    let set = sizes.iter().flat_map(|set| ["--set", set]);
    let arguments = ["train", "word2vec", "--data", "text.txt", "--out", "run", "--quiet", "--json"];
    json(at, &arguments.into_iter().chain(set).collect::<Vec<_>>());

    let export = |from: &str, format: &str, out: &str| {
        let output = ctk(at, &["export", from, "--format", format, "--out", out]);
        assert!(output.status.success(), "{format}: {}", String::from_utf8_lossy(&output.stderr));
    };
    export("run", "fasttext", "m.bin");
    for words in [&["house"][..], &["houses", "olden"]] {
        let ask = |from: &str| json(at, &[&["neighbors", from, "--json"][..], words].concat());
        let (run, file) = (ask("run"), ask("m.bin"));
        assert_eq!(run, file);
        assert_eq!(run.as_object().unwrap().len(), words.len());
    }
    // The same words and rows, from the run and from its file.
    export("run", "word2vec-text", "a.txt");
    export("m.bin", "word2vec-text", "b.txt");
    assert_eq!(fs::read(at.join("a.txt")).unwrap(), fs::read(at.join("b.txt")).unwrap());

    // The tables are the same too, including n-grams.
    export("run", "safetensors", "m.safetensors");
    for words in [&["house"][..], &["houses", "olden"]] {
        let ask = |from: &str| json(at, &[&["neighbors", from, "--json"][..], words].concat());
        assert_eq!(ask("run"), ask("m.safetensors"));
    }

    for from in ["run", "m.bin", "a.txt"] {
        let out = format!("{from}-folder");
        export(from, "static-embedding", &out);
        assert!(at.join(&out).join("0_StaticEmbedding/model.safetensors").is_file());
        let again = fails(at, 2, &["export", from, "--format", "static-embedding", "--out", &out]);
        assert!(again.contains("already"), "a folder that is there is not written over: {again}");
    }
    let error = fails(at, 2, &["export", "a.txt", "--format", "fasttext", "--out", "out"]);
    assert!(error.contains("cannot be exported as `fasttext`") && !at.join("out").exists(), "{error}");
    let whole = fs::read(at.join("m.bin")).unwrap();
    fs::write(at.join("half.bin"), &whole[..whole.len() / 2]).unwrap();
    let error = fails(at, 1, &["neighbors", "half.bin", "house"]);
    assert!(error.contains("ends too early") && error.contains("half.bin") && error.contains("hint: "), "{error}");
}

/// Runs `command`, words apart by spaces, and expects success.
fn done(folder: &Path, command: &str) {
    let output = ctk(folder, &command.split(' ').collect::<Vec<_>>());
    assert!(output.status.success(), "{command}\n{}", String::from_utf8_lossy(&output.stderr));
}

#[test]
fn a_network_goes_out_as_a_folder_and_comes_back_as_a_run_that_every_verb_takes() {
    let dir = tempfile::tempdir().unwrap();
    let at = dir.path();
    let data = "--set data.train=90 --set data.test=45";
    let network =
        "--set encoder.resnet.width=0.25 --set encoder.resnet.stem=imagenet --set pairs.size=12 --set pairs.eval_size=20";
    let normalise = "--set pairs.normalise={mean=[0.4,0.5,0.6],deviation=[0.2,0.3,0.1]}";
    done(at, &format!("train vision {data} {network} {normalise} --set train.max_steps=3 --set eval={{}} --out run --quiet"));
    done(at, "export run --format transformers --out folder");
    let names: Vec<_> =
        ["config.json", "model.safetensors", "preprocessor_config.json"].map(|name| at.join("folder").join(name)).into();
    assert!(names.iter().all(|name| name.is_file()) && fs::read_dir(at.join("folder")).unwrap().count() == 3);
    let again = fails(at, 2, &["export", "run", "--format", "transformers", "--out", "folder"]);
    assert!(again.contains("already"), "{again}");

    let import: Vec<String> = format!("import folder --out back {data} --json --quiet").split(' ').map(String::from).collect();
    let back = json(at, &import.iter().map(String::as_str).collect::<Vec<_>>());
    let of = (&back["modality"], &back["layout"], &back["depth"], &back["width"], &back["head_layers"]);
    assert_eq!(of, (&"vision".into(), &"transformers".into(), &18.into(), &0.25.into(), &0.into()));
    for run in ["run", "back"] {
        done(at, &format!("embed {run} --out {run}.npy --quiet"));
    }
    assert_eq!(
        fs::read(at.join("run.npy")).unwrap(),
        fs::read(at.join("back.npy")).unwrap(),
        "the same features to the last bit"
    );
    assert!(json(at, &["eval", "linear-probe", "back", "--baseline", "--json"])["untrained_top1"].is_number());
    assert!(json(at, &["eval", "knn", "back", "--json"])["top1"].is_number());

    let few = "--labels 2-per-class --epochs 1 --rates 0.02 --batch 8 --quiet";
    let headless = fails(at, 2, &format!("finetune back {few} --from-layer 1 --out out").split(' ').collect::<Vec<_>>());
    assert!(headless.contains("no projection head") && headless.contains("hint: --from-layer 0"), "{headless}");
    done(at, &format!("finetune back {few} --out tuned"));
    done(at, "distill tuned --epochs 1 --batch 16 --out taught --quiet");
    done(at, "export taught --format transformers --out taught-folder");
    done(at, "train vision --resume back --quiet --device cpu");

    done(at, "export run --format safetensors --out plain.safetensors");
    let set = format!("--set encoder.resnet.weights=plain.safetensors {network} {data} --set train.max_steps=1 --set eval={{}}");
    done(at, &format!("train vision {set} --out started --quiet"));
    let timm = fails(at, 2, &["export", "run", "--format", "timm", "--out", "out"]);
    assert!(timm.contains("width = 0.25") && timm.contains("--> run/checkpoints/3") && timm.contains("hint: "), "{timm}");
    for (weights, code, part) in [("nowhere", 2, "nothing here"), ("run", 2, "a run of ctk"), ("half", 1, "cut short")] {
        fs::write(at.join("half"), &fs::read(at.join("plain.safetensors")).unwrap()[..9000]).unwrap();
        let error = fails(at, code, &["import", weights, "--out", "out"]);
        assert!(error.contains(part) && error.contains("  --> ") && error.contains("hint: "), "{error}");
    }
    let wrong = fails(at, 2, &["import", "folder", "--out", "out", "--set", "encoder.resnet.depth=34"]);
    assert!(wrong.contains("is missing") && wrong.contains("hint: depth"), "{wrong}");
    let typo = fails(at, 2, &["import", "folder", "--out", "out", "--set", "pairs.sise=1"]);
    assert!(typo.contains("the recipe of folder") && typo.contains("did you mean `size`?"), "{typo}");
    assert!(!at.join("out").exists() && !at.join("runs").exists());
}

#[test]
fn a_file_that_is_there_is_written_over_only_when_asked() {
    let dir = tempfile::tempdir().unwrap();
    let at = dir.path();
    fs::write(at.join("words.vec"), "2 2\none 1 0\ntwo 0 1\n").unwrap();
    for name in ["f.npy", "f.csv", "p.jsonl", "v.txt", "v.png", "c.csv", "c.svg"] {
        fs::write(at.join(name), "mine").unwrap();
    }
    // Checked before anything is opened: the run need not exist.
    for arguments in [
        "embed nowhere --out f.npy",
        "embed nowhere --out f.csv",
        "predict nowhere --out p.jsonl",
        "export nowhere --format glove --out v.txt",
        "preview --out v.png",
        "eval classify nowhere --csv c.csv",
        "eval classify nowhere --svg c.svg",
    ] {
        let arguments: Vec<&str> = arguments.split(' ').collect();
        let error = fails(at, 2, &arguments);
        assert!(error.contains("there is a file here already") && error.contains("--force"), "{arguments:?}: {error}");
        let out = at.join(arguments.last().unwrap());
        assert_eq!(fs::read(&out).unwrap(), b"mine", "{arguments:?}");
    }
    // The same holds for files that are written beside the named one.
    for name in ["w.tsv", "g.npy.names.tsv", "g.safetensors.names.tsv"] {
        fs::write(at.join(name), "mine").unwrap();
    }
    for (arguments, beside) in [
        ("export words.vec --format safetensors --out w.safetensors", "w.tsv"),
        ("embed words.vec --out g.npy", "g.npy.names.tsv"),
        ("embed words.vec --out g.safetensors", "g.safetensors.names.tsv"),
    ] {
        let arguments: Vec<&str> = arguments.split(' ').collect();
        let error = fails(at, 2, &arguments);
        assert!(error.contains("there is a file here already") && error.contains(beside), "{arguments:?}: {error}");
        assert_eq!(fs::read(at.join(beside)).unwrap(), b"mine", "{arguments:?}");
        assert!(!at.join(arguments.last().unwrap()).exists());
        assert!(ctk(at, &[&arguments[..], &["--force"]].concat()).status.success());
        assert_ne!(fs::read(at.join(beside)).unwrap(), b"mine", "{arguments:?}");
    }
    let forced = ["export", "words.vec", "--format", "glove", "--out", "v.txt", "--force"];
    assert!(ctk(at, &forced).status.success());
    assert_eq!(fs::read_to_string(at.join("v.txt")).unwrap(), "one 1 0\ntwo 0 1\n");
}
