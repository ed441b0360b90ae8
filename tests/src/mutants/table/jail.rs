//! Mistakes in the jail: each takes a part of one layer away.

use super::Mutation;

/// All tests of the jail itself: from the compiled filter to the attempts made from the inside.
const JAIL: &str = "-p conductor-jail";

/// The attempts alone, as root and as nobody.
const PROBE: &str = "-p conductor-jail --test probe";

const PROGRAMS: &str = "-p conductor-pool --test worker programs::";

const LIMITS: &str = "pool/jail/src/linux/limits.rs";
const PRIVILEGES: &str = "pool/jail/src/linux/privileges.rs";
const FILES: &str = "pool/jail/src/linux/files.rs";
const TABLES: &str = "pool/jail/src/linux/filter/tables.rs";
const FILTER: &str = "pool/jail/src/linux/filter.rs";
const DISPATCH: &str = "pool/jail/src/linux/filter/dispatch.rs";
const LAUNCHER: &str = "pool/src/launcher.rs";
const PROCESS: &str = "pool/src/worker/process.rs";
const CGROUP: &str = "pool/jail/src/cgroup.rs";
const SPAWN: &str = "pool/src/spawn.rs";
const MEMORY: &str = "pool/src/worker/memory.rs";

pub(super) const MUTATIONS: [Mutation; 27] = [
    // The limit on memory is forgotten.
    Mutation {
        name: "no-limits",
        file: LIMITS,
        find: r#"("memory", Resource::Data, limits.data, 0),"#,
        replace: "",
        red: PROBE,
    },
    // Files that are open already can grow.
    Mutation {
        name: "no-limit-on-files",
        file: LIMITS,
        find: r#"("file size", Resource::Fsize, limits.file_size, 0),"#,
        replace: "",
        red: PROBE,
    },
    // The user's editor is killed before a worker.
    Mutation {
        name: "out-of-memory-score",
        file: LIMITS,
        find: "    volunteer_for_the_killer();",
        replace: "",
        red: "-p conductor-pool --test worker isolation::limits",
    },
    // Root keeps its capabilities.
    Mutation {
        name: "capabilities",
        file: PRIVILEGES,
        find: "Ok(rustix::thread::set_capabilities(None, sets)?)",
        replace: r#"let _ = sets;
    Ok(())"#,
        red: PROBE,
    },
    // Programs of root can get them again.
    Mutation {
        name: "bounding-set",
        file: PRIVILEGES,
        find: "        drop_bounding_set()?;",
        replace: "        let _ = drop_bounding_set;",
        red: "-p conductor-pool --test worker isolation::a_worker_has_no_capabilities",
    },
    // Programs may gain rights that the worker has lost.
    Mutation {
        name: "no-new-privileges",
        file: PRIVILEGES,
        find: "Ok(rustix::thread::set_no_new_privs(true)?)",
        replace: "Ok(())",
        red: JAIL,
    },
    // Hardened workers can make code.
    Mutation {
        name: "new-code",
        file: PRIVILEGES,
        find: "let refuse_gain = libc::c_ulong::from(libc::PR_MDWE_REFUSE_EXEC_GAIN);",
        replace: "let refuse_gain: libc::c_ulong = 0;",
        red: PROBE,
    },
    // Signals and abstract sockets are not restricted.
    Mutation {
        name: "landlock-scope",
        file: FILES,
        find: ".and_then(|ruleset| ruleset.scope(Scope::from_all(ABI_USED)))",
        replace: "",
        red: PROBE,
    },
    // Without a network grant, ports are open.
    Mutation {
        name: "landlock-ports",
        file: FILES,
        find: "if *net != Net::Any {",
        replace: "if matches!(net, Net::Ports(_)) {",
        red: PROBE,
    },
    // A link in the place of a granted directory is followed.
    Mutation {
        name: "landlock-links",
        file: FILES,
        find: "Links::Refused => ResolveFlags::NO_SYMLINKS,",
        replace: "Links::Refused => ResolveFlags::empty(),",
        red: PROBE,
    },
    // What may be read may be written.
    Mutation {
        name: "landlock-read-is-write",
        file: FILES,
        find: "let granted = if jail.run { EXECUTE } else { READ };",
        replace: "let granted = if jail.run { EXECUTE } else { READ | WRITE };",
        red: PROBE,
    },
    // Conductor's own directories are open below a grant.
    Mutation {
        name: "landlock-protected",
        file: FILES,
        find: "if protected.iter().any(|protected| path.starts_with(protected)) {",
        replace: "if protected.iter().any(|protected| path == protected && path.is_file()) {",
        red: "-p conductor-pool --test worker jail::protected",
    },
    // One call is missing from a list.
    Mutation {
        name: "seccomp-a-call",
        file: TABLES,
        find: r#"    SYS_keyctl,
"#,
        replace: "",
        red: PROBE,
    },
    // Any thread may be a process.
    Mutation {
        name: "seccomp-fork",
        file: FILTER,
        find: "self.deny_if(libc::SYS_clone, &clones);",
        replace: "drop(clones);",
        red: JAIL,
    },
    // The newer call that forks is let through.
    Mutation {
        name: "seccomp-new-fork",
        file: FILTER,
        find: "decisions[CLONE3] = Decision::Unknown;",
        replace: "let _ = CLONE3;",
        red: JAIL,
    },
    // Signals go to any process.
    Mutation {
        name: "seccomp-signal",
        file: FILTER,
        find: "for call in [libc::SYS_kill, libc::SYS_tgkill] {",
        replace: "for call in [libc::SYS_tgkill] {",
        red: JAIL,
    },
    // Any program can be executed.
    Mutation {
        name: "seccomp-exec",
        file: FILTER,
        find: "Some(program) => self.deny_if(libc::SYS_execve, &[differs_64(0, program)]),",
        replace: "Some(_) => {}",
        red: JAIL,
    },
    // A socket without a network grant can send to an address.
    Mutation {
        name: "seccomp-datagram",
        file: FILTER,
        find: "self.deny_if(libc::SYS_sendto, &[differs_64(4, 0)]);",
        replace: "",
        red: PROBE,
    },
    // Calls of the 32-bit interface are taken for others.
    Mutation {
        name: "seccomp-interface",
        file: DISPATCH,
        find: "instruction(JUMP_IF_EQUAL, 1, 0, architecture),",
        replace: "instruction(JUMP_IF_EQUAL, 1, 1, architecture),",
        red: JAIL,
    },
    // Descriptors of the daemon that it forgot to close reach workers.
    Mutation {
        name: "close-range",
        file: LAUNCHER,
        find: "SYS_close_range, first, libc::c_uint::MAX",
        replace: "SYS_close_range, first + 5000, libc::c_uint::MAX",
        red: "-p conductor-pool --test worker isolation::limits_descriptors",
    },
    // A worker stays in the daemon's session.
    Mutation {
        name: "own-session",
        file: LAUNCHER,
        find: r#"    rustix::process::setsid()?;
"#,
        replace: "",
        red: "-p conductor-pool --test worker isolation::limits_descriptors",
    },
    // Busy workers outlive the daemon.
    Mutation {
        name: "death-with-the-daemon",
        file: LAUNCHER,
        find: "set_parent_process_death_signal(Some(Signal::KILL))?;",
        replace: "set_parent_process_death_signal(None)?;",
        red: "-p conductor-pool --test worker leaks::a_dead_daemon",
    },
    // Programs that leave their session outlive the call.
    Mutation {
        name: "stray-programs",
        file: PROCESS,
        find: r#"            programs::end_all_below(self.pid);
"#,
        replace: r#"            let _ = programs::end_all_below;
"#,
        red: PROGRAMS,
    },
    // Programs without a parent are not found.
    Mutation {
        name: "orphans",
        file: LAUNCHER,
        find: "    if launch.jail.run {",
        replace: "    if launch.jail.run && launch.jail.ffi {",
        red: PROGRAMS,
    },
    // What is left in a control group is not killed.
    Mutation {
        name: "control-group-kill",
        file: CGROUP,
        find: r#"        write(&self.path, KILL, "1", "kill")"#,
        replace: "        Ok(())",
        red: PROGRAMS,
    },
    // The strict level runs programs without a control group.
    Mutation {
        name: "run-without-group",
        file: SPAWN,
        find: r#"                self.config.cgroups.permit_programs()?;
"#,
        replace: "",
        red: PROGRAMS,
    },
    // A run may have twice the memory it was given.
    Mutation {
        name: "memory-watch",
        file: MEMORY,
        find: r#"        resident > self.limit
"#,
        replace: r#"        resident > 2 * self.limit
"#,
        red: "-p conductor-pool --lib worker::memory",
    },
];
