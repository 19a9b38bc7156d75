//! The servers on the bus: the fixture whose tools are called, and one with a thousand tools to list.

use std::{path::Path, sync::Arc};

use rmcp::{
    ErrorData, RoleServer, ServerHandler,
    model::{
        Implementation, ListToolsResult, PaginatedRequestParams, ServerCapabilities, ServerConfig, Tool,
    },
    service::RequestContext,
};
use runtime::{Host, HostOptions, policies::Configured, rmcp_host::RmcpServer};
use serde_json::json;
use tests::fixture;

use super::{connect, input_ended, ready};

/// The id of the server whose host asks a policy.
pub(crate) const GUARDED: &str = "guarded";
/// How many tools there are to list.
pub(crate) const TOOLS: usize = 1_000;

pub(super) async fn serve(nats: &str, guardrails: Option<&Path>) -> anyhow::Result<()> {
    let bus = connect(nats).await?;
    if let Some(file) = guardrails {
        let document = serde_json::from_slice(&std::fs::read(file)?)?;
        bus.guardrails().configure(document)?;
    }
    let called = fixture::serve(&bus, Arc::default(), |_| ()).await;
    let listed = Arc::new(RmcpServer::new(Listed(tools()?)));
    let listed = Host::start(bus.clone(), listed, HostOptions::new("listed".parse()?)).await?;
    ready(bus.instance(), std::process::id())?;
    input_ended().await;
    called.stop().await;
    listed.stop().await;
    bus.close().await;
    Ok(())
}

/// The fixture again, which asks a policy.
pub(super) async fn serve_guarded(nats: &str, policy: &Path) -> anyhow::Result<()> {
    let bus = connect(nats).await?;
    let configured = Configured {
        document: Some(serde_json::from_slice(&std::fs::read(policy)?)?),
        operator: None,
    };
    bus.policies().configure(configured).await?;
    let id = GUARDED.parse()?;
    let called = fixture::serve(&bus, Arc::default(), |options| options.id = id).await;
    ready(bus.instance(), std::process::id())?;
    input_ended().await;
    called.stop().await;
    bus.close().await;
    Ok(())
}

/// A server that is there to be listed.
#[derive(Clone)]
struct Listed(Arc<Vec<Tool>>);

impl ServerHandler for Listed {
    fn get_info(&self) -> ServerConfig {
        ServerConfig::new(ServerCapabilities::builder().enable_tools().build())
            .with_server_info(Implementation::new("listed", "1.0.0"))
    }

    async fn list_tools(
        &self,
        _request: Option<PaginatedRequestParams>,
        _context: RequestContext<RoleServer>,
    ) -> Result<ListToolsResult, ErrorData> {
        Ok(ListToolsResult::with_all_items(self.0.to_vec()))
    }
}

/// Tools of some 360 bytes each, as they come in practice.
fn tools() -> anyhow::Result<Arc<Vec<Tool>>> {
    let schema: rmcp::model::JsonObject = serde_json::from_value(json!({
        "type": "object",
        "properties": {
            "sku": { "type": "string", "description": "The product's stock keeping unit" },
            "limit": { "type": "integer", "minimum": 1, "maximum": 100 },
        },
        "required": ["sku"],
    }))?;
    let schema = Arc::new(schema);
    let tool = |n: usize| {
        let description = format!(
            "Looks up stock number {n}: finds every warehouse that holds the product, with its quantity and the day of the \
             next delivery."
        );
        Tool::new(format!("look_up_{n:04}"), description, Arc::clone(&schema))
    };
    Ok(Arc::new((0..TOOLS).map(tool).collect()))
}
