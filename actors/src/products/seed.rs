//! The first catalogue: some 400 products built from the word lists in `seed.txt` by a fixed pseudo-random sequence, the
//! same on every machine, so that examples and tests can name products.

use sqlx::{Any, query_scalar};

use super::database::Database;
use super::error::ProductsError;
use super::index;
use super::product::{Draft, Product, Sku};
use super::{store, timestamp};

/// The word lists; the file explains its format.
const WORD_LISTS: &str = include_str!("seed.txt");

/// Where the pseudo-random sequence starts. Changing it changes the catalogue.
const SEQUENCE_START: u64 = 0x7472_756e_6b6c_696e;

/// The first product was created on 2025-01-06 at 08:00 UTC.
const FIRST_CREATED_SECS: u64 = 1_736_150_400;

const CLOSINGS: [&str; 6] = [
    "Comes with a two-year warranty.",
    "Packed without plastic.",
    "Ready to use out of the box.",
    "Spare parts are available.",
    "A favourite of our customers.",
    "Tested for everyday use.",
];

/// Seeds a catalogue without products. Processes that start at once queue for the index lock, and only the first finds the
/// table empty.
pub(super) async fn fill_if_empty(database: &Database) -> Result<(), ProductsError> {
    let mut tx = database.begin().await?;
    let generations = index::lock(&mut tx).await?;
    let count = query_scalar::<Any, i64>("SELECT COUNT(*) FROM products")
        .fetch_one(&mut *tx)
        .await?;
    if count > 0 {
        return Ok(());
    }
    let products = catalogue();
    for product in &products {
        store::insert(&mut tx, product).await?;
        index::write(&mut tx, &generations, product).await?;
    }
    sqlx::query("UPDATE product_index SET last_number = $1 WHERE id = 1")
        .bind(products.len() as i64)
        .execute(&mut *tx)
        .await?;
    tx.commit().await?;
    tracing::info!(products = products.len(), "seeded the products catalogue");
    Ok(())
}

/// Builds the catalogue: every kind in every finish, category by category.
fn catalogue() -> Vec<Product> {
    let mut random = Sequence(SEQUENCE_START);
    let mut products = Vec::new();
    for section in sections() {
        for kind in &section.kinds {
            for finish in &section.finishes {
                let number = products.len() as u64 + 1;
                let draft = draft(&section, kind, finish, &mut random);
                let sku = Sku::numbered(section.category, number as i64);
                let created = FIRST_CREATED_SECS + number * 39_600 + random.below(3600);
                let updated = created + random.below(30) * 86_400;
                products.push(draft.into_product(
                    &sku,
                    &timestamp::iso8601(created, 0),
                    &timestamp::iso8601(updated, 0),
                ));
            }
        }
    }
    products
}

fn draft(section: &Section, kind: &Kind, finish: &Finish, random: &mut Sequence) -> Draft {
    let brand = section.brands[random.below(section.brands.len() as u64) as usize];
    let closing = CLOSINGS[random.below(CLOSINGS.len() as u64) as usize];
    let cents = kind.cents * finish.percent / 100;
    let spread = cents * (random.below(21) as i64 - 10) / 100;
    let sold_out = random.below(12) == 0;
    let mut tags: Vec<String> = kind.tags.split(", ").map(str::to_owned).collect();
    tags.push(finish.name.to_lowercase());
    Draft {
        sku: None,
        name: format!("{brand} {} {}", finish.name, kind.name),
        description: format!("{} {} {closing}", kind.sentence, finish.sentence),
        category: section.category.to_owned(),
        brand: brand.to_owned(),
        price_cents: (cents + spread) / 100 * 100 + 99,
        currency: "USD".to_owned(),
        stock: if sold_out { 0 } else { 1 + random.below(180) as i64 },
        tags,
    }
}

/// The word lists of one category.
struct Section {
    category: &'static str,
    brands: Vec<&'static str>,
    finishes: Vec<Finish>,
    kinds: Vec<Kind>,
}

/// A material, colour or edition in which every kind of a category comes.
struct Finish {
    name: &'static str,
    /// The price in per cent of the kind's.
    percent: i64,
    sentence: &'static str,
}

/// A kind of product.
struct Kind {
    name: &'static str,
    cents: i64,
    tags: &'static str,
    sentence: &'static str,
}

fn sections() -> Vec<Section> {
    let mut sections: Vec<Section> = Vec::new();
    for line in WORD_LISTS
        .lines()
        .filter(|line| !line.is_empty() && !line.starts_with('#'))
    {
        let parsed = match sections.last_mut() {
            Some(section) if line.starts_with(['~', '+']) => add(section, line),
            _ => heading(line).map(|section| sections.push(section)),
        };
        parsed.expect("the embedded word lists are well formed, as the tests of this file check");
    }
    sections
}

fn heading(line: &'static str) -> Option<Section> {
    let (category, brands) = line.split_once(": ")?;
    let brands = brands.split(", ").collect();
    Some(Section {
        category,
        brands,
        finishes: Vec::new(),
        kinds: Vec::new(),
    })
}

fn add(section: &mut Section, line: &'static str) -> Option<()> {
    let mut fields = line.get(2..)?.split(" | ");
    let name = fields.next()?;
    let number = fields.next()?.parse().ok()?;
    if line.starts_with('~') {
        section.finishes.push(Finish {
            name,
            percent: number,
            sentence: fields.next()?,
        });
    } else {
        let (tags, sentence) = (fields.next()?, fields.next()?);
        section.kinds.push(Kind {
            name,
            cents: number,
            tags,
            sentence,
        });
    }
    Some(())
}

/// A pseudo-random sequence (`SplitMix64`): small, fixed, and good enough for prices.
struct Sequence(u64);

impl Sequence {
    /// Returns the next number from 0 up to, not including, `bound`.
    fn below(&mut self, bound: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (mixed ^ (mixed >> 31)) % bound
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::catalogue;

    #[test]
    fn the_catalogue_is_the_same_every_time_and_no_name_occurs_twice() {
        let products = catalogue();
        assert_eq!(products, catalogue());
        assert_eq!(products.len(), 420);
        let names: BTreeSet<_> = products.iter().map(|p| &p.name).collect();
        assert_eq!(names.len(), products.len());
        let categories: BTreeSet<_> = products.iter().map(|p| &p.category).collect();
        let prefixes: BTreeSet<_> = products.iter().map(|p| &p.sku[..3]).collect();
        assert_eq!((categories.len(), prefixes.len()), (12, 12));
        assert!(products.iter().any(|p| p.stock == 0) && products.iter().all(|p| p.stock >= 0));
        assert!(
            products
                .iter()
                .all(|p| p.price_cents > 0 && p.updated_at >= p.created_at)
        );
    }
}
