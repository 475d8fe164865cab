//! The server: its address, the user's token, and where it may redirect. `answer` checks its answers.

use std::env;
use std::path::Path;
use std::time::Duration;

use ctk_core::{Context, Error, Result};
use ureq::http::{Response, Uri};
use ureq::{Agent, Body};

use crate::answer::Told;
use crate::remote::Remote;

const HUB: &str = "https://huggingface.co";
/// The largest number of redirects.
const HOPS: usize = 10;
/// The default number of seconds that a server may be silent.
const SILENCE: u64 = 30;

/// The server that the user named, and how it is asked.
pub(crate) struct Server {
    agent: Agent,
    base: Uri,
    named: bool,
    token: Option<String>,
    /// How long a server may send nothing.
    pub silence: Duration,
}

/// An answer and its checked headers.
pub(crate) struct Answer {
    pub told: Told,
    pub status: u16,
    pub body: Body,
}

impl Server {
    /// The server of the environment: `HF_ENDPOINT`, `HF_TOKEN` or the file `token` in `home`, `HF_HUB_DOWNLOAD_TIMEOUT`.
    ///
    /// # Errors
    /// An invalid value; the message does not show it, because it may contain a password.
    pub fn from_env(home: Option<&Path>) -> Result<Server> {
        let named = set("HF_ENDPOINT");
        let base = endpoint(named.as_deref().unwrap_or(HUB))?;
        let stored = || std::fs::read_to_string(home?.join("token")).ok();
        let token = set("HF_TOKEN").or_else(stored).map(|token| token.trim().to_string()).filter(|token| !token.is_empty());
        if token.as_ref().is_some_and(|token| !token.bytes().all(|byte| byte.is_ascii_graphic())) {
            return Err(Error::usage("the hub's token holds characters that no token has")
                .hint("see HF_TOKEN, or log in to the hub again"));
        }
        let seconds =
            set("HF_HUB_DOWNLOAD_TIMEOUT").map(|text| text.trim().parse::<u64>().ok().filter(|&s| (1..=86_400).contains(&s)));
        let seconds =
            seconds.map(|s| s.ok_or_else(|| Error::usage("HF_HUB_DOWNLOAD_TIMEOUT is not a number of seconds").hint("write 30")));
        let silence = Duration::from_secs(seconds.transpose()?.unwrap_or(SILENCE));
        let agent = Agent::config_builder()
            .http_status_as_error(false)
            .max_redirects(0)
            .max_redirects_will_error(false)
            .timeout_resolve(Some(silence))
            .timeout_connect(Some(silence))
            .timeout_send_request(Some(silence))
            .timeout_recv_response(Some(silence))
            .timeout_per_read(Some(silence))
            .user_agent(concat!("ctk/", env!("CARGO_PKG_VERSION")))
            .accept_encoding("identity")
            .build();
        Ok(Server { agent: agent.into(), base, named: named.is_some(), token, silence })
    }

    /// Requests `file` and follows redirects. `told` gets each answer that names a commit, and returns the first byte of the file that is
    /// wanted, or none if the file is not wanted any more. Returns none if the hub has no such file, or if it is not wanted any more.
    ///
    /// # Errors
    /// No answer in time, a redirect that may not be followed, or an answer that is not a hub's.
    pub fn ask(&self, file: &Remote, mut told: impl FnMut(&Told) -> Result<Option<u64>>) -> Result<Option<Answer>> {
        let base = self.base.path().trim_end_matches('/');
        let mut at = address(&self.base, &format!("{base}/{}", file.address()))?;
        let mut from = 0;
        let mut known = false;
        for _ in 0..=HOPS {
            let answer = self.get(&at, from)?;
            let own = origin(&at) == origin(&self.base);
            let place = if own { self.asked() } else { format!(" (redirected to {})", shown(&at)) };
            let moved = matches!(answer.status, 301 | 302 | 303 | 307 | 308);
            if !known && answer.told.commit.is_some() && (moved || answer.status == 200 || answer.status == 206) {
                match told(&answer.told)? {
                    Some(start) => (known, from) = (true, start),
                    None => return Ok(None),
                }
            }
            match answer.status {
                _ if moved => at = self.sent_on(&at, answer.told.location.as_deref())?,
                200 | 206 if !known => {
                    return Err(Error::new(format!("the server{place} is not a hub: it does not name the file's commit"))
                        .hint("check HF_ENDPOINT, and whether a proxy or a login page answers instead"));
                }
                200 | 206 => return Ok(Some(answer)),
                404 | 410 if own && !known => return Ok(None),
                401 | 403 => return Err(self.refused(&place, own)),
                429 => {
                    return Err(
                        Error::new(format!("the hub{place} was asked too often (status 429)")).hint("try again in some minutes")
                    );
                }
                status @ 500..=599 => {
                    return Err(Error::new(format!("the hub{place} fails (status {status})")).hint("try again later"));
                }
                status => {
                    return Err(Error::new(format!("the hub{place} answers with status {status}, not with the file"))
                        .hint("see HF_ENDPOINT"));
                }
            }
        }
        Err(Error::new(format!("the hub{} redirects more than {HOPS} times", self.asked())).hint("see HF_ENDPOINT"))
    }

    fn get(&self, at: &Uri, from: u64) -> Result<Answer> {
        let mut request = self.agent.get(at);
        if from > 0 {
            request = request.header("range", format!("bytes={from}-"));
        }
        // The token is only for the server that the user named, not for servers that it redirects to.
        if let Some(token) = self.token.as_ref().filter(|_| origin(at) == origin(&self.base) && self.private()) {
            request = request.header("authorization", format!("Bearer {token}"));
        }
        let response: Response<Body> = request.call().map_err(|e| self.unanswered(at, e))?;
        let headers: Vec<(&str, &[u8])> =
            response.headers().iter().map(|(name, value)| (name.as_str(), value.as_bytes())).collect();
        let told = Told::of(&headers).map_err(|e| e.at(shown(at)))?;
        Ok(Answer { told, status: response.status().as_u16(), body: response.into_body() })
    }

    /// Whether nothing that is sent can be read on the way: by TLS, or because it stays on this machine.
    fn private(&self) -> bool {
        let host = self.base.host().unwrap_or("").trim_matches(['[', ']']);
        let here = host == "localhost" || host.parse::<std::net::IpAddr>().is_ok_and(|ip| ip.is_loopback());
        self.base.scheme_str() == Some("https") || here
    }

    /// The address that an answer of `from` redirects to.
    fn sent_on(&self, from: &Uri, location: Option<&str>) -> Result<Uri> {
        let wrong =
            |what: &str| Error::new(format!("the hub{} redirects {what}", self.asked())).at(shown(from)).hint("see HF_ENDPOINT");
        let location = location.ok_or_else(|| wrong("without saying to where"))?;
        let location = location.split('#').next().unwrap_or("");
        let scheme = from.scheme_str().unwrap_or("https");
        let to = if location.starts_with("//") {
            format!("{scheme}:{location}").parse().map_err(|_| wrong("to something that is not an address"))?
        } else if location.starts_with('/') {
            address(from, location)?
        } else if let Some((scheme, _)) = location.split_once("://") {
            if !["http", "https"].iter().any(|known| scheme.eq_ignore_ascii_case(known)) {
                return Err(wrong("to something that is not a web address"));
            }
            location.parse::<Uri>().map_err(|_| wrong("to something that is not an address"))?
        } else {
            let folder = from.path().rsplit_once('/').map_or("", |(folder, _)| folder);
            address(from, &format!("{folder}/{location}"))?
        };
        let same = origin(&to) == origin(from);
        match (from.scheme_str(), to.scheme_str()) {
            (Some("https"), Some("http")) => return Err(wrong(&format!("from https to plain http, to {}", shown(&to)))),
            (_, Some("http" | "https")) if to.host().is_some_and(|host| !host.is_empty()) => {}
            _ => return Err(wrong("to something that is not a web address")),
        }
        if !same && to.authority().is_some_and(|authority| authority.as_str().contains('@')) {
            return Err(wrong("to an address with a name or a password in it"));
        }
        // Credentials in HF_ENDPOINT are sent only to its server.
        if origin(&to) == origin(&self.base) {
            address(&self.base, to.path_and_query().map_or("/", |path| path.as_str()))
        } else {
            Ok(to)
        }
    }

    /// The server that was asked, if it is not the hub itself.
    pub fn asked(&self) -> String {
        if self.named { format!(" at {}{}", shown(&self.base), self.base.path().trim_end_matches('/')) } else { String::new() }
    }

    /// The error if the hub has no such file.
    pub fn none(&self) -> Error {
        Error::usage(format!("the hub{} has no such file, repository or revision", self.asked()))
            .hint("names are exact, also in upper and lower case; a revision is a branch, a tag or a commit")
    }

    fn refused(&self, place: &str, own: bool) -> Error {
        let error = Error::new(format!("the hub{place} does not let this be read"));
        match (&self.token, own) {
            (Some(_), true) if !self.private() => {
                error.hint("the token was not sent, because HF_ENDPOINT is plain http, which others can read: use https")
            }
            _ => error.hint("the repository is private, gated or not there: see its name, or set HF_TOKEN"),
        }
    }

    /// Why there was no answer. The library's own message may contain an address with a password or a signature, so it is not shown.
    fn unanswered(&self, at: &Uri, error: ureq::Error) -> Error {
        let from = if origin(at) == origin(&self.base) { self.asked() } else { format!(" from {}", shown(at)) };
        let why = match &error {
            ureq::Error::Io(e) if e.kind() != std::io::ErrorKind::Other => e.to_string(),
            ureq::Error::Timeout(_) => return self.silent(&from),
            ureq::Error::HostNotFound => "there is no such server".to_string(),
            ureq::Error::Rustls(e) => format!("the connection is not safe: {e}"),
            ureq::Error::LargeResponseHeader(..) => "the answer begins with more headers than any should have".to_string(),
            ureq::Error::Protocol(_) | ureq::Error::Http(_) => "the answer is not HTTP".to_string(),
            ureq::Error::InvalidProxyUrl | ureq::Error::ConnectProxyFailed(_) => "the proxy does not let it through".to_string(),
            _ => "the connection failed".to_string(),
        };
        Error::new(format!("cannot be downloaded{from}: {why}"))
            .hint("is there a network connection? HF_ENDPOINT names another server, HF_HUB_OFFLINE=1 uses only the cache")
    }

    fn silent(&self, from: &str) -> Error {
        Error::new(format!("cannot be downloaded{from}: no answer within {} s", self.silence.as_secs()))
            .hint("try again later; HF_HUB_DOWNLOAD_TIMEOUT is how many seconds a server may be silent")
    }
}

/// The value of an environment variable that is set and not empty.
pub(crate) fn set(name: &str) -> Option<String> {
    env::var(name).ok().filter(|value| !value.trim().is_empty())
}

/// The address in `HF_ENDPOINT`.
fn endpoint(text: &str) -> Result<Uri> {
    let wrong = |what: &str| Error::usage(format!("HF_ENDPOINT {what}")).hint(format!("write an address like {HUB}"));
    let uri: Uri = text.trim().parse().map_err(|_| wrong("is not an address"))?;
    match uri.scheme_str() {
        Some("http" | "https") if uri.host().is_some_and(|host| !host.is_empty()) => {}
        _ => return Err(wrong("begins neither with https:// nor with http://")),
    }
    if uri.query().is_some() || text.contains('#') { Err(wrong("has a `?` or a `#`")) } else { Ok(uri) }
}

/// The address of `path` on the server of `base`.
fn address(base: &Uri, path: &str) -> Result<Uri> {
    let mut parts = base.clone().into_parts();
    parts.path_and_query = Some(path.parse().map_err(|_| Error::new("this address is none").at(shown(base)))?);
    Uri::from_parts(parts).map_err(Error::new).at(shown(base))
}

/// What identifies a server: scheme, host and port.
fn origin(uri: &Uri) -> (Option<&str>, String, u16) {
    let scheme = uri.scheme_str();
    let port = uri.port_u16().unwrap_or(if scheme == Some("http") { 80 } else { 443 });
    (scheme, uri.host().unwrap_or("").to_ascii_lowercase(), port)
}

/// A server as messages show it: without user name, password, path and signature.
fn shown(uri: &Uri) -> String {
    let port = uri.port_u16().map_or(String::new(), |port| format!(":{port}"));
    format!("{}://{}{port}", uri.scheme_str().unwrap_or("https"), uri.host().unwrap_or(""))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn server(base: &str) -> Server {
        let agent: Agent = Agent::config_builder().build().into();
        Server { agent, base: endpoint(base).unwrap(), named: true, token: None, silence: Duration::from_secs(1) }
    }

    #[test]
    fn an_answer_may_send_on_but_not_everywhere() {
        let hub = server("https://me:secret@hub.example/base");
        let from: Uri = "https://hub.example/base/a/b/resolve/main/c".parse().unwrap();
        let to = |location: &str| hub.sent_on(&from, Some(location)).map(|uri| uri.to_string());
        assert_eq!(to("/x?y=1#z").unwrap(), "https://me:secret@hub.example/x?y=1");
        assert_eq!(to("https://HUB.example:443/x").unwrap(), "https://me:secret@hub.example/x");
        assert_eq!(to("d").unwrap(), "https://me:secret@hub.example/base/a/b/resolve/main/d");
        assert_eq!(to("//cdn.example/x").unwrap(), "https://cdn.example/x");
        assert_eq!(to("https://cdn.example/x").unwrap(), "https://cdn.example/x");
        for (location, why) in [
            ("http://hub.example/x", "from https to plain http"),
            ("http://127.0.0.1/x", "from https to plain http"),
            ("file:///etc/passwd", "not a web address"),
            ("ftp://cdn.example/x", "not a web address"),
            ("https://a:b@cdn.example/x", "a name or a password"),
            ("https://hub.example@cdn.example/x", "a name or a password"),
            ("https://", "not an address"),
        ] {
            let error = to(location).unwrap_err().to_string();
            assert!(error.contains(why) && error.contains("hint: ") && !error.contains("secret"), "{location}: {error}");
        }
        assert!(hub.sent_on(&from, None).unwrap_err().to_string().contains("without saying to where"));
        assert_eq!(hub.asked(), " at https://hub.example/base");
    }

    #[test]
    fn an_address_of_a_server_is_checked_and_not_told() {
        for text in [
            "me:secret@hub",
            "ftp://me:secret@hub",
            "https://",
            "http:///x",
            "https://me:secret@hub/?a=b",
            "https://me:secret@hub#a",
            "a b",
        ] {
            let error = endpoint(text).unwrap_err();
            assert!(error.exit_code() == 2 && error.to_string().contains("HF_ENDPOINT"), "{text}: {error}");
            assert!(!error.to_string().contains("secret"), "{text}: {error}");
        }
    }

    #[test]
    fn a_token_goes_where_nobody_reads_it_on_the_way() {
        for (base, private) in [
            ("https://hub.example", true),
            ("http://127.0.0.1:80", true),
            ("http://localhost:8080", true),
            ("http://[::1]:8080", true),
            ("http://hub.example", false),
            ("http://localhost.example", false),
            ("http://127.0.0.1.example", false),
        ] {
            assert_eq!(server(base).private(), private, "{base}");
        }
    }
}
