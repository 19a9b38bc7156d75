//! A server written with rmcp, tested without a platform: what a client finds is what it would find through a door.

use std::sync::{
    Arc,
    atomic::{AtomicU32, Ordering},
};

use actors::products::Products;
use rmcp::{
    ClientHandler, ErrorData, RoleClient,
    model::{
        CallToolRequestParams, ClientCapabilities, ClientConfig, ElicitRequestParams, ElicitResult,
        ElicitationAction, ProgressNotificationParam, ReadResourceRequestParams,
    },
    service::{NotificationContext, RequestContext, RunningService},
};
use runtime::testing::connect;
use serde_json::{Value, json};
use tests::{
    fixture::{Fixture, Probe},
    within,
};

/// A client that says yes, and counts what it hears.
#[derive(Clone, Default)]
struct Agreeable {
    asked: Arc<AtomicU32>,
    progress: Arc<AtomicU32>,
}

impl ClientHandler for Agreeable {
    fn get_info(&self) -> ClientConfig {
        let mut info = ClientConfig::default();
        info.capabilities = ClientCapabilities::builder().enable_elicitation().build();
        info
    }

    async fn create_elicitation(
        &self,
        _request: ElicitRequestParams,
        _context: RequestContext<RoleClient>,
    ) -> Result<ElicitResult, ErrorData> {
        self.asked.fetch_add(1, Ordering::SeqCst);
        Ok(ElicitResult::new(ElicitationAction::Accept).with_content(json!({ "yes": true })))
    }

    async fn on_progress(
        &self,
        _params: ProgressNotificationParam,
        _context: NotificationContext<RoleClient>,
    ) {
        self.progress.fetch_add(1, Ordering::SeqCst);
    }
}

async fn call(client: &RunningService<RoleClient, Agreeable>, tool: &'static str, arguments: Value) -> Value {
    let arguments = arguments.as_object().cloned().unwrap_or_default();
    let params = CallToolRequestParams::new(tool).with_arguments(arguments);
    let answer = within("an answer", client.call_tool(params))
        .await
        .expect("an answer");
    serde_json::to_value(answer).expect("JSON")
}

#[tokio::test]
async fn a_client_in_process_finds_what_it_would_find_through_a_door() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let url = format!("sqlite://{}/products.db", folder.path().display());
    let products = Products::open(&url).await.expect("a catalogue");
    let user = Agreeable::default();
    let client = within("a connection", connect(products, user.clone()))
        .await
        .expect("connects");
    let tools = client.list_all_tools().await.expect("tools");
    let old = tools
        .iter()
        .find(|tool| tool.name == "find_products")
        .expect("the older form");
    assert!(
        old.description
            .as_ref()
            .is_some_and(|said| said.starts_with("Deprecated"))
    );
    let version = ReadResourceRequestParams::new(runtime::rmcp_host::VERSION_URI);
    assert_eq!(
        client
            .read_resource(version)
            .await
            .expect("a resource")
            .contents
            .len(),
        1
    );
    let found = call(&client, "search", json!({ "query": "desk" })).await;
    let sku = &found["structuredContent"]["items"][0]["sku"];
    let deleted = call(&client, "delete", json!({ "sku": sku })).await;
    assert_eq!(
        (
            &deleted["structuredContent"]["sku"],
            user.asked.load(Ordering::SeqCst)
        ),
        (sku, 1)
    );
    let gone = call(&client, "get", json!({ "sku": sku })).await;
    assert_eq!(gone["isError"], true);
}

#[tokio::test]
async fn progress_comes_and_a_client_that_goes_drops_its_calls() {
    let probe = Arc::<Probe>::default();
    let user = Agreeable::default();
    let client = connect(Fixture::new(Arc::clone(&probe)), user.clone())
        .await
        .expect("connects");
    call(&client, "progress", json!({ "n": 5 })).await;
    assert_eq!(user.progress.load(Ordering::SeqCst), 5);
    let holding = client.peer().clone();
    let held = tokio::spawn(async move { holding.call_tool(CallToolRequestParams::new("hold")).await });
    probe.held.begun.next("the call").await;
    within("the end", client.cancel()).await.expect("it ends");
    probe.held.dropped.next("the drop of the handler").await;
    assert!(
        within("the end of the call", held)
            .await
            .expect("no panic")
            .is_err()
    );
}
