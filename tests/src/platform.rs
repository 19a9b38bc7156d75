//! A whole platform in this process: NATS on a free port, the built-in servers, and HTTP on a free port.

use bridges::http::Serves;
use bus_schema::subject::CallerClass;
use serde_json::Value;
use trunkline::{
    args::Common,
    config::Config,
    node::{self, Node},
};

use runtime::{Bus, Directory};

use crate::{eventually, http::Client, nats, within};

/// A running platform.
pub struct Platform {
    /// The node that runs it.
    pub node: Node,
    /// What it was started with.
    pub config: Config,
    directory: Directory,
    folder: tempfile::TempDir,
    _granted: Granted,
}

/// Fails a test whose platform the broker has refused something, as what is refused is lost silently.
struct Granted(Bus);

impl Drop for Granted {
    fn drop(&mut self) {
        let refused = self.0.refused();
        if !refused.is_empty() && !std::thread::panicking() {
            panic!(
                "the broker has refused the platform something:\n{}",
                refused.join("\n")
            );
        }
    }
}

impl Platform {
    /// Starts one with the given configuration file and servers by name.
    ///
    /// # Panics
    /// When it does not start.
    pub async fn start(file: &str, servers: &[&str]) -> Self {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let path = folder.path().join("trunkline.toml");
        std::fs::write(&path, file).expect("the file is written");
        let common = Common {
            config: Some(path),
            data_dir: Some(folder.path().join("data")),
            ..Common::default()
        };
        let mut config = Config::load(&common).expect("the configuration is right");
        config.listen = ([127, 0, 0, 1], 0).into();
        config.nats_listen = ([127, 0, 0, 1], 0).into();
        let choice = node::own_nats(&config, Some(nats::program()));
        let mut node = Node::connect(&config, CallerClass::Node, choice)
            .await
            .expect("the bus is there");
        // Boxed, as they are large and made once.
        Box::pin(node.open_http(&config, Serves::Everything))
            .await
            .expect("HTTP opens");
        node.open_nats(&config).await.expect("the NATS door opens");
        if config.is_authenticated() {
            node.open_callout(&config).await.expect("the auth callout opens");
        }
        let servers: Vec<String> = servers.iter().map(|server| (*server).to_owned()).collect();
        Box::pin(node.serve(&config, &servers))
            .await
            .expect("the servers are known");
        node.settled().await;
        let directory = node
            .front(&config)
            .await
            .expect("the front is there")
            .directory()
            .clone();
        Self {
            _granted: Granted(node.bus().clone()),
            node,
            config,
            directory,
            folder,
        }
    }

    /// Waits until the doors know a server.
    ///
    /// # Panics
    /// When they do not hear of it.
    pub async fn knows(&self, server: &str) {
        let id = server.parse().expect("an id");
        let mut changes = self.directory.changes();
        within("the doors know the server", async {
            while self.directory.snapshot().server(&id).is_none() {
                changes.changed().await.expect("the directory lives");
            }
        })
        .await;
    }

    /// Has a virtual server kept, and waits until it is there.
    ///
    /// # Panics
    /// When it is not taken.
    pub async fn define(&self, chosen: &Value) {
        let request = reqwest::Client::new()
            .post(self.url("/virtual-servers"))
            .header("content-type", "application/json")
            .body(chosen.to_string());
        let made = within("an answer", request.send()).await.expect("an answer");
        assert_eq!(made.status(), 201);
        let id = chosen["id"].as_str().expect("an id");
        eventually("it is there", async || {
            self.client(id).list_tools().await["result"].is_object()
        })
        .await;
    }

    /// The URL of an HTTP path.
    ///
    /// # Panics
    /// When HTTP is not open.
    #[must_use]
    pub fn url(&self, path: &str) -> String {
        let address = self.node.http().expect("HTTP is open");
        format!("{}://{address}{path}", self.config.scheme().as_str())
    }

    /// A client of the endpoint of one server.
    #[must_use]
    pub fn client(&self, server: &str) -> Client {
        Client::new(self.url(&format!("/servers/{server}/mcp")))
    }

    /// A client of the endpoint of all servers.
    #[must_use]
    pub fn client_of_all(&self) -> Client {
        Client::new(self.url("/mcp"))
    }

    /// What `trunkline` is told to be the stdio door to one server of this platform.
    ///
    /// # Panics
    /// When NATS is not this platform's own.
    #[must_use]
    pub fn stdio_bridge(&self, server: &str) -> Vec<String> {
        let nats = self.node.nats_url().expect("a NATS of its own");
        let data = self.folder().join("data");
        [
            "bridge",
            "stdio",
            "--nats",
            nats,
            "--server",
            server,
            "--data-dir",
        ]
        .map(str::to_owned)
        .into_iter()
        .chain([data.to_string_lossy().into_owned()])
        .collect()
    }

    /// The folder that is gone after the test.
    #[must_use]
    pub fn folder(&self) -> &std::path::Path {
        self.folder.path()
    }

    /// Stops it in order.
    pub async fn stop(self) {
        self.node.stop().await;
    }
}
