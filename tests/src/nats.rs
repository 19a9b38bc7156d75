//! A real nats-server on a free port, with the repository's `nats.conf`.

use std::path::{Path, PathBuf};

use bus_schema::{card::Place, subject::CallerClass};
use runtime::{
    Bus, BusOptions,
    nats_server::{Clients, NatsServer, NatsServerOptions, PINNED_VERSION},
};
use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;
use tokio::process::{Child, Command};

use crate::{eventually, root};

/// A nats-server for one test.
pub struct Nats {
    server: Option<NatsServer>,
    options: NatsServerOptions,
    folder: TempDir,
    /// Whether a test means to be refused.
    expects_refusals: bool,
}

/// A process of ours that the broker refuses something loses it silently, so a test that has not meant that fails.
impl Drop for Nats {
    fn drop(&mut self) {
        let Some(server) = self.server.as_ref().filter(|_| !self.expects_refusals) else {
            return;
        };
        let refused = server.refused();
        if refused.is_empty() {
            return;
        }
        let told = format!(
            "the broker has refused our own processes something:\n{}",
            refused.join("\n")
        );
        // It may well be why.
        if std::thread::panicking() {
            return tell(&told);
        }
        panic!("{told}");
    }
}

/// The nats-server that the Makefile fetched or found.
#[must_use]
pub fn program() -> PathBuf {
    match std::env::var_os("TRUNKLINE_NATS_SERVER") {
        Some(program) => program.into(),
        None => root()
            .join(".cache/nats-server")
            .join(PINNED_VERSION)
            .join("nats-server"),
    }
}

impl Nats {
    /// Starts one.
    ///
    /// # Panics
    /// When it does not start: `make nats` fetches what is needed.
    pub async fn start() -> Self {
        Self::start_for(Clients::Anybody, &[]).await
    }

    /// Starts one for these plain clients, with accounts for these tenants.
    ///
    /// # Panics
    /// When it does not start.
    pub async fn start_for(clients: Clients, tenants: &[&str]) -> Self {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let options = NatsServerOptions {
            program: Some(program()),
            listen: ([127, 0, 0, 1], 0).into(),
            data_dir: folder.path().to_owned(),
            clients,
            tenants: tenants.iter().map(|tenant| (*tenant).to_owned()).collect(),
        };
        let server = NatsServer::start(options.clone())
            .await
            .expect("nats-server starts; `make nats` fetches it");
        Self {
            server: Some(server),
            options,
            folder,
            expects_refusals: false,
        }
    }

    /// For a test that does with our roles what they may not.
    #[must_use]
    pub fn expecting_refusals(mut self) -> Self {
        self.expects_refusals = true;
        self
    }

    /// Where it listens, without credentials: a plain client is the developer there.
    #[must_use]
    pub fn url(&self) -> &str {
        self.server().url()
    }

    /// Where it listens, with the credentials of a whole node, which may do what all roles of ours may.
    #[must_use]
    pub fn core_url(&self) -> String {
        self.url_of(CallerClass::Node)
    }

    /// Where it listens, with the credentials of one role of ours.
    #[must_use]
    pub fn url_of(&self, role: CallerClass) -> String {
        let password = self.server().secrets().password(role);
        let login = format!("nats://{}:{password}@", role.as_str());
        self.url().replacen("nats://", &login, 1)
    }

    /// Where it listens, with the credentials of the auth callout's own connection.
    #[must_use]
    pub fn callout_url(&self) -> String {
        let login = format!("nats://callout:{}@", self.server().secrets().callout_password());
        self.url().replacen("nats://", &login, 1)
    }

    /// Where it listens, with the credentials of whoever looks at the services that are there.
    #[must_use]
    pub fn observer_url(&self) -> String {
        let login = format!("nats://observer:{}@", self.server().secrets().observer_password());
        self.url().replacen("nats://", &login, 1)
    }

    /// The password of one role of ours.
    #[must_use]
    pub fn password_of(&self, role: CallerClass) -> &str {
        self.server().secrets().password(role)
    }

    /// What the broker has refused our own roles, in the words of its log.
    #[must_use]
    pub fn refused(&self) -> Vec<String> {
        self.server().refused()
    }

    /// The folder that holds the secret, as `--data-dir`.
    #[must_use]
    pub fn data_dir(&self) -> PathBuf {
        self.folder.path().to_owned()
    }

    /// A connection as a process of its own would have it.
    ///
    /// # Panics
    /// When it cannot connect.
    pub async fn bus(&self) -> Bus {
        self.bus_at(self.core_url()).await
    }

    /// A connection by another way than the direct one.
    ///
    /// # Panics
    /// When it cannot connect.
    pub async fn bus_at(&self, url: String) -> Bus {
        connect(url, Place::default()).await
    }

    /// A connection of a process that runs there.
    ///
    /// # Panics
    /// When it cannot connect.
    pub async fn bus_in(&self, node: &str, region: &str) -> Bus {
        let place = Place {
            node: node.to_owned(),
            region: region.to_owned(),
        };
        connect(self.core_url(), place).await
    }

    /// A connection of one role of ours.
    ///
    /// # Panics
    /// When it cannot connect.
    pub async fn bus_as(&self, class: CallerClass) -> Bus {
        let options = BusOptions {
            url: self.url_of(class),
            credentials: None,
            class,
            place: Place::default(),
        };
        Bus::connect(options).await.expect("connects to the bus")
    }

    /// Ends it and starts it again on the same port, as an operator would.
    ///
    /// # Panics
    /// When it does not start again.
    pub async fn restart(&mut self) {
        self.restart_while(async {}).await;
    }

    /// Ends it without a word, as a power cut would, does something while it is away, and starts it again on the same port.
    ///
    /// # Panics
    /// When it does not start again.
    pub async fn die_while(&mut self, doing: impl Future<Output = ()>) {
        let pid = self.server().pid().expect("it runs");
        let pid = i32::try_from(pid)
            .ok()
            .and_then(Pid::from_raw)
            .expect("a process id");
        kill_process(pid, Signal::KILL).expect("it is ours");
        self.restart_while(doing).await;
    }

    /// The same, and does something while it is away.
    ///
    /// # Panics
    /// When it does not start again.
    pub async fn restart_while(&mut self, doing: impl Future<Output = ()>) {
        let server = self.server.take().expect("it runs");
        let listen = server
            .url()
            .trim_start_matches("nats://")
            .parse()
            .expect("an address");
        server.stop().await;
        doing.await;
        let options = NatsServerOptions {
            listen,
            ..self.options.clone()
        };
        self.server = Some(
            NatsServer::start(options)
                .await
                .expect("nats-server starts again"),
        );
    }

    fn server(&self) -> &NatsServer {
        self.server.as_ref().expect("it runs")
    }
}

/// A nats-server without JetStream and without our configuration, and where it listens.
///
/// # Panics
/// When it does not start.
pub async fn plain(folder: &Path) -> (Child, String) {
    let ports = folder.display().to_string();
    let server = Command::new(program())
        .args(["-a", "127.0.0.1", "-p", "-1", "--ports_file_dir", &ports])
        .kill_on_drop(true)
        .spawn()
        .expect("nats-server starts");
    let address = async || {
        let entries = std::fs::read_dir(folder).expect("a folder");
        let ports = entries
            .flatten()
            .find(|entry| entry.path().extension().is_some_and(|end| end == "ports"));
        let text = std::fs::read_to_string(ports?.path()).ok()?;
        let ports: serde_json::Value = serde_json::from_str(&text).ok()?;
        ports["nats"][0].as_str().map(str::to_owned)
    };
    eventually("the address of nats-server", async || address().await.is_some()).await;
    (server, address().await.expect("an address"))
}

/// A connection to a NATS that is not ours.
///
/// # Panics
/// When it cannot connect.
pub async fn bus_of(url: &str) -> Bus {
    connect(url.to_owned(), Place::default()).await
}

async fn connect(url: String, place: Place) -> Bus {
    let options = BusOptions {
        url,
        credentials: None,
        class: CallerClass::Node,
        place,
    };
    Bus::connect(options).await.expect("connects to the bus")
}

#[expect(clippy::print_stderr, reason = "a test that has failed tells more")]
fn tell(words: &str) {
    eprintln!("{words}");
}
