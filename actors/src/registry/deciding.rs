//! Who may have the registry change what: the policy decides here again, whatever a door or the command line has let through.

use std::time::SystemTime;

use bus_schema::{
    Principal, Request, RpcError,
    audit::{Kind, Record},
    block, guardrails, integrity,
    policy::{self, Action, Decision, Policy},
    registry::{self, Refusal},
    traffic, virtual_server,
};
use runtime::{Bus, policies::Policies};
use tracing::info;

use super::refused;

/// What a method changes, as policies name it; `None` for what is no method of the registry.
pub(super) fn action_of(method: &str) -> Option<&'static str> {
    Some(match method {
        registry::PUT | registry::REMOVE => "servers:write",
        integrity::APPROVE | integrity::REJECT => "tools:write",
        traffic::SET | traffic::CLEAR => "traffic:write",
        virtual_server::DEFINE | virtual_server::UNDEFINE => "virtual-servers:write",
        block::PUT | block::REMOVE => "blocks:write",
        policy::SET | policy::ROLLBACK => POLICY_WRITE,
        guardrails::SET | guardrails::ROLLBACK => "guardrails:write",
        _ => return None,
    })
}

const POLICY_WRITE: &str = "policy:write";

/// Lets a wish go on, or says why not and puts that on record.
pub(super) fn judge(
    bus: &Bus,
    policies: &Policies,
    request: &Request,
    action: &'static str,
) -> Result<(), RpcError> {
    let by = &request.principal;
    let decision = decided(policies.of(&by.tenant).policy(), by, action);
    if decision == Decision::Allow {
        return Ok(());
    }
    let rule = decision.rule().to_owned();
    info!(
        subject = by.subject,
        tenant = by.tenant,
        action,
        rule,
        "the policy refuses an operator's wish"
    );
    let record = Record::refused(Kind::Admin, &rule).of_request(request);
    let record = record.asking(action, None).because(request.method.clone());
    bus.audit().put(record);
    let (why, scopes) = match decision {
        Decision::NeedsScopes(scopes) => (format!("needs the scopes `{}`", scopes.join(" ")), scopes),
        Decision::Denied { rule } => (
            format!("is denied to `{}` by rule `{rule}`", by.subject),
            Vec::new(),
        ),
        _ => (
            format!("is for operators, and `{}` is none for that", by.subject),
            Vec::new(),
        ),
    };
    Err(refused(
        format!("the policy does not allow this: `{action}` {why}"),
        &Refusal::Forbidden { rule, scopes },
    ))
}

/// Refuses a policy under which its author could not write the next one: nobody might be left who can.
pub(super) fn leaves_a_way_back(by: &Principal, policy: &Policy) -> Result<(), String> {
    match decided(policy, by, POLICY_WRITE) {
        Decision::Allow => Ok(()),
        decision => Err(format!(
            "under this policy `{}` could not write the next one (`{POLICY_WRITE}` is decided `{}`); leave that open to yourself, or let \
             somebody write it to whom it is",
            by.subject,
            decision.rule()
        )),
    }
}

/// Where nobody is asked who they are, everybody operates the platform; what a rule denies is denied to them all the same.
fn decided(policy: &Policy, by: &Principal, action: &str) -> Decision {
    let action = Action::admin(action);
    match by.issuer {
        Some(_) => policy::decide(policy, by, &action, SystemTime::now()),
        None => policy::decide(policy, &policy.operated_by(by), &action, SystemTime::now()),
    }
}
