//! Servers of `hf://` paths that try to do harm: names that lead elsewhere, redirects that would get the token, endless bodies.

use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

const COMMIT: &str = "0123456789abcdef0123456789abcdef01234567";
const WORDS: &[u8] = b"3 2\none 1 0\ntwo 0 1\nthree 1 1\n";
/// The SHA-256 of `WORDS`.
const SHA256: &str = "2d7fe1c766e24d05279bb045a7d878e3f73cac4cac3dcb9c6a2834d335db25a7";
const SECRET: &str = "hf_open-sesame";

/// The first line and the headers of each request, in lower case except for header values.
type Asked = Arc<Mutex<Vec<String>>>;

/// A server that answers every request by `answer`, which gets the path and all lines of the request.
fn server(answer: impl Fn(&mut TcpStream, &str, &[String]) + Send + Sync + 'static) -> (String, Asked) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = format!("http://{}", listener.local_addr().unwrap());
    let asked = Asked::default();
    let (seen, answer) = (asked.clone(), Arc::new(answer));
    // The thread ends with the test's process.
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let (seen, answer, mut stream) = (seen.clone(), answer.clone(), stream.unwrap());
            std::thread::spawn(move || {
                let lines = BufReader::new(stream.try_clone().unwrap()).lines().map_while(Result::ok);
                let lines: Vec<String> = lines.take_while(|line| !line.is_empty()).collect();
                let path = lines.first().and_then(|line| line.split(' ').nth(1)).unwrap_or("").to_string();
                seen.lock().unwrap().extend(lines.iter().cloned());
                answer(&mut stream, &path, &lines);
            });
        }
    });
    (address, asked)
}

/// A server that gives every request the same answer: a status, headers, a body.
fn says(status: &str, headers: &str, body: &[u8]) -> String {
    let head = format!("HTTP/1.1 {status}\r\n{headers}connection: close\r\n\r\n");
    let body = body.to_vec();
    server(move |stream, _, _| _ = stream.write_all(head.as_bytes()).and_then(|()| stream.write_all(&body))).0
}

/// Headers of a file with this name of its content.
fn of(etag: &str, length: usize) -> String {
    format!("x-repo-commit: {COMMIT}\r\netag: \"{etag}\"\r\ncontent-length: {length}\r\n")
}

fn command(folder: &Path, endpoint: &str, file: &str) -> Command {
    let mut ctk = Command::new(env!("CARGO_BIN_EXE_ctk"));
    for name in
        ["HF_HUB_CACHE", "HF_HUB_OFFLINE", "HF_TOKEN", "HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "http_proxy", "https_proxy"]
    {
        ctk.env_remove(name);
    }
    ctk.current_dir(folder).env("HF_ENDPOINT", endpoint).env("HF_HOME", folder.join("home"));
    ctk.env("HF_HUB_DOWNLOAD_TIMEOUT", "2").args(["neighbors", file, "one", "--json"]);
    ctk
}

const FILE: &str = "hf://someone/vectors/words.vec";

fn ask(folder: &Path, endpoint: &str) -> Output {
    command(folder, endpoint, FILE).env("HF_TOKEN", SECRET).output().unwrap()
}

/// The command must fail in time, and print these words and the address, but no secret and no panic.
fn fails(output: &Output, words: &[&str]) {
    let told = String::from_utf8_lossy(&output.stderr);
    assert!(matches!(output.status.code(), Some(1 | 2)), "{told}");
    words.iter().for_each(|word| assert!(told.contains(word), "no `{word}` in: {told}"));
    assert!(told.contains("hint: ") && told.contains("hf://someone/vectors"), "{told}");
    for never in [SECRET, "secret", "panicked", "\u{1b}"] {
        assert!(!told.contains(never), "`{never}` in: {told}");
    }
}

/// Every file below a folder.
fn files(folder: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
        let path = entry.path();
        if path.is_dir() && !path.is_symlink() { found.extend(files(&path)) } else { found.push(path) }
    }
    found
}

/// Nothing but locks was written: no content, no link.
fn nothing_came(folder: &Path) {
    let left: Vec<PathBuf> =
        files(folder).into_iter().filter(|path| !path.ends_with(".lock") && path.extension() != Some("lock".as_ref())).collect();
    assert_eq!(left, Vec::<PathBuf>::new());
}

#[test]
fn a_name_of_content_or_a_commit_leads_nowhere() {
    for etag in ["../../../../../escaped", "..", "/tmp/ctk-escaped", "a/b", "", "a\\b"] {
        let folder = tempfile::tempdir().unwrap();
        fails(&ask(folder.path(), &says("200 OK", &of(etag, WORDS.len()), WORDS)), &["cannot be the name of a file", "etag"]);
        nothing_came(folder.path());
    }
    for commit in ["../../../escaped", "/tmp/ctk-escaped", "main", ""] {
        let folder = tempfile::tempdir().unwrap();
        let headers = of("abc", WORDS.len()).replace(COMMIT, commit);
        fails(&ask(folder.path(), &says("200 OK", &headers, WORDS)), &["a commit that is none"]);
        nothing_came(folder.path());
    }
    // Twice, in case one header takes precedence.
    let folder = tempfile::tempdir().unwrap();
    let headers = format!("{}etag: \"../../x\"\r\n", of("abc", WORDS.len()));
    fails(&ask(folder.path(), &says("200 OK", &headers, WORDS)), &["`etag` twice"]);
    // A commit other than the requested one.
    let other = command(
        folder.path(),
        &says("200 OK", &of("abc", WORDS.len()), WORDS),
        &FILE.replace("/words", &format!("@{}/words", "f".repeat(40))),
    );
    let mut other = other;
    fails(&other.output().unwrap(), &["another commit"]);
    nothing_came(folder.path());
}

#[test]
fn the_token_goes_to_no_other_server() {
    let folder = tempfile::tempdir().unwrap();
    let (thief, seen) = server(|stream, _, _| {
        let head = format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\nconnection: close\r\n\r\n", WORDS.len());
        _ = stream.write_all(head.as_bytes()).and_then(|()| stream.write_all(WORDS));
    });
    let headers = format!("{}location: {thief}/stored?signature=secret\r\n", of("abc", 0));
    let (hub, asked) = server(move |stream, _, _| {
        _ = stream.write_all(format!("HTTP/1.1 302 Found\r\n{headers}connection: close\r\n\r\n").as_bytes());
    });
    let output = ask(folder.path(), &hub);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let (asked, seen) = (asked.lock().unwrap().join("\n").to_lowercase(), seen.lock().unwrap().join("\n").to_lowercase());
    assert!(asked.contains(&format!("authorization: bearer {SECRET}")), "{asked}");
    assert!(seen.contains("get /stored?signature=secret") && !seen.contains(SECRET) && !seen.contains("authorization"), "{seen}");
}

#[test]
fn a_password_of_the_endpoint_is_used_and_not_told() {
    let folder = tempfile::tempdir().unwrap();
    let (hub, asked) = server(|stream, _, _| _ = stream.write_all(b"HTTP/1.1 403 Forbidden\r\ncontent-length: 0\r\n\r\n"));
    let with = hub.replace("http://", "http://me:secret@");
    fails(&command(folder.path(), &with, FILE).output().unwrap(), &["does not let this be read", &hub]);
    assert!(asked.lock().unwrap().join("\n").to_lowercase().contains("authorization: basic "));
    for endpoint in
        ["http://me:secret@127.0.0.1:9", "http://me:secret@127.0.0.1:9/?a=secret", "me:secret@host", "ftp://me:secret@host"]
    {
        fails(&ask(folder.path(), endpoint), &[]);
    }
    let mut odd = command(folder.path(), &hub, FILE);
    fails(&odd.env("HF_TOKEN", "hf_secret\nx: y").output().unwrap(), &["no token has"]);
}

#[test]
fn what_a_server_sends_on_to_is_looked_at() {
    let folder = tempfile::tempdir().unwrap();
    for (location, words) in [
        ("file:///etc/passwd", "not a web address"),
        ("ftp://127.0.0.1/x", "not a web address"),
        ("http://me:secret@127.0.0.1:9/x", "a name or a password"),
        ("http://", "not an address"),
    ] {
        let hub = says("302 Found", &format!("{}location: {location}\r\n", of("abc", 0)), b"");
        fails(&ask(folder.path(), &hub), &[words]);
    }
    fails(&ask(folder.path(), &says("302 Found", &of("abc", 0), b"")), &["without saying to where"]);
    let (hub, asked) = server(|stream, path, _| {
        _ = stream.write_all(
            format!("HTTP/1.1 302 Found\r\nlocation: {path}x\r\ncontent-length: 0\r\nconnection: close\r\n\r\n").as_bytes(),
        );
    });
    fails(&ask(folder.path(), &hub), &["more than 10 times"]);
    assert_eq!(asked.lock().unwrap().iter().filter(|line| line.starts_with("GET ")).count(), 11);
    nothing_came(folder.path());
}

#[test]
fn bytes_without_end_and_lengths_that_are_wrong() {
    let folder = tempfile::tempdir().unwrap();
    let cases: [(&str, String, &[u8], &str); 8] = [
        ("200 OK", of("abc", 0).replace("content-length: 0\r\n", ""), WORDS, "does not say how long"),
        ("200 OK", of("abc", 1 << 50), WORDS, "MB free"),
        ("200 OK", of("abc", 0).replace(": 0\r", ": 99999999999999999999\r"), WORDS, ""),
        ("200 OK", format!("{}x-linked-size: 7\r\n", of("abc", WORDS.len())), WORDS, "says that the file has 7 bytes"),
        ("200 OK", of("abc", WORDS.len() + 5), WORDS, "not as long as the hub says"),
        ("206 Partial Content", format!("{}content-range: bytes 5-9/10\r\n", of("abc", 5)), b"12345", "continues at byte 5"),
        ("200 OK", format!("{}content-encoding: gzip\r\n", of("abc", WORDS.len())), WORDS, "compressed"),
        ("200 OK", format!("{}x: {}\r\n", of("abc", WORDS.len()), "y".repeat(1 << 20)), WORDS, "headers"),
    ];
    for (status, headers, body, words) in cases {
        fails(&ask(folder.path(), &says(status, &headers, body)), &[words]);
        let snapshots = folder.path().join("home/hub/models--someone--vectors/snapshots");
        assert!(files(&snapshots).is_empty(), "{words}");
    }
    // Bodies that do not end where they should, without and with chunk lengths.
    let (hub, _) = server(|stream, _, _| {
        let head = format!(
            "HTTP/1.1 200 OK\r\nx-repo-commit: {COMMIT}\r\netag: \"abd\"\r\nx-linked-size: 10\r\ntransfer-encoding: chunked\r\n\r\n"
        );
        let _ = stream.write_all(head.as_bytes());
        while stream.write_all(b"5\r\nendle\r\n").is_ok() {}
    });
    fails(&ask(folder.path(), &hub), &["more than the 10 bytes"]);
    assert!(!files(folder.path()).iter().any(|path| path.ends_with("abd.part") || path.ends_with("abd")));
}

#[test]
fn a_server_that_is_silent_or_drips_is_given_up() {
    let folder = tempfile::tempdir().unwrap();
    let begun = Instant::now();
    let wait = || std::thread::sleep(Duration::from_secs(60));
    let (silent, _) = server(move |_, _, _| wait());
    fails(&ask(folder.path(), &silent), &["no answer within 2 s", "HF_HUB_DOWNLOAD_TIMEOUT"]);
    let (stops, _) = server(move |stream, _, _| {
        let _ = stream.write_all(format!("HTTP/1.1 200 OK\r\n{}\r\n12345", of("abc", 1 << 20)).as_bytes());
        wait();
    });
    fails(&ask(folder.path(), &stops), &["stalls"]);
    let drips = |head: String| {
        server(move |stream, _, _| {
            let _ = stream.write_all(head.as_bytes());
            while stream.write_all(b"x").is_ok() {
                std::thread::sleep(Duration::from_millis(300));
            }
        })
    };
    fails(&ask(folder.path(), &drips(format!("HTTP/1.1 200 OK\r\n{}\r\n", of("abc", 1 << 20))).0), &["stalls", "16 KB"]);
    fails(&ask(folder.path(), &drips("HTTP/1.1 200 OK\r\nx: ".to_string()).0), &["no answer within 2 s"]);
    assert!(begun.elapsed() < Duration::from_secs(40), "{:?}", begun.elapsed());
    let mut odd = command(folder.path(), &silent, FILE);
    fails(&odd.env("HF_HUB_DOWNLOAD_TIMEOUT", "soon").output().unwrap(), &["HF_HUB_DOWNLOAD_TIMEOUT is not a number"]);
}

#[test]
fn a_page_is_no_file_and_an_error_no_content() {
    let folder = tempfile::tempdir().unwrap();
    let page = b"<html>please log in</html>";
    let length = format!("content-length: {}\r\n", page.len());
    fails(&ask(folder.path(), &says("200 OK", &length, page)), &["is not a hub", "login page"]);
    for (status, words) in [
        ("503 Down", "status 503"),
        ("503 \u{1b}[2J", ""),
        ("429 Slow", "too often"),
        ("418 Teapot", "status 418"),
        ("100 Continue", ""),
    ] {
        fails(&ask(folder.path(), &says(status, &of("abc", page.len()), page)), &[words]);
    }
    fails(&ask(folder.path(), &says("nonsense", "", page)), &[]);
    // The store that the hub redirects to answers with a page of the file's length.
    let store = says("200 OK", &length, page);
    let hub = says(
        "302 Found",
        &format!(
            "x-repo-commit: {COMMIT}\r\nx-linked-etag: \"{SHA256}\"\r\nx-linked-size: {}\r\nlocation: {store}/x\r\n",
            page.len()
        ),
        b"",
    );
    fails(&ask(folder.path(), &hub), &["SHA-256"]);
    let store = says("403 Forbidden", &length, page);
    let hub = says("302 Found", &format!("{}location: {store}/x?signature=secret\r\n", of("abc", 0)), b"");
    fails(&ask(folder.path(), &hub), &["does not let this be read", "redirected to"]);
    nothing_came(folder.path());
}

/// A hub and its store in one, which sends at most `most` bytes at once and continues downloads.
fn honest(most: usize) -> (String, Asked) {
    server(move |stream, path, lines| {
        if !path.starts_with("/store") {
            let head = format!("x-repo-commit: {COMMIT}\r\nx-linked-etag: \"{SHA256}\"\r\nx-linked-size: {}\r\n", WORDS.len());
            _ = stream
                .write_all(format!("HTTP/1.1 302 Found\r\n{head}location: /store/x\r\nconnection: close\r\n\r\n").as_bytes());
            return;
        }
        let range = lines
            .iter()
            .find_map(|line| line.to_lowercase().strip_prefix("range: bytes=")?.strip_suffix('-')?.parse::<usize>().ok());
        let from = range.unwrap_or(0);
        let head = format!(
            "content-length: {}\r\ncontent-range: bytes {from}-{}/{}\r\n",
            WORDS.len() - from,
            WORDS.len() - 1,
            WORDS.len()
        );
        let head = format!("HTTP/1.1 206 Partial Content\r\n{head}connection: close\r\n\r\n");
        let part = &WORDS[from..WORDS.len().min(from.saturating_add(most))];
        std::thread::sleep(Duration::from_millis(300));
        _ = stream.write_all(head.as_bytes()).and_then(|()| stream.write_all(part));
    })
}

#[test]
fn a_download_goes_on_and_its_hash_is_that_of_the_whole() {
    let folder = tempfile::tempdir().unwrap();
    let (hub, asked) = honest(12);
    for _ in 0..2 {
        fails(&ask(folder.path(), &hub), &["continues where it stopped"]);
    }
    let output = ask(folder.path(), &hub);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let asked = asked.lock().unwrap().join("\n").to_lowercase();
    assert!(asked.contains("range: bytes=12-") && asked.contains("range: bytes=24-"), "{asked}");
    let blob = folder.path().join("home/hub/models--someone--vectors/blobs").join(SHA256);
    assert_eq!(fs::read(&blob).unwrap(), WORDS);
    // An earlier part of other content is noticed, and the next try begins again.
    fs::remove_dir_all(folder.path().join("home")).unwrap();
    fs::create_dir_all(blob.parent().unwrap()).unwrap();
    fs::write(blob.with_extension("part"), b"other").unwrap();
    let (hub, _) = honest(usize::MAX);
    fails(&ask(folder.path(), &hub), &["SHA-256"]);
    assert!(ask(folder.path(), &hub).status.success());
    // A part that is a link is not written through.
    #[cfg(unix)]
    {
        fs::remove_dir_all(folder.path().join("home")).unwrap();
        fs::create_dir_all(blob.parent().unwrap()).unwrap();
        fs::write(folder.path().join("mine"), b"mine").unwrap();
        std::os::unix::fs::symlink(folder.path().join("mine"), blob.with_extension("part")).unwrap();
        fails(&ask(folder.path(), &hub), &["this is not a file"]);
        assert_eq!(fs::read(folder.path().join("mine")).unwrap(), b"mine");
    }
}

#[test]
fn two_programs_download_once() {
    let folder = tempfile::tempdir().unwrap();
    let (hub, asked) = honest(usize::MAX);
    let mut both: Vec<_> = (0..4).map(|_| command(folder.path(), &hub, FILE).spawn().unwrap()).collect();
    both.iter_mut().for_each(|child| assert!(child.wait().unwrap().success()));
    let stored = asked.lock().unwrap().iter().filter(|line| line.contains("GET /store")).count();
    assert_eq!(stored, 1, "the others wait for the first");
    let blobs = folder.path().join("home/hub/models--someone--vectors/blobs");
    assert_eq!(fs::read_dir(blobs).unwrap().count(), 1);
}
