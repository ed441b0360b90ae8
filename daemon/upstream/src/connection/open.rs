//! From a configuration to a server that is ready: the process or the HTTP connection, and the handshake.
//!
//! Servers of both eras are met: `server/discover` first, `initialize` if that is refused. A server that ignores the first
//! costs ten seconds, so the era is remembered. What was remembered may be wrong, and some old servers end when they are
//! asked something unknown; then the other way is tried once with a fresh connection.

use std::collections::{BTreeMap, HashMap};
use std::env;
use std::ffi::{OsStr, OsString};
use std::path::{Path, PathBuf};
use std::process::ExitStatus;
use std::sync::Arc;
use std::time::Duration;

use http::{HeaderMap, HeaderName, HeaderValue};
use reqwest::Client;
use rmcp::RoleClient;
use rmcp::model::ProtocolVersion;
use rmcp::service::{ClientInitializeError, ClientLifecycleMode, ClientServiceExt as _, RunningService};
use rmcp::transport::streamable_http_client::StreamableHttpClientTransportConfig;
use rmcp::transport::{StreamableHttpClientTransport, Transport};
use serde::{Deserialize, Serialize};
use tokio::task::JoinHandle;
use tokio::time::{Instant, timeout, timeout_at};

use crate::auth::Authority;
use crate::command::{Found, Paths};
use crate::config::{Endpoint, Remote, Stdio};
use crate::connection::client::Answers;
use crate::connection::request::chain;
use crate::log::{LogRing, LogSource};
use crate::process::{self, Launch, Pipes, ServerProcess, describe, new_mark};
use crate::transport::http::Http;
use crate::transport::ledger::{Ledger, Notice};
use crate::transport::sse::Sse;
use crate::transport::{Tapped, stdio};

/// Variables of our own environment that every server gets: who the user is, where files are, how text is written.
const PASSED_VARIABLES: [&str; 16] = [
    "HOME",
    "LANG",
    "LANGUAGE",
    "LOGNAME",
    "SHELL",
    "TERM",
    "TMPDIR",
    "TZ",
    "USER",
    "XDG_CACHE_HOME",
    "XDG_CONFIG_HOME",
    "XDG_DATA_HOME",
    "XDG_STATE_HOME",
    "XDG_RUNTIME_DIR",
    "SSL_CERT_FILE",
    "SSL_CERT_DIR",
];

/// Last lines of stderr that an error shows.
const TAIL: usize = 5;

/// How long stderr and the exit status of a failed server are waited for.
const POST_MORTEM: Duration = Duration::from_millis(500);

/// Requests that are posted to one HTTP server at a time.
const MAX_POSTS: usize = 64;

/// The two families of protocol revisions.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Era {
    /// With `initialize`: up to 2025-11-25.
    Initialize,
    /// Without: from 2026-07-28.
    Discover,
}

/// Everything that starting a server needs.
#[derive(Debug, Clone)]
pub(crate) struct Spec {
    pub(crate) endpoint: Endpoint,
    /// For a command: its own PATH, or where it was found.
    pub(crate) found: Option<Result<Found, String>>,
    pub(crate) login_path: Option<OsString>,
    pub(crate) home: PathBuf,
    pub(crate) http: Result<Client, String>,
    /// Who gives the tokens for an HTTP server, unless its configuration brings one.
    pub(crate) authority: Option<Arc<Authority>>,
    pub(crate) max_bytes: usize,
    pub(crate) start_timeout: Duration,
}

/// A server that is ready.
pub(crate) struct Opened {
    pub(crate) service: RunningService<RoleClient, Answers>,
    pub(crate) process: Option<ServerProcess>,
    pub(crate) stderr: Option<JoinHandle<()>>,
    pub(crate) era: Era,
}

/// Why a server did not become ready.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum OpenError {
    Auth,
    Failed { reason: String, stderr: Vec<String> },
}

/// Whether another way of opening may help.
enum Attempt {
    Final(OpenError),
    Retry(OpenError),
}

type NoticeSink = Arc<dyn Fn(Notice) + Send + Sync>;

impl Spec {
    /// # Cancel safety
    /// Cancel safe: what was started is ended.
    pub(crate) async fn open(
        &self,
        era: Option<Era>,
        answers: &Answers,
        log: &Arc<LogRing>,
        notices: &NoticeSink,
    ) -> Result<Opened, OpenError> {
        let deadline = Instant::now() + self.start_timeout;
        let modes = match era {
            Some(Era::Initialize) => [ClientLifecycleMode::Initialize, auto()],
            Some(Era::Discover) => [discover(), auto()],
            None => [auto(), ClientLifecycleMode::Initialize],
        };
        let mut first = None;
        for mode in modes {
            let notices = notices.clone();
            let ledger = Ledger::new(move |notice| notices(notice));
            let attempt = match &self.endpoint {
                Endpoint::Stdio(stdio) => self.stdio(stdio, mode, ledger, answers, log, deadline).await,
                Endpoint::Http { remote, named } => {
                    self.http(remote, *named, mode, ledger, answers, deadline).await
                }
                Endpoint::Sse(remote) => self.sse(remote, mode, ledger, answers, deadline).await,
            };
            match attempt {
                Ok(opened) => return Ok(opened),
                Err(Attempt::Final(error)) => return Err(first.unwrap_or(error)),
                Err(Attempt::Retry(error)) => first = first.or(Some(error)),
            }
        }
        Err(first.expect("two ways were tried"))
    }

    async fn stdio(
        &self,
        stdio: &Stdio,
        mode: ClientLifecycleMode,
        ledger: Arc<Ledger>,
        answers: &Answers,
        log: &Arc<LogRing>,
        deadline: Instant,
    ) -> Result<Opened, Attempt> {
        let launch = self.launch(stdio).map_err(|reason| Attempt::Final(OpenError::failed(reason)))?;
        let program = launch.program.display().to_string();
        let (mut process, Pipes { stdin, stdout, stderr }) =
            ServerProcess::start(launch).await.map_err(|error| {
                let hint = process::hint(&error);
                Attempt::Final(OpenError::failed(format!("{program} cannot be started: {error}{hint}")))
            })?;
        log.push(LogSource::Conductor, &format!("started as process {}", process.pid().unwrap_or_default()));
        let pumped = log.clone();
        let mut stderr = tokio::spawn(async move { pumped.pump(stderr).await });
        let stray = log.clone();
        let garbage = Box::new(move |text: &str| stray.push(LogSource::Stdout, text));
        let transport = stdio::Stdio::new(stdout, stdin, ledger.clone(), self.max_bytes, garbage);
        match self.serve(transport, ledger.clone(), mode, answers, deadline).await {
            Ok((service, era)) => Ok(Opened { service, process: Some(process), stderr: Some(stderr), era }),
            Err(attempt) => {
                let status = timeout(POST_MORTEM, process.wait()).await.ok().and_then(Result::ok);
                timeout(POST_MORTEM, &mut stderr).await.ok();
                drop(process);
                Err(attempt.with(status, log.tail(TAIL)))
            }
        }
    }

    async fn http(
        &self,
        remote: &Remote,
        named: bool,
        mode: ClientLifecycleMode,
        ledger: Arc<Ledger>,
        answers: &Answers,
        deadline: Instant,
    ) -> Result<Opened, Attempt> {
        let client = self.http.clone().map_err(|reason| Attempt::Final(OpenError::failed(reason)))?;
        let config = StreamableHttpClientTransportConfig::with_uri(remote.url.expose())
            .custom_headers(
                headers(remote)
                    .into_iter()
                    .filter_map(|(name, value)| Some((name?, value)))
                    .collect::<HashMap<_, _>>(),
            )
            .max_concurrent_requests(MAX_POSTS);
        let http = Http::new(client, ledger.clone(), self.authority.clone(), self.max_bytes);
        let transport = StreamableHttpClientTransport::with_client(http, config);
        match self.serve(transport, ledger.clone(), mode.clone(), answers, deadline).await {
            Ok((service, era)) => Ok(Opened { service, process: None, stderr: None, era }),
            Err(Attempt::Retry(error)) if !named && error.is_refused_method() => {
                let older =
                    self.sse(remote, ClientLifecycleMode::Initialize, ledger, answers, deadline).await;
                older.map_err(|_| Attempt::Retry(error))
            }
            Err(attempt) => Err(attempt),
        }
    }

    async fn sse(
        &self,
        remote: &Remote,
        mode: ClientLifecycleMode,
        ledger: Arc<Ledger>,
        answers: &Answers,
        deadline: Instant,
    ) -> Result<Opened, Attempt> {
        let client = self.http.clone().map_err(|reason| Attempt::Final(OpenError::failed(reason)))?;
        let opening = Sse::open(client, remote.url.expose(), headers(remote), ledger.clone(), self.max_bytes);
        let transport = match timeout_at(deadline, opening).await {
            Ok(Ok(transport)) => transport,
            Ok(Err(_)) if ledger.wants_auth() => return Err(Attempt::Final(OpenError::Auth)),
            Ok(Err(error)) => return Err(Attempt::Final(OpenError::failed(chain(&error)))),
            Err(_) => return Err(Attempt::Final(self.too_slow())),
        };
        let (service, era) = self.serve(transport, ledger.clone(), mode, answers, deadline).await?;
        Ok(Opened { service, process: None, stderr: None, era })
    }

    async fn serve<T: Transport<RoleClient> + 'static>(
        &self,
        inner: T,
        ledger: Arc<Ledger>,
        mode: ClientLifecycleMode,
        answers: &Answers,
        deadline: Instant,
    ) -> Result<(RunningService<RoleClient, Answers>, Era), Attempt> {
        let transport = Tapped { inner, ledger: ledger.clone() };
        match timeout_at(deadline, answers.clone().serve_with_lifecycle(transport, mode)).await {
            Ok(Ok(service)) => {
                let info = service.peer().peer_info();
                let modern = info.is_some_and(|info| !info.protocol_version.has_initialize());
                Ok((service, if modern { Era::Discover } else { Era::Initialize }))
            }
            Ok(Err(_)) if ledger.wants_auth() => Err(Attempt::Final(OpenError::Auth)),
            Ok(Err(error)) => {
                let reason = ledger.failure().unwrap_or_else(|| explain(&error));
                Err(Attempt::Retry(OpenError::failed(reason)))
            }
            Err(_) => Err(Attempt::Final(self.too_slow())),
        }
    }

    fn too_slow(&self) -> OpenError {
        OpenError::failed(format!(
            "it was not ready within {}\nhint: run the command once by hand; the first start of a package downloads it",
            humantime::format_duration(self.start_timeout)
        ))
    }

    fn launch(&self, stdio: &Stdio) -> Result<Launch, String> {
        let found = self.found.clone().unwrap_or_else(|| Err("its command was not looked for".to_owned()))?;
        let configured = stdio.env.get("PATH").map(|path| OsStr::new(path.expose()));
        let paths = Paths { configured, session: None, login_shell: self.login_path.as_deref() };
        let mut env: BTreeMap<OsString, OsString> =
            env::vars_os().filter(|(name, _)| is_passed(name)).collect();
        env.insert("PATH".into(), paths.for_child(&found.program));
        env.extend(stdio.env.iter().map(|(name, value)| (name.into(), value.expose().into())));
        let args = stdio.args.iter().map(|arg| arg.expose().into()).collect();
        let directory = stdio.cwd.clone().unwrap_or_else(|| self.home.clone());
        if !directory.is_dir() {
            return Err(format!("its working directory {} is not there", directory.display()));
        }
        Ok(Launch { program: found.program, args, env, directory, mark: new_mark() })
    }
}

impl OpenError {
    fn failed(reason: impl Into<String>) -> Self {
        Self::Failed { reason: reason.into(), stderr: Vec::new() }
    }

    /// An HTTP server that knows only the older transport refuses to be posted to.
    fn is_refused_method(&self) -> bool {
        let Self::Failed { reason, .. } = self else { return false };
        ["HTTP 404", "HTTP 405", "HTTP 400", "HTTP 501"].iter().any(|status| reason.contains(status))
    }
}

impl Attempt {
    /// Adds what a process left behind; how it ended says more than that the handshake broke off.
    fn with(self, status: Option<ExitStatus>, lines: Vec<String>) -> Self {
        let add = |error, status: Option<ExitStatus>| match error {
            OpenError::Failed { reason, stderr: _ } => {
                let reason = if status.is_some() { describe(status) } else { reason };
                OpenError::Failed { reason, stderr: lines }
            }
            OpenError::Auth => OpenError::Auth,
        };
        match self {
            Self::Final(error) => Self::Final(add(error, None)),
            Self::Retry(error) => Self::Retry(add(error, status)),
        }
    }
}

fn auto() -> ClientLifecycleMode {
    ClientLifecycleMode::Auto {
        preferred_versions: vec![ProtocolVersion::V_2026_07_28],
        legacy_version: Some(ProtocolVersion::LATEST_WITH_INITIALIZE),
    }
}

fn discover() -> ClientLifecycleMode {
    ClientLifecycleMode::Discover { preferred_versions: vec![ProtocolVersion::V_2026_07_28] }
}

fn is_passed(name: &OsStr) -> bool {
    name.to_str().is_some_and(|name| PASSED_VARIABLES.contains(&name) || name.starts_with("LC_"))
}

/// The configured headers; they were checked when the configuration was read.
fn headers(remote: &Remote) -> HeaderMap {
    let header = |(name, value): (&String, &crate::secret::Secret)| {
        let mut value = HeaderValue::try_from(value.expose()).ok()?;
        value.set_sensitive(true);
        Some((HeaderName::try_from(name.as_str()).ok()?, value))
    };
    remote.headers.iter().filter_map(header).collect()
}

/// The error of a handshake without rmcp's debugging output.
fn explain(error: &ClientInitializeError) -> String {
    match error {
        ClientInitializeError::ConnectionClosed(_) => "it ended during the handshake".to_owned(),
        ClientInitializeError::ExpectedInitResponse(_) | ClientInitializeError::ExpectedInitResult(_) => {
            "its answer to the handshake is not of the protocol".to_owned()
        }
        ClientInitializeError::JsonRpcError(error) => format!("it refused the handshake: {}", error.message),
        ClientInitializeError::LegacyFallbackFailed { fallback, .. } => explain(fallback),
        ClientInitializeError::TransportError { error, .. } => chain(error.error.as_ref()),
        other => other.to_string(),
    }
}

/// Where a program is looked for, by its entry.
pub(crate) fn find(
    stdio: &Stdio,
    session: Option<&OsStr>,
    login: Option<&OsStr>,
    home: &Path,
) -> Result<Found, String> {
    let configured = stdio.env.get("PATH").map(|path| OsStr::new(path.expose()));
    let directory = stdio.cwd.as_deref().unwrap_or(home);
    let paths = Paths { configured, session, login_shell: login };
    paths.find(stdio.command.expose(), directory).map_err(|error| error.to_string())
}
