//! A real `trunkline bridge http`, kept by a process that ends it when the benchmark ends.

use std::{path::Path, process::Stdio};

use anyhow::{Context as _, bail};
use rustix::process::{Pid, Signal, kill_process};
use tokio::{
    io::{AsyncBufReadExt as _, BufReader},
    process::{Child, Command},
};

use super::{input_ended, ready};

pub(super) async fn serve(
    nats: &str,
    threads: Option<usize>,
    folder: &Path,
    config: Option<&Path>,
) -> anyhow::Result<()> {
    let program = tests::program::path();
    let mut command = Command::new(program);
    command
        .args(["bridge", "http", "--listen", "127.0.0.1:0", "--nats", nats])
        .arg("--data-dir")
        .arg(folder)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .kill_on_drop(true);
    if let Some(threads) = threads {
        command.args(["--threads", &threads.to_string()]);
    }
    if let Some(config) = config {
        command.arg("--config").arg(config);
    }
    let mut child = command.spawn().context("cannot start trunkline")?;
    let address = opened(&mut child).await?;
    ready(address, child.id().context("the bridge runs")?)?;
    input_ended().await;
    if let Some(pid) = child.id().and_then(|pid| Pid::from_raw(i32::try_from(pid).ok()?)) {
        kill_process(pid, Signal::TERM).context("the bridge has ended before it was asked to")?;
    }
    child.wait().await?;
    Ok(())
}

/// Reads in the bridge's log where it listens, and passes the rest of it on.
async fn opened(child: &mut Child) -> anyhow::Result<String> {
    let log = child.stderr.take().context("standard error is piped")?;
    let mut lines = BufReader::new(log).lines();
    let mut seen = Vec::new();
    while let Some(line) = lines.next_line().await? {
        if let Some((_, rest)) = line.split_once("mcp=http://") {
            let address = rest.split('/').next().unwrap_or_default().to_owned();
            tokio::spawn(crate::child::pass_on_warnings(lines));
            return Ok(address);
        }
        seen.push(line);
    }
    bail!("the bridge ended before it was ready:\n{}", seen.join("\n"))
}
