//! What operators ask for beyond status and reload. Each operation is answered once, for the profile of the connection's own
//! environment.

use std::sync::Arc;
use std::time::{Instant, SystemTime};

use conductor_deno::DenoBinary;
use conductor_packages::{Layer, LayerError, LayerRequest, Progress};
use conductor_protocol::AdminReply;
use conductor_protocol::operation::{
    BuildReport, Hidden, LayerFault, LayerFaults, LayerReport, LayerSummary, LoginBegun, LoginsReport,
    Operation, PackageAge, PackageAges, PackageChange, PackageChanges, PackageReasons, PackageReport,
    PackagesReport, ServerLogs, ServersReport, TokenAdded,
};
use conductor_upstream::secret::Secret;
use conductor_upstream::{LoginRequest, ProfileId};
use serde::Serialize;
use tokio::sync::watch;

use crate::admin;
use crate::error_chain;
use crate::http::tokens::{DEFAULT_PROFILE as DEFAULT, TokenError};
use crate::packages::{Building, Provided};
use crate::profile::{self, Profile};
use crate::session::handshake::Client;
use crate::supervisor::Shared;
use crate::upstreams::Servers;
use crate::upstreams::auth::AuthFailure;
use crate::upstreams::report::ServerError;

/// Why an operation came to nothing, for the operator.
#[derive(Debug, thiserror::Error)]
enum OperationError {
    #[error("{0}")]
    Profile(String),
    #[error("there is no Deno: {0}")]
    Deno(String),
    #[error(transparent)]
    Layer(#[from] LayerError),
    #[error("no package is allowed in this profile\nhint: `conductorctl packages add npm:NAME@RANGE`")]
    NothingAllowed,
    #[error("code of this profile may have any package, so there is no list to look at")]
    AnythingAllowed,
    #[error("there is no layer yet\nhint: `conductorctl packages update` builds it")]
    NoLayer,
    #[error("no allowed package brings in `{0}`\nhint: write it as npm:NAME or jsr:@SCOPE/NAME")]
    NotThere(String),
    #[error(transparent)]
    Server(#[from] ServerError),
    #[error(transparent)]
    Auth(#[from] AuthFailure),
    #[error(transparent)]
    Token(#[from] TokenError),
    #[error("there is no profile `{name}`\nhint: {known}")]
    NoProfile { name: String, known: String },
}

/// Carries out an operation for a client of this environment.
///
/// # Cancel safety
/// What was begun is dropped; a build goes on only while somebody else waits for it.
pub(crate) async fn answer(json: &[u8], client: &Client, shared: &Shared) -> AdminReply {
    let operation = match serde_json::from_slice(json) {
        Ok(operation) => operation,
        Err(error) => {
            return AdminReply::Failed {
                text: format!(
                    "the daemon does not know this operation: {error}\nhint: daemon and conductorctl are of different builds"
                ),
            };
        }
    };
    let operator = Operator { client, shared };
    let document = match operation {
        Operation::PackagesList => operator.list().await.and_then(document),
        Operation::PackagesUpdate => operator.update().await.and_then(document),
        Operation::PackagesOutdated => operator.outdated().await.and_then(document),
        Operation::PackagesWhy { package } => operator.why(&package).await.and_then(document),
        Operation::PackagesVerify => operator.verify().await.and_then(document),
        Operation::PackagesPrune => operator.prune().await.map(|text| AdminReply::Done { text }),
        Operation::ServersList => operator.servers().await.and_then(document),
        Operation::ServersLogs { server } => operator.server_logs(&server).await.and_then(document),
        Operation::ServersRestart { server } => {
            operator.restart_server(&server).await.map(|text| AdminReply::Done { text })
        }
        Operation::ServersStop { server } => {
            operator.stop_server(&server).await.map(|text| AdminReply::Done { text })
        }
        Operation::AuthLogin { server, client_id, client_secret, scopes, port } => {
            let client_secret = client_secret.map(|Hidden(secret)| Secret::new(secret));
            let request = LoginRequest { client_id, client_secret, scopes, port };
            operator.begin_login(&server, request).await.and_then(document)
        }
        Operation::AuthFinish { login } => {
            shared.upstreams.finish_login(login).await.map_err(OperationError::from).and_then(document)
        }
        Operation::AuthStatus => operator.logins().await.and_then(document),
        Operation::AuthLogout { server } => {
            operator.log_out(&server).await.map(|text| AdminReply::Done { text })
        }
        Operation::TokensList => document(admin::http_status(shared, Instant::now())),
        Operation::TokensAdd { name, profile } => operator.add_token(&name, profile).and_then(document),
        Operation::TokensRevoke { name } => {
            operator.revoke_token(&name).map(|text| AdminReply::Done { text })
        }
    };
    document.unwrap_or_else(|error| AdminReply::Failed { text: text(&error) })
}

fn document<T: Serialize>(document: T) -> Result<AdminReply, OperationError> {
    let json = serde_json::to_vec(&document).expect("strings and numbers always encode");
    Ok(AdminReply::Json(json))
}

fn text(error: &OperationError) -> String {
    let hint = match error {
        OperationError::Layer(error) => error.hint(),
        _ => None,
    };
    let text = error_chain(error);
    hint.map_or(text.clone(), |hint| format!("{text}\nhint: {hint}"))
}

/// Who asks, and of what.
struct Operator<'a> {
    client: &'a Client,
    shared: &'a Shared,
}

impl Operator<'_> {
    fn profile(&self) -> Result<Profile, OperationError> {
        let config = self.shared.config();
        let config = config.config.as_ref().map_err(|error| OperationError::Profile(error.to_string()))?;
        let profile = profile::resolve(config, &self.client.env, &self.client.hello.cwd, &self.shared.dirs)
            .map_err(|error| OperationError::Profile(error.to_string()))?;
        // Who names a profile that tokens have means what those who come with them have: their servers, their logins.
        if !self.shared.http.tokens.is_tenant(&profile.name) {
            return Ok(profile);
        }
        profile::resolve_tenant(config, &profile.name, &self.shared.dirs)
            .map_err(|error| OperationError::Profile(error.to_string()))
    }

    async fn deno(&self) -> Result<Arc<DenoBinary>, OperationError> {
        self.shared.deno.ready(None).await.map_err(|error| OperationError::Deno(error.to_string()))
    }

    /// What the profile's whole list asks for.
    async fn request(&self) -> Result<(Profile, LayerRequest), OperationError> {
        let (profile, deno) = (self.profile()?, self.deno().await?);
        match crate::packages::list_request(&profile, &deno) {
            Some(request) => Ok((profile, request)),
            None if profile.packages.allowed.allows_any() => Err(OperationError::AnythingAllowed),
            None => Err(OperationError::NothingAllowed),
        }
    }

    async fn list(&self) -> Result<PackagesReport, OperationError> {
        let profile = self.profile()?;
        let deno = self.shared.deno.now();
        let layer = match &deno {
            Some(deno) => self.layer(&profile, deno).await?,
            None => None,
        };
        let layers = self.shared.packages.layers().list().await?;
        let allowed = &profile.packages.allowed;
        let listed = allowed.packages().map(ToString::to_string);
        Ok(PackagesReport {
            allowed: allowed.allows_any().then(|| "all".to_owned()).into_iter().chain(listed).collect(),
            layer: layer.map(|provided| self.layer_report(&profile, &provided)),
            builds: self.shared.packages.builds().iter().map(build_report).collect(),
            error: self.shared.packages.failure(&profile).map(|error| text(&error.into())),
            layers: layers.iter().map(|layer| self.summary(layer)).collect(),
        })
    }

    /// What the profile's workers import from now, else what was built for its list at any time.
    async fn layer(
        &self,
        profile: &Profile,
        deno: &DenoBinary,
    ) -> Result<Option<Arc<Provided>>, OperationError> {
        if let Some(provided) = self.shared.packages.at_hand(profile, deno) {
            return Ok(Some(provided));
        }
        let Some(request) = crate::packages::list_request(profile, deno) else { return Ok(None) };
        let layer = self.shared.packages.layers().find(request).await?;
        Ok(layer.map(|layer| Arc::new(Provided::of(layer.into()))))
    }

    fn layer_report(&self, profile: &Profile, provided: &Provided) -> LayerReport {
        let preload = self.shared.packages.worker_packages(profile, provided).preload;
        let uses = self.shared.packages.uses(profile);
        let packages = provided.layer.packages().iter().map(|package| {
            let cost = provided.costs.iter().find(|cost| cost.specifier == package.spelling);
            let native =
                package.native.as_ref().map(|_| "it needs native code, which workers do not load".to_owned());
            PackageReport {
                name: package.key.clone(),
                spelling: package.spelling.clone(),
                version: Some(package.version.clone()),
                unavailable: native.or_else(|| cost?.error.clone()),
                import_ms: cost.map(|cost| cost.import_ms),
                memory_bytes: cost.map(|cost| cost.memory_bytes),
                preloaded: preload.contains(&package.spelling),
                uses: uses.iter().find(|(name, _)| *name == package.spelling).map_or(0.0, |(_, uses)| *uses),
            }
        });
        let missing = provided.layer.missing().iter().map(|missing| PackageReport {
            name: missing.package.clone(),
            spelling: missing.package.clone(),
            unavailable: Some(missing.reason.clone()),
            ..PackageReport::default()
        });
        LayerReport { id: provided.layer.name().to_owned(), packages: packages.chain(missing).collect() }
    }

    fn summary(&self, layer: &Layer) -> LayerSummary {
        let now = SystemTime::UNIX_EPOCH.elapsed().unwrap_or_default().as_secs();
        LayerSummary {
            id: layer.name().to_owned(),
            packages: layer.packages().len() as u64,
            bytes: layer.bytes(),
            age_ms: now.saturating_sub(layer.created_at()).saturating_mul(1000),
            in_use: self.shared.packages.is_at_hand(layer.name()),
        }
    }

    async fn update(&self) -> Result<PackageChanges, OperationError> {
        let (profile, request) = self.request().await?;
        let progress = watch::Sender::new(Progress::default());
        let changes = self.shared.packages.update(&profile, request, &progress).await?;
        let changes = changes.into_iter().map(|change| PackageChange {
            name: change.key,
            before: change.from,
            after: change.to,
        });
        Ok(PackageChanges { changes: changes.collect() })
    }

    async fn outdated(&self) -> Result<PackageAges, OperationError> {
        let (_, request) = self.request().await?;
        let packages = self.shared.packages.layers().outdated(request).await?;
        let packages = packages.into_iter().map(|package| PackageAge {
            name: package.key,
            locked: package.locked,
            newest_allowed: package.newest_allowed,
            newest: package.newest,
            error: None,
        });
        Ok(PackageAges { packages: packages.collect() })
    }

    async fn why(&self, package: &str) -> Result<PackageReasons, OperationError> {
        let (_, request) = self.request().await?;
        let layer = self.shared.packages.layers().find(request).await?.ok_or(OperationError::NoLayer)?;
        let chains = layer.why(package);
        if chains.is_empty() {
            Err(OperationError::NotThere(package.to_owned()))
        } else {
            Ok(PackageReasons { chains })
        }
    }

    async fn verify(&self) -> Result<LayerFaults, OperationError> {
        let verified = self.shared.packages.layers().verify().await?;
        let faults = verified.iter().filter_map(|layer| {
            Some(LayerFault { layer: layer.name.clone(), what: layer.difference.clone()? })
        });
        Ok(LayerFaults { checked: verified.len() as u64, faults: faults.collect() })
    }

    async fn prune(&self) -> Result<String, OperationError> {
        let pruned = self.shared.packages.layers().prune(None).await?;
        let mebibytes = pruned.bytes.div_ceil(1 << 20);
        Ok(match pruned.layers {
            0 => "every layer is in use, or recent and within the limits".into(),
            1 => format!("1 layer removed, {mebibytes} MiB"),
            layers => format!("{layers} layers removed, {mebibytes} MiB"),
        })
    }
}

/// Upstream servers. Those of the caller's own profile are read first, so that they are there without any session.
impl Operator<'_> {
    async fn own_servers(&self) -> Result<(Profile, Servers), OperationError> {
        let profile = self.profile()?;
        let servers = self.shared.upstreams.load(&profile, &self.client.env).await;
        Ok((profile, servers))
    }

    async fn servers(&self) -> Result<ServersReport, OperationError> {
        let (profile, servers) = self.own_servers().await?;
        let registration = servers.registration();
        let own = registration.map(|registration| &registration.id);
        let users = self.shared.registry.users_of_servers();
        let upstreams = &self.shared.upstreams;
        Ok(ServersReport {
            config: profile.mcp_config.as_ref().map(|config| config.path.display().to_string()),
            error: match &servers {
                Servers::Failed(why) => Some(why.to_string()),
                Servers::Pending | Servers::None | Servers::Ready(_) => None,
            },
            warnings: registration.map(|registration| registration.warnings.clone()).unwrap_or_default(),
            servers: own.map(|own| upstreams.rows(&users, Some(own))).unwrap_or_default(),
            others: upstreams.rows_without(&users, own),
        })
    }

    async fn server_logs(&self, server: &str) -> Result<ServerLogs, OperationError> {
        let _own = self.own_servers().await?;
        Ok(self.shared.upstreams.logs(server, &self.shared.registry.users_of_servers())?)
    }

    async fn restart_server(&self, server: &str) -> Result<String, OperationError> {
        let _own = self.own_servers().await?;
        let upstreams = &self.shared.upstreams;
        upstreams.each(server, |server| upstreams.upstreams().restart(server))?;
        Ok(format!("{server} is replaced by a fresh one; calls in flight finish at the old one"))
    }

    async fn stop_server(&self, server: &str) -> Result<String, OperationError> {
        let _own = self.own_servers().await?;
        let upstreams = &self.shared.upstreams;
        upstreams.each(server, |server| upstreams.upstreams().stop(server))?;
        Ok(format!("{server} ends once its calls are done; it starts again when it is used"))
    }
}

/// Logins at upstream servers.
impl Operator<'_> {
    async fn begin_login(&self, server: &str, request: LoginRequest) -> Result<LoginBegun, OperationError> {
        let (_, servers) = self.own_servers().await?;
        Ok(self.shared.upstreams.begin_login(own(&servers), server, &request).await?)
    }

    async fn logins(&self) -> Result<LoginsReport, OperationError> {
        let (_, servers) = self.own_servers().await?;
        Ok(self.shared.upstreams.login_report(own(&servers)))
    }

    async fn log_out(&self, server: &str) -> Result<String, OperationError> {
        let (_, servers) = self.own_servers().await?;
        Ok(if self.shared.upstreams.log_out(own(&servers), server).await? {
            format!("the login at {server} is forgotten; its issuer may list it until it expires")
        } else {
            format!("nobody is logged in at {server}")
        })
    }
}

/// Who may call over HTTP.
impl Operator<'_> {
    fn add_token(&self, name: &str, profile: Option<String>) -> Result<TokenAdded, OperationError> {
        let config = self.shared.config();
        let config = config.config.as_ref().map_err(|error| OperationError::Profile(error.to_string()))?;
        let profile = profile.unwrap_or_else(|| DEFAULT.to_owned());
        if profile != DEFAULT && !config.profiles.contains_key(&profile) {
            let names = config.profiles.keys().map(String::as_str).filter(|name| *name != DEFAULT);
            let names: Vec<&str> = std::iter::once(DEFAULT).chain(names).collect();
            let known = format!("the configuration has {}", names.join(", "));
            return Err(OperationError::NoProfile { name: profile, known });
        }
        if profile != DEFAULT {
            // What would be refused with the token is refused with the cure now.
            profile::resolve_tenant(config, &profile, &self.shared.dirs)
                .map_err(|error| OperationError::Profile(error.to_string()))?;
        }
        let token = self.shared.http.tokens.add(name, &profile)?;
        tracing::info!(name, profile, "a token for HTTP was added");
        let urls = self.shared.http.urls();
        Ok(TokenAdded { name: name.to_owned(), profile, token, urls })
    }

    fn revoke_token(&self, name: &str) -> Result<String, OperationError> {
        self.shared.http.tokens.revoke(name)?;
        tracing::info!(name, "a token for HTTP was revoked");
        Ok(format!("{name} is revoked; what it began has ended"))
    }
}

fn own(servers: &Servers) -> Option<&ProfileId> {
    servers.registration().map(|registration| &registration.id)
}

fn build_report(building: &Building) -> BuildReport {
    let progress = building.progress.borrow().clone();
    let (fetched, total) = match &progress {
        Progress::Fetching { done, of, .. } => (u64::from(*done), Some(u64::from(*of))),
        _ => (0, None),
    };
    BuildReport {
        packages: building.packages.clone(),
        phase: progress.to_string(),
        age_ms: u64::try_from(Instant::now().duration_since(building.since).as_millis()).unwrap_or(u64::MAX),
        fetched,
        total,
    }
}
