use super::*;

fn roots(home: &str) -> Roots {
    Roots { home: home.into(), config_home: None, app_data: None, claude: None, codex: None }
}

/// The user's and the project's file, written with slashes whatever machine the test runs on.
fn files(client: Client, platform: Platform, roots: &Roots) -> (String, Option<String>) {
    let shown = |path: PathBuf| path.to_str().expect("text").replace('\\', "/");
    let file = |scope| client.file(platform, scope, roots, Path::new("/p")).map(shown);
    (file(Scope::User).expect("every client has one"), file(Scope::Project))
}

#[test]
fn every_client_has_its_file_on_linux() {
    let expected = [
        (Client::ClaudeCode, "/h/.claude.json", Some("/p/.mcp.json")),
        (Client::ClaudeDesktop, "/h/.config/Claude/claude_desktop_config.json", None),
        (Client::Cursor, "/h/.cursor/mcp.json", Some("/p/.cursor/mcp.json")),
        (Client::VsCode, "/h/.config/Code/User/mcp.json", Some("/p/.vscode/mcp.json")),
        (Client::Zed, "/h/.config/zed/settings.json", Some("/p/.zed/settings.json")),
        (Client::Codex, "/h/.codex/config.toml", Some("/p/.codex/config.toml")),
        (Client::Gemini, "/h/.gemini/settings.json", Some("/p/.gemini/settings.json")),
        (Client::Windsurf, "/h/.codeium/windsurf/mcp_config.json", None),
    ];
    assert_eq!(expected.map(|(client, ..)| client), Client::value_variants());
    for (client, user, project) in expected {
        let found = files(client, Platform::Linux, &roots("/h"));
        assert_eq!((found.0.as_str(), found.1.as_deref()), (user, project), "{client:?}");
    }
}

#[test]
fn every_client_has_its_file_on_macos() {
    let roots = roots("/Users/u");
    let expected = [
        (Client::ClaudeCode, "/Users/u/.claude.json"),
        (Client::ClaudeDesktop, "/Users/u/Library/Application Support/Claude/claude_desktop_config.json"),
        (Client::Cursor, "/Users/u/.cursor/mcp.json"),
        (Client::VsCode, "/Users/u/Library/Application Support/Code/User/mcp.json"),
        (Client::Zed, "/Users/u/.config/zed/settings.json"),
        (Client::Codex, "/Users/u/.codex/config.toml"),
        (Client::Gemini, "/Users/u/.gemini/settings.json"),
        (Client::Windsurf, "/Users/u/.codeium/windsurf/mcp_config.json"),
    ];
    for (client, user) in expected {
        assert_eq!(files(client, Platform::MacOs, &roots).0, user);
    }
}

#[test]
fn every_client_has_its_file_on_windows() {
    let expected = [
        (Client::ClaudeCode, "C:/Users/u/.claude.json"),
        (Client::ClaudeDesktop, "C:/Users/u/AppData/Roaming/Claude/claude_desktop_config.json"),
        (Client::Cursor, "C:/Users/u/.cursor/mcp.json"),
        (Client::VsCode, "C:/Users/u/AppData/Roaming/Code/User/mcp.json"),
        (Client::Zed, "C:/Users/u/AppData/Roaming/Zed/settings.json"),
        (Client::Codex, "C:/Users/u/.codex/config.toml"),
        (Client::Gemini, "C:/Users/u/.gemini/settings.json"),
        (Client::Windsurf, "C:/Users/u/.codeium/windsurf/mcp_config.json"),
    ];
    let unset = roots(r"C:\Users\u");
    let set = Roots { app_data: Some(r"C:\Users\u\AppData\Roaming".into()), ..unset.clone() };
    for (client, user) in expected {
        assert_eq!(files(client, Platform::Windows, &unset).0, user);
        assert_eq!(files(client, Platform::Windows, &set).0, user);
    }
}

#[test]
fn variables_move_files_if_they_are_absolute() {
    let set = |name: &str| Some(OsString::from(format!("/v/{name}")));
    let moved = Roots::new("/h".into(), set);
    let user = |client| files(client, Platform::Linux, &moved).0;
    assert_eq!(user(Client::ClaudeCode), "/v/CLAUDE_CONFIG_DIR/.claude.json");
    assert_eq!(user(Client::Codex), "/v/CODEX_HOME/config.toml");
    assert_eq!(user(Client::Zed), "/v/XDG_CONFIG_HOME/zed/settings.json");
    assert_eq!(user(Client::VsCode), "/v/XDG_CONFIG_HOME/Code/User/mcp.json");
    assert_eq!(user(Client::Cursor), "/h/.cursor/mcp.json");
    // These rules are Linux's own.
    assert_eq!(files(Client::Zed, Platform::MacOs, &moved).0, "/h/.config/zed/settings.json");

    let relative = Roots::new("/h".into(), |_| Some("here".into()));
    assert_eq!(files(Client::Codex, Platform::Linux, &relative).0, "/h/.codex/config.toml");
}

#[test]
fn a_client_shows_by_its_directory() {
    let directory = |client: Client| client.directory(Platform::Linux, &roots("/h"));
    assert_eq!(directory(Client::ClaudeCode), Path::new("/h/.claude"));
    assert_eq!(directory(Client::Windsurf), Path::new("/h/.codeium/windsurf"));
    assert_eq!(directory(Client::VsCode), Path::new("/h/.config/Code/User"));
}

#[test]
fn each_entry_is_of_the_clients_own_shape() {
    let typed = json!({ "type": "stdio", "command": "/s", "args": [] });
    let plain = json!({ "command": "/s", "args": [] });
    for client in [Client::ClaudeCode, Client::Cursor, Client::VsCode] {
        assert_eq!(client.entry("/s", &[]), typed);
    }
    for client in [Client::ClaudeDesktop, Client::Zed, Client::Gemini, Client::Windsurf] {
        assert_eq!(client.entry("/s", &[]), plain);
    }
    let codex = Client::Codex.entry("/s", &["--socket".into(), "/x".into()]);
    assert_eq!(codex["args"], json!(["--socket", "/x"]));
    assert!(codex["env_vars"].as_array().expect("a list").contains(&json!("CONDUCTOR_SOCKET")));
}
