//! HTTP, as a running daemon has it: whether it listens, how far and how it is encrypted, and who may call.

use std::fs;
use std::net::SocketAddr;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;
use std::time::{Duration, SystemTime};

use conductor_protocol::status::{CertificateStatus, HttpStatus};

use super::super::paint::{day, span};
use super::Check;

const NAME: &str = "http";
const CERTIFICATE: &str = "certificate";
const TOKENS: &str = "http tokens";

/// Whoever renews by hand wants to know in time; certificates that renew themselves are younger.
const RENEW_WITHIN: Duration = Duration::from_secs(14 * 24 * 60 * 60);

pub(super) fn checks(http: &HttpStatus) -> Vec<Check> {
    let now = SystemTime::UNIX_EPOCH.elapsed().unwrap_or_default().as_secs();
    let listens = listening(http);
    let certificate = http.certificate.as_ref().map(|certificate| validity(certificate, now));
    let tokens =
        (http.enabled || !http.tokens.is_empty() || http.tokens_error.is_some()).then(|| tokens(http));
    std::iter::once(listens).chain(certificate).chain(tokens.into_iter().flatten()).collect()
}

fn listening(http: &HttpStatus) -> Check {
    if !http.enabled {
        return Check::ok(
            NAME,
            "off; `enabled = true` in [http] of the configuration lets agents call over HTTP",
        );
    }
    let urls = http.urls.join(", ");
    if let Some(error) = &http.error {
        let check = Check::fail_in_words(NAME, error);
        let text = if urls.is_empty() { check.text } else { format!("{urls}: {}", check.text) };
        let fix =
            check.fix.or_else(|| Some("repair [http] of the configuration: conductorctl config edit".into()));
        return Check { text, fix, ..check };
    }
    let remote = http.urls.iter().find(|url| is_remote(url));
    match (remote, &http.certificate) {
        (None, None) => Check::ok(NAME, format!("{urls}, for this machine alone, without TLS")),
        (None, Some(_)) => Check::ok(NAME, format!("{urls}, for this machine alone, with TLS")),
        (Some(_), Some(_)) => Check::ok(NAME, format!("{urls}, for other machines too, with TLS")),
        (Some(url), None) => {
            let reason = http.plaintext_because.as_deref().unwrap_or("no reason is given");
            let text = format!(
                "{urls}: other machines reach {url}, and tokens go there unencrypted, because: {reason}"
            );
            Check::warn(NAME, text, "make sure that this holds, or set `tls-cert` and `tls-key` in [http]")
        }
    }
}

/// Whether other machines can come to a URL of the daemon.
fn is_remote(url: &str) -> bool {
    let address = url.split_once("://").and_then(|(_, rest)| rest.split('/').next());
    let address: Option<SocketAddr> = address.and_then(|address| address.parse().ok());
    address.is_none_or(|address| !address.ip().is_loopback())
}

fn validity(certificate: &CertificateStatus, now: u64) -> Check {
    let path = &certificate.path;
    let renew = format!("renew {path} and its key; the daemon takes them by itself");
    if let Some(not_before) = certificate.not_before.filter(|not_before| *not_before > now) {
        let text = format!("{path} is good from {} on: every client refuses it", day(not_before));
        return Check::fail(CERTIFICATE, text, "set the clock right, or take the certificate before");
    }
    match certificate.not_after {
        None => Check::ok(CERTIFICATE, format!("{path}; until when it is good cannot be told")),
        Some(not_after) if not_after < now => Check::fail(
            CERTIFICATE,
            format!("{path} was good until {}: every client refuses it", day(not_after)),
            renew,
        ),
        Some(not_after) if not_after - now < RENEW_WITHIN.as_secs() => {
            let left = span((not_after - now) * 1000);
            Check::warn(CERTIFICATE, format!("{path} is good until {}, {left} more", day(not_after)), renew)
        }
        Some(not_after) => Check::ok(CERTIFICATE, format!("{path}, good until {}", day(not_after))),
    }
}

fn tokens(http: &HttpStatus) -> Vec<Check> {
    let useless = http.tokens.iter().filter_map(|token| {
        let check = Check::fail_in_words(TOKENS, token.problem.as_ref()?);
        let fix = check.fix.iter().map(|fix| format!("{fix}; or "));
        let fix = fix.chain([format!("conductorctl token revoke {}", token.name)]).collect();
        Some(Check { text: format!("{}: {}", token.name, check.text), fix: Some(fix), ..check })
    });
    std::iter::once(list(http)).chain(useless).collect()
}

/// The list of tokens as a whole. The mode is that of the file now; the daemon has read it some time before.
fn list(http: &HttpStatus) -> Check {
    if let Some(error) = &http.tokens_error {
        return Check::fail_in_words(TOKENS, error);
    }
    let path = Path::new(&http.tokens_file);
    let mode = fs::metadata(path).map(|meta| meta.mode() & 0o777).ok();
    let names: Vec<String> =
        http.tokens.iter().map(|token| format!("{} (profile {})", token.name, token.profile)).collect();
    match mode {
        Some(mode) if mode & 0o077 != 0 => {
            let text = format!("{} (mode {mode:03o}) can be read or written by others", path.display());
            Check::fail(
                TOKENS,
                text,
                format!("chmod 600 {}, before the daemon reads it again and lets nobody in", path.display()),
            )
        }
        _ if names.is_empty() => {
            Check::warn(TOKENS, "nobody has a token, so nobody can call", "conductorctl token add NAME")
        }
        _ => {
            let mode = mode.map(|mode| format!("; {}, mode {mode:03o}", path.display())).unwrap_or_default();
            Check::ok(TOKENS, format!("{}: {}{mode}", names.len(), names.join(", ")))
        }
    }
}

#[cfg(test)]
mod tests {
    use conductor_protocol::status::TokenStatus;

    use super::super::Verdict;
    use super::*;

    fn on(url: &str) -> HttpStatus {
        HttpStatus { enabled: true, urls: vec![url.into()], ..HttpStatus::default() }
    }

    fn said(checks: &[Check]) -> Vec<(&'static str, Verdict)> {
        checks.iter().map(|check| (check.name, check.verdict)).collect()
    }

    #[test]
    fn how_far_the_daemon_can_be_reached_is_judged_by_its_encryption() {
        assert_eq!(said(&checks(&HttpStatus::default())), [(NAME, Verdict::Ok)], "off, and no tokens");
        for url in ["http://127.0.0.1:7780/mcp", "http://[::1]:7780/mcp"] {
            assert_eq!(listening(&on(url)).verdict, Verdict::Ok, "{url}");
        }
        for url in ["http://0.0.0.0:7780/mcp", "http://[::]:7780/mcp", "http://10.0.0.1:7780/mcp"] {
            let reason = Some("a proxy has it".to_owned());
            let check = listening(&HttpStatus { plaintext_because: reason, ..on(url) });
            assert_eq!(check.verdict, Verdict::Warn, "{url}");
            assert!(
                check.text.contains("a proxy has it")
                    && check.fix.is_some_and(|fix| fix.contains("tls-cert"))
            );
            let certificate = Some(CertificateStatus::default());
            assert_eq!(listening(&HttpStatus { certificate, ..on(url) }).verdict, Verdict::Ok, "{url}");
        }
        let error = Some("cannot listen on x\nhint: set `listen`".to_owned());
        let check = listening(&HttpStatus { enabled: true, error, ..HttpStatus::default() });
        assert_eq!((check.verdict, check.fix.as_deref()), (Verdict::Fail, Some("set `listen`")));
    }

    #[test]
    fn a_certificate_is_told_in_time() {
        let now = 1_800_000_000;
        let days = |n: u64| n * 24 * 60 * 60;
        for (not_before, not_after, verdict, says) in [
            (now - 1, now + days(90), Verdict::Ok, "good until 2027-04-15"),
            (now - 1, now + days(13), Verdict::Warn, "13days more"),
            (now - 1, now - 1, Verdict::Fail, "was good until 2027-01-15"),
            (now + 1, now + days(90), Verdict::Fail, "is good from 2027-01-15"),
        ] {
            let (not_before, not_after) = (Some(not_before), Some(not_after));
            let check = validity(&CertificateStatus { path: "/c".into(), not_before, not_after }, now);
            assert_eq!(check.verdict, verdict, "{check:?}");
            assert!(
                check.text.contains(says) && check.fix.is_some() != (verdict == Verdict::Ok),
                "{check:?}"
            );
        }
    }

    #[test]
    fn tokens_that_are_good_for_nothing_are_told_with_the_cure() {
        let token = |problem: Option<&str>| TokenStatus {
            name: "laptop".into(),
            profile: "p".into(),
            problem: problem.map(Into::into),
            ..TokenStatus::default()
        };
        let with = |token| HttpStatus { tokens: vec![token], ..on("http://127.0.0.1:1/mcp") };
        let checks = tokens(&with(token(None)));
        assert_eq!(said(&checks), [(TOKENS, Verdict::Ok)]);
        assert_eq!(checks[0].text, "1: laptop (profile p)");
        let checks = tokens(&with(token(Some("refused\nhint: offer it"))));
        assert_eq!(said(&checks), [(TOKENS, Verdict::Ok), (TOKENS, Verdict::Fail)]);
        let fix = checks[1].fix.as_deref();
        assert_eq!(fix, Some("offer it; or conductorctl token revoke laptop"));
        let nobody = list(&on("http://127.0.0.1:1/mcp"));
        assert_eq!(
            (nobody.verdict, nobody.fix.as_deref()),
            (Verdict::Warn, Some("conductorctl token add NAME"))
        );
    }

    #[test]
    fn the_list_of_tokens_is_for_the_user_alone() {
        use std::os::unix::fs::PermissionsExt as _;
        let file = tempfile::NamedTempFile::new().expect("a file");
        let tokens_file = file.path().display().to_string();
        let status = || HttpStatus {
            tokens_file: tokens_file.clone(),
            tokens: vec![TokenStatus { name: "a".into(), ..TokenStatus::default() }],
            ..on("http://127.0.0.1:1/mcp")
        };
        assert!(list(&status()).text.ends_with("mode 600"));
        fs::set_permissions(file.path(), fs::Permissions::from_mode(0o644)).expect("sets the mode");
        let check = list(&status());
        assert_eq!(check.verdict, Verdict::Fail);
        assert!(check.fix.is_some_and(|fix| fix.starts_with("chmod 600 /")), "{}", check.text);
        let error = Some("the list of tokens is not\nhint: chmod 600 it".to_owned());
        assert_eq!(
            list(&HttpStatus { tokens_error: error, ..status() }).fix.as_deref(),
            Some("chmod 600 it")
        );
    }
}
