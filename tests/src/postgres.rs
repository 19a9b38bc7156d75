//! A real PostgreSQL for one test.

use std::process::Stdio;

use tokio::{
    io::{AsyncBufReadExt as _, BufReader},
    process::{Child, Command},
};

use crate::{root, within};

/// A running PostgreSQL; it ends when this is dropped, as its standard input closes then.
pub struct Postgres {
    /// The URL of an empty database.
    pub url: String,
    _child: Child,
}

impl Postgres {
    /// Starts one.
    ///
    /// # Panics
    /// When it does not start: `make test-deps` fetches what is needed.
    pub async fn start() -> Self {
        let mut child = Command::new("python3")
            .arg(root().join("tests/support/postgres.py"))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("python3 runs");
        let mut lines = BufReader::new(child.stdout.take().expect("piped")).lines();
        let line = within("the start of PostgreSQL", lines.next_line())
            .await
            .expect("a line");
        let url = line.expect("PostgreSQL starts; `make test-deps` fetches it");
        Self { url, _child: child }
    }
}
