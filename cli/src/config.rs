//! What a file can say, with the flags and environment laid over it.

mod audit;
mod auth;
mod credentials;
mod held_back;
mod http;
mod limits;
mod operator;
mod place;
mod secrets;
mod servers;
mod tenants;

use std::{
    collections::{BTreeMap, HashMap},
    env, fs, io,
    net::SocketAddr,
    path::{Path, PathBuf},
    time::Duration,
};

use anyhow::{Context as _, bail};
use bridges::{
    admin::{Browsers, Naming, Private},
    auth::{Auth, Scheme},
    front::Endpoint,
    http::MAX_CONNECTIONS,
    legacy::MAX_SESSIONS_PER_PRINCIPAL,
    tls::TlsOptions,
    upstream::remote::{ConnectOptions, HEALTH_EVERY},
};
use bus_schema::{
    ServerId,
    card::{Place, name_of},
    guardrails::{Document, Guardrails},
    integrity::Policies,
    limits::Limit,
};
use runtime::{
    audit::AuditOptions,
    callout::{CalloutKeys, CalloutOptions},
    nats_server::password_variable,
    policies::Configured,
};
use serde::Deserialize;

use crate::args::Common;

use audit::AuditSection;
use auth::{AuthSection, PolicySection};
use credentials::{Callers, CredentialsSection};
use http::HttpSection;
use place::PlaceTable;
use secrets::SecretsSection;
pub use servers::{Credentials, ServerLine, ServerOptions};
pub use tenants::{VirtualLine, secrets_of};

const DEFAULT_FILE: &str = "trunkline.toml";
/// The folder for everything that is kept, unless somebody says otherwise.
pub const DEFAULT_DATA_DIR: &str = ".trunkline";
const DEFAULT_CALL_TIMEOUT: Duration = Duration::from_secs(300);
/// What a host gives a call at most.
const LONGEST_CALL: Duration = Duration::from_secs(24 * 60 * 60);

/// The settings of one process. Not `Debug`, as URLs and variables may hold secrets.
#[derive(Clone)]
pub struct Config {
    /// The folder for everything that is kept.
    pub data_dir: PathBuf,
    /// The NATS that was named, if any.
    pub nats: Option<String>,
    /// Where the platform's own NATS listens.
    pub nats_listen: SocketAddr,
    /// Where this process runs.
    pub place: Place,
    /// The tenant that a command acts in.
    pub tenant: String,
    /// The tenants that the file names, each with an account of its own on the platform's NATS.
    pub tenants: Vec<String>,
    /// Where HTTP listens.
    pub listen: SocketAddr,
    /// Hosts and origins beside the loopback ones that HTTP clients may come with.
    pub allowed_hosts: Vec<String>,
    /// How many connections HTTP holds at once.
    pub max_connections: usize,
    /// How many legacy sessions one principal may have over HTTP.
    pub max_sessions_per_principal: u64,
    /// The longest that a call may take.
    pub call_timeout: Duration,
    /// How many threads run the platform's code.
    pub threads: Option<usize>,
    /// The longest that calls of single tools may take, by `<server>.<tool>`.
    pub tool_timeouts: BTreeMap<String, Duration>,
    /// The products server's database; SQLite in the data folder by default.
    pub products_database: Option<String>,
    /// Whose the products server is.
    pub products_tenant: String,
    /// Whether servers at private addresses may be registered; by default when HTTP listens on this machine only.
    pub registry_private: Option<bool>,
    /// How often the health pages of servers are asked.
    pub health_every: Duration,
    /// What is done about tools that are not as they were approved; `None` leaves the platform's policies as they are.
    pub integrity: Option<Policies>,
    /// How servers are named to clients of the catalogue.
    pub naming: Naming,
    /// Who may read the catalogue where somebody has to show something to come in.
    pub browsers: Browsers,
    /// What is shown where no server is named.
    pub endpoint: Endpoint,
    /// Virtual servers.
    pub virtuals: Vec<VirtualLine>,
    /// A file of remote servers that are registered at the start.
    pub bootstrap: Option<PathBuf>,
    /// External servers.
    pub servers: Vec<ServerLine>,
    /// How often callers may have servers work.
    pub limits: Vec<Limit>,
    /// What is looked for in calls where no guardrails are kept.
    pub guardrails: Document,
    /// How HTTP speaks TLS, if it does.
    pub tls: Option<TlsOptions>,
    /// How it is kept what was refused.
    pub audit: AuditOptions,
    auth: AuthSection,
    policy: PolicySection,
    secrets: SecretsSection,
    credentials: CredentialsSection,
    /// Where clients reach the platform, if the file says so.
    public_url: Option<String>,
    /// The flags that it was read with, for reading it again.
    flags: Common,
    /// What the file said, if there was one.
    text: Option<String>,
}

#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    data_dir: Option<PathBuf>,
    bootstrap: Option<PathBuf>,
    nats: Option<String>,
    nats_listen: Option<SocketAddr>,
    #[serde(default)]
    place: PlaceTable,
    #[serde(default)]
    tenants: Vec<String>,
    listen: Option<SocketAddr>,
    #[serde(default)]
    allowed_hosts: Vec<String>,
    public_url: Option<String>,
    max_connections: Option<usize>,
    max_sessions_per_principal: Option<u64>,
    call_timeout_secs: Option<u64>,
    threads: Option<usize>,
    #[serde(default)]
    tool_timeouts_ms: BTreeMap<String, u64>,
    #[serde(default)]
    products: Products,
    #[serde(default)]
    registry: RegistryTable,
    integrity: Option<Policies>,
    #[serde(default)]
    endpoint: EndpointTable,
    #[serde(default, rename = "virtual")]
    virtuals: Vec<VirtualLine>,
    #[serde(default)]
    servers: Vec<ServerLine>,
    limits: Option<Vec<Limit>>,
    #[serde(default)]
    guardrails: Document,
    #[serde(default)]
    http: HttpSection,
    #[serde(default)]
    audit: AuditSection,
    #[serde(default)]
    auth: AuthSection,
    #[serde(default)]
    policy: PolicySection,
    #[serde(default)]
    secrets: SecretsSection,
    #[serde(default)]
    credentials: CredentialsSection,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct Products {
    tenant: Option<String>,
    database_url: Option<String>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct RegistryTable {
    allow_private: Option<bool>,
    health_every_secs: Option<u64>,
    namespace: Option<String>,
    #[serde(default)]
    public_catalogue: bool,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct EndpointTable {
    #[serde(default)]
    mode: Mode,
}

/// How the tools of all servers are shown.
#[derive(Clone, Copy, Debug, Default, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Mode {
    #[default]
    All,
    Search,
}

impl RegistryTable {
    fn health_every(&self) -> Duration {
        self.health_every_secs.map_or(HEALTH_EVERY, Duration::from_secs)
    }

    fn browsers(&self) -> Browsers {
        match self.public_catalogue {
            true => Browsers::Anybody,
            false => Browsers::LetIn,
        }
    }
}

impl EndpointTable {
    fn shown(&self) -> Endpoint {
        match self.mode {
            Mode::All => Endpoint::All,
            Mode::Search => Endpoint::Search,
        }
    }
}

impl File {
    /// What the file says that is named, or the usual one if there is such, with its text.
    fn find(common: &Common) -> anyhow::Result<(Self, Option<String>)> {
        let path = match &common.config {
            Some(path) => Some(path.as_path()),
            None => Some(Path::new(DEFAULT_FILE)).filter(|path| path.exists()),
        };
        let Some(path) = path else {
            return Ok((Self::default(), None));
        };
        let text = read(path)?;
        let file = toml::from_str(&text).with_context(|| format!("{} cannot be used", path.display()))?;
        Ok((file, Some(text)))
    }
}

impl Config {
    /// Reads the file, and lays the flags and environment over it.
    ///
    /// # Errors
    /// A text that names the file, the line and what would be right.
    pub fn load(common: &Common) -> anyhow::Result<Self> {
        let (file, text) = File::find(common)?;
        let config = Self {
            data_dir: common
                .data_dir
                .clone()
                .or(file.data_dir)
                .unwrap_or_else(|| DEFAULT_DATA_DIR.into()),
            nats: common.nats.clone().or(file.nats),
            nats_listen: file.nats_listen.unwrap_or_else(|| on_this_machine(4222)),
            tenant: common.tenant.clone().unwrap_or_else(tenants::usual),
            tenants: file.tenants,
            place: file.place.place(common),
            listen: file.listen.unwrap_or_else(|| on_this_machine(8080)),
            allowed_hosts: file.allowed_hosts,
            max_connections: file.max_connections.unwrap_or(MAX_CONNECTIONS),
            max_sessions_per_principal: file
                .max_sessions_per_principal
                .unwrap_or(MAX_SESSIONS_PER_PRINCIPAL),
            call_timeout: file
                .call_timeout_secs
                .map_or(DEFAULT_CALL_TIMEOUT, Duration::from_secs),
            threads: common.threads.or(file.threads),
            tool_timeouts: file
                .tool_timeouts_ms
                .into_iter()
                .map(|(tool, millis)| (tool, Duration::from_millis(millis)))
                .collect(),
            products_tenant: file.products.tenant.unwrap_or_else(tenants::usual),
            products_database: file.products.database_url,
            registry_private: file.registry.allow_private,
            health_every: file.registry.health_every(),
            integrity: file.integrity,
            naming: Naming::new(file.registry.namespace.as_deref(), file.public_url.as_deref())?,
            browsers: file.registry.browsers(),
            endpoint: file.endpoint.shown(),
            virtuals: file.virtuals,
            bootstrap: file.bootstrap,
            servers: file.servers,
            limits: limits::read(file.limits)?,
            guardrails: file.guardrails,
            tls: file.http.tls()?,
            audit: file.audit.options()?,
            auth: file.auth,
            policy: file.policy,
            secrets: file.secrets,
            credentials: file.credentials,
            public_url: file.public_url,
            flags: common.clone(),
            text,
        };
        config.check()?;
        Ok(config)
    }

    /// The file that it was read from, whether it is there or not.
    #[must_use]
    pub fn file(&self) -> &Path {
        self.flags.config.as_deref().unwrap_or(Path::new(DEFAULT_FILE))
    }

    /// What the file said, if there was one.
    #[must_use]
    pub fn text(&self) -> Option<&str> {
        self.text.as_deref()
    }

    /// Reads the file again.
    ///
    /// # Errors
    /// As [`Config::load`].
    pub fn again(&self) -> anyhow::Result<Self> {
        Self::load(&self.flags)
    }

    /// Whether servers at private addresses may be registered.
    #[must_use]
    pub fn private(&self) -> Private {
        match self.registry_private.unwrap_or(self.listen.ip().is_loopback()) {
            true => Private::Allowed,
            false => Private::Refused,
        }
    }

    /// The password of a role on a NATS that was started elsewhere, by the name that its nats-server has for it.
    #[must_use]
    pub fn nats_password(role: &str) -> Option<String> {
        variable(&password_variable(role))
    }

    /// What the environment has to say for the auth callout of a NATS that was started elsewhere.
    pub const CALLOUT_VARIABLES: [&str; 3] = [
        "TRUNKLINE_NATS_CALLOUT_PASSWORD",
        "TRUNKLINE_NATS_CALLOUT_SIGNING_SEED",
        "TRUNKLINE_NATS_CALLOUT_SEALING_SEED",
    ];

    /// How the auth callout reaches such a NATS, if the environment says so.
    ///
    /// # Errors
    /// When a seed is none.
    pub fn callout(url: &str) -> anyhow::Result<Option<CalloutOptions>> {
        let [password, signing, sealing] = Self::CALLOUT_VARIABLES.map(variable);
        let (Some(password), Some(signing), Some(sealing)) = (password, signing, sealing) else {
            return Ok(None);
        };
        let keys = CalloutKeys::from_seeds(&signing, &sealing)?;
        let url = url.to_owned();
        Ok(Some(CalloutOptions { url, password, keys }))
    }

    /// What is needed to keep credentials of users, if that is configured.
    ///
    /// # Errors
    /// When a variable that is named is not there.
    pub fn connections(&self) -> anyhow::Result<Option<ConnectOptions>> {
        let usual = self.public_url().map_or_else(
            || format!("http://127.0.0.1:{}", self.listen.port()),
            str::to_owned,
        );
        self.credentials.options(&usual)
    }

    /// The longest that calls of a server's tools may take, by tool.
    #[must_use]
    pub fn timeouts_of(&self, tenant: &str, server: &ServerId) -> HashMap<String, Duration> {
        let name = name_of(tenant, server);
        let of_server = self.tool_timeouts.iter().filter_map(|(tool, timeout)| {
            let (id, tool) = tool.split_once('.')?;
            (id == name).then(|| (tool.to_owned(), *timeout))
        });
        of_server.collect()
    }

    /// Who may come in, with the secrets that checking that needs.
    ///
    /// # Errors
    /// When a variable or a file that is named is not there.
    pub fn auth(&self) -> anyhow::Result<Auth> {
        Ok(match self.auth.to_options()? {
            Auth::Required(mut options) => {
                options.scheme = self.scheme();
                Auth::Required(options)
            }
            Auth::None => Auth::None,
        })
    }

    /// How HTTP is spoken to.
    #[must_use]
    pub fn scheme(&self) -> Scheme {
        match &self.tls {
            Some(_) => Scheme::Https,
            None => Scheme::Http,
        }
    }

    /// Whether somebody has to show something to come in.
    #[must_use]
    pub fn is_authenticated(&self) -> bool {
        self.auth.is_required()
    }

    /// What holds of policies where none is kept.
    ///
    /// # Errors
    /// When the section cannot be meant; the error names the place.
    pub fn policy(&self) -> anyhow::Result<Configured> {
        Ok(Configured {
            document: self.policy.document()?,
            operator: Some(self.auth.operator_role()),
        })
    }

    fn check(&self) -> anyhow::Result<()> {
        self.auth.check()?;
        let asks_clients = self.tls.as_ref().is_some_and(|tls| tls.clients.is_some());
        if self.auth.knows_certificates() && !asks_clients {
            bail!(
                "there is [[auth.certificates]], and nobody is asked for a certificate; name the authorities of your clients by client_ca under [http.tls]"
            );
        }
        self.secrets.check()?;
        let callers = if self.is_authenticated() {
            Callers::Known
        } else {
            Callers::One
        };
        self.credentials.check(callers)?;
        self.policy()?;
        Guardrails::compile(&self.guardrails).map_err(|bad| anyhow::anyhow!("guardrails.{bad}"))?;
        if self.threads == Some(0) {
            bail!("threads is 0; use 1 or more");
        }
        if self.health_every.is_zero() {
            bail!("health_every_secs is 0 under [registry]; use 1 or more");
        }
        if self.max_connections == 0 {
            bail!("max_connections is 0; use 1 or more");
        }
        if self.max_sessions_per_principal == 0 {
            bail!("max_sessions_per_principal is 0; use 1 or more");
        }
        if self.call_timeout > LONGEST_CALL {
            bail!("call_timeout_secs is more than a day (86400)");
        }
        if self.call_timeout.is_zero() {
            bail!("call_timeout_secs is 0; use 1 or more");
        }
        for (tool, timeout) in &self.tool_timeouts {
            if !tool.contains('.') {
                bail!("tool_timeouts_ms has `{tool}`; write \"<server>.<tool>\" = milliseconds");
            }
            if timeout.is_zero() {
                bail!("tool_timeouts_ms has 0 for `{tool}`; use 1 or more milliseconds");
            }
        }
        self.check_tenants()?;
        self.check_ids()
    }
}

fn on_this_machine(port: u16) -> SocketAddr {
    SocketAddr::from(([127, 0, 0, 1], port))
}

/// A variable of the environment that is there and says something.
fn variable(name: &str) -> Option<String> {
    let value = env::var(name).ok()?.trim().to_owned();
    (!value.is_empty()).then_some(value)
}

fn read(path: &Path) -> anyhow::Result<String> {
    fs::read_to_string(path).map_err(|error| match error.kind() {
        io::ErrorKind::NotFound => {
            anyhow::anyhow!(
                "there is no configuration file {}; leave --config out to run without one",
                path.display()
            )
        }
        _ => anyhow::Error::new(error).context(format!("cannot read {}", path.display())),
    })
}

#[cfg(test)]
mod tests {
    use bridges::upstream::EraKnob;
    use bus_schema::integrity::Policy;

    use super::*;

    pub(super) fn load(text: &str) -> anyhow::Result<Config> {
        let folder = tempfile::tempdir().expect("folder");
        let path = folder.path().join("trunkline.toml");
        fs::write(&path, text).expect("write");
        Config::load(&Common {
            config: Some(path),
            ..Common::default()
        })
    }

    #[test]
    fn what_the_file_says_later_differs_from_what_was_read() {
        let folder = tempfile::tempdir().expect("folder");
        let path = folder.path().join("trunkline.toml");
        fs::write(&path, "threads = 1").expect("write");
        let common = Common {
            config: Some(path.clone()),
            ..Common::default()
        };
        let config = Config::load(&common).expect("loads");
        fs::write(&path, "threads = 2").expect("write");
        assert_eq!(config.text(), Some("threads = 1"));
        assert_eq!(
            config.again().expect("loads").text(),
            Some("threads = 2"),
            "and a change that was taken is none any more"
        );
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
            (
                "[[servers]]\nid = \"a\"\ncommand = [\"x\"]\ninput_ttl_secs = 0",
                ["server `a`", "input_ttl_secs = 0", "1 to 86400"],
            ),
            (
                "[[servers]]\nid = \"a\"\ncommand = [\"x\"]\nmax_children = 0",
                ["server `a`", "max_children = 0", "1 to 1000"],
            ),
            (
                "[[servers]]\nid = \"a\"\ncommand = [\"x\"]\nidle_secs = 100000",
                ["server `a`", "idle_secs = 100000", "1 to 86400"],
            ),
            (
                "[[servers]]\nid = \"a\"\ncommand = [\"x\"]\nmax_children = \"many\"",
                ["line 4", "max_children", "expected"],
            ),
            ("max_connections = 0", ["max_connections", "0", "1 or more"]),
            (
                "[registry]\nhealth_every_secs = 0",
                ["[registry]", "health_every_secs", "1 or more"],
            ),
            (
                "max_sessions_per_principal = 0",
                ["max_sessions_per_principal", "0", "1 or more"],
            ),
            ("threads = 0", ["threads", "0", "1 or more"]),
            (
                "[tool_timeouts_ms]\nsearch = 5",
                ["tool_timeouts_ms", "search", "<server>.<tool>"],
            ),
            (
                "[tool_timeouts_ms]\n\"a.b\" = 0",
                ["tool_timeouts_ms", "a.b", "1 or more"],
            ),
        ] {
            expect_refusal(text, words);
        }
    }

    #[test]
    fn policies_for_changed_tools_are_read_and_a_bad_one_is_named() {
        let text = "[integrity]\npolicy = \"quarantine\"\n[integrity.servers]\nproducts = \"off\"";
        let policies = load(text).expect("loads").integrity.expect("policies");
        assert_eq!(
            policies.of("default", &"a".parse().expect("id")),
            Policy::Quarantine
        );
        assert_eq!(
            policies.of("default", &"products".parse().expect("id")),
            Policy::Off
        );
        assert!(load("").expect("loads").integrity.is_none());
        for (text, words) in [
            (
                "[integrity]\npolicy = \"block\"",
                ["line 2", "block", "quarantine"],
            ),
            (
                "[integrity.servers]\n\"Bad Id\" = \"off\"",
                ["line 2", "Bad Id", "lower-case"],
            ),
        ] {
            expect_refusal(text, words);
        }
    }

    #[test]
    fn what_the_catalogue_cannot_be_named_is_told() {
        for (text, words) in [
            (
                "public_url = \"mcp.example.com\"",
                ["public_url", "mcp.example.com", "https://"],
            ),
            (
                "[registry]\nnamespace = \"example com\"",
                ["namespace", "example com", "com.example"],
            ),
        ] {
            expect_refusal(text, words);
        }
    }

    #[test]
    fn a_bad_endpoint_is_named_with_what_would_be_right() {
        for (text, words) in [
            (
                "[endpoint]\nmode = \"some\"",
                ["line 2", "unknown variant `some`", "search"],
            ),
            (
                "[[virtual]]\nid = \"v\"\nitems = [{ server = \"a\" }]",
                ["[[virtual]] server `v`", "`items`", "such as \"*\""],
            ),
            (
                "[[servers]]\nid = \"v\"\ncommand = [\"x\"]\n[[virtual]]\nid = \"v\"\nitems = [{ server = \"a\", tools = [\"*\"] }]",
                ["`v`", "[[virtual]]", "twice"],
            ),
        ] {
            expect_refusal(text, words);
        }
        let config = load("[endpoint]\nmode = \"search\"\n[[virtual]]\nid = \"v\"\nitems = [{ tags = [\"t\"], tools = [\"*\"] }]")
            .expect("loads");
        assert_eq!((config.endpoint, config.virtuals.len()), (Endpoint::Search, 1));
    }

    pub(super) fn expect_refusal(text: &str, words: [&str; 3]) {
        let error = format!("{:#}", load(text).err().expect(text));
        for word in words {
            assert!(error.contains(word), "{text}: `{word}` is not in: {error}");
        }
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
