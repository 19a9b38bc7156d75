//! Completion of what a user types into a prompt's argument or into the resource template: SKUs, category names, tones.

use rmcp::ErrorData;
use rmcp::model::{CompleteRequestParams, CompleteResult, CompletionInfo, Reference};

use super::prompts::TONES;
use super::resources::PRODUCT_TEMPLATE;
use super::store::Store;

/// What an argument takes.
enum Completes {
    Category,
    Sku,
    Tone,
}

/// Returns the values that begin with what was typed, in any case.
pub(super) async fn complete(
    store: &Store,
    request: &CompleteRequestParams,
) -> Result<CompleteResult, ErrorData> {
    let typed = request.argument.value.trim();
    let (values, total) = match argument(&request.r#ref, &request.argument.name)? {
        Completes::Sku => store.skus(typed, CompletionInfo::MAX_VALUES as i64).await?,
        Completes::Category => {
            let names = store
                .categories()
                .await?
                .into_iter()
                .map(|category| category.name);
            beginning_with(typed, names)
        }
        Completes::Tone => beginning_with(typed, TONES.into_iter().map(str::to_owned)),
    };
    let total = u32::try_from(total).unwrap_or(u32::MAX);
    let has_more = values.len() < total as usize;
    let completion = CompletionInfo::with_pagination(values, Some(total), has_more)
        .map_err(|problem| ErrorData::internal_error(problem, None))?;
    Ok(CompleteResult::new(completion))
}

fn argument(reference: &Reference, argument: &str) -> Result<Completes, ErrorData> {
    let owner = match reference {
        Reference::Prompt(prompt) => &prompt.name,
        Reference::Resource(resource) => &resource.uri,
        _ => return Err(ErrorData::invalid_params("unknown kind of reference", None)),
    };
    match (owner.as_str(), argument) {
        ("describe_product" | PRODUCT_TEMPLATE, "sku") => Ok(Completes::Sku),
        ("describe_product", "tone") => Ok(Completes::Tone),
        ("find_in_category", "category") => Ok(Completes::Category),
        _ => {
            let problem = format!("{owner} has no argument {argument} to complete");
            Err(ErrorData::invalid_params(problem, None))
        }
    }
}

fn beginning_with(typed: &str, values: impl Iterator<Item = String>) -> (Vec<String>, i64) {
    let typed = typed.to_lowercase();
    let mut values: Vec<String> = values
        .filter(|value| value.to_lowercase().starts_with(&typed))
        .collect();
    let total = values.len() as i64;
    values.truncate(CompletionInfo::MAX_VALUES);
    (values, total)
}
