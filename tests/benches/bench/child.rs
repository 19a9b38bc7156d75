//! The processes that a run starts: each says when it is ready, and ends when its standard input does.

use std::process::Stdio;

use anyhow::{Context as _, bail};
use serde::{Deserialize, Serialize, de::DeserializeOwned};
use tokio::{
    io::{AsyncBufReadExt as _, AsyncReadExt as _, BufReader, Lines},
    process::{Child, ChildStderr, ChildStdin, Command},
    task::JoinHandle,
    time::{Duration, timeout},
};

use crate::{ROLE, role::Role};

/// How long a process may take until it is ready.
const READY_LIMIT: Duration = Duration::from_secs(30);
/// How long a process may take to end.
const END_LIMIT: Duration = Duration::from_secs(15);

/// What a serving process says when it is ready.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Ready {
    /// Where it is reached.
    pub(crate) at: String,
    /// The process that does the work, which may be a child of the one that speaks.
    pub(crate) pid: u32,
}

/// A process that serves until it is stopped, or this one ends.
pub(crate) struct Served {
    child: Child,
    input: ChildStdin,
    pub(crate) ready: Ready,
}

impl Served {
    /// Starts a role and waits until it is ready.
    pub(crate) async fn start(role: &Role) -> anyhow::Result<Self> {
        let (mut child, log) = spawn(role)?;
        let input = child.stdin.take().context("standard input is piped")?;
        let mut output = BufReader::new(child.stdout.take().context("standard output is piped")?);
        let mut line = String::new();
        let read = timeout(READY_LIMIT, output.read_line(&mut line)).await;
        if !matches!(read, Ok(Ok(1..))) {
            drop(input);
            let _ = timeout(END_LIMIT, log).await;
            bail!("{} did not become ready", role.name());
        }
        let ready = serde_json::from_str(&line).context("a process said what is no JSON")?;
        Ok(Self { child, input, ready })
    }

    /// Lets it end, and waits for that.
    pub(crate) async fn stop(mut self) {
        drop(self.input);
        let _ = timeout(END_LIMIT, self.child.wait()).await;
    }
}

/// Runs a role to its end and reads what it says then.
pub(crate) async fn finish<T: DeserializeOwned>(role: &Role, limit: Duration) -> anyhow::Result<T> {
    let (mut child, log) = spawn(role)?;
    // Held to the end: without it the process takes this one for dead.
    let _input = child.stdin.take();
    let mut said = String::new();
    let mut output = child.stdout.take().context("standard output is piped")?;
    let read = timeout(limit, output.read_to_string(&mut said)).await;
    read.with_context(|| format!("{} did not end within {limit:?}", role.name()))??;
    let _ = timeout(END_LIMIT, log).await;
    serde_json::from_str(&said).with_context(|| format!("{} failed", role.name()))
}

/// Starts a process, and a task that passes on what is important in its log.
fn spawn(role: &Role) -> anyhow::Result<(Child, JoinHandle<()>)> {
    let program = std::env::current_exe().context("this program has no path")?;
    let mut child = Command::new(program)
        .arg(ROLE)
        .arg(serde_json::to_string(role)?)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        // Ctrl-C ends the first process alone. The others hear of any end of it through their input, and clean up.
        .process_group(0)
        .spawn()
        .context("cannot start a process of the benchmark")?;
    let log = child.stderr.take().context("standard error is piped")?;
    let log = tokio::spawn(pass_on_warnings(BufReader::new(log).lines()));
    Ok((child, log))
}

/// Logs are for reading when something is wrong.
#[expect(
    clippy::print_stderr,
    reason = "the log of a process that the user has not started by hand"
)]
pub(crate) async fn pass_on_warnings(mut lines: Lines<BufReader<ChildStderr>>) {
    while let Ok(Some(line)) = lines.next_line().await {
        if !["TRACE ", "DEBUG ", "INFO "]
            .iter()
            .any(|level| line.contains(level))
        {
            eprintln!("{line}");
        }
    }
}
