//! The products server on both databases: the same calls, the same answers.

use std::time::Duration;

use bus_schema::mcp::method;
use serde_json::{Value, json};
use sqlx::{
    Connection as _, Executor as _, PgConnection, SqliteConnection,
    sqlite::{SqliteConnectOptions, SqliteRow},
};
use tests::{eventually, http::Client, platform::Platform, postgres::Postgres, within};
use tokio::task::JoinSet;

/// As many searches as one process of the products server runs at once.
const SEARCHES: usize = 4;

#[tokio::test]
async fn products_keep_their_promises_on_sqlite() {
    let platform = Platform::start("", &["products"]).await;
    within("the promises", promises(&platform)).await;
}

#[tokio::test]
async fn products_keep_their_promises_on_postgresql() {
    let postgres = Postgres::start().await;
    let file = format!("[products]\ndatabase_url = \"{}\"\n", postgres.url);
    let platform = Platform::start(&file, &["products"]).await;
    within("the promises", promises(&platform)).await;
    platform.stop().await;
}

#[tokio::test]
async fn a_cancelled_search_ends_its_statement_in_sqlite() {
    let platform = Platform::start("", &["products"]).await;
    let client = platform.client("products");
    let file = platform.folder().join("data").join("products.db");
    let options = SqliteConnectOptions::new().filename(file);
    let mut database = SqliteConnection::connect_with(&options).await.expect("it opens");
    database
        .execute(ENDLESS)
        .await
        .expect("the catalogue becomes endless");
    let mut witness = SqliteConnection::connect_with(&options.busy_timeout(Duration::ZERO))
        .await
        .expect("it opens");
    for _ in 0..2 {
        let searches = many_searches(&client);
        eventually("a statement runs", async || is_read(&mut witness).await).await;
        drop(searches);
        eventually("no statement runs", async || !is_read(&mut witness).await).await;
    }
    let finite = database.execute("UPDATE rounds SET wanted = 1").await;
    finite.expect("the catalogue is as large as it was");
    only_who_cancels_is_interrupted(&client).await;
}

#[tokio::test]
async fn a_cancelled_search_ends_its_statement_in_postgresql() {
    let postgres = Postgres::start().await;
    let file = format!("[products]\ndatabase_url = \"{}\"\n", postgres.url);
    let platform = Platform::start(&file, &["products"]).await;
    let client = platform.client("products");
    let mut holder = PgConnection::connect(&postgres.url).await.expect("it opens");
    let mut locked = holder.begin().await.expect("it begins");
    let lock = locked
        .execute("LOCK TABLE products IN ACCESS EXCLUSIVE MODE")
        .await;
    lock.expect("nobody can read the catalogue");
    let mut witness = PgConnection::connect(&postgres.url).await.expect("it opens");
    for _ in 0..2 {
        let searches = many_searches(&client);
        eventually("all statements run", async || {
            running(&mut witness).await == SEARCHES as i64
        })
        .await;
        drop(searches);
        eventually("no statement runs", async || running(&mut witness).await == 0).await;
    }
    locked.rollback().await.expect("the catalogue can be read");
    only_who_cancels_is_interrupted(&client).await;
    platform.stop().await;
}

/// Makes the catalogue so large that no search ends in anybody's lifetime.
const ENDLESS: &str = "
    CREATE TABLE rounds (wanted BIGINT NOT NULL);
    INSERT INTO rounds VALUES (1000000000000000);
    CREATE TABLE writes (number BIGINT NOT NULL);
    INSERT INTO writes VALUES (0);
    ALTER TABLE products RENAME TO stored_products;
    CREATE VIEW products AS WITH RECURSIVE round (n) AS
        (SELECT 1 UNION ALL SELECT n + 1 FROM round WHERE n < (SELECT wanted FROM rounds))
        SELECT p.* FROM round CROSS JOIN stored_products p";

/// Begins searches, which are cancelled when this is dropped: their clients go away.
fn many_searches(client: &Client) -> JoinSet<Value> {
    let search = |client: Client| async move { client.call("search", json!({})).await };
    (0..SEARCHES).map(|_| search(client.clone())).collect()
}

/// Whether a statement reads a SQLite database: its log cannot begin anew then, once something was written meanwhile.
async fn is_read(witness: &mut SqliteConnection) -> bool {
    let written = witness.execute("UPDATE writes SET number = number + 1").await;
    written.expect("nobody else writes");
    let checkpoint = "PRAGMA wal_checkpoint(TRUNCATE)";
    let row: SqliteRow = witness.fetch_one(checkpoint).await.expect("a row");
    sqlx::Row::get::<i64, _>(&row, 0) == 1
}

/// How many searches PostgreSQL works for.
async fn running(witness: &mut PgConnection) -> i64 {
    let count = "SELECT COUNT(*) FROM pg_stat_activity
        WHERE state = 'active' AND query LIKE 'SELECT COUNT(*) FROM products%'";
    sqlx::query_scalar(count)
        .fetch_one(witness)
        .await
        .expect("a count")
}

/// Searches from many clients, every other of which gives up sooner or later: all others have their answer.
async fn only_who_cancels_is_interrupted(client: &Client) {
    let searches = (0..80).map(|number| async move {
        let search = client.call("search", json!({ "limit": 1 }));
        if number % 2 == 0 {
            return Some(search.await);
        }
        let patience = async {
            for _ in 0..number {
                tokio::task::yield_now().await;
            }
        };
        tokio::select! { _ = search => None, () = patience => None }
    });
    let searches = within("the answers", futures::future::join_all(searches)).await;
    let answers: Vec<Value> = searches.into_iter().flatten().collect();
    assert_eq!(answers.len(), 40);
    for answer in answers {
        assert_eq!(answer["result"]["structuredContent"]["total"], 420, "{answer}");
    }
}

async fn promises(platform: &Platform) {
    let client = platform.client("products");
    a_page_goes_on_where_the_last_one_ended(&client).await;
    what_was_created_is_found_changed_and_counted(&client).await;
    stock_never_falls_below_zero(&client).await;
    a_rebuilt_index_finds_the_same(&client).await;
    a_deleted_product_is_gone_from_everywhere(&client).await;
    resources_prompts_and_completions_answer(&client).await;
    mistakes_say_what_to_do(&client).await;
}

async fn call(client: &Client, tool: &str, arguments: Value) -> Value {
    let answer = client.call(tool, arguments).await;
    assert_eq!(answer["result"]["isError"], false, "{tool}: {answer}");
    answer["result"]["structuredContent"].clone()
}

async fn ask(client: &Client, called: &str, params: Value) -> Value {
    let response = client.modern(called, params).send().await.expect("an answer");
    response.json::<Value>().await.expect("JSON")["result"].clone()
}

async fn a_page_goes_on_where_the_last_one_ended(client: &Client) {
    let mut seen = Vec::new();
    let mut arguments = json!({ "limit": 100 });
    loop {
        let page = call(client, "search", arguments.clone()).await;
        seen.extend(
            page["items"]
                .as_array()
                .expect("items")
                .iter()
                .map(|item| item["sku"].to_string()),
        );
        match page["next_cursor"].as_str() {
            Some(cursor) => arguments["cursor"] = json!(cursor),
            None => break assert_eq!(seen.len() as u64, page["total"].as_u64().expect("a total")),
        }
    }
    assert!(seen.len() >= 300, "{} products are seeded", seen.len());
    seen.sort();
    seen.dedup();
    assert!(seen.len() >= 300, "no product comes twice");
}

async fn what_was_created_is_found_changed_and_counted(client: &Client) {
    let before = call(client, "list_categories", json!({})).await;
    let created = json!({
        "name": "Quixotic Test Lantern", "description": "Glows.", "category": "Lighting", "brand": "Testbrand",
        "price_cents": 1999, "currency": "USD", "stock": 3, "tags": ["quixotic"],
    });
    let created = call(client, "create", created).await;
    let sku = created["sku"].as_str().expect("a sku").to_owned();
    let found = call(client, "search", json!({ "query": "quixotic" })).await;
    assert_eq!(
        (&found["total"], &found["items"][0]["sku"]),
        (&json!(1), &json!(sku))
    );
    let changed = call(client, "update", json!({ "sku": sku, "price_cents": 2999 })).await;
    assert_eq!(
        (&changed["price_cents"], &changed["name"]),
        (&json!(2999), &json!("Quixotic Test Lantern"))
    );
    let after = call(client, "list_categories", json!({})).await;
    assert_ne!(before, after);
}

async fn stock_never_falls_below_zero(client: &Client) {
    let found = call(client, "search", json!({ "query": "quixotic" })).await;
    let sku = found["items"][0]["sku"].clone();
    let takes = (0..8).map(|_| {
        client.call(
            "adjust_stock",
            json!({ "sku": sku, "delta": -1, "reason": "sold" }),
        )
    });
    let answers = futures::future::join_all(takes).await;
    let sold = answers
        .iter()
        .filter(|answer| answer["result"]["isError"] == false)
        .count();
    assert_eq!(sold, 3, "three were in stock: {answers:?}");
    assert_eq!(call(client, "get", json!({ "sku": sku })).await["stock"], 0);
}

async fn a_rebuilt_index_finds_the_same(client: &Client) {
    let before = call(client, "search", json!({ "query": "desk" })).await;
    call(client, "reindex", json!({})).await;
    assert_eq!(before, call(client, "search", json!({ "query": "desk" })).await);
}

async fn a_deleted_product_is_gone_from_everywhere(client: &Client) {
    let found = call(client, "search", json!({ "query": "quixotic" })).await;
    let sku = found["items"][0]["sku"].clone();
    // Its stock was moved above, so it has a ledger.
    let arguments = json!({ "sku": sku, "confirm": true });
    let deleted = call(client, "delete", arguments.clone()).await;
    assert_eq!(deleted["sku"], sku);
    for tool in ["delete", "get"] {
        let arguments = if tool == "get" {
            json!({ "sku": sku })
        } else {
            arguments.clone()
        };
        let answer = client.call(tool, arguments).await;
        assert_eq!(answer["result"]["isError"], true, "{tool}: {answer}");
    }
    let found = call(client, "search", json!({ "query": "quixotic" })).await;
    assert_eq!(found["total"], 0);
    call(client, "reindex", json!({})).await;
    let found = call(client, "search", json!({ "query": "quixotic" })).await;
    assert_eq!(found["total"], 0);
}

async fn resources_prompts_and_completions_answer(client: &Client) {
    let read = ask(
        client,
        method::RESOURCES_READ,
        json!({ "uri": "product://OFF-0001" }),
    )
    .await;
    let text = read["contents"][0]["text"].as_str().expect("text");
    assert_eq!(
        serde_json::from_str::<Value>(text).expect("JSON")["sku"],
        "OFF-0001"
    );
    let prompt = ask(
        client,
        method::PROMPTS_GET,
        json!({ "name": "describe_product", "arguments": { "sku": "OFF-0001" } }),
    )
    .await;
    assert!(prompt["messages"].to_string().contains("OFF-0001"), "{prompt}");
    let completion = json!({
        "ref": { "type": "ref/prompt", "name": "find_in_category" }, "argument": { "name": "category", "value": "off" },
    });
    let completed = ask(client, method::COMPLETE, completion).await;
    assert_eq!(completed["completion"]["values"], json!(["Office"]));
}

async fn mistakes_say_what_to_do(client: &Client) {
    for (tool, arguments) in [
        ("get", json!({ "sku": "OFF-9999" })),
        (
            "create",
            json!({ "sku": "OFF-0001", "name": "x", "description": "x", "category": "Office", "brand": "x", "price_cents": 1 }),
        ),
        ("search", json!({ "limit": 1000 })),
        ("search", json!({ "cursor": "garbage" })),
        (
            "update",
            json!({ "sku": "OFF-0001", "price_cents": 1, "expected_version": 99 }),
        ),
    ] {
        let answer = client.call(tool, arguments.clone()).await;
        let text = tests::http::text(&answer);
        assert!(
            answer["result"]["isError"] == true && text.len() > 20,
            "{tool} {arguments}: {answer}"
        );
    }
}
