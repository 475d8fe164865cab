//! Using a classifier: classes of images by name, its figures, and features and neighbours of images from elsewhere.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::process::{Command, Output};

use ctk_core::store::parquet::Parquet;
use serde_json::Value;
use tempfile::TempDir;

fn ctk(folder: &Path, arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_ctk")).current_dir(folder).args(arguments).output().expect("ctk starts")
}

/// Runs and expects success; stdout and stderr.
fn said(folder: &Path, arguments: &[&str]) -> (String, String) {
    let output = ctk(folder, arguments);
    let stderr = String::from_utf8(output.stderr).unwrap();
    assert!(output.status.success(), "{arguments:?}\n{stderr}");
    (String::from_utf8(output.stdout).unwrap(), stderr)
}

/// Runs and expects success; the last line of stdout as JSON.
fn json(folder: &Path, arguments: &[&str]) -> Value {
    let stdout = said(folder, arguments).0;
    serde_json::from_str(stdout.lines().last().unwrap_or_default()).unwrap_or_else(|e| panic!("{e}: {stdout}"))
}

/// Runs and expects exit code 2 and an error that says each of `parts`.
fn refuses(folder: &Path, arguments: &[&str], parts: &[&str]) {
    let output = ctk(folder, arguments);
    let stderr = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(2), "{arguments:?}\n{stderr}");
    assert!(parts.iter().all(|part| stderr.contains(part)) && !stderr.contains("panicked"), "{parts:?} in\n{stderr}");
    assert!(output.stdout.is_empty(), "errors belong on stderr");
}

fn crc(data: &[u8]) -> u32 {
    let step = |c: u32| if c & 1 == 1 { 0xedb8_8320 ^ (c >> 1) } else { c >> 1 };
    !data.iter().fold(!0u32, |c, &b| (0..8).fold(c ^ u32::from(b), |c, _| step(c)))
}

/// A PNG of one colour, without an encoder: 8-bit RGB, one stored deflate block.
fn png(colour: [u8; 3]) -> Vec<u8> {
    const SIZE: u32 = 16;
    let raw: Vec<u8> = (0..SIZE).flat_map(|_| std::iter::once(0).chain((0..SIZE).flat_map(|_| colour))).collect();
    let (a, b) = raw.iter().fold((1u32, 0u32), |(a, b), &v| {
        let a = (a + u32::from(v)) % 65521;
        (a, (b + a) % 65521)
    });
    let length = raw.len() as u16;
    let zlib =
        [&[0x78, 1, 1][..], &length.to_le_bytes(), &(!length).to_le_bytes(), &raw, &((b << 16) | a).to_be_bytes()].concat();
    let chunk = |kind: &[u8], data: &[u8]| {
        let body = [kind, data].concat();
        [&(data.len() as u32).to_be_bytes()[..], &body, &crc(&body).to_be_bytes()].concat()
    };
    let header = [&SIZE.to_be_bytes()[..], &SIZE.to_be_bytes(), &[8, 2, 0, 0, 0]].concat();
    [&b"\x89PNG\r\n\x1a\n"[..], &chunk(b"IHDR", &header), &chunk(b"IDAT", &zlib), &chunk(b"IEND", &[])].concat()
}

/// A colour for each class, in several shades.
fn colour(class: &str, shade: u8) -> [u8; 3] {
    let low = 8 * shade;
    match class {
        "cat" => [220, low, low],
        "dog" => [low, 220, low],
        _ => [low, low, 220],
    }
}

fn picture(folder: &Path, name: &str, class: &str, shade: u8) {
    let path = folder.join(name);
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    fs::write(path, png(colour(class, shade))).unwrap();
}

/// The third class, and one of its images, have names that tables must escape.
const OWL: &str = "owl, \"big\"";

const TUNE: &str = "--epochs 8 --rates 0.1 --optimizer sgd --batch 8 --quiet";

/// Twelve images of each of three classes, a run `run` pretrained on them, and `tuned`, fine-tuned with labels of half of them.
fn tuned() -> TempDir {
    let folder = tempfile::tempdir().unwrap();
    let at = folder.path();
    for class in ["cat", "dog", OWL] {
        (0..12).for_each(|shade| picture(at, &format!("pictures/{class}/{shade:02}.png"), class, shade));
    }
    fs::rename(at.join("pictures").join(OWL).join("00.png"), at.join("pictures").join(OWL).join("a,\n\"b\".png")).unwrap();
    pretrain(at);
    finetune(at, "50%", "tuned", "");
    folder
}

/// A pretrained run `run` of a few steps on the images.
fn pretrain(at: &Path) {
    let train = "train vision --data pictures --set encoder.resnet.depth=20 --set encoder.resnet.width=0.25 --set pairs.size=12 \
                 --set pairs.eval_size=16 --set train.batch=8 --set train.max_steps=3 --set schedule.warmup=0 --set eval={} \
                 --out run --quiet";
    said(at, &train.split_whitespace().collect::<Vec<_>>());
}

fn finetune(at: &Path, labels: &str, out: &str, more: &str) {
    let tune = if more.contains("--rates") { "--optimizer sgd --batch 8 --quiet" } else { TUNE };
    let command = format!("finetune run --labels {labels} {tune} --out {out} {more}");
    said(at, &command.split_whitespace().collect::<Vec<_>>());
}

/// A table's header and rows.
fn table(text: &str) -> (Vec<String>, Vec<Vec<String>>) {
    let mut reader = csv::Reader::from_reader(text.as_bytes());
    let fields = |record: &csv::StringRecord| record.iter().map(String::from).collect::<Vec<_>>();
    let header = fields(reader.headers().unwrap());
    (header, reader.records().map(|record| fields(&record.unwrap())).collect())
}

fn read(at: &Path, name: &str) -> String {
    fs::read_to_string(at.join(name)).unwrap_or_else(|e| panic!("{name}: {e}"))
}

#[test]
fn classes_of_folders_and_single_files_are_named_with_probabilities() {
    let folder = tuned();
    let at = folder.path();
    let told = json(at, &["predict", "tuned", "--data", "pictures", "--out", "p.csv", "--json"]);
    assert_eq!((&told["rows"], &told["classes"], &told["labelled"]), (&36.into(), &3.into(), &36.into()));
    let (header, rows) = table(&read(at, "p.csv"));
    assert_eq!(header, ["name", "label", "predicted", "probability"]);
    assert_eq!(rows.len(), 36);
    let mut right = 0;
    for row in &rows {
        let probability: f64 = row[3].parse().unwrap();
        assert!(probability > 1.0 / 3.0 - 1e-6 && probability <= 1.0, "{row:?}");
        assert!(row[0].starts_with(&format!("{}/", row[1])), "{row:?}");
        right += usize::from(row[1] == row[2]);
    }
    assert!(right > 24, "{right} of 36 are right");
    assert!(rows.iter().any(|row| row[0] == format!("{OWL}/a,\n\"b\".png") && row[1] == OWL), "odd names come back");

    // After the most probable class the others follow, as many as there are.
    let (text, stderr) = said(at, &["predict", "tuned", "--data", "pictures", "--top", "5"]);
    let (header, top) = table(&text);
    assert_eq!(header[2..], ["predicted", "probability", "predicted_2", "probability_2", "predicted_3", "probability_3"]);
    assert!(stderr.contains("3 classes"), "{stderr}");
    for (row, one) in top.iter().zip(&rows) {
        let probabilities: Vec<f64> = [3, 5, 7].map(|column| row[column].parse().unwrap()).to_vec();
        assert!(row[..4] == one[..] && probabilities.is_sorted_by(|a, b| a >= b), "{row:?}");
        assert!((probabilities.iter().sum::<f64>() - 1.0).abs() < 1e-5, "{row:?}");
    }

    // One image from elsewhere, and several beside a folder: no label, and the same prediction as in the folder.
    fs::copy(at.join("pictures/dog/05.png"), at.join("photo.png")).unwrap();
    let (_, photo) = table(&said(at, &["predict", "tuned", "--data", "photo.png"]).0);
    let there = rows.iter().find(|row| row[0] == "dog/05.png").unwrap();
    assert_eq!((&photo[0][..2], &photo[0][2]), (&["photo.png".to_string(), String::new()][..], &there[2]));
    said(at, &["predict", "tuned", "photo.png", "pictures", "pictures/cat/01.png", "photo.png", "--out", "p.jsonl"]);
    let lines: Vec<Value> = read(at, "p.jsonl").lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let names: Vec<&str> = [0, 1, 37, 38].map(|row: usize| lines[row]["name"].as_str().unwrap()).to_vec();
    assert_eq!((lines.len(), &names[..]), (39, &["photo.png", "pictures/cat/00.png", "pictures/cat/01.png", "photo.png"][..]));
    assert!(lines[0]["label"].is_null() && lines[1]["label"] == "cat" && lines[0]["probability"].is_number(), "{}", lines[0]);
    let keys: Vec<&String> = lines[0].as_object().unwrap().keys().collect();
    assert_eq!(keys, ["name", "label", "predicted", "probability"]);
    let all = json(at, &["predict", "tuned", "photo.png", "--json"]);
    assert_eq!(all["predictions"][0]["predicted"], lines[0]["predicted"]);
    // As Parquet: the same columns, unknown labels empty.
    said(at, &["predict", "tuned", "pictures", "photo.png", "--top", "2", "--out", "p.parquet"]);
    let stored = Parquet::open(&at.join("p.parquet")).unwrap();
    let columns: Vec<String> = stored.columns().iter().map(|column| column.name()).collect();
    assert_eq!(columns, ["name", "label", "predicted", "probability", "predicted_2", "probability_2"]);
    let columns: Vec<Vec<Option<String>>> = (0..6).map(|column| stored.texts(column).unwrap()).collect();
    assert_eq!((stored.rows(), &columns[0][36], &columns[1][36]), (37, &Some("photo.png".to_string()), &None));
    for (i, row) in top.iter().enumerate() {
        let told: Vec<&str> = columns[1..].iter().map(|cells| cells[i].as_deref().unwrap()).collect();
        assert!(told == row[1..6] && columns[0][i] == Some(format!("pictures/{}", row[0])), "{told:?} {row:?}");
    }
    // The run's own data, and a part of it.
    assert_eq!(table(&said(at, &["predict", "tuned", "--split", "test"]).0).1.len(), 6);
}

#[test]
fn what_cannot_be_predicted_is_refused_with_the_way_out() {
    let folder = tuned();
    let at = folder.path();
    let none = ["no classifier", "run", "hint: ", "ctk finetune run --labels"];
    refuses(at, &["predict", "run", "--data", "pictures"], &none);
    refuses(at, &["predict", "run/checkpoints/3", "--data", "pictures"], &none);
    refuses(at, &["eval", "classify", "run"], &none);
    fs::write(at.join("words.vec"), "2 2\na 1 0\nb 0 1\n").unwrap();
    refuses(at, &["predict", "words.vec"], &["no classifier of texts", "hint: ", "text-classification"]);
    for (out, part) in [("p.arrow", ".csv, .parquet or .jsonl"), ("p", ".csv, .parquet or .jsonl")] {
        refuses(at, &["predict", "tuned", "--out", out], &[out, part, "hint: "]);
    }
    refuses(at, &["predict", "tuned", "nowhere.png"], &["no such file", "nowhere.png", "hint: "]);
    refuses(at, &["predict", "tuned", "--data", "nowhere"], &["nowhere", "hint: "]);
    fs::write(at.join("notes.txt"), "words").unwrap();
    refuses(at, &["predict", "tuned", "notes.txt"], &["notes.txt", "hint: "]);
    fs::write(at.join("broken.png"), "words").unwrap();
    let broken = ctk(at, &["predict", "tuned", "broken.png", "--out", "p.csv"]);
    let stderr = String::from_utf8(broken.stderr).unwrap();
    assert!(broken.status.code() == Some(1) && stderr.contains("broken.png") && !at.join("p.csv").exists(), "{stderr}");
    assert!(!at.join("runs").exists());
}

#[test]
fn help_shows_an_example() {
    for verb in [&["predict"][..], &["eval", "classify"], &["embed"], &["neighbors"]] {
        let help = said(Path::new("."), &[verb, &["--help"]].concat()).0;
        assert!(help.contains("Example") && help.contains(&format!("ctk {} runs/", verb.join(" "))), "{help}");
    }
}

#[test]
fn a_classifier_is_judged_by_the_names_of_classes() {
    let folder = tuned();
    let at = folder.path();
    let own = json(at, &["eval", "classify", "tuned", "--json"]);
    let keys = ["accuracy", "mean_class_accuracy", "ece", "images", "hits", "part", "classes", "confusion"];
    assert!(keys.iter().all(|key| !own[key].is_null()), "{own}");
    assert_eq!((&own["images"], &own["part"]), (&6.into(), &"test".into()), "a fifth was held out");
    // The same images given as other data are judged on the part that was not trained on, wherever they are.
    fs::rename(at.join("pictures"), at.join("moved")).unwrap();
    let again = json(at, &["eval", "classify", "tuned", "--data", "moved", "--json"]);
    assert_eq!((&again["images"], &again["accuracy"]), (&own["images"], &own["accuracy"]));

    // Other data, whose classes have other numbers: `dog` is 1 of 2 here and 1 of 3 there, the owl 2 of 2. And one class is unknown.
    for shade in 0..5 {
        picture(at, &format!("more/dog/{shade}.png"), "dog", shade);
        picture(at, &format!("more/{OWL}/{shade}.png"), OWL, shade);
        picture(at, &format!("more/aardvark\u{1b}/{shade}.png"), "cat", shade);
    }
    let arguments = ["eval", "classify", "tuned", "--data", "more", "--csv", "c.csv", "--svg", "c.svg", "--json"];
    let (stdout, stderr) = said(at, &arguments);
    assert!(stderr.contains("aardvark\\u{1b} (5)") && stderr.contains("count as wrong"), "{stderr}");
    let judged: Value = serde_json::from_str(stdout.lines().last().unwrap()).unwrap();
    assert_eq!((&judged["images"], &judged["part"]), (&15.into(), &"all".into()));
    assert_eq!(judged["unknown_classes"]["aardvark\u{1b}"], 5);
    // All figures computed again from the predictions.
    let (_, rows) = table(&said(at, &["predict", "tuned", "--data", "more"]).0);
    let hits = rows.iter().filter(|row| row[1] == row[2]).count();
    assert_eq!((judged["hits"].as_u64().unwrap() as usize, judged["accuracy"].as_f64().unwrap()), (hits, hits as f64 / 15.0));
    let mut counts: BTreeMap<(&str, &str), u64> = BTreeMap::new();
    rows.iter().for_each(|row| *counts.entry((&row[1], &row[2])).or_default() += 1);
    let of = |label: &str, class: &str| counts.get(&(label, class)).copied().unwrap_or(0);
    let known = ["cat", "dog", OWL];
    let (header, matrix) = table(&read(at, "c.csv"));
    assert_eq!(header, ["label", "cat", "dog", OWL]);
    assert_eq!(matrix.iter().map(|row| row[0].as_str()).collect::<Vec<_>>(), ["cat", "dog", OWL, "aardvark\u{1b}"]);
    for (row, figures) in matrix.iter().zip(judged["classes"].as_array().unwrap()) {
        let class = row[0].as_str();
        assert_eq!(figures["class"], class);
        assert_eq!(row[1..], known.map(|to| of(class, to).to_string()));
        let images: u64 = known.iter().map(|to| of(class, to)).sum();
        let predicted: u64 = matrix.iter().map(|label| of(&label[0], class)).sum();
        assert_eq!((&figures["images"], &figures["predicted"]), (&images.into(), &predicted.into()));
        let share = |of_it: u64| if of_it == 0 { Value::Null } else { (of(class, class) as f64 / of_it as f64).into() };
        assert_eq!((&figures["recall"], &figures["precision"]), (&share(images), &share(predicted)));
    }
    let recall = |class: &str| of(class, class) as f64 / 5.0;
    assert!((judged["mean_class_accuracy"].as_f64().unwrap() - (recall("dog") + recall(OWL)) / 2.0).abs() < 1e-12);
    let svg = read(at, "c.svg");
    assert!(svg.starts_with("<svg") && svg.contains("dog") && !svg.contains('\u{1b}'), "{svg}");
    let printed = said(at, &["eval", "classify", "tuned", "--data", "more", "--quiet"]).0;
    for part in ["accuracy", "ece", "precision", "label \\ predicted", "2 dog", "aardvark\\u{1b}"] {
        assert!(printed.contains(part), "`{part}` is missing in:\n{printed}");
    }

    fs::create_dir_all(at.join("flat")).unwrap();
    fs::copy(at.join("more/dog/0.png"), at.join("flat/a.png")).unwrap();
    refuses(at, &["eval", "classify", "tuned", "--data", "flat"], &["no labels", "hint: ", "ctk predict"]);
}

#[test]
fn a_temperature_is_fitted_on_labels_that_were_not_given() {
    let folder = tuned();
    let at = folder.path();
    let (stdout, stderr) = said(at, &["eval", "classify", "tuned", "--calibrate", "--json"]);
    let judged: Value = serde_json::from_str(stdout.lines().last().unwrap()).unwrap();
    // 36 images, 6 held out, half of the others' labels given.
    assert_eq!(judged["calibrated_on"], 15, "{judged}");
    assert!(judged["temperature"].as_f64().unwrap() > 0.0 && judged["ece_calibrated"].is_number(), "{judged}");
    assert!(stderr.contains("15 training images whose labels were not given"), "{stderr}");
    let plain = json(at, &["eval", "classify", "tuned", "--json"]);
    assert!(plain["temperature"].is_null() && plain["ece"] == judged["ece"] && plain["accuracy"] == judged["accuracy"]);
    finetune(at, "100%", "all", "");
    assert_eq!(judged["calibration_set"], "labels-not-given");
    let never = ["trained on all of them", "hint: ", "task.finetune.calibrate=true", "never fitted on test labels"];
    refuses(at, &["eval", "classify", "all", "--calibrate", "--quiet"], &never);
    said(at, &"distill all --epochs 1 --batch 8 --out student --quiet".split(' ').collect::<Vec<_>>());
    let never = ["trained on all of them", "hint: ", "folds of the teacher are not the student's", "a part `val`"];
    refuses(at, &["eval", "classify", "student", "--calibrate", "--quiet"], &never);
}

#[test]
fn a_temperature_is_fitted_on_folds_where_all_labels_were_given() {
    let folder = tuned();
    let at = folder.path();
    // Two candidates are compared by cross-validation; a single one is cross-validated only on request.
    finetune(at, "100%", "chosen", "--rates 0.1,0.02 --epochs 2");
    finetune(at, "100%", "asked", "--set task.finetune.calibrate=true");
    for run in ["chosen", "asked"] {
        assert!(at.join(run).join("folds.safetensors").is_file() && !at.join(run).join("search").exists(), "{run}");
        let (stdout, stderr) = said(at, &["eval", "classify", run, "--calibrate", "--json"]);
        let judged: Value = serde_json::from_str(stdout.lines().last().unwrap()).unwrap();
        // 36 images less 6 held out, all in folds.
        assert_eq!((&judged["calibration_set"], &judged["calibrated_on"]), (&"folds".into(), &30.into()), "{judged}");
        assert!(judged["temperature"].as_f64().unwrap() > 0.0 && judged["ece_calibrated"].is_number(), "{judged}");
        assert!(stderr.contains("fitted on 30 labelled images in folds, each by a network that was trained on"), "{stderr}");
    }
    // The predictions for the folds are in the run, so its data need not exist any more.
    fs::rename(at.join("pictures"), at.join("moved")).unwrap();
    let judged = json(at, &["eval", "classify", "asked", "--data", "moved", "--calibrate", "--json"]);
    assert_eq!(judged["calibration_set"], "folds", "{judged}");
}

#[test]
fn a_temperature_on_val_sees_no_test_label_and_no_picture_that_is_judged_by() {
    let folder = tempfile::tempdir().unwrap();
    let at = folder.path();
    for (part, first, count) in [("train", 0, 6), ("val", 10, 4), ("test", 20, 3)] {
        for class in ["cat", "dog", "owl"] {
            (first..first + count)
                .for_each(|shade| picture(at, &format!("pictures/{part}/{class}/{shade:02}.png"), class, shade));
        }
    }
    pretrain(at);
    finetune(at, "50%", "tuned", "");
    let calibrated = |more: &[&str]| {
        let arguments = [&["eval", "classify", "tuned", "--calibrate", "--json"], more].concat();
        let (stdout, stderr) = said(at, &arguments);
        (serde_json::from_str::<Value>(stdout.lines().last().unwrap()).unwrap(), stderr)
    };
    let (before, stderr) = calibrated(&[]);
    assert_eq!((&before["calibration_set"], &before["calibrated_on"]), (&"val".into(), &12.into()), "{before}");
    assert!(stderr.contains("fitted on 12 images of the part `val`") && before["part"] == "test", "{stderr}");

    // The part `val` decides about the best checkpoint, too, and then no label is held back.
    finetune(at, "50%", "watched", "--set checkpoint.keep_best=true");
    let best: Value = serde_json::from_str(&read(at, "watched/checkpoints/best/best.json")).unwrap();
    assert_eq!((&best["on"], &best["samples"], at.join("watched/held_back.json").exists()), (&"val".into(), &12.into(), false));

    // The part `val` itself is judged on: then the temperature is not fitted on it, but on labels that were not used.
    let (on_val, _) = calibrated(&["--data", "pictures/val"]);
    assert_eq!((&on_val["calibration_set"], &on_val["calibrated_on"]), (&"labels-not-given".into(), &9.into()), "{on_val}");
    assert_eq!(on_val["images"], 12);
    // A copy of a test picture in val is not fitted on, either.
    fs::copy(at.join("pictures/test/cat/20.png"), at.join("pictures/val/cat/99.png")).unwrap();
    assert_eq!(calibrated(&[]).0["calibrated_on"], 12);

    // Any rotation of the test labels leaves the temperature unchanged to the bit; one of val's labels does not.
    let mut moved = 0;
    for turn in 0..3 {
        let turned = |part: &str| {
            let of = |class: &str| at.join("pictures").join(part).join(class);
            let classes = [["dog", "cat"], ["owl", "dog"], ["cat", "owl"]][turn];
            fs::rename(of(classes[0]), of("aside")).unwrap();
            fs::rename(of(classes[1]), of(classes[0])).unwrap();
            fs::rename(of("aside"), of(classes[1])).unwrap();
        };
        turned("test");
        let (after, _) = calibrated(&[]);
        assert_eq!(after["temperature"], before["temperature"]);
        turned("test");
        turned("val");
        moved += usize::from(calibrated(&[]).0["temperature"] != before["temperature"]);
        turned("val");
    }
    assert!(moved > 0, "the labels of val do tell");
}

#[test]
fn a_distilled_run_tells_classes_and_an_older_one_says_what_it_lacks() {
    let folder = tuned();
    let at = folder.path();
    let distill = "distill tuned --epochs 2 --batch 8 --out student --quiet";
    said(at, &distill.split(' ').collect::<Vec<_>>());
    assert_eq!(read(at, "student/classes.json").matches("cat").count(), 1);
    let (_, rows) = table(&said(at, &["predict", "student", "--data", "pictures", "--top", "3"]).0);
    assert!(rows.iter().all(|row| ["cat", "dog", OWL].iter().all(|class| row[2..].contains(&class.to_string()))), "{rows:?}");
    assert!(json(at, &["eval", "classify", "student", "--calibrate", "--json"])["temperature"].is_number());

    // A missing file is an error.
    fs::remove_file(at.join("student/classes.json")).unwrap();
    let output = ctk(at, &["predict", "student", "--data", "pictures"]);
    assert!(output.status.code() == Some(1) && String::from_utf8_lossy(&output.stderr).contains("is missing"), "{output:?}");
    // A run of an earlier version: the names are those of its data, or numbers if the data is gone.
    fs::remove_file(at.join("student/sums.json")).unwrap();
    let (named, stderr) = said(at, &["predict", "student", "--data", "pictures", "--top", "3"]);
    assert!(table(&named).1 == rows && stderr.contains("note: the run does not store the names of its classes"), "{stderr}");
    fs::rename(at.join("pictures"), at.join("moved")).unwrap();
    let (numbered, stderr) = said(at, &["predict", "student", "--data", "moved"]);
    assert!(stderr.contains("numbered from 0"), "{stderr}");
    for (row, before) in table(&numbered).1.iter().zip(&rows) {
        let number = ["cat", "dog", OWL].iter().position(|class| *class == before[2]).unwrap();
        assert_eq!((&row[0], &row[1], &row[2]), (&before[0], &before[1], &number.to_string()));
    }
    refuses(at, &["eval", "classify", "student", "--data", "moved"], &["does not store the names of its classes", "hint: "]);
}

#[test]
fn features_of_photos_go_into_tables_and_photos_find_their_neighbours() {
    let folder = tuned();
    let at = folder.path();
    fs::copy(at.join("pictures/dog/05.png"), at.join("photo.png")).unwrap();
    let one = json(at, &["embed", "run", "--data", "photo.png", "--out", "one.csv", "--json"]);
    assert_eq!((&one["rows"], &one["width"]), (&1.into(), &16.into()));
    let (header, rows) = table(&read(at, "one.csv"));
    assert_eq!((&header[..4], header.len()), (&["name", "label", "split", "f0"].map(String::from)[..], 3 + 16));
    assert_eq!(rows[0][..3], ["photo.png", "", ""]);
    // The run's data, with the parts that the run made.
    said(at, &["embed", "run", "--out", "all.csv", "--quiet"]);
    let (_, all) = table(&read(at, "all.csv"));
    let part = |part: &str| all.iter().filter(|row| row[2] == part).count();
    assert_eq!((all.len(), part("train"), part("test")), (36, 30, 6));
    let dog = all.iter().find(|row| row[0] == "dog/05.png").unwrap();
    assert_eq!(dog[1], "dog");
    let value = |text: &String| text.parse::<f32>().unwrap();
    let near = |(a, b): (&String, &String)| (value(a) - value(b)).abs() < 1e-4;
    assert!(dog[3..].iter().zip(&rows[0][3..]).all(near), "the same picture has the same features");
    assert!(all.iter().any(|row| row[0] == format!("{OWL}/a,\n\"b\".png") && row[1] == OWL));
    for name in ["all.npy", "all.safetensors"] {
        said(at, &["embed", "run", "--out", name, "--quiet"]);
        let beside = read(at, &format!("{name}.names.tsv"));
        assert!(beside.starts_with("name\tlabel\tclass\tsplit\n") && beside.contains("dog/05.png\t1\tdog\t"), "{beside}");
    }
    let several = json(at, &["embed", "run", "photo.png", "pictures/cat/01.png", "pictures", "--out", "several.csv", "--json"]);
    assert_eq!(several["rows"], 38);
    said(at, &["embed", "run", "--out", "all.parquet", "--quiet"]);
    let stored = Parquet::open(&at.join("all.parquet")).unwrap();
    let texts = |column: usize| stored.texts(column).unwrap().into_iter().map(Option::unwrap_or_default).collect::<Vec<_>>();
    let told = (0..3).map(|column| all.iter().map(|row| row[column].clone()).collect::<Vec<_>>());
    assert_eq!((0..3).map(texts).collect::<Vec<_>>(), told.collect::<Vec<_>>());
    let values: Vec<f32> = all.iter().flat_map(|row| row[3..].iter().map(value)).collect();
    assert_eq!(stored.numbers(3).unwrap(), (values, 16));
    refuses(at, &["embed", "run", "--out", "x.arrow"], &[".parquet", "hint: "]);

    // An image from elsewhere among the run's own images and among stored ones; rows of a file among themselves.
    let near = json(at, &["neighbors", "run", "photo.png", "--count", "3", "--json"]);
    let near = near["photo.png"].as_array().unwrap();
    assert!(near[0]["name"] == "dog/05.png" && near[0]["cosine"].as_f64().unwrap() > 0.999_99 && near.len() == 3, "{near:?}");
    for file in ["all.csv", "all.parquet", "all.npy", "all.safetensors"] {
        let found = json(at, &["neighbors", "run", "photo.png", "--data", file, "--count", "3", "--json"]);
        assert_eq!(found["photo.png"].as_array().unwrap(), near, "{file}");
        let inside = json(at, &["neighbors", file, "dog/05.png", "--count", "2", "--json"]);
        assert_ne!(inside["dog/05.png"][0]["name"], "dog/05.png", "{file}: the row itself is left out");
    }
    let judged = json(at, &["eval", "knn", "all.csv", "--json"]);
    assert!(judged["top1"].is_number(), "parts of a file are its own");
    assert_eq!(json(at, &["eval", "knn", "all.parquet", "--json"]), judged);
    refuses(at, &["neighbors", "run", "nowhere.png"], &["nowhere.png", "no such file", "hint: "]);
    refuses(at, &["neighbors", "all.npy", "photo.png"], &["photo.png", "hint: ", "--data"]);
    refuses(at, &["export", "all.npy", "--format", "timm", "--out", "x"], &["timm", "hint: "]);
    refuses(at, &["predict", "all.npy"], &["no classifier"]);
    fs::write(at.join("narrow.csv"), "name,label,split,f0,f1\na,,,1,2\n").unwrap();
    refuses(at, &["neighbors", "run", "photo.png", "--data", "narrow.csv"], &["2 values", "16", "hint: "]);
}

#[test]
fn a_classifier_goes_out_with_its_network() {
    let folder = tuned();
    let at = folder.path();
    // The first layer of the head that fine-tuning keeps is exported, too, in formats that have a place for it.
    let header = |file: &str| {
        let bytes = fs::read(at.join(file)).unwrap();
        let length = u64::from_le_bytes(*bytes.first_chunk().unwrap()) as usize;
        serde_json::from_slice::<Value>(&bytes[8..8 + length]).unwrap()
    };
    said(at, &["export", "tuned", "--format", "safetensors", "--out", "tuned.safetensors"]);
    let names = header("tuned.safetensors");
    let shape = |name: &str| names[name]["shape"].clone();
    assert_eq!((shape("fc.0.weight"), shape("fc.2.weight")), (serde_json::json!([16, 16]), serde_json::json!([3, 16])));
    assert_eq!(serde_json::from_str::<Value>(&read(at, "tuned.safetensors.classes.json")).unwrap()[2], OWL);
    said(at, &["export", "tuned", "--format", "safetensors", "--encoder-only", "--out", "encoder.safetensors"]);
    assert!(header("encoder.safetensors").as_object().unwrap().keys().all(|name| !name.starts_with("fc")));

    let train = "train vision --data pictures --set encoder.resnet.depth=18 --set encoder.resnet.width=0.25 --set pairs.size=12 \
                 --set encoder.resnet.stem=imagenet --set train.batch=8 --set train.max_steps=1 --set schedule.warmup=0 \
                 --set eval={} --out run18 --quiet";
    said(at, &train.split_whitespace().collect::<Vec<_>>());
    for (out, layers) in [("kept", "1"), ("bare", "0")] {
        let tune =
            format!("finetune run18 --labels 50% --epochs 1 --rates 0.1 --batch 8 --from-layer {layers} --out {out} --quiet");
        said(at, &tune.split(' ').collect::<Vec<_>>());
    }
    let refused = ["export", "kept", "--format", "transformers", "--out", "out"];
    refuses(at, &refused, &["projection head", "hint: --encoder-only", "--from-layer 0"]);
    said(at, &["export", "kept", "--format", "transformers", "--encoder-only", "--out", "alone"]);
    said(at, &["export", "bare", "--format", "transformers", "--out", "theirs"]);
    let config = |folder: &str| serde_json::from_str::<Value>(&read(at, &format!("{folder}/config.json"))).unwrap();
    assert_eq!(config("alone")["architectures"][0], "ResNetModel");
    assert_eq!(config("theirs")["architectures"][0], "ResNetForImageClassification");
    assert_eq!((&config("theirs")["id2label"]["2"], &config("theirs")["label2id"]["dog"]), (&OWL.into(), &1.into()));
    let names = header("theirs/model.safetensors");
    assert_eq!(names["classifier.1.weight"]["shape"].as_array().unwrap()[0], 3);
    let known = |name: &String| name.starts_with("resnet.") || name.starts_with("classifier.1.") || name == "__metadata__";
    assert!(names.as_object().unwrap().keys().all(known), "{names}");
    // Imported again it is the same encoder.
    for (from, run) in [("theirs", "back"), ("alone", "back-alone")] {
        said(at, &["import", from, "--out", run, "--set", "data.path=pictures", "--quiet"]);
        said(at, &["embed", run, "--data", "pictures", "--out", &format!("{run}.npy"), "--quiet"]);
    }
    said(at, &["embed", "bare", "--data", "pictures", "--out", "bare.npy", "--quiet"]);
    assert_eq!(fs::read(at.join("back.npy")).unwrap(), fs::read(at.join("bare.npy")).unwrap());
    assert!(!at.join("out").exists());
}
