//! `trunkline servers add`: registers a remote server, or all that a file names.

use anyhow::{Context as _, bail};
use bridges::{admin::Private, upstream::remote::RemoteOptions};
use bus_schema::{
    registry::{Auth, Connect, Declaration, Over, Put, Was},
    upstream::{BreakerKnob, RetryKnob},
};
use runtime::Bus;
use serde_json::{Value, json};

use super::output;
use crate::{
    args::{AddServer, ConnectFlags, LimitFlags},
    config::Config,
    fleet_file,
    node::Node,
};

pub(super) async fn run(node: &Node, config: &Config, add: AddServer) -> anyhow::Result<()> {
    let declarations = match &add.file {
        Some(path) => fleet_file::read(path)?,
        None => vec![declared(&add)?],
    };
    let over = if add.replace {
        Over::Anything
    } else {
        Over::Nothing
    };
    let mut all = Vec::with_capacity(declarations.len());
    for declaration in declarations {
        let (id, url) = (declaration.id.clone(), declaration.url.clone());
        let was = register(node.bus(), config, declaration, over).await?;
        if !add.ask.json {
            let done = match was {
                Was::New => "registered",
                Was::Changed => "replaced",
                Was::Same => "has already",
            };
            output::line(&format!("{done} server `{id}` at {url}"));
        }
        all.push(json!({ "id": id, "was": was }));
    }
    if add.ask.json {
        output::json(&all)?;
    }
    Ok(())
}

/// Registers one server, after all that can be judged here has been.
pub(in crate::commands) async fn register(
    bus: &Bus,
    config: &Config,
    declaration: Declaration,
    over: Over,
) -> anyhow::Result<Was> {
    let id = declaration.id.clone();
    judge(config, &declaration).with_context(|| format!("server `{id}` cannot be registered"))?;
    let written = bus.register(&config.operator(), &Put { declaration, over }).await;
    let written = written.with_context(|| format!("server `{id}` was not registered"))?;
    for place in written.entry.declaration.hidden() {
        output::warn(&format!(
            "server `{id}` has {} at {} that nobody sees",
            place.characters.join(" "),
            place.path.escape_debug()
        ));
    }
    Ok(written.was)
}

/// Finds what of a declaration cannot be used, as far as that can be told here.
pub(in crate::commands) fn judge(config: &Config, declaration: &Declaration) -> anyhow::Result<()> {
    declaration.check()?;
    if declaration.allow_private && config.private() == Private::Refused {
        bail!(
            "servers at private addresses may not be registered here; allow_private = true under [registry] allows it"
        );
    }
    Ok(RemoteOptions::check_declared(declaration)?)
}

fn declared(add: &AddServer) -> anyhow::Result<Declaration> {
    let (Some(id), Some(url)) = (&add.id, &add.url) else {
        bail!("an id and a URL are needed: trunkline servers add weather https://weather.example.com/mcp");
    };
    let knob = |name: &str, text: &str| -> anyhow::Result<Value> {
        let known = match name {
            "era" => ["auto", "legacy", "modern"].as_slice(),
            "credentials" => ["platform", "user"].as_slice(),
            _ => ["auto", "http", "sse", "ws"].as_slice(),
        };
        if !known.contains(&text) {
            bail!("--{name} is `{text}`; use one of {}", known.join(", "));
        }
        Ok(json!(text))
    };
    let mut headers = serde_json::Map::new();
    for header in &add.headers {
        let (name, value) = header
            .split_once(':')
            .with_context(|| format!("--header is `{header}`; write \"Name: value\""))?;
        headers.insert(name.trim().to_owned(), json!(value.trim()));
    }
    let (limits, usual) = (&add.limits, Declaration::new(id.parse()?, url));
    Ok(Declaration {
        name: add.name.clone(),
        title: add.title.clone(),
        description: add.description.clone(),
        transport: serde_json::from_value(knob("transport", &add.transport)?)?,
        era: serde_json::from_value(knob("era", &add.era)?)?,
        version: add.server_version.clone(),
        tags: add.tags.clone(),
        auth: auth(add),
        credentials: serde_json::from_value(knob("credentials", &add.credentials)?)?,
        connect: connect(&add.connect),
        headers: serde_json::from_value(Value::Object(headers))?,
        allow_private: add.allow_private,
        health_url: add.health_url.clone(),
        owner: add.owner.clone(),
        replicas: add.replicas,
        max_in_flight: limits.max_in_flight.unwrap_or(usual.max_in_flight),
        call_timeout_ms: limits.call_timeout_ms,
        breaker: breaker(limits),
        retry: retry(limits),
        ..usual
    })
}

/// How the platform is let in. The command line takes all of the client's credentials or none.
fn auth(add: &AddServer) -> Auth {
    let oauth = &add.oauth;
    match &oauth.client_id {
        Some(client_id) => Auth::Oauth2 {
            token_endpoint: oauth.token_endpoint.clone(),
            issuer: oauth.issuer.clone(),
            client_id: client_id.clone(),
            client_secret_env: oauth.client_secret_env.clone(),
            client_secret_name: oauth.client_secret_name.clone(),
            scopes: oauth.scopes.clone(),
        },
        None if add.bearer_env.is_some() || add.bearer_name.is_some() => Auth::Bearer {
            token_env: add.bearer_env.clone(),
            token_name: add.bearer_name.clone(),
        },
        None => Auth::None,
    }
}

/// How users connect, where a flag says something of that.
fn connect(flags: &ConnectFlags) -> Option<Connect> {
    let connect = Connect {
        issuer: flags.issuer.clone(),
        client_id: flags.client_id.clone(),
        client_secret_env: flags.client_secret_env.clone(),
        client_secret_name: flags.client_secret_name.clone(),
        scopes: flags.scopes.clone(),
    };
    (connect != Connect::default()).then_some(connect)
}

fn breaker(limits: &LimitFlags) -> BreakerKnob {
    let usual = BreakerKnob::default();
    BreakerKnob {
        failures: limits.breaker_failures.unwrap_or(usual.failures),
        within_secs: limits.breaker_within_secs.unwrap_or(usual.within_secs),
        open_secs: limits.breaker_open_secs.unwrap_or(usual.open_secs),
    }
}

fn retry(limits: &LimitFlags) -> RetryKnob {
    let usual = RetryKnob::default();
    RetryKnob {
        attempts: limits.retry_attempts.unwrap_or(usual.attempts),
        backoff_ms: limits.retry_backoff_ms.unwrap_or(usual.backoff_ms),
    }
}
