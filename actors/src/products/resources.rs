//! Resources: one product each under `product://{sku}`, and two fixed ones about the whole catalogue. All are JSON.

use rmcp::ErrorData;
use rmcp::model::{ReadResourceResult, Resource, ResourceContents, ResourceTemplate};
use serde_json::json;

use super::error::ProductsError;
use super::product::Sku;
use super::store::Store;

/// The template of the resources that are products.
pub(super) const PRODUCT_TEMPLATE: &str = "product://{sku}";

/// The media type of every resource here.
pub(super) const MEDIA_TYPE: &str = "application/json";

const CATEGORIES: &str = "product://categories";
const LOW_STOCK: &str = "product://low_stock";

/// Returns the URI of a product.
pub(super) fn uri(sku: &str) -> String {
    PRODUCT_TEMPLATE.replace("{sku}", sku)
}

/// Returns the fixed resources.
pub(super) fn list() -> Vec<Resource> {
    vec![
        Resource::new(CATEGORIES, "categories")
            .with_title("Categories")
            .with_description("All categories and how many products each holds")
            .with_mime_type(MEDIA_TYPE),
        Resource::new(LOW_STOCK, "low_stock")
            .with_title("Low stock")
            .with_description("The products that are sold out or nearly so, the scarcest first, 100 at most")
            .with_mime_type(MEDIA_TYPE),
    ]
}

/// Returns the resource templates.
pub(super) fn templates() -> Vec<ResourceTemplate> {
    vec![
        ResourceTemplate::new(PRODUCT_TEMPLATE, "product")
            .with_title("Product")
            .with_description("One product with its latest movements of stock")
            .with_mime_type(MEDIA_TYPE),
    ]
}

/// Reads one resource. One that does not exist is invalid params with the URI as data (MCP, server/resources).
pub(super) async fn read(store: &Store, uri: &str) -> Result<ReadResourceResult, ErrorData> {
    let text = match uri {
        CATEGORIES => json!({ "categories": store.categories().await? }).to_string(),
        LOW_STOCK => json!({ "items": store.low_stock().await? }).to_string(),
        _ => product(store, uri).await?,
    };
    let contents = ResourceContents::text(text, uri).with_mime_type(MEDIA_TYPE);
    Ok(ReadResourceResult::new(vec![contents]))
}

async fn product(store: &Store, uri: &str) -> Result<String, ErrorData> {
    let sku = uri
        .strip_prefix("product://")
        .and_then(|sku| Sku::parse(sku).ok());
    let sku = sku.ok_or_else(|| not_found(uri))?;
    match store.details(&sku).await {
        Ok(details) => Ok(json!(details).to_string()),
        Err(ProductsError::UnknownSku { .. }) => Err(not_found(uri)),
        Err(error) => Err(error.into()),
    }
}

fn not_found(uri: &str) -> ErrorData {
    ErrorData::invalid_params("resource not found", Some(json!({ "uri": uri })))
}
