//! Finding products: filters, order and pages. Pages continue after the last item seen, not after a count of items, so that
//! products which come and go meanwhile make no item appear twice or get lost.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::arguments::{SearchArguments, Sort};
use super::error::ProductsError;
use super::index;
use super::interrupt::{Statements, Value};
use super::product::{self, Category, Product};
use super::store::{CATEGORIES, Store};

/// How many items a page has unless the caller says otherwise.
pub(super) const DEFAULT_LIMIT: i64 = 20;
/// More words than this are no search any more.
const MAX_QUERY_WORDS: usize = 12;

/// One page of search results.
#[derive(Debug, Clone, Serialize, JsonSchema)]
pub(super) struct Page {
    /// The products of this page.
    pub(super) items: Vec<Product>,
    /// How many products match in all.
    pub(super) total: i64,
    /// Send it as `cursor` to get the next page; absent on the last one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) next_cursor: Option<String>,
}

impl Store {
    /// Returns one page of the products that match. Dropped before its end, it interrupts the statement that runs for it.
    pub(super) async fn search(&self, wanted: &SearchArguments) -> Result<Page, ProductsError> {
        if !(1..=100).contains(&wanted.limit) {
            return Err(ProductsError::bad_value("limit", "must be between 1 and 100"));
        }
        let mut conditions = Conditions::matching(wanted)?;
        let mut statements = self.database.interruptible.begin().await?;
        let total = conditions.count(&mut statements).await?;
        if let (0, Some(category)) = (total, &wanted.category) {
            let known = statements.fetch_all(CATEGORIES, &[]).await?;
            expect_among(known, category)?;
        }
        if let Some(cursor) = &wanted.cursor {
            conditions.continue_after(&Cursor::decode(cursor, wanted.sort)?);
        }
        let sql = format!(
            "SELECT * FROM products p{} ORDER BY {}, sku LIMIT {}",
            conditions.clause(),
            wanted.sort.order(),
            wanted.limit + 1
        );
        let mut items: Vec<Product> = statements.fetch_all(sql, &conditions.values).await?;
        let mut next_cursor = None;
        if items.len() as i64 > wanted.limit {
            items.pop();
            next_cursor = items.last().map(|last| Cursor::after(last, wanted.sort).encode());
        }
        Ok(Page {
            items,
            total,
            next_cursor,
        })
    }

    /// Makes a search in a category that does not exist an error that names those which do.
    pub(super) async fn expect_category(&self, name: Option<&str>) -> Result<(), ProductsError> {
        let Some(name) = name else { return Ok(()) };
        expect_among(self.categories().await?, name)
    }
}

fn expect_among(known: Vec<Category>, name: &str) -> Result<(), ProductsError> {
    let known: Vec<String> = known.into_iter().map(|category| category.name).collect();
    if known
        .iter()
        .any(|k| k.to_lowercase() == name.trim().to_lowercase())
    {
        return Ok(());
    }
    Err(ProductsError::UnknownCategory {
        category: name.to_owned(),
        known,
    })
}

impl Sort {
    /// The expression that orders the rows; `sku` follows to decide between equals.
    fn order(self) -> &'static str {
        match self {
            Self::Name => "name",
            Self::PriceAsc => "price_cents",
            Self::PriceDesc => "price_cents DESC",
            Self::Newest => "created_at DESC",
            Self::StockDesc => "stock DESC",
        }
    }

    /// The condition for rows that come after the one whose key and SKU are bound as `{key}` and `{sku}`.
    fn after(self, key: &str, sku: &str) -> String {
        let (column, comparison) = match self.order().strip_suffix(" DESC") {
            Some(column) => (column, "<"),
            None => (self.order(), ">"),
        };
        format!("({column} {comparison} {key} OR ({column} = {key} AND sku > {sku}))")
    }

    fn key(self, product: &Product) -> Value {
        match self {
            Self::Name => Value::Text(product.name.clone()),
            Self::Newest => Value::Text(product.created_at.clone()),
            Self::PriceAsc | Self::PriceDesc => Value::Number(product.price_cents),
            Self::StockDesc => Value::Number(product.stock),
        }
    }
}

/// A `WHERE` clause under construction: fixed text with placeholders, and the caller's values apart from it.
#[derive(Debug, Default)]
struct Conditions {
    terms: Vec<String>,
    values: Vec<Value>,
}

impl Conditions {
    fn matching(wanted: &SearchArguments) -> Result<Self, ProductsError> {
        let mut conditions = Self::default();
        for word in query_words(wanted.query.as_deref().unwrap_or_default())? {
            let stem = conditions.bind(Value::Text(index::stem(&word)));
            let pattern = conditions.bind(Value::Text(format!("{word}%"))); // letters and digits only
            conditions.terms.push(format!(
                "p.sku IN (SELECT w.sku FROM product_words w
                           WHERE w.generation = (SELECT active FROM product_index WHERE id = 1)
                           AND w.stem = {stem} AND w.word LIKE {pattern})"
            ));
        }
        if let Some(category) = &wanted.category {
            let category = product::text("category", category, 40)?;
            let name = conditions.bind(Value::Text(category));
            conditions.terms.push(format!("LOWER(category) = LOWER({name})"));
        }
        let (min, max) = (wanted.min_price_cents, wanted.max_price_cents);
        if let (Some(min), Some(max)) = (min, max)
            && min > max
        {
            let problem = "must not be above max_price_cents";
            return Err(ProductsError::bad_value("min_price_cents", problem));
        }
        if let Some(cents) = min {
            let cents = conditions.bind(Value::Number(cents));
            conditions.terms.push(format!("price_cents >= {cents}"));
        }
        if let Some(cents) = max {
            let cents = conditions.bind(Value::Number(cents));
            conditions.terms.push(format!("price_cents <= {cents}"));
        }
        match wanted.in_stock {
            Some(true) => conditions.terms.push("stock > 0".to_owned()),
            Some(false) => conditions.terms.push("stock = 0".to_owned()),
            None => {}
        }
        Ok(conditions)
    }

    fn continue_after(&mut self, cursor: &Cursor) {
        let key = self.bind(cursor.key.clone());
        let sku = self.bind(Value::Text(cursor.sku.clone()));
        self.terms.push(cursor.sort.after(&key, &sku));
    }

    /// Keeps a value and returns its placeholder.
    fn bind(&mut self, value: Value) -> String {
        self.values.push(value);
        format!("${}", self.values.len())
    }

    fn clause(&self) -> String {
        if self.terms.is_empty() {
            return String::new();
        }
        format!(" WHERE {}", self.terms.join(" AND "))
    }

    /// Counts the products that match.
    async fn count(&self, statements: &mut Statements) -> Result<i64, ProductsError> {
        let sql = format!("SELECT COUNT(*) FROM products p{}", self.clause());
        let counted: Vec<(i64,)> = statements.fetch_all(sql, &self.values).await?;
        Ok(counted.first().map_or(0, |(total,)| *total))
    }
}

/// Returns the words to look for. A plural `s` is dropped, so that `lamps` finds `lamp`; the prefix search does the rest.
fn query_words(query: &str) -> Result<Vec<String>, ProductsError> {
    let words: Vec<String> = index::words(query)
        .into_iter()
        .map(|word| match word.strip_suffix('s') {
            Some(singular) if singular.chars().count() >= 3 => singular.to_owned(),
            _ => word,
        })
        .collect();
    if words.is_empty() && !query.trim().is_empty() {
        let problem = "has no letters or digits: send words, or leave it out to list everything";
        return Err(ProductsError::bad_value("query", problem));
    }
    if words.len() > MAX_QUERY_WORDS {
        let problem = format!("must have at most {MAX_QUERY_WORDS} different words");
        return Err(ProductsError::bad_value("query", problem));
    }
    Ok(words)
}

/// The place after one item in one order. On the wire it is hexadecimal, to be sent back and not to be read.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Cursor {
    sort: Sort,
    key: Value,
    sku: String,
}

impl Cursor {
    fn after(product: &Product, sort: Sort) -> Self {
        Self {
            sort,
            key: sort.key(product),
            sku: product.sku.clone(),
        }
    }

    fn encode(&self) -> String {
        let json = serde_json::json!(self).to_string();
        json.bytes().map(|byte| format!("{byte:02x}")).collect()
    }

    fn decode(text: &str, sort: Sort) -> Result<Self, ProductsError> {
        let problem =
            "is not one this search gave out: send next_cursor unchanged and with the same sort, or none";
        Self::parse(text)
            .filter(|cursor| cursor.sort == sort)
            .ok_or_else(|| ProductsError::bad_value("cursor", problem))
    }

    fn parse(text: &str) -> Option<Self> {
        if !text.is_ascii() || !text.len().is_multiple_of(2) {
            return None;
        }
        let bytes: Option<Vec<u8>> = (0..text.len())
            .step_by(2)
            .map(|at| u8::from_str_radix(&text[at..at + 2], 16).ok())
            .collect();
        let cursor: Self = serde_json::from_slice(&bytes?).ok()?;
        let key_fits = match (&cursor.key, cursor.sort) {
            (Value::Text(text), Sort::Name | Sort::Newest) => !text.contains('\0'),
            (Value::Number(_), Sort::PriceAsc | Sort::PriceDesc | Sort::StockDesc) => true,
            _ => false,
        };
        (key_fits && !cursor.sku.contains('\0')).then_some(cursor)
    }
}

#[cfg(test)]
mod tests {
    use super::{Cursor, Sort, Value, query_words};

    #[test]
    fn a_query_becomes_lower_case_words_without_plural() {
        let check = |query: &str, expected: &[&str]| {
            assert_eq!(query_words(query).expect("words"), expected, "{query}");
        };
        check("", &[]);
        check("  Oak LAMPS ", &["lamp", "oak"]);
        check("OFF-0137", &["0137", "off"]);
        check("bus café", &["bus", "café"]);
        assert!(query_words("%!").is_err());
    }

    #[test]
    fn a_cursor_survives_the_round_trip_and_nothing_else_passes_for_one() {
        let key = Value::Text("Åre \"Lamp\"".to_owned());
        let cursor = Cursor {
            sort: Sort::Name,
            key,
            sku: "LIG-0001".to_owned(),
        };
        let text = cursor.encode();
        assert_eq!(Cursor::decode(&text, Sort::Name).expect("decodes"), cursor);
        for (text, sort) in [
            ("", Sort::Name),
            ("7b7", Sort::Name),
            ("Ωx", Sort::Name),
            (&text, Sort::Newest),
        ] {
            assert!(Cursor::decode(text, sort).is_err(), "{text}");
        }
    }
}
