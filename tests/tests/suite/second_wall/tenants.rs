//! Two tenants on one broker: an account for each, and nothing passes between them.

use bus_schema::{subject, subject::CallerClass};
use runtime::nats_server::Clients;
use serde_json::json;
use tests::{forger::Forger, issuer::Issuer, nats::Nats};

use super::{callout::joined, tool, tool_of};

#[tokio::test]
async fn two_tenants_neither_reach_nor_hear_each_other() {
    let nats = Nats::start_for(Clients::Callout, &["acme"]).await;
    let issuer = Issuer::start().await;
    let node = joined(&nats, &issuer, "tenants = [\"acme\"]\n").await;
    let token = |subject: &str, tenant: &str| {
        issuer.token(
            subject,
            "trunkline",
            json!({ "tenant": tenant, "scope": "who:all" }),
        )
    };
    assert!(
        Forger::enter_by(nats.url(), &token("eve", "nobody"))
            .await
            .is_err(),
        "a tenant that is not here comes in"
    );
    let mut ours = Forger::enter_by(nats.url(), &token("ann", "default"))
        .await
        .expect("it comes in");
    let mut theirs = Forger::enter_by(nats.url(), &token("eve", "acme"))
        .await
        .expect("it comes in");
    let mut door = Forger::enter(&nats.url_of(CallerClass::Bridge))
        .await
        .expect("it comes in");
    assert!(
        door.subscribe(&subject::all_public_calls(), Some(subject::QUEUE_GROUP))
            .await
    );
    for name in ["whoami", "other"] {
        assert!(!theirs.publish(&tool("whoami", name), None, b"across").await);
        assert!(
            !ours
                .publish(&tool_of("acme", "whoami", name), None, b"across")
                .await
        );
    }
    // Inboxes of one name are two in two accounts, were they even granted.
    assert!(!theirs.subscribe("_INBOX.>", None).await);
    assert_eq!(door.everything().await, "");
    node.0.stop().await;
}

/// The accounts themselves keep tenants apart, for users that an operator makes without grants of ours.
#[tokio::test]
async fn an_account_imports_the_calls_of_its_own_tenant_only() {
    let nats = Nats::start_for(Clients::Callout, &["acme"]).await;
    let accounts =
        std::fs::read_to_string(nats.data_dir().join("nats/nats.d/tenants.conf")).expect("it is written");
    assert!(
        accounts.contains("TENANT_acme") && accounts.contains("mcp.pub.acme.>"),
        "{accounts}"
    );
    // Each imports the calls of its tenant, and offers its hooks to the platform.
    assert_eq!(accounts.matches("service").count(), 4, "{accounts}");
    assert_eq!(accounts.matches("accounts: [CORE]").count(), 2, "{accounts}");
}
