//! `trunkline up`: the whole platform in one process.

use std::{path::Path, process::ExitCode};

use bridges::{front::Endpoint, http::Serves};
use bus_schema::{principal::DEFAULT_TENANT, registry::Declaration, subject::CallerClass};
use runtime::supervise::Status;
use serde_json::{Value, json};

use super::{bootstrap, output, reload, stopping::Stop};
use crate::{
    args,
    config::{Config, DEFAULT_DATA_DIR, ServerLine},
    fleet_file,
    node::{self, Adds, BUILT_IN, NatsChoice, Node, SERVICES},
};

pub(crate) async fn run(mut config: Config, up: args::Up) -> anyhow::Result<ExitCode> {
    config.listen = up.http.listen.unwrap_or(config.listen);
    config.nats_listen = up.nats_listen.unwrap_or(config.nats_listen);
    config.bootstrap = up.bootstrap.or(config.bootstrap);
    let fleet = match &config.bootstrap {
        Some(file) => fleet_file::read(file)?,
        None => Vec::new(),
    };
    let choice = match &config.nats {
        Some(url) => NatsChoice::Join(Some(url.clone())),
        None => node::own_nats(&config, up.nats_server),
    };
    let mut stop = Stop::listen()?;
    let mut node = tokio::select! {
        node = Node::connect(&config, CallerClass::Node, choice) => node?,
        () = stop.requested() => return Ok(ExitCode::SUCCESS),
    };
    let ended = tokio::select! {
        ended = serve(&mut node, &config, fleet, up.json) => ended,
        () = stop.requested() => Ok(()),
    };
    stop.unless_hurried(node.stop()).await;
    ended.map(|()| ExitCode::SUCCESS)
}

/// Starts everything, says so, and goes on until it is dropped.
async fn serve(node: &mut Node, config: &Config, fleet: Vec<Declaration>, json: bool) -> anyhow::Result<()> {
    start(node, config).await?;
    let registering = bootstrap::register(node.bus().clone(), config.clone(), fleet);
    let ready = ready(node, config).await?;
    if json {
        output::json(&ready)?;
    } else {
        banner(&ready);
    }
    let reloading = reload::keep(node, config.clone(), Adds::AllOfTheFile);
    let ((), never) = tokio::join!(registering, reloading);
    match never {}
}

/// Doors first: a port in use is known before anything slow is started, and a server that starts slowly keeps nobody from the others.
async fn start(node: &mut Node, config: &Config) -> anyhow::Result<()> {
    let configured = config.servers.iter().map(ServerLine::name);
    let names: Vec<String> = BUILT_IN
        .into_iter()
        .map(str::to_owned)
        .chain(configured)
        .collect();
    node.open_http(config, Serves::Everything).await?;
    node.open_nats(config).await?;
    if config.is_authenticated() && node.can_open_callout() {
        node.open_callout(config).await?;
    }
    let services: Vec<String> = SERVICES.into_iter().map(str::to_owned).collect();
    node.serve(config, &[services, names].concat()).await?;
    node.settled().await;
    Ok(())
}

/// What the banner says.
async fn ready(node: &mut Node, config: &Config) -> anyhow::Result<Value> {
    let fronts = node.fronts(config).await?;
    let base = node
        .http()
        .map(|address| format!("http://{address}"))
        .unwrap_or_default();
    let servers: Vec<Value> = node
        .servers()
        .map(|(id, status)| {
            let (tenant, id) = id.split_once('/').unwrap_or((DEFAULT_TENANT, id));
            let card = fronts
                .of(tenant)
                .zip(id.parse().ok())
                .and_then(|(front, id)| front.card(&Endpoint::Server(id)));
            let (state, error) = match status {
                Status::Up => ("up", None),
                Status::Starting => ("starting", None),
                Status::Failed(error) => ("failed", Some(error)),
                Status::Stopped => ("stopped", None),
            };
            let mut server = json!({
                "id": id, "status": state, "error": error, "url": format!("{base}/servers/{id}/mcp"),
                "tools": card.as_ref().map(|card| card.tools),
            });
            if tenant != DEFAULT_TENANT {
                server["tenant"] = tenant.into();
            }
            server
        })
        .collect();
    let joins = match (&config.nats, config.data_dir == Path::new(DEFAULT_DATA_DIR)) {
        (Some(_), _) => format!(" --nats {}", node.bus().url()),
        (None, true) => String::new(),
        (None, false) => format!(" --data-dir '{}'", config.data_dir.display()),
    };
    Ok(json!({
        "joins": joins,
        "http": base,
        "authentication": config.is_authenticated(),
        "mcp": format!("{base}/mcp"),
        "websocket": format!("{}/ws", base.replacen("http", "ws", 1)),
        "nats": node.bus().url(),
        "natsVersion": node.bus().server_version(),
        "servers": servers,
    }))
}

fn banner(ready: &Value) {
    let text = |key: &str| ready[key].as_str().unwrap_or_default().to_owned();
    output::line(&format!("\nTrunkline {} is up\n", env!("CARGO_PKG_VERSION")));
    if ready["authentication"] == false {
        output::line(
            "  AUTHENTICATION IS OFF: every program on this machine can call every tool; see docs/security.md\n",
        );
    }
    output::line(&format!("  MCP, all servers   {}", text("mcp")));
    output::line(&format!("  WebSocket          {}", text("websocket")));
    output::line(&format!(
        "  NATS               {} (nats-server {})",
        text("nats"),
        text("natsVersion")
    ));
    output::line(&format!(
        "  Health, metrics    {0}/healthz {0}/readyz {0}/metrics\n",
        text("http")
    ));
    let rows: Vec<Vec<String>> = ready["servers"]
        .as_array()
        .into_iter()
        .flatten()
        .map(|server| {
            let word = |key: &str| server[key].as_str().unwrap_or_default().to_owned();
            let tools = server["tools"]
                .as_u64()
                .map_or_else(|| "-".to_owned(), |tools| tools.to_string());
            let where_or_why = server["error"]
                .as_str()
                .map_or_else(|| word("url"), |error| output::short(error, 80));
            let id = match server["tenant"].as_str() {
                Some(tenant) => format!("{tenant}/{}", word("id")),
                None => word("id"),
            };
            vec![format!("  {id}"), word("status"), tools, where_or_why]
        })
        .collect();
    output::table(&["  SERVER", "STATUS", "TOOLS", "URL"], &rows);
    output::line("\nTry it:\n");
    let token = if ready["authentication"] == true {
        " -H \"Authorization: Bearer $TOKEN\""
    } else {
        ""
    };
    output::line(&format!("  curl -s {}{token} \\", text("mcp")));
    output::line(
        "    -H 'Content-Type: application/json' -H 'Accept: application/json, text/event-stream' \\",
    );
    output::line(
        "    -H 'MCP-Protocol-Version: 2026-07-28' -H 'Mcp-Method: tools/call' -H 'Mcp-Name: products__search' \\",
    );
    output::line(concat!(
        r#"    -d '{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":"products__search","arguments":{"query":"desk","limit":3},"#,
        r#""_meta":{"io.modelcontextprotocol/protocolVersion":"2026-07-28","io.modelcontextprotocol/clientCapabilities":{}}}}'"#
    ));
    output::line(&format!(
        "\n  trunkline call products.search '{{\"query\":\"desk\",\"limit\":3}}'{}     (in another terminal, same folder)\n",
        text("joins")
    ));
    output::line("Ctrl-C stops it.");
}
