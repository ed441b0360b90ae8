//! An npm and a jsr registry on loopback, which count requests and fail on demand.

use std::collections::HashMap;
use std::ffi::OsString;
use std::io::Write as _;
use std::sync::{Arc, Mutex};

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use conductor_packages::FetchEnvironment;
use flate2::Compression;
use flate2::write::GzEncoder;
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256, Sha512};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;

/// How a path fails.
#[derive(Clone, Debug)]
pub(crate) enum Fault {
    Status(u16),
    /// Accepts the request and never answers.
    Hang,
    /// Promises the whole body and closes the connection after half of it.
    Truncate,
    /// Sends something else, of the same kind.
    Replace(Vec<u8>),
}

#[derive(Debug, Default)]
struct State {
    bodies: HashMap<String, Vec<u8>>,
    faults: HashMap<String, Fault>,
    requests: Vec<String>,
    token: Option<String>,
    npm: HashMap<String, serde_json::Map<String, Value>>,
    jsr: HashMap<String, Vec<String>>,
}

pub(crate) struct Registry {
    pub(crate) port: u16,
    state: Arc<Mutex<State>>,
    server: JoinHandle<()>,
}

impl Drop for Registry {
    fn drop(&mut self) {
        self.server.abort();
    }
}

impl Registry {
    pub(crate) async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let state = Arc::new(Mutex::new(State::default()));
        let server = tokio::spawn({
            let state = Arc::clone(&state);
            async move {
                while let Ok((stream, _)) = listener.accept().await {
                    tokio::spawn(answer(stream, Arc::clone(&state)));
                }
            }
        });
        Self { port, state, server }
    }

    pub(crate) fn npm_url(&self) -> String {
        format!("http://127.0.0.1:{}/npm/", self.port)
    }

    pub(crate) fn jsr_url(&self) -> String {
        format!("http://127.0.0.1:{}/", self.port)
    }

    /// What a user would have who uses these registries and no proxy.
    pub(crate) fn environment(&self) -> FetchEnvironment {
        let vars = [("NPM_CONFIG_REGISTRY", self.npm_url()), ("JSR_URL", self.jsr_url())];
        FetchEnvironment::new(vars.map(|(name, value)| (name.to_owned(), OsString::from(value))))
    }

    pub(crate) fn fail(&self, path: &str, fault: Fault) {
        self.state.lock().unwrap().faults.insert(path.to_owned(), fault);
    }

    /// Answers only who sends this token.
    pub(crate) fn demand_token(&self, token: &str) {
        self.state.lock().unwrap().token = Some(token.to_owned());
    }

    pub(crate) fn heal(&self) {
        self.state.lock().unwrap().faults.clear();
    }

    pub(crate) fn requests(&self) -> Vec<String> {
        self.state.lock().unwrap().requests.clone()
    }

    pub(crate) fn count(&self, path: &str) -> usize {
        self.requests().iter().filter(|requested| *requested == path).count()
    }

    /// Publishes an npm package of one module.
    pub(crate) fn publish(&self, name: &str, version: &str, needs: &[(&str, &str)], code: &str) {
        let files = [("index.js", code)];
        self.publish_files(name, version, needs, json!({"main": "index.js"}), &files);
    }

    pub(crate) fn publish_files(
        &self,
        name: &str,
        version: &str,
        needs: &[(&str, &str)],
        more: Value,
        files: &[(&str, &str)],
    ) {
        let needs: HashMap<&str, &str> = needs.iter().copied().collect();
        let mut package = json!({"name": name, "version": version, "dependencies": needs});
        for (key, value) in more.as_object().unwrap() {
            package[key] = value.clone();
        }
        let archive = archive(&package, files);
        let file = format!("{}-{version}.tgz", name.rsplit('/').next().unwrap());
        let path = format!("/npm/{name}/-/{file}");
        package["dist"] = json!({
            "tarball": format!("http://127.0.0.1:{}{path}", self.port),
            "integrity": format!("sha512-{}", BASE64_STANDARD.encode(Sha512::digest(&archive))),
        });
        let mut state = self.state.lock().unwrap();
        let versions = state.npm.entry(name.to_owned()).or_default();
        versions.insert(version.to_owned(), package);
        let document =
            json!({"name": name, "versions": versions, "dist-tags": {"latest": version}}).to_string();
        state.bodies.insert(path, archive);
        state.bodies.insert(format!("/npm/{name}"), document.clone().into_bytes());
        state.bodies.insert(format!("/npm/{}", name.replace('/', "%2f")), document.into_bytes());
    }

    /// Publishes a package of jsr.
    pub(crate) fn publish_jsr(&self, name: &str, version: &str, exports: &Value, files: &[(&str, &str)]) {
        let manifest: HashMap<String, Value> = files
            .iter()
            .map(|(file, code)| {
                let checksum =
                    Sha256::digest(code).iter().map(|byte| format!("{byte:02x}")).collect::<String>();
                (format!("/{file}"), json!({"size": code.len(), "checksum": format!("sha256-{checksum}")}))
            })
            .collect();
        let mut state = self.state.lock().unwrap();
        let versions = state.jsr.entry(name.to_owned()).or_default();
        versions.push(version.to_owned());
        let listed: HashMap<String, Value> =
            versions.iter().map(|version| (version.clone(), json!({}))).collect();
        let (scope, short) = name.trim_start_matches('@').split_once('/').unwrap();
        let meta = json!({"scope": scope, "name": short, "latest": version, "versions": listed});
        state.bodies.insert(format!("/{name}/meta.json"), meta.to_string().into_bytes());
        let description = json!({"manifest": manifest, "exports": exports}).to_string();
        state.bodies.insert(format!("/{name}/{version}_meta.json"), description.into_bytes());
        for (file, code) in files {
            state.bodies.insert(format!("/{name}/{version}/{file}"), code.as_bytes().to_vec());
        }
    }
}

/// `left`, whose newest version needs `right`.
pub(crate) async fn left_and_right() -> Registry {
    let registry = Registry::start().await;
    registry.publish("left", "1.0.0", &[], "module.exports = 'old'");
    registry.publish("left", "1.2.0", &[("right", "^2")], "module.exports = 'left' + require('right')");
    registry.publish("right", "2.0.0", &[], "module.exports = 'right'");
    registry
}

async fn answer(mut stream: TcpStream, state: Arc<Mutex<State>>) {
    let mut head = Vec::new();
    let mut chunk = [0; 4096];
    while !head.windows(4).any(|window| window == b"\r\n\r\n") {
        match stream.read(&mut chunk).await {
            Ok(count @ 1..) => head.extend_from_slice(&chunk[..count]),
            _ => return,
        }
    }
    let head = String::from_utf8_lossy(&head).into_owned();
    let path = head.split(' ').nth(1).unwrap_or_default().to_owned();
    let (body, fault) = {
        let mut state = state.lock().unwrap();
        state.requests.push(path.clone());
        let authorized = state.token.as_ref().is_none_or(|token| head.contains(&format!("Bearer {token}")));
        let fault = if authorized { state.faults.get(&path).cloned() } else { Some(Fault::Status(401)) };
        (state.bodies.get(&path).cloned(), fault)
    };
    let (status, body, sent) = match (fault, body) {
        (Some(Fault::Hang), _) => return std::future::pending().await,
        (Some(Fault::Status(status)), _) => (status, Vec::new(), 0),
        (Some(Fault::Replace(other)), _) => (200, other.clone(), other.len()),
        (Some(Fault::Truncate), Some(body)) => (200, body.clone(), body.len() / 2),
        (_, Some(body)) => (200, body.clone(), body.len()),
        (_, None) => (404, b"{}".to_vec(), 2),
    };
    let head = format!(
        "HTTP/1.1 {status} x\r\ncontent-type: {}\r\ncontent-length: {}\r\nconnection: close\r\n\r\n",
        if path.ends_with(".ts") { "text/typescript" } else { "application/json" },
        body.len()
    );
    // A client that was killed does not read its answer.
    let _gone = stream.write_all(&[head.as_bytes(), &body[..sent]].concat()).await.is_err();
}

fn archive(package: &Value, files: &[(&str, &str)]) -> Vec<u8> {
    let mut archive = tar::Builder::new(GzEncoder::new(Vec::new(), Compression::fast()));
    let package = package.to_string();
    for (name, content) in [("package.json", package.as_str())].iter().chain(files) {
        let mut header = tar::Header::new_gnu();
        header.set_size(content.len().try_into().unwrap());
        // As some real archives have it: not even readable by others.
        header.set_mode(0o600);
        header.set_cksum();
        archive.append_data(&mut header, format!("package/{name}"), content.as_bytes()).unwrap();
    }
    let mut gzip = archive.into_inner().unwrap();
    gzip.flush().unwrap();
    gzip.finish().unwrap()
}
