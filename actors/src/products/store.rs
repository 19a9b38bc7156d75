//! Reading and changing single products. Every change is one transaction that starts with a write (see [`Database::begin`]);
//! finding products is in `search`, the index they are found by in `index`.

use sqlx::{Any, AnyConnection, query, query_as, query_scalar};

use super::database::Database;
use super::error::ProductsError;
use super::index;
use super::product::{Category, Changes, Draft, MAX_AMOUNT, Product, ProductDetails, Sku, StockChange};
use super::timestamp;

/// At or below this stock a product is running out.
const LOW_STOCK: i64 = 5;

/// The categories in alphabetical order.
pub(super) const CATEGORIES: &str = "SELECT category AS name, COUNT(*) AS count FROM products
             GROUP BY category ORDER BY category";

/// The catalogue in its database.
#[derive(Debug, Clone)]
pub(super) struct Store {
    pub(super) database: Database,
}

impl Store {
    /// Opens the catalogue.
    pub(super) async fn open(url: &str) -> Result<Self, ProductsError> {
        Ok(Self {
            database: Database::open(url).await?,
        })
    }

    /// Returns one product.
    pub(super) async fn get(&self, sku: &Sku) -> Result<Product, ProductsError> {
        query_as::<Any, Product>("SELECT * FROM products WHERE sku = $1")
            .bind(sku.as_str())
            .fetch_optional(self.database.reader())
            .await?
            .ok_or_else(|| unknown(sku))
    }

    /// Returns one product with its latest movements of stock.
    pub(super) async fn details(&self, sku: &Sku) -> Result<ProductDetails, ProductsError> {
        let product = self.get(sku).await?;
        let stock_changes = query_as::<Any, StockChange>(
            "SELECT delta, reason, changed_at FROM product_stock_changes WHERE sku = $1
             ORDER BY version DESC LIMIT 5",
        )
        .bind(sku.as_str())
        .fetch_all(self.database.reader())
        .await?;
        Ok(ProductDetails {
            product,
            stock_changes,
        })
    }

    /// Returns the categories in alphabetical order.
    pub(super) async fn categories(&self) -> Result<Vec<Category>, ProductsError> {
        let categories = query_as::<Any, Category>(CATEGORIES);
        Ok(categories.fetch_all(self.database.reader()).await?)
    }

    /// Returns the products that are running out, the scarcest first, 100 at most.
    pub(super) async fn low_stock(&self) -> Result<Vec<Product>, ProductsError> {
        let products = query_as::<Any, Product>(
            "SELECT * FROM products WHERE stock <= $1 ORDER BY stock, sku LIMIT 100",
        );
        Ok(products.bind(LOW_STOCK).fetch_all(self.database.reader()).await?)
    }

    /// Returns the SKUs that begin with `prefix` in any case: at most `limit` of them, and how many there are.
    pub(super) async fn skus(&self, prefix: &str, limit: i64) -> Result<(Vec<String>, i64), ProductsError> {
        if !prefix.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-') {
            return Ok((Vec::new(), 0));
        }
        let pattern = format!("{}%", prefix.to_ascii_uppercase());
        let skus =
            query_scalar::<Any, String>("SELECT sku FROM products WHERE sku LIKE $1 ORDER BY sku LIMIT $2")
                .bind(pattern.clone())
                .bind(limit)
                .fetch_all(self.database.reader())
                .await?;
        let total = query_scalar::<Any, i64>("SELECT COUNT(*) FROM products WHERE sku LIKE $1")
            .bind(pattern)
            .fetch_one(self.database.reader())
            .await?;
        Ok((skus, total))
    }

    /// Adds a product and indexes it.
    pub(super) async fn create(&self, mut draft: Draft) -> Result<Product, ProductsError> {
        let mut tx = self.database.begin().await?;
        let generations = index::lock(&mut tx).await?;
        draft.category = known_spelling(&mut tx, draft.category).await?;
        let now = timestamp::now();
        let product = match draft.sku.clone() {
            Some(sku) => {
                let product = draft.into_product(&sku, &now, &now);
                if !insert(&mut tx, &product).await? {
                    return Err(ProductsError::DuplicateSku { sku: product.sku });
                }
                product
            }
            None => insert_numbered(&mut tx, draft, &now).await?,
        };
        index::write(&mut tx, &generations, &product).await?;
        tx.commit().await?;
        Ok(product)
    }

    /// Changes fields of a product and indexes it anew. Fields that have the wanted values already are no change, whatever
    /// version the caller expected: a call repeated after a lost answer succeeds.
    pub(super) async fn update(
        &self,
        sku: &Sku,
        mut changes: Changes,
        expected_version: Option<i64>,
    ) -> Result<Product, ProductsError> {
        let mut tx = self.database.begin().await?;
        let generations = index::lock(&mut tx).await?;
        if let Some(category) = changes.category.take() {
            changes.category = Some(known_spelling(&mut tx, category).await?);
        }
        let current = find(&mut tx, sku).await?;
        let wanted = changes.apply_to(&current);
        if wanted == current {
            return Ok(current);
        }
        let Some(updated) = overwrite(&mut tx, &wanted, expected_version.unwrap_or(0)).await? else {
            return Err(ProductsError::VersionConflict {
                sku: current.sku,
                expected: expected_version.unwrap_or(0),
                actual: find(&mut tx, sku).await?.version,
            });
        };
        index::write(&mut tx, &generations, &updated).await?;
        tx.commit().await?;
        Ok(updated)
    }

    /// Takes a product out of the catalogue, its ledger and its index, if it is still as the caller has seen it.
    pub(super) async fn delete(&self, seen: &Product) -> Result<(), ProductsError> {
        let mut tx = self.database.begin().await?;
        index::lock(&mut tx).await?;
        // Locks the row before its ledger is touched, in the order of whoever sells.
        let locked = query("UPDATE products SET version = version WHERE sku = $1 AND version = $2")
            .bind(seen.sku.clone())
            .bind(seen.version)
            .execute(&mut *tx)
            .await?;
        if locked.rows_affected() == 0 {
            return Err(ProductsError::VersionConflict {
                sku: seen.sku.clone(),
                expected: seen.version,
                actual: find(&mut tx, &Sku::parse(&seen.sku)?).await?.version,
            });
        }
        for statement in [
            "DELETE FROM product_words WHERE sku = $1",
            "DELETE FROM product_stock_changes WHERE sku = $1",
            "DELETE FROM products WHERE sku = $1",
        ] {
            query(statement).bind(seen.sku.clone()).execute(&mut *tx).await?;
        }
        tx.commit().await?;
        Ok(())
    }

    /// Adds `delta` to the stock and writes it into the ledger. One statement checks and changes, so that no two callers
    /// can sell the same piece.
    pub(super) async fn adjust_stock(
        &self,
        sku: &Sku,
        delta: i64,
        reason: String,
    ) -> Result<Product, ProductsError> {
        let mut tx = self.database.begin().await?;
        let adjusted = query_as::<Any, Product>(
            "UPDATE products SET stock = stock + $2, version = version + 1, updated_at = $3
             WHERE sku = $1 AND stock + $2 BETWEEN 0 AND $4 RETURNING *",
        )
        .bind(sku.as_str())
        .bind(delta)
        .bind(timestamp::now())
        .bind(MAX_AMOUNT)
        .fetch_optional(&mut *tx)
        .await?;
        let Some(product) = adjusted else {
            let stock = find(&mut tx, sku).await?.stock;
            let sku = sku.as_str().to_owned();
            return Err(ProductsError::StockOutOfRange {
                sku,
                stock,
                delta,
                limit: MAX_AMOUNT,
            });
        };
        query(
            "INSERT INTO product_stock_changes (sku, version, delta, reason, changed_at)
             VALUES ($1, $2, $3, $4, $5)",
        )
        .bind(sku.as_str())
        .bind(product.version)
        .bind(delta)
        .bind(reason)
        .bind(product.updated_at.clone())
        .execute(&mut *tx)
        .await?;
        tx.commit().await?;
        Ok(product)
    }
}

/// Inserts a product as it is; answers whether its SKU was free.
pub(super) async fn insert(connection: &mut AnyConnection, product: &Product) -> Result<bool, ProductsError> {
    let inserted = query(
        "INSERT INTO products (sku, name, description, category, brand, price_cents, currency,
                               stock, tags, version, created_at, updated_at)
         VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12)
         ON CONFLICT (sku) DO NOTHING",
    )
    .bind(product.sku.clone())
    .bind(product.name.clone())
    .bind(product.description.clone())
    .bind(product.category.clone())
    .bind(product.brand.clone())
    .bind(product.price_cents)
    .bind(product.currency.clone())
    .bind(product.stock)
    .bind(tags_column(product))
    .bind(product.version)
    .bind(product.created_at.clone())
    .bind(product.updated_at.clone())
    .execute(connection)
    .await?;
    Ok(inserted.rows_affected() == 1)
}

/// Inserts a draft under the next number that no hand-made SKU has taken. The caller holds the index lock, so that two
/// replicas never draw the same number.
pub(super) async fn insert_numbered(
    connection: &mut AnyConnection,
    draft: Draft,
    now: &str,
) -> Result<Product, ProductsError> {
    loop {
        let number = query_scalar::<Any, i64>(
            "UPDATE product_index SET last_number = last_number + 1 WHERE id = 1
             RETURNING last_number",
        )
        .fetch_one(&mut *connection)
        .await?;
        let sku = Sku::numbered(&draft.category, number);
        let product = draft.clone().into_product(&sku, now, now);
        if insert(connection, &product).await? {
            return Ok(product);
        }
    }
}

/// Writes all editable fields; answers nothing when the product is not at `expected_version` (0: any version will do).
async fn overwrite(
    connection: &mut AnyConnection,
    wanted: &Product,
    expected_version: i64,
) -> Result<Option<Product>, ProductsError> {
    let updated = query_as::<Any, Product>(
        "UPDATE products SET name = $2, description = $3, category = $4, brand = $5,
                             price_cents = $6, currency = $7, tags = $8, updated_at = $9,
                             version = version + 1
         WHERE sku = $1 AND ($10 = 0 OR version = $10) RETURNING *",
    )
    .bind(wanted.sku.clone())
    .bind(wanted.name.clone())
    .bind(wanted.description.clone())
    .bind(wanted.category.clone())
    .bind(wanted.brand.clone())
    .bind(wanted.price_cents)
    .bind(wanted.currency.clone())
    .bind(tags_column(wanted))
    .bind(timestamp::now())
    .bind(expected_version)
    .fetch_optional(connection)
    .await?;
    Ok(updated)
}

async fn find(connection: &mut AnyConnection, sku: &Sku) -> Result<Product, ProductsError> {
    query_as::<Any, Product>("SELECT * FROM products WHERE sku = $1")
        .bind(sku.as_str())
        .fetch_optional(connection)
        .await?
        .ok_or_else(|| unknown(sku))
}

/// Spells a category as the catalogue does, so that `office` does not become a second `Office`.
async fn known_spelling(connection: &mut AnyConnection, category: String) -> Result<String, ProductsError> {
    let known = query_scalar::<Any, String>(
        "SELECT category FROM products WHERE LOWER(category) = LOWER($1) LIMIT 1",
    );
    let known = known.bind(category.clone()).fetch_optional(connection).await?;
    Ok(known.unwrap_or(category))
}

fn unknown(sku: &Sku) -> ProductsError {
    ProductsError::UnknownSku {
        sku: sku.as_str().to_owned(),
    }
}

fn tags_column(product: &Product) -> String {
    serde_json::Value::from(product.tags.clone()).to_string()
}
