//! Prompts: texts a user picks, with the products they are about embedded, so that a model need not fetch them first.

use rmcp::ErrorData;
use rmcp::handler::server::router::prompt::PromptRouter;
use rmcp::handler::server::wrapper::Parameters;
use rmcp::model::{GetPromptResult, PromptMessage, Role};
use rmcp::{prompt, prompt_router};
use schemars::JsonSchema;
use serde::Deserialize;
use serde_json::json;

use super::arguments::SearchArguments;
use super::error::ProductsError;
use super::product::{Product, Sku};
use super::resources;
use super::server::Products;

/// How many products `find_in_category` shows.
const SHOWN: i64 = 10;

/// The tones of a product text, in alphabetical order.
pub(super) const TONES: [&str; 4] = ["factual", "friendly", "luxurious", "playful"];

#[derive(Debug, Deserialize, JsonSchema)]
struct DescribeArguments {
    /// The SKU of the product to describe.
    sku: String,
    /// How the text should sound: factual (the default), friendly, luxurious or playful.
    tone: Option<String>,
}

#[derive(Debug, Deserialize, JsonSchema)]
struct FindArguments {
    /// The category to look in.
    category: String,
}

#[prompt_router]
#[expect(
    missing_docs,
    reason = "#[prompt] generates public functions and gives them no docs"
)]
impl Products {
    /// Writes a text for the shop about one product, in the tone you choose.
    #[prompt(title = "Describe a product")]
    async fn describe_product(
        &self,
        Parameters(wanted): Parameters<DescribeArguments>,
    ) -> Result<GetPromptResult, ErrorData> {
        let tone = wanted.tone.as_deref().unwrap_or("factual");
        if !TONES.contains(&tone) {
            let problem = format!("must be one of {}", TONES.join(", "));
            return Err(ProductsError::bad_value("tone", problem).into());
        }
        let product = self.store.get(&Sku::parse(&wanted.sku)?).await?;
        let task = format!(
            "Write a {tone} text of 60 to 90 words for the shop page of \"{}\". Use only what the product record says. \
             Do not mention the stock, and give the price once.",
            product.name
        );
        let messages = vec![PromptMessage::new_text(Role::User, task), embedded(&product)];
        Ok(GetPromptResult::new(messages).with_description(format!("A {tone} text about {}", product.sku)))
    }

    /// Helps to choose a product from one category.
    #[prompt(title = "Find a product in a category")]
    async fn find_in_category(
        &self,
        Parameters(wanted): Parameters<FindArguments>,
    ) -> Result<GetPromptResult, ErrorData> {
        let search = SearchArguments {
            category: Some(wanted.category),
            in_stock: Some(true),
            limit: SHOWN,
            ..SearchArguments::default()
        };
        self.store.expect_category(search.category.as_deref()).await?;
        let page = self.store.search(&search).await?;
        let category = search.category.unwrap_or_default();
        let task = format!(
            "I want to buy something from the category {category:?}. {} products are in stock, the first {} by name are \
             attached; find more with the search tool (category {category:?}, in_stock true). Ask me what I need and \
             what I want to spend, then recommend at most three by SKU, with the price and the reason.",
            page.total,
            page.items.len()
        );
        let mut messages = vec![PromptMessage::new_text(Role::User, task)];
        messages.extend(page.items.iter().map(embedded));
        Ok(GetPromptResult::new(messages).with_description(format!("Choosing a product from {category}")))
    }

    /// Builds the router of both prompts.
    pub(super) fn prompts() -> PromptRouter<Self> {
        Self::prompt_router()
    }
}

fn embedded(product: &Product) -> PromptMessage {
    let (uri, text) = (resources::uri(&product.sku), json!(product).to_string());
    let media_type = resources::MEDIA_TYPE.to_owned();
    PromptMessage::new_resource(Role::User, uri, Some(media_type), Some(text), None, None, None)
}
