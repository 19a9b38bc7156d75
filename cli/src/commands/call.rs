//! `trunkline call`: one tool call from the command line, through the same front as every door.

use std::{io::Read as _, process::ExitCode, time::Duration};

use anyhow::{Context as _, bail};
use bridges::{
    front::{Caller, Endpoint, Front, Met, Step},
    request::Incoming,
};
use bus_schema::{
    Principal, ProtocolVersion, ServerId,
    mcp::{RpcError, meta, method},
    rpc::Message,
    subject::CallerClass,
};
use indicatif::{ProgressBar, ProgressStyle};
use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;

use super::{output, stopping::Stop};
use crate::{
    args,
    config::Config,
    node::{NatsChoice, Node},
};

pub(crate) async fn run(mut config: Config, call: args::Call) -> anyhow::Result<ExitCode> {
    let (server, tool) = call.tool.split_once('.').with_context(|| {
        format!(
            "`{}` is no tool; write <server>.<tool>, such as products.search",
            call.tool
        )
    })?;
    let server: ServerId = server.parse()?;
    let arguments = read_arguments(&call.arguments)?;
    config.call_timeout = Duration::from_secs(call.timeout.max(1));
    let mut stop = Stop::listen()?;
    let mut node = Node::connect(&config, CallerClass::Cli, NatsChoice::Join(config.nats.clone())).await?;
    let front = node.front(&config).await?;
    // Stopping drops the call, which cancels it at its host.
    let outcome = tokio::select! {
        outcome = ask(&front, server, tool, &arguments) => outcome,
        () = stop.requested() => Err(anyhow::anyhow!("cancelled")),
    };
    node.stop().await;
    print(&outcome?, call.ask)
}

fn read_arguments(text: &str) -> anyhow::Result<Value> {
    let mut input = String::new();
    let text = if text == "-" {
        std::io::stdin()
            .read_to_string(&mut input)
            .context("cannot read the arguments from standard input")?;
        input.as_str()
    } else {
        text
    };
    let arguments: Value =
        serde_json::from_str(text).with_context(|| format!("the arguments `{text}` are not JSON"))?;
    if !arguments.is_object() {
        bail!("the arguments `{text}` are not a JSON object; write them as '{{\"name\": \"value\"}}'");
    }
    Ok(arguments)
}

async fn ask(front: &Front, server: ServerId, tool: &str, arguments: &Value) -> anyhow::Result<Value> {
    let request = json!({
        "jsonrpc": "2.0", "id": 1, "method": method::TOOLS_CALL,
        "params": {
            "name": tool, "arguments": arguments,
            "_meta": {
                meta::PROTOCOL_VERSION: ProtocolVersion::MODERN.as_str(),
                meta::CLIENT_CAPABILITIES: {},
                meta::CLIENT_INFO: { "name": "trunkline-cli", "version": env!("CARGO_PKG_VERSION") },
                meta::PROGRESS_TOKEN: 1,
            },
        },
    });
    let incoming = Incoming::read(request.to_string().into()).map_err(|refused| refused.error)?;
    let caller = Caller {
        principal: Principal::developer_of(front.directory().tenant()),
        door: "cli",
        endpoint: Endpoint::Server(server),
        protocol_version: ProtocolVersion::MODERN,
        trace: None,
        staying: None,
        met: Met::default(),
        ending: CancellationToken::new(),
    };
    let mut answering = front.ask(&caller, &incoming).await;
    let bar =
        ProgressBar::no_length().with_style(ProgressStyle::with_template("{bar:30} {pos}/{len} {msg}")?);
    let last = loop {
        match answering.next().await {
            Step::Part(part) => show_progress(&bar, &part),
            Step::Final(last) => break last,
        }
    };
    bar.finish_and_clear();
    let message = Message::parse(&last.body)?;
    match (message.result, message.error) {
        (Some(result), _) => Ok(serde_json::from_str(result.get())?),
        (None, Some(error)) => {
            let error: RpcError = serde_json::from_str(error.get())?;
            bail!("{} (code {})", error.message, error.code)
        }
        (None, None) => bail!("the server's answer is no JSON-RPC response"),
    }
}

/// Shows progress on a terminal; elsewhere the bar draws nothing.
fn show_progress(bar: &ProgressBar, part: &[u8]) {
    let Ok(notification) = serde_json::from_slice::<Value>(part) else {
        return;
    };
    let params = &notification["params"];
    let whole = |key: &str| {
        params[key]
            .as_f64()
            .filter(|n| *n >= 0.0)
            .and_then(|n| format!("{n:.0}").parse::<u64>().ok())
    };
    if let Some(total) = whole("total") {
        bar.set_length(total);
    }
    if let Some(progress) = whole("progress") {
        bar.set_position(progress);
    }
    if let Some(message) = params["message"].as_str() {
        bar.set_message(message.to_owned());
    }
}

fn print(result: &Value, ask: args::Ask) -> anyhow::Result<ExitCode> {
    if ask.json {
        output::json(result)?;
    } else {
        for block in result["content"].as_array().into_iter().flatten() {
            match block["text"].as_str() {
                Some(text) => output::line(text),
                None => output::line(&format!("[{}]", block["type"].as_str().unwrap_or("content"))),
            }
        }
    }
    Ok(if result["isError"] == Value::Bool(true) {
        ExitCode::FAILURE
    } else {
        ExitCode::SUCCESS
    })
}
