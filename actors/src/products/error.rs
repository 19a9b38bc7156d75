//! What can go wrong in the products room, and how a caller hears of it. A failed tool call is a *result* with `isError`,
//! whose text says what to do next (MCP, server/tools); only prompts, resources and completions answer JSON-RPC errors.

use std::error::Error;
use std::time::Duration;

use rmcp::ErrorData;
use rmcp::handler::server::tool::IntoCallToolResult;
use rmcp::model::{CallToolResponse, CallToolResult, ContentBlock};

/// Why the products server could not start, or could not do what a call asked for.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ProductsError {
    /// The database URL names neither a SQLite file nor a PostgreSQL database.
    #[error("the database URL must be sqlite:///path/to/file or postgres://…, and not an in-memory database")]
    UnsupportedUrl,
    /// The database refused or failed.
    #[error("the products database failed, try again later")]
    Database(#[from] sqlx::Error),
    /// The tables could not be created or brought up to date.
    #[error("the tables of the products database could not be brought up to date")]
    Migration(#[from] sqlx::migrate::MigrateError),
    /// A value has the right type, but cannot be used.
    #[error("{field} {problem}")]
    BadValue {
        /// The argument at fault.
        field: &'static str,
        /// What is wrong with it and what to send instead.
        problem: String,
    },
    /// No product has this SKU.
    #[error("no product has the SKU {sku}: find the right one with the search tool")]
    UnknownSku {
        /// The SKU asked for.
        sku: String,
    },
    /// No product is in this category.
    #[error("there is no category {category}: use one of {}", known.join(", "))]
    UnknownCategory {
        /// The category asked for.
        category: String,
        /// The categories there are.
        known: Vec<String>,
    },
    /// A product with this SKU exists already.
    #[error(
        "a product with the SKU {sku} exists already: change it with the update tool, or leave the sku out to get a new one"
    )]
    DuplicateSku {
        /// The SKU that is taken.
        sku: String,
    },
    /// The change would take the stock below zero or above the limit.
    #[error(
        "{sku} has {stock} in stock, so {delta:+} is not possible: send a delta that leaves between 0 and {limit}"
    )]
    StockOutOfRange {
        /// The product.
        sku: String,
        /// How many there are.
        stock: i64,
        /// The change asked for.
        delta: i64,
        /// The largest stock a product can have.
        limit: i64,
    },
    /// Somebody else changed the product since the caller read it.
    #[error(
        "{sku} is at version {actual}, not {expected}: somebody changed it meanwhile; read it again with the get tool and decide anew"
    )]
    VersionConflict {
        /// The product.
        sku: String,
        /// The version the caller expected.
        expected: i64,
        /// The version there is.
        actual: i64,
    },
    /// The client cannot ask its user for a confirmation.
    #[error(
        "this deletes {what} for good, and your client cannot ask the user: once the user has agreed, call delete again with `confirm`: true"
    )]
    NeedsConfirmation {
        /// What would be deleted.
        what: String,
    },
    /// The user did not agree.
    #[error("the user did not agree: {sku} was not deleted")]
    NotConfirmed {
        /// The product.
        sku: String,
    },
    /// Another rebuild of the search index started while this one was running.
    #[error("another reindex started and takes over: nothing is left to do")]
    Superseded,
    /// A statement ran longer than one may, or was stopped by whoever runs the database.
    #[error(
        "the search was stopped, as it took longer than {} seconds: narrow it with more words, a category or a range of prices",
        limit.as_secs()
    )]
    TooSlow {
        /// How long a statement may run.
        limit: Duration,
    },
    /// The caller cancelled.
    #[error("cancelled, nothing was changed")]
    Cancelled,
}

impl ProductsError {
    /// Says that the value of an argument cannot be used.
    pub(super) fn bad_value(field: &'static str, problem: impl Into<String>) -> Self {
        Self::BadValue {
            field,
            problem: problem.into(),
        }
    }

    /// Writes failures that an operator must see to the log; what the caller did wrong is no news.
    fn log(&self) {
        if let Self::Database(_) | Self::Migration(_) = self {
            let cause = self.source().map(ToString::to_string);
            tracing::error!(cause, "{self}");
        }
    }
}

impl IntoCallToolResult for ProductsError {
    fn into_call_tool_result(self) -> Result<CallToolResponse, ErrorData> {
        self.log();
        Ok(CallToolResult::error(vec![ContentBlock::text(self.to_string())]).into())
    }
}

impl From<ProductsError> for ErrorData {
    fn from(error: ProductsError) -> Self {
        error.log();
        match error {
            ProductsError::Database(_) | ProductsError::Migration(_) => {
                Self::internal_error(error.to_string(), None)
            }
            _ => Self::invalid_params(error.to_string(), None),
        }
    }
}
