//! The search index: which words lead to which products. It has generations: searches read the active one, a rebuild fills
//! a new one in batches and becomes active at the end, and every edit writes its words into both.
//!
//! Whoever writes words locks the one row of `product_index` first. That keeps a rebuild from overwriting the words of an
//! edit with those it read before, and makes SQLite wait for its write lock. Changes of stock touch no words and no lock.

use std::collections::BTreeSet;

use schemars::JsonSchema;
use serde::Serialize;
use sqlx::{Any, AnyConnection, AssertSqlSafe, FromRow, query, query_as, query_scalar};

use super::error::ProductsError;
use super::product::Product;
use super::store::Store;

/// Longer words are cut: no index should choke on a product without spaces.
const MAX_WORD_CHARS: usize = 40;

/// The first letters of a word, by which the database finds it.
const STEM_CHARS: usize = 3;

/// The generations an edit must write.
#[derive(Debug, FromRow)]
pub(super) struct Generations {
    active: i64,
    /// Zero when no rebuild is under way.
    building: i64,
}

/// Splits a text into its words: runs of letters and digits, in lower case.
pub(super) fn words(text: &str) -> BTreeSet<String> {
    text.split(|c: char| !c.is_alphanumeric())
        .filter(|word| !word.is_empty())
        .map(|word| word.to_lowercase().chars().take(MAX_WORD_CHARS).collect())
        .collect()
}

/// Returns the stem of a word.
pub(super) fn stem(word: &str) -> String {
    word.chars().take(STEM_CHARS).collect()
}

fn words_of(product: &Product) -> BTreeSet<String> {
    let Product {
        sku,
        name,
        description,
        category,
        brand,
        tags,
        ..
    } = product;
    let tags = tags.join(" ");
    words(&format!("{sku} {name} {description} {category} {brand} {tags}"))
}

/// Locks the index for this transaction and returns the generations to write.
pub(super) async fn lock(connection: &mut AnyConnection) -> Result<Generations, ProductsError> {
    let generations = query_as::<Any, Generations>(
        "UPDATE product_index SET latest = latest WHERE id = 1 RETURNING active, building",
    );
    Ok(generations.fetch_one(connection).await?)
}

/// Replaces the words of one product in the given generations.
pub(super) async fn write(
    connection: &mut AnyConnection,
    generations: &Generations,
    product: &Product,
) -> Result<(), ProductsError> {
    query("DELETE FROM product_words WHERE sku = $1")
        .bind(product.sku.clone())
        .execute(&mut *connection)
        .await?;
    insert_words(connection, generations.active, product).await?;
    if generations.building != 0 {
        insert_words(connection, generations.building, product).await?;
    }
    Ok(())
}

async fn insert_words(
    connection: &mut AnyConnection,
    generation: i64,
    product: &Product,
) -> Result<(), ProductsError> {
    let words: Vec<String> = words_of(product).into_iter().collect();
    for words in words.chunks(100) {
        let rows: Vec<String> = (0..words.len())
            .map(|n| format!("($1, ${}, ${}, $2)", 2 * n + 3, 2 * n + 4))
            .collect();
        let sql = format!(
            "INSERT INTO product_words (generation, stem, word, sku) VALUES {}
             ON CONFLICT DO NOTHING",
            rows.join(", ")
        );
        // Only the number of placeholders varies.
        let mut insert = query(AssertSqlSafe(sql))
            .bind(generation)
            .bind(product.sku.clone());
        for word in words {
            insert = insert.bind(stem(word)).bind(word.clone());
        }
        insert.execute(&mut *connection).await?;
    }
    Ok(())
}

/// A rebuild of the index under way. Dropping it, at any point, leaves the active generation as it was; the next rebuild
/// clears away what this one had written.
#[derive(Debug)]
pub(super) struct Rebuild {
    store: Store,
    generation: i64,
    batch_size: i64,
    /// Products indexed so far.
    done: i64,
    /// Products in the catalogue when the rebuild started.
    expected: i64,
    last_sku: String,
}

/// How far a rebuild has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Progress {
    /// Products indexed so far.
    pub(super) done: i64,
    /// Products to index in all, as far as known.
    pub(super) total: i64,
}

/// What a finished rebuild did.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, JsonSchema)]
pub(super) struct RebuildReport {
    /// How many products are in the new index.
    pub(super) products: i64,
    /// How many entries it has, one for each word of each product.
    pub(super) entries: i64,
    /// The number of the new index; it rises with every rebuild.
    pub(super) generation: i64,
}

impl Rebuild {
    /// Starts a rebuild. One that is under way elsewhere loses its turn at its next batch: it may as well have died.
    pub(super) async fn start(store: &Store, batch_size: i64) -> Result<Self, ProductsError> {
        let mut tx = store.database.begin().await?;
        let generation = query_scalar::<Any, i64>(
            "UPDATE product_index SET latest = latest + 1, building = latest + 1 WHERE id = 1
             RETURNING building",
        )
        .fetch_one(&mut *tx)
        .await?;
        query(
            "DELETE FROM product_words
             WHERE generation <> (SELECT active FROM product_index WHERE id = 1)",
        )
        .execute(&mut *tx)
        .await?;
        let expected = query_scalar::<Any, i64>("SELECT COUNT(*) FROM products")
            .fetch_one(&mut *tx)
            .await?;
        tx.commit().await?;
        let store = store.clone();
        Ok(Self {
            store,
            generation,
            batch_size,
            done: 0,
            expected,
            last_sku: String::new(),
        })
    }

    /// Indexes the next products in the order of their SKUs; answers nothing when none are left.
    pub(super) async fn next_batch(&mut self) -> Result<Option<Progress>, ProductsError> {
        let mut tx = self.store.database.begin().await?;
        // Takes the lock of [`lock`], and makes sure that it is still our turn.
        let turn = query("UPDATE product_index SET latest = latest WHERE id = 1 AND building = $1")
            .bind(self.generation)
            .execute(&mut *tx)
            .await?;
        if turn.rows_affected() == 0 {
            return Err(ProductsError::Superseded);
        }
        let products =
            query_as::<Any, Product>("SELECT * FROM products WHERE sku > $1 ORDER BY sku LIMIT $2")
                .bind(self.last_sku.clone())
                .bind(self.batch_size)
                .fetch_all(&mut *tx)
                .await?;
        let Some(last) = products.last() else {
            return Ok(None);
        };
        for product in &products {
            insert_words(&mut tx, self.generation, product).await?;
        }
        tx.commit().await?;
        self.last_sku.clone_from(&last.sku);
        self.done += products.len() as i64;
        Ok(Some(Progress {
            done: self.done,
            total: self.expected.max(self.done),
        }))
    }

    /// Makes the new generation the active one and drops the old.
    pub(super) async fn finish(self) -> Result<RebuildReport, ProductsError> {
        let mut tx = self.store.database.begin().await?;
        let turn = query(
            "UPDATE product_index SET active = building, building = 0
             WHERE id = 1 AND building = $1",
        )
        .bind(self.generation)
        .execute(&mut *tx)
        .await?;
        if turn.rows_affected() == 0 {
            return Err(ProductsError::Superseded);
        }
        query("DELETE FROM product_words WHERE generation <> $1")
            .bind(self.generation)
            .execute(&mut *tx)
            .await?;
        let entries = query_scalar::<Any, i64>("SELECT COUNT(*) FROM product_words")
            .fetch_one(&mut *tx)
            .await?;
        tx.commit().await?;
        Ok(RebuildReport {
            products: self.done,
            entries,
            generation: self.generation,
        })
    }
}
