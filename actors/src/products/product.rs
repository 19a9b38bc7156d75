//! What a product is: the record as stored and shown, its SKU, and the checked forms of a new product and of a change.
//! Text is trimmed and measured here, once; the store takes these types as they are.

use schemars::JsonSchema;
use serde::Serialize;
use sqlx::{ColumnIndex, Decode, FromRow, Row, Type};

use super::error::ProductsError;

/// The largest stock and the largest price, far above any real one and far below what overflows.
pub(super) const MAX_AMOUNT: i64 = 1_000_000_000;

/// One product of the catalogue.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, JsonSchema)]
pub(super) struct Product {
    /// The stock keeping unit: the product's only identifier.
    pub(super) sku: String,
    /// The name as shown to buyers, with the brand.
    pub(super) name: String,
    /// What the product is, in a few sentences.
    pub(super) description: String,
    /// The category it is listed under.
    pub(super) category: String,
    /// Who makes it.
    pub(super) brand: String,
    /// The price in minor units of the currency, so 1999 is 19.99.
    pub(super) price_cents: i64,
    /// The currency of the price, an ISO 4217 code.
    pub(super) currency: String,
    /// How many can be sold now.
    pub(super) stock: i64,
    /// Free keywords, lower case.
    pub(super) tags: Vec<String>,
    /// Rises by one with every change; send it back as `expected_version` to change only what you have seen.
    pub(super) version: i64,
    /// When the product was created, ISO 8601 in UTC.
    pub(super) created_at: String,
    /// When it was changed last, ISO 8601 in UTC.
    pub(super) updated_at: String,
}

impl Product {
    /// Names the product and its present state, for whoever is to decide about it.
    pub(super) fn described(&self) -> String {
        let Self {
            sku,
            name,
            stock,
            version,
            ..
        } = self;
        format!("{sku} “{name}” with {stock} in stock (version {version})")
    }
}

impl<'r, R: Row> FromRow<'r, R> for Product
where
    &'static str: ColumnIndex<R>,
    i64: Decode<'r, R::Database> + Type<R::Database>,
    String: Decode<'r, R::Database> + Type<R::Database>,
{
    fn from_row(row: &'r R) -> Result<Self, sqlx::Error> {
        let tags: String = row.try_get("tags")?;
        Ok(Self {
            sku: row.try_get("sku")?,
            name: row.try_get("name")?,
            description: row.try_get("description")?,
            category: row.try_get("category")?,
            brand: row.try_get("brand")?,
            price_cents: row.try_get("price_cents")?,
            currency: row.try_get("currency")?,
            stock: row.try_get("stock")?,
            tags: serde_json::from_str(&tags).map_err(|e| sqlx::Error::Decode(e.into()))?,
            version: row.try_get("version")?,
            created_at: row.try_get("created_at")?,
            updated_at: row.try_get("updated_at")?,
        })
    }
}

/// One movement of stock.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, JsonSchema, FromRow)]
pub(super) struct StockChange {
    /// How many came in, or went out when negative.
    pub(super) delta: i64,
    /// Why.
    pub(super) reason: String,
    /// When, ISO 8601 in UTC.
    pub(super) changed_at: String,
}

/// A product with what happened to its stock.
#[derive(Debug, Clone, Serialize, JsonSchema)]
pub(super) struct ProductDetails {
    /// The product itself.
    #[serde(flatten)]
    pub(super) product: Product,
    /// The latest movements of stock, newest first, five at most.
    pub(super) stock_changes: Vec<StockChange>,
}

/// A category and how many products it holds.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, JsonSchema, FromRow)]
pub(super) struct Category {
    /// The name, as `search` takes it.
    pub(super) name: String,
    /// How many products are listed under it.
    pub(super) count: i64,
}

/// A SKU in its one spelling: upper-case letters and digits in groups joined by dashes, such as `OFF-0137`.
/// At least one dash, so that no SKU collides with the fixed resources (`product://categories`).
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Sku(String);

impl Sku {
    /// Reads a SKU in any case.
    pub(super) fn parse(text: &str) -> Result<Self, ProductsError> {
        let sku = text.trim().to_ascii_uppercase();
        let mut groups = sku.split('-');
        let well_formed = sku.len() <= 32
            && sku.contains('-')
            && groups.all(|g| !g.is_empty() && g.bytes().all(|b| b.is_ascii_alphanumeric()));
        if !well_formed {
            let problem = "must be groups of letters and digits joined by dashes, such as OFF-0137";
            return Err(ProductsError::bad_value("sku", problem));
        }
        Ok(Self(sku))
    }

    /// Makes the SKU for the n-th product of the catalogue from the first three letters of its category.
    pub(super) fn numbered(category: &str, number: i64) -> Self {
        let letters = category.chars().filter(char::is_ascii_alphanumeric);
        let prefix: String = letters.chain("XXX".chars()).take(3).collect();
        Self(format!("{}-{number:04}", prefix.to_ascii_uppercase()))
    }

    /// Returns the SKU as stored.
    pub(super) fn as_str(&self) -> &str {
        &self.0
    }
}

/// A new product whose values have been checked.
#[derive(Debug, Clone)]
pub(super) struct Draft {
    /// The SKU the caller wants; the store makes one up when there is none.
    pub(super) sku: Option<Sku>,
    pub(super) name: String,
    pub(super) description: String,
    pub(super) category: String,
    pub(super) brand: String,
    pub(super) price_cents: i64,
    pub(super) currency: String,
    pub(super) stock: i64,
    pub(super) tags: Vec<String>,
}

impl Draft {
    /// Completes the draft to the product it becomes.
    pub(super) fn into_product(self, sku: &Sku, created_at: &str, updated_at: &str) -> Product {
        Product {
            sku: sku.as_str().to_owned(),
            name: self.name,
            description: self.description,
            category: self.category,
            brand: self.brand,
            price_cents: self.price_cents,
            currency: self.currency,
            stock: self.stock,
            tags: self.tags,
            version: 1,
            created_at: created_at.to_owned(),
            updated_at: updated_at.to_owned(),
        }
    }
}

/// The fields to change in a product, checked; `None` leaves a field as it is.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Changes {
    pub(super) name: Option<String>,
    pub(super) description: Option<String>,
    pub(super) category: Option<String>,
    pub(super) brand: Option<String>,
    pub(super) price_cents: Option<i64>,
    pub(super) currency: Option<String>,
    pub(super) tags: Option<Vec<String>>,
}

impl Changes {
    /// Returns the product with the changes made to it.
    pub(super) fn apply_to(self, product: &Product) -> Product {
        let old = product.clone();
        Product {
            name: self.name.unwrap_or(old.name),
            description: self.description.unwrap_or(old.description),
            category: self.category.unwrap_or(old.category),
            brand: self.brand.unwrap_or(old.brand),
            price_cents: self.price_cents.unwrap_or(old.price_cents),
            currency: self.currency.unwrap_or(old.currency),
            tags: self.tags.unwrap_or(old.tags),
            ..old
        }
    }
}

/// Trims a text and checks that it says something, fits, and holds nothing that a database would refuse.
pub(super) fn text(field: &'static str, value: &str, max: usize) -> Result<String, ProductsError> {
    let value = value.trim();
    if value.is_empty() {
        return Err(ProductsError::bad_value(field, "must not be empty"));
    }
    if value.chars().count() > max {
        return Err(ProductsError::bad_value(
            field,
            format!("must have at most {max} characters"),
        ));
    }
    if value.chars().any(|c| c.is_control() && c != '\n') {
        return Err(ProductsError::bad_value(
            field,
            "must not contain control characters",
        ));
    }
    Ok(value.to_owned())
}

/// Checks an amount of money or goods.
pub(super) fn amount(field: &'static str, value: i64) -> Result<i64, ProductsError> {
    if !(0..=MAX_AMOUNT).contains(&value) {
        return Err(ProductsError::bad_value(
            field,
            format!("must be between 0 and {MAX_AMOUNT}"),
        ));
    }
    Ok(value)
}

/// Checks a currency code and spells it in upper case.
pub(super) fn currency(value: &str) -> Result<String, ProductsError> {
    let code = value.trim().to_ascii_uppercase();
    if code.len() != 3 || !code.bytes().all(|b| b.is_ascii_uppercase()) {
        let problem = "must be an ISO 4217 code of three letters, such as USD";
        return Err(ProductsError::bad_value("currency", problem));
    }
    Ok(code)
}

/// Checks tags, spells them in lower case and drops repeats, keeping the order.
pub(super) fn tags(values: &[String]) -> Result<Vec<String>, ProductsError> {
    if values.len() > 20 {
        return Err(ProductsError::bad_value("tags", "must be at most 20"));
    }
    let mut tags = Vec::with_capacity(values.len());
    for value in values {
        let tag = text("tags", value, 40)?.to_lowercase();
        if !tags.contains(&tag) {
            tags.push(tag);
        }
    }
    Ok(tags)
}
