//! The servers that a client may use: the given ones first, then those that the cluster told of.
//!
//! - There is at least one and at most `CLIENT_SERVERS_MAX`; none twice.

use super::error::{Error, Result};
use crate::core::limits;
use reqwest::Url;

pub struct Servers {
    given: Vec<Url>,
    learned: Vec<Url>,
    preferred: Url,
}

impl Servers {
    pub fn new<S: AsRef<str>>(servers: &[S]) -> Result<Servers> {
        let mut given = Vec::new();
        for server in servers.iter().take(limits::CLIENT_SERVERS_MAX) {
            let url = parse(server.as_ref())?;
            if !given.contains(&url) {
                given.push(url);
            }
        }
        let preferred = given.first().cloned().ok_or_else(|| Error::BadServer("no server is named".into()))?;
        Ok(Servers { given, learned: Vec::new(), preferred })
    }

    /// Replaces what was learned before; what is no usable URL is left out.
    pub fn learn(&mut self, urls: impl IntoIterator<Item = String>) {
        self.learned.clear();
        for url in urls.into_iter().filter_map(|url| parse(&url).ok()) {
            let room = self.given.len() + self.learned.len() < limits::CLIENT_SERVERS_MAX;
            if room && !self.given.contains(&url) && !self.learned.contains(&url) {
                self.learned.push(url);
            }
        }
    }

    pub fn preferred(&self) -> Url {
        self.preferred.clone()
    }

    pub fn prefer(&mut self, server: &Url) {
        if self.preferred != *server {
            self.preferred = server.clone();
        }
    }

    /// Tries the others first from now on.
    pub fn avoid(&mut self, server: &Url) {
        if self.preferred == *server
            && let Some(next) = self.candidates().into_iter().nth(1)
        {
            self.preferred = next;
        }
    }

    /// All, from the preferred one on and around.
    pub fn candidates(&self) -> Vec<Url> {
        let mut all: Vec<_> = self.given.iter().chain(&self.learned).cloned().collect();
        let at = all.iter().position(|url| *url == self.preferred).unwrap_or(0);
        all.rotate_left(at);
        all
    }
}

/// A server's URL; `host:port` alone is taken for HTTP.
fn parse(server: &str) -> Result<Url> {
    let bad = |why: &str| Error::BadServer(format!("{server:?} is not a server: {why}"));
    let text = if server.contains("://") { server.to_owned() } else { format!("http://{server}") };
    let url = Url::parse(&text).map_err(|error| bad(&error.to_string()))?;
    match (url.scheme(), url.host_str(), url.path()) {
        ("https", ..) => Err(bad("this client speaks plain HTTP; put a TLS proxy's HTTP side here")),
        ("http", Some(_), "/") if url.query().is_none() && url.username().is_empty() => Ok(url),
        ("http", Some(_), _) => Err(bad("only a host and a port belong here")),
        _ => Err(bad("it begins with http://")),
    }
}

/// A server's URL as people write it.
pub fn display(url: &Url) -> String {
    url.as_str().trim_end_matches('/').to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(servers: &Servers) -> Vec<String> {
        servers.candidates().iter().map(display).collect()
    }

    #[test]
    fn the_one_that_answered_comes_first_and_learned_ones_last() {
        let mut servers = Servers::new(&["http://a:1", "b:2/", "http://a:1/"]).unwrap();
        servers.learn(["http://b:2".into(), "http://c:3".into(), "nonsense://".into()]);
        assert_eq!(shown(&servers), ["http://a:1", "http://b:2", "http://c:3"]);
        servers.prefer(&parse("c:3").unwrap());
        assert_eq!(shown(&servers), ["http://c:3", "http://a:1", "http://b:2"]);
        servers.avoid(&parse("c:3").unwrap());
        assert_eq!(shown(&servers), ["http://a:1", "http://b:2", "http://c:3"]);
        servers.learn([]);
        assert_eq!(shown(&servers), ["http://a:1", "http://b:2"]);
        servers.learn((0..1000).map(|at| format!("http://x{at}")));
        assert_eq!(shown(&servers).len(), limits::CLIENT_SERVERS_MAX);
    }

    #[test]
    fn what_is_no_server_is_refused() {
        for bad in ["", "ftp://a", "https://a", "http://", "http://a/path", "http://a?x=1", "http://u@a"] {
            assert!(matches!(Servers::new(&[bad]), Err(Error::BadServer(_))), "{bad:?}");
        }
        assert!(Servers::new::<&str>(&[]).is_err());
    }
}
