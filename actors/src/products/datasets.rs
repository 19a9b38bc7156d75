//! What can be exported of the catalogue: the products, and the movements of their stock. Both come in the order of a date that never changes,
//! so that a change while an export runs moves nothing to where it has been or is yet to go.

use std::sync::Arc;

use futures::future::BoxFuture;
use sqlx::FromRow;

use super::error::ProductsError;
use super::interrupt::Value as Bound;
use super::product::Product;
use super::store::Store;
use crate::exports::{
    Column, Cursor, Dataset, DatasetError, Datasets, DateRange, Entry, Kind, Value, Wanted, iso8601,
    read_iso8601,
};

const PRODUCT_COLUMNS: [Column; 12] = [
    Column::new("sku", Kind::Text),
    Column::new("name", Kind::Text),
    Column::new("description", Kind::Text),
    Column::new("category", Kind::Text),
    Column::new("brand", Kind::Text),
    Column::new("price_cents", Kind::Integer),
    Column::new("currency", Kind::Text),
    Column::new("stock", Kind::Integer),
    Column::new("tags", Kind::Texts),
    Column::new("version", Kind::Integer),
    Column::new("created_at", Kind::Moment),
    Column::new("updated_at", Kind::Moment),
];

const STOCK_CHANGE_COLUMNS: [Column; 5] = [
    Column::new("sku", Kind::Text),
    Column::new("version", Kind::Integer),
    Column::new("delta", Kind::Integer),
    Column::new("reason", Kind::Text),
    Column::new("changed_at", Kind::Moment),
];

/// A text that comes after every moment that is spelled.
const AFTER_ALL: &str = "~";

impl Store {
    /// What can be exported.
    pub(super) fn datasets(&self) -> Datasets {
        Datasets::new(vec![
            Arc::new(ProductRows(self.clone())),
            Arc::new(StockChangeRows(self.clone())),
        ])
    }

    async fn count_rows(&self, sql: &str, range: DateRange) -> Result<u64, DatasetError> {
        let mut statements = self.database.interruptible.begin().await?;
        let counted: Vec<(i64,)> = statements.fetch_all(sql, &bounds(range)).await?;
        let count = counted.first().map_or(0, |(count,)| *count);
        Ok(u64::try_from(count).unwrap_or_default())
    }
}

/// The products as they are.
struct ProductRows(Store);

impl Dataset for ProductRows {
    fn name(&self) -> &'static str {
        "products"
    }

    fn description(&self) -> &'static str {
        "All products of the catalogue with price and stock; a date range is about when they were created."
    }

    fn columns(&self) -> &[Column] {
        &PRODUCT_COLUMNS
    }

    fn rows<'a>(&'a self, wanted: Wanted<'a>) -> BoxFuture<'a, Result<Vec<Entry>, DatasetError>> {
        Box::pin(async move {
            let mut values = bounds(wanted.range).to_vec();
            let mut sql = String::from("SELECT * FROM products WHERE created_at >= $1 AND created_at < $2");
            if let Some(cursor) = wanted.after {
                let (created_at, sku): (String, String) = serde_json::from_str(&cursor.0)?;
                sql.push_str(" AND (created_at, sku) > ($3, $4)");
                values.extend([Bound::Text(created_at), Bound::Text(sku)]);
            }
            sql.push_str(&format!(" ORDER BY created_at, sku LIMIT {}", wanted.limit));
            let mut statements = self.0.database.interruptible.begin().await?;
            let products: Vec<Product> = statements.fetch_all(sql, &values).await?;
            products.into_iter().map(product_entry).collect()
        })
    }

    fn count(&self, range: DateRange) -> BoxFuture<'_, Result<u64, DatasetError>> {
        let sql = "SELECT COUNT(*) FROM products WHERE created_at >= $1 AND created_at < $2";
        Box::pin(self.0.count_rows(sql, range))
    }
}

/// The movements of stock.
struct StockChangeRows(Store);

/// One of them, with whose it is.
#[derive(FromRow)]
struct StockChangeRow {
    sku: String,
    version: i64,
    delta: i64,
    reason: String,
    changed_at: String,
}

impl Dataset for StockChangeRows {
    fn name(&self) -> &'static str {
        "stock_changes"
    }

    fn description(&self) -> &'static str {
        "All movements of stock, one row each; a date range is about when they happened."
    }

    fn columns(&self) -> &[Column] {
        &STOCK_CHANGE_COLUMNS
    }

    fn rows<'a>(&'a self, wanted: Wanted<'a>) -> BoxFuture<'a, Result<Vec<Entry>, DatasetError>> {
        Box::pin(async move {
            let mut values = bounds(wanted.range).to_vec();
            let mut sql = String::from(
                "SELECT sku, version, delta, reason, changed_at FROM product_stock_changes
                 WHERE changed_at >= $1 AND changed_at < $2",
            );
            if let Some(cursor) = wanted.after {
                let (changed_at, sku, version): (String, String, i64) = serde_json::from_str(&cursor.0)?;
                sql.push_str(" AND (changed_at, sku, version) > ($3, $4, $5)");
                values.extend([Bound::Text(changed_at), Bound::Text(sku), Bound::Number(version)]);
            }
            sql.push_str(&format!(
                " ORDER BY changed_at, sku, version LIMIT {}",
                wanted.limit
            ));
            let mut statements = self.0.database.interruptible.begin().await?;
            let changes: Vec<StockChangeRow> = statements.fetch_all(sql, &values).await?;
            changes.into_iter().map(stock_change_entry).collect()
        })
    }

    fn count(&self, range: DateRange) -> BoxFuture<'_, Result<u64, DatasetError>> {
        let sql = "SELECT COUNT(*) FROM product_stock_changes WHERE changed_at >= $1 AND changed_at < $2";
        Box::pin(self.0.count_rows(sql, range))
    }
}

/// The range as the database spells moments.
fn bounds(range: DateRange) -> [Bound; 2] {
    let from = range.from_ms.map(iso8601).unwrap_or_default();
    let until = range.until_ms.map_or_else(|| AFTER_ALL.to_owned(), iso8601);
    [Bound::Text(from), Bound::Text(until)]
}

fn product_entry(product: Product) -> Result<Entry, DatasetError> {
    let cursor = serde_json::json!([product.created_at, product.sku]).to_string();
    let values = vec![
        Value::Text(product.sku),
        Value::Text(product.name),
        Value::Text(product.description),
        Value::Text(product.category),
        Value::Text(product.brand),
        Value::Integer(product.price_cents),
        Value::Text(product.currency),
        Value::Integer(product.stock),
        Value::Texts(product.tags),
        Value::Integer(product.version),
        moment(&product.created_at)?,
        moment(&product.updated_at)?,
    ];
    Ok(Entry {
        cursor: Cursor(cursor),
        values,
    })
}

fn stock_change_entry(change: StockChangeRow) -> Result<Entry, DatasetError> {
    let cursor = serde_json::json!([change.changed_at, change.sku, change.version]).to_string();
    let changed_at = moment(&change.changed_at)?;
    let values = vec![
        Value::Text(change.sku),
        Value::Integer(change.version),
        Value::Integer(change.delta),
        Value::Text(change.reason),
        changed_at,
    ];
    Ok(Entry {
        cursor: Cursor(cursor),
        values,
    })
}

fn moment(text: &str) -> Result<Value, DatasetError> {
    let read = read_iso8601(text);
    read.map(Value::Moment).ok_or_else(|| {
        let bad = sqlx::Error::Decode(format!("`{text}` is no moment").into());
        ProductsError::from(bad).into()
    })
}
