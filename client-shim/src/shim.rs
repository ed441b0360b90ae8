//! `conductor-shim`: an MCP server to the IDE on standard input and output, a session to the daemon.
//!
//! # Threads
//! | thread | reads | writes |
//! |---|---|---|
//! | `client` | standard input | the daemon's socket while the link is live; refusals to standard output |
//! | `daemon` | the daemon's socket | standard output; the daemon's socket while a session is restored |
//! | main | | waits for the end |
//!
//! Both directions are pumped by one thread each, from read to write, with no queue between: what one side does not take stays
//! in the other side's pipe (that is the whole back pressure, and one message per direction the whole memory), a message is
//! passed on without a thread switch, and a full pipe in one direction never stops the other. The [`Relay`] decides, under a
//! lock that is never held during I/O.

use std::io::{self, Read, Write as _};
use std::net::Shutdown;
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::{Arc, Condvar, Mutex, MutexGuard};
use std::thread;
use std::time::{Duration, Instant};

use conductor_protocol::{ClientKind, SessionFrame, frame};

use crate::autostart::Autostart;
use crate::connect;
use crate::connection::{Connection, ConnectionError};
use crate::envelope::Envelope;
use crate::error;
use crate::handshake::Caller;
use crate::lines::{Line, Lines};
use crate::reach::{Patience, Route};
use crate::relay::{Effect, Relay, Verdict};
use crate::scan::Scanner;
use crate::stdio::Stdio;

/// How long a daemon is looked for: shorter than the 30 s that clients wait for the answer to `initialize`.
const REACH_TIME: Duration = Duration::from_secs(25);

/// The same for a session that a daemon has served: its successor may first have to wait for that one's running calls, which
/// it gives 30 s, and clients wait 60 s for the answer to a call.
const RETURN_TIME: Duration = Duration::from_secs(45);

/// How long a new daemon may take to be told of the session: it answers `initialize` from memory.
const RESTORE_TIMEOUT: Duration = Duration::from_secs(10);

/// How long answers are waited for once the client has closed its side. The daemon ends earlier when it has no more.
const FAREWELL_TIME: Duration = Duration::from_secs(5);

/// A link that lived this long was good: the next outage is a new one.
const GOOD_LINK_TIME: Duration = Duration::from_secs(10);

/// The same for a link that ended with a goodbye: restarts may follow each other quickly, but not so quickly that a daemon
/// which goes down as soon as it is up would be started without end.
const PLANNED_LINK_TIME: Duration = Duration::from_millis(500);

const RESTLESS: &str =
    "the conductor daemon goes away again and again\nhint: see `conductorctl doctor` and the daemon's log";

/// Why a lock is never poisoned.
const UNPOISONED: &str = "no thread panics while it holds the lock";

/// Serves the IDE on the process's standard streams until it closes them. `socket` is `--socket`.
pub fn run(socket: Option<PathBuf>) -> io::Result<ExitCode> {
    let route = Route {
        at: connect::surroundings(socket),
        caller: Caller::this_process(ClientKind::Shim),
        autostart: Some(Autostart::of_this_process()),
    };
    let (input, output) = (Stdio::input()?, Stdio::output()?);
    let shim = Arc::new(Shim {
        core: Mutex::default(),
        link_changed: Condvar::new(),
        ended: Condvar::new(),
        output: Mutex::new(output),
    });
    let (for_client, for_daemon) = (Arc::clone(&shim), Arc::clone(&shim));
    thread::Builder::new().name("client".into()).spawn(move || for_client.pump_client(input))?;
    thread::Builder::new().name("daemon".into()).spawn(move || for_daemon.pump_daemon(&route))?;
    shim.wait_for_end();
    Ok(ExitCode::SUCCESS)
}

/// Says something to whoever reads the IDE's log of this server.
pub fn note(text: impl std::fmt::Display) {
    // Nobody may listen on stderr; that is no reason to stop.
    writeln!(io::stderr(), "conductor-shim: {text}").ok();
}

#[derive(Debug)]
struct Shim {
    core: Mutex<Core>,
    /// The link's state is another one: the pumps wait for it.
    link_changed: Condvar,
    /// `end` or `link` is another one: the main thread waits for it, and is not woken for less.
    ended: Condvar,
    output: Mutex<Stdio>,
}

#[derive(Debug, Default)]
struct Core {
    relay: Relay,
    /// The write side of the link, while there is one.
    link: Option<Arc<UnixStream>>,
    end: End,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
enum End {
    #[default]
    NotYet,
    /// The client sends no more; it may still read.
    InputClosed,
    /// The client reads no more.
    OutputClosed,
}

impl Shim {
    fn lock(&self) -> MutexGuard<'_, Core> {
        self.core.lock().expect(UNPOISONED)
    }

    fn print(&self, mut line: Vec<u8>) {
        line.push(b'\n');
        let written = self.output.lock().expect(UNPOISONED).write_all(&line);
        if written.is_err() {
            self.end(End::OutputClosed);
        }
    }

    fn end(&self, end: End) {
        let mut core = self.lock();
        core.end = core.end.max(end);
        drop(core);
        self.ended.notify_all();
    }

    /// Main thread: until the client has closed, and the daemon had its time to answer what is left.
    fn wait_for_end(&self) {
        let not_yet = |core: &mut Core| core.end == End::NotYet;
        let core = self.ended.wait_while(self.lock(), not_yet).expect(UNPOISONED);
        let is_linked = |core: &mut Core| core.end == End::InputClosed && core.link.is_some();
        drop(self.ended.wait_timeout_while(core, FAREWELL_TIME, is_linked).expect(UNPOISONED));
    }

    /// Client thread.
    fn pump_client(&self, input: impl Read) {
        let mut lines = Lines::new(input);
        loop {
            match lines.next_line() {
                Ok(Some(Line::Message(envelope, json))) => self.deliver(&envelope, &json),
                Ok(Some(Line::Refused(refusal))) => self.print(refusal.answer()),
                Ok(Some(Line::Dropped { method, len })) => {
                    note(format_args!("dropped {method} of {len} bytes"))
                }
                Ok(None) => break,
                Err(error) => {
                    note(format_args!("cannot read standard input: {error}"));
                    break;
                }
            }
        }
        let mut core = self.lock();
        let effects = core.relay.unreachable("the input was closed before a conductor daemon was reached");
        if let Some(link) = &core.link {
            // A link that is gone needs no closing.
            link.shutdown(Shutdown::Write).ok();
        }
        if effects.is_empty() {
            core.end = core.end.max(End::InputClosed);
        }
        drop(core);
        // The end waits for these answers; there is no link that could bring more.
        self.print_all(effects);
        self.end(End::InputClosed);
    }

    /// Sends one message of the client, on as many links as it takes, or answers it.
    fn deliver(&self, envelope: &Envelope, json: &[u8]) {
        let mut core = self.lock();
        let mut verdict = core.relay.client(envelope, json);
        loop {
            match verdict {
                Verdict::Done(answer) => {
                    drop(core);
                    if let Some(answer) = answer {
                        self.print(answer);
                    }
                    return;
                }
                Verdict::Wait => {
                    // The relay may want a link only now.
                    self.link_changed.notify_all();
                    core = self.link_changed.wait(core).expect(UNPOISONED);
                    verdict = core.relay.client(envelope, json);
                }
                Verdict::Send(replacement) => {
                    let link = core.link.clone();
                    drop(core);
                    let message = replacement.as_deref().unwrap_or(json);
                    let sent = link.is_some_and(|link| write(&link, &[message]).is_ok());
                    core = self.lock();
                    verdict = core.relay.written(sent, envelope, json);
                }
            }
        }
    }

    /// Daemon thread: one link after the other.
    fn pump_daemon(&self, route: &Route) {
        let mut patience = Patience::of(REACH_TIME);
        loop {
            let wants_none = |core: &mut Core| !core.relay.wants_link();
            let core = self.link_changed.wait_while(self.lock(), wants_none).expect(UNPOISONED);
            if core.end != End::NotYet {
                return;
            }
            drop(core);
            let failure = match route.reach(&mut patience) {
                Ok((connection, _welcome)) => {
                    let was_good = self.serve(connection);
                    if !was_good && patience.pause() {
                        continue;
                    }
                    (!was_good).then(|| RESTLESS.to_owned())
                }
                Err(error) => Some(error.text()),
            };
            if let Some(why) = failure {
                note(&why);
                self.give_up(&why);
            }
            patience = Patience::of(RETURN_TIME);
        }
    }

    fn give_up(&self, why: &str) {
        let effects = self.lock().relay.unreachable(why);
        self.print_all(effects);
        self.link_changed.notify_all();
    }

    /// Serves one link until it ends; true when it was a good one.
    fn serve(&self, mut connection: Connection) -> bool {
        let since = Instant::now();
        let link = connection.writer();
        let mut core = self.lock();
        core.link = Some(Arc::clone(&link));
        let effects = core.relay.connected();
        drop(core);
        let end = self.restore(&connection, effects).and_then(|()| self.receive(&mut connection));
        // Wakes the client thread if it is stuck writing to this link.
        link.shutdown(Shutdown::Both).ok();
        let least =
            if end.as_ref().is_ok_and(|end| end.is_planned) { PLANNED_LINK_TIME } else { GOOD_LINK_TIME };
        let was_good = since.elapsed() >= least;
        let why = end.map_or_else(|error| error::chain(&error), |end| end.why);
        let mut core = self.lock();
        let mut effects = core.relay.lost();
        if core.end != End::NotYet {
            effects.extend(core.relay.unreachable(&why));
        } else {
            note(&why);
        }
        drop(core);
        self.print_all(effects);
        // Only now: the end waits for these answers.
        self.lock().link = None;
        self.link_changed.notify_all();
        self.ended.notify_all();
        was_good
    }

    /// Reads the daemon's frames until a proper end.
    fn receive(&self, connection: &mut Connection) -> Result<ProperEnd, LinkError> {
        let ends = |is_planned, why| Ok(ProperEnd { is_planned, why });
        loop {
            match connection.receive()? {
                None => return ends(false, "the conductor daemon closed the connection".into()),
                Some(SessionFrame::Goodbye { reason }) => {
                    return ends(true, format!("the conductor daemon said goodbye: {reason}"));
                }
                Some(SessionFrame::Draining) => {
                    let effects = self.lock().relay.draining();
                    self.finish(connection, &effects)?;
                }
                Some(SessionFrame::Returned(json)) => {
                    let envelope = read_envelope(&json)?;
                    self.lock().relay.returned(&envelope, json);
                }
                Some(SessionFrame::Mcp(mut json)) => {
                    let envelope = read_envelope(&json)?;
                    if std::str::from_utf8(&json).is_err() {
                        return Err(LinkError::Message("it is not UTF-8".into()));
                    }
                    if envelope.has_line_break {
                        // Between tokens, the only place for it, a space means the same; a line break ends the message.
                        json.iter_mut()
                            .filter(|byte| matches!(byte, b'\n' | b'\r'))
                            .for_each(|byte| *byte = b' ');
                    }
                    let mut core = self.lock();
                    let is_restoring = core.relay.is_restoring();
                    let effects = core.relay.daemon(&envelope, json);
                    drop(core);
                    match is_restoring {
                        true => self.restore(connection, effects)?,
                        false => self.print_all(effects),
                    }
                }
            }
        }
    }

    /// Carries effects out while the session is restored: this thread alone writes to the daemon then.
    fn restore(&self, connection: &Connection, effects: Vec<Effect>) -> Result<(), LinkError> {
        let mut messages = Vec::new();
        for effect in effects {
            match effect {
                Effect::Print(line) => self.print(line),
                Effect::Send(json) => messages.push(json),
                Effect::Close => return Err(LinkError::Refused),
                Effect::Finish => {}
            }
        }
        connection.set_timeout(Some(RESTORE_TIMEOUT))?;
        let messages: Vec<_> = messages.iter().map(Vec::as_slice).collect();
        write(&connection.writer(), &messages)?;
        if self.lock().relay.is_told() {
            connection.set_timeout(None)?;
            self.lock().relay.settle();
            self.link_changed.notify_all();
        }
        Ok(())
    }

    /// Takes leave of a daemon that goes down. The end of the stream tells it that everything we sent has arrived; the client
    /// thread's write, if one is under way, fails, or is whole.
    fn finish(&self, connection: &Connection, effects: &[Effect]) -> Result<(), LinkError> {
        for effect in effects {
            match effect {
                // A link that is gone needs no closing.
                Effect::Finish => drop(connection.writer().shutdown(Shutdown::Write)),
                Effect::Close => return Err(LinkError::Draining),
                Effect::Print(_) | Effect::Send(_) => {}
            }
        }
        Ok(())
    }

    fn print_all(&self, effects: Vec<Effect>) {
        for effect in effects {
            if let Effect::Print(line) = effect {
                self.print(line);
            }
        }
    }
}

/// Why a link is of no more use.
#[derive(Debug, thiserror::Error)]
enum LinkError {
    #[error(transparent)]
    Connection(#[from] ConnectionError),
    #[error("the conductor daemon sent no JSON-RPC message: {0}")]
    Message(String),
    #[error("the conductor daemon refused to take up the session again")]
    Refused,
    #[error("the conductor daemon goes down and does not take up the session")]
    Draining,
}

/// How a daemon ended a link in good order.
struct ProperEnd {
    /// It said so; it did not just close.
    is_planned: bool,
    why: String,
}

fn read_envelope(json: &[u8]) -> Result<Envelope, LinkError> {
    let mut scanner = Scanner::default();
    scanner.feed(json);
    Envelope::new(&scanner.finish()).map_err(|refusal| LinkError::Message(refusal.text))
}

/// Writes messages to the daemon, in one piece.
fn write(mut link: &UnixStream, messages: &[&[u8]]) -> Result<(), ConnectionError> {
    let mut bytes = Vec::new();
    for json in messages {
        let frame = frame::encode(&SessionFrame::encode_mcp(json)?)?;
        if bytes.is_empty() { bytes = frame } else { bytes.extend(frame) }
    }
    Ok(link.write_all(&bytes)?)
}
