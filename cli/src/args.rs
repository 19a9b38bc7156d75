//! What a user can type. Flags win over environment variables, which win over the file.

mod add;
mod audit;
mod blocks;
mod credentials;
mod documents;
mod guardrails;
mod import;
mod policy;
mod tasks;
mod traffic;

use std::{net::SocketAddr, path::PathBuf};

use bus_schema::policy::Scope;
use clap::{Args, Parser, Subcommand, ValueEnum};

pub use add::{AddServer, ConnectFlags, LimitFlags, OauthFlags};
pub use audit::{Audit, AuditCommand, AuditTail, Outcome};
pub use blocks::{Block, WhoIsBlocked};
pub use credentials::{
    Credentials, CredentialsCommand, ForgetCredentials, ListCredentials, WhoseCredentials,
};
pub use documents::{ListVersions, RollBack, SetDocument, ShowVersion};
pub use guardrails::{Guardrails, GuardrailsCommand, GuardrailsTry};
pub use import::Import;
pub use policy::{Candidate, Policy, PolicyCommand, PolicyDiff, PolicyExplain, PolicyReplay, PolicyTest};
pub use tasks::{AnswerTask, ListTasks, NamedTask, Tasks, TasksCommand};
pub use traffic::{Traffic, TrafficClear, TrafficCommand, TrafficOf, TrafficSet};

/// An MCP platform on a NATS bus: any MCP client reaches any MCP server.
#[derive(Debug, Parser)]
#[command(name = "trunkline", version, about, after_help = EXAMPLES, propagate_version = true)]
pub struct Arguments {
    /// The flags of all commands.
    #[command(flatten)]
    pub common: Common,
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

const EXAMPLES: &str = "\
Examples:
  trunkline up                                   start the whole platform in one process
  trunkline serve products                       one more replica, on the same NATS
  trunkline call products.search '{\"query\":\"desk\"}'
  trunkline tail                                 watch calls as they end";

/// The flags of all commands.
#[derive(Clone, Debug, Default, Args)]
pub struct Common {
    /// The configuration file [default: trunkline.toml, if there is one]
    #[arg(long, global = true, env = "TRUNKLINE_CONFIG", value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// The tenant whose servers, tools, calls and rules are meant [default: default]
    #[arg(long, global = true, value_name = "TENANT")]
    pub tenant: Option<String>,
    /// The folder for everything that is kept [default: .trunkline]
    #[arg(long, global = true, env = "TRUNKLINE_DATA_DIR", value_name = "DIR")]
    pub data_dir: Option<PathBuf>,
    /// The NATS to use [default: one of its own for `up`, that one for the others]
    #[arg(
        long,
        global = true,
        env = "TRUNKLINE_NATS",
        hide_env_values = true,
        value_name = "URL"
    )]
    pub nats: Option<String>,
    /// What is logged, such as `debug` or `info,runtime=debug`
    #[arg(long, global = true, env = "TRUNKLINE_LOG", value_name = "FILTER")]
    pub log: Option<String>,
    /// Log one JSON object a line
    #[arg(long, global = true, env = "TRUNKLINE_LOG_JSON")]
    pub log_json: bool,
    /// How many threads run the platform's code [default: one for each four cores]
    #[arg(long, global = true, env = "TRUNKLINE_THREADS", value_name = "N")]
    pub threads: Option<usize>,
    /// The machine that this process runs on, for traffic rules that prefer what is near [default: its host name]
    #[arg(long, global = true, env = "TRUNKLINE_NODE", value_name = "NAME")]
    pub node: Option<String>,
    /// The region that it runs in, for the same
    #[arg(long, global = true, env = "TRUNKLINE_REGION", value_name = "NAME")]
    pub region: Option<String>,
}

/// The commands.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Start the whole platform: NATS, every server and every door
    #[command(
        after_help = "Examples:\n  trunkline up\n  trunkline up --listen 127.0.0.1:0 --nats nats://bus.example.com:4222"
    )]
    Up(Up),
    /// Serve one or more servers on the bus; start it again elsewhere to share the load
    #[command(
        after_help = "Examples:\n  trunkline serve products\n  trunkline serve products everything --nats nats://127.0.0.1:4222"
    )]
    Serve(Serve),
    /// Open one door to the bus
    #[command(
        after_help = "Examples:\n  trunkline bridge http --listen 127.0.0.1:8081\n  trunkline bridge stdio --server products"
    )]
    Bridge(Bridge),
    /// Show the servers of the platform; register, import, show and remove remote ones
    #[command(after_help = SERVERS_EXAMPLES)]
    Servers(Servers),
    /// Show the tools on the bus; approve or reject those that are not as they were approved
    #[command(after_help = TOOLS_EXAMPLES)]
    Tools(Tools),
    /// Endpoints of chosen tools, prompts and resources of several servers
    #[command(after_help = VIRTUAL_EXAMPLES)]
    Virtual(Virtual),
    /// Spread a server's calls over its versions, to a copy on trial, and over places
    #[command(after_help = traffic::EXAMPLES)]
    Traffic(Traffic),
    /// Stop a caller at every door, with everything that it has running
    #[command(after_help = blocks::EXAMPLES)]
    Block(Block),
    /// Let a blocked caller call again
    Unblock(WhoIsBlocked),
    /// Show the callers that are blocked
    Blocked(Ask),
    /// Show and forget the accounts that users have connected at servers
    #[command(after_help = credentials::EXAMPLES)]
    Credentials(Credentials),
    /// Call a tool
    #[command(after_help = CALL_EXAMPLES)]
    Call(Call),
    /// Watch calls as they end
    #[command(after_help = "Examples:\n  trunkline tail\n  trunkline tail --json | jq .duration_us")]
    Tail(Tail),
    /// Look after work that outlives its client
    #[command(after_help = tasks::EXAMPLES)]
    Tasks(Tasks),
    /// Look at what was refused to whom
    #[command(after_help = audit::EXAMPLES)]
    Audit(Audit),
    /// Who may do what: keep a policy, ask it, try another
    #[command(after_help = policy::EXAMPLES)]
    Policy(Policy),
    /// What is looked for in the arguments and results of calls
    #[command(after_help = guardrails::EXAMPLES)]
    Guardrails(Guardrails),
    /// Make API keys
    #[command(after_help = "Example:\n  trunkline keys new --subject ci --scope products:read")]
    Keys(Keys),
    /// Print a script that completes commands in a shell
    #[command(after_help = "Example:\n  trunkline completions bash > /etc/bash_completion.d/trunkline")]
    Completions(Completions),
}

const TOOLS_EXAMPLES: &str = "\
Examples:
  trunkline tools
  trunkline tools --tag catalogue
  trunkline tools --search 'find a product' --limit 5
  trunkline tools --server products --json
  trunkline tools pending
  trunkline tools approve weather.forecast
  trunkline tools approve --all weather";

const VIRTUAL_EXAMPLES: &str = "\
Examples:
  trunkline virtual add desk.json
  trunkline virtual add --id desk --tool 'products.search=find' --tool 'crm.get_*'
  trunkline virtual show desk
  trunkline virtual remove desk";

const SERVERS_EXAMPLES: &str = "\
Examples:
  trunkline servers
  trunkline servers add weather https://weather.example.com/mcp --tag forecasts --bearer-env TRUNKLINE_SECRET_WEATHER
  trunkline servers add --file fleet.toml
  trunkline servers import https://registry.example.com --search weather
  trunkline servers show weather
  trunkline servers remove weather";

const CALL_EXAMPLES: &str = "\
Examples:
  trunkline call products.search '{\"query\":\"desk\",\"limit\":3}'
  trunkline call products.reindex
  echo '{\"sku\":\"OFF-0001\"}' | trunkline call products.get -";

impl Command {
    /// Whether it runs until it is stopped.
    #[must_use]
    pub fn is_long_running(&self) -> bool {
        matches!(self, Self::Up(_) | Self::Serve(_) | Self::Bridge(_))
    }

    /// Whether it serves every tenant there is.
    #[must_use]
    pub fn is_for_all_tenants(&self) -> bool {
        match self {
            Self::Bridge(bridge) => bridge.door != Door::Stdio,
            Self::Up(_) | Self::Serve(_) => true,
            _ => false,
        }
    }
}

/// Where HTTP listens.
#[derive(Clone, Debug, Default, Args)]
pub struct Listen {
    /// Where HTTP and WebSocket clients connect; port 0 picks a free one [default: 127.0.0.1:8080]
    #[arg(long, env = "TRUNKLINE_LISTEN", value_name = "ADDRESS:PORT")]
    pub listen: Option<SocketAddr>,
}

/// `trunkline up`
#[derive(Clone, Debug, Default, Args)]
pub struct Up {
    /// Where HTTP listens.
    #[command(flatten)]
    pub http: Listen,
    /// Where the platform's own NATS listens; port 0 picks a free one [default: 127.0.0.1:4222]
    #[arg(long, env = "TRUNKLINE_NATS_LISTEN", value_name = "ADDRESS:PORT")]
    pub nats_listen: Option<SocketAddr>,
    /// The nats-server program [default: from PATH, or as `make nats` fetched it]
    #[arg(long, env = "TRUNKLINE_NATS_SERVER", value_name = "FILE")]
    pub nats_server: Option<PathBuf>,
    /// A file of remote servers that are registered at the start; those that are registered already stay as they are
    #[arg(long, value_name = "FILE")]
    pub bootstrap: Option<PathBuf>,
    /// Print the ready banner as JSON
    #[arg(long)]
    pub json: bool,
}

/// `trunkline serve`
#[derive(Clone, Debug, Args)]
pub struct Serve {
    /// Built-in servers (products), or ids from the configuration file
    #[arg(required = true, value_name = "SERVER")]
    pub servers: Vec<String>,
    /// Where metrics and health are served; port 0 picks a free one
    #[arg(
        long,
        env = "TRUNKLINE_METRICS_LISTEN",
        value_name = "ADDRESS:PORT",
        default_value = "127.0.0.1:0"
    )]
    pub metrics_listen: SocketAddr,
}

/// The doors.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Door {
    /// Streamable HTTP
    Http,
    /// Standard input and output
    Stdio,
    /// WebSocket
    Ws,
    /// Plain NATS clients
    Nats,
    /// No door: tells the broker which plain NATS clients come in
    Callout,
}

/// `trunkline bridge`
#[derive(Clone, Debug, Args)]
pub struct Bridge {
    /// Which door
    pub door: Door,
    /// Where HTTP listens.
    #[command(flatten)]
    pub http: Listen,
    /// Show this server only (stdio)
    #[arg(long, value_name = "SERVER")]
    pub server: Option<String>,
    /// Where metrics and health of a door without HTTP are served; port 0 picks a free one
    #[arg(
        long,
        env = "TRUNKLINE_METRICS_LISTEN",
        value_name = "ADDRESS:PORT",
        default_value = "127.0.0.1:0"
    )]
    pub metrics_listen: SocketAddr,
}

/// How an answer is printed.
#[derive(Clone, Copy, Debug, Args)]
pub struct Ask {
    /// Print JSON
    #[arg(long)]
    pub json: bool,
}

/// `trunkline servers`
#[derive(Clone, Debug, Args)]
#[command(args_conflicts_with_subcommands = true)]
pub struct Servers {
    /// What to do; without it they are listed.
    #[command(subcommand)]
    pub what: Option<ServersCommand>,
    /// How the answer is printed.
    #[command(flatten)]
    pub ask: Ask,
}

/// What is done with servers.
#[derive(Clone, Debug, Subcommand)]
pub enum ServersCommand {
    /// Register a remote server, or all that a file names
    #[command(after_help = add::EXAMPLES)]
    Add(Box<AddServer>),
    /// Remove a registered server
    Remove(NamedServer),
    /// Show all that is known of a server
    Show(NamedServer),
    /// Tell when a server becomes healthy, degraded or down
    Watch(Ask),
    /// Register the remote servers of an MCP registry, or the one of a server.json
    #[command(after_help = import::EXAMPLES)]
    Import(Box<Import>),
}

/// One server by its id.
#[derive(Clone, Debug, Args)]
pub struct NamedServer {
    /// Its id
    pub id: String,
    /// How the answer is printed.
    #[command(flatten)]
    pub ask: Ask,
}

/// `trunkline tools`
#[derive(Clone, Debug, Args)]
#[command(args_conflicts_with_subcommands = true)]
pub struct Tools {
    /// What to do; without it they are listed.
    #[command(subcommand)]
    pub what: Option<ToolsCommand>,
    /// Show this server's only
    #[arg(long, value_name = "SERVER")]
    pub server: Option<String>,
    /// Show those of servers with this tag only; with several, servers that have them all
    #[arg(long = "tag", value_name = "TAG")]
    pub tags: Vec<String>,
    /// Show what fits these words, the best first
    #[arg(long, value_name = "WORDS")]
    pub search: Option<String>,
    /// Show so many at most [default: 20 of a search, else all]
    #[arg(long, value_name = "N")]
    pub limit: Option<usize>,
    /// How the answer is printed.
    #[command(flatten)]
    pub ask: Ask,
}

/// What is done with tools.
#[derive(Clone, Debug, Subcommand)]
pub enum ToolsCommand {
    /// Show the tools that are not as they were approved, and what has changed
    Pending(Ask),
    /// Approve tools as they are now
    Approve(DecideTools),
    /// Reject tools as they are now; they are not called until they change or are approved
    Reject(DecideTools),
}

/// Which tools are decided over.
#[derive(Clone, Debug, Args)]
pub struct DecideTools {
    /// `<server>.<tool>`
    #[arg(value_name = "SERVER.TOOL", required_unless_present = "all")]
    pub tool: Option<String>,
    /// All tools of this server that wait for a decision
    #[arg(long, value_name = "SERVER", conflicts_with = "tool")]
    pub all: Option<String>,
    /// The digest that was looked at; a tool that has changed since is left as it is
    #[arg(long, value_name = "DIGEST", conflicts_with = "all")]
    pub digest: Option<String>,
    /// How the answer is printed.
    #[command(flatten)]
    pub ask: Ask,
}

/// `trunkline tail`
#[derive(Clone, Debug, Args)]
pub struct Tail {
    /// Tell what calls are given as well, which may be secret
    #[arg(long)]
    pub arguments: bool,
    /// How calls are printed.
    #[command(flatten)]
    pub ask: Ask,
}

/// `trunkline virtual`
#[derive(Clone, Debug, Args)]
pub struct Virtual {
    /// What to do.
    #[command(subcommand)]
    pub command: VirtualCommand,
}

/// What is done with virtual servers.
#[derive(Clone, Debug, Subcommand)]
pub enum VirtualCommand {
    /// Define one, from a file or from flags
    Add(VirtualAdd),
    /// Forget one
    Remove(VirtualId),
    /// Show those that are defined
    List(Ask),
    /// Show the definition of one
    Show(VirtualId),
}

/// `trunkline virtual add`
#[derive(Clone, Debug, Default, Args)]
pub struct VirtualAdd {
    /// A file with the definition as JSON; `-` reads it from standard input
    #[arg(value_name = "FILE", conflicts_with_all = ["tools", "prompts", "resources", "title", "description"])]
    pub file: Option<PathBuf>,
    /// Its id
    #[arg(long, value_name = "ID")]
    pub id: Option<String>,
    /// Its name for people
    #[arg(long, value_name = "TEXT")]
    pub title: Option<String>,
    /// What it is good for
    #[arg(long, value_name = "TEXT")]
    pub description: Option<String>,
    /// A tool, `*` stands for any text; with `=` the name that it gets
    #[arg(long = "tool", value_name = "SERVER.TOOL[=NAME]")]
    pub tools: Vec<String>,
    /// A prompt, in the same way
    #[arg(long = "prompt", value_name = "SERVER.PROMPT[=NAME]")]
    pub prompts: Vec<String>,
    /// A resource or resource template
    #[arg(long = "resource", value_name = "SERVER.URI")]
    pub resources: Vec<String>,
    /// Take the place of one that is there
    #[arg(long)]
    pub replace: bool,
}

/// Which virtual server.
#[derive(Clone, Debug, Args)]
pub struct VirtualId {
    /// Its id
    #[arg(value_name = "ID")]
    pub id: String,
}

/// `trunkline call`
#[derive(Clone, Debug, Args)]
pub struct Call {
    /// `<server>.<tool>`
    #[arg(value_name = "SERVER.TOOL")]
    pub tool: String,
    /// The arguments as a JSON object; `-` reads them from standard input
    #[arg(value_name = "JSON", default_value = "{}")]
    pub arguments: String,
    /// How long to wait, in seconds
    #[arg(long, value_name = "SECONDS", default_value_t = 300)]
    pub timeout: u64,
    /// How the answer is printed.
    #[command(flatten)]
    pub ask: Ask,
}

/// `trunkline keys`
#[derive(Clone, Debug, Args)]
pub struct Keys {
    /// What to do with them.
    #[command(subcommand)]
    pub command: KeysCommand,
}

/// What can be done with API keys.
#[derive(Clone, Debug, Subcommand)]
pub enum KeysCommand {
    /// Print a new key, which is shown only once, and the lines of the configuration that let it in
    New(NewKey),
}

/// `trunkline keys new`
#[derive(Clone, Debug, Args)]
pub struct NewKey {
    /// Who comes with it
    #[arg(long, value_name = "NAME")]
    pub subject: String,
    /// What it is in its organisation; may be given more than once
    #[arg(long = "role", value_name = "ROLE")]
    pub roles: Vec<String>,
    /// What it may do here; may be given more than once
    #[arg(long = "scope", value_name = "SCOPE")]
    pub scopes: Vec<Scope>,
    /// Print JSON
    #[arg(long)]
    pub json: bool,
}

/// `trunkline completions`
#[derive(Clone, Debug, Args)]
pub struct Completions {
    /// Which shell
    pub shell: clap_complete::Shell,
}
