//! Real parts that other people made: Node with the npm packages, and Python with its own, as `make test-deps` brings them in.

use std::{
    env,
    ffi::OsString,
    path::{Path, PathBuf},
    process::Stdio,
};

use tokio::process::Command;

use crate::{root, within};

/// The folder with the npm parts, and with programs of ours that use them.
#[must_use]
pub fn npm() -> PathBuf {
    root().join("tests/npm")
}

/// A file of an npm package.
#[must_use]
pub fn package(file: &str) -> PathBuf {
    npm().join("node_modules").join(file)
}

/// A file of the Python programs that belong to the tests.
#[must_use]
pub fn script(file: &str) -> PathBuf {
    root().join("tests/python").join(file)
}

/// Where Python finds its parts.
#[must_use]
pub fn python_path() -> PathBuf {
    root().join(".cache/python")
}

/// The PATH of this machine with the Node of the tests before any other.
///
/// # Panics
/// When a folder on it has a colon in its name.
#[must_use]
pub fn path_with_node() -> OsString {
    let inherited = env::var_os("PATH").unwrap_or_default();
    let folders = [root().join(".cache/bin")]
        .into_iter()
        .chain(env::split_paths(&inherited));
    env::join_paths(folders).expect("folders without colons")
}

/// The Node of the tests.
#[must_use]
pub fn node_program() -> PathBuf {
    root().join(".cache/bin/node")
}

/// A Node program, to be run from anywhere.
///
/// # Panics
/// When Node was not brought in.
#[must_use]
pub fn node(program: &Path) -> Command {
    let node = node_program();
    assert!(
        node.exists(),
        "{} is missing; `make test-deps` brings it in",
        node.display()
    );
    let mut command = Command::new(node);
    command.arg(program).env("PATH", path_with_node());
    command
}

/// A Python program, with the parts of the tests.
#[must_use]
pub fn python(program: &Path) -> Command {
    let mut command = Command::new("python3");
    command
        .arg(program)
        .env("PYTHONPATH", python_path())
        .env("PYTHONDONTWRITEBYTECODE", "1");
    command
}

/// Runs a program to its end and gives what it printed.
///
/// # Panics
/// When it fails or takes too long; its last words are shown.
pub async fn printed(mut command: Command) -> String {
    let output = command.stdin(Stdio::null()).kill_on_drop(true).output();
    let output = within("the end of a program", output)
        .await
        .expect("the program runs");
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(
        output.status.success(),
        "{command:?} failed ({}):\n{said}",
        output.status
    );
    String::from_utf8(output.stdout).expect("it prints UTF-8")
}
