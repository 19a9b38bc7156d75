//! `trunkline credentials`: which users have connected accounts at servers, and what is to be forgotten of that.

use std::process::ExitCode;

use anyhow::{Context as _, bail};
use bridges::upstream::remote::{Account, Accounts, Forgotten, Revocation, Which};
use bus_schema::subject::CallerClass;
use serde_json::json;

use super::output;
use crate::{
    args::{Credentials, CredentialsCommand, ForgetCredentials, ListCredentials, WhoseCredentials},
    config::Config,
    node::{NatsChoice, Node},
};

pub(crate) async fn run(config: Config, credentials: Credentials) -> anyhow::Result<ExitCode> {
    let Some(options) = config.connections()? else {
        bail!(
            "[credentials] of the configuration has no key, without which users' credentials cannot be read; use the configuration of \
             the processes that serve them"
        );
    };
    let node = Node::connect(&config, CallerClass::Cli, NatsChoice::Join(config.nats.clone())).await?;
    let opened = Accounts::open(node.bus(), &options.keys).await;
    let done = match opened.context("users' credentials cannot be read") {
        Ok(accounts) => obey(&accounts, &config.tenant, credentials.what).await,
        Err(error) => Err(error),
    };
    node.stop().await;
    done.map(|()| ExitCode::SUCCESS)
}

async fn obey(accounts: &Accounts, tenant: &str, what: CredentialsCommand) -> anyhow::Result<()> {
    match what {
        CredentialsCommand::List(ListCredentials { server, whose, ask }) => {
            let listed = accounts.list(tenant, &which(server.as_deref(), whose)?).await?;
            match ask.json {
                true => output::json(&json!({ "credentials": listed })),
                false => {
                    let rows: Vec<_> = listed.iter().map(row).collect();
                    output::table(
                        &["SERVER", "USER", "ISSUER", "CONNECTED", "TOKEN ENDS", "RENEWED"],
                        &rows,
                    );
                    Ok(())
                }
            }
        }
        CredentialsCommand::Forget(ForgetCredentials { server, whose, ask }) => {
            let forgotten = accounts.forget(tenant, &which(Some(&server), whose)?).await?;
            if forgotten.is_empty() {
                bail!("no account at server `{server}` is connected, of those that are meant");
            }
            if ask.json {
                return output::json(&json!({ "forgotten": forgotten }));
            }
            for one in &forgotten {
                output::line(&said(one));
            }
            Ok(())
        }
    }
}

fn which(server: Option<&str>, whose: WhoseCredentials) -> anyhow::Result<Which> {
    Ok(Which {
        server: server.map(str::parse).transpose()?,
        subject: whose.user,
        issuer: whose.issuer,
    })
}

fn row(account: &Account) -> Vec<String> {
    let said = |text: &Option<String>| text.clone().unwrap_or_default();
    vec![
        account.server.clone(),
        said(&account.subject),
        said(&account.issuer),
        said(&account.connected_at),
        said(&account.expires_at),
        if account.renews { "yes" } else { "no" }.to_owned(),
    ]
}

fn said(forgotten: &Forgotten) -> String {
    let account = &forgotten.account;
    let user = account.subject.as_deref().unwrap_or("somebody");
    let issuer = account.granted_by.as_deref().unwrap_or("its issuer");
    let reason = forgotten.reason.as_deref().unwrap_or_default();
    let done = match forgotten.revocation {
        Revocation::Revoked => format!("{issuer} has taken the token back"),
        Revocation::Unsupported => format!("the token still counts at {issuer}: {reason}"),
        Revocation::Failed => {
            format!("the token may still count at {issuer}, which was asked to take it back: {reason}")
        }
    };
    format!(
        "the account of {user} at server `{}` is forgotten; {done}",
        account.server
    )
}
