//! The operating system's side of a child: its process group, its signals, and its end.
//!
//! A group's number stays its own for as long as its first process was not waited for, even if that has ended. So the group is
//! always killed before its first process is waited for, and a stranger that got the number later is never hit.

use std::{
    io,
    process::{ExitStatus, Stdio},
    time::Duration,
};

use rustix::process::{Pid, Signal, WaitId, WaitIdOptions, kill_process_group, waitid};
use tokio::{
    process::{Child, ChildStderr, ChildStdin, ChildStdout, Command},
    signal::unix::{self, SignalKind},
    time::timeout,
};
use tracing::warn;

use super::{environment, error::UpstreamError, options::ChildOptions};

/// How long a killed process may take to be gone.
const KILLED_WITHIN: Duration = Duration::from_secs(5);

/// A running child. Dropped, it is killed with all that it has started.
pub(super) struct Process {
    /// Stands before the child: killed before that is waited for.
    group: Group,
    child: Child,
    /// Wakes up when any child of this process has ended.
    ends: unix::Signal,
}

/// The child's ends of its pipes.
pub(super) struct Pipes {
    pub(super) stdin: ChildStdin,
    pub(super) stdout: ChildStdout,
    pub(super) stderr: ChildStderr,
}

/// A process group that is killed when this is dropped; `None` once it is.
pub(crate) struct Group(pub(crate) Option<Pid>);

impl Group {
    fn signal(&self, signal: Signal) {
        if let Some(pid) = self.0 {
            // A group that is gone needs no signal any more.
            let _ = kill_process_group(pid, signal);
        }
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        self.signal(Signal::KILL);
    }
}

impl Process {
    /// Starts the program in a process group of its own.
    ///
    /// # Errors
    /// [`UpstreamError::NoCommand`] and [`UpstreamError::Spawn`].
    pub(super) fn spawn(options: &ChildOptions) -> Result<(Self, Pipes), UpstreamError> {
        let [program, arguments @ ..] = options.command.as_slice() else {
            return Err(UpstreamError::NoCommand);
        };
        let failed = |source| UpstreamError::Spawn {
            program: program.clone(),
            source,
        };
        let mut command = Command::new(program);
        command
            .args(arguments)
            .process_group(0)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        for name in environment::own_names() {
            command.env_remove(name);
        }
        command.envs(&options.env);
        if let Some(folder) = &options.cwd {
            command.current_dir(folder);
        }
        // Listening begins before the child does, so that its end cannot be missed.
        let ends = unix::signal(SignalKind::child()).map_err(failed)?;
        let mut child = command.spawn().map_err(failed)?;
        let pid = child.id().and_then(|id| Pid::from_raw(id.try_into().ok()?));
        let group = Group(pid);
        let pipes = child
            .stdin
            .take()
            .zip(child.stdout.take())
            .zip(child.stderr.take());
        let process = Self { group, child, ends };
        let Some(((stdin, stdout), stderr)) = pipes else {
            return Err(failed(io::Error::other("it has no pipes")));
        };
        let pipes = Pipes {
            stdin,
            stdout,
            stderr,
        };
        Ok((process, pipes))
    }

    /// Waits until the child itself has ended. It stays to be waited for, and what it has started may still run.
    pub(super) async fn exited(&mut self) {
        while !self.has_exited() {
            if self.ends.recv().await.is_none() {
                return std::future::pending().await;
            }
        }
    }

    fn has_exited(&self) -> bool {
        let Some(pid) = self.group.0 else {
            return true;
        };
        let looking = WaitIdOptions::EXITED | WaitIdOptions::NOHANG | WaitIdOptions::NOWAIT;
        !matches!(waitid(WaitId::Pid(pid), looking), Ok(None))
    }

    /// Asks the child and all that it has started to end.
    pub(super) fn terminate(&self) {
        self.group.signal(Signal::TERM);
    }

    /// Kills what is left of the child and all that it has started, and tells how the child itself ended.
    pub(super) async fn kill(&mut self) -> Option<ExitStatus> {
        self.group.signal(Signal::KILL);
        match timeout(KILLED_WITHIN, self.child.wait()).await {
            Ok(status) => {
                self.group.0 = None;
                status.ok()
            }
            Err(_) => {
                warn!("a killed process does not go away");
                None
            }
        }
    }

    #[cfg(test)]
    pub(super) fn group(&self) -> Pid {
        self.group.0.expect("a running child has a group")
    }
}
