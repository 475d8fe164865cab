//! `--device` and `ctk devices`: what is said on a machine without a GPU, and every verb on the emulated CUDA device, which tests have.

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use serde_json::Value;

fn ctk(at: &Path, args: &str) -> Output {
    Command::new(env!("CARGO_BIN_EXE_ctk")).current_dir(at).args(args.split(' ')).output().unwrap()
}

/// Runs and expects success; stdout and stderr.
fn done(at: &Path, args: &str) -> [String; 2] {
    let output = ctk(at, args);
    let [stdout, stderr] = [&output.stdout, &output.stderr].map(|bytes| String::from_utf8_lossy(bytes).into_owned());
    assert!(output.status.success(), "{args}\n{stdout}{stderr}");
    [stdout, stderr]
}

/// Runs with --json; the object.
fn json(at: &Path, args: &str) -> Value {
    let [stdout, _] = done(at, &format!("{args} --json"));
    serde_json::from_str(stdout.lines().last().unwrap()).unwrap()
}

/// Runs and expects an error with `code` that contains each of `parts`.
fn fails(at: &Path, args: &str, code: i32, parts: &[&str]) {
    let output = ctk(at, args);
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(code), "{args}\n{stderr}");
    for part in parts {
        assert!(stderr.contains(part), "{args}: `{part}` is missing in:\n{stderr}");
    }
}

/// A small run by `--set`s, to which more arguments are added.
const SMALL: &str = "train vision --quiet --set data.train=48 --set data.test=24 --set pairs.size=12 --set pairs.eval_size=12 \
    --set train.batch=8 --set train.exact=true --set head.width=8 --set schedule.warmup=0 --set eval={}";

#[test]
fn a_machine_is_described() {
    let folder = tempfile::tempdir().unwrap();
    let at = folder.path();
    let found = json(at, "devices");
    assert_eq!((&found["cpu"]["name"], &found["cuda"]), (&"cpu".into(), &cfg!(feature = "cuda").into()));
    let libraries = found["libraries"].as_array().unwrap();
    let names: Vec<&str> = libraries.iter().map(|library| library["name"].as_str().unwrap()).collect();
    if cfg!(feature = "cuda") {
        assert_eq!(names, ["driver", "NVRTC", "cuBLAS", "cuDNN"]);
    }
    let [stdout, _] = done(at, "devices");
    assert!(stdout.starts_with("cpu     "), "{stdout}");
    // What follows is for machines without a device.
    if !found["usable"].is_null() || !cfg!(feature = "cuda") {
        return;
    }
    assert!(stdout.contains("No CUDA device can be used: --device auto computes on the CPU."), "{stdout}");
    let Some(missing) = libraries.iter().find(|library| library["found"] == false) else { return };
    let trouble = missing["trouble"].as_str().unwrap();
    let brought = trouble.split("; ").nth(1).unwrap();
    assert!(stdout.contains(brought) && brought.starts_with("it comes with"), "{stdout}");
    for device in ["cuda", "cuda:7"] {
        fails(at, &format!("train vision --device {device} --out run"), 1, &[trouble, "ctk devices"]);
    }
    assert!(!at.join("run").exists());
}

#[test]
fn devices_that_cannot_be_are_refused() {
    let folder = tempfile::tempdir().unwrap();
    let at = folder.path();
    for verb in ["train vision --out run", "train word2vec --out run", "bench vision", "matrix none.toml"] {
        if !verb.starts_with("matrix") && !verb.contains("word2vec") {
            fails(
                at,
                &format!("{verb} --device tpu"),
                2,
                &["--device tpu", "`tpu` is not a device", "auto, cpu, cuda, and cuda:N"],
            );
        }
    }
    fails(at, "train word2vec --out run --device cuda", 2, &["--device cuda", "word2vec runs on the CPU alone"]);
    fails(at, "devices --device cpu", 2, &["--self-test"]);
    assert!(!at.join("run").exists());
}

#[test]
fn every_verb_runs_on_a_device_and_goes_on_on_the_cpu() {
    let folder = tempfile::tempdir().unwrap();
    let at = folder.path();
    let there = json(at, &format!("{SMALL} --set train.max_steps=3 --device emulated --out run"));
    let here = json(at, &format!("{SMALL} --set train.max_steps=3 --device cpu --out other"));
    let losses = [&there, &here].map(|figures| figures["loss"].as_f64().unwrap());
    assert!((losses[0] - losses[1]).abs() < 1e-3 * losses[1].abs(), "{losses:?}");
    // Features of the same weights are the same on both.
    for device in ["emulated", "cpu"] {
        done(at, &format!("embed run --out {device}.csv --device {device} --quiet"));
    }
    let rows = |name: &str| -> Vec<f64> {
        let text = std::fs::read_to_string(at.join(name)).unwrap();
        text.lines().skip(1).flat_map(|line| line.split(',').skip(2)).filter_map(|cell| cell.parse().ok()).collect()
    };
    let [a, b] = ["emulated.csv", "cpu.csv"].map(rows);
    assert!(a.len() == b.len() && a.len() > 72 * 8, "{} {}", a.len(), b.len());
    assert!(a.iter().zip(&b).all(|(a, b)| (a - b).abs() < 1e-4 * b.abs().max(1.0)));
    let probes = ["emulated", "cpu"].map(|device| json(at, &format!("eval linear-probe run --device {device}")));
    assert!((probes[0]["top1"].as_f64().unwrap() - probes[1]["top1"].as_f64().unwrap()).abs() < 0.1, "{probes:?}");
    done(at, "train vision --resume run --set train.max_steps=5 --device cpu --quiet");
    done(at, "train vision --resume run --set train.max_steps=6 --device emulated --quiet");
    // Fine-tuning begins with the same weights, and takes the same steps.
    let tune = |device: &str, out: &str| {
        let args = "finetune run --labels 4-per-class --epochs 1 --crops 0.35 --rates 0.01 --quiet";
        json(at, &format!("{args} --device {device} --out {out}"))
    };
    let (there, here) = (tune("emulated", "tuned"), tune("cpu", "tuned-here"));
    let losses = [&there, &here].map(|figures| figures["loss"].as_f64().unwrap());
    assert!(there["steps"] == here["steps"] && (losses[0] - losses[1]).abs() < 1e-3 * losses[1].abs(), "{there} {here}");
    done(at, "predict tuned --device emulated --out classes.csv --quiet");
    done(at, "distill tuned --epochs 1 --device emulated --out student --quiet");
    let timed = json(at, "bench vision --width 0.25 --size 8 --batch 4 --steps 1 --device emulated");
    let calls = timed["device_calls_ms"].as_object().unwrap();
    assert!(calls.contains_key("convolution output f32") && calls.contains_key("step_f32"), "{calls:?}");
    assert!(timed["peak_device_mb"].as_f64().unwrap() > 1.0 && timed["device"] == "an emulated CUDA device", "{timed}");
}

#[test]
fn a_run_that_does_not_fit_is_refused_and_one_whose_memory_ends_is_saved() {
    let folder = tempfile::tempdir().unwrap();
    let at = folder.path();
    let args = format!("{SMALL} --set train.max_steps=5 --out run");
    fails(at, &format!("{args} --device emulated:3000000"), 2, &["memory of an emulated CUDA device", "3.0 MB are free"]);
    assert!(!at.join("run").exists());
    // Memory that ends in the middle.
    let ends = (200..).step_by(400).find(|allocations| {
        let output = ctk(at, &format!("{args} --device emulated:1000000000,{allocations}"));
        let stderr = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(output.status.success() || stderr.contains("the device's memory is full"), "{stderr}");
        let saved = at.join("run/checkpoints").exists();
        if !saved {
            drop(std::fs::remove_dir_all(at.join("run")));
        }
        assert!(output.status.code() != Some(101), "{stderr}");
        saved
    });
    let steps = json(at, "train vision --resume run --quiet --device cpu")["steps"].as_u64();
    assert_eq!(steps, Some(5), "ended after {ends:?} allocations");
}

#[test]
fn the_self_test_says_its_verdicts() {
    let folder = tempfile::tempdir().unwrap();
    let at = folder.path();
    let [stdout, stderr] = done(at, "devices --self-test --device emulated");
    assert!(stderr.contains("comparing an emulated CUDA device with the CPU"), "{stderr}");
    assert!(stdout.contains("right  conv 3×3, f32: off by ") && stdout.contains("right  ten steps of byol, bf16"), "{stdout}");
    assert!(stdout.trim_end().lines().last().unwrap().starts_with("an emulated CUDA device is right in all "), "{stdout}");
    let found = json(at, "devices --self-test --device emulated --quiet");
    assert_eq!(found["self_test"]["passed"], true);
    assert!(found["self_test"]["checks"].as_array().unwrap().len() > 100);
    // Memory that ends is a wrong device.
    fails(at, "devices --self-test --device emulated:100000 --quiet", 1, &["is wrong in", "do not train on it"]);
}

/// A folder with stubs of the vendor's libraries (`tests/fixtures/cuda/stubs.c`), without the `missing` one.
#[cfg(all(feature = "cuda", target_os = "linux"))]
fn stubs(at: &Path, missing: &str) -> PathBuf {
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/cuda/stubs.c");
    let (built, folder) = (at.join("stubs.so"), at.join(format!("without {missing}")));
    if !built.exists() {
        let done = Command::new("cc").args(["-shared", "-fPIC", "-o"]).arg(&built).arg(source).status().unwrap();
        assert!(done.success());
    }
    std::fs::create_dir_all(&folder).unwrap();
    for name in ["cuda", "nvrtc", "cublas", "cudnn"].into_iter().filter(|name| *name != missing) {
        std::fs::copy(&built, folder.join(format!("lib{name}.so"))).unwrap();
    }
    folder
}

#[cfg(all(feature = "cuda", target_os = "linux"))]
#[test]
fn what_is_wrong_with_libraries_and_devices_is_said() {
    let folder = tempfile::tempdir().unwrap();
    let at = folder.path();
    let run = |args: &str, missing: &str, answers: &[(&str, &str)]| {
        let stubs = stubs(at, missing);
        let mut command = Command::new(env!("CARGO_BIN_EXE_ctk"));
        command.current_dir(at).args(args.split(' ')).env("LD_LIBRARY_PATH", stubs).env("HOME", at).envs(answers.iter().copied());
        command.output().unwrap()
    };
    let train = "train vision --out run --device";
    // The device, the missing library, what the stubs answer, and parts of the message.
    type Case = (&'static str, &'static str, &'static [(&'static str, &'static str)], &'static [&'static str]);
    let cases: [Case; 10] = [
        ("cuda", "", &[("STUB_DRIVER", "11080")], &["driver serves CUDA 11.8, and ctk needs 12 or newer"]),
        ("cuda", "", &[("STUB_INIT", "100")], &["cuInit failed", "CUDA_ERROR_NO_DEVICE"]),
        ("cuda", "", &[("STUB_DEVICES", "0")], &["opening device 0", "the driver lists no device"]),
        ("cuda:3", "", &[], &["opening device 3", "the driver lists one device, number 0"]),
        ("cuda", "", &[("STUB_CAPABILITY", "75")], &["Stub GPU has compute capability 7.5, and ctk needs 8.0"]),
        ("cuda", "nvrtc", &[], &["NVRTC cannot be opened; it comes with the CUDA 12 toolkit"]),
        ("cuda", "cublas", &[], &["cuBLAS cannot be opened"]),
        ("cuda", "cudnn", &[], &["cuDNN cannot be opened; it comes with cuDNN 9", "nvidia-cudnn-cu12"]),
        ("cuda", "", &[("STUB_CUDNN", "8907")], &["cuDNN has version 8.9, and ctk needs 9"]),
        ("cuda", "", &[], &["nvrtcCompileProgram failed", "the stub compiles nothing"]),
    ];
    for (device, missing, answers, parts) in cases {
        let output = run(&format!("{train} {device}"), missing, answers);
        let stderr = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(1), "{device} {missing} {answers:?}\n{stderr}");
        for part in parts.iter().chain(&["--device", "ctk devices"]) {
            assert!(stderr.contains(part), "{device} {missing} {answers:?}: `{part}` is missing in:\n{stderr}");
        }
    }
    assert!(!at.join("run").exists());
    // `auto` falls back to the CPU. Where there is a device that cannot be used, it says why.
    let auto = format!("{SMALL} --device auto").replace(" --quiet", "");
    for (missing, answers, said) in [
        ("cudnn", &[][..], "computing on the CPU, not on Stub GPU: opening the CUDA libraries failed: cuDNN cannot be opened"),
        ("", &[("STUB_CAPABILITY", "61")][..], "computing on the CPU, not on Stub GPU"),
        ("", &[("STUB_DEVICES", "0")][..], ""),
        ("cuda", &[][..], ""),
    ] {
        drop(std::fs::remove_dir_all(at.join("run")));
        let output = run(&format!("{auto} --set train.max_steps=1 --out run"), missing, answers);
        let stderr = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success() && stderr.contains(said), "{missing}: {stderr}");
        assert_eq!(stderr.contains("computing on"), !said.is_empty(), "{stderr}");
    }
    // What there is.
    let output = run("devices --json", "cudnn", &[("STUB_DRIVER", "12080"), ("STUB_DEVICES", "2")]);
    let found: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!((&found["libraries"][0]["version"], &found["libraries"][3]["found"]), (&"12.8".into(), &false.into()));
    let second = &found["devices"][1];
    assert_eq!(
        (&second["name"], &second["model"], &second["compute_capability"]),
        (&"cuda:1".into(), &"Stub GPU".into(), &"9.0".into())
    );
    assert_eq!(second["memory_bytes"], 16u64 << 30);
    assert!(found["usable"].is_null());
    let output = run("devices", "", &[]);
    let stdout = String::from_utf8_lossy(&output.stdout);
    assert!(
        stdout.contains("cuda:0  Stub GPU, 17 GB, compute capability 9.0") && stdout.contains("computes on cuda:0"),
        "{stdout}"
    );
}
