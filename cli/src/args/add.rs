//! `trunkline servers add`: a flag for each member of a declaration.

use std::path::PathBuf;

use clap::Args;

use super::Ask;

pub(super) const EXAMPLES: &str = "\
Examples:
  trunkline servers add weather https://weather.example.com/mcp --tag forecasts --bearer-env TRUNKLINE_SECRET_WEATHER
  trunkline servers add maps wss://maps.example.com/mcp --max-in-flight 16 --call-timeout-ms 5000 --breaker-failures 3
  trunkline servers add crm https://crm.example.com/mcp --oauth-token-endpoint https://id.example.com/token \\
    --oauth-client-id trunkline --oauth-client-secret-env TRUNKLINE_SECRET_CRM --oauth-scope crm.read
  trunkline servers add tickets https://tickets.example.com/mcp --credentials user --connect-scope tickets.read
  trunkline servers add --file fleet.toml --replace";

/// What is registered. A flag that is not given leaves its member as it is by default.
#[derive(Clone, Debug, Args)]
pub struct AddServer {
    /// Its id: lower-case letters, digits and `-`
    #[arg(required_unless_present = "file")]
    pub id: Option<String>,
    /// Where it is
    #[arg(required_unless_present = "file")]
    pub url: Option<String>,
    /// A file of declarations, TOML (`[[servers]]`) or JSON (a list, or one); what servers are is said there then, and by no flag
    #[arg(long, value_name = "FILE", conflicts_with_all = OF_ONE_SERVER)]
    pub file: Option<PathBuf>,
    /// Its name in registries, such as com.example/weather
    #[arg(long)]
    pub name: Option<String>,
    /// Its name for people
    #[arg(long)]
    pub title: Option<String>,
    /// What it is good for
    #[arg(long)]
    pub description: Option<String>,
    /// A label to find it by; may be given several times
    #[arg(long = "tag", value_name = "TAG")]
    pub tags: Vec<String>,
    /// Its semantic version
    #[arg(long, value_name = "VERSION")]
    pub server_version: Option<String>,
    /// How messages travel: auto, http, sse or ws
    #[arg(long, default_value = "auto")]
    pub transport: String,
    /// Which era it speaks: auto, legacy or modern
    #[arg(long, default_value = "auto")]
    pub era: String,
    /// The variable of the platform's processes that holds its token; it begins with `TRUNKLINE_SECRET_`
    #[arg(long, value_name = "VARIABLE", conflicts_with_all = OAUTH)]
    pub bearer_env: Option<String>,
    /// The secret that is its token, by its name in the `[secrets]` section of the platform's processes
    #[arg(long, value_name = "NAME", conflicts_with_all = OAUTH, conflicts_with = "bearer_env")]
    pub bearer_name: Option<String>,
    /// How the platform gets tokens for it.
    #[command(flatten)]
    pub oauth: OauthFlags,
    /// Whose account it is used with: platform, or user, who connects an account of their own
    #[arg(long, value_name = "WHOSE", default_value = "platform")]
    pub credentials: String,
    /// How users connect their accounts.
    #[command(flatten)]
    pub connect: ConnectFlags,
    /// A header of every request, as `Name: value`; may be given several times
    #[arg(long = "header", value_name = "HEADER")]
    pub headers: Vec<String>,
    /// It may be at a private address, and without encryption
    #[arg(long)]
    pub allow_private: bool,
    /// A URL that answers 2xx while the server is well
    #[arg(long, value_name = "URL")]
    pub health_url: Option<String>,
    /// Whom to ask about it
    #[arg(long)]
    pub owner: Option<String>,
    /// How many processes of the fleet connect to it
    #[arg(long, value_name = "N", default_value_t = 1)]
    pub replicas: u32,
    /// What it may cost others.
    #[command(flatten)]
    pub limits: LimitFlags,
    /// Replace what is registered under the id
    #[arg(long)]
    pub replace: bool,
    /// How the answer is printed.
    #[command(flatten)]
    pub ask: Ask,
}

/// Client credentials (RFC 6749, section 4.4) that the platform gets tokens for.
#[derive(Clone, Debug, Default, Args)]
pub struct OauthFlags {
    /// Where the platform gets tokens for it, by client credentials
    #[arg(long = "oauth-token-endpoint", value_name = "URL", requires = "client_id")]
    pub token_endpoint: Option<String>,
    /// The issuer whose metadata say where; with neither, the server names its issuer
    #[arg(
        long = "oauth-issuer",
        value_name = "URL",
        requires = "client_id",
        conflicts_with = "token_endpoint"
    )]
    pub issuer: Option<String>,
    /// Who the platform is there
    #[arg(long = "oauth-client-id", value_name = "ID", requires = "client_secret")]
    pub client_id: Option<String>,
    /// The variable of the platform's processes that holds the client's secret; it begins with `TRUNKLINE_SECRET_`
    #[arg(
        long = "oauth-client-secret-env",
        value_name = "VARIABLE",
        requires = "client_id",
        group = "client_secret"
    )]
    pub client_secret_env: Option<String>,
    /// The secret itself, by its name in the `[secrets]` section of the platform's processes
    #[arg(
        long = "oauth-client-secret-name",
        value_name = "NAME",
        requires = "client_id",
        group = "client_secret"
    )]
    pub client_secret_name: Option<String>,
    /// A scope that is asked for; may be given several times
    #[arg(long = "oauth-scope", value_name = "SCOPE", requires = "client_id")]
    pub scopes: Vec<String>,
}

/// How users connect their accounts at a server that takes those.
#[derive(Clone, Debug, Default, Args)]
pub struct ConnectFlags {
    /// Where users agree [default: at the issuer that the server names]
    #[arg(id = "connect_issuer", long = "connect-issuer", value_name = "URL")]
    pub issuer: Option<String>,
    /// Who the platform is there [default: it tells of itself, or registers itself]
    #[arg(id = "connect_client_id", long = "connect-client-id", value_name = "ID")]
    pub client_id: Option<String>,
    /// The variable of the platform's processes that holds the client's secret; it begins with `TRUNKLINE_SECRET_`
    #[arg(
        id = "connect_client_secret_env",
        long = "connect-client-secret-env",
        value_name = "VARIABLE",
        requires = "connect_client_id",
        conflicts_with = "connect_client_secret_name"
    )]
    pub client_secret_env: Option<String>,
    /// The secret itself, by its name in the `[secrets]` section of the platform's processes
    #[arg(
        id = "connect_client_secret_name",
        long = "connect-client-secret-name",
        value_name = "NAME",
        requires = "connect_client_id"
    )]
    pub client_secret_name: Option<String>,
    /// A scope that users are asked to agree to; may be given several times
    #[arg(id = "connect_scopes", long = "connect-scope", value_name = "SCOPE")]
    pub scopes: Vec<String>,
}

/// What bounds the harm that a server can do.
#[derive(Clone, Debug, Default, Args)]
pub struct LimitFlags {
    /// How many calls each replica takes at once [default: 64]
    #[arg(long, value_name = "N")]
    pub max_in_flight: Option<u32>,
    /// The longest that one call may take, in milliseconds [default: as long as the platform allows]
    #[arg(long, value_name = "MS")]
    pub call_timeout_ms: Option<u64>,
    /// After so many failures calls are stopped, if half of the calls fail; 0 is never [default: 5]
    #[arg(long, value_name = "N")]
    pub breaker_failures: Option<u32>,
    /// The time that failures count for, in seconds [default: 30]
    #[arg(long, value_name = "SECONDS")]
    pub breaker_within_secs: Option<u32>,
    /// How long the server is left alone then, in seconds [default: 10]
    #[arg(long, value_name = "SECONDS")]
    pub breaker_open_secs: Option<u32>,
    /// How often a call is made that was lost, if it reads or is idempotent; 1 is never again [default: 2]
    #[arg(long, value_name = "N")]
    pub retry_attempts: Option<u32>,
    /// How long is waited before the next, in milliseconds; twice as long each time [default: 100]
    #[arg(long, value_name = "MS")]
    pub retry_backoff_ms: Option<u32>,
}

const OAUTH: [&str; 6] = [
    "token_endpoint",
    "issuer",
    "client_id",
    "client_secret_env",
    "client_secret_name",
    "scopes",
];

/// What says something of one server, which a file says of all of its.
const OF_ONE_SERVER: [&str; 35] = [
    "id",
    "url",
    "name",
    "title",
    "description",
    "tags",
    "server_version",
    "transport",
    "era",
    "bearer_env",
    "bearer_name",
    "token_endpoint",
    "issuer",
    "client_id",
    "client_secret_env",
    "client_secret_name",
    "scopes",
    "credentials",
    "connect_issuer",
    "connect_client_id",
    "connect_client_secret_env",
    "connect_client_secret_name",
    "connect_scopes",
    "headers",
    "allow_private",
    "health_url",
    "owner",
    "replicas",
    "max_in_flight",
    "call_timeout_ms",
    "breaker_failures",
    "breaker_within_secs",
    "breaker_open_secs",
    "retry_attempts",
    "retry_backoff_ms",
];

#[cfg(test)]
mod tests {
    use clap::{CommandFactory as _, Parser as _, error::ErrorKind};

    use super::{super::Arguments, OF_ONE_SERVER};

    fn refusal(flags: &str) -> ErrorKind {
        let words = ["trunkline", "servers", "add"]
            .into_iter()
            .chain(flags.split_whitespace());
        Arguments::try_parse_from(words).expect_err(flags).kind()
    }

    #[test]
    fn what_says_something_of_one_server_does_not_stand_beside_a_file() {
        Arguments::command().debug_assert();
        let command = Arguments::command();
        let add = command
            .find_subcommand("servers")
            .and_then(|servers| servers.find_subcommand("add"))
            .expect("the command");
        let beside = ["file", "replace", "json", "help", "version"];
        for arg in add.get_arguments().filter(|arg| !arg.is_global_set()) {
            let id = arg.get_id().as_str();
            assert_ne!(
                OF_ONE_SERVER.contains(&id),
                beside.contains(&id),
                "{id} is either of one server or not"
            );
        }
        assert_eq!(refusal("--file f.toml --tag x"), ErrorKind::ArgumentConflict);
        assert_eq!(
            refusal("--file f.toml --max-in-flight 3"),
            ErrorKind::ArgumentConflict
        );
    }

    #[test]
    fn half_of_the_credentials_is_no_use() {
        let oauth = "a https://a.example --oauth-token-endpoint https://id.example/token";
        assert_eq!(refusal(oauth), ErrorKind::MissingRequiredArgument);
        assert_eq!(
            refusal("a https://a.example --oauth-scope read"),
            ErrorKind::MissingRequiredArgument
        );
        let both = format!(
            "{oauth} --oauth-client-id c --oauth-client-secret-env TRUNKLINE_SECRET_C --bearer-env TRUNKLINE_SECRET_B"
        );
        assert_eq!(refusal(&both), ErrorKind::ArgumentConflict);
        assert_eq!(
            refusal("a https://a.example --credentials user --connect-client-secret-env TRUNKLINE_SECRET_C"),
            ErrorKind::MissingRequiredArgument
        );
    }
}
