//! Images, sounds and files that code returns.

use conductor_pool::{MediaKind, RunReport, Settled};

use crate::hostile::REALM_ATTACKS;
use crate::support::{Bench, settled};

const PNG: &str = "const png = Uint8Array.from([137, 80, 78, 71, 13, 10, 26, 10, 1, 2]);";
const PNG_BASE64: &str = "iVBORw0KGgoBAg==";

fn items(report: &RunReport) -> Vec<(MediaKind, &str, Option<&str>, &str)> {
    let Settled::Media { items } = settled(report) else { panic!("no media: {:?}", report.verdict) };
    let parts = items.iter();
    parts
        .map(|item| (item.kind, item.media_type.as_str(), item.name.as_deref(), item.data.as_str()))
        .collect()
}

#[tokio::test]
async fn bytes_of_a_known_type_are_media() {
    let bench = Bench::new();
    use MediaKind::{Audio, File, Image};
    let of = |bytes: &str| format!("return new TextEncoder().encode({bytes:?});");
    let table = [
        (format!("{PNG} return png;"), Image, "image/png"),
        (format!("{PNG} return Buffer.from(png);"), Image, "image/png"),
        ("return new Uint8Array([255, 216, 255, 224]);".into(), Image, "image/jpeg"),
        (of("GIF89a"), Image, "image/gif"),
        (of("RIFF....WEBPVP8"), Image, "image/webp"),
        (of("RIFF....WAVEfmt"), Audio, "audio/wav"),
        (of("ID3..."), Audio, "audio/mpeg"),
        (of("OggS..."), Audio, "audio/ogg"),
        (of("fLaC..."), Audio, "audio/flac"),
        (of("%PDF-1.7"), File, "application/pdf"),
        ("return new Blob(['a'], { type: 'image/svg+xml' });".into(), Image, "image/svg+xml"),
        ("return new Blob(['a'], { type: 'text/csv;charset=utf-8' });".into(), File, "text/csv"),
    ];
    for (code, kind, media_type) in table {
        let report = bench.run(&code).await;
        let found = items(&report);
        assert_eq!(found.len(), 1, "{code}");
        assert_eq!((found[0].0, found[0].1, found[0].2), (kind, media_type, None), "{code}");
        assert!(!found[0].3.is_empty());
    }
    assert_eq!(items(&bench.run(&format!("{PNG} return png;")).await)[0].3, PNG_BASE64);
}

#[tokio::test]
async fn other_bytes_are_shown() {
    let bench = Bench::new();
    for code in [
        "return new Uint8Array([1, 2]);",
        "return new Uint8Array();",
        "return new Uint16Array([0x5089]);",
        "return new Blob(['a']);",
        "return [new Uint8Array([1])];",
        "return new Proxy(new Uint8Array([137, 80]), {});",
        "return [conductor.file('a'), 1n];",
    ] {
        let report = bench.run(code).await;
        assert!(matches!(settled(&report), Settled::Inspect { .. }), "{code}: {:?}", report.verdict);
    }
}

#[tokio::test]
async fn code_names_the_type_itself() {
    let bench = Bench::new();
    let code = format!(
        "{PNG} const list = [conductor.image(png), conductor.image(png.buffer, {{ mimeType: 'image/x-odd' }}),
           conductor.audio(new Blob(['a'], {{ type: 'audio/wav' }})), conductor.file('a,b', {{ name: 'ü.csv', mimeType: 'text/csv' }}),
           conductor.file('x'), conductor.file(new Uint8Array([1]))];
         png.fill(0); return list;"
    );
    let report = bench.run(&code).await;
    use MediaKind::{Audio, File, Image};
    let expected = [
        (Image, "image/png", None, PNG_BASE64),
        (Image, "image/x-odd", None, PNG_BASE64),
        (Audio, "audio/wav", None, "YQ=="),
        (File, "text/csv", Some("ü.csv"), "YSxi"),
        (File, "text/plain", None, "eA=="),
        (File, "application/octet-stream", None, "AQ=="),
    ];
    assert_eq!(items(&report), expected);
}

#[tokio::test]
async fn what_cannot_be_media_is_refused_where_it_is_made() {
    let bench = Bench::new();
    for (code, told) in [
        ("conductor.image(new Uint8Array([1, 2]))", "mimeType"),
        ("conductor.image('text')", "takes a Uint8Array"),
        ("conductor.image({})", "takes a Uint8Array"),
        ("conductor.audio(new Uint8Array(1), { mimeType: 'image/png' })", "audio/..."),
        ("conductor.file('x', { mimeType: 'no type' })", "mimeType"),
        ("conductor.file('x', { mimeType: 'a/b/c' })", "mimeType"),
        ("conductor.file('x', { mimeType: 'text/\"' })", "mimeType"),
        ("conductor.file('x', { mimeType: \"text/it's\" })", "\"text/it's\" is no media type"),
        ("conductor.file('x', { mimeType: 'text/*' })", "is no media type"),
        ("conductor.file('x', { mimeType: 'te~xt/a' })", "is no media type"),
        ("conductor.file('x', { mimeType: 'text/.a' })", "is no media type"),
        ("conductor.file('x', { mimeType: 'text/' + 'a'.repeat(128) })", "is no media type"),
        ("conductor.file('x', { mimeType: 5 })", "a number is no media type"),
        ("conductor.file('x', { get mimeType() { return 'text/csv' } })", "an object of data"),
        ("conductor.file('x', new Proxy({}, {}))", "an object of data"),
        ("conductor.file('x', 'text/csv')", "an object of data"),
        ("conductor.file('x', { name: 5 })", "name"),
        ("conductor.file('x', { name: 'n'.repeat(300) })", "name"),
    ] {
        let report = bench.run(&format!("return {code};")).await;
        let Settled::Thrown { error } = settled(&report) else { panic!("{code}: {:?}", report.verdict) };
        assert_eq!(error.name, "TypeError", "{code}");
        assert!(error.message.contains(told), "{code}: {}", error.message);
    }
}

#[tokio::test]
async fn too_much_of_it_is_told_by_its_size() {
    let bench = Bench::new();
    let report =
        bench.run("return [conductor.file('x'.repeat(40000)), conductor.file('x'.repeat(40000))];").await;
    assert!(matches!(settled(&report), Settled::Oversized { bytes: 80_000 }), "{:?}", report.verdict);
}

#[tokio::test]
async fn a_changed_realm_does_not_change_media() {
    let bench = Bench::new();
    for attack in REALM_ATTACKS {
        let report =
            bench.run(&format!("{PNG} const image = conductor.image(png); {attack} return image;")).await;
        assert_eq!(items(&report), [(MediaKind::Image, "image/png", None, PNG_BASE64)], "{attack}");
    }
}
