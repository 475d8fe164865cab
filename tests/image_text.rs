//! Images and captions from a user's view: training on a folder with a table, stored features, retrieval, zero-shot, neighbours; and what is
//! refused.

use std::fmt::Write as _;
use std::fs;
use std::path::Path;
use std::process::{Command, Output};

use ctk_core::store::checkpoint::Checkpoint;
use ctk_core::{DType, Tensor};
use serde_json::Value;

fn ctk(at: &Path, arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_ctk")).current_dir(at).args(arguments).output().expect("ctk starts")
}

/// Runs and expects success; stdout as JSON, if it is JSON, and both outputs.
fn said(at: &Path, arguments: &[&str]) -> (Value, String) {
    let output = ctk(at, arguments);
    let (stdout, stderr) = (String::from_utf8(output.stdout).unwrap(), String::from_utf8(output.stderr).unwrap());
    assert!(output.status.success(), "{arguments:?}\n{stderr}");
    let json = serde_json::from_str(stdout.lines().last().unwrap_or_default()).unwrap_or_default();
    (json, format!("{stdout}{stderr}"))
}

fn fails(at: &Path, arguments: &[&str], parts: &[&str]) {
    let output = ctk(at, arguments);
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(matches!(output.status.code(), Some(1 | 2)), "{arguments:?}\n{stderr}");
    for part in parts {
        assert!(stderr.contains(part), "{arguments:?}: `{part}` is missing in:\n{stderr}");
    }
}

const COLOURS: [(&str, [u8; 3]); 6] = [
    ("red", [220, 30, 30]),
    ("green", [30, 200, 40]),
    ("blue", [30, 40, 220]),
    ("yellow", [230, 220, 30]),
    ("black", [10, 10, 10]),
    ("white", [245, 245, 245]),
];

/// Pictures of a square of one colour on another, in `folder/my photos`, with a table of captions.
fn photos(folder: &Path) -> usize {
    let photos = folder.join("my photos");
    fs::create_dir_all(&photos).unwrap();
    let mut table = String::from("file_name,caption\n");
    let mut count = 0;
    for (ground, back) in COLOURS {
        for (name, front) in COLOURS.into_iter().filter(|(name, _)| *name != ground) {
            for copy in 0..2usize {
                let file = format!("{name} on {ground} {copy}.ppm");
                let mut pixels = b"P6\n24 24\n255\n".to_vec();
                for at in 0..24 * 24 {
                    let (y, x) = (at / 24, at % 24);
                    let inside = (6 + copy..18).contains(&y) && (6..18 - copy).contains(&x);
                    pixels.extend(if inside { front } else { back });
                }
                fs::write(photos.join(&file), pixels).unwrap();
                writeln!(table, "{file},a {name} square on {ground}").unwrap();
                writeln!(table, "{file},\"a square, {name}, before a {ground} wall\"").unwrap();
                count += 1;
            }
        }
    }
    fs::write(photos.join("metadata.csv"), table).unwrap();
    count
}

const RECIPE: &str = "[data]\npath = \"my photos\"\n[captions]\nholdout = 0.2\n[pairs]\nsize = 16\n\
    [image.encoder.resnet]\ndepth = 18\nwidth = 0.25\nstem = \"small\"\n[image.head]\nwidth = 16\n\
    [text.encoder.static]\nwidth = 16\n[text.tokenizer.train]\nsize = 300\n[text.head]\nwidth = 16\n\
    [optimizer.adamw]\nrate = 3e-3\n[train]\nepochs = 12\nbatch = 16\nseed = 1\n";

#[test]
fn images_and_captions_find_each_other() {
    let folder = tempfile::tempdir().unwrap();
    let at = folder.path();
    let count = photos(at);
    fs::write(at.join("a.toml"), RECIPE).unwrap();
    let (figures, told) = said(at, &["train", "image-text", "--config", "a.toml", "--out", "run", "--json"]);
    for part in ["image tower", "text tower", "held out", "a caption in common"] {
        assert!(told.contains(part), "{part} is missing in\n{told}");
    }
    assert_eq!(figures["images"], count, "{figures}");
    assert!(figures["recall_at_5"].as_f64().unwrap() > 0.6, "{figures}");

    let (found, _) = said(at, &["eval", "retrieval", "run", "--json"]);
    assert_eq!(found["text_recall@5"], figures["text_recall_at_5"], "the run's own hold-out: {found}");
    assert!(found["image_recall@10"].as_f64() > found["image_chance@10"].as_f64(), "{found}");
    let (all, _) = said(at, &["eval", "retrieval", "run", "--data", "my photos", "--json"]);
    assert_eq!(all["images"], count, "{all}");

    let (near, _) =
        said(at, &["neighbors", "run", "a blue square on yellow", "--in", "my photos", "--count", "2", "--json", "--quiet"]);
    let first = near["a blue square on yellow"][0]["name"].as_str().unwrap();
    assert!(first.contains("blue") || first.contains("yellow"), "{near}");
    fs::write(at.join("texts.txt"), "a red square on white\na black square on green\na yellow square on blue\n").unwrap();
    let image = "my photos/black on green 0.ppm";
    let (near, _) = said(at, &["neighbors", "run", image, "--in", "texts.txt", "--count", "3", "--json", "--quiet"]);
    assert_eq!(near[image].as_array().unwrap().len(), 3, "{near}");
    said(at, &["embed", "run", "--data", "my photos", "--out", "images.npy", "--quiet"]);
    let (rows, _) = said(at, &["embed", "run", "--data", "texts.txt", "--out", "texts.npy", "--json"]);
    assert_eq!((&rows["rows"], &rows["width"]), (&3.into(), &16.into()));

    let (shape, _) = said(at, &["eval", "geometry", "run", "--json", "--quiet"]);
    assert!(shape["alignment"].as_f64().unwrap() > 0.0, "pairs of an image and its caption: {shape}");

    // A new run goes on with both towers.
    let again = [
        "train",
        "image-text",
        "--init",
        "run",
        "--data",
        "my photos",
        "--out",
        "again",
        "--set",
        "train.max_steps=1",
        "--set",
        "optimizer.adamw.rate=1e-12",
        "--json",
    ];
    let (_, told) = said(at, &again);
    assert!(!told.contains("a tokenizer was trained"), "{told}");
    fails(at, &["train", "image-text", "--config", "a.toml", "--set", "train.init=\"images.npy\""], &["images.npy"]);
}

#[test]
fn stored_features_take_the_place_of_a_tower() {
    let folder = tempfile::tempdir().unwrap();
    let at = folder.path();
    photos(at);
    fs::write(at.join("a.toml"), RECIPE).unwrap();
    said(at, &["train", "image-text", "--config", "a.toml", "--out", "run", "--quiet"]);
    said(at, &["embed", "run", "--data", "my photos", "--out", "images.npy", "--quiet"]);
    let stored: String =
        RECIPE.lines().filter(|line| !["depth", "stem"].iter().any(|key| line.starts_with(key))).collect::<Vec<_>>().join("\n");
    let stored = stored.replace("[image.encoder.resnet]\nwidth = 0.25\n", "[image]\nfeatures = \"images.npy\"\n");
    fs::write(at.join("stored.toml"), &stored).unwrap();
    let (figures, told) = said(at, &["train", "image-text", "--config", "stored.toml", "--out", "two", "--json"]);
    assert!(told.contains("stored features of 16 values") && figures["recall_at_5"].as_f64().unwrap() > 0.5, "{told}");
    let (found, _) = said(at, &["eval", "retrieval", "two", "--json"]);
    assert_eq!(found["text_recall@1"], figures["text_recall_at_1"]);
    // Names that do not match.
    let names = at.join("images.npy.names.txt");
    let other = fs::read_dir(at)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .find(|path| path.to_string_lossy().contains("images") && !path.to_string_lossy().ends_with(".npy"))
        .unwrap_or(names);
    let text = fs::read_to_string(&other).unwrap().replace("red", "rot");
    fs::write(&other, text).unwrap();
    fails(at, &["train", "image-text", "--config", "stored.toml", "--out", "three"], &["have no row in this file", "images.npy"]);
}

#[test]
fn classes_are_described_by_prompts() {
    let folder = tempfile::tempdir().unwrap();
    let at = folder.path();
    let recipe = "[data]\ntrain = 360\ntest = 90\n[pairs]\nsize = 16\n[image.encoder.resnet]\ndepth = 18\nwidth = 0.25\nstem = \"small\"\n\
        [text.encoder.static]\nwidth = 16\n[text.tokenizer.train]\nsize = 300\n[train]\nepochs = 1\nbatch = 32\n";
    fs::write(at.join("a.toml"), recipe).unwrap();
    let (_, told) = said(at, &["train", "image-text", "--config", "a.toml", "--out", "run", "--json"]);
    assert!(told.contains("captions.prompts") && told.contains("generated images"), "{told}");
    let (found, _) = said(at, &["eval", "zero-shot", "run", "--json", "--quiet"]);
    assert!(found["classes"] == 9 && found["per_class"].as_array().unwrap().len() == 9, "{found}");
    assert!((found["chance"].as_f64().unwrap() - 1.0 / 9.0).abs() < 1e-9);
    fs::write(at.join("prompts.txt"), "a {} here\nno place\n").unwrap();
    fails(at, &["eval", "zero-shot", "run", "--prompts", "prompts.txt"], &["no place"]);
    fs::write(at.join("names.txt"), "cat\ndog\n").unwrap();
    fails(at, &["eval", "zero-shot", "run", "--classes", "names.txt"], &["class<TAB>name"]);
    fails(at, &["eval", "retrieval", "run", "--exclude-same"], &["FOLDER"]);
}

#[test]
fn data_without_captions_is_refused_with_what_would_help() {
    let folder = tempfile::tempdir().unwrap();
    let at = folder.path();
    photos(at);
    fs::remove_file(at.join("my photos/metadata.csv")).unwrap();
    fails(at, &["train", "image-text", "--data", "my photos", "--out", "run"], &["caption"]);
    fs::write(at.join("my photos/metadata.csv"), "file_name,caption\nred on blue 0.ppm,one\n").unwrap();
    fails(at, &["train", "image-text", "--data", "my photos", "--out", "run", "--set", "captions.holdout=0.0"], &["one pair"]);
    assert!(!at.join("run").exists());
}

/// The values behind a run's only step, by section and name.
fn values(run: &Path) -> Vec<(String, Tensor)> {
    let checkpoint = Checkpoint::open(run).unwrap();
    let mut all = Vec::new();
    for section in ["image", "text", "head"] {
        let tensors = checkpoint.reader().tensors(&format!("{section}.safetensors")).unwrap();
        all.extend(tensors.into_iter().map(|(name, tensor)| (format!("{section}.{name}"), tensor.to_dtype(DType::F64).unwrap())));
    }
    all.sort_by(|a, b| a.0.cmp(&b.0));
    all
}

#[test]
fn a_batch_in_parts_has_the_gradient_of_the_whole_batch() {
    let folder = tempfile::tempdir().unwrap();
    let at = folder.path();
    let recipe = "[data]\ntrain = 45\ntest = 9\n[pairs]\nsize = 16\n\
        [image.encoder.vit]\npatch = 8\nwidth = 16\nlayers = 2\nheads = 2\n[image.head]\nwidth = 8\n\
        [text.encoder.transformer]\nlayers = 2\nwidth = 16\nheads = 2\npositions = 40\n[text.tokenizer.train]\nsize = 300\n\
        [text.head]\nwidth = 8\n[optimizer.sgd]\nmomentum = 0.0\ndecay = 0.0\n[schedule]\nwarmup = 0.0\ndecay = \"constant\"\n\
        [train]\nbatch = 40\nmax_steps = 1\nseed = 1\n";
    for loss in ["[loss.infonce]\ntemperature = 0.07\nlearned = true\n", "[loss.siglip]\n"] {
        fs::write(at.join("a.toml"), format!("{recipe}{loss}")).unwrap();
        let step = |name: &str, rate: &str, part: &str| {
            let _ = fs::remove_dir_all(at.join(name));
            let (rate, part) = (format!("optimizer.sgd.rate={rate}"), format!("train.part={part}"));
            said(at, &["train", "image-text", "--config", "a.toml", "--out", name, "--quiet", "--set", &rate, "--set", &part]);
            values(&at.join(name))
        };
        // A rate that f32 rounds away gives the values before the step.
        let (before, whole, parts) = (step("before", "1e-30", "40"), step("whole", "1.0", "40"), step("parts", "1.0", "7"));
        let norm = |of: &Tensor| of.sqr().unwrap().sum_all().unwrap().to_scalar::<f64>().unwrap();
        let (mut off, mut all) = (0.0, 0.0);
        for (((name, start), (_, whole)), (_, parts)) in before.iter().zip(&whole).zip(&parts) {
            let moved = (whole - start).unwrap();
            assert!(norm(&moved) > 0.0 || name.ends_with("types.weight"), "{name} has no gradient");
            off += norm(&(whole - parts).unwrap());
            all += norm(&moved);
        }
        let off = (off / all).sqrt();
        assert!(off < 1e-5, "{loss}: gradients of parts are off by {off:e}");
    }
}

/// A CLIP of its own form: a ViT, a text tower that reads from the front, one layer without bias behind each.
const CLIP: &str = "[data]\npath = \"my photos\"\n[captions]\nholdout = 0.2\n[pairs]\nsize = 16\n\
    [image.encoder.vit]\npatch = 8\nwidth = 64\nlayers = 1\nheads = 1\nnormalise_tokens = true\npatch_bias = false\n\
    [image.head]\nlayers = 1\nwidth = 16\nbias = false\n\
    [text.encoder.transformer]\nform = \"clip\"\nlayers = 1\nwidth = 64\nheads = 1\npositions = 32\n[text.tokenizer.train]\nsize = 300\n\
    [text.head]\nlayers = 1\nwidth = 16\nbias = false\n\
    [optimizer.adamw]\nrate = 3e-3\n[train]\nepochs = 4\nbatch = 16\nseed = 1\n";

#[test]
fn a_clip_from_scratch_is_exported_and_used_as_a_folder_of_another_program() {
    let folder = tempfile::tempdir().unwrap();
    let at = folder.path();
    photos(at);
    fs::write(at.join("a.toml"), CLIP).unwrap();
    said(at, &["train", "image-text", "--config", "a.toml", "--out", "run", "--quiet"]);
    let (_, told) = said(at, &["export", "run", "--format", "transformers", "--out", "clip"]);
    assert!(told.contains("CLIPModel.from_pretrained"), "{told}");

    let retrieval = |model: &str| said(at, &["eval", "retrieval", model, "--data", "my photos", "--json", "--quiet"]).0;
    let (run, clip) = (retrieval("run"), retrieval("clip"));
    for key in ["text_recall@1", "text_recall@5", "image_recall@1", "image_recall@5", "images"] {
        assert_eq!(run[key], clip[key], "{key}: {run} {clip}");
    }
    fs::write(at.join("texts.txt"), "a red square on white\na black square on green\n").unwrap();
    for data in ["my photos", "texts.txt"] {
        let rows = |model: &str| {
            let out = format!("{model}.safetensors");
            said(at, &["embed", model, "--data", data, "--out", &out, "--force", "--quiet"]);
            ctk_core::eval::Features::load(&at.join(out)).unwrap()
        };
        let (run, clip) = (rows("run"), rows("clip"));
        assert!(run.names == clip.names && !run.names.is_empty(), "{data}");
        let off = run.rows.iter().zip(&clip.rows).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
        assert!(off < 1e-5, "{data}: {off}");
    }
    let (near, _) =
        said(at, &["neighbors", "clip", "a red square on white", "--in", "my photos", "--count", "1", "--json", "--quiet"]);
    assert_eq!(near["a red square on white"].as_array().unwrap().len(), 1, "{near}");
    fails(at, &["eval", "retrieval", "clip"], &["no data of its own", "--data"]);
    fails(at, &["embed", "clip", "--out", "x.npy"], &["no data of its own", "--data"]);

    // A new run begins with both towers of the folder.
    let more =
        ["train", "image-text", "--init", "clip", "--data", "my photos", "--out", "more", "--set", "train.max_steps=1", "--json"];
    let (_, told) = said(at, &more);
    for part in ["a tokenizer was trained", "not read"] {
        assert!(!told.contains(part), "{told}");
    }

    // Where transformers would take the features elsewhere, nothing is written.
    let bpe =
        ["train", "image-text", "--config", "a.toml", "--out", "bpe", "--quiet", "--set", "text.tokenizer.train.kind=\"bpe\""];
    said(at, &[&bpe[..], &["--set", "train.max_steps=1"]].concat());
    fails(at, &["export", "bpe", "--format", "transformers", "--out", "other"], &["texts end with token 2", "wordpiece"]);
    assert!(!at.join("other").exists());
}

#[test]
fn a_step_is_timed() {
    let folder = tempfile::tempdir().unwrap();
    let at = folder.path();
    photos(at);
    fs::write(at.join("a.toml"), RECIPE).unwrap();
    let (timed, _) =
        said(at, &["bench", "image-text", "--config", "a.toml", "--steps", "1", "--batch", "8", "--json", "--quiet"]);
    for stage in ["batch", "forward", "loss", "backward", "optimizer", "total"] {
        assert!(timed["step_ms"][stage].is_f64(), "{stage}: {timed}");
    }
    assert!(timed["pairs_per_second"].as_f64().unwrap() > 0.0 && timed["forecast_mb"].as_f64().unwrap() > 0.0, "{timed}");
    assert_eq!((&timed["batch"], &timed["epoch_images"]), (&8.into(), &60.into()), "{timed}");
    fails(at, &["bench", "image-text", "--encoder", "resnet18"], &["--encoder", "--set"]);
}

#[test]
fn a_run_with_a_frozen_text_tower_resumes_to_the_same_values() {
    let folder = tempfile::tempdir().unwrap();
    let at = folder.path();
    photos(at);
    fs::write(at.join("a.toml"), CLIP).unwrap();
    let train = |more: &[&str]| said(at, &[&["train", "image-text", "--json", "--set"], more].concat()).1;
    // The frozen tower's values are not those that a new run would draw.
    train(&["train.max_steps=2", "--config", "a.toml", "--out", "first"]);
    fs::write(at.join("b.toml"), CLIP.replace("[text.head]", "[text]\nfrozen = true\n[text.head]")).unwrap();
    // 60 different captions, of which a step reads 16.
    let read = "has read the 60 captions once";
    assert!(train(&["train.max_steps=8", "--config", "b.toml", "--init", "first", "--out", "whole"]).contains(read));
    assert!(!train(&["train.max_steps=3", "--config", "b.toml", "--init", "first", "--out", "parts"]).contains(read));
    assert!(train(&["train.max_steps=8", "--resume", "parts"]).contains(read));
    let [whole, parts] = ["whole", "parts"].map(|run| values(&at.join(run)));
    for ((name, whole), (_, parts)) in whole.iter().zip(&parts) {
        let values = |of: &Tensor| of.flatten_all().unwrap().to_vec1::<f64>().unwrap();
        assert_eq!(values(whole), values(parts), "{name}");
    }
}
