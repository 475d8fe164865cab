//! `hf://` paths with a small server that speaks the hub's protocol: redirects, ranges, commits, tokens, and failures.

use std::collections::HashMap;
use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::process::{Command, Output};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

const COMMIT: &str = "0123456789abcdef0123456789abcdef01234567";

/// A hub with a few files, at a free port of this machine.
struct Hub {
    address: String,
    state: Arc<State>,
}

#[derive(Default)]
struct State {
    /// Bodies by `repository/resolve/revision/file`.
    files: Mutex<HashMap<String, Vec<u8>>>,
    requests: AtomicUsize,
    /// Whether downloads break off half-way.
    breaks: AtomicBool,
}

impl Hub {
    fn start(files: &[(&str, &[u8])]) -> Hub {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = format!("http://{}", listener.local_addr().unwrap());
        let state = Arc::new(State::default());
        *state.files.lock().unwrap() = files.iter().map(|(name, body)| (name.to_string(), body.to_vec())).collect();
        let (shared, own) = (state.clone(), address.clone());
        // The thread ends with the test's process.
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                let (shared, own) = (shared.clone(), own.clone());
                std::thread::spawn(move || shared.answer(stream.unwrap(), &own));
            }
        });
        Hub { address, state }
    }

    /// ctk with this hub and a cache in `folder`.
    fn ctk(&self, folder: &Path, args: &str, more: &[(&str, &str)]) -> Output {
        let mut ctk = Command::new(env!("CARGO_BIN_EXE_ctk"));
        for name in ["HF_HUB_CACHE", "HF_HUB_OFFLINE", "HF_TOKEN"] {
            ctk.env_remove(name);
        }
        ctk.current_dir(folder).env("HF_ENDPOINT", &self.address).env("HF_HOME", folder.join("home"));
        ctk.envs(more.iter().copied()).args(args.split(' ')).output().unwrap()
    }

    fn requests(&self) -> usize {
        self.state.requests.load(Ordering::SeqCst)
    }
}

impl State {
    /// One request: the file's own address returns its commit and hash and redirects to the bytes, as the hub does for large files; small
    /// ones (`.txt`) are sent at once.
    fn answer(&self, stream: TcpStream, own: &str) {
        let mut lines = BufReader::new(&stream).lines().map_while(Result::ok);
        let Some(first) = lines.next() else { return };
        let headers: Vec<String> = lines.take_while(|line| !line.is_empty()).map(|line| line.to_lowercase()).collect();
        let header = |name: &str| headers.iter().find_map(|line| line.strip_prefix(&format!("{name}: ")));
        self.requests.fetch_add(1, Ordering::SeqCst);
        let path = first.split(' ').nth(1).unwrap_or("/").trim_start_matches('/');
        let (stored, path) = path.strip_prefix("stored/").map_or((false, path), |rest| (true, rest));
        let files = self.files.lock().unwrap();
        let Some(body) = files.get(path) else {
            return reply(&stream, "404 Not Found", "", b"");
        };
        if path.starts_with("private/") && header("authorization") != Some("bearer open-sesame") && !stored {
            return reply(&stream, "401 Unauthorized", "", b"");
        }
        let known = format!("x-repo-commit: {COMMIT}\r\netag: \"{:x}\"\r\n", body.len() * 31 + usize::from(body[0]));
        if !stored && !path.ends_with(".txt") {
            let linked = known.replace("etag", "x-linked-etag");
            return reply(
                &stream,
                "302 Found",
                &format!("{linked}etag: \"elsewhere\"\r\nlocation: {own}/stored/{path}\r\n"),
                b"",
            );
        }
        let (from, to) = header("range").and_then(|range| range.strip_prefix("bytes=")?.split_once('-')).unwrap_or(("0", ""));
        let from: usize = from.parse().unwrap();
        let to = to.parse().unwrap_or(body.len() - 1).min(body.len() - 1);
        let part = &body[from.min(body.len())..=to];
        let range = format!("{known}content-range: bytes {from}-{to}/{}\r\n", body.len());
        if self.breaks.load(Ordering::SeqCst) && part.len() > 1 {
            let _ = write!(
                &stream,
                "HTTP/1.1 206 Partial Content\r\n{range}content-length: {}\r\nconnection: close\r\n\r\n",
                part.len()
            );
            let _ = (&stream).write_all(&part[..part.len() / 2]);
            return;
        }
        reply(&stream, "206 Partial Content", &range, part)
    }
}

fn reply(mut stream: &TcpStream, status: &str, headers: &str, body: &[u8]) {
    let head = format!("HTTP/1.1 {status}\r\n{headers}content-length: {}\r\nconnection: close\r\n\r\n", body.len());
    // The client may have closed the connection.
    let _ = stream.write_all(head.as_bytes()).and_then(|()| stream.write_all(body));
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// Word vectors that need more than one block.
fn vectors() -> Vec<u8> {
    let row = |i: usize| format!("word{i} {} {} 1\n", (i as f64).sin(), (i as f64).cos());
    let rows: String = (0..3000).map(row).collect();
    format!("3000 3\n{rows}").into_bytes()
}

fn fails(output: &Output, code: i32, words: &[&str]) {
    let told = text(&output.stderr);
    assert_eq!(output.status.code(), Some(code), "{told}");
    words.iter().for_each(|word| assert!(told.contains(word), "no `{word}` in: {told}"));
    assert!(told.contains("hint: ") && !told.contains("panicked"), "{told}");
}

#[test]
fn a_file_is_downloaded_once_and_then_had_offline() {
    let hub = Hub::start(&[("someone/vectors/resolve/main/words.vec", &vectors())]);
    let folder = tempfile::tempdir().unwrap();
    let ask = "neighbors hf://someone/vectors/words.vec word7 --json";
    let first = hub.ctk(folder.path(), ask, &[]);
    assert!(first.status.success(), "{}", text(&first.stderr));
    assert!(text(&first.stdout).contains("word"), "{}", text(&first.stdout));
    let asked = hub.requests();
    let again = hub.ctk(folder.path(), ask, &[("HF_HUB_OFFLINE", "1")]);
    assert_eq!((text(&again.stdout), hub.requests()), (text(&first.stdout), asked), "the cache answers");
    let exact = format!("neighbors hf://someone/vectors@{COMMIT}/words.vec word7 --json");
    let again = hub.ctk(folder.path(), &exact, &[("HF_HUB_OFFLINE", "1")]);
    assert_eq!((text(&again.stdout), hub.requests()), (text(&first.stdout), asked), "{}", text(&again.stderr));
    // The cache has the layout of the hub's own libraries.
    let snapshot = folder.path().join(format!("home/hub/models--someone--vectors/snapshots/{COMMIT}/words.vec"));
    assert_eq!(fs::read(snapshot).unwrap(), vectors());
}

#[test]
fn data_may_lie_there_too() {
    let corpus = "the cat sat on the mat and the dog sat on the log\n".repeat(400);
    let hub = Hub::start(&[("datasets/someone/texts/resolve/v1/corpus.txt", corpus.as_bytes())]);
    let folder = tempfile::tempdir().unwrap();
    let train = "train word2vec --data hf://datasets/someone/texts@v1/corpus.txt --set train.epochs=1 --out words --quiet";
    let done = hub.ctk(folder.path(), train, &[]);
    assert!(done.status.success(), "{}", text(&done.stderr));
    let found = hub.ctk(folder.path(), "neighbors words cat --json", &[]);
    assert!(text(&found.stdout).contains("dog"), "{}", text(&found.stdout));
}

#[test]
fn a_network_is_imported_with_what_describes_it() {
    let folder = tempfile::tempdir().unwrap();
    let local = Hub::start(&[]);
    let done = |hub: &Hub, args: &str, more: &[(&str, &str)]| {
        let output = hub.ctk(folder.path(), args, more);
        assert!(output.status.success(), "{args}\n{}", text(&output.stderr));
        text(&output.stdout)
    };
    let tiny = "--set data.train=8 --set data.test=8 --set train.batch=4 --set train.epochs=1 --set train.max_steps=1";
    let network = "--set encoder.resnet.stem=imagenet --set encoder.resnet.width=1.0 --set pairs.size=32 --set eval={}";
    done(&local, &format!("train vision {tiny} {network} --out run --quiet"), &[]);
    done(&local, "export run --format timm --out timm", &[]);
    let read = |name: &str| fs::read(folder.path().join("timm").join(name)).unwrap();
    let (weights, config) = (read("model.safetensors"), read("config.json"));
    let hub = Hub::start(&[
        ("someone/resnet/resolve/main/model.safetensors", &weights),
        ("someone/resnet/resolve/main/config.json", &config),
    ]);
    done(&hub, "import hf://someone/resnet/model.safetensors --out back --quiet", &[]);
    let model = |run: &str| fs::read(folder.path().join(run).join("model.safetensors")).unwrap();
    assert_eq!(model("back/checkpoints/0"), model("run/checkpoints/1"));
    let recipe = fs::read_to_string(folder.path().join("back/recipe.toml")).unwrap();
    assert!(recipe.contains("size = 32") && !recipe.contains("normalise"), "the description was read: {recipe}");
    // A recipe may start from it, too, and then needs no network.
    let start = "--set encoder.resnet.weights=hf://someone/resnet/model.safetensors --set schedule.warmup=0";
    done(&hub, &format!("train vision {tiny} {network} {start} --out more --quiet"), &[("HF_HUB_OFFLINE", "1")]);
}

#[test]
fn what_goes_wrong_is_said() {
    let hub = Hub::start(&[("private/vectors/resolve/main/words.vec", &vectors())]);
    let folder = tempfile::tempdir().unwrap();
    let ask = |path: &str, more: &[(&str, &str)]| hub.ctk(folder.path(), &format!("neighbors {path} word7"), more);
    fails(
        &ask("hf://someone/nothing/words.vec", &[]),
        2,
        &["no such file, repository or revision", "hf://someone/nothing@main/words.vec"],
    );
    fails(&ask("hf://someone/words", &[]), 2, &["names no file", "hf://owner/name/file"]);
    fails(&ask("hf://private/vectors/words.vec", &[]), 1, &["does not let this be read", "HF_TOKEN"]);
    fails(&ask("hf://private/vectors/words.vec", &[("HF_HUB_OFFLINE", "1")]), 1, &["not in the cache", "HF_HUB_OFFLINE"]);
    let nobody = [("HF_ENDPOINT", "http://127.0.0.1:9")];
    fails(&ask("hf://private/vectors/words.vec", &nobody), 1, &["cannot be downloaded at http://127.0.0.1:9", "network"]);
    let allowed = ask("hf://private/vectors/words.vec", &[("HF_TOKEN", "open-sesame")]);
    assert!(allowed.status.success(), "{}", text(&allowed.stderr));
}

#[test]
fn a_download_that_breaks_goes_on_where_it_was() {
    let hub = Hub::start(&[("someone/vectors/resolve/main/words.vec", &vectors())]);
    let folder = tempfile::tempdir().unwrap();
    let ask = "neighbors hf://someone/vectors/words.vec word7 --json";
    hub.state.breaks.store(true, Ordering::SeqCst);
    fails(&hub.ctk(folder.path(), ask, &[]), 1, &["hf://someone/vectors@main/words.vec"]);
    let snapshots = folder.path().join("home/hub/models--someone--vectors/snapshots");
    assert!(!snapshots.join(format!("{COMMIT}/words.vec")).exists(), "half a file is no file");
    hub.state.breaks.store(false, Ordering::SeqCst);
    assert!(hub.ctk(folder.path(), ask, &[]).status.success());
    assert_eq!(fs::read(snapshots.join(format!("{COMMIT}/words.vec"))).unwrap(), vectors());
}
