//! The arguments of the tools as a caller sends them, with the schema a model reads, and their conversion into the checked
//! types of the room. What serde refuses (a missing field, a wrong type, an unknown name) never gets here.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::error::ProductsError;
use super::product::{self, Changes, Draft, MAX_AMOUNT, Sku};
use super::search::DEFAULT_LIMIT;

/// Arguments of `search`.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct SearchArguments {
    #[schemars(
        description = "Words that must all occur in the name, description, SKU, brand, category or tags. \
        Case does not matter; from three letters on, the beginning of a word is enough (`lap` finds `laptop`). \
        Leave it out to list everything."
    )]
    pub(super) query: Option<String>,
    /// Only products of this category; `list_categories` names them.
    pub(super) category: Option<String>,
    /// Only products that cost at least this much, in minor units (1999 is 19.99).
    #[schemars(range(min = 0))]
    pub(super) min_price_cents: Option<i64>,
    /// Only products that cost at most this much, in minor units.
    #[schemars(range(min = 0))]
    pub(super) max_price_cents: Option<i64>,
    /// `true`: only what can be sold now. `false`: only what is sold out.
    pub(super) in_stock: Option<bool>,
    /// The order of the items.
    #[serde(default)]
    pub(super) sort: Sort,
    /// How many items to return at most.
    #[serde(default = "default_limit")]
    #[schemars(range(min = 1, max = 100))]
    pub(super) limit: i64,
    /// Where to continue: the `next_cursor` of the page before, with the other arguments unchanged.
    pub(super) cursor: Option<String>,
}

fn default_limit() -> i64 {
    DEFAULT_LIMIT
}

/// Arguments of `find_products`, the older form of `search`.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct FindArguments {
    /// Words that must all occur in the product.
    pub(super) text: String,
}

/// The order of search results; the SKU decides between equals.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
#[schemars(inline)]
pub(super) enum Sort {
    /// By name, from A to Z.
    #[default]
    Name,
    /// Cheapest first.
    PriceAsc,
    /// Dearest first.
    PriceDesc,
    /// Created last first.
    Newest,
    /// Largest stock first.
    StockDesc,
}

/// Arguments of `get`.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct GetArguments {
    /// The product's SKU, such as OFF-0012.
    pub(super) sku: String,
}

/// Arguments of `list_categories`: none.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(extend("properties" = {}))] // some clients insist on it
pub(super) struct NoArguments {}

/// Arguments of `create`.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct CreateArguments {
    /// The SKU to use: groups of letters and digits joined by dashes. Leave it out to get a new one.
    sku: Option<String>,
    /// The name as shown to buyers.
    #[schemars(length(min = 1, max = 120))]
    name: String,
    /// What the product is, in a few sentences.
    #[schemars(length(min = 1, max = 2000))]
    description: String,
    /// The category to list it under; take one of `list_categories` unless a new one is really needed.
    #[schemars(length(min = 1, max = 40))]
    category: String,
    /// Who makes it.
    #[schemars(length(min = 1, max = 60))]
    brand: String,
    /// The price in minor units of the currency, so 1999 is 19.99.
    #[schemars(range(min = 0, max = MAX_AMOUNT))]
    price_cents: i64,
    /// The currency of the price, an ISO 4217 code.
    #[serde(default = "default_currency")]
    currency: String,
    /// How many there are to sell.
    #[serde(default)]
    #[schemars(range(min = 0, max = MAX_AMOUNT))]
    stock: i64,
    /// Free keywords.
    #[serde(default)]
    #[schemars(length(max = 20))]
    tags: Vec<String>,
}

fn default_currency() -> String {
    "USD".to_owned()
}

impl TryFrom<CreateArguments> for Draft {
    type Error = ProductsError;

    fn try_from(given: CreateArguments) -> Result<Self, ProductsError> {
        Ok(Self {
            sku: given.sku.as_deref().map(Sku::parse).transpose()?,
            name: product::text("name", &given.name, 120)?,
            description: product::text("description", &given.description, 2000)?,
            category: product::text("category", &given.category, 40)?,
            brand: product::text("brand", &given.brand, 60)?,
            price_cents: product::amount("price_cents", given.price_cents)?,
            currency: product::currency(&given.currency)?,
            stock: product::amount("stock", given.stock)?,
            tags: product::tags(&given.tags)?,
        })
    }
}

/// Arguments of `delete`.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct DeleteArguments {
    /// The product's SKU.
    pub(super) sku: String,
    /// Only for clients that cannot ask their user: `true` once the user has agreed. Others are asked whatever stands here.
    #[serde(default)]
    pub(super) confirm: bool,
}

/// Arguments of `update`.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct UpdateArguments {
    /// The product's SKU.
    pub(super) sku: String,
    /// Change the product only if it is still at this version; otherwise the call fails and says which version it is at.
    #[schemars(range(min = 1))]
    pub(super) expected_version: Option<i64>,
    /// The new name.
    #[schemars(length(min = 1, max = 120))]
    name: Option<String>,
    /// The new description.
    #[schemars(length(min = 1, max = 2000))]
    description: Option<String>,
    /// The new category.
    #[schemars(length(min = 1, max = 40))]
    category: Option<String>,
    /// The new brand.
    #[schemars(length(min = 1, max = 60))]
    brand: Option<String>,
    /// The new price in minor units of the currency.
    #[schemars(range(min = 0, max = MAX_AMOUNT))]
    price_cents: Option<i64>,
    /// The new currency, an ISO 4217 code; it does not convert the price.
    currency: Option<String>,
    /// The new tags; they replace all old ones.
    #[schemars(length(max = 20))]
    tags: Option<Vec<String>>,
}

impl TryFrom<UpdateArguments> for Changes {
    type Error = ProductsError;

    fn try_from(given: UpdateArguments) -> Result<Self, ProductsError> {
        let text = |field, value: Option<String>, max| {
            value.map(|value| product::text(field, &value, max)).transpose()
        };
        let changes = Self {
            name: text("name", given.name, 120)?,
            description: text("description", given.description, 2000)?,
            category: text("category", given.category, 40)?,
            brand: text("brand", given.brand, 60)?,
            price_cents: given
                .price_cents
                .map(|cents| product::amount("price_cents", cents))
                .transpose()?,
            currency: given.currency.as_deref().map(product::currency).transpose()?,
            tags: given.tags.as_deref().map(product::tags).transpose()?,
        };
        if changes == Self::default() {
            let problem = "alone changes nothing: send at least one field to change";
            return Err(ProductsError::bad_value("sku", problem));
        }
        Ok(changes)
    }
}

/// Arguments of `adjust_stock`.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct AdjustStockArguments {
    /// The product's SKU.
    pub(super) sku: String,
    /// How many come in, or go out when negative; not 0.
    pub(super) delta: i64,
    /// Why, for the stock ledger: `sold`, `delivery 4711`, `broken in the warehouse`.
    #[schemars(length(min = 1, max = 200))]
    pub(super) reason: String,
}

/// Arguments of `reindex`.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct ReindexArguments {
    /// How many products to index in one transaction; also how often progress is reported.
    #[serde(default = "default_batch_size")]
    #[schemars(range(min = 1, max = 500))]
    pub(super) batch_size: i64,
    /// How long to pause between two batches, in milliseconds, to be gentle with a busy database.
    #[serde(default)]
    #[schemars(range(min = 0, max = 1000))]
    pub(super) pause_ms: u64,
}

fn default_batch_size() -> i64 {
    50
}

impl ReindexArguments {
    /// Checks that both numbers are within their limits.
    pub(super) fn check(&self) -> Result<(), ProductsError> {
        if !(1..=500).contains(&self.batch_size) {
            return Err(ProductsError::bad_value(
                "batch_size",
                "must be between 1 and 500",
            ));
        }
        if self.pause_ms > 1000 {
            return Err(ProductsError::bad_value("pause_ms", "must be between 0 and 1000"));
        }
        Ok(())
    }
}
