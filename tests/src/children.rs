//! Servers that are child processes, as lines of `trunkline.toml`.

use std::path::Path;

use serde_json::json;

use crate::parts;

/// A `[[servers]]` entry. `more` is further lines of it.
#[must_use]
pub fn server(id: &str, command: &[&str], more: &str) -> String {
    // An array of strings is written in TOML as it is in JSON.
    format!(
        "[[servers]]\nid = {}\ncommand = {}\n{more}\n",
        json!(id),
        json!(command)
    )
}

/// The reference server that shows every feature: legacy, on Node, started as a user would start it.
#[must_use]
pub fn everything(id: &str, more_env: &str) -> String {
    let path = parts::path_with_node();
    let env = format!(
        "env = {{ PATH = {}, npm_config_offline = \"true\"{more_env} }}\ncwd = {}",
        json!(path.to_string_lossy()),
        json!(parts::npm())
    );
    // The pinned one from the folder; `--no` keeps npx from fetching another.
    server(
        id,
        &["npx", "--no", "@modelcontextprotocol/server-everything"],
        &env,
    )
}

/// A server of the Python SDK, which speaks the modern era.
#[must_use]
pub fn time(id: &str) -> String {
    let env = format!("env = {{ PYTHONPATH = {} }}", json!(parts::python_path()));
    server(id, &["python3", "-m", "mcp_server_time"], &env)
}

/// The small server of the tests, with a fault that `tests/python/child.py` knows, or `none`.
#[must_use]
pub fn scripted(id: &str, fault: &str, more: &str) -> String {
    let program = parts::script("child.py");
    server(id, &["python3", &program.to_string_lossy(), fault], more)
}

/// The server of the tests that asks its client, of the legacy era. It notes in the file everything that it hears.
#[must_use]
pub fn asking(id: &str, heard: &Path, more: &str) -> String {
    let program = parts::script("asking.py");
    server(
        id,
        &["python3", &program.to_string_lossy(), &heard.to_string_lossy()],
        more,
    )
}

/// The server of the tests whose tools are tasks, of 2025-11-25, on the TypeScript SDK v1.
#[must_use]
pub fn tasks(id: &str) -> String {
    let program = parts::npm().join("fixtures/tasks.mjs");
    let node = parts::node_program();
    server(id, &[&node.to_string_lossy(), &program.to_string_lossy()], "")
}
