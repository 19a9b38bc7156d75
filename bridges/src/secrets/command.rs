//! Secrets that a program writes. It is run without a shell, in a process group of its own, and without the platform's own variables.
//!
//! Its words on stderr are not repeated, as they may hold what it was to keep.

use std::{process::Stdio, time::Duration};

use rustix::process::Pid;
use tokio::{io::AsyncReadExt as _, process::Command, time::timeout};
use zeroize::Zeroizing;

use super::{MAX_BYTES, Program, Secret};
use crate::upstream::{Group, own_names};

/// How long the program may take.
const LIMIT: Duration = Duration::from_secs(10);

/// Runs the program and reads what it writes.
pub(super) async fn run(program: &Program) -> Result<Secret, String> {
    match timeout(LIMIT, run_to_its_end(program)).await {
        Ok(read) => read,
        Err(_) => Err(format!(
            "it did not end within {} s, and was killed",
            LIMIT.as_secs()
        )),
    }
}

async fn run_to_its_end(program: &Program) -> Result<Secret, String> {
    let [name, arguments @ ..] = program.line.as_slice() else {
        return Err("it names no program".to_owned());
    };
    let mut command = Command::new(name);
    command
        .args(arguments)
        .process_group(0)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::null());
    for name in own_names() {
        command.env_remove(name);
    }
    let mut child = command
        .spawn()
        .map_err(|error| format!("it cannot be started: {error}"))?;
    // Killed with all that it has started if this is given up.
    let mut group = Group(child.id().and_then(|id| Pid::from_raw(id.try_into().ok()?)));
    let mut text = Zeroizing::new(String::new());
    if let Some(output) = child.stdout.take() {
        output
            .take(MAX_BYTES + 1)
            .read_to_string(&mut text)
            .await
            .map_err(|error| format!("what it writes cannot be read: {error}"))?;
    }
    if text.len() as u64 > MAX_BYTES {
        return Err(too_long());
    }
    let ended = child
        .wait()
        .await
        .map_err(|error| format!("its end cannot be told: {error}"))?;
    // Its number may be somebody else's from now on.
    group.0 = None;
    if !ended.success() {
        return Err(format!("it failed ({ended}); run it by hand to see why"));
    }
    read(&text)
}

/// A secret as it was written, without the white space around it.
pub(super) fn read(text: &str) -> Result<Secret, String> {
    if text.len() as u64 > MAX_BYTES {
        return Err(too_long());
    }
    match text.trim() {
        "" => Err("it is empty".to_owned()),
        secret => Ok(Secret::new(secret)),
    }
}

fn too_long() -> String {
    format!("it has more than {MAX_BYTES} bytes, so it holds something else")
}
