//! What children of one template draw at random differs: what code gets, and what TLS sends before anything is encrypted.

use std::collections::BTreeSet;
use std::net::Ipv4Addr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use conductor_pool::{
    DenoSpawn, ForkLimits, Grants, SpawnConfig, WorkerChoice, WorkerKind, WorkerSource as _, WorkerSpec,
};
use tokio::io::AsyncReadExt as _;
use tokio::net::{TcpListener, TcpStream};
use tokio_util::sync::CancellationToken;

use crate::support::{Bench, Forks, config, job, json, only};

/// Forks that draw at one time.
const AT_ONCE: usize = 10;

/// What a fork draws: values that it returns, and three TLS connections that begin with values of Deno's own.
const DRAW: &str = "
    const address = { hostname: '127.0.0.1', port };
    const begin = async (connect) => {
        try {
            await (await connect()).handshake();
        } catch {}
    };
    await begin(() => Deno.connectTls(address));
    await begin(async () => Deno.startTls(await Deno.connect(address), { hostname: 'localhost' }));
    await fetch(`https://127.0.0.1:${port}/`).catch(() => {});
    const node = await import('node:crypto');
    const key = await crypto.subtle.generateKey({ name: 'AES-GCM', length: 128 }, true, ['encrypt']);
    return [crypto.randomUUID(), Math.random(), crypto.getRandomValues(new BigUint64Array(1))[0].toString(),
        node.randomBytes(8).toString('hex'), node.randomUUID(),
        [...new Uint8Array(await crypto.subtle.exportKey('raw', key))].join()];";

/// Values that each fork returns.
const VALUES: usize = 6;

/// TLS connections that each fork begins; `fetch` begins another when the first breaks.
const CONNECTIONS: usize = 3;

/// Bytes that a template may have grown by, however many it has forked: an eighth of what has it replaced.
const GROWTH: u64 = 512 << 10;

/// What a client sends in the clear at the beginning of a connection.
#[derive(Debug)]
struct Hello {
    random: Vec<u8>,
    session: Vec<u8>,
    /// The keys that it offers.
    key_share: Vec<u8>,
}

impl Hello {
    /// `None` if the record is none that begins a connection.
    fn parse(record: &[u8]) -> Option<Self> {
        let mut rest = record;
        let mut take = |length: usize| {
            let (taken, left) = rest.split_at_checked(length)?;
            rest = left;
            Some(taken.to_vec())
        };
        let number = |bytes: &[u8]| bytes.iter().fold(0, |sum, byte| sum << 8 | usize::from(*byte));
        if take(1)? != [1] {
            return None;
        }
        take(3 + 2)?;
        let random = take(32)?;
        let length = number(&take(1)?);
        let session = take(length)?;
        let ciphers = number(&take(2)?);
        take(ciphers)?;
        let methods = number(&take(1)?);
        take(methods)?;
        take(2)?;
        loop {
            let (kind, length) = (number(&take(2)?), number(&take(2)?));
            let content = take(length)?;
            if kind == 51 {
                return Some(Self { random, session, key_share: content });
            }
        }
    }
}

/// Keeps the first record of each connection and closes it.
async fn listen(listener: TcpListener, hellos: Arc<Mutex<Vec<Vec<u8>>>>) {
    while let Ok((stream, _)) = listener.accept().await {
        let hellos = Arc::clone(&hellos);
        tokio::spawn(async move {
            if let Ok(record) = first_record(stream).await {
                hellos.lock().unwrap().push(record);
            }
        });
    }
}

async fn first_record(mut stream: TcpStream) -> std::io::Result<Vec<u8>> {
    let mut header = [0; 5];
    stream.read_exact(&mut header).await?;
    let mut record = vec![0; usize::from(u16::from_be_bytes([header[3], header[4]]))];
    stream.read_exact(&mut record).await?;
    Ok(record)
}

async fn draws_differ(forks: usize) {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    let address = listener.local_addr().unwrap();
    let hellos = Arc::new(Mutex::new(Vec::new()));
    let listening = tokio::spawn(listen(listener, Arc::clone(&hellos)));

    // One template makes them all, however long it takes.
    let limits =
        ForkLimits { max_forks: u32::MAX, max_age: Duration::from_secs(24 * 3600), ..Forks::limits() };
    let bench = Bench::new();
    let config = SpawnConfig { boot_timeout: Duration::from_secs(1200), ..config(bench.dir.path()) };
    let source = Forks::with(DenoSpawn::new(config), limits);
    let grants = Grants { net: only(&address.to_string()), ..Grants::default() };
    let spec = Arc::new(WorkerSpec { worker: WorkerChoice::Fork, grants, ..bench.spec() });
    source.source.ready(&spec).await.unwrap();
    let templates = || source.source.templates(&spec).unwrap();
    let memory = templates().serving.unwrap().memory_bytes;
    let draw = async || {
        let worker = source.source.boot(Arc::clone(&spec)).await.unwrap();
        assert_eq!(worker.kind(), WorkerKind::Fork, "{:?}", templates());
        let mut job = job(DRAW);
        job.globals.insert("port".to_owned(), address.port().into());
        job.limits.wall = Duration::from_secs(600);
        let (report, reaped) = worker.run(job, None, CancellationToken::new()).await;
        reaped.await;
        json(report)
    };
    let mut seen = BTreeSet::new();
    for _ in 0..forks / AT_ONCE {
        for drawn in futures_util::future::join_all((0..AT_ONCE).map(|_| draw())).await {
            for value in drawn.as_array().unwrap() {
                assert!(seen.insert(value.to_string()), "{value} was drawn twice");
            }
        }
    }
    assert_eq!(seen.len(), VALUES * forks);
    let template = templates();
    assert_eq!(template.totals.built, 1);
    let grown = template.serving.unwrap().memory_bytes.saturating_sub(memory);
    assert!(grown < GROWTH, "the template has grown by {grown} bytes");

    listening.abort();
    let hellos = std::mem::take(&mut *hellos.lock().unwrap());
    assert!(hellos.len() >= CONNECTIONS * forks, "{} connections of {forks} forks", hellos.len());
    let mut seen = BTreeSet::new();
    for record in &hellos {
        let hello = Hello::parse(record).expect("it begins a connection and offers keys");
        assert_eq!((hello.random.len(), hello.session.len()), (32, 32));
        for value in [hello.random, hello.session, hello.key_share] {
            assert!(seen.insert(value.clone()), "{value:?} was sent twice");
        }
    }
}

#[tokio::test]
async fn a_hundred_forks_draw_differently() {
    draws_differ(100).await;
}

#[tokio::test]
#[ignore = "minutes; see docs/TESTING.md"]
async fn ten_thousand_forks_draw_differently() {
    draws_differ(10_000).await;
}
