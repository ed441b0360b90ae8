//! What the fetching step sees of the user's environment, and what of it a worker may know.
//!
//! The step that fetches gets proxies, certificates and the user's npm configuration with its tokens. A worker gets the
//! addresses of the registries alone: Deno keeps packages under them and would otherwise look in the wrong place.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fmt;
use std::path::{Path, PathBuf};

use url::Url;

/// Names that are passed on as they are. Proxies are spelled in both cases.
const PASSED: &[&str] = &[
    "http_proxy",
    "https_proxy",
    "no_proxy",
    "all_proxy",
    "HTTP_PROXY",
    "HTTPS_PROXY",
    "NO_PROXY",
    "ALL_PROXY",
    "SSL_CERT_FILE",
    "SSL_CERT_DIR",
    "NODE_EXTRA_CA_CERTS",
    "DENO_CERT",
    "DENO_TLS_CA_STORE",
    "JSR_URL",
];

/// Both the built-in and the system's certificates: companies install their own in the system.
const CA_STORES: &str = "system,mozilla";

const JSR_URL: &str = "https://jsr.io/";

/// The part of an environment that fetching needs. Its `Debug` names variables, never values: there may be tokens.
#[derive(Clone, Default)]
pub struct FetchEnvironment {
    vars: BTreeMap<String, OsString>,
    npmrc: Option<PathBuf>,
}

/// The registries' addresses, without user names, passwords and tokens.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, serde::Serialize, serde::Deserialize)]
pub(crate) struct Registries {
    /// `NPM_CONFIG_REGISTRY`, if set.
    pub(crate) npm: Option<String>,
    /// `JSR_URL`, if set.
    pub(crate) jsr: Option<String>,
    /// Lines for an `.npmrc` that name registries.
    pub(crate) npmrc: Vec<String>,
}

impl FetchEnvironment {
    /// Takes what is needed from this process's environment.
    pub fn from_env() -> Self {
        Self::new(std::env::vars_os().filter_map(|(name, value)| Some((name.into_string().ok()?, value))))
    }

    /// Takes what is needed from `vars`. `HOME` says where the `.npmrc` is, unless `NPM_CONFIG_USERCONFIG` does.
    pub fn new(vars: impl IntoIterator<Item = (String, OsString)>) -> Self {
        let all: BTreeMap<String, OsString> = vars.into_iter().collect();
        let npmrc = all
            .get("NPM_CONFIG_USERCONFIG")
            .or_else(|| all.get("npm_config_userconfig"))
            .map(PathBuf::from)
            .or_else(|| Some(Path::new(all.get("HOME")?).join(".npmrc")))
            .filter(|path| path.is_absolute() && path.is_file());
        let text = npmrc.as_deref().and_then(|path| std::fs::read_to_string(path).ok()).unwrap_or_default();
        let named = variables_in(&text);
        let mut vars: BTreeMap<String, OsString> =
            all.into_iter().filter(|(name, _)| is_passed(name) || named.contains(&name.as_str())).collect();
        vars.entry("DENO_TLS_CA_STORE".to_owned()).or_insert_with(|| CA_STORES.into());
        Self { vars, npmrc }
    }

    pub(crate) fn vars(&self) -> impl Iterator<Item = (&String, &OsString)> {
        self.vars.iter()
    }

    /// The user's `.npmrc`.
    pub(crate) fn npmrc(&self) -> Option<&Path> {
        self.npmrc.as_deref()
    }

    /// Reads the registries' addresses. The `.npmrc` may have changed since the last time.
    pub(crate) fn registries(&self) -> Registries {
        let text = self.npmrc().and_then(|path| std::fs::read_to_string(path).ok()).unwrap_or_default();
        let address = |name: &str| self.vars.get(name)?.to_str().and_then(without_secrets);
        Registries {
            npm: address("NPM_CONFIG_REGISTRY"),
            jsr: address("JSR_URL"),
            npmrc: self.registry_lines(&text),
        }
    }

    fn registry_lines(&self, npmrc: &str) -> Vec<String> {
        let settings = npmrc.lines().filter(|line| !line.trim_start().starts_with(['#', ';']));
        let pairs = settings.filter_map(|line| line.split_once('='));
        let registries = pairs.map(|(key, value)| (key.trim(), value.trim().trim_matches('"')));
        registries
            .filter(|(key, _)| *key == "registry" || (key.starts_with('@') && key.ends_with(":registry")))
            .filter_map(|(key, value)| Some(format!("{key}={}", without_secrets(&self.expand(value))?)))
            .collect()
    }

    fn expand(&self, value: &str) -> String {
        variables_in(value).into_iter().fold(value.to_owned(), |value, name| {
            let known = self.vars.get(name).and_then(|known| known.to_str()).unwrap_or_default();
            value.replace(&format!("${{{name}}}"), known)
        })
    }
}

impl fmt::Debug for FetchEnvironment {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("FetchEnvironment")
            .field("vars", &self.vars.keys())
            .field("npmrc", &self.npmrc)
            .finish()
    }
}

impl Registries {
    /// Host and port from which packages of jsr come, in the form of `--allow-import`.
    pub(crate) fn jsr_host(&self) -> String {
        let url = self.jsr.as_deref().and_then(|jsr| Url::parse(jsr).ok());
        let url = url.unwrap_or_else(|| Url::parse(JSR_URL).expect("a constant address"));
        format!("{}:{}", url.host_str().unwrap_or_default(), url.port_or_known_default().unwrap_or(443))
    }

    /// Variables with which a worker finds the packages.
    pub(crate) fn worker_env(&self) -> Vec<(String, String)> {
        let npm = self.npm.clone().map(|npm| ("NPM_CONFIG_REGISTRY".to_owned(), npm));
        npm.into_iter().chain(self.jsr.clone().map(|jsr| ("JSR_URL".to_owned(), jsr))).collect()
    }
}

fn is_passed(name: &str) -> bool {
    PASSED.contains(&name) || name.get(..11).is_some_and(|start| start.eq_ignore_ascii_case("npm_config_"))
}

/// The names in `${NAME}`.
fn variables_in(text: &str) -> Vec<&str> {
    text.split("${").skip(1).filter_map(|rest| Some(rest.split_once('}')?.0)).collect()
}

/// An address without user and password; `None` when it is none.
fn without_secrets(address: &str) -> Option<String> {
    let mut url = Url::parse(address).ok().filter(|url| matches!(url.scheme(), "http" | "https"))?;
    url.set_username("").ok()?;
    url.set_password(None).ok()?;
    url.set_query(None);
    url.set_fragment(None);
    // Deno names directories after the address; a slash that was not there would be another one.
    let text = url.to_string();
    Some(if url.path() == "/" && !address.ends_with('/') {
        text.trim_end_matches('/').to_owned()
    } else {
        text
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn vars(vars: &[(&str, &str)]) -> impl Iterator<Item = (String, OsString)> {
        vars.iter().map(|(name, value)| ((*name).to_owned(), OsString::from(value)))
    }

    #[test]
    fn takes_what_fetching_needs_and_nothing_else() {
        let environment = FetchEnvironment::new(vars(&[
            ("HTTPS_PROXY", "http://p"),
            ("npm_config_registry", "x"),
            ("NPM_CONFIG_REGISTRY", "https://r.example/"),
            ("LD_PRELOAD", "x"),
            ("DENO_AUTH_TOKENS", "x"),
            ("NODE_OPTIONS", "x"),
            ("AWS_SECRET", "x"),
            ("PATH", "/bin"),
            ("JSR_URL", "http://127.0.0.1:1/"),
            ("DENO_V8_FLAGS", "x"),
            ("SSL_CERT_FILE", "/c"),
        ]));
        let names: Vec<&str> = environment.vars().map(|(name, _)| name.as_str()).collect();
        assert_eq!(
            names,
            [
                "DENO_TLS_CA_STORE",
                "HTTPS_PROXY",
                "JSR_URL",
                "NPM_CONFIG_REGISTRY",
                "SSL_CERT_FILE",
                "npm_config_registry"
            ]
        );
        assert_eq!(environment.registries().jsr_host(), "127.0.0.1:1");
        assert_eq!(FetchEnvironment::default().registries().jsr_host(), "jsr.io:443");
    }

    #[test]
    fn a_worker_learns_addresses_and_no_secret() {
        let home = tempfile::tempdir().unwrap();
        std::fs::write(
            home.path().join(".npmrc"),
            "registry=https://user:pw@r.example/npm/?t=secret\n; registry=https://no.example\n@acme:registry = \"${ACME}\"\n//r.example/npm/:_authToken=${TOKEN}\n_auth=abc\n",
        )
        .unwrap();
        let environment = FetchEnvironment::new(vars(&[
            ("HOME", home.path().to_str().unwrap()),
            ("TOKEN", "hunter2"),
            ("ACME", "https://acme.example/"),
            ("OTHER", "x"),
        ]));
        assert_eq!(environment.vars["TOKEN"], "hunter2");
        assert!(!environment.vars.contains_key("OTHER") && !environment.vars.contains_key("HOME"));
        assert!(!format!("{environment:?}").contains("hunter2"));
        let registries = environment.registries();
        assert_eq!(
            registries.npmrc,
            ["registry=https://r.example/npm/", "@acme:registry=https://acme.example/"]
        );
        assert!(!format!("{registries:?}").contains("pw"));
    }
}
