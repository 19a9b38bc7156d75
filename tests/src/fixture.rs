//! A server to call in tests: each tool does one thing that the platform promises to carry.

use std::sync::{
    Arc,
    atomic::{AtomicU32, Ordering},
};

use rmcp::{
    ErrorData, RoleServer, ServerHandler,
    handler::server::{router::tool::ToolRouter, wrapper::Parameters},
    model::{
        CallToolResult, ContentBlock, Implementation, ProgressNotificationParam, ServerCapabilities,
        ServerConfig,
    },
    schemars,
    service::RequestContext,
    tool, tool_handler, tool_router,
};
use runtime::{Bus, Host, HostOptions, rmcp_host::RmcpServer};
use serde::Deserialize;
use tokio::sync::{Notify, Semaphore};

use crate::within;

/// What a test sees of a fixture from outside its calls.
#[derive(Default)]
pub struct Probe {
    /// One permit for each `hold` that has begun.
    pub held: Held,
    /// Lets every `hold` go.
    pub release: Notify,
    /// How many `count` calls have been made.
    pub counted: AtomicU32,
    /// One permit for each `chatter` that has said everything.
    pub chattered: Counted,
}

/// Calls that have begun to hold, and calls that were dropped while they held.
#[derive(Default)]
pub struct Held {
    /// Those that have begun.
    pub begun: Counted,
    /// Those that were dropped before they were let go.
    pub dropped: Counted,
}

/// What has happened so often, and a test waits for; one permit for each time.
pub struct Counted(pub Semaphore);

impl Counted {
    /// It has happened once more.
    pub fn note(&self) {
        self.0.add_permits(1);
    }

    /// Waits until it has happened once more.
    ///
    /// # Panics
    /// When it does not, as [`within`].
    pub async fn next(&self, what: &str) {
        self.many(what, 1).await;
    }

    /// Waits until it has happened so often.
    ///
    /// # Panics
    /// When it does not, as [`within`].
    pub async fn many(&self, what: &str, times: u32) {
        let permits = within(what, self.0.acquire_many(times)).await;
        permits.expect("it is never closed").forget();
    }
}

impl Default for Counted {
    fn default() -> Self {
        Self(Semaphore::new(0))
    }
}

/// Notices that a call was dropped.
struct Holding(Arc<Probe>, bool);

impl Drop for Holding {
    fn drop(&mut self) {
        if !self.1 {
            self.0.held.dropped.note();
        }
    }
}

/// The server.
#[derive(Clone)]
pub struct Fixture {
    probe: Arc<Probe>,
    tool_router: ToolRouter<Self>,
}

/// `echo`
#[derive(Deserialize, schemars::JsonSchema)]
pub struct Echo {
    /// What comes back.
    pub text: String,
}

/// `progress` and `big`
#[derive(Deserialize, schemars::JsonSchema)]
pub struct Count {
    /// How many.
    pub n: u32,
}

/// `chatter`
#[derive(Deserialize, schemars::JsonSchema)]
pub struct Chatter {
    /// How often.
    pub n: u32,
    /// How many bytes each message has.
    pub bytes: u32,
}

#[tool_router]
impl Fixture {
    /// A fixture that a test watches through its probe.
    #[must_use]
    pub fn new(probe: Arc<Probe>) -> Self {
        Self {
            probe,
            tool_router: Self::tool_router(),
        }
    }

    /// Gives the text back.
    #[tool(annotations(read_only_hint = true))]
    async fn echo(&self, Parameters(echo): Parameters<Echo>) -> Result<CallToolResult, ErrorData> {
        Ok(CallToolResult::success(vec![ContentBlock::text(echo.text)]))
    }

    /// Gives back how long the text is.
    #[tool(annotations(read_only_hint = true))]
    async fn measure(&self, Parameters(echo): Parameters<Echo>) -> Result<CallToolResult, ErrorData> {
        Ok(CallToolResult::success(vec![ContentBlock::text(
            echo.text.len().to_string(),
        )]))
    }

    /// Gives n bytes.
    #[tool(annotations(read_only_hint = true))]
    async fn big(&self, Parameters(count): Parameters<Count>) -> Result<CallToolResult, ErrorData> {
        Ok(CallToolResult::success(vec![ContentBlock::text(
            "x".repeat(count.n as usize),
        )]))
    }

    /// Counts calls; not to be repeated.
    #[tool]
    async fn count(&self) -> Result<CallToolResult, ErrorData> {
        let n = self.probe.counted.fetch_add(1, Ordering::SeqCst) + 1;
        Ok(CallToolResult::success(vec![ContentBlock::text(n.to_string())]))
    }

    /// Reports progress n times.
    #[tool(annotations(read_only_hint = true))]
    async fn progress(
        &self,
        Parameters(count): Parameters<Count>,
        context: RequestContext<RoleServer>,
    ) -> Result<CallToolResult, ErrorData> {
        if let Some(token) = context.meta.get_progress_token() {
            for n in 1..=count.n {
                let param = ProgressNotificationParam::new(token.clone(), f64::from(n))
                    .with_total(f64::from(count.n));
                let _ = context.peer.notify_progress(param).await;
            }
        }
        Ok(CallToolResult::success(vec![ContentBlock::text("done")]))
    }

    /// Reports progress n times, at length.
    #[tool]
    async fn chatter(
        &self,
        Parameters(chatter): Parameters<Chatter>,
        context: RequestContext<RoleServer>,
    ) -> Result<CallToolResult, ErrorData> {
        if let Some(token) = context.meta.get_progress_token() {
            for n in 1..=chatter.n {
                let param = ProgressNotificationParam::new(token.clone(), f64::from(n))
                    .with_message("x".repeat(chatter.bytes as usize));
                let _ = context.peer.notify_progress(param).await;
            }
        }
        self.probe.chattered.note();
        Ok(CallToolResult::success(vec![ContentBlock::text("done")]))
    }

    /// Waits until the test lets it go.
    #[tool]
    async fn hold(&self) -> Result<CallToolResult, ErrorData> {
        self.wait().await
    }

    /// Waits until the test lets it go, and may be repeated.
    #[tool(annotations(read_only_hint = true))]
    async fn hold_safe(&self) -> Result<CallToolResult, ErrorData> {
        self.wait().await
    }

    /// Panics.
    #[tool]
    async fn panic(&self) -> Result<CallToolResult, ErrorData> {
        panic!("the test asked for it")
    }

    async fn wait(&self) -> Result<CallToolResult, ErrorData> {
        let mut holding = Holding(Arc::clone(&self.probe), false);
        let released = self.probe.release.notified();
        self.probe.held.begun.note();
        released.await;
        holding.1 = true;
        Ok(CallToolResult::success(vec![ContentBlock::text("released")]))
    }
}

#[tool_handler(router = self.tool_router)]
impl ServerHandler for Fixture {
    fn get_info(&self) -> ServerConfig {
        ServerConfig::new(ServerCapabilities::builder().enable_tools().build())
            .with_server_info(Implementation::new("fixture", "1.0.0"))
    }
}

/// Puts a fixture on the bus under the id `fixture`.
///
/// # Panics
/// When it does not start.
pub async fn serve(bus: &Bus, probe: Arc<Probe>, adjust: impl FnOnce(&mut HostOptions)) -> Host {
    let mut options = HostOptions::new("fixture".parse().expect("an id"));
    adjust(&mut options);
    let server = Arc::new(RmcpServer::new(Fixture::new(probe)));
    Host::start(bus.clone(), server, options)
        .await
        .expect("the fixture starts")
}
