//! The status document as text for 80 to 100 columns. Pure.

use std::collections::BTreeMap;
use std::fmt::Write;

use comfy_table::{CellAlignment, Table, presets};
use conductor_protocol::status::{
    DaemonStatus, DenoStatus, ErrorStatus, ExecutionTotals, HttpStatus, JailStatus, LatencyStatus,
    PackagesStatus, PoolReport, ProfileStatus, SessionStatus, StatusReport, TemplatesStatus, UpstreamStatus,
};

use super::paint::{Paint, day, millis, printable, size, span};
use super::tokens;

/// Errors shown; `--json` has them all.
const SHOWN_ERRORS: usize = 5;

pub(super) fn status(report: &StatusReport, paint: Paint) -> String {
    let mut page = Page::new(paint);
    page.daemon(&report.daemon);
    page.deno(&report.deno);
    page.jail(&report.jail);
    page.warnings(&report.warnings);
    page.pool(&report.pool);
    page.packages(&report.packages);
    page.sessions(&report.sessions);
    page.http(&report.http);
    if !report.upstreams.is_empty() {
        page.heading("Servers", &report.upstreams.len().to_string());
        page.servers(&report.upstreams);
    }
    page.executions(&report.executions, &report.latency);
    page.errors(&report.last_errors);
    page.text
}

/// Text that grows line by line.
pub(super) struct Page {
    text: String,
    paint: Paint,
}

impl Page {
    pub(super) fn new(paint: Paint) -> Self {
        Self { text: String::new(), paint }
    }

    pub(super) fn text(self) -> String {
        self.text
    }

    pub(super) fn warning(&mut self, text: &str) {
        let label = self.paint.warning("warning:");
        self.line(&format!("{label} {}", hang(&printable(text), 9)));
    }

    pub(super) fn failure(&mut self, text: &str) {
        let label = self.paint.bad("  failed:");
        self.line(&format!("{label} {}", hang(&printable(text), 4)));
    }

    fn daemon(&mut self, daemon: &DaemonStatus) {
        let phase = match daemon.phase.as_str() {
            "running" => self.paint.good("running"),
            other => self.paint.warning(&printable(other)),
        };
        let name = self.paint.bold(&format!("conductord {}", printable(&daemon.build)));
        let uptime = span(daemon.uptime_ms);
        let memory = size(daemon.rss_bytes);
        self.line(&format!("{name}  {phase} for {uptime}, pid {}, {memory}", daemon.pid));
        self.entry("socket", &daemon.socket);
        self.entry("config", daemon.config.as_deref().unwrap_or("none, built-in defaults"));
    }

    fn deno(&mut self, deno: &DenoStatus) {
        let version = deno.version.as_deref().unwrap_or("?");
        let mut text = match deno.state.as_str() {
            "ready" => version.to_owned(),
            "fetching" => fetching(deno),
            other => other.to_owned(),
        };
        if let Some(path) = &deno.path {
            write!(text, "  {path}").expect("a String takes everything");
        }
        if let Some(origin) = &deno.origin {
            write!(text, "  (from {origin})").expect("a String takes everything");
        }
        self.entry("deno", &text);
        if let Some(update) = &deno.update {
            self.entry("", &format!("{update} is newer, and what conductor is tested with"));
        }
        if let Some(error) = &deno.error {
            self.entry("", error);
        }
    }

    fn jail(&mut self, jail: &JailStatus) {
        // A daemon from before there was one.
        if jail.level.is_empty() {
            return;
        }
        self.entry("jail", &jail_in_words(jail));
        for layer in &jail.layers {
            if let Some(reason) = &layer.reason {
                self.entry("", &format!("{} is {}: {reason}", layer.name, layer.state));
            }
        }
        for finding in &jail.broken {
            self.entry("", &format!("does not hold: {finding}"));
        }
    }

    fn warnings(&mut self, warnings: &[String]) {
        for warning in warnings {
            self.warning(warning);
        }
    }

    fn pool(&mut self, pool: &PoolReport) {
        let workers: u64 = pool.profiles.iter().map(|p| p.idle + p.busy + p.booting).sum();
        let (max, idle) = (pool.max_workers, pool.max_idle);
        self.heading("Pool", &format!("{} (limits: {max} in all, {idle} idle)", count(workers, "worker")));
        if pool.profiles.is_empty() {
            return;
        }
        let header = [
            "PROFILE", "IDLE", "BUSY", "BOOTING", "QUEUED", "SESSIONS", "BOOTED", "FAILED", "BOOT",
            "BREAKER", "SOURCE",
        ];
        self.table(&header, &[1, 2, 3, 4, 5, 6, 7, 8], pool.profiles.iter().map(profile_row));
        for profile in &pool.profiles {
            self.profile_details(profile);
        }
    }

    fn profile_details(&mut self, profile: &ProfileStatus) {
        let named = |name: &str, value: &str| (!value.is_empty()).then(|| format!("{name}: {value}"));
        let details = [
            named("may", &profile.grants),
            named("workspace", &profile.workspace),
            named("not forked", profile.fallback.as_deref().unwrap_or_default()),
            named("last boot error", profile.last_boot_error.as_deref().unwrap_or_default()),
        ];
        let templates = profile.templates.iter().flat_map(template_details);
        let templates = templates.filter_map(|(name, value)| named(name, &value));
        let left_out = profile.left_out.iter().map(|package| format!("left out: {package}"));
        for detail in details.into_iter().flatten().chain(templates).chain(left_out) {
            let text = format!("  {}  {}", printable(&profile.id), hang(&printable(&detail), 4));
            self.line(&self.paint.dim(&text));
        }
    }

    fn packages(&mut self, profiles: &[PackagesStatus]) {
        if profiles.is_empty() {
            return;
        }
        self.heading("Packages", "");
        for packages in profiles {
            let allowed = match packages.allowed {
                Some(allowed) => format!("{} allowed", count(allowed, "package")),
                None => "any allowed".to_owned(),
            };
            let layer = packages.layer.as_deref().map(|layer| format!(", layer {}", short(layer)));
            let building =
                packages.building.as_deref().map(|phase| format!(", building: {}", printable(phase)));
            let profile = printable(&packages.profile);
            self.line(&format!(
                "  {profile}: {allowed}{}{}",
                layer.unwrap_or_default(),
                building.unwrap_or_default()
            ));
            for it in &packages.preloaded {
                let (saves, memory) = (millis(it.import_ms), size(it.memory_bytes));
                let name = printable(&it.specifier);
                self.line(&format!(
                    "    {name} imported ahead of time: saves {saves} a call, takes {memory} a worker"
                ));
            }
            if let Some(error) = &packages.error {
                self.failure(error);
            }
        }
    }

    fn sessions(&mut self, sessions: &[SessionStatus]) {
        self.heading("Sessions", &sessions.len().to_string());
        if sessions.is_empty() {
            return;
        }
        let header = ["ID", "KIND", "PID", "CLIENT", "PROFILE", "CALLS", "NOW", "AGE", "DIRECTORY"];
        self.table(&header, &[0, 2, 5, 6], sessions.iter().map(session_row));
        for session in sessions {
            if let Some(error) = &session.error {
                let label = self.paint.bad(&format!("  session {} is refused:", session.id));
                self.line(&format!("{label} {}", hang(&printable(error), 4)));
            }
        }
        for (session, call) in
            sessions.iter().flat_map(|session| session.running.iter().map(move |call| (session, call)))
        {
            let (execution, age) = (printable(&call.execution), span(call.age_ms));
            self.line(&format!("  session {} runs {execution} for {age}", session.id));
        }
    }

    /// Upstream servers, and below them what is wrong with any.
    pub(super) fn servers(&mut self, servers: &[UpstreamStatus]) {
        let header =
            ["SERVER", "STATE", "TOOLS", "SESSIONS", "NOW", "STARTS", "READY", "PID", "BY", "TARGET"];
        self.table(&header, &[2, 3, 4, 5], servers.iter().map(server_row));
        for server in servers {
            let name = &server.name;
            if let Some(reason) = &server.reason {
                self.failure(&format!("{name}: {reason}"));
            }
            for problem in &server.problems {
                self.warning(&format!("{name}: {problem}"));
            }
            if let Some(advice) = &server.advice {
                self.warning(&format!("{name}: {advice}"));
            }
        }
    }

    fn executions(&mut self, totals: &ExecutionTotals, latency: &[LatencyStatus]) {
        let ended = totals.succeeded + totals.failed;
        let running = totals.started.saturating_sub(ended);
        let mut text =
            format!("{} started, {} succeeded, {} failed", totals.started, totals.succeeded, totals.failed);
        if running > 0 {
            write!(text, ", {running} running").expect("a String takes everything");
        }
        self.heading("Calls", &text);
        if !totals.by_error.is_empty() {
            let kinds: Vec<_> =
                totals.by_error.iter().map(|(kind, n)| format!("{} {n}", printable(kind))).collect();
            self.line(&format!("  failed by: {}", kinds.join(", ")));
        }
        // As long as all are spawned there is nothing to tell.
        if totals.by_worker.contains_key("fork") {
            let kinds: Vec<_> =
                totals.by_worker.iter().map(|(kind, n)| format!("{} {n}", printable(kind))).collect();
            self.line(&format!("  served by: {}", kinds.join(", ")));
        }
        if latency.iter().any(|latency| latency.count > 0) {
            self.table(
                &["TIME", "COUNT", "P50", "P90", "P99", "MAX"],
                &[1, 2, 3, 4, 5],
                latency.iter().map(latency_row),
            );
        }
    }

    fn errors(&mut self, errors: &[ErrorStatus]) {
        if errors.is_empty() {
            return;
        }
        let older = errors.len().saturating_sub(SHOWN_ERRORS);
        let note =
            if older > 0 { format!("newest last; {older} older in --json") } else { "newest last".into() };
        self.heading("Last errors", &note);
        for error in &errors[older..] {
            let head = self.paint.dim(&format!("  {} ago", span(error.ago_ms)));
            self.line(&format!("{head}  {}: {}", printable(&error.area), hang(&printable(&error.text), 4)));
        }
    }

    fn http(&mut self, http: &HttpStatus) {
        if !http.enabled && http.tokens.is_empty() {
            return;
        }
        let place = match http.urls.as_slice() {
            [] if http.enabled => self.paint.bad("not listening"),
            [] => "off".to_owned(),
            urls => printable(&urls.join(", ")),
        };
        self.heading("HTTP", &place);
        if let Some(error) = &http.error {
            self.failure(error);
        }
        if http.enabled {
            let refused = http.refused.iter().map(|(why, n)| format!("{n} {}", printable(why)));
            let refused = refused.collect::<Vec<_>>().join(", ");
            let refused = if refused.is_empty() { "none".to_owned() } else { refused };
            let connections = count(http.connections, "connection");
            let turned_away = match http.turned_away {
                0 => String::new(),
                n => format!(" ({n} turned away)"),
            };
            let requests = count(http.requests, "request");
            self.line(&format!("  {connections}{turned_away}, {requests}, refused: {refused}"));
        }
        if let Some(certificate) = &http.certificate {
            let until =
                certificate.not_after.map(|at| format!(", good until {}", day(at))).unwrap_or_default();
            self.line(&format!("  certificate {}{until}", printable(&certificate.path)));
        }
        if let Some(reason) = &http.plaintext_because {
            self.line(&format!("  not encrypted, because: {}", printable(reason)));
        }
        self.tokens(http);
        if http.enabled && http.tokens.is_empty() {
            self.line("  nobody has a token; `conductorctl token add NAME` makes one");
        }
    }

    pub(super) fn tokens(&mut self, http: &HttpStatus) {
        for token in &http.tokens {
            self.line(&tokens::row(token, self.paint));
            if let Some(problem) = &token.problem {
                self.failure(problem);
            }
        }
        if let Some(error) = &http.tokens_error {
            self.failure(error);
        }
    }

    pub(super) fn heading(&mut self, name: &str, text: &str) {
        let name = self.paint.bold(&format!("{name}:"));
        let gap = if self.text.is_empty() { "" } else { "\n" };
        self.line(&format!("{gap}{name} {text}"));
    }

    fn entry(&mut self, name: &str, value: &str) {
        let value = hang(&printable(value), 10);
        self.line(&format!("  {name:<6}  {value}"));
    }

    /// Columns without borders; those in `right` are numbers.
    pub(super) fn table<const N: usize>(
        &mut self,
        header: &[&str; N],
        right: &[usize],
        rows: impl Iterator<Item = [String; N]>,
    ) {
        let mut rows = rows.peekable();
        if rows.peek().is_none() {
            return;
        }
        let mut table = Table::new();
        table.load_preset(presets::NOTHING).set_header(header);
        table.add_rows(rows.map(|row| row.map(|cell| printable(&cell).replace('\n', " "))));
        for &index in right {
            if let Some(column) = table.column_mut(index) {
                column.set_cell_alignment(CellAlignment::Right);
            }
        }
        for column in table.column_iter_mut() {
            column.set_padding((0, 2));
        }
        for (index, line) in table.lines().enumerate() {
            let line = format!("  {}", line.trim_end());
            self.line(&if index == 0 { self.paint.dim(&line) } else { line });
        }
    }

    pub(super) fn line(&mut self, line: &str) {
        self.text.push_str(line.trim_end());
        self.text.push('\n');
    }
}

/// The level, whether it holds, and by which layers.
pub(super) fn jail_in_words(jail: &JailStatus) -> String {
    let (level, state) = (&jail.level, &jail.state);
    let active: Vec<_> =
        jail.layers.iter().filter(|layer| layer.state == "active").map(|layer| layer.name.as_str()).collect();
    let mut text = format!("{level}, {state}");
    if jail.refuses {
        text.push_str(", so no code runs");
    }
    if !active.is_empty() {
        write!(text, ": {}", active.join(", ")).expect("a String takes everything");
    }
    if jail.landlock_abi > 0 {
        write!(text, " (Landlock ABI {})", jail.landlock_abi).expect("a String takes everything");
    }
    text
}

fn fetching(deno: &DenoStatus) -> String {
    match (deno.fetched_bytes, deno.total_bytes) {
        (Some(have), Some(total)) if total > 0 => {
            format!("fetching, {} of {}", size(have), size(total))
        }
        _ => "fetching".into(),
    }
}

fn profile_row(profile: &ProfileStatus) -> [String; 11] {
    let or_dash = |text: &str| if text.is_empty() { "-".to_owned() } else { text.to_owned() };
    [
        profile.id.clone(),
        profile.idle.to_string(),
        profile.busy.to_string(),
        profile.booting.to_string(),
        profile.queued.to_string(),
        profile.sessions.to_string(),
        profile.booted.to_string(),
        profile.boot_failures.to_string(),
        profile.boot_p50_ms.map_or_else(|| "-".into(), millis),
        or_dash(&profile.breaker),
        or_dash(&profile.source),
    ]
}

/// What forked workers come from, under one name each; nothing where nothing has happened.
fn template_details(templates: &TemplatesStatus) -> [(&'static str, String); 3] {
    let by_kind = |counts: &BTreeMap<String, u64>| {
        let counts = counts.iter().map(|(kind, count)| format!("{kind} {count}"));
        counts.collect::<Vec<_>>().join(", ")
    };
    let serving = templates.pid.map(|_| {
        let (forks, memory) = (count(templates.forks, "fork"), size(templates.memory_bytes));
        format!("{memory}, {} old, {forks}", span(templates.age_ms))
    });
    let mut ended = by_kind(&templates.ended);
    if !ended.is_empty() {
        ended = format!("{} built, ended by: {ended}", templates.built);
    }
    let mut failures = by_kind(&templates.failures);
    if templates.gave_up > 0 {
        failures.push_str(&format!("; given up {}", count(templates.gave_up, "time")));
    }
    [("template", serving.unwrap_or_default()), ("templates", ended), ("failed forks", failures)]
}

fn session_row(session: &SessionStatus) -> [String; 9] {
    let or_dash = |text: &Option<String>| text.clone().unwrap_or_else(|| "-".into());
    [
        session.id.to_string(),
        session.kind.clone(),
        // Over HTTP there is no process to be known.
        if session.client_pid == 0 { "-".into() } else { session.client_pid.to_string() },
        or_dash(&session.client),
        or_dash(&session.profile),
        session.executions.to_string(),
        session.in_flight.to_string(),
        span(session.age_ms),
        session.token.as_ref().map_or_else(|| session.cwd.clone(), |token| format!("token {token}")),
    ]
}

fn server_row(server: &UpstreamStatus) -> [String; 10] {
    let or_dash = |text: Option<String>| text.filter(|text| !text.is_empty()).unwrap_or_else(|| "-".into());
    [
        server.name.clone(),
        server.state.clone(),
        or_dash(server.tools.map(|tools| tools.to_string())),
        server.sessions.len().to_string(),
        server.in_flight.to_string(),
        server.starts.to_string(),
        or_dash(server.ready_ms.map(span)),
        or_dash(Some(server.pids.iter().map(u32::to_string).collect::<Vec<_>>().join(" "))),
        or_dash(server.transport.clone()),
        or_dash(server.target.clone()),
    ]
}

fn latency_row(latency: &LatencyStatus) -> [String; 6] {
    let times = [latency.p50_ms, latency.p90_ms, latency.p99_ms, latency.max_ms].map(millis);
    let [p50, p90, p99, max] = times;
    [latency.name.clone(), latency.count.to_string(), p50, p90, p99, max]
}

/// Enough of a hash to tell it from the others.
pub(super) fn short(hash: &str) -> &str {
    hash.get(..12).unwrap_or(hash)
}

pub(super) fn count(n: u64, what: &str) -> String {
    if n == 1 { format!("1 {what}") } else { format!("{n} {what}s") }
}

/// Lines after the first start in column `indent`.
fn hang(text: &str, indent: usize) -> String {
    text.trim_end().replace('\n', &format!("\n{:indent$}", ""))
}

#[cfg(test)]
mod tests;
