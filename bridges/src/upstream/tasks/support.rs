//! Which tools of a server let their calls be tasks, as its list of tools says.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
};

use bus_schema::{
    RpcError,
    mcp::{meta, method},
};
use serde::Deserialize;
use serde_json::{json, value::RawValue};
use tokio::sync::OnceCell;
use tracing::warn;

use crate::{
    legacy::task::server::Support,
    upstream::{edit::Members, link::Link},
};

/// A list with more pages has no end.
const MAX_PAGES: usize = 1_000;

/// The tools whose calls may be tasks; empty until they are asked for.
type Known = Arc<OnceCell<HashMap<String, Support>>>;

/// What one conversation knows of the tools. A server may show each client others.
#[derive(Default)]
pub(in crate::upstream) struct Supports(Mutex<Known>);

impl Supports {
    /// The tools may have changed.
    pub(in crate::upstream) fn forget(&self) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Known::default();
    }

    fn known(&self) -> Known {
        Arc::clone(&self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl Link {
    /// Whether calls of a tool may be tasks. Of a tool that is not listed, or when the server shows no list, they may not.
    pub(super) async fn support(self: &Arc<Self>, tool: &str) -> Support {
        let known = self.supports.known();
        match known.get_or_try_init(|| listed(self)).await {
            Ok(tools) => tools.get(tool).copied().unwrap_or(Support::Forbidden),
            Err(error) => {
                warn!(%error, server.id = %self.server, "the server does not say which calls may be tasks");
                Support::Forbidden
            }
        }
    }
}

/// Asks a server for its list of tools.
async fn listed(link: &Arc<Link>) -> Result<HashMap<String, Support>, RpcError> {
    #[derive(Deserialize)]
    #[serde(rename_all = "camelCase")]
    struct Page<'a> {
        #[serde(borrow)]
        tools: Vec<&'a RawValue>,
        #[serde(borrow)]
        next_cursor: Option<&'a RawValue>,
    }
    let mut known = HashMap::new();
    let mut params = json!({});
    for _ in 0..MAX_PAGES {
        let result = link.ask(method::TOOLS_LIST, &params).await?;
        let page: Page<'_> =
            serde_json::from_str(result.get()).map_err(|error| RpcError::internal(error.to_string()))?;
        for tool in page.tools {
            let name = Members::of(tool).and_then(|tool| meta::as_text(tool.get("name")?));
            let support = Support::of(tool);
            if let (Some(name), true) = (name, support != Support::Forbidden) {
                known.insert(name.into_owned(), support);
            }
        }
        match page.next_cursor.and_then(meta::as_text) {
            Some(cursor) => params = json!({ "cursor": cursor }),
            None => return Ok(known),
        }
    }
    Err(RpcError::internal(format!(
        "the list of tools has more than {MAX_PAGES} pages"
    )))
}
