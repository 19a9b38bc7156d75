//! The servers that stand behind the platform, one for each way in which a server can be reached and each era that it can speak.

use std::{path::PathBuf, process::Stdio};

use anyhow::Context as _;
use runtime::Host;
use serde_json::json;
use tokio::{
    io::{AsyncBufReadExt as _, BufReader},
    process::{Child, ChildStdin, Command},
};

use super::{
    fixture::{
        Era,
        serve::{self, Serving},
    },
    suite::Wire,
};
use crate::{children, parts, platform::Platform, within};

/// The id of the server on the bus.
const ID: &str = "fixture";
/// A port that the system picks.
const ANY_PORT: ([u8; 4], u16) = ([127, 0, 0, 1], 0);

/// A server, and how it is reached.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Upstream {
    made_of: MadeOf,
    way: Way,
}

/// What it is written on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum MadeOf {
    Rmcp(Era),
    TypeScript1,
    TypeScript2,
    Python,
}

/// How the platform reaches it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Way {
    /// It is on the bus itself.
    Bus,
    /// It is a child process.
    Stdio,
    /// It listens elsewhere.
    Http,
}

/// A server that runs, and whatever keeps it running.
enum Running {
    Here(Serving),
    Process { url: String, _process: Box<Process> },
}

struct Process {
    _child: Child,
    /// The program ends when this does.
    _input: ChildStdin,
}

/// A platform with a server behind it.
pub struct Behind {
    platform: Platform,
    host: Option<Host>,
    _server: Option<Running>,
}

impl Upstream {
    /// All of them.
    #[must_use]
    pub fn all() -> Vec<Self> {
        let eras = [Era::Legacy, Era::Modern, Era::Both].map(MadeOf::Rmcp);
        let others = [MadeOf::TypeScript1, MadeOf::TypeScript2, MadeOf::Python];
        let mut all = vec![Self {
            made_of: MadeOf::Rmcp(Era::Modern),
            way: Way::Bus,
        }];
        for way in [Way::Stdio, Way::Http] {
            all.extend(eras.iter().chain(&others).map(|made_of| Self {
                made_of: *made_of,
                way,
            }));
        }
        all
    }

    /// What the table and the baseline call it.
    #[must_use]
    pub fn name(self) -> String {
        let made_of = match self.made_of {
            MadeOf::Rmcp(_) if self.way == Way::Bus => "rmcp",
            MadeOf::Rmcp(Era::Legacy) => "rmcp-legacy",
            MadeOf::Rmcp(Era::Modern) => "rmcp-modern",
            MadeOf::Rmcp(Era::Both) => "rmcp-both",
            MadeOf::TypeScript1 => "ts1",
            MadeOf::TypeScript2 => "ts2",
            MadeOf::Python => "python",
        };
        let way = match self.way {
            Way::Bus => "bus",
            Way::Stdio => "stdio",
            Way::Http => "http",
        };
        format!("{made_of}-{way}")
    }

    /// Whether it speaks a revision by itself.
    #[must_use]
    pub fn speaks(self, wire: Wire) -> bool {
        match self.made_of {
            MadeOf::Rmcp(Era::Legacy) | MadeOf::TypeScript1 => wire == Wire::Legacy,
            MadeOf::Rmcp(Era::Modern) => wire == Wire::Modern,
            MadeOf::Rmcp(Era::Both) | MadeOf::TypeScript2 | MadeOf::Python => true,
        }
    }

    /// Starts it behind a platform of its own.
    ///
    /// # Errors
    /// When it does not start.
    ///
    /// # Panics
    /// When the platform does not start.
    pub async fn start(self) -> anyhow::Result<Behind> {
        let (line, server) = match self.way {
            Way::Bus => (None, None),
            Way::Stdio => (Some(self.child_line()?), None),
            Way::Http => {
                let server = self.start_http().await?;
                let line = format!(
                    "[[servers]]\nid = {}\nurl = {}\nallow_private = true\n",
                    json!(ID),
                    json!(server.url())
                );
                (Some(line), Some(server))
            }
        };
        let configured: &[&str] = if line.is_some() { &[ID] } else { &[] };
        let platform = Platform::start(&line.unwrap_or_default(), configured).await;
        let host = match self.way {
            Way::Bus => Some(serve::on_bus(platform.node.bus(), ID).await),
            Way::Stdio | Way::Http => None,
        };
        platform.knows(ID).await;
        Ok(Behind {
            platform,
            host,
            _server: server,
        })
    }

    /// Starts it by itself. `None` if it does not listen.
    ///
    /// # Errors
    /// When it does not start.
    pub async fn start_alone(self) -> anyhow::Result<Option<Alone>> {
        match self.way {
            Way::Http => Ok(Some(Alone(self.start_http().await?))),
            Way::Bus | Way::Stdio => Ok(None),
        }
    }

    /// The line of the configuration that has the platform start it as a child.
    fn child_line(self) -> anyhow::Result<String> {
        let script = |name: &str| parts::npm().join("fixtures").join(name);
        let (program, arguments, more) = match self.made_of {
            MadeOf::Rmcp(era) => {
                let era = ["fixture", "--era", era_name(era)].map(str::to_owned).to_vec();
                (own_program()?, era, String::new())
            }
            MadeOf::TypeScript1 => (
                parts::node_program(),
                vec![path(&script("v1.mjs"))],
                String::new(),
            ),
            MadeOf::TypeScript2 => (
                parts::node_program(),
                vec![path(&script("v2.mjs"))],
                String::new(),
            ),
            MadeOf::Python => {
                let env = format!(
                    "env = {{ PYTHONPATH = {}, PYTHONDONTWRITEBYTECODE = \"1\" }}",
                    json!(parts::python_path())
                );
                (
                    "python3".into(),
                    vec![path(&parts::script("conformance.py"))],
                    env,
                )
            }
        };
        let program = path(&program);
        let command: Vec<&str> = std::iter::once(program.as_str())
            .chain(arguments.iter().map(String::as_str))
            .collect();
        Ok(children::server(ID, &command, &more))
    }

    async fn start_http(self) -> anyhow::Result<Running> {
        let script = |name: &str| parts::npm().join("fixtures").join(name);
        let mut command = match self.made_of {
            MadeOf::Rmcp(era) => return Ok(Running::Here(serve::on_http(ANY_PORT.into(), era).await?)),
            MadeOf::TypeScript1 => parts::node(&script("v1.mjs")),
            MadeOf::TypeScript2 => parts::node(&script("v2.mjs")),
            MadeOf::Python => parts::python(&parts::script("conformance.py")),
        };
        command.args(["--http", "0"]);
        Running::process(command).await
    }
}

impl Running {
    /// Starts a program that prints its URL and ends with its standard input.
    async fn process(mut command: Command) -> anyhow::Result<Self> {
        let mut child = command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .kill_on_drop(true)
            .spawn()
            .with_context(|| format!("{command:?} does not start"))?;
        let input = child.stdin.take().context("its input is piped")?;
        let mut lines = BufReader::new(child.stdout.take().context("its output is piped")?).lines();
        let url = within("the URL of a fixture", lines.next_line())
            .await?
            .with_context(|| format!("{command:?} ended without a URL"))?;
        let process = Process {
            _child: child,
            _input: input,
        };
        Ok(Self::Process {
            url,
            _process: Box::new(process),
        })
    }

    fn url(&self) -> String {
        match self {
            Self::Here(serving) => serving.url(),
            Self::Process { url, .. } => url.clone(),
        }
    }
}

/// A server that listens, without a platform.
pub struct Alone(Running);

impl Alone {
    /// Where the suite finds it.
    #[must_use]
    pub fn url(&self) -> String {
        self.0.url()
    }
}

impl Behind {
    /// Where the suite finds the server behind the platform.
    #[must_use]
    pub fn url(&self) -> String {
        self.platform.url(&format!("/servers/{ID}/mcp"))
    }

    /// Stops the platform in order.
    pub async fn stop(self) {
        if let Some(host) = self.host {
            host.stop().await;
        }
        self.platform.stop().await;
    }
}

fn era_name(era: Era) -> &'static str {
    match era {
        Era::Legacy => "legacy",
        Era::Modern => "modern",
        Era::Both => "both",
    }
}

fn path(path: &std::path::Path) -> String {
    path.to_string_lossy().into_owned()
}

/// The program that has the fixture in it, beside whatever runs now.
fn own_program() -> anyhow::Result<PathBuf> {
    const NAME: &str = "conformance";
    let here = std::env::current_exe().context("a program has a path")?;
    let folder = here.ancestors().find(|folder| folder.join(NAME).is_file());
    let folder = folder.context("`cargo build --workspace --bins` has built `conformance`")?;
    Ok(folder.join(NAME))
}
