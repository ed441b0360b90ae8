//! Beds for the tests: upstreams with a state directory of their own, hostile servers, and what is left of them.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, Once};
use std::time::{Duration, Instant};

use conductor_upstream::config::{Expansion, ServerSet};
use conductor_upstream::keyring::NoKeyring;
use conductor_upstream::{
    CallContext, CallError, ClientRequests, ProfileId, ServerRef, ServerStatus, SessionId, Upstreams,
    UpstreamsOptions,
};
use futures_util::future::BoxFuture;
use serde_json::{Map, Value, json};
use tempfile::TempDir;

/// Longest wait for something that happens at once on an idle machine.
pub(crate) const DEADLINE: Duration = Duration::from_secs(60);

/// For tests that need much memory: some of them measure that of the whole process.
pub(crate) static MUCH_MEMORY: tokio::sync::Mutex<()> = tokio::sync::Mutex::const_new(());

/// Upstreams of one test.
pub(crate) struct Bed {
    pub(crate) upstreams: Upstreams,
    pub(crate) root: TempDir,
    pub(crate) asked: Arc<Asked>,
}

/// Remembers what servers asked, and answers it.
#[derive(Debug, Default)]
pub(crate) struct Asked(pub(crate) Mutex<Vec<(String, Value)>>);

impl ClientRequests for Asked {
    fn ask(
        &self,
        session: SessionId,
        request: conductor_upstream::ServerAsks,
    ) -> BoxFuture<'static, Result<Value, String>> {
        self.0.lock().unwrap().push((session.to_string(), request.params));
        Box::pin(async move { Ok(json!({ "action": "accept", "content": { "session": session } })) })
    }

    fn log(&self, session: &SessionId, _server: &str, level: &str, _logger: Option<&str>, data: &Value) {
        self.0.lock().unwrap().push((session.to_string(), json!({ "level": level, "data": data })));
    }

    fn updated(&self, session: &SessionId, uri: &str) {
        self.0.lock().unwrap().push((session.to_string(), json!({ "updated": uri })));
    }
}

impl Bed {
    pub(crate) fn new() -> Self {
        Self::with(|_| {})
    }

    pub(crate) fn with(adapt: impl FnOnce(&mut UpstreamsOptions)) -> Self {
        static LOG: Once = Once::new();
        LOG.call_once(|| {
            let filter =
                std::env::var("RUST_LOG").unwrap_or_else(|_| conductor_upstream::RMCP_LOG_FILTER.to_owned());
            tracing_subscriber::fmt().with_env_filter(filter).with_test_writer().init();
        });
        let root = tempfile::tempdir().unwrap();
        let asked = Arc::new(Asked::default());
        let mut options = UpstreamsOptions::new(root.path().join("state"), root.path());
        options.client_requests = Some(asked.clone());
        adapt(&mut options);
        Self { upstreams: Upstreams::new(options), root, asked }
    }

    /// Gives profile `p` the servers of `servers`, a `mcpServers` object.
    pub(crate) async fn set(&self, servers: Value) -> conductor_upstream::config::Changes {
        self.set_for("p", servers).await
    }

    pub(crate) async fn set_for(&self, profile: &str, servers: Value) -> conductor_upstream::config::Changes {
        self.set_as(profile, None, servers).await
    }

    /// The same for the profile of one user among several.
    pub(crate) async fn set_as(
        &self,
        profile: &str,
        tenant: Option<&str>,
        servers: Value,
    ) -> conductor_upstream::config::Changes {
        let env = |name: &str| std::env::var(name).ok();
        let root = self.root.path();
        let expansion = Expansion { env: &env, home: root, workspace: Some(root), keyring: &NoKeyring };
        let text = json!({ "mcpServers": servers }).to_string();
        let mut set = ServerSet::parse(&text, &expansion).unwrap();
        set.session_path = std::env::var_os("PATH");
        tenant.into_iter().for_each(|tenant| set.for_tenant(&tenant.into()));
        self.upstreams.set(&ProfileId::new(profile), set).await
    }

    pub(crate) async fn call(&self, name: &str, tool: &str, arguments: Value) -> Result<Value, CallError> {
        self.call_as(&CallContext::new(SessionId::new("s")), name, tool, arguments).await
    }

    pub(crate) async fn call_as(
        &self,
        context: &CallContext,
        name: &str,
        tool: &str,
        arguments: Value,
    ) -> Result<Value, CallError> {
        self.upstreams.call_tool(&server(name), context, tool, object(arguments)).await
    }

    pub(crate) fn status(&self, name: &str) -> ServerStatus {
        self.upstreams.status().into_iter().find(|status| status.name == name).expect(name)
    }

    /// A hostile server's entry, which keeps a log at [`Bed::log`].
    pub(crate) fn hostile(&self, mode: &str) -> Value {
        json!({ "command": env!("CARGO_BIN_EXE_hostile-mcp-server"), "args": [mode], "env": { "HOSTILE_LOG": self.log_file() } })
    }

    pub(crate) fn log(&self) -> String {
        fs::read_to_string(self.log_file()).unwrap_or_default()
    }

    fn log_file(&self) -> PathBuf {
        self.root.path().join("hostile.log")
    }

    /// How often hostile servers were started.
    pub(crate) fn n_starts(&self) -> usize {
        self.log().lines().filter(|line| line.starts_with("start ")).count()
    }

    /// Ends everything and checks that no process of this test is left.
    pub(crate) async fn end(self) {
        self.upstreams.shutdown(tokio::time::Instant::now() + Duration::from_secs(10)).await;
        let root = self.root.path().to_owned();
        until("no process is left", || processes_with(&root).is_empty()).await;
    }

    /// Processes of the servers of this test, which all have its directory in their environment.
    pub(crate) fn processes(&self) -> BTreeSet<u32> {
        processes_with(self.root.path())
    }
}

/// Processes whose environment names `path`.
pub(crate) fn processes_with(path: &Path) -> BTreeSet<u32> {
    let path = path.as_os_str().as_encoded_bytes();
    let holds = |pid: &u32| {
        fs::read(format!("/proc/{pid}/environ"))
            .is_ok_and(|bytes| bytes.windows(path.len()).any(|part| part == path))
    };
    let pids =
        fs::read_dir("/proc").unwrap().flatten().filter_map(|entry| entry.file_name().to_str()?.parse().ok());
    pids.filter(|pid| *pid != std::process::id()).filter(holds).collect()
}

pub(crate) async fn until(what: &str, mut condition: impl FnMut() -> bool) {
    let start = Instant::now();
    while !condition() {
        assert!(start.elapsed() < DEADLINE, "waited too long: {what}");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

pub(crate) fn server(name: &str) -> ServerRef {
    ServerRef::new(ProfileId::new("p"), name)
}

pub(crate) fn session(name: &str) -> CallContext {
    CallContext::new(SessionId::new(name))
}

pub(crate) fn object(value: Value) -> Map<String, Value> {
    serde_json::from_value(value).unwrap()
}

/// The text of a result that has one part.
pub(crate) fn text(result: &Value) -> &str {
    result["content"][0]["text"].as_str().unwrap_or_else(|| panic!("no text: {result}"))
}
