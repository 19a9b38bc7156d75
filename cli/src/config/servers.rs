//! The lines of external servers: a command that is run, or a URL that is connected to.

use std::{
    collections::{BTreeMap, HashMap},
    path::PathBuf,
    time::Duration,
};

use anyhow::{Context as _, bail};
use bridges::{
    secrets::{Secret, Source},
    upstream::{
        AskingOptions, BreakerKnob, ChildOptions, EraKnob, RetryKnob,
        remote::{
            Bearer, ClientCredentials, Connections, HEALTH_EVERY, IssuedAt, MOST_AT_ONCE, RemoteOptions,
            TransportKnob, UserOptions,
        },
    },
};
use bus_schema::task::TaskKnob;
use bus_schema::{ServerId, card::name_of};
use serde::Deserialize;

use super::secrets::{SecretTable, Setting};

const DEFAULT_MAX_IN_FLIGHT: u32 = 64;
/// Nobody is asked for input for longer than a day.
const LONGEST_INPUT_SECS: u64 = 24 * 60 * 60;
/// More processes of one server than this are a mistake of the one who wrote it.
const MOST_CHILDREN: usize = 1_000;

/// An external server in the file: a command, or a URL.
#[derive(Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ServerLine {
    /// Its id on the bus.
    pub id: ServerId,
    /// Whose it is.
    #[serde(default = "super::tenants::usual")]
    pub tenant: String,
    /// The program and its arguments.
    pub command: Option<Vec<String>>,
    /// Variables beside the inherited ones (commands only).
    pub env: Option<BTreeMap<String, Setting>>,
    /// The folder it runs in (commands only).
    pub cwd: Option<PathBuf>,
    /// Where it is.
    pub url: Option<String>,
    /// How messages travel (URLs only, as all that follows up to the era).
    pub transport: Option<TransportKnob>,
    /// Headers of every request to it.
    pub headers: Option<BTreeMap<String, Setting>>,
    /// Where the token comes from that is shown to it.
    pub bearer: Option<SecretTable>,
    /// Whose credentials it takes.
    #[serde(default)]
    pub credentials: Credentials,
    /// Who the platform is at its issuer, for tokens that are got there.
    pub oauth: Option<OauthTable>,
    /// The variable that holds the token which is shown to it.
    pub bearer_env: Option<String>,
    /// The file that holds the token.
    pub bearer_file: Option<PathBuf>,
    /// A page that answers with a status of success while the server is well.
    pub health_url: Option<String>,
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
    /// The longest that any call may take.
    pub call_timeout_secs: Option<u64>,
    /// When calls to it are stopped because they keep failing.
    #[serde(default)]
    pub breaker: BreakerKnob,
    /// How often calls are made that were lost.
    #[serde(default)]
    pub retry: RetryKnob,
    /// Which of its calls become tasks of the platform.
    #[serde(default)]
    pub tasks: TaskKnob,
    /// How long a call waits for input that its caller was asked for.
    pub input_ttl_secs: Option<u64>,
    /// How many connections it may have for callers that can be asked for input, beside the one that all others share; for a
    /// command each is a process.
    pub max_children: Option<usize>,
    /// How long such a connection stays that nobody uses.
    pub idle_secs: Option<u64>,
}

fn default_max_in_flight() -> u32 {
    DEFAULT_MAX_IN_FLIGHT
}

/// Client credentials (RFC 6749, section 4.4) that the platform gets tokens for.
#[derive(Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct OauthTable {
    token_endpoint: Option<String>,
    issuer: Option<String>,
    client_id: Option<String>,
    client_secret: Option<SecretTable>,
    #[serde(default)]
    scopes: Vec<String>,
}

/// Whose credentials a server takes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Credentials {
    /// Those of the platform, whoever asks.
    #[default]
    Platform,
    /// Those of the user who asks.
    User,
}

impl OauthTable {
    fn at(&self) -> anyhow::Result<IssuedAt> {
        Ok(match (&self.token_endpoint, &self.issuer) {
            (Some(_), Some(_)) => bail!("both token_endpoint and issuer; keep one"),
            (Some(url), None) => IssuedAt::Endpoint(url.clone()),
            (None, Some(issuer)) => IssuedAt::Issuer(issuer.clone()),
            (None, None) => IssuedAt::Told,
        })
    }

    /// The client that the platform is for itself.
    fn credentials(
        &self,
        read: impl Fn(&str, &SecretTable) -> anyhow::Result<Source>,
    ) -> anyhow::Result<ClientCredentials> {
        let (Some(client_id), Some(secret)) = (&self.client_id, &self.client_secret) else {
            bail!(
                "not both of client_id and client_secret, which the platform needs to get tokens for itself"
            );
        };
        Ok(ClientCredentials {
            at: self.at()?,
            client_id: client_id.clone(),
            client_secret: read("oauth.client_secret", secret)?,
            scopes: self.scopes.clone(),
        })
    }
}

/// An external server as the upstream bridge takes it.
#[derive(Clone)]
pub enum ServerOptions {
    /// A command that is run.
    Child(Box<ChildOptions>),
    /// A URL that is connected to.
    Remote(Box<RemoteOptions>),
}

impl ServerLine {
    /// Its name among the servers of all tenants.
    #[must_use]
    pub fn name(&self) -> String {
        name_of(&self.tenant, &self.id)
    }

    /// The line as the upstream bridge takes it, with the secrets that it names.
    ///
    /// # Errors
    /// When a variable that it names is not there.
    pub fn to_options(
        &self,
        tool_timeouts: HashMap<String, Duration>,
        health_every: Duration,
    ) -> anyhow::Result<ServerOptions> {
        let read = |what: &str, table: &SecretTable| self.read(what, table, SecretTable::to_source);
        let Some(url) = &self.url else {
            let (env, secret_env) = apart("env", self.env.as_ref(), read)?;
            return Ok(ServerOptions::Child(Box::new(ChildOptions {
                id: self.id.clone(),
                command: self.command.clone().unwrap_or_default(),
                env,
                secret_env,
                cwd: self.cwd.clone(),
                era: self.era,
                tags: self.tags.clone(),
                max_in_flight: self.max_in_flight,
                tool_timeouts,
                call_timeout: self.call_timeout(),
                breaker: self.breaker,
                retry: self.retry,
                tasks: self.tasks.clone(),
                asking: self.asking(),
            })));
        };
        Ok(ServerOptions::Remote(Box::new(RemoteOptions {
            tool_timeouts,
            health_every,
            ..self.remote(url, read)?
        })))
    }

    /// The token that is shown to it, however that is written.
    fn bearer(&self, read: impl Fn(&str, &SecretTable) -> anyhow::Result<Source>) -> anyhow::Result<Bearer> {
        let id = &self.id;
        let tables = [
            ("bearer", self.bearer.clone()),
            ("bearer_env", self.bearer_env.as_deref().map(SecretTable::env)),
            ("bearer_file", self.bearer_file.clone().map(SecretTable::file)),
        ];
        let said: Vec<_> = tables
            .into_iter()
            .filter_map(|(key, table)| Some((key, table?)))
            .collect();
        // Of users it says how they connect.
        let own = self
            .oauth
            .as_ref()
            .filter(|_| self.credentials == Credentials::Platform);
        match (said.as_slice(), own) {
            ([], None) => Ok(Bearer::None),
            ([], Some(oauth)) => {
                let credentials = oauth.credentials(read);
                Ok(Bearer::Client(
                    credentials.with_context(|| format!("server `{id}` has in oauth"))?,
                ))
            }
            ([(key, table)], None) => Ok(Bearer::From(read(key, table)?)),
            ([(one, _), (other, _), ..], _) => bail!("server `{id}` has both {one} and {other}; keep one"),
            ([(one, _)], Some(_)) => bail!("server `{id}` has both {one} and oauth; keep one"),
        }
    }

    /// How users connect to it, if they do.
    ///
    /// # Errors
    /// When what it says of that cannot be meant, or a secret that it names is not there.
    pub fn users(&self, connections: &Connections) -> anyhow::Result<Option<UserOptions>> {
        if self.credentials == Credentials::Platform {
            return Ok(None);
        }
        let read = |table: &SecretTable| self.read("oauth.client_secret", table, SecretTable::to_source);
        let oauth = self.oauth.as_ref();
        let secret = oauth
            .and_then(|oauth| oauth.client_secret.as_ref())
            .map(read)
            .transpose()?;
        let id = oauth.and_then(|oauth| oauth.client_id.clone());
        Ok(Some(UserOptions {
            connections: connections.clone(),
            at: oauth.map_or(Ok(IssuedAt::Told), OauthTable::at)?,
            client: id.map(|id| (id, secret)),
            scopes: oauth.map(|oauth| oauth.scopes.clone()).unwrap_or_default(),
        }))
    }

    /// Finds what cannot be meant of how users connect to it.
    fn check_users(&self) -> anyhow::Result<()> {
        let (Credentials::User, Some(oauth)) = (self.credentials, &self.oauth) else {
            return Ok(());
        };
        let id = &self.id;
        if oauth.token_endpoint.is_some() {
            bail!(
                "server `{id}` has credentials = \"user\" and in oauth token_endpoint, which is for tokens of the platform; write issuer"
            );
        }
        match (&oauth.client_id, &oauth.client_secret) {
            (None, Some(_)) => {
                bail!("server `{id}` has in oauth a client_secret and no client_id; write both, or none")
            }
            (_, Some(secret)) => self.judge("oauth.client_secret", secret).map(drop),
            _ => Ok(()),
        }
    }

    fn remote(
        &self,
        url: &str,
        read: impl Fn(&str, &SecretTable) -> anyhow::Result<Source>,
    ) -> anyhow::Result<RemoteOptions> {
        let (headers, secret_headers) = apart("headers", self.headers.as_ref(), &read)?;
        let bearer = self.bearer(read)?;
        Ok(RemoteOptions {
            id: self.id.clone(),
            url: url.to_owned(),
            transport: self.transport.unwrap_or_default(),
            era: self.era,
            headers,
            secret_headers,
            bearer,
            users: None,
            health_url: self.health_url.clone(),
            health_every: HEALTH_EVERY,
            epoch: None,
            ca_file: self.ca_file.clone(),
            allow_private: self.allow_private.unwrap_or_default(),
            tags: self.tags.clone(),
            max_in_flight: self.max_in_flight,
            tool_timeouts: HashMap::new(),
            call_timeout: self.call_timeout(),
            breaker: self.breaker,
            retry: self.retry,
            tasks: self.tasks.clone(),
            asking: self.asking(),
        })
    }

    /// Does something with a secret of the line; what is wrong is told with where it stands.
    fn read<T>(
        &self,
        what: &str,
        table: &SecretTable,
        with: impl Fn(&SecretTable) -> anyhow::Result<T>,
    ) -> anyhow::Result<T> {
        with(table).with_context(|| format!("`{what}` of server `{}`", self.id))
    }

    /// A secret of the line that nobody has to have yet.
    fn judge(&self, what: &str, table: &SecretTable) -> anyhow::Result<Source> {
        self.read(what, table, SecretTable::check)?;
        // Which it is makes no difference here, and commands that do not serve need none.
        Ok(Source::Fixed {
            name: String::new(),
            secret: Secret::new("any"),
        })
    }

    pub(super) fn asking(&self) -> AskingOptions {
        let usual = AskingOptions::default();
        let connections = match self.credentials {
            Credentials::Platform => usual.max_children,
            Credentials::User => MOST_AT_ONCE,
        };
        AskingOptions {
            input_ttl: self.input_ttl_secs.map_or(usual.input_ttl, Duration::from_secs),
            max_children: self.max_children.unwrap_or(connections),
            idle: self.idle_secs.map_or(usual.idle, Duration::from_secs),
        }
    }

    fn call_timeout(&self) -> Option<Duration> {
        self.call_timeout_secs.map(Duration::from_secs)
    }

    fn check_isolation(&self) -> anyhow::Result<()> {
        let id = &self.id;
        if let Some(secs) = self
            .call_timeout_secs
            .filter(|secs| !(1..=LONGEST_INPUT_SECS).contains(secs))
        {
            bail!("server `{id}` has call_timeout_secs = {secs}; use 1 to {LONGEST_INPUT_SECS} (a day)");
        }
        if let Err(why) = self.breaker.check() {
            bail!("the breaker of server `{id}` {why}");
        }
        if let Err(why) = self.retry.check() {
            bail!("the retry of server `{id}` {why}");
        }
        if let Err(why) = self.tasks.check() {
            bail!("the tasks of server `{id}` {why}");
        }
        Ok(())
    }

    fn check_asking(&self) -> anyhow::Result<()> {
        let id = &self.id;
        for (key, secs) in [
            ("input_ttl_secs", self.input_ttl_secs),
            ("idle_secs", self.idle_secs),
        ] {
            if let Some(secs) = secs.filter(|secs| !(1..=LONGEST_INPUT_SECS).contains(secs)) {
                bail!("server `{id}` has {key} = {secs}; use 1 to {LONGEST_INPUT_SECS} (a day)");
            }
        }
        if let Some(children) = self
            .max_children
            .filter(|children| !(1..=MOST_CHILDREN).contains(children))
        {
            bail!(
                "server `{id}` has max_children = {children}; use 1 to {MOST_CHILDREN}, as every caller that can be asked needs one"
            );
        }
        Ok(())
    }

    /// Finds what cannot work, without asking for secrets.
    pub(super) fn check(&self) -> anyhow::Result<()> {
        let id = &self.id;
        if self.max_in_flight == 0 {
            bail!("server `{id}` has max_in_flight = 0; use 1 or more");
        }
        self.check_asking()?;
        self.check_isolation()?;
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
                        ("bearer", self.bearer.is_some()),
                        ("oauth", self.oauth.is_some()),
                        ("credentials", self.credentials == Credentials::User),
                        ("bearer_env", self.bearer_env.is_some()),
                        ("bearer_file", self.bearer_file.is_some()),
                        ("health_url", self.health_url.is_some()),
                        ("ca_file", self.ca_file.is_some()),
                        ("allow_private", self.allow_private.is_some()),
                    ],
                )?;
                apart("env", self.env.as_ref(), |what, table| self.judge(what, table)).map(drop)
            }
            (None, Some(url)) => {
                self.refuse(
                    "a url",
                    &[("env", self.env.is_some()), ("cwd", self.cwd.is_some())],
                )?;
                self.check_users()?;
                self.remote(url, |what, table| self.judge(what, table))?
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

type Apart = (BTreeMap<String, String>, BTreeMap<String, Source>);

/// What is written out, and what is secret.
fn apart(
    key: &str,
    settings: Option<&BTreeMap<String, Setting>>,
    read: impl Fn(&str, &SecretTable) -> anyhow::Result<Source>,
) -> anyhow::Result<Apart> {
    let mut all = Apart::default();
    for (name, setting) in settings.into_iter().flatten() {
        match setting {
            Setting::Plain(text) => {
                all.0.insert(name.clone(), text.clone());
            }
            Setting::Secret(table) => {
                all.1.insert(name.clone(), read(&format!("{key}.{name}"), table)?);
            }
        }
    }
    Ok(all)
}

#[cfg(test)]
mod tests {
    use super::{
        super::tests::{expect_refusal, load},
        *,
    };

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
            (
                "[[servers]]\nid = \"a\"\ncommand = [\"x\"]\ninput_ttl_secs = 0",
                ["server `a`", "input_ttl_secs = 0", "1 to 86400"],
            ),
            (
                "[[servers]]\nid = \"a\"\nurl = \"https://a.example\"\nmax_children = 0",
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
        ] {
            expect_refusal(text, words);
        }
    }

    #[test]
    fn when_a_server_is_left_alone_can_be_said_within_reason() {
        for (text, words) in [
            (
                "[[servers]]\nid = \"a\"\ncommand = [\"x\"]\ncall_timeout_secs = 0",
                ["server `a`", "call_timeout_secs = 0", "1 to 86400"],
            ),
            (
                "[[servers]]\nid = \"a\"\ncommand = [\"x\"]\nbreaker = { failures = 3, open_secs = 0 }",
                ["server `a`", "open_secs = 0", "1 to 3600"],
            ),
            (
                "[[servers]]\nid = \"a\"\ncommand = [\"x\"]\nbreaker = { errors = 3 }",
                ["line 4", "errors", "`failures`"],
            ),
            (
                "[[servers]]\nid = \"a\"\nurl = \"https://a.example\"\nretry = { attempts = 99 }",
                ["server `a`", "attempts = 99", "1 to 10"],
            ),
        ] {
            expect_refusal(text, words);
        }
        let text =
            "[[servers]]\nid = \"a\"\ncommand = [\"x\"]\ncall_timeout_secs = 7\nbreaker = { failures = 0 }";
        let line = &load(text).expect("loads").servers[0];
        assert_eq!(line.call_timeout(), Some(Duration::from_secs(7)));
        assert_eq!((line.breaker.failures, line.breaker.open_secs), (0, 10));
    }

    #[test]
    fn how_long_a_question_waits_and_how_many_processes_it_may_take_can_be_said() {
        let asking = |more: &str| {
            let text = format!("[[servers]]\nid = \"a\"\ncommand = [\"x\"]\n{more}");
            load(&text).expect("loads").servers[0].asking()
        };
        assert_eq!(asking(""), AskingOptions::default());
        let said = asking("input_ttl_secs = 7\nmax_children = 2\nidle_secs = 9\n");
        assert_eq!(
            (said.input_ttl, said.max_children, said.idle),
            (Duration::from_secs(7), 2, Duration::from_secs(9))
        );
    }

    #[test]
    fn a_remote_server_is_read_and_its_secret_is_asked_for_only_by_who_serves_it() {
        let line = "[[servers]]\nid = \"there\"\nurl = \"http://127.0.0.1:1/mcp\"\nallow_private = true\ntransport = \"sse\"\n\
            bearer_env = \"TRUNKLINE_TEST_NO_SUCH_VARIABLE\"\nheaders = { X-Team = \"a\" }\n";
        let config = load(line).expect("loads");
        let error = config.servers[0]
            .to_options(HashMap::new(), HEALTH_EVERY)
            .err()
            .map(|error| format!("{error:#}"))
            .expect("no secret");
        assert!(
            error.contains("`there`") && error.contains("TRUNKLINE_TEST_NO_SUCH_VARIABLE"),
            "{error}"
        );
        let config = load(&line.replace("TRUNKLINE_TEST_NO_SUCH_VARIABLE", "PATH")).expect("loads");
        let Ok(ServerOptions::Remote(remote)) = config.servers[0].to_options(HashMap::new(), HEALTH_EVERY)
        else {
            panic!("it is a remote server");
        };
        assert_eq!(remote.transport, TransportKnob::Sse);
        assert_eq!(remote.headers["X-Team"], "a");
        assert!(matches!(remote.bearer, Bearer::From(Source::Fixed { .. })));
    }
}
