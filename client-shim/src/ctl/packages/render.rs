//! Reports on packages as text. Pure.

use conductor_protocol::operation::{
    BuildReport, LayerFaults, LayerSummary, PackageAge, PackageAges, PackageChanges, PackageReasons,
    PackageReport, PackagesReport,
};
use serde::Deserialize as _;
use serde_json::Value;

use super::super::paint::{Paint, millis, size, span};
use super::super::render::{Page, count, short};

pub(super) fn list(report: &PackagesReport, paint: Paint) -> String {
    let mut page = Page::new(paint);
    let packages = report.layer.iter().flat_map(|layer| &layer.packages);
    match report.layer.as_ref() {
        Some(layer) => page.heading("Packages", &format!("layer {}", short(&layer.id))),
        None if report.allowed.is_empty() => page.heading("Packages", "none is allowed"),
        None => page.heading("Packages", &format!("no layer yet; allowed: {}", report.allowed.join(", "))),
    }
    if report.allowed.iter().any(|entry| entry == "all") {
        page.warning("code may have any package of the registries");
    }
    let header = ["PACKAGE", "ALLOWED", "VERSION", "IMPORT", "MEMORY", "PRELOADED", "USES"];
    page.table(&header, &[3, 4, 6], packages.clone().map(package_row));
    for package in packages {
        if let Some(why) = &package.unavailable {
            page.failure(&format!("{}: {why}", package.name));
        }
    }
    if let Some(error) = &report.error {
        page.failure(error);
    }
    for build in &report.builds {
        page.line(&format!("  building: {}", phase(build)));
    }
    if !report.layers.is_empty() {
        page.heading("Layers", &count(report.layers.len() as u64, "layer"));
        let header = ["LAYER", "PACKAGES", "SIZE", "AGE", "IN USE"];
        page.table(&header, &[1, 2], report.layers.iter().map(layer_row));
    }
    page.text()
}

fn package_row(package: &PackageReport) -> [String; 7] {
    let dash = || "-".to_owned();
    [
        package.name.clone(),
        package.spelling.clone(),
        package.version.clone().unwrap_or_else(dash),
        package.import_ms.map_or_else(dash, millis),
        package.memory_bytes.map_or_else(dash, size),
        if package.preloaded { "yes".into() } else { dash() },
        format!("{:.0}", package.uses),
    ]
}

fn layer_row(layer: &LayerSummary) -> [String; 5] {
    let in_use = if layer.in_use { "yes" } else { "-" };
    [
        short(&layer.id).to_owned(),
        layer.packages.to_string(),
        size(layer.bytes),
        span(layer.age_ms),
        in_use.into(),
    ]
}

/// The oldest build of a report, in one line.
pub(super) fn build(report: &Value) -> Option<String> {
    let report = PackagesReport::deserialize(report).ok()?;
    report.builds.first().map(phase)
}

fn phase(build: &BuildReport) -> String {
    match build.total {
        Some(total) => format!("{} ({} of {total})", build.phase, build.fetched),
        None => build.phase.clone(),
    }
}

pub(super) fn changes(changes: &PackageChanges, paint: Paint) -> String {
    let mut page = Page::new(paint);
    if changes.changes.is_empty() {
        page.line("every package is the newest that the list allows");
    }
    let version = |version: &Option<String>| version.clone().unwrap_or_else(|| "-".into());
    let rows = changes.changes.iter().map(|it| [it.name.clone(), version(&it.before), version(&it.after)]);
    page.table(&["PACKAGE", "BEFORE", "NOW"], &[], rows);
    page.text()
}

pub(super) fn ages(ages: &PackageAges, paint: Paint) -> String {
    let mut page = Page::new(paint);
    let is_old = |it: &&PackageAge| it.error.is_some() || it.locked != it.newest;
    let old: Vec<_> = ages.packages.iter().filter(is_old).collect();
    if old.is_empty() {
        page.line("every package is the newest there is");
    }
    let or_dash = |text: &Option<String>| text.clone().unwrap_or_else(|| "-".into());
    let rows = old
        .iter()
        .map(|it| [it.name.clone(), or_dash(&it.locked), or_dash(&it.newest_allowed), or_dash(&it.newest)]);
    page.table(&["PACKAGE", "IN USE", "ALLOWED", "NEWEST"], &[], rows);
    for it in &old {
        if let Some(error) = &it.error {
            page.failure(&format!("{}: {error}", it.name));
        }
    }
    page.text()
}

pub(super) fn reasons(reasons: &PackageReasons, paint: Paint) -> String {
    let mut page = Page::new(paint);
    for chain in &reasons.chains {
        page.line(&chain.join(" > "));
    }
    page.text()
}

pub(super) fn faults(faults: &LayerFaults, paint: Paint) -> String {
    let mut page = Page::new(paint);
    let checked = count(faults.checked, "layer");
    match faults.faults.len() {
        0 => page.line(&format!("{checked} checked: every file is as it was fetched")),
        _ => page.line(&format!("{checked} checked; what is damaged is built anew when it is needed")),
    }
    for fault in &faults.faults {
        page.failure(&format!("{}: {}", fault.layer, fault.what));
    }
    page.text()
}

#[cfg(test)]
mod tests {
    use conductor_protocol::operation::{LayerReport, PackageChange};

    use super::*;

    #[test]
    fn a_list_tells_versions_costs_and_what_is_wrong() {
        let axios = PackageReport {
            name: "npm:axios".into(),
            spelling: "npm:axios@^1".into(),
            version: Some("1.9.0".into()),
            import_ms: Some(101.0),
            memory_bytes: Some(9 << 20),
            preloaded: true,
            uses: 3.2,
            unavailable: None,
        };
        let gone = PackageReport {
            name: "npm:gone".into(),
            spelling: "npm:gone@^1".into(),
            unavailable: Some("the registry does not have it".into()),
            ..PackageReport::default()
        };
        let report = PackagesReport {
            layer: Some(LayerReport { id: "abc".into(), packages: vec![axios, gone] }),
            builds: vec![BuildReport {
                phase: "fetching".into(),
                fetched: 3,
                total: Some(12),
                ..BuildReport::default()
            }],
            layers: vec![LayerSummary {
                id: "abc".into(),
                packages: 9,
                bytes: 5 << 20,
                in_use: true,
                ..LayerSummary::default()
            }],
            ..PackagesReport::default()
        };
        let text = list(&report, Paint::Plain);
        for says in [
            "layer abc",
            "npm:axios@^1",
            "1.9.0",
            "101 ms",
            "9 MiB",
            "yes",
            "npm:gone: the registry does not have it",
            "fetching (3 of 12)",
        ] {
            assert!(text.contains(says), "{says} is not in:\n{text}");
        }
        let none = list(&PackagesReport::default(), Paint::Plain);
        assert!(none.contains("none is allowed"), "{none}");
    }

    #[test]
    fn nothing_to_tell_is_told_in_words() {
        assert!(changes(&PackageChanges::default(), Paint::Plain).contains("newest that the list allows"));
        assert!(ages(&PackageAges::default(), Paint::Plain).contains("newest there is"));
        assert!(
            faults(&LayerFaults { checked: 1, faults: vec![] }, Paint::Plain).contains("1 layer checked")
        );
        let change =
            PackageChange { name: "npm:a".into(), before: Some("1.0.0".into()), after: Some("1.1.0".into()) };
        let text = changes(&PackageChanges { changes: vec![change] }, Paint::Plain);
        assert!(text.contains("1.0.0") && text.contains("1.1.0"), "{text}");
    }
}
