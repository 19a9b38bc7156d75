//! What a file can say, with the flags and environment laid over it.

use std::{
    collections::{BTreeMap, BTreeSet},
    env, fs, io,
    net::SocketAddr,
    path::{Path, PathBuf},
    time::Duration,
};

use anyhow::{Context as _, bail};
use bridges::upstream::{
    ChildOptions, EraKnob,
    remote::{Bearer, RemoteOptions, Secret, TransportKnob},
};
use bus_schema::ServerId;
use serde::Deserialize;

use crate::args::Common;

const DEFAULT_FILE: &str = "trunkline.toml";
/// The folder for everything that is kept, unless somebody says otherwise.
pub const DEFAULT_DATA_DIR: &str = ".trunkline";
const DEFAULT_CALL_TIMEOUT: Duration = Duration::from_secs(300);
/// What a host gives a call at most.
const LONGEST_CALL: Duration = Duration::from_secs(24 * 60 * 60);
const DEFAULT_MAX_IN_FLIGHT: u32 = 64;

/// The settings of one process. Not `Debug`, as URLs and variables may hold secrets.
#[derive(Clone)]
pub struct Config {
    /// The folder for everything that is kept.
    pub data_dir: PathBuf,
    /// The NATS that was named, if any.
    pub nats: Option<String>,
    /// Where the platform's own NATS listens.
    pub nats_listen: SocketAddr,
    /// Where HTTP listens.
    pub listen: SocketAddr,
    /// Hosts and origins beside the loopback ones that HTTP clients may come with.
    pub allowed_hosts: Vec<String>,
    /// The longest that a call may take.
    pub call_timeout: Duration,
    /// How many threads run the platform's code.
    pub threads: Option<usize>,
    /// The products server's database; SQLite in the data folder by default.
    pub products_database: Option<String>,
    /// External servers.
    pub servers: Vec<ServerLine>,
}

#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    data_dir: Option<PathBuf>,
    nats: Option<String>,
    nats_listen: Option<SocketAddr>,
    listen: Option<SocketAddr>,
    #[serde(default)]
    allowed_hosts: Vec<String>,
    call_timeout_secs: Option<u64>,
    threads: Option<usize>,
    #[serde(default)]
    products: Products,
    #[serde(default)]
    servers: Vec<ServerLine>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct Products {
    database_url: Option<String>,
}

/// An external server in the file: a command, or a URL.
#[derive(Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ServerLine {
    /// Its id on the bus.
    pub id: ServerId,
    /// The program and its arguments.
    pub command: Option<Vec<String>>,
    /// Variables beside the inherited ones (commands only).
    pub env: Option<BTreeMap<String, String>>,
    /// The folder it runs in (commands only).
    pub cwd: Option<PathBuf>,
    /// Where it is.
    pub url: Option<String>,
    /// How messages travel (URLs only, as all that follows up to the era).
    pub transport: Option<TransportKnob>,
    /// Headers of every request to it.
    pub headers: Option<BTreeMap<String, String>>,
    /// The variable that holds the token which is shown to it.
    pub bearer_env: Option<String>,
    /// The file that holds the token.
    pub bearer_file: Option<PathBuf>,
    /// The certificates that it is checked against instead of the system's.
    pub ca_file: Option<PathBuf>,
    /// Whether it may be at a private address, and without encryption.
    pub allow_private: Option<bool>,
    /// Which era it speaks.
    #[serde(default)]
    pub era: EraKnob,
    /// Labels to find it by.
    #[serde(default)]
    pub tags: Vec<String>,
    /// How many calls it takes at once.
    #[serde(default = "default_max_in_flight")]
    pub max_in_flight: u32,
}

fn default_max_in_flight() -> u32 {
    DEFAULT_MAX_IN_FLIGHT
}

/// An external server as the upstream bridge takes it.
#[derive(Clone)]
pub enum ServerOptions {
    /// A command that is run.
    Child(ChildOptions),
    /// A URL that is connected to.
    Remote(RemoteOptions),
}

impl ServerLine {
    /// The line as the upstream bridge takes it, with the secrets that it names.
    ///
    /// # Errors
    /// When a variable that it names is not there.
    pub fn to_options(&self) -> anyhow::Result<ServerOptions> {
        let Some(url) = &self.url else {
            return Ok(ServerOptions::Child(ChildOptions {
                id: self.id.clone(),
                command: self.command.clone().unwrap_or_default(),
                env: self.env.clone().unwrap_or_default(),
                cwd: self.cwd.clone(),
                era: self.era,
                tags: self.tags.clone(),
                max_in_flight: self.max_in_flight,
            }));
        };
        let bearer = match (&self.bearer_env, &self.bearer_file) {
            (Some(name), _) => Bearer::Token(Secret::new(self.read_secret(name)?)),
            (None, Some(path)) => Bearer::File(path.clone()),
            (None, None) => Bearer::None,
        };
        Ok(ServerOptions::Remote(self.remote(url, bearer)))
    }

    fn remote(&self, url: &str, bearer: Bearer) -> RemoteOptions {
        RemoteOptions {
            id: self.id.clone(),
            url: url.to_owned(),
            transport: self.transport.unwrap_or_default(),
            era: self.era,
            headers: self.headers.clone().unwrap_or_default(),
            bearer,
            ca_file: self.ca_file.clone(),
            allow_private: self.allow_private.unwrap_or_default(),
            tags: self.tags.clone(),
            max_in_flight: self.max_in_flight,
        }
    }

    fn read_secret(&self, name: &str) -> anyhow::Result<String> {
        match env::var(name) {
            Ok(secret) if !secret.trim().is_empty() => Ok(secret.trim().to_owned()),
            _ => bail!(
                "server `{}` has bearer_env = \"{name}\", but the environment has no such variable, or an empty one",
                self.id
            ),
        }
    }

    fn check(&self) -> anyhow::Result<()> {
        let id = &self.id;
        if self.max_in_flight == 0 {
            bail!("server `{id}` has max_in_flight = 0; use 1 or more");
        }
        match (&self.command, &self.url) {
            (Some(_), Some(_)) => bail!("server `{id}` has both a command and a url; keep one"),
            (None, None) => bail!(
                "server `{id}` has neither a command nor a url; write command = [\"program\", \"argument\"] or url = \"https://host/mcp\""
            ),
            (Some(command), None) => {
                if command.is_empty() {
                    bail!("server `{id}` has an empty command; write command = [\"program\", \"argument\"]");
                }
                self.refuse(
                    "a command",
                    &[
                        ("transport", self.transport.is_some()),
                        ("headers", self.headers.is_some()),
                        ("bearer_env", self.bearer_env.is_some()),
                        ("bearer_file", self.bearer_file.is_some()),
                        ("ca_file", self.ca_file.is_some()),
                        ("allow_private", self.allow_private.is_some()),
                    ],
                )
            }
            (None, Some(url)) => {
                self.refuse(
                    "a url",
                    &[("env", self.env.is_some()), ("cwd", self.cwd.is_some())],
                )?;
                if self.bearer_env.is_some() && self.bearer_file.is_some() {
                    bail!("server `{id}` has both bearer_env and bearer_file; keep one");
                }
                // Which token it is makes no difference here, and commands that do not serve need none.
                let any = self.bearer_env.is_some() || self.bearer_file.is_some();
                let bearer = if any {
                    Bearer::Token(Secret::new("any"))
                } else {
                    Bearer::None
                };
                self.remote(url, bearer)
                    .check()
                    .with_context(|| format!("server `{id}` cannot be used"))
            }
        }
    }

    /// Refuses settings that mean nothing beside the one that says what the server is.
    fn refuse(&self, beside: &str, settings: &[(&str, bool)]) -> anyhow::Result<()> {
        match settings.iter().find(|(_, is_set)| *is_set) {
            Some((setting, _)) => bail!(
                "server `{}` has {beside}, for which `{setting}` means nothing; leave it out",
                self.id
            ),
            None => Ok(()),
        }
    }
}

impl Config {
    /// Reads the file, and lays the flags and environment over it.
    ///
    /// # Errors
    /// A text that names the file, the line and what would be right.
    pub fn load(common: &Common) -> anyhow::Result<Self> {
        let file = match &common.config {
            Some(path) => read(path)?,
            None if Path::new(DEFAULT_FILE).exists() => read(Path::new(DEFAULT_FILE))?,
            None => File::default(),
        };
        let config = Self {
            data_dir: common
                .data_dir
                .clone()
                .or(file.data_dir)
                .unwrap_or_else(|| DEFAULT_DATA_DIR.into()),
            nats: common.nats.clone().or(file.nats),
            nats_listen: file
                .nats_listen
                .unwrap_or_else(|| SocketAddr::from(([127, 0, 0, 1], 4222))),
            listen: file
                .listen
                .unwrap_or_else(|| SocketAddr::from(([127, 0, 0, 1], 8080))),
            allowed_hosts: file.allowed_hosts,
            call_timeout: file
                .call_timeout_secs
                .map_or(DEFAULT_CALL_TIMEOUT, Duration::from_secs),
            threads: common.threads.or(file.threads),
            products_database: file.products.database_url,
            servers: file.servers,
        };
        config.check()?;
        Ok(config)
    }

    fn check(&self) -> anyhow::Result<()> {
        if self.threads == Some(0) {
            bail!("threads is 0; use 1 or more");
        }
        if self.call_timeout > LONGEST_CALL {
            bail!("call_timeout_secs is more than a day (86400)");
        }
        if self.call_timeout.is_zero() {
            bail!("call_timeout_secs is 0; use 1 or more");
        }
        let mut ids = BTreeSet::from(["products"]);
        for server in &self.servers {
            if !ids.insert(server.id.as_str()) {
                bail!(
                    "server id `{}` is used twice (the built-in server `products` counts); give each its own",
                    server.id
                );
            }
            server.check()?;
        }
        Ok(())
    }
}

fn read(path: &Path) -> anyhow::Result<File> {
    let text = fs::read_to_string(path).map_err(|error| match error.kind() {
        io::ErrorKind::NotFound => {
            anyhow::anyhow!(
                "there is no configuration file {}; leave --config out to run without one",
                path.display()
            )
        }
        _ => anyhow::Error::new(error).context(format!("cannot read {}", path.display())),
    })?;
    toml::from_str(&text).with_context(|| format!("{} cannot be used", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn load(text: &str) -> anyhow::Result<Config> {
        let folder = tempfile::tempdir().expect("folder");
        let path = folder.path().join("trunkline.toml");
        fs::write(&path, text).expect("write");
        Config::load(&Common {
            config: Some(path),
            ..Common::default()
        })
    }

    #[test]
    fn a_file_is_read_and_flags_win_over_it() {
        let config = load(
            "listen = \"127.0.0.1:9000\"\ndata_dir = \"/data\"\n[[servers]]\nid = \"time\"\ncommand = [\"python3\", \"-m\", \"mcp_server_time\"]\nera = \"modern\"\n",
        )
        .expect("loads");
        assert_eq!(config.listen.port(), 9000);
        assert_eq!(
            (config.servers[0].id.as_str(), config.servers[0].era),
            ("time", EraKnob::Modern)
        );
        let folder = tempfile::tempdir().expect("folder");
        let path = folder.path().join("t.toml");
        fs::write(&path, "data_dir = \"/data\"").expect("write");
        let common = Common {
            config: Some(path),
            data_dir: Some("/flag".into()),
            ..Common::default()
        };
        assert_eq!(
            Config::load(&common).expect("loads").data_dir,
            PathBuf::from("/flag")
        );
    }

    #[test]
    fn a_bad_line_is_named_with_what_would_be_right() {
        for (text, words) in [
            (
                "listne = \"x\"",
                ["line 1", "unknown field `listne`", "expected one of"],
            ),
            ("listen = \"8080\"", ["line 1", "listen", "socket address"]),
            ("listen = ", ["line 1", "TOML parse error", ""]),
            (
                "[[servers]]\nid = \"Bad Id\"\ncommand = [\"x\"]",
                ["line 2", "Bad Id", "lower-case"],
            ),
            (
                "[[servers]]\nid = \"a\"\ncommand = []",
                ["server `a`", "empty command", "command = "],
            ),
            (
                "[[servers]]\nid = \"products\"\ncommand = [\"x\"]",
                ["products", "twice", "its own"],
            ),
            (
                "[[servers]]\nid = \"a\"\nera = \"old\"\ncommand = [\"x\"]",
                ["line 3", "old", "legacy"],
            ),
            ("threads = 0", ["threads", "0", "1 or more"]),
        ] {
            expect_refusal(text, words);
        }
    }

    fn expect_refusal(text: &str, words: [&str; 3]) {
        let error = format!("{:#}", load(text).err().expect(text));
        for word in words {
            assert!(error.contains(word), "{text}: `{word}` is not in: {error}");
        }
    }

    #[test]
    fn a_server_is_a_command_or_a_url_with_what_belongs_to_it() {
        for (text, words) in [
            (
                "[[servers]]\nid = \"a\"",
                ["server `a`", "neither a command nor a url", "url = "],
            ),
            (
                "[[servers]]\nid = \"a\"\ncommand = [\"x\"]\nurl = \"https://a.example\"",
                ["server `a`", "both a command and a url", "keep one"],
            ),
            (
                "[[servers]]\nid = \"a\"\ncommand = [\"x\"]\nbearer_file = \"t\"",
                ["server `a`", "bearer_file", "leave it out"],
            ),
            (
                "[[servers]]\nid = \"a\"\nurl = \"https://a.example\"\ncwd = \"/\"",
                ["server `a`", "cwd", "leave it out"],
            ),
            (
                "[[servers]]\nid = \"a\"\nurl = \"http://a.example\"",
                ["server `a`", "not encrypted", "allow_private = true"],
            ),
            (
                "[[servers]]\nid = \"a\"\nurl = \"https://10.1.2.3/mcp\"",
                ["server `a`", "a private address", "allow_private = true"],
            ),
            (
                "[[servers]]\nid = \"a\"\nurl = \"https://a.example\"\ntransport = \"grpc\"",
                ["line 4", "grpc", "`sse`"],
            ),
            (
                "[[servers]]\nid = \"a\"\nurl = \"https://a.example\"\nheaders = { Host = \"b\" }",
                ["server `a`", "Host", "by itself"],
            ),
            (
                "[[servers]]\nid = \"a\"\nurl = \"https://a.example\"\nbearer_env = \"A\"\nbearer_file = \"b\"",
                ["server `a`", "bearer_env and bearer_file", "keep one"],
            ),
        ] {
            expect_refusal(text, words);
        }
    }

    #[test]
    fn a_remote_server_is_read_and_its_secret_is_asked_for_only_by_who_serves_it() {
        let line = "[[servers]]\nid = \"there\"\nurl = \"http://127.0.0.1:1/mcp\"\nallow_private = true\ntransport = \"sse\"\n\
            bearer_env = \"TRUNKLINE_TEST_NO_SUCH_VARIABLE\"\nheaders = { X-Team = \"a\" }\n";
        let config = load(line).expect("loads");
        let error = config.servers[0]
            .to_options()
            .err()
            .expect("no secret")
            .to_string();
        assert!(
            error.contains("`there`") && error.contains("TRUNKLINE_TEST_NO_SUCH_VARIABLE"),
            "{error}"
        );
        let config = load(&line.replace("TRUNKLINE_TEST_NO_SUCH_VARIABLE", "PATH")).expect("loads");
        let Ok(ServerOptions::Remote(remote)) = config.servers[0].to_options() else {
            panic!("it is a remote server");
        };
        assert_eq!(remote.transport, TransportKnob::Sse);
        assert_eq!(remote.headers["X-Team"], "a");
        assert!(matches!(remote.bearer, Bearer::Token(_)));
    }

    #[test]
    fn a_file_that_is_not_there_is_named() {
        let common = Common {
            config: Some("/nowhere.toml".into()),
            ..Common::default()
        };
        let error = Config::load(&common).err().expect("missing").to_string();
        assert!(error.contains("/nowhere.toml"), "{error}");
    }
}
