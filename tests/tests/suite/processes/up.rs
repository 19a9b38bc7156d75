//! One running `trunkline up`.

use std::path::Path;

use serde_json::Value;
use tests::{http::Client, program::Program, within};

use super::ANY_PORT;

/// A running `trunkline up` on free ports.
pub(crate) struct Up {
    pub(crate) program: Program,
    /// What it said when it was ready.
    pub(crate) ready: Value,
    pub(super) folder: tempfile::TempDir,
}

impl Up {
    pub(crate) async fn start(file: &str) -> Self {
        let folder = tempfile::tempdir().expect("a temporary folder");
        Self::start_in(folder, file, ANY_PORT).await
    }

    /// Starts it in a folder that may be one of an earlier run.
    pub(super) async fn start_in(folder: tempfile::TempDir, file: &str, nats_listen: &str) -> Self {
        let mut program = begin(folder.path(), file, nats_listen, &["--json"]);
        let line = within("the ready banner", program.output.next_line()).await;
        let line = line.expect("output").expect("a line");
        let ready = serde_json::from_str(&line).expect("JSON");
        Self {
            program,
            ready,
            folder,
        }
    }

    pub(crate) fn text(&self, key: &str) -> &str {
        let text = self.ready[key].as_str();
        text.unwrap_or_else(|| panic!("no {key}: {}", self.ready))
    }

    pub(crate) fn client(&self, server: &str) -> Client {
        Client::new(format!("{}/servers/{server}/mcp", self.text("http")))
    }

    /// Its data folder, by which commands find its NATS.
    pub(crate) fn folder_of_data(&self) -> String {
        self.folder.path().join("data").display().to_string()
    }

    /// The folder that it runs in.
    pub(super) fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// Where its NATS listens.
    pub(super) fn nats(&self) -> &str {
        self.text("nats").trim_start_matches("nats://")
    }

    /// What its nats-server has in its environment, and no other process.
    pub(super) fn nats_store(&self) -> String {
        nats_store(self.folder.path())
    }
}

pub(super) fn begin(folder: &Path, file: &str, nats_listen: &str, more: &[&str]) -> Program {
    let path = folder.join("trunkline.toml");
    std::fs::write(&path, file).expect("the file is written");
    let config = path.display().to_string();
    let data = folder.join("data").display().to_string();
    let mut words = vec!["up", "--listen", ANY_PORT, "--nats-listen", nats_listen];
    words.extend(["--config", &config, "--data-dir", &data]);
    words.extend(more);
    Program::start(&words)
}

/// What the nats-server of a run in this folder has in its environment.
pub(super) fn nats_store(folder: &Path) -> String {
    let store = folder.join("data/nats").canonicalize();
    store.expect("a data folder").to_string_lossy().into_owned()
}
