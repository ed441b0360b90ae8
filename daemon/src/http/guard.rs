//! Which requests are looked at at all: by the name under which the daemon was called, the page that calls, and the token.
//! Pure.
//!
//! A page in a browser can make any name lead to this machine (DNS rebinding) and then call what listens there. It cannot
//! choose the `Host` and `Origin` that the browser sends, and it has no token.

use std::net::SocketAddr;

use http::header::{AUTHORIZATION, HOST, ORIGIN};
use http::uri::Authority;
use http::{HeaderMap, HeaderValue, Uri};

use super::answer::Refusal;
use super::tokens::PREFIX;
use crate::config::HttpSection;

/// Names under which this machine knows itself.
const OWN_NAMES: [&str; 3] = ["localhost", "127.0.0.1", "[::1]"];

/// Parameters of a URL in which clients of other servers send tokens.
const TOKEN_PARAMETERS: [&str; 5] = ["access_token", "token", "api_key", "apikey", "key"];

/// Who may call, by what the configuration says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Guard {
    hosts: Vec<Name>,
    origins: Vec<Origin>,
}

/// A host, and a port if it has to be that one.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Name {
    host: String,
    port: Option<u16>,
}

/// A page's origin. `port` is what a browser leaves out when it is the scheme's own.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Origin {
    scheme: String,
    host: String,
    port: Option<u16>,
}

impl Guard {
    /// `bound`: where the daemon listens.
    pub(super) fn new(section: &HttpSection, bound: &[SocketAddr]) -> Self {
        let own = OWN_NAMES.iter().map(|name| Name { host: (*name).to_owned(), port: None });
        let addresses = bound.iter().filter(|address| !address.ip().is_unspecified()).map(|address| {
            let host = match address {
                SocketAddr::V4(address) => address.ip().to_string(),
                SocketAddr::V6(address) => format!("[{}]", address.ip()),
            };
            Name { host, port: None }
        });
        let named = section.allowed_hosts.iter().filter_map(|host| parse_host(host));
        Self {
            hosts: own.chain(addresses).chain(named).collect(),
            origins: section.allowed_origins.iter().filter_map(|origin| parse_origin(origin)).collect(),
        }
    }

    /// Whether the daemon was called by a name of its own, from a page that may call, or from none.
    pub(super) fn check_caller(&self, uri: &Uri, headers: &HeaderMap) -> Result<(), Refusal> {
        // A target with a host in it goes before the header, and only proxies need one.
        if uri.authority().is_some() {
            return Err(Refusal::Target);
        }
        let host = only(headers, &HOST).and_then(parse_host).ok_or(Refusal::NoHost)?;
        let is_this =
            |name: &&Name| name.host == host.host && (name.port.is_none() || name.port == host.port);
        if self.hosts.iter().find(is_this).is_none() {
            return Err(Refusal::Host);
        }
        if !headers.contains_key(ORIGIN) {
            return Ok(());
        }
        let origin = only(headers, &ORIGIN).and_then(parse_origin).ok_or(Refusal::Origin)?;
        let is_own =
            ["http", "https"].contains(&origin.scheme.as_str()) && OWN_NAMES.contains(&origin.host.as_str());
        if is_own || self.origins.contains(&origin) { Ok(()) } else { Err(Refusal::Origin) }
    }
}

/// The token that a request brings along, in the one place where it may.
pub(super) fn bearer<'a>(uri: &Uri, headers: &'a HeaderMap) -> Result<&'a [u8], Refusal> {
    if uri.query().is_some_and(has_token) {
        return Err(Refusal::TokenInUrl);
    }
    let mut values = headers.get_all(AUTHORIZATION).iter();
    let (Some(value), None) = (values.next(), values.next()) else { return Err(Refusal::NoToken) };
    let (scheme, token) = value.as_bytes().split_at_checked("Bearer ".len()).ok_or(Refusal::NoToken)?;
    if !scheme.eq_ignore_ascii_case(b"Bearer ") {
        return Err(Refusal::NoToken);
    }
    Ok(token.trim_ascii())
}

/// Whether a URL's parameters hold what belongs into a header: URLs end up in logs and histories.
fn has_token(query: &str) -> bool {
    let named = |pair: &str| {
        let name = pair.split('=').next().unwrap_or_default().to_ascii_lowercase();
        TOKEN_PARAMETERS.contains(&name.as_str())
    };
    query.contains(PREFIX) || query.split('&').any(named)
}

/// The one value of a header.
fn only<'a>(headers: &'a HeaderMap<HeaderValue>, name: &http::HeaderName) -> Option<&'a str> {
    let mut values = headers.get_all(name).iter();
    match (values.next(), values.next()) {
        (Some(value), None) => value.to_str().ok(),
        _ => None,
    }
}

fn parse_host(text: &str) -> Option<Name> {
    let authority = Authority::try_from(text).ok().filter(|authority| !authority.as_str().contains('@'))?;
    // A colon without a number after it is no port that the parser tells.
    let port = authority.port_u16();
    let has_colon = authority.as_str().len() > authority.host().len();
    if authority.host().is_empty() || has_colon != port.is_some() {
        return None;
    }
    Some(Name { host: authority.host().to_ascii_lowercase(), port })
}

fn parse_origin(text: &str) -> Option<Origin> {
    let (scheme, rest) = text.split_once("://")?;
    let scheme = scheme.to_ascii_lowercase();
    let is_scheme = |byte: u8| byte.is_ascii_alphanumeric() || b"+-.".contains(&byte);
    if scheme.is_empty() || !scheme.bytes().all(is_scheme) {
        return None;
    }
    let Name { host, port } = parse_host(rest)?;
    let port = port.filter(|port| !matches!((scheme.as_str(), port), ("http", 80) | ("https", 443)));
    Some(Origin { scheme, host, port })
}

/// # Errors
/// What is wrong with an origin of the configuration.
pub(crate) fn check_origin(text: &str) -> Result<(), String> {
    match parse_origin(text) {
        Some(_) => Ok(()),
        None => {
            Err(format!("`{text}` is no origin such as https://app.example.com or http://192.0.2.1:8080"))
        }
    }
}

/// # Errors
/// What is wrong with a host of the configuration.
pub(crate) fn check_host(text: &str) -> Result<(), String> {
    match parse_host(text) {
        Some(_) => Ok(()),
        None => Err(format!("`{text}` is no host such as conductor.example.com or 192.0.2.1:7780")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn guard() -> Guard {
        let section = HttpSection {
            allowed_hosts: vec!["c.example".into(), "port.example:8443".into()],
            allowed_origins: vec!["https://app.example:443".into(), "http://app.example:8080".into()],
            ..HttpSection::default()
        };
        Guard::new(&section, &["127.0.0.7:80".parse().expect("an address"), "[::]:80".parse().expect("one")])
    }

    fn headers(list: &[(&str, &str)]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for (name, value) in list {
            let name = http::HeaderName::try_from(*name).expect("a name");
            headers.append(name, HeaderValue::from_str(value).expect("a value"));
        }
        headers
    }

    fn outcome(list: &[(&str, &str)]) -> Result<(), Refusal> {
        guard().check_caller(&Uri::from_static("/mcp"), &headers(list))
    }

    #[test]
    fn the_daemon_answers_to_its_own_names_alone() {
        for host in [
            "localhost",
            "LOCALHOST:1",
            "127.0.0.1:7780",
            "[::1]:7780",
            "127.0.0.7",
            "c.example",
            "port.example:8443",
        ] {
            assert_eq!(outcome(&[("host", host)]), Ok(()), "{host}");
        }
        for host in [
            "evil.example",
            "localhost.evil.example",
            "127.0.0.1.evil.example",
            "port.example",
            "port.example:1",
            "127.0.0.2",
            "[::]",
            "0.0.0.0",
        ] {
            assert_eq!(outcome(&[("host", host)]), Err(Refusal::Host), "{host}");
        }
        for host in ["", "localhost:", "localhost:x", "a@localhost", "localhost/", "local host"] {
            assert_eq!(outcome(&[("host", host)]), Err(Refusal::NoHost), "{host}");
        }
        assert_eq!(outcome(&[]), Err(Refusal::NoHost));
        assert_eq!(outcome(&[("host", "localhost"), ("host", "evil.example")]), Err(Refusal::NoHost));
        let absolute = Uri::from_static("http://evil.example/mcp");
        assert_eq!(guard().check_caller(&absolute, &headers(&[("host", "localhost")])), Err(Refusal::Target));
    }

    #[test]
    fn pages_of_this_machine_and_listed_ones_may_call() {
        let with = |origin: &str| outcome(&[("host", "localhost"), ("origin", origin)]);
        for origin in [
            "http://localhost:5173",
            "https://127.0.0.1",
            "http://[::1]:9",
            "https://app.example",
            "http://app.example:8080",
        ] {
            assert_eq!(with(origin), Ok(()), "{origin}");
        }
        for origin in [
            "null",
            "",
            "https://evil.example",
            "http://app.example",
            "https://app.example:8443",
            "file://localhost",
            "http://localhost.evil.example",
            "http://localhost@evil.example",
            "localhost",
        ] {
            assert_eq!(with(origin), Err(Refusal::Origin), "{origin}");
        }
        let twice =
            [("host", "localhost"), ("origin", "http://localhost"), ("origin", "http://evil.example")];
        assert_eq!(outcome(&twice), Err(Refusal::Origin));
    }

    #[test]
    fn a_token_comes_in_its_header_and_nowhere_else() {
        let uri = Uri::from_static("/mcp");
        let bearer = |list: &[(&str, &str)], uri: &Uri| bearer(uri, &headers(list)).map(<[u8]>::to_vec);
        assert_eq!(bearer(&[("authorization", "Bearer abc")], &uri), Ok(b"abc".to_vec()));
        assert_eq!(bearer(&[("authorization", "bearer  abc ")], &uri), Ok(b"abc".to_vec()));
        for value in ["abc", "Basic abc", "Bearer", "Bearerabc"] {
            assert_eq!(bearer(&[("authorization", value)], &uri), Err(Refusal::NoToken), "{value}");
        }
        let twice = [("authorization", "Bearer a"), ("authorization", "Bearer b")];
        assert_eq!(bearer(&twice, &uri), Err(Refusal::NoToken));
        for query in ["/mcp?access_token=abc", "/mcp?a=b&TOKEN=x", "/mcp?x=cnd_abc"] {
            let uri = Uri::from_static(query);
            assert_eq!(bearer(&[("authorization", "Bearer abc")], &uri), Err(Refusal::TokenInUrl), "{query}");
        }
        assert!(bearer(&[("authorization", "Bearer abc")], &Uri::from_static("/mcp?page=2")).is_ok());
    }
}
