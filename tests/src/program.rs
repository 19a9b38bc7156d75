//! The `trunkline` program as a process of its own.

use std::{
    path::{Path, PathBuf},
    process::Stdio,
};

use serde_json::Value;
use tokio::{
    io::{AsyncBufReadExt as _, BufReader, Lines},
    process::{Child, ChildStderr, ChildStdin, ChildStdout, Command},
};

use crate::{nats, within};

/// The program that `make test` has built beside the tests.
///
/// # Panics
/// When it is not there.
#[must_use]
pub fn path() -> PathBuf {
    let test = std::env::current_exe().expect("a test has a path");
    let folder = test.ancestors().find(|folder| folder.join("trunkline").is_file());
    folder
        .expect("`cargo build --workspace --bins` has built trunkline")
        .join("trunkline")
}

/// A running `trunkline`.
pub struct Program {
    /// The process.
    pub child: Child,
    /// Its standard input.
    pub input: Option<ChildStdin>,
    /// The lines of its standard output.
    pub output: Lines<BufReader<ChildStdout>>,
    /// The lines of its log.
    pub log: Lines<BufReader<ChildStderr>>,
}

/// Ends in order what a test has left running: killed, `trunkline up` would leave its nats-server behind.
impl Drop for Program {
    fn drop(&mut self) {
        if !matches!(self.child.try_wait(), Ok(None)) {
            return;
        }
        self.signal(rustix::process::Signal::TERM);
        let limit = std::time::Instant::now() + std::time::Duration::from_secs(5);
        while matches!(self.child.try_wait(), Ok(None)) && std::time::Instant::now() < limit {
            std::thread::park_timeout(std::time::Duration::from_millis(10));
        }
    }
}

impl Program {
    /// Starts it.
    ///
    /// # Panics
    /// When it cannot be started.
    #[must_use]
    pub fn start(arguments: &[&str]) -> Self {
        Self::start_in(Path::new("."), arguments)
    }

    /// Starts it in a folder.
    ///
    /// # Panics
    /// When it cannot be started.
    #[must_use]
    pub fn start_in(folder: &Path, arguments: &[&str]) -> Self {
        let mut child = command(arguments)
            .current_dir(folder)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .expect("the program starts");
        let output = BufReader::new(child.stdout.take().expect("piped")).lines();
        let log = BufReader::new(child.stderr.take().expect("piped")).lines();
        Self {
            input: child.stdin.take(),
            child,
            output,
            log,
        }
    }

    /// Starts a whole platform on free ports that logs all it can.
    ///
    /// # Panics
    /// When it cannot be started.
    #[must_use]
    pub fn talkative(config: &Path, data: &Path) -> Self {
        let [config, data] = [config, data].map(|path| path.display().to_string());
        let listen = ["--listen", "127.0.0.1:0", "--nats-listen", "127.0.0.1:0"];
        let files = ["--config", &config, "--data-dir", &data];
        Self::start(&[&["up", "--json", "--log", "trace"][..], &listen, &files].concat())
    }

    /// Reads the log until a line has a word in it, and gives that line.
    ///
    /// # Panics
    /// When the log ends without it.
    pub async fn logged(&mut self, word: &str) -> String {
        within(&format!("a log line with `{word}`"), async {
            let mut seen = Vec::new();
            while let Some(line) = self.log.next_line().await.expect("the log can be read") {
                if line.contains(word) {
                    return line;
                }
                seen.push(line);
            }
            panic!("the log ended without `{word}`:\n{}", seen.join("\n"))
        })
        .await
    }

    /// Its process id.
    ///
    /// # Panics
    /// When it has ended.
    #[must_use]
    pub fn pid(&self) -> rustix::process::Pid {
        let pid = self
            .child
            .id()
            .and_then(|pid| i32::try_from(pid).ok())
            .expect("it runs");
        rustix::process::Pid::from_raw(pid).expect("a process id is not 0")
    }

    /// Sends it a signal.
    ///
    /// # Panics
    /// When it has ended.
    pub fn signal(&self, signal: rustix::process::Signal) {
        rustix::process::kill_process(self.pid(), signal).expect("it runs");
    }
}

/// Where HTTP is, as a platform says in its first line; the log is for somebody else to read meanwhile.
///
/// # Panics
/// When it says something else.
pub async fn http_of(output: &mut Lines<BufReader<ChildStdout>>) -> String {
    let ready = within("the ready banner", output.next_line()).await;
    let ready = ready.expect("output").expect("a line");
    let ready: Value = serde_json::from_str(&ready).expect("JSON");
    ready["http"].as_str().expect("an address").to_owned()
}

/// Runs it to its end; gives the exit code, standard output and standard error.
///
/// # Panics
/// When it cannot be run.
pub async fn run(arguments: &[&str]) -> (i32, String, String) {
    let output = within(
        "the end of a command",
        command(arguments).stdin(Stdio::null()).output(),
    )
    .await;
    let output = output.expect("the program runs");
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    (
        output.status.code().unwrap_or(-1),
        text(&output.stdout),
        text(&output.stderr),
    )
}

fn command(arguments: &[&str]) -> Command {
    let mut command = Command::new(path());
    command
        .args(arguments)
        .env("TRUNKLINE_NATS_SERVER", nats::program());
    command
}
