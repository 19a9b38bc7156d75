//! A nats-server of our own: found, started with the repository's `nats.conf`, watched, and stopped.

mod clients;
mod secrets;

use std::{
    fs, io,
    net::SocketAddr,
    path::{Path, PathBuf},
    process::Stdio,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use bus_schema::subject::CallerClass;
use rustix::process::{Pid, Signal, kill_process, test_kill_process};
use tokio::{
    io::{AsyncBufReadExt as _, BufReader},
    process::{Child, Command},
    time::{Instant, sleep, timeout},
};
use tracing::{debug, warn};

pub use clients::Clients;
pub use secrets::{Secrets, password_variable};

use crate::bus::is_new_enough;

/// The configuration that every nats-server of ours runs with.
const CONFIG: &str = include_str!("../../nats.conf");
/// The version that the Makefile fetches.
pub const PINNED_VERSION: &str = "2.15.1";
/// The oldest version that we start ourselves.
const OLDEST_OWN: &str = "2.15.1";
/// The folder beside it for what is said of plain clients.
const CLIENTS_DIR: &str = "nats.d";
/// The file that says where the server listens.
const URL_FILE: &str = "url";
const READY_LIMIT: Duration = Duration::from_secs(20);
const STOP_LIMIT: Duration = Duration::from_secs(10);

/// How a nats-server is to run.
#[derive(Clone, Debug)]
pub struct NatsServerOptions {
    /// The program; `None` looks for one.
    pub program: Option<PathBuf>,
    /// Where clients connect; port 0 picks a free one.
    pub listen: SocketAddr,
    /// The folder for its configuration, its secrets and JetStream's files.
    pub data_dir: PathBuf,
    /// Which plain clients come in.
    pub clients: Clients,
    /// The tenants that have an account for their plain clients, beside `default`.
    pub tenants: Vec<String>,
}

/// A running nats-server.
pub struct NatsServer {
    child: Child,
    url: String,
    secrets: Secrets,
    pid_file: PathBuf,
    refused: Refused,
    /// Held for as long as the server runs, so that nobody else uses the folder.
    _lock: fs::File,
}

/// What it has refused to users of our roles, in the words of its log; the first only.
#[derive(Clone, Default)]
struct Refused(Arc<Mutex<Vec<String>>>);

/// How many of them are kept.
const REFUSED_KEPT: usize = 64;

impl Refused {
    fn note(&self, line: &str) {
        let ours = |class: CallerClass| line.contains(&format!("\"CORE/user:{}\"", class.as_str()));
        if !line.contains(" Violation - ") || !CallerClass::ALL.into_iter().any(ours) {
            return;
        }
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if all.len() < REFUSED_KEPT {
            all.push(line.to_owned());
        }
    }
}

/// Says why a nats-server could not be started.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum NatsServerError {
    /// There is none.
    #[error(
        "no nats-server {OLDEST_OWN} or newer was found on PATH or in .cache; run `make nats` to fetch it, put one on PATH, or use \
         --nats to connect to one that runs already"
    )]
    NotFound,
    /// The one that was named is too old or does not run.
    #[error("{program} is no nats-server {OLDEST_OWN} or newer (it says `{found}`)")]
    Unusable {
        /// Which program.
        program: String,
        /// What it printed.
        found: String,
    },
    /// Somebody else listens there.
    #[error(
        "port {0} is in use, so nats-server cannot listen there; use --nats nats://{0} if that is the NATS you want, or \
         --nats-listen with another port (port 0 picks a free one)"
    )]
    PortInUse(SocketAddr),
    /// The data folder cannot be used.
    #[error("cannot use the data folder {path}")]
    DataDir {
        /// Which folder.
        path: PathBuf,
        /// What the system says.
        #[source]
        source: io::Error,
    },
    /// Another process uses the data folder.
    #[error(
        "the data folder {0} is in use by another trunkline; stop that one, or choose another folder with --data-dir"
    )]
    DataDirInUse(PathBuf),
    /// The address cannot be listened on.
    #[error("nats-server cannot listen on {address}; choose another with --nats-listen")]
    Listen {
        /// Which address.
        address: SocketAddr,
        /// What the system says.
        #[source]
        source: io::Error,
    },
    /// It ended, or did not become ready.
    #[error("nats-server did not start; the last it said: {0}")]
    NotReady(String),
}

/// The NATS of a `trunkline up` on this machine, as its data folder tells.
#[derive(Clone)]
pub struct LocalNats {
    /// Where it listens, without credentials.
    pub url: String,
    /// The secrets of the platform's own processes.
    pub secrets: Secrets,
}

impl LocalNats {
    /// Reads it from a data folder; `None` when no platform has run there.
    #[must_use]
    pub fn find(data_dir: &Path) -> Option<Self> {
        let data_dir = data_dir.join("nats");
        let url = fs::read_to_string(data_dir.join(URL_FILE)).ok()?;
        Some(Self {
            url: Some(url.trim().to_owned()).filter(|url| !url.is_empty())?,
            secrets: Secrets::find(&data_dir)?,
        })
    }
}

impl NatsServer {
    /// Starts a nats-server and waits until it takes connections.
    ///
    /// # Errors
    /// [`NatsServerError`], each naming what to change.
    pub async fn start(options: NatsServerOptions) -> Result<Self, NatsServerError> {
        let program = find_program(options.program.clone()).await?;
        let data_dir = options.data_dir.join("nats");
        let unusable = |source| NatsServerError::DataDir {
            path: data_dir.clone(),
            source,
        };
        fs::create_dir_all(&data_dir).map_err(unusable)?;
        // The server takes relative paths from its own folder, not from ours.
        let data_dir = data_dir.canonicalize().map_err(unusable)?;
        let lock = lock(&data_dir)?;
        let secrets = Secrets::make(&data_dir).map_err(unusable)?;
        let config = write_configuration(&data_dir, &options, &secrets).map_err(unusable)?;
        let pid_file = data_dir.join("nats.pid");
        end_leftover(&pid_file, &config).await;
        let listen = free_port(options.listen)?;
        let mut child = Command::new(&program)
            .arg("-c")
            .arg(&config)
            .args(["-a", &listen.ip().to_string(), "-p", &listen.port().to_string()])
            .arg("-P")
            .arg(&pid_file)
            .env("GOMAXPROCS", go_threads().to_string())
            .env("TRUNKLINE_NATS_STORE", &data_dir)
            .envs(secrets.variables())
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            // Ctrl-C in a terminal reaches the whole group; the server must outlive our drain.
            .process_group(0)
            .kill_on_drop(true)
            .spawn()
            .map_err(|error| NatsServerError::NotReady(error.to_string()))?;
        let refused = Refused::default();
        wait_until_ready(&mut child, refused.clone()).await?;
        let url = format!("nats://{listen}");
        fs::write(data_dir.join(URL_FILE), &url).map_err(unusable)?;
        Ok(Self {
            child,
            url,
            secrets,
            pid_file,
            refused,
            _lock: lock,
        })
    }

    /// Where it listens, without credentials.
    #[must_use]
    pub fn url(&self) -> &str {
        &self.url
    }

    /// The secrets of the platform's own processes.
    #[must_use]
    pub fn secrets(&self) -> &Secrets {
        &self.secrets
    }

    /// What it has refused to users of our roles, in the words of its log: nothing, if the grants are what the roles need.
    #[must_use]
    pub fn refused(&self) -> Vec<String> {
        self.refused
            .0
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }

    /// Its process.
    #[must_use]
    pub fn pid(&self) -> Option<u32> {
        self.child.id()
    }

    /// Waits until it ends, which it does not do by itself.
    pub async fn ended(&mut self) -> String {
        match self.child.wait().await {
            Ok(status) => status.to_string(),
            Err(error) => error.to_string(),
        }
    }

    /// Stops it: asks, waits, and ends it by force if it does not go.
    pub async fn stop(mut self) {
        if let Some(pid) = self
            .child
            .id()
            .and_then(|pid| Pid::from_raw(i32::try_from(pid).ok()?))
        {
            // It may have ended by itself in between.
            let _ = kill_process(pid, Signal::TERM);
        }
        if timeout(STOP_LIMIT, self.child.wait()).await.is_err() {
            warn!("nats-server did not stop when asked; ending it by force");
            let _ = self.child.kill().await;
        }
        let _ = fs::remove_file(&self.pid_file);
    }
}

/// How many threads the broker runs Go code on. Where cores are few, waking other threads is what a message mostly costs.
fn go_threads() -> usize {
    std::thread::available_parallelism()
        .map_or(1, usize::from)
        .div_ceil(2)
}

async fn find_program(named: Option<PathBuf>) -> Result<PathBuf, NatsServerError> {
    if let Some(program) = named {
        let found = version_of(&program)
            .await
            .unwrap_or_else(|error| error.to_string());
        if usable(&found) {
            return Ok(program);
        }
        return Err(NatsServerError::Unusable {
            program: program.display().to_string(),
            found,
        });
    }
    let cached = Path::new(".cache/nats-server")
        .join(PINNED_VERSION)
        .join("nats-server");
    for program in [PathBuf::from("nats-server"), cached] {
        if version_of(&program).await.is_ok_and(|found| usable(&found)) {
            return Ok(program);
        }
    }
    Err(NatsServerError::NotFound)
}

async fn version_of(program: &Path) -> io::Result<String> {
    let output = Command::new(program)
        .arg("--version")
        .stdin(Stdio::null())
        .output()
        .await?;
    Ok(String::from_utf8_lossy(&output.stdout).trim().to_owned())
}

/// Reads `nats-server: v2.15.1`.
fn usable(version: &str) -> bool {
    version
        .strip_prefix("nats-server: ")
        .is_some_and(|version| is_new_enough(version, OLDEST_OWN))
}

/// Writes `nats.conf` and what it includes, and gives its path.
fn write_configuration(
    data_dir: &Path,
    options: &NatsServerOptions,
    secrets: &Secrets,
) -> io::Result<PathBuf> {
    let (config, included) = (data_dir.join("nats.conf"), data_dir.join(CLIENTS_DIR));
    fs::create_dir_all(&included)?;
    let (clients, keys) = (options.clients, secrets.callout_keys());
    fs::write(included.join("clients.conf"), clients.way(keys))?;
    fs::write(included.join("tenants.conf"), clients.accounts(&options.tenants))?;
    fs::write(included.join("core.conf"), clients::core(&options.tenants))?;
    fs::write(&config, CONFIG)?;
    Ok(config)
}

/// Picks a port if none is given, and finds out early whether a given one is free.
fn free_port(listen: SocketAddr) -> Result<SocketAddr, NatsServerError> {
    let bound = std::net::TcpListener::bind(listen).and_then(|listener| listener.local_addr());
    bound.map_err(|source| match source.kind() {
        io::ErrorKind::AddrInUse => NatsServerError::PortInUse(listen),
        _ => NatsServerError::Listen {
            address: listen,
            source,
        },
    })
}

/// Takes the folder for this process alone.
fn lock(data_dir: &Path) -> Result<fs::File, NatsServerError> {
    let unusable = |source| NatsServerError::DataDir {
        path: data_dir.to_owned(),
        source,
    };
    let file = fs::OpenOptions::new()
        .create(true)
        .truncate(false)
        .write(true)
        .open(data_dir.join("lock"));
    let file = file.map_err(unusable)?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(fs::TryLockError::WouldBlock) => Err(NatsServerError::DataDirInUse(data_dir.to_owned())),
        Err(fs::TryLockError::Error(source)) => Err(unusable(source)),
    }
}

/// Ends the nats-server that an earlier process left on this data folder when it was killed.
async fn end_leftover(pid_file: &Path, config: &Path) {
    let Ok(text) = fs::read_to_string(pid_file) else {
        return;
    };
    let Some(pid) = text.trim().parse().ok().and_then(Pid::from_raw) else {
        return;
    };
    // A process id may have been given to somebody else since; only a process with our configuration is ours.
    let command = fs::read(format!("/proc/{pid}/cmdline", pid = pid.as_raw_nonzero())).unwrap_or_default();
    let ours = String::from_utf8_lossy(&command).contains(&*config.to_string_lossy());
    if !ours {
        return;
    }
    warn!(
        pid = pid.as_raw_nonzero().get(),
        "ending the nats-server that an earlier run left behind"
    );
    let _ = kill_process(pid, Signal::TERM);
    let limit = Instant::now() + STOP_LIMIT;
    while test_kill_process(pid).is_ok() {
        if Instant::now() > limit {
            let _ = kill_process(pid, Signal::KILL);
            return;
        }
        sleep(Duration::from_millis(20)).await;
    }
}

/// Reads the server's log until it is ready, and keeps reading it afterwards.
async fn wait_until_ready(child: &mut Child, refused: Refused) -> Result<(), NatsServerError> {
    let stderr = child.stderr.take().expect("its standard error is piped");
    let mut lines = BufReader::new(stderr).lines();
    let mut last = "nothing".to_owned();
    let ready = timeout(READY_LIMIT, async {
        while let Ok(Some(line)) = lines.next_line().await {
            debug!(target: "nats_server", "{line}");
            if line.contains("Server is ready") {
                return true;
            }
            last = line;
        }
        false
    })
    .await;
    if ready != Ok(true) {
        return Err(NatsServerError::NotReady(last));
    }
    tokio::spawn(async move {
        while let Ok(Some(line)) = lines.next_line().await {
            refused.note(&line);
            if line.contains("[ERR]") || line.contains("[FTL]") {
                warn!(target: "nats_server", "{line}");
            } else {
                debug!(target: "nats_server", "{line}");
            }
        }
    });
    Ok(())
}
