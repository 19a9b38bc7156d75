//! The server itself: its tools, and the one place where all it offers meets rmcp's [`ServerHandler`]. A tool checks its
//! arguments, asks the store and returns; what it returns is both structured content and the same JSON as text.

use std::sync::Arc;
use std::time::Duration;

use rmcp::handler::server::router::prompt::PromptRouter;
use rmcp::handler::server::router::tool::ToolRouter;
use rmcp::handler::server::tool::{IntoCallToolResult as _, schema_for_output};
use rmcp::handler::server::wrapper::{Json, Parameters};
use rmcp::model::{
    CallToolResponse, CompleteRequestParams, CompleteResult, Implementation, ListResourceTemplatesResult,
    ListResourcesResult, PaginatedRequestParams, ProgressNotificationParam, ReadResourceRequestParams,
    ReadResourceResponse, ServerCapabilities, ServerConfig,
};
use rmcp::service::RequestContext;
use rmcp::{ErrorData, RoleServer, ServerHandler};
use rmcp::{prompt_handler, tool, tool_handler, tool_router};
use runtime::elicit::{Confirmation, User, yes_or_no};
use runtime::rmcp_host::{deprecated, tool_version};
use schemars::JsonSchema;
use serde::Serialize;

use super::arguments::{
    AdjustStockArguments, CreateArguments, DeleteArguments, FindArguments, GetArguments, NoArguments,
    ReindexArguments, SearchArguments, UpdateArguments,
};
use super::error::ProductsError;
use super::index::{Progress, Rebuild, RebuildReport};
use super::product::{self, Category, MAX_AMOUNT, Product, ProductDetails, Sku};
use super::search::{self, Page};
use super::store::Store;
use super::{completion, resources};
use crate::exports::Datasets;

const INSTRUCTIONS: &str = "\
A product catalogue with stock. Find products with `search` (start with `list_categories` when you do not know what \
there is), read one with `get`, and name it by its SKU everywhere. Prices are in minor units: 1999 is 19.99. Change \
products with `update`, and stock only with `adjust_stock`; `delete` asks the user first. `reindex` is maintenance: searches never need it.";

/// The products server: tools, resources, prompts and completions over one catalogue. Cloning it is cheap.
#[derive(Clone)]
pub struct Products {
    pub(super) store: Store,
    tool_router: Arc<ToolRouter<Self>>,
    prompt_router: Arc<PromptRouter<Self>>,
}

impl Products {
    /// Opens the catalogue at `database_url`: `sqlite:///path/to/products.db`, made if missing in a folder that exists, or
    /// `postgres://user@host/database`. Brings its tables up to date and seeds it when it is empty.
    ///
    /// # Errors
    ///
    /// When the URL is neither of the two, the database cannot be reached, or its tables do not fit this program.
    pub async fn open(database_url: &str) -> Result<Self, ProductsError> {
        Ok(Self {
            store: Store::open(database_url).await?,
            tool_router: Arc::new(Self::tool_router()),
            prompt_router: Arc::new(Self::prompts()),
        })
    }

    /// What can be exported of the catalogue.
    #[must_use]
    pub fn datasets(&self) -> Datasets {
        self.store.datasets()
    }
}

/// The categories of the catalogue.
#[derive(Debug, Serialize, JsonSchema)]
struct Categories {
    /// All categories in alphabetical order.
    categories: Vec<Category>,
}

#[tool_router]
impl Products {
    #[tool(
        title = "Search products",
        description = "Searches the catalogue and returns one page of products with how many match in all. \
            Combine words with filters for category, price and availability; without arguments it \
            lists everything. Products just created or changed are found at once. For the next page, \
            call again with the same arguments and the `next_cursor` as `cursor`.",
        meta = tool_version("2.0"),
        annotations(
            read_only_hint = true,
            destructive_hint = false,
            idempotent_hint = true,
            open_world_hint = false
        )
    )]
    async fn search(
        &self,
        Parameters(wanted): Parameters<SearchArguments>,
    ) -> Result<Json<Page>, ProductsError> {
        self.store.search(&wanted).await.map(Json)
    }

    #[tool(
        title = "Find products",
        description = "Returns the first 20 products that contain all the words, and how many there are.",
        meta = deprecated("0.1.0", "search", "0.3.0"),
        annotations(
            read_only_hint = true,
            destructive_hint = false,
            idempotent_hint = true,
            open_world_hint = false
        )
    )]
    async fn find_products(
        &self,
        Parameters(wanted): Parameters<FindArguments>,
    ) -> Result<Json<Page>, ProductsError> {
        let wanted = SearchArguments {
            query: Some(wanted.text),
            limit: search::DEFAULT_LIMIT,
            ..SearchArguments::default()
        };
        let page = self.store.search(&wanted).await?;
        // It never had pages, and its callers know no cursor.
        Ok(Json(Page {
            next_cursor: None,
            ..page
        }))
    }

    #[tool(
        title = "Get a product",
        description = "Returns one product by its SKU, with its latest movements of stock.",
        annotations(
            read_only_hint = true,
            destructive_hint = false,
            idempotent_hint = true,
            open_world_hint = false
        )
    )]
    async fn get(
        &self,
        Parameters(wanted): Parameters<GetArguments>,
    ) -> Result<Json<ProductDetails>, ProductsError> {
        self.store.details(&Sku::parse(&wanted.sku)?).await.map(Json)
    }

    #[tool(
        title = "List categories",
        description = "Returns the names of all categories and how many products each holds.",
        annotations(
            read_only_hint = true,
            destructive_hint = false,
            idempotent_hint = true,
            open_world_hint = false
        )
    )]
    async fn list_categories(
        &self,
        Parameters(NoArguments {}): Parameters<NoArguments>,
    ) -> Result<Json<Categories>, ProductsError> {
        let categories = self.store.categories().await?;
        Ok(Json(Categories { categories }))
    }

    #[tool(
        title = "Create a product",
        description = "Adds a product to the catalogue and returns it. Without a `sku` it gets a new one, so \
            calling again adds another product; with a `sku` that is taken the call fails.",
        annotations(
            read_only_hint = false,
            destructive_hint = false,
            idempotent_hint = false,
            open_world_hint = false
        )
    )]
    async fn create(
        &self,
        Parameters(wanted): Parameters<CreateArguments>,
    ) -> Result<Json<Product>, ProductsError> {
        self.store.create(wanted.try_into()?).await.map(Json)
    }

    #[tool(
        title = "Update a product",
        description = "Changes the given fields of a product and returns it; all other fields stay. Send \
            `expected_version`, from `get` or `search`, to change only what you have seen. The stock \
            is changed with `adjust_stock`.",
        annotations(
            read_only_hint = false,
            destructive_hint = true,
            idempotent_hint = true,
            open_world_hint = false
        )
    )]
    async fn update(
        &self,
        Parameters(wanted): Parameters<UpdateArguments>,
    ) -> Result<Json<Product>, ProductsError> {
        let sku = Sku::parse(&wanted.sku)?;
        let expected_version = wanted.expected_version;
        if expected_version.is_some_and(|version| version < 1) {
            return Err(ProductsError::bad_value("expected_version", "must be at least 1"));
        }
        self.store
            .update(&sku, wanted.try_into()?, expected_version)
            .await
            .map(Json)
    }

    #[tool(
        title = "Adjust stock",
        description = "Adds to the stock of a product, or takes from it with a negative `delta`, and returns \
            the product. The stock never falls below zero: a sale of more than there is fails and \
            changes nothing. Every call counts, so do not repeat one that may have succeeded without \
            reading the product first.",
        annotations(
            read_only_hint = false,
            destructive_hint = false,
            idempotent_hint = false,
            open_world_hint = false
        )
    )]
    async fn adjust_stock(
        &self,
        Parameters(wanted): Parameters<AdjustStockArguments>,
    ) -> Result<Json<Product>, ProductsError> {
        let sku = Sku::parse(&wanted.sku)?;
        let reason = product::text("reason", &wanted.reason, 200)?;
        if wanted.delta == 0 || !(-MAX_AMOUNT..=MAX_AMOUNT).contains(&wanted.delta) {
            let problem = format!("must not be 0 and at most {MAX_AMOUNT} either way");
            return Err(ProductsError::bad_value("delta", problem));
        }
        self.store
            .adjust_stock(&sku, wanted.delta, reason)
            .await
            .map(Json)
    }

    #[tool(
        title = "Delete a product",
        description = "Takes a product out of the catalogue for good, with its movements of stock, and returns it as it \
            was. The user is asked first; where the client cannot ask, send `confirm`: true once the user has agreed.",
        output_schema = schema_for_output::<Product>(),
        annotations(
            read_only_hint = false,
            destructive_hint = true,
            idempotent_hint = false,
            open_world_hint = false
        )
    )]
    async fn delete(
        &self,
        Parameters(wanted): Parameters<DeleteArguments>,
        user: User,
    ) -> Result<CallToolResponse, ProductsError> {
        let product = self.store.get(&Sku::parse(&wanted.sku)?).await?;
        let what = product.described();
        match user.confirm(&format!("Delete {what} for good?"), yes_or_no("Delete it")) {
            Confirmation::Ask(question) => return Ok(question.into()),
            Confirmation::Declined => return Err(ProductsError::NotConfirmed { sku: product.sku }),
            Confirmation::CannotAsk if !wanted.confirm => {
                return Err(ProductsError::NeedsConfirmation { what });
            }
            Confirmation::CannotAsk | Confirmation::Confirmed(_) => {}
        }
        self.store.delete(&product).await?;
        Ok(Json(product).into_call_tool_result().expect("a product is JSON"))
    }

    #[tool(
        title = "Rebuild the search index",
        description = "Rebuilds the search index from the catalogue, batch by batch, and switches to it at the \
            end. Searches and edits go on meanwhile. Reports progress after every batch; when \
            cancelled, the index in use stays as it is. Takes as long as the catalogue is large, \
            longer with `pause_ms`.",
        annotations(
            read_only_hint = false,
            destructive_hint = false,
            idempotent_hint = true,
            open_world_hint = false
        )
    )]
    async fn reindex(
        &self,
        Parameters(wanted): Parameters<ReindexArguments>,
        context: RequestContext<RoleServer>,
    ) -> Result<Json<RebuildReport>, ProductsError> {
        wanted.check()?;
        tokio::select! {
            biased;
            () = context.ct.cancelled() => Err(ProductsError::Cancelled),
            report = rebuild(&self.store, &wanted, &context) => report.map(Json),
        }
    }
}

/// Runs a rebuild to its end. The caller may drop it between any two steps.
async fn rebuild(
    store: &Store,
    wanted: &ReindexArguments,
    context: &RequestContext<RoleServer>,
) -> Result<RebuildReport, ProductsError> {
    let mut rebuild = Rebuild::start(store, wanted.batch_size).await?;
    while let Some(progress) = rebuild.next_batch().await? {
        report_progress(context, progress).await;
        if progress.done < progress.total {
            tokio::time::sleep(Duration::from_millis(wanted.pause_ms)).await;
        }
    }
    rebuild.finish().await
}

/// Tells the caller how far the work is, if it asked to be told.
async fn report_progress(context: &RequestContext<RoleServer>, progress: Progress) {
    let Some(token) = context.meta.get_progress_token() else {
        return;
    };
    let Progress { done, total } = progress;
    let notification = ProgressNotificationParam::new(token, done as f64)
        .with_total(total as f64)
        .with_message(format!("indexed {done} of {total} products"));
    if let Err(error) = context.peer.notify_progress(notification).await {
        tracing::debug!(%error, "the caller no longer takes progress");
    }
}

#[tool_handler(router = self.tool_router)]
#[prompt_handler(router = self.prompt_router)]
impl ServerHandler for Products {
    fn get_info(&self) -> ServerConfig {
        let capabilities = ServerCapabilities::builder()
            .enable_tools()
            .enable_resources()
            .enable_prompts()
            .enable_completions()
            .build();
        let server = Implementation::new("products", env!("CARGO_PKG_VERSION"))
            .with_title("Products")
            .with_description("A product catalogue with search, edits and stock");
        ServerConfig::new(capabilities)
            .with_server_info(server)
            .with_instructions(INSTRUCTIONS)
    }

    async fn list_resources(
        &self,
        _request: Option<PaginatedRequestParams>,
        _context: RequestContext<RoleServer>,
    ) -> Result<ListResourcesResult, ErrorData> {
        Ok(ListResourcesResult::with_all_items(resources::list()))
    }

    async fn list_resource_templates(
        &self,
        _request: Option<PaginatedRequestParams>,
        _context: RequestContext<RoleServer>,
    ) -> Result<ListResourceTemplatesResult, ErrorData> {
        Ok(ListResourceTemplatesResult::with_all_items(resources::templates()))
    }

    async fn read_resource(
        &self,
        request: ReadResourceRequestParams,
        _context: RequestContext<RoleServer>,
    ) -> Result<ReadResourceResponse, ErrorData> {
        resources::read(&self.store, &request.uri).await.map(Into::into)
    }

    async fn complete(
        &self,
        request: CompleteRequestParams,
        _context: RequestContext<RoleServer>,
    ) -> Result<CompleteResult, ErrorData> {
        completion::complete(&self.store, &request).await
    }
}
