//! `trunkline policy test`: a file of questions, each with the decision that is expected.

use std::{path::Path, process::ExitCode, time::SystemTime};

use anyhow::Context as _;
use bus_schema::{
    Principal,
    policy::{Annotations, Decision, Policy, explain},
};
use serde::Deserialize;
use serde_json::Value;

use super::{
    output,
    question::{Subject, time},
    read,
};

/// The file.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Cases {
    cases: Vec<Case>,
}

/// One question.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Case {
    name: Option<String>,
    subject: Option<String>,
    issuer: Option<String>,
    client: Option<String>,
    #[serde(default)]
    roles: Vec<String>,
    #[serde(default)]
    scopes: Vec<String>,
    tool: Option<String>,
    prompt: Option<String>,
    resource: Option<String>,
    method: Option<String>,
    admin: Option<String>,
    /// An object; without it the question is what a list shows.
    arguments: Option<Value>,
    /// What the server says of the tool, as it says it.
    annotations: Option<Value>,
    /// As RFC 3339; now without it.
    at: Option<String>,
    expect: Expected,
    /// The scopes that are to be asked for.
    needs: Option<Vec<String>>,
    /// The rule that is to deny it.
    rule: Option<String>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Expected {
    Allow,
    NeedsScopes,
    Denied,
    Hidden,
}

impl Case {
    fn label(&self, number: usize) -> String {
        let about = [
            &self.tool,
            &self.prompt,
            &self.resource,
            &self.method,
            &self.admin,
        ];
        let about = about.into_iter().flatten().next().cloned().unwrap_or_default();
        match &self.name {
            Some(name) => format!("{name} ({about})"),
            None => format!("case {number} ({about})"),
        }
    }

    fn is(&self, decision: &Decision) -> bool {
        match (self.expect, decision) {
            (Expected::Allow, Decision::Allow) | (Expected::Hidden, Decision::Hidden) => true,
            (Expected::NeedsScopes, Decision::NeedsScopes(scopes)) => {
                self.needs.as_ref().is_none_or(|needed| needed == scopes)
            }
            (Expected::Denied, Decision::Denied { rule }) => {
                self.rule.as_ref().is_none_or(|expected| expected == rule)
            }
            _ => false,
        }
    }
}

pub(super) fn run(policy: &Policy, file: &Path, tenant: &str) -> anyhow::Result<ExitCode> {
    let cases: Cases = read(file).with_context(|| format!("{} has no cases", file.display()))?;
    let mut failed = 0;
    for (at, case) in cases.cases.iter().enumerate() {
        let label = case.label(at + 1);
        let told = ask(policy, case, tenant).with_context(|| label.clone())?;
        if case.is(&told.decision) {
            continue;
        }
        failed += 1;
        output::line(&format!(
            "{label}: expected {:?}, decided {:?}",
            case.expect, told.decision
        ));
        for found in told.found {
            output::line(&format!("  {found}"));
        }
    }
    let all = cases.cases.len();
    output::line(&format!(
        "{} of {all} cases are decided as expected",
        all - failed
    ));
    Ok(if failed == 0 {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}

fn ask(policy: &Policy, case: &Case, tenant: &str) -> anyhow::Result<bus_schema::policy::Explanation> {
    let annotations = case.annotations.as_ref().map(|annotations| {
        let tool = serde_json::json!({ "annotations": annotations });
        Annotations::of_tool(&tool.to_string())
    });
    let subject = Subject {
        tool: case.tool.clone(),
        prompt: case.prompt.clone(),
        resource: case.resource.clone(),
        method: case.method.clone(),
        admin: case.admin.clone(),
        arguments: case.arguments.as_ref().map(Value::to_string),
        annotations: annotations.unwrap_or_default(),
    };
    let principal = Principal {
        issuer: case.issuer.clone(),
        client: case.client.clone(),
        roles: case.roles.clone(),
        scopes: case.scopes.clone(),
        ..Principal::new(case.subject.as_deref().unwrap_or("somebody"), tenant)
    };
    let now = match &case.at {
        Some(at) => time(at)?,
        None => SystemTime::now(),
    };
    Ok(explain(policy, &principal, &subject.action()?, now))
}
