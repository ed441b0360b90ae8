//! An operator's connection: status, reload, stop. Answers each request with one reply, in order.

use std::sync::Arc;
use std::time::Instant;

use conductor_pool::status::{BreakerStatus, PoolStatus, TemplateStatus};
use conductor_protocol::status::{
    DaemonStatus, HttpStatus, PackagesStatus, PoolReport, ProfileStatus, StatusReport, TemplatesStatus,
};
use conductor_protocol::{AdminReply, AdminRequest, PROTOCOL_VERSION, codec, frame};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::sync::oneshot;

use crate::BUILD;
use crate::http;
use crate::operations;
use crate::profile::Profile;
use crate::session::handshake::Client;
use crate::store::URI_PREFIX;
use crate::supervisor::{Command, Shared};
use crate::upstreams::Servers;

/// Serves requests until the operator closes the connection or sends something that is none, or the daemon goes down.
pub(crate) async fn serve(
    mut reader: impl AsyncRead + Unpin,
    mut writer: impl AsyncWrite + Unpin,
    mut client: Client,
    shared: Arc<Shared>,
) {
    let mut chunk = [0; 1024];
    let mut phase = shared.phase();
    loop {
        let payload = match client.decoder.next_frame() {
            Ok(Some(payload)) => payload,
            Ok(None) => tokio::select! {
                // Cancel-safe: what was read is in the decoder before the next await.
                read = reader.read(&mut chunk) => match read {
                    Ok(0) | Err(_) => return,
                    Ok(n) => {
                        client.decoder.push(&chunk[..n]);
                        continue;
                    }
                },
                // Cancel-safe: waits for a flag. An operator who only watches must not hold the daemon up.
                _draining = phase.wait_for(|phase| phase.is_draining()) => return,
            },
            Err(_) => return,
        };
        let reply = match codec::decode(&payload) {
            Ok(request) => answer(request, &client, &shared).await,
            Err(error) => AdminReply::Failed { text: crate::error_chain(&error) },
        };
        let bytes = codec::encode(&reply).ok().and_then(|payload| frame::encode(&payload).ok());
        match bytes {
            Some(bytes) if writer.write_all(&bytes).await.is_ok() => {}
            _ => return,
        }
    }
}

async fn answer(request: AdminRequest, client: &Client, shared: &Shared) -> AdminReply {
    match request {
        AdminRequest::Status => match serde_json::to_vec(&status(shared).await) {
            Ok(json) => AdminReply::Json(json),
            Err(error) => AdminReply::Failed { text: error.to_string() },
        },
        AdminRequest::Reload => command(shared, Command::Reload).await,
        AdminRequest::Stop => command(shared, |done| Command::Stop(Some(done))).await,
        AdminRequest::Cancel { execution } => {
            if shared.registry.all().iter().any(|session| session.cancel(&execution)) {
                AdminReply::Done { text: format!("{execution} is cancelled") }
            } else {
                AdminReply::Failed {
                    text: format!(
                        "no call {execution} is in flight\nhint: `conductorctl status` lists those that are"
                    ),
                }
            }
        }
        AdminRequest::Operate { json } => operate(&json, client, shared).await,
        AdminRequest::Result { id } => {
            let id = id.strip_prefix(URI_PREFIX).unwrap_or(&id);
            match shared.store.get(id, None, Instant::now()) {
                Some(stored) => AdminReply::Text { text: stored.text.to_string() },
                None => AdminReply::Failed {
                    text: format!(
                        "there is no result {id}\nhint: results are kept for an hour, as long as there is room"
                    ),
                },
            }
        }
    }
}

/// An operation may take minutes, and a daemon that goes down does not wait for it.
async fn operate(json: &[u8], client: &Client, shared: &Shared) -> AdminReply {
    let mut phase = shared.phase();
    tokio::select! {
        // Dropped when the daemon goes down: what it does is safe to leave at any point.
        reply = operations::answer(json, client, shared) => reply,
        // Cancel-safe: waits for a flag.
        _draining = phase.wait_for(|phase| phase.is_draining()) => {
            AdminReply::Failed { text: "the daemon is going down".into() }
        }
    }
}

async fn command(
    shared: &Shared,
    command: impl FnOnce(oneshot::Sender<Result<String, String>>) -> Command,
) -> AdminReply {
    let (done, outcome) = oneshot::channel();
    let sent = shared.commands.send(command(done)).await.is_ok();
    match outcome.await {
        Ok(Ok(text)) if sent => AdminReply::Done { text },
        Ok(Err(text)) => AdminReply::Failed { text },
        _ => AdminReply::Failed { text: "the daemon is going down".into() },
    }
}

async fn status(shared: &Shared) -> StatusReport {
    let now = Instant::now();
    let config = shared.config();
    let pool = shared.pool.status().await.unwrap_or_default();
    StatusReport {
        daemon: DaemonStatus {
            build: BUILD.into(),
            protocol: PROTOCOL_VERSION,
            pid: std::process::id(),
            uptime_ms: u64::try_from(shared.started_at.elapsed().as_millis()).unwrap_or(u64::MAX),
            socket: shared.socket.display().to_string(),
            config: config.path.as_ref().map(|path| path.display().to_string()),
            phase: if shared.is_draining() { "draining".into() } else { "running".into() },
            rss_bytes: resident_bytes(),
            descriptors: open_descriptors(),
        },
        deno: shared.deno.status(),
        jail: shared.jail.status(),
        sessions: shared.registry.status(now),
        http: http_status(shared, now),
        pool: pool_report(&pool, shared),
        packages: packages(shared),
        executions: shared.stats.totals(),
        latency: shared.stats.latency(),
        upstreams: shared.upstreams.rows(&shared.registry.users_of_servers(), None),
        last_errors: shared.stats.last_errors(),
        warnings: warnings(shared),
    }
}

pub(crate) fn http_status(shared: &Shared, now: Instant) -> HttpStatus {
    let config = shared.config();
    shared.http.status(now, |token| http::problem(&config, &shared.dirs, token))
}

/// One entry for each profile that sessions use.
fn packages(shared: &Shared) -> Vec<PackagesStatus> {
    let Some(deno) = shared.deno.now() else { return Vec::new() };
    let mut known: Vec<Arc<Profile>> = Vec::new();
    for session in shared.registry.all() {
        if let Some(Ok(profile)) = session.known_profile()
            && known.iter().all(|it| (&it.name, &it.packages) != (&profile.name, &profile.packages))
        {
            known.push(profile);
        }
    }
    known.iter().filter_map(|profile| shared.packages.status(profile, &deno)).collect()
}

fn pool_report(pool: &PoolStatus, shared: &Shared) -> PoolReport {
    let described = shared.describe_profiles();
    let profiles = pool.profiles.iter().map(|profile| {
        let (grants, workspace) = described.get(&profile.id).cloned().unwrap_or_default();
        ProfileStatus {
            id: profile.id.clone(),
            source: profile.source.clone(),
            fallback: profile.fallback.clone(),
            templates: profile.templates.as_ref().map(templates),
            left_out: profile.left_out.iter().map(|(package, why)| format!("{package}: {why}")).collect(),
            grants,
            workspace,
            sessions: profile.registrations as u64,
            idle: profile.idle as u64,
            busy: profile.busy as u64,
            booting: profile.booting as u64,
            queued: profile.queued as u64,
            breaker: match profile.breaker {
                BreakerStatus::Closed => "closed".into(),
                BreakerStatus::Open { .. } => "open".into(),
                BreakerStatus::HalfOpen => "half-open".into(),
            },
            last_boot_error: profile.last_boot_error.clone(),
            booted: profile.totals.booted,
            spawned: profile.totals.booted - profile.totals.forked,
            forked: profile.totals.forked,
            boot_failures: profile.totals.boot_failures,
            boot_p50_ms: profile.boot_p50_us.map(millis),
        }
    });
    PoolReport {
        max_workers: pool.max_workers as u64,
        max_idle: pool.max_idle as u64,
        profiles: profiles.collect(),
    }
}

fn templates(templates: &TemplateStatus) -> TemplatesStatus {
    let TemplateStatus { serving, totals } = templates;
    TemplatesStatus {
        pid: serving.as_ref().map(|it| it.pid),
        age_ms: serving.as_ref().map_or(0, |it| it.age_ms),
        forks: serving.as_ref().map_or(0, |it| it.forks.into()),
        memory_bytes: serving.as_ref().map_or(0, |it| it.memory_bytes),
        built: totals.built,
        ended: totals.ended.iter().map(|(end, count)| (end.name().to_owned(), *count)).collect(),
        failures: totals.failures.iter().map(|(kind, count)| (kind.name().to_owned(), *count)).collect(),
        last_failure: totals.last_failure.clone(),
        gave_up: totals.gave_up,
    }
}

#[expect(clippy::cast_precision_loss, reason = "boot times are far below 2^53 microseconds")]
fn millis(micros: u64) -> f64 {
    micros as f64 / 1e3
}

fn warnings(shared: &Shared) -> Vec<String> {
    let config = shared.config();
    let broken = config.config.as_ref().err().map(|error| error.to_string());
    let mut warnings: Vec<String> = broken.into_iter().chain(config.reload_error.clone()).collect();
    for session in shared.registry.all() {
        if let Some(Ok(profile)) = session.known_profile() {
            warnings
                .extend(profile.warnings.iter().map(|warning| format!("session {}: {warning}", session.id)));
        }
        let servers = match session.known_servers() {
            Servers::Failed(why) => vec![why.to_string()],
            Servers::Ready(registration) => registration.warnings.clone(),
            Servers::Pending | Servers::None => Vec::new(),
        };
        warnings.extend(servers.iter().map(|warning| format!("session {}: {warning}", session.id)));
    }
    warnings
}

/// Resident memory of this process; 0 where the kernel does not tell.
fn resident_bytes() -> u64 {
    let pages = std::fs::read_to_string("/proc/self/statm").ok();
    let resident = pages.and_then(|text| text.split(' ').nth(1)?.parse::<u64>().ok());
    let page = nix::unistd::sysconf(nix::unistd::SysconfVar::PAGE_SIZE).ok().flatten().unwrap_or(4096);
    resident.unwrap_or_default().saturating_mul(u64::try_from(page).unwrap_or(4096))
}

/// Open descriptors of this process, but for the one that counts them; 0 where the kernel does not tell. Nobody else can
/// count them: the daemon's part of `/proc` is closed to other processes of its user.
fn open_descriptors() -> u64 {
    let entries = std::fs::read_dir("/proc/self/fd").map_or(0, Iterator::count);
    u64::try_from(entries.saturating_sub(1)).unwrap_or(u64::MAX)
}
