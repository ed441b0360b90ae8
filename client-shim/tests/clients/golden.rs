//! For each client a file as people have them, and what becomes of it, byte for byte. `SHIM` stands for the shim's path.

use std::fs;

use crate::home::Home;

struct Golden {
    client: &'static str,
    file: &'static str,
    before: &'static str,
    after: &'static str,
}

macro_rules! golden {
    ($client:literal, $file:literal, $ending:literal) => {
        Golden {
            client: $client,
            file: $file,
            before: include_str!(concat!("golden/", $client, ".before.", $ending)),
            after: include_str!(concat!("golden/", $client, ".after.", $ending)),
        }
    };
}

const GOLDEN: [Golden; 8] = [
    golden!("claude-code", ".claude.json", "json"),
    golden!("claude-desktop", ".config/Claude/claude_desktop_config.json", "json"),
    golden!("cursor", ".cursor/mcp.json", "jsonc"),
    golden!("vscode", ".config/Code/User/mcp.json", "jsonc"),
    golden!("zed", ".config/zed/settings.json", "jsonc"),
    golden!("codex", ".codex/config.toml", "toml"),
    golden!("gemini", ".gemini/settings.json", "json"),
    golden!("windsurf", ".codeium/windsurf/mcp_config.json", "json"),
];

const PAGE: &str = include_str!("../../../docs/CLIENTS.md");

/// The text as editors on other systems save it too.
fn variants(text: &str) -> [String; 3] {
    [text.to_owned(), text.replace('\n', "\r\n"), format!("\u{feff}{text}")]
}

#[test]
fn every_clients_file_changes_in_one_place_and_back() {
    for Golden { client, file, before, after } in GOLDEN {
        for (before, after) in variants(before).iter().zip(variants(after)) {
            let home = Home::new();
            home.write(file, before);
            home.run(&["client", "add", client, "--yes"]).succeeds("backup  ");
            assert_eq!(home.read(file), after.replace("SHIM", &home.shim()), "{client}");
            home.run(&["client", "add", client, "--yes"]).succeeds("nothing to do");
            home.run(&["client", "remove", client, "--yes"]).succeeds("wrote   ");
            assert_eq!(&home.read(file), before, "{client}");
        }
    }
}

#[test]
fn without_its_backups_a_file_is_the_same_again() {
    // Zed's file has no group of servers before; an empty one is what is left of it.
    for Golden { client, file, before, .. } in GOLDEN.into_iter().filter(|golden| golden.client != "zed") {
        let home = Home::new();
        home.write(file, before);
        home.run(&["client", "add", client, "--yes"]).succeeds("backup  ");
        let path = home.path(file);
        for entry in fs::read_dir(path.parent().expect("a parent")).expect("a directory").flatten() {
            if entry.file_name().to_string_lossy().contains("conductor-backup") {
                fs::remove_file(entry.path()).expect("is ours");
            }
        }
        home.run(&["client", "remove", client, "--yes"]).succeeds("wrote   ");
        assert_eq!(home.read(file), before, "{client}");
    }
}

#[test]
fn a_file_that_is_cut_off_is_never_written_to() {
    for Golden { client, file, before, .. } in GOLDEN {
        let cut = match client {
            "codex" => format!("{before}x = \n"),
            _ => before.trim_end().strip_suffix('}').expect("an object").to_owned(),
        };
        let home = Home::new();
        home.write(file, &cut);
        for verb in ["add", "remove"] {
            let outcome = home.run(&["client", verb, client, "--yes"]);
            outcome.fails(&["cannot edit ", "line ", ", column ", "nothing was changed"]);
        }
        assert_eq!(home.read(file), cut, "{client}");
    }
}

#[test]
fn the_page_has_a_line_for_every_client() {
    for Golden { client, file, .. } in GOLDEN {
        assert!(PAGE.contains(&format!("| `conductorctl client add {client}` |")), "{client}");
        let name = file.rsplit('/').next().expect("a name");
        assert!(PAGE.contains(&format!("{name}`")), "{name}");
    }
}
