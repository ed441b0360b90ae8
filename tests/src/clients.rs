//! MCP clients written by others, as [`conductor_deno::testing::packages`] fetches them.

use std::env;
use std::path::{Path, PathBuf};
use std::process::Command;

use conductor_deno::testing::packages;

use crate::home::Home;

/// The command line of the MCP Inspector, which is the TypeScript SDK's test client, and a Node.js new enough for it.
#[derive(Debug)]
pub struct Inspector {
    installed: PathBuf,
}

impl Inspector {
    /// `None`, after a loud notice, where it cannot be had.
    pub fn fetch() -> Option<Self> {
        let manifest = [
            ("package.json", include_str!("../clients/inspector/package.json")),
            ("package-lock.json", include_str!("../clients/inspector/package-lock.json")),
        ];
        let installed = packages::npm("inspector", &manifest)?;
        Some(Self { installed })
    }

    pub fn command(&self, home: &Home) -> Command {
        let mut command = home.command(&self.node());
        let modules = self.installed.join("node_modules");
        command.arg(modules.join("@modelcontextprotocol/inspector/clients/launcher/build/index.js"));
        command
    }

    /// A Node.js new enough for everything here.
    pub fn node(&self) -> PathBuf {
        let arch = if cfg!(target_arch = "aarch64") { "arm64" } else { "x64" };
        self.installed.join(format!("node_modules/node-linux-{arch}/bin/node"))
    }
}

/// The official conformance suite.
#[derive(Debug)]
pub struct ConformanceSuite {
    installed: PathBuf,
    node: PathBuf,
}

impl ConformanceSuite {
    /// `None`, after a loud notice, where it cannot be had.
    pub fn fetch() -> Option<Self> {
        let manifest = [
            ("package.json", include_str!("../conformance/package.json")),
            ("package-lock.json", include_str!("../conformance/package-lock.json")),
        ];
        let node = Inspector::fetch()?.node();
        let installed = packages::npm("conformance", &manifest)?;
        Some(Self { installed, node })
    }

    pub fn command(&self, home: &Home) -> Command {
        let mut command = home.command(&self.node);
        command.arg(self.installed.join("node_modules/@modelcontextprotocol/conformance/dist/index.js"));
        command
    }
}

/// The Python SDK of MCP, for the Python that is there.
#[derive(Debug)]
pub struct PythonSdk {
    installed: PathBuf,
}

impl PythonSdk {
    /// `None`, after a loud notice, where it cannot be had.
    pub fn fetch() -> Option<Self> {
        let manifest = [("requirements.txt", include_str!("../clients/python/requirements.txt"))];
        let installed = packages::pip("python-sdk", &manifest)?;
        Some(Self { installed })
    }

    /// Python with the SDK, about to run `program`.
    pub fn command(&self, home: &Home, program: &str) -> Command {
        let mut command = home.command(Path::new("python3"));
        // The Python that pip has installed for.
        command.env("PATH", env::var_os("PATH").unwrap_or_default());
        command.env("PYTHONPATH", self.installed.join("packages"));
        // -B: what is installed stays as it is.
        command.args(["-B", "-s", "-c", program]);
        command
    }
}
