//! `trunkline policy explain`: one question, its decision, and what led to it.

use std::{process::ExitCode, time::SystemTime};

use anyhow::{Context as _, bail};
use bus_schema::{
    Principal,
    card::NAME_SEPARATOR,
    policy::{Action, Annotations, Decision, Policy, explain},
};
use runtime::moment;
use serde_json::json;

use super::{decided, output};
use crate::args::PolicyExplain;

/// What is asked about, as it is written.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Subject {
    pub(super) tool: Option<String>,
    pub(super) prompt: Option<String>,
    pub(super) resource: Option<String>,
    pub(super) method: Option<String>,
    pub(super) admin: Option<String>,
    /// The arguments as JSON; `None` for any.
    pub(super) arguments: Option<String>,
    pub(super) annotations: Annotations,
}

impl Subject {
    pub(super) fn action(&self) -> anyhow::Result<Action<'_>> {
        let action = match (
            &self.tool,
            &self.prompt,
            &self.resource,
            &self.method,
            &self.admin,
        ) {
            (Some(tool), None, None, None, None) => {
                let (server, name) = split(tool)?;
                Action::tool(server, name)
            }
            (None, Some(prompt), None, None, None) => {
                let (server, name) = split(prompt)?;
                Action::prompt(server, name)
            }
            (None, None, Some(uri), None, None) => {
                let (server, uri) = split(uri)?;
                Action::resource(server, uri)
            }
            (None, None, None, Some(method), None) => {
                let (server, method) = split(method)?;
                Action::method(server, method)
            }
            (None, None, None, None, Some(action)) => Action::admin(action),
            _ => bail!("name one of tool, prompt, resource, method and admin"),
        };
        let action = action.with_annotations(self.annotations);
        Ok(match &self.arguments {
            Some(arguments) => action.with_arguments(arguments),
            None => action,
        })
    }
}

/// A server and what is named there, as `<server>.<name>` or `<server>__<name>`.
fn split(text: &str) -> anyhow::Result<(&str, &str)> {
    let prefixed = text
        .split_once(NAME_SEPARATOR)
        .filter(|(server, _)| !server.contains('.'));
    let split = prefixed.or_else(|| text.split_once('.'));
    let split = split.filter(|(server, name)| !server.is_empty() && !name.is_empty());
    split.with_context(|| format!("`{text}` names nothing; write <server>.<name>"))
}

/// A time as RFC 3339 spells it.
pub(super) fn time(text: &str) -> anyhow::Result<SystemTime> {
    moment::read(text).with_context(|| format!("`{text}` is no time; write it as 2026-11-23T09:00:00Z"))
}

pub(super) fn run(policy: &Policy, asked: &PolicyExplain, tenant: &str) -> anyhow::Result<ExitCode> {
    let subject = Subject {
        tool: asked.tool.clone(),
        prompt: asked.prompt.clone(),
        resource: asked.resource.clone(),
        method: asked.method.clone(),
        admin: asked.admin.clone(),
        arguments: asked.arguments.clone(),
        annotations: Annotations::default(),
    };
    let principal = Principal {
        roles: asked.roles.clone(),
        scopes: asked.scopes.clone(),
        ..Principal::new(&asked.subject, tenant)
    };
    let now = match &asked.at {
        Some(at) => time(at)?,
        None => SystemTime::now(),
    };
    let told = explain(policy, &principal, &subject.action()?, now);
    if asked.ask.json {
        let mut object = decided(&told.decision);
        object["found"] = json!(told.found);
        output::json(&object)?;
        return Ok(ExitCode::SUCCESS);
    }
    output::line(&match &told.decision {
        Decision::Allow => "allow".to_owned(),
        Decision::NeedsScopes(scopes) => format!("needs the scopes {}", scopes.join(" ")),
        Decision::Denied { rule } => format!("denied by rule `{rule}`"),
        Decision::Hidden => "hidden: it answers as what does not exist".to_owned(),
    });
    for found in &told.found {
        output::line(&format!("  {found}"));
    }
    Ok(ExitCode::SUCCESS)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_taken_apart_at_its_server() {
        for (text, expected) in [
            ("a.b", ("a", "b")),
            ("a__b", ("a", "b")),
            ("a.b__c", ("a", "b__c")),
            ("a.docs://x.y", ("a", "docs://x.y")),
            ("a__docs://x.y", ("a", "docs://x.y")),
        ] {
            assert_eq!(split(text).expect(text), expected);
        }
        for bad in ["", "a", ".b", "a."] {
            assert!(split(bad).is_err(), "{bad}");
        }
    }
}
