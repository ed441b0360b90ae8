use conductor_protocol::status::{CertificateStatus, LayerStatus, TokenStatus};

use super::*;

fn text(report: &StatusReport) -> String {
    status(report, Paint::Plain)
}

fn busy() -> StatusReport {
    StatusReport {
        daemon: DaemonStatus {
            build: "0.1.0".into(),
            protocol: 1,
            pid: 4242,
            uptime_ms: 7_384_000,
            socket: "/run/user/1000/conductor/conductord.sock".into(),
            config: Some("/home/a/.config/conductor/config.toml".into()),
            phase: "running".into(),
            rss_bytes: 17 << 20,
            descriptors: 30,
        },
        deno: DenoStatus {
            state: "ready".into(),
            version: Some("2.9.5".into()),
            path: Some("/usr/bin/deno".into()),
            origin: Some("PATH".into()),
            update: Some("2.9.6".into()),
            ..DenoStatus::default()
        },
        jail: JailStatus {
            level: "best-effort".into(),
            state: "incomplete".into(),
            layers: [
                ("limits", "active", None),
                ("landlock", "partial", Some("no ports")),
                ("no-new-code", "off", None),
            ]
            .map(|(name, state, reason)| LayerStatus {
                name: name.into(),
                state: state.into(),
                reason: reason.map(Into::into),
            })
            .into(),
            landlock_abi: 3,
            broken: vec!["make a socket: it was done".into()],
            refuses: false,
        },
        sessions: vec![
            SessionStatus {
                id: 3,
                kind: "shim".into(),
                client_pid: 77,
                client: Some("an-ide 1.2".into()),
                cwd: "/home/a/project".into(),
                age_ms: 65_000,
                profile: Some("default".into()),
                executions: 12,
                in_flight: 1,
                ..SessionStatus::default()
            },
            SessionStatus {
                id: 14,
                kind: "shim".into(),
                client_pid: 1078,
                cwd: "/".into(),
                error: Some("unknown flag `allow-nte`\nhint: allow-net".into()),
                ..SessionStatus::default()
            },
            SessionStatus {
                id: 15,
                kind: "http".into(),
                token: Some("laptop".into()),
                client: Some("agent 2".into()),
                profile: Some("bob".into()),
                ..SessionStatus::default()
            },
        ],
        http: HttpStatus {
            enabled: true,
            urls: vec!["https://127.0.0.1:7780/mcp".into()],
            certificate: Some(CertificateStatus {
                path: "/etc/c.pem".into(),
                not_after: Some(1_798_761_600),
                ..CertificateStatus::default()
            }),
            connections: 2,
            turned_away: 1,
            requests: 40,
            refused: [("unauthorized".to_owned(), 3)].into(),
            tokens: vec![TokenStatus {
                name: "laptop".into(),
                profile: "bob".into(),
                sessions: 1,
                requests: 40,
                unused_ms: Some(60_000),
                problem: Some("it is for nobody\nhint: revoke it".into()),
                ..TokenStatus::default()
            }],
            ..HttpStatus::default()
        },
        pool: PoolReport {
            max_workers: 16,
            max_idle: 8,
            profiles: vec![ProfileStatus {
                id: "87a0fd16c0b6".into(),
                source: "spawn".into(),
                fallback: None,
                templates: Some(TemplatesStatus {
                    pid: Some(4711),
                    age_ms: 65_000,
                    forks: 512,
                    memory_bytes: 9 << 20,
                    built: 3,
                    ended: [("age".to_owned(), 1), ("forks".to_owned(), 1)].into(),
                    failures: [("child".to_owned(), 2)].into(),
                    last_failure: None,
                    gave_up: 1,
                }),
                left_out: vec!["npm:dice@1: it draws random numbers while it is imported".into()],
                grants: "read /ws".into(),
                workspace: "/ws".into(),
                sessions: 1,
                idle: 4,
                busy: 1,
                booting: 0,
                queued: 2,
                breaker: "open".into(),
                last_boot_error: Some("no memory".into()),
                booted: 1234,
                spawned: 722,
                forked: 512,
                boot_failures: 3,
                boot_p50_ms: Some(18.04),
            }],
        },
        executions: ExecutionTotals {
            started: 1229,
            succeeded: 1200,
            failed: 28,
            by_error: [("runtime".to_owned(), 25), ("timeout".to_owned(), 3)].into(),
            by_worker: [("fork".to_owned(), 510), ("spawn".to_owned(), 718)].into(),
        },
        latency: vec![LatencyStatus {
            name: "total".into(),
            count: 1228,
            p50_ms: 1.53,
            p90_ms: 4.0,
            p99_ms: 220.0,
            max_ms: 30_000.0,
        }],
        packages: Vec::new(),
        upstreams: vec![
            UpstreamStatus {
                name: "files".into(),
                state: "ready".into(),
                transport: Some("stdio".into()),
                target: Some("npx files-mcp /ws".into()),
                tools: Some(14),
                sessions: vec![3, 14],
                pids: vec![812],
                in_flight: 1,
                starts: 1,
                ready_ms: Some(65_000),
                ..UpstreamStatus::default()
            },
            UpstreamStatus {
                name: "web".into(),
                state: "disabled".into(),
                reason: Some("`url`: it must begin with http:// or https://".into()),
                ..UpstreamStatus::default()
            },
        ],
        last_errors: (0..7)
            .map(|n| ErrorStatus {
                ago_ms: 70_000 - n * 10_000,
                area: "execution".into(),
                text: format!("error {n}"),
            })
            .collect(),
        warnings: vec!["session 3: may run any program".into()],
    }
}

#[test]
fn a_busy_daemon() {
    let expected = "\
conductord 0.1.0  running for 2h 3m, pid 4242, 17 MiB
  socket  /run/user/1000/conductor/conductord.sock
  config  /home/a/.config/conductor/config.toml
  deno    2.9.5  /usr/bin/deno  (from PATH)
          2.9.6 is newer, and what conductor is tested with
  jail    best-effort, incomplete: limits (Landlock ABI 3)
          landlock is partial: no ports
          does not hold: make a socket: it was done
warning: session 3: may run any program

Pool: 5 workers (limits: 16 in all, 8 idle)
  PROFILE       IDLE  BUSY  BOOTING  QUEUED  SESSIONS  BOOTED  FAILED     BOOT  BREAKER  SOURCE
  87a0fd16c0b6     4     1        0       2         1    1234       3  18.0 ms  open     spawn
  87a0fd16c0b6  may: read /ws
  87a0fd16c0b6  workspace: /ws
  87a0fd16c0b6  last boot error: no memory
  87a0fd16c0b6  template: 9 MiB, 1m 5s old, 512 forks
  87a0fd16c0b6  templates: 3 built, ended by: age 1, forks 1
  87a0fd16c0b6  failed forks: child 2; given up 1 time
  87a0fd16c0b6  left out: npm:dice@1: it draws random numbers while it is imported

Sessions: 3
  ID  KIND   PID  CLIENT      PROFILE  CALLS  NOW  AGE    DIRECTORY
   3  shim    77  an-ide 1.2  default     12    1  1m 5s  /home/a/project
  14  shim  1078  -           -            0    0  0s     /
  15  http     -  agent 2     bob          0    0  0s     token laptop
  session 14 is refused: unknown flag `allow-nte`
    hint: allow-net

HTTP: https://127.0.0.1:7780/mcp
  2 connections (1 turned away), 40 requests, refused: 3 unauthorized
  certificate /etc/c.pem, good until 2027-01-01
  laptop  profile bob, 40 requests, 1 session, used 1m ago
  failed: it is for nobody
    hint: revoke it

Servers: 2
  SERVER  STATE     TOOLS  SESSIONS  NOW  STARTS  READY  PID  BY     TARGET
  files   ready        14         2    1       1  1m 5s  812  stdio  npx files-mcp /ws
  web     disabled      -         0    0       0  -      -    -      -
  failed: web: `url`: it must begin with http:// or https://

Calls: 1229 started, 1200 succeeded, 28 failed, 1 running
  failed by: runtime 25, timeout 3
  served by: fork 510, spawn 718
  TIME   COUNT     P50     P90     P99     MAX
  total   1228  1.5 ms  4.0 ms  220 ms  30.0 s

Last errors: newest last; 2 older in --json
  50s ago  execution: error 2
  40s ago  execution: error 3
  30s ago  execution: error 4
  20s ago  execution: error 5
  10s ago  execution: error 6
";
    assert_eq!(text(&busy()), expected);
    assert!(expected.lines().all(|line| line.len() <= 100));
}

#[test]
fn a_daemon_that_has_just_started() {
    let report = StatusReport {
        daemon: DaemonStatus { build: "0.1.0".into(), phase: "draining".into(), ..DaemonStatus::default() },
        deno: DenoStatus {
            state: "fetching".into(),
            fetched_bytes: Some(30 << 20),
            total_bytes: Some(40 << 20),
            ..DenoStatus::default()
        },
        ..StatusReport::default()
    };
    let expected = "\
conductord 0.1.0  draining for 0s, pid 0, 0 MiB
  socket
  config  none, built-in defaults
  deno    fetching, 30 MiB of 40 MiB

Pool: 0 workers (limits: 0 in all, 0 idle)

Sessions: 0

Calls: 0 started, 0 succeeded, 0 failed
";
    assert_eq!(text(&report), expected);
}

#[test]
fn what_others_wrote_cannot_draw_on_the_terminal() {
    let mut report = busy();
    report.sessions[0].cwd = "/\u{1b}[2J\nevil".into();
    report.sessions[0].client = Some("\u{7}".into());
    report.http.tokens[0].name = "\u{1b}[2J".into();
    report.http.urls[0] = "\u{9b}2J".into();
    report.pool.profiles[0].grants = "\r".into();
    report.jail.broken[0] = "\u{1b}[2J".into();
    report.last_errors[6].text = "\u{9b}2J".into();
    let text = text(&report);
    assert!(text.chars().all(|c| c == '\n' || !c.is_control()), "{text:?}");
    assert_eq!(text.lines().count(), super::status(&busy(), Paint::Plain).lines().count());
}

#[test]
fn colour_adds_nothing_but_escapes() {
    let coloured = status(&busy(), Paint::Coloured);
    assert_ne!(coloured, text(&busy()));
    assert_eq!(console::strip_ansi_codes(&coloured), text(&busy()));
}
