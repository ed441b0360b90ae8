//! Classes 46 to 53: the network, names and local sockets.

use crate::case::{Case, program, refused};

pub(crate) const CASES: &[Case] = &[
    refused(
        46,
        &[
            "fetch('http://127.0.0.1:{tcp}/')",
            "new Promise((ok, no) => { const socket = new WebSocket('ws://127.0.0.1:{tcp}/'); socket.onopen = ok; socket.onerror = () => no({ name: 'NotDone' }) })",
            "new Promise((ok, no) => { const source = new EventSource('http://127.0.0.1:{tcp}/'); source.onopen = ok; source.onerror = () => { source.close(); no({ name: 'NotDone' }) } })",
            "Deno.connect({ hostname: '127.0.0.1', port: {tcp} })",
            "Deno.connectTls({ hostname: '127.0.0.1', port: {tcp} })",
            "Deno.listen({ port: 0 })",
            "Deno.serve({ port: 0, onListen() {} }, () => new Response()).finished",
        ],
    ),
    refused(
        47,
        &[
            "import('node:net').then((net) => emits(net.connect({tcp}, '127.0.0.1'), 'connect'))",
            "import('node:net').then((net) => emits(net.createServer().listen(0), 'listening'))",
            "import('node:http').then((http) => emits(http.get('http://127.0.0.1:{tcp}/'), 'response'))",
            "import('node:https').then((https) => emits(https.get('https://127.0.0.1:{tcp}/'), 'response'))",
            "import('node:http2').then((http2) => emits(http2.connect('http://127.0.0.1:{tcp}'), 'connect'))",
            "import('node:tls').then((tls) => emits(tls.connect({tcp}, '127.0.0.1'), 'secureConnect'))",
            "import('node:dgram').then((dgram) => new Promise((ok, no) => { const socket = dgram.createSocket('udp4'); socket.on('error', no); socket.send('x', {udp}, '127.0.0.1', (error) => error ? no(error) : ok()) }))",
        ],
    ),
    refused(
        48,
        &[
            "Deno.resolveDns('secret.example.com', 'A')",
            "import('node:dns/promises').then((dns) => dns.lookup('secret.example.com'))",
            "import('node:dns/promises').then((dns) => dns.resolve4('secret.example.com'))",
            "import('node:dns/promises').then((dns) => dns.lookupService('127.0.0.1', 80))",
            "import('node:dns/promises').then((dns) => dns.reverse('127.0.0.1'))",
            "fetch('http://secret.example.com/')",
            "Deno.resolveDns('secret.example.com', 'TXT', { nameServer: { ipAddr: '127.0.0.1', port: 53 } })",
            "import('node:dns/promises').then((dns) => { const own = new dns.Resolver(); own.setServers(['127.0.0.1']); return own.resolve4('secret.example.com') })",
            "import('node:dgram').then((dgram) => new Promise((ok, no) => { const socket = dgram.createSocket('udp4'); socket.on('error', no); socket.send('secret', 53, '127.0.0.1', (error) => error ? no(error) : ok()) }))",
            "Deno.connect({ hostname: '127.0.0.1', port: 53 })",
        ],
    ),
    // Where one name is granted, no other reaches a name server, in whatever way it is asked for.
    refused(
        48,
        &[
            "Deno.resolveDns('secret.granted.example.com', 'A')",
            "Deno.resolveDns('secret.example.com', 'A', { nameServer: { ipAddr: '127.0.0.1', port: 53 } })",
            "import('node:dns/promises').then((dns) => dns.lookup('secret.granted.example.com'))",
            "import('node:dns/promises').then((dns) => dns.resolveTxt('secret.example.com'))",
            "fetch('http://secret.granted.example.com/')",
            "Deno.connect({ hostname: 'secret.example.com', port: 80 })",
        ],
    )
    .with("allow-net=granted.example.com"),
    // What is granted is asked: the name server is there to be reached.
    program(48, "V", "import dns from 'node:dns/promises'; (await dns.lookup('granted.example.com')).address")
        .gives("\"192.0.2.7\"")
        .with("allow-net=granted.example.com")
        .resolves(&["granted.example.com"]),
    program(48, "V", "await Deno.resolveDns('granted.example.com', 'A')")
        .gives("[\"192.0.2.7\"]")
        .with("allow-net")
        .resolves(&["granted.example.com"]),
    refused(
        49,
        &[
            "Deno.connect({ transport: 'unix', path: '{socket}' })",
            "Deno.connect({ transport: 'unix', path: '/var/run/docker.sock' })",
            "import('node:net').then((net) => emits(net.connect('{listener}'), 'connect'))",
            "Deno.listen({ transport: 'unix', path: '{ws}/own' })",
        ],
    ),
    // Whatever Deno is granted: no grant of ours reaches local sockets.
    refused(49, &["Deno.connect({ transport: 'unix', path: '{listener}' })", "import('node:net').then((net) => emits(net.connect('{socket}'), 'connect'))"])
        .with("allow-net,allow-read,allow-write")
        .bare("B"),
    refused(50, &["import('node:net').then((net) => emits(net.connect('\\0{name}'), 'connect'))", "Deno.connect({ transport: 'unix', path: '\\0{name}' })"]),
    refused(50, &["import('node:net').then((net) => emits(net.connect('\\0{name}'), 'connect'))"])
        .with("allow-net,allow-read,allow-write")
        .bare("DB"),
    refused(
        51,
        &[
            "Deno.connect({ hostname: '0.0.0.0', port: {tcp} })",
            "Deno.connect({ hostname: '2130706433', port: {tcp} })",
            "Deno.connect({ hostname: '::ffff:127.0.0.1', port: {tcp} })",
            "Deno.connect({ hostname: 'localhost', port: {tcp} })",
            "fetch('http://0x7f.1:{tcp}/')",
            "Deno.connect({ hostname: '127.1', port: {tcp} })",
        ],
    )
    .with("allow-net=example.com:443"),
    refused(
        52,
        &[
            "import('node:dgram').then((dgram) => new Promise((ok, no) => { const socket = dgram.createSocket('udp4'); socket.on('error', no); socket.send('x', {udp}, '127.0.0.1', (error) => error ? no(error) : ok()) }))",
        ],
    )
    .with("allow-net=127.0.0.1:9"),
    // A name that was granted leads to where the name leads; the address alone was not granted.
    refused(53, &["Deno.connect({ hostname: '127.0.0.1', port: {tcp} })", "Deno.connect({ hostname: '::1', port: {tcp} })"])
        .with("allow-net=localhost"),
    // Once the name has come to mean this machine: of what listens here, only the port that was granted can be reached.
    refused(53, &["Deno.connect({ hostname: 'rebound.example.com', port: {tcp} })", "fetch('http://rebound.example.com:{tcp}/')", "Deno.connect({ hostname: '127.0.0.1', port: 443 })"])
        .with("allow-net=rebound.example.com:443"),
    program(53, "F", "await Deno.connect({ hostname: 'rebound.example.com', port: 443 })")
        .with("allow-net=rebound.example.com:443")
        .resolves(&["rebound.example.com"]),
];
