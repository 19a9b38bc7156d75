//! The program as processes of its own: started, asked, stopped and killed, as an operator would.

mod approving;
mod commands;
mod fleet;
mod losses;
mod platform;
mod racing;
mod refusals;
mod replicas;
mod stdio;
mod stopping;
mod tasks;
pub(crate) mod up;

use std::path::PathBuf;

use actors::registry::RunningRegistry;
use bus_schema::subject::CallerClass;
use rustix::process::Signal;
use serde_json::Value;
use tests::{
    http::Client,
    keeper,
    nats::Nats,
    program::{self, Program},
    within,
};

/// Picks a free port.
const ANY_PORT: &str = "127.0.0.1:0";

/// A NATS on a free port, for processes of the platform to meet on.
pub(crate) struct Cluster {
    pub(crate) nats: Nats,
}

/// One `trunkline serve`.
pub(crate) struct Replica {
    pub(crate) program: Program,
    /// Its name on the bus.
    instance: String,
    /// Where its meters are read.
    metrics: String,
}

/// One `trunkline bridge http`.
pub(crate) struct HttpBridge {
    pub(crate) program: Program,
    pub(crate) base: String,
}

impl Cluster {
    pub(crate) async fn start() -> Self {
        Self {
            nats: Nats::start().await,
        }
    }

    /// A registry, as a process of that role has it.
    pub(crate) async fn registry(&self) -> RunningRegistry {
        let bus = self.nats.bus_as(CallerClass::Registry).await;
        keeper::registry(&bus, None).await
    }

    /// The words of a command that joins this NATS as somebody on the same machine does.
    fn joining(&self, words: &[&str]) -> Vec<String> {
        let data_dir = self.nats.data_dir().display().to_string();
        let joining = ["--nats", self.nats.url(), "--data-dir", &data_dir];
        words
            .iter()
            .chain(&joining)
            .map(|word| (*word).to_owned())
            .collect()
    }

    fn begin(&self, words: &[&str]) -> Program {
        let words = self.joining(words);
        Program::start(&words.iter().map(String::as_str).collect::<Vec<_>>())
    }

    /// Runs a command to its end; gives the exit code, standard output and standard error.
    pub(crate) async fn run(&self, words: &[&str]) -> (i32, String, String) {
        let words = self.joining(words);
        program::run(&words.iter().map(String::as_str).collect::<Vec<_>>()).await
    }

    /// Runs a command that has to succeed, and reads what it prints as one JSON text.
    pub(crate) async fn json(&self, words: &[&str]) -> Value {
        let (code, out, err) = self.run(words).await;
        assert_eq!(code, 0, "{words:?}: {err}");
        serde_json::from_str(&out).unwrap_or_else(|error| panic!("{words:?}: {error}: {out}"))
    }

    /// Writes a configuration file that lives as long as the NATS does.
    pub(crate) fn file(&self, name: &str, text: &str) -> PathBuf {
        let path = self.nats.data_dir().join(name);
        std::fs::write(&path, text).expect("the file is written");
        path
    }

    /// Starts a replica of a server and waits until it serves.
    pub(crate) async fn serve(&self, words: &[&str]) -> Replica {
        let words: Vec<_> = ["serve", "--log-json"].iter().chain(words).copied().collect();
        let mut program = self.begin(&words);
        let fields = logged(&mut program, "\"serving\"").await;
        let text = |key: &str| {
            fields[key]
                .as_str()
                .unwrap_or_else(|| panic!("no {key}: {fields}"))
                .to_owned()
        };
        Replica {
            instance: text("instance"),
            metrics: text("metrics"),
            program,
        }
    }

    pub(crate) async fn bridge(&self) -> HttpBridge {
        self.bridge_with(&[]).await
    }

    /// Starts one with further words on its command line.
    pub(crate) async fn bridge_with(&self, more: &[&str]) -> HttpBridge {
        let words = ["bridge", "http", "--listen", ANY_PORT, "--log-json"];
        let mut program = self.begin(&[words.as_slice(), more].concat());
        let fields = logged(&mut program, "bridge is ready").await;
        let mcp = fields["mcp"].as_str().expect("an address");
        let base = mcp
            .strip_suffix("/mcp")
            .expect("the endpoint of all servers")
            .to_owned();
        HttpBridge { program, base }
    }
}

impl Replica {
    /// How many calls it works on at this moment.
    async fn in_flight(&self) -> u64 {
        meter(&self.metrics, "trunkline_calls_in_flight", "").await
    }

    /// How many tool calls it has worked on.
    async fn calls(&self) -> u64 {
        meter(
            &self.metrics,
            "mcp_server_operation_duration_seconds_count",
            "tools/call",
        )
        .await
    }
}

impl HttpBridge {
    pub(crate) fn client(&self, server: &str) -> Client {
        Client::new(format!("{}/servers/{server}/mcp", self.base))
    }
}

/// The fields of the first line of a JSON log that has a word in it.
async fn logged(program: &mut Program, word: &str) -> Value {
    let line = program.logged(word).await;
    let line: Value = serde_json::from_str(&line).expect("a line of JSON");
    line["fields"].clone()
}

/// The next line that a program prints which a test looks for; others are passed over.
async fn line_of(program: &mut Program, looked_for: impl Fn(&str) -> bool) -> String {
    loop {
        let line = program.output.next_line().await.expect("it prints text");
        let line = line.expect("it goes on");
        if looked_for(&line) {
            return line;
        }
    }
}

/// Asks a program to end, which it has to do with success.
pub(crate) async fn terminate(program: Program) {
    program.signal(Signal::TERM);
    ends_well(program).await;
}

/// Waits for a program to end by itself, with success.
async fn ends_well(mut program: Program) {
    let ended = within("the end of a program", program.child.wait()).await;
    let ended = ended.expect("it ends");
    if !ended.success() {
        let mut said = String::new();
        while let Ok(Some(line)) = program.log.next_line().await {
            said = format!("{said}{line}\n");
        }
        panic!("it ended with {ended}; the last it said:\n{said}");
    }
}

async fn page(url: &str) -> String {
    let answer = within("a page", reqwest::get(url)).await.expect("an answer");
    assert!(answer.status().is_success(), "{url}: {}", answer.status());
    answer.text().await.expect("text")
}

/// The sum of a meter over all its labels that contain a text.
pub(crate) async fn meter(metrics: &str, name: &str, label: &str) -> u64 {
    let page = page(metrics).await;
    let values = page.lines().filter_map(|line| {
        let (labels, value) = line.strip_prefix(name)?.rsplit_once(' ')?;
        labels
            .contains(label)
            .then(|| value.parse::<u64>().expect("a whole number"))
    });
    values.sum()
}
