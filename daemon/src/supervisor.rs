//! The daemon's life: start order, reload, shutdown. Owns the configuration in use, the phase and every long-lived task.
//!
//! ```text
//! Running ──TERM, INT, stop, idle──► Draining (new calls are refused, running ones may finish) ──► all workers reaped ──► end
//! ```
//! One deadline covers the whole way down. A second signal moves it to now.

use std::collections::BTreeMap;
use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

#[cfg(target_os = "linux")]
use conductor_pool::DenoWorkers;
use conductor_pool::PoolHandle;
use conductor_pool::spawn::{Cgroups, DenoSpawn, SpawnConfig};
use conductor_pool::status::profile_id;
use conductor_protocol::endpoint::{SOCKET_VARIABLE, Surroundings, candidates};
use tokio::sync::{mpsc, oneshot, watch};
use tokio::task::JoinSet;

use crate::cli::Options;
pub use crate::config::ConfigInUse;
use crate::config::in_use::{ConfigFile, Trigger};
use crate::config::{self, Config, ConfigError};
use crate::deno::{DenoHandle, DenoState, DenoTask};
use crate::dirs::{Dirs, NoHome};
use crate::exec::{Executor, Parts};
use crate::http::{self, Http};
use crate::jail::{self, Jail};
use crate::listener::{self, ClaimError, Endpoint};
use crate::packages::PackageService;
use crate::service::{Service, ServiceError, watchdog};
use crate::session::registry::Registry;
use crate::session::requests::ClientRouter;
use crate::signals::{SignalEvent, Signals};
use crate::stats::Stats;
use crate::store::Store;
use crate::upstreams::UpstreamService;
use crate::{descriptors, error_chain, exit_code, session, telemetry};

/// Time for running calls when the daemon goes down; below the 90 s after which service managers kill.
const GRACE: Duration = Duration::from_secs(30);

/// Time for what follows that deadline: answers of calls that were cut off, and reaping.
const CLEAN_UP: Duration = Duration::from_secs(2);

/// Threads for the daemon's own work, which is moving bytes: two keep one slow moment from delaying all sessions.
const THREADS: usize = 2;

/// Operators' commands on their way: people type them.
const COMMANDS: usize = 8;

/// Pause after the operating system refused a connection for want of descriptors or memory.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

const JAIL_CHANGED: &str = "`[jail]` cannot change while the daemon runs\nhint: `conductorctl stop`; the next call starts \
                            the daemon with the new configuration";

/// What all parts of the daemon may use.
#[derive(Debug)]
pub struct Shared {
    pub(crate) executor: Executor,
    pub(crate) pool: PoolHandle,
    pub(crate) deno: DenoHandle,
    pub(crate) jail: Jail,
    pub(crate) stats: Arc<Stats>,
    pub(crate) store: Arc<Store>,
    pub(crate) packages: Arc<PackageService>,
    pub(crate) upstreams: Arc<UpstreamService>,
    pub(crate) http: Http,
    pub(crate) dirs: Arc<Dirs>,
    pub(crate) registry: Registry,
    pub(crate) commands: mpsc::Sender<Command>,
    pub(crate) socket: PathBuf,
    /// Clients that may be connected at a time.
    pub(crate) max_connections: usize,
    pub(crate) started_at: Instant,
    config: watch::Receiver<Arc<ConfigInUse>>,
    phase: watch::Receiver<Phase>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Phase {
    Running,
    Draining { deadline: Instant },
}

/// What an operator or a signal asks for. The answer is a text for the operator.
#[derive(Debug)]
pub enum Command {
    Reload(oneshot::Sender<Result<String, String>>),
    /// The configuration file may say something else now.
    FileChanged,
    Stop(Option<oneshot::Sender<Result<String, String>>>),
}

/// Why the daemon did not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    #[error(transparent)]
    Home(#[from] NoHome),
    #[error("cannot open the log {}", .path.display())]
    Log { path: PathBuf, source: io::Error },
    #[error(transparent)]
    Config(#[from] ConfigError),
    #[error(transparent)]
    Pool(#[from] conductor_pool::config::ConfigError),
    #[error(transparent)]
    Claim(#[from] ClaimError),
    #[error(
        "cannot open the directory of package layers\nhint: make room on its disk, or name another place with XDG_CACHE_HOME"
    )]
    Packages(#[source] io::Error),
    #[error(transparent)]
    Service(#[from] ServiceError),
    #[error("the operating system refuses what the daemon needs")]
    Os(#[source] io::Error),
}

impl StartError {
    pub fn exit_code(&self) -> u8 {
        match self {
            Self::Config(_) | Self::Pool(_) | Self::Home(_) => exit_code::CONFIG,
            Self::Claim(ClaimError::AlreadyRunning { .. }) => exit_code::ALREADY_RUNNING,
            Self::Claim(_) | Self::Service(_) | Self::Log { .. } | Self::Packages(_) | Self::Os(_) => {
                exit_code::OS
            }
        }
    }
}

impl Phase {
    pub(crate) fn is_draining(self) -> bool {
        matches!(self, Self::Draining { .. })
    }

    /// When everything must be over; far away while running.
    pub(crate) fn deadline(self) -> Instant {
        match self {
            Self::Running => Instant::now() + GRACE,
            Self::Draining { deadline } => deadline,
        }
    }
}

impl Shared {
    pub(crate) fn config(&self) -> Arc<ConfigInUse> {
        self.config.borrow().clone()
    }

    pub(crate) fn config_changes(&self) -> watch::Receiver<Arc<ConfigInUse>> {
        self.config.clone()
    }

    pub(crate) fn phase(&self) -> watch::Receiver<Phase> {
        self.phase.clone()
    }

    pub(crate) fn is_draining(&self) -> bool {
        self.phase.borrow().is_draining()
    }

    /// Grants and workspace of each profile in use, by the pool's short id for it.
    pub(crate) fn describe_profiles(&self) -> BTreeMap<String, (String, String)> {
        let DenoState::Ready(deno) = self.deno.state() else { return BTreeMap::new() };
        let sessions = self.registry.all();
        let profiles = sessions.iter().filter_map(|session| session.known_profile()?.ok());
        profiles
            .flat_map(|profile| {
                let described = (profile.grants_in_words(), profile.workspace.display().to_string());
                // Workers from before the packages were at hand may still be there.
                let packages = [None, self.packages.at_hand_for(&profile, &deno)];
                let id = |packages| profile_id(&profile.worker_spec(&deno.path, &self.dirs, packages));
                packages.map(|packages| (id(packages), described.clone()))
            })
            .collect()
    }
}

/// Runs the daemon until it is told to stop.
///
/// # Errors
/// It could not start. What goes wrong later is logged and told by the exit code.
pub(crate) fn run(options: &Options, mut service: Service) -> Result<u8, StartError> {
    let env: BTreeMap<String, String> = std::env::vars_os()
        .filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)))
        .collect();
    let dirs = Arc::new(Dirs::from_env(&env, std::env::home_dir())?);
    if let Some(question) = options.configuration {
        config::report::answer(question, options.config.as_deref(), &env, &dirs).map_err(StartError::Os)?;
        return Ok(exit_code::OK);
    }
    if options.check {
        let config = ConfigFile::new(options.config.as_deref(), dirs.config_file()).load()?;
        config.pool.settings().validate()?;
        return Ok(exit_code::OK);
    }
    jail::close_own_memory().map_err(StartError::Os)?;
    telemetry::start(options.log_file.as_deref(), options.log_format)
        .map_err(|source| StartError::Log { path: options.log_file.clone().unwrap_or_default(), source })?;
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(THREADS)
        .enable_all()
        .build()
        .map_err(StartError::Os)?;
    let code = runtime.block_on(async {
        let candidates = candidates(&surroundings(options, &env, &dirs));
        let endpoint = match service.take_socket()? {
            Some(socket) => Endpoint::adopt(socket, &candidates)?,
            None => Endpoint::claim_first(&candidates)?,
        };
        let signals = Signals::new().map_err(StartError::Os)?;
        Supervisor::start(options.clone(), dirs, endpoint.path().to_owned(), service)?
            .run(endpoint, signals)
            .await
    });
    runtime.shutdown_timeout(Duration::from_secs(1));
    code
}

fn surroundings(options: &Options, env: &BTreeMap<String, String>, dirs: &Dirs) -> Surroundings {
    // Set to nothing means not set, as for the clients.
    let non_empty = |name: &str| env.get(name).filter(|value| !value.is_empty()).map(PathBuf::from);
    Surroundings {
        explicit: options.socket.clone().or_else(|| non_empty(SOCKET_VARIABLE)),
        runtime_dir: non_empty("XDG_RUNTIME_DIR"),
        uid: nix::unistd::geteuid().as_raw(),
        home: Some(dirs.home.clone()),
    }
}

/// Owns what changes while the daemon runs.
struct Supervisor {
    options: Options,
    file: ConfigFile,
    shared: Arc<Shared>,
    config: watch::Sender<Arc<ConfigInUse>>,
    deno: watch::Sender<Option<PathBuf>>,
    phase: watch::Sender<Phase>,
    commands: mpsc::Receiver<Command>,
    /// The pool and the search for Deno; the end of either is the end of the daemon.
    tasks: JoinSet<()>,
    sessions: JoinSet<()>,
    service: Service,
    /// The socket is gone and could not be made again so far.
    is_out_of_place: bool,
    exit_code: u8,
}

impl Supervisor {
    fn start(
        options: Options,
        dirs: Arc<Dirs>,
        socket: PathBuf,
        service: Service,
    ) -> Result<Self, StartError> {
        // Before anything is started, which would stay behind in the old group.
        let cgroups = Cgroups::settle();
        if let Err(error) = descriptors::keep_from_children() {
            tracing::warn!(%error, "upstream servers get what the daemon was started with");
        }
        let max_connections = descriptors::raise().map_err(StartError::Os)?;
        let stats = Arc::new(Stats::default());
        let file = ConfigFile::new(options.config.as_deref(), dirs.config_file());
        let in_use = file.first();
        if let Err(error) = &in_use.config {
            tracing::error!(%error, "the configuration cannot be used; every call answers with this");
            stats.error("config", error.to_string());
        }
        let parsed = in_use.config.as_ref().ok();
        let pool_config = parsed.map(|config| config.pool.settings()).unwrap_or_default();
        let explicit = options.deno.clone().or_else(|| parsed.and_then(|config| config.deno.clone()));
        let mut tasks = JoinSet::new();

        let (deno, deno_reader) = watch::channel(explicit);
        let (deno_task, deno_handle) = DenoTask::new(deno_reader, dirs.data.clone());
        tasks.spawn(deno_task.run());

        let mut spawn = SpawnConfig::new(dirs.cache.clone());
        spawn.boot_timeout = pool_config.boot_timeout;
        spawn.cgroups = cgroups;
        parsed.map(|config| config.jail).unwrap_or_default().apply(&mut spawn);
        let source = DenoSpawn::new(spawn);
        let jail = Jail::new(source.clone());
        let mut sessions = JoinSet::new();
        // Not among the tasks, since it ends. Going down waits for it as for a session: it takes milliseconds.
        sessions.spawn(jail.clone().try_out());
        let (packages, layers_task) =
            PackageService::open(&dirs, source.clone()).map_err(StartError::Packages)?;
        tasks.spawn(layers_task.run());
        let packages = Arc::new(packages);
        let registry = Registry::default();
        let (phase, phase_reader) = watch::channel(Phase::Running);
        let clients = ClientRouter::new(registry.clone(), phase_reader.clone());
        let upstreams = Arc::new(UpstreamService::new(&dirs, Arc::new(clients)));
        let swept = upstreams.clone();
        tasks.spawn(async move { swept.sweep().await });
        #[cfg(target_os = "linux")]
        let source = {
            let (workers, templates) = DenoWorkers::new(source);
            tasks.spawn(templates.run());
            workers
        };
        let (pool, pool_task) = conductor_pool::task::pool(pool_config, Arc::new(source))?;
        tasks.spawn(pool_task.run());

        let http = Http::new(&dirs, &stats);
        let (config, config_reader) = watch::channel(Arc::new(in_use));
        let (command_sender, commands) = mpsc::channel(COMMANDS);
        tasks.spawn(file.clone().follow(command_sender.clone()));
        let store = Arc::new(Store::default());
        let shared = Arc::new(Shared {
            executor: Executor::new(Parts {
                pool: pool.clone(),
                deno: deno_handle.clone(),
                stats: stats.clone(),
                store: store.clone(),
                packages: packages.clone(),
                upstreams: upstreams.clone(),
                dirs: dirs.clone(),
            }),
            pool,
            deno: deno_handle,
            jail,
            stats,
            store,
            packages,
            upstreams,
            http,
            dirs,
            registry,
            commands: command_sender,
            socket,
            max_connections,
            started_at: Instant::now(),
            config: config_reader,
            phase: phase_reader,
        });
        Ok(Self {
            options,
            file,
            shared,
            config,
            deno,
            phase,
            commands,
            tasks,
            sessions,
            service,
            is_out_of_place: false,
            exit_code: exit_code::OK,
        })
    }

    async fn run(mut self, mut endpoint: Endpoint, mut signals: Signals) -> Result<u8, StartError> {
        tracing::info!(socket = %endpoint.path().display(), pid = std::process::id(), build = crate::BUILD, "ready");
        self.service.notifier.ready("serving");
        if let Some(limit) = self.service.watchdog {
            self.tasks.spawn(watchdog::watch(self.shared.clone(), self.service.notifier.clone(), limit));
        }
        // Not among the tasks, since it ends on the way down, which waits for it as for a session.
        self.sessions.spawn(http::serve(self.shared.clone()));
        let mut look = tokio::time::interval(listener::LOOK);
        look.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        let mut idle = Box::pin(idle_exit(self.options.idle_exit, self.shared.registry.connections()));
        while !self.phase.borrow().is_draining() {
            tokio::select! {
                // Cancel-safe: each arm waits for something that stays until it is taken.
                accepted = endpoint.accept() => match accepted {
                    Ok(stream) => drop(self.sessions.spawn(session::serve(stream, self.shared.clone()))),
                    Err(error) => {
                        tracing::warn!(error = %error, "a connection could not be accepted");
                        tokio::time::sleep(ACCEPT_PAUSE).await;
                    }
                },
                Some(_ended) = self.sessions.join_next() => {}
                Some(ended) = self.tasks.join_next() => self.task_ended(ended),
                Some(command) = self.commands.recv() => self.obey(command).await,
                signal = signals.next() => self.obey_signal(signal).await,
                _tick = look.tick() => self.keep_place(&mut endpoint),
                () = &mut idle => {
                    tracing::info!("nobody is connected any more");
                    self.drain("idle");
                }
            }
        }
        // No new connections from here on: a successor can have the socket.
        drop(endpoint);
        self.go_down(signals).await;
        tracing::info!("stopped");
        Ok(self.exit_code)
    }

    /// Clients that do not find the socket start another daemon, which then finds the lock taken.
    fn keep_place(&mut self, endpoint: &mut Endpoint) {
        match endpoint.keep_place() {
            Ok(false) => {}
            Ok(true) => {
                self.is_out_of_place = false;
                tracing::warn!(socket = %endpoint.path().display(), "the socket was gone and is there again");
            }
            Err(error @ ClaimError::AlreadyRunning { .. }) => {
                tracing::warn!(%error, "the socket was gone, and another daemon has its place");
                self.drain("another daemon has its place");
            }
            Err(error) => {
                let error = error_chain(&error);
                if !std::mem::replace(&mut self.is_out_of_place, true) {
                    tracing::warn!(
                        error,
                        "the socket is gone and cannot be made again; this is tried until it works"
                    );
                    self.shared.stats.error("socket", error);
                }
            }
        }
    }

    async fn obey(&mut self, command: Command) {
        match command {
            Command::Reload(done) => {
                let outcome = self.reload(Trigger::Asked).await;
                // operator gone: the log has it too
                let _told = done.send(outcome);
            }
            // The log has what came of it.
            Command::FileChanged => drop(self.reload(Trigger::Noticed).await),
            Command::Stop(done) => {
                self.drain("asked by an operator");
                let _told = done.map(|done| done.send(Ok("the daemon is going down".into())));
            }
        }
    }

    async fn obey_signal(&mut self, signal: SignalEvent) {
        match signal {
            SignalEvent::Stop => self.drain("signal"),
            SignalEvent::Reload => drop(self.reload(Trigger::Asked).await),
        }
    }

    fn drain(&mut self, why: &str) {
        tracing::info!(why, "going down");
        self.service.notifier.stopping(GRACE + CLEAN_UP + Duration::from_secs(5));
        self.phase.send_replace(Phase::Draining { deadline: Instant::now() + GRACE });
    }

    fn task_ended(&mut self, ended: Result<(), tokio::task::JoinError>) {
        let error = ended.err().map_or_else(|| "it ended by itself".to_owned(), |error| error.to_string());
        tracing::error!(error, "a part of the daemon failed; it goes down so that a new one can start");
        self.exit_code = exit_code::SOFTWARE;
        self.drain("internal failure");
    }

    /// Takes what the configuration file says now, whole or not at all. What runs goes on with what it began with.
    async fn reload(&mut self, trigger: Trigger) -> Result<String, String> {
        let before = self.config.borrow().clone();
        let fresh = match self.file.again(&before, trigger) {
            Ok(None) => {
                self.right_again(&before);
                return Ok("the configuration is the same".into());
            }
            fresh => fresh.and_then(|config| self.usable(config.unwrap_or_default())),
        };
        if fresh.as_ref().err().is_some_and(|error| before.reload_error.as_ref() == Some(error))
            && trigger == Trigger::Noticed
        {
            return Err("the configuration is as wrong as before".into());
        }
        self.service.notifier.reloading();
        let outcome = match fresh {
            Ok(config) => self.take(config, &before).await,
            Err(error) => Err(self.refuse(error, &before)),
        };
        let status = outcome.as_ref().err().map_or("serving", |error| error.as_str());
        self.service.notifier.ready(status);
        outcome
    }

    /// Whether this daemon can do as the file says.
    fn usable(&self, config: Config) -> Result<Config, String> {
        config.pool.settings().validate().map_err(|error| error.to_string())?;
        // Not taken in part: `strict` would be written there, and not be so.
        if self.shared.jail.differs_from(config.jail) {
            return Err(JAIL_CHANGED.to_owned());
        }
        Ok(config)
    }

    async fn take(&mut self, config: Config, before: &ConfigInUse) -> Result<String, String> {
        let explicit = self.options.deno.clone().or_else(|| config.deno.clone());
        self.deno.send_if_modified(|in_use| {
            let changed = *in_use != explicit;
            *in_use = explicit;
            changed
        });
        self.shared.deno.search_again();
        self.shared.packages.look_again();
        self.shared.http.read_again(&self.shared.stats);
        self.shared.pool.reconfigure(config.pool.settings()).await.map_err(|error| error.to_string())?;
        self.config.send_replace(Arc::new(ConfigInUse {
            generation: before.generation + 1,
            path: self.file.existing(),
            config: Ok(config),
            reload_error: None,
        }));
        tracing::info!("the configuration was read again");
        Ok("the configuration was read again".into())
    }

    /// Keeps what is in use, and says so until the file is right.
    fn refuse(&self, error: String, before: &ConfigInUse) -> String {
        tracing::error!(error, "the configuration cannot be used; the one before stays in use");
        self.shared.stats.error("config", error.clone());
        self.keep(before, Some(error.clone()));
        error
    }

    /// The file says again what is in use.
    fn right_again(&self, before: &ConfigInUse) {
        if before.reload_error.is_some() {
            tracing::info!("the configuration is right again, and says what is in use");
            self.keep(before, None);
        }
    }

    fn keep(&self, before: &ConfigInUse, reload_error: Option<String>) {
        self.config.send_replace(Arc::new(ConfigInUse {
            generation: before.generation,
            path: before.path.clone(),
            config: before.config.clone(),
            reload_error,
        }));
    }

    async fn go_down(&mut self, mut signals: Signals) {
        self.shared.packages.save();
        let deadline = self.phase.borrow().deadline();
        let (pool, upstreams) = (self.shared.pool.clone(), self.shared.upstreams.clone());
        let draining = async {
            while self.sessions.join_next().await.is_some() {}
            // pool gone: it has no workers any more
            let drain = pool.drain(deadline.saturating_duration_since(Instant::now()));
            let (_drained, ()) = tokio::join!(drain, upstreams.shutdown(deadline));
        };
        tokio::select! {
            // Not resumed after it has lost, so cancel safety does not matter.
            () = draining => return,
            () = tokio::time::sleep_until((deadline + CLEAN_UP).into()) => {}
            () = second_stop(&mut signals) => {}
        }
        tracing::warn!("calls were cut off");
        self.sessions.abort_all();
        let upstreams = self.shared.upstreams.shutdown(Instant::now());
        let (_drained, ()) = tokio::join!(self.shared.pool.drain(Duration::ZERO), upstreams);
    }
}

/// Ready at the next TERM or INT.
async fn second_stop(signals: &mut Signals) {
    while signals.next().await != SignalEvent::Stop {}
}

/// Ready when nobody has been connected for `limit`; never without one.
async fn idle_exit(limit: Option<Duration>, mut connections: watch::Receiver<usize>) {
    let Some(limit) = limit else { return std::future::pending().await };
    loop {
        // An error is the registry's end, which the supervisor outlives only while going down.
        if connections.wait_for(|count| *count == 0).await.is_err() {
            return;
        }
        tokio::select! {
            // Cancel-safe: both only wait.
            () = tokio::time::sleep(limit) => return,
            _changed = connections.wait_for(|count| *count > 0) => {}
        }
    }
}
