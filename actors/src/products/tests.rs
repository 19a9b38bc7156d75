//! The promises of the products server, on a SQLite file of each test's own. Two stores on one file stand for two processes.

use std::collections::BTreeSet;
use std::convert::Infallible;
use std::future::{Future, pending, ready};
use std::time::Duration;

use rmcp::model::{ClientRequest, RequestId, ServerJsonRpcMessage};
use rmcp::service::{RequestContext, RxJsonRpcMessage, Service, serve_directly};
use rmcp::transport::Transport;
use rmcp::{ErrorData, RoleServer};
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};
use tokio::task::JoinSet;

use super::Products;
use super::arguments::{SearchArguments, Sort};
use super::error::ProductsError;
use super::index::Rebuild;
use super::interrupt::AT_ONCE;
use super::product::{Changes, Draft, Sku};
use super::store::Store;

/// A database URL that nobody else uses, and what keeps it alive.
fn fresh_url() -> (String, TempDir) {
    let folder = tempfile::tempdir().unwrap();
    let url = format!("sqlite://{}/products.db", folder.path().display());
    (url, folder)
}

fn sku(text: &str) -> Sku {
    Sku::parse(text).unwrap()
}

fn draft(name: &str, stock: i64) -> Draft {
    Draft {
        sku: None,
        name: name.to_owned(),
        description: "Made for a test.".to_owned(),
        category: "office".to_owned(),
        brand: "Acme".to_owned(),
        price_cents: 1999,
        currency: "USD".to_owned(),
        stock,
        tags: vec!["sample".to_owned()],
    }
}

/// Returns the SKUs that a query finds.
async fn found(store: &Store, query: &str) -> Vec<String> {
    let wanted = SearchArguments {
        query: Some(query.to_owned()),
        limit: 100,
        ..Default::default()
    };
    store
        .search(&wanted)
        .await
        .unwrap()
        .items
        .into_iter()
        .map(|p| p.sku)
        .collect()
}

#[tokio::test]
async fn processes_that_start_at_once_seed_the_catalogue_once() {
    let (url, _folder) = fresh_url();
    let mut starts = JoinSet::new();
    for _ in 0..4 {
        let url = url.clone();
        starts.spawn(async move { Store::open(&url).await });
    }
    for started in starts.join_all().await {
        started.unwrap();
    }
    let store = Store::open(&url).await.unwrap();
    let categories = store.categories().await.unwrap();
    assert_eq!(categories.len(), 12);
    assert_eq!(categories.iter().map(|c| c.count).sum::<i64>(), 420);
    let created = store.create(draft("Glimmerfoil", 1)).await.unwrap();
    assert_eq!(
        (created.sku.as_str(), created.category.as_str()),
        ("OFF-0421", "Office")
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn stock_never_falls_below_zero_however_many_sell_at_once() {
    let (url, _folder) = fresh_url();
    let stores = [Store::open(&url).await.unwrap(), Store::open(&url).await.unwrap()];
    let product = stores[0].create(draft("Glimmerfoil", 100)).await.unwrap();
    let mut sellers = JoinSet::new();
    for seller in 0..32 {
        let (store, sku) = (stores[seller % 2].clone(), sku(&product.sku));
        sellers.spawn(async move {
            let mut sold = 0;
            for _ in 0..10 {
                match store.adjust_stock(&sku, -1, "sold".to_owned()).await {
                    Ok(_) => sold += 1,
                    Err(ProductsError::StockOutOfRange { stock: 0, .. }) => {}
                    Err(error) => panic!("{error}: {error:?}"),
                }
            }
            sold
        });
    }
    assert_eq!(sellers.join_all().await.into_iter().sum::<i32>(), 100);
    let details = stores[0].details(&sku(&product.sku)).await.unwrap();
    assert_eq!((details.product.stock, details.product.version), (0, 101));
    assert_eq!(details.stock_changes.len(), 5);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn creators_in_two_processes_never_draw_the_same_sku() {
    let (url, _folder) = fresh_url();
    let stores = [Store::open(&url).await.unwrap(), Store::open(&url).await.unwrap()];
    let mut creators = JoinSet::new();
    for creator in 0..16 {
        let store = stores[creator % 2].clone();
        creators.spawn(async move { store.create(draft("Glimmerfoil", 1)).await.unwrap().sku });
    }
    let skus: BTreeSet<String> = creators.join_all().await.into_iter().collect();
    assert_eq!(skus.len(), 16);
    assert_eq!(found(&stores[0], "glimmerfoil").await.len(), 16);
}

#[tokio::test]
async fn a_created_or_updated_product_is_found_at_once_by_its_words_alone() {
    let (url, _folder) = fresh_url();
    let store = Store::open(&url).await.unwrap();
    let product = store.create(draft("Glimmerfoil Über-Lamp", 1)).await.unwrap();
    for query in ["glimmerfoil", "GLIMM", "über lamps", "sample acme", &product.sku] {
        assert_eq!(found(&store, query).await, [product.sku.as_str()], "{query}");
    }
    let changes = Changes {
        name: Some("Quillstone".to_owned()),
        ..Default::default()
    };
    let updated = store
        .update(&sku(&product.sku), changes.clone(), Some(1))
        .await
        .unwrap();
    assert_eq!((updated.version, updated.stock), (2, 1));
    assert_eq!(found(&store, "quillstone").await, [product.sku.as_str()]);
    assert!(found(&store, "glimmerfoil").await.is_empty());
    let repeated = store.update(&sku(&product.sku), changes, Some(1)).await.unwrap();
    assert_eq!(repeated, updated);
    let late = Changes {
        price_cents: Some(1),
        ..Default::default()
    };
    let conflict = store.update(&sku(&product.sku), late, Some(1)).await.unwrap_err();
    assert!(matches!(
        conflict,
        ProductsError::VersionConflict {
            expected: 1,
            actual: 2,
            ..
        }
    ));
}

#[tokio::test]
async fn a_product_is_deleted_with_all_that_belongs_to_it_and_only_as_it_was_seen() {
    let (url, _folder) = fresh_url();
    let store = Store::open(&url).await.unwrap();
    let seen = store.create(draft("Glimmerfoil", 3)).await.unwrap();
    let sku = sku(&seen.sku);
    let mut rebuild = Rebuild::start(&store, 1000).await.unwrap();
    rebuild.next_batch().await.unwrap();
    let sold = store.adjust_stock(&sku, -1, "sold".to_owned()).await.unwrap();
    let conflict = store.delete(&seen).await.unwrap_err();
    assert!(matches!(
        conflict,
        ProductsError::VersionConflict {
            expected: 1,
            actual: 2,
            ..
        }
    ));
    store.delete(&sold).await.unwrap();
    assert!(matches!(
        store.delete(&sold).await,
        Err(ProductsError::UnknownSku { .. })
    ));
    assert!(found(&store, "glimmerfoil").await.is_empty());
    while rebuild.next_batch().await.unwrap().is_some() {}
    assert_eq!(rebuild.finish().await.unwrap().products, 421);
    assert!(found(&store, "glimmerfoil").await.is_empty());
    let again = store.create(draft("Glimmerfoil", 1)).await.unwrap();
    assert_ne!(again.sku, seen.sku, "a number is given out once");
    let details = store.details(&self::sku(&again.sku)).await.unwrap();
    assert!(details.stock_changes.is_empty());
}

#[tokio::test]
async fn pages_show_every_product_exactly_once_in_every_order() {
    let (url, _folder) = fresh_url();
    let store = Store::open(&url).await.unwrap();
    for sort in [
        Sort::Name,
        Sort::PriceAsc,
        Sort::PriceDesc,
        Sort::Newest,
        Sort::StockDesc,
    ] {
        let mut wanted = SearchArguments {
            limit: 37,
            sort,
            ..Default::default()
        };
        let mut seen = Vec::new();
        loop {
            let page = store.search(&wanted).await.unwrap();
            assert_eq!(page.total, 420);
            seen.extend(page.items.into_iter().map(|product| product.sku));
            wanted.cursor = page.next_cursor;
            if wanted.cursor.is_none() {
                break;
            }
        }
        let distinct: BTreeSet<&String> = seen.iter().collect();
        assert_eq!((seen.len(), distinct.len()), (420, 420), "{sort:?}");
    }
}

#[tokio::test]
async fn a_search_beyond_its_time_is_stopped_and_the_next_one_is_not() {
    let (url, _folder) = fresh_url();
    let mut store = Store::open(&url).await.unwrap();
    let mut tx = store.database.begin().await.unwrap();
    for statement in [
        "CREATE TABLE rounds (wanted BIGINT NOT NULL)",
        "INSERT INTO rounds VALUES (1000000000000000)",
        "ALTER TABLE products RENAME TO stored_products",
        "CREATE VIEW products AS WITH RECURSIVE round (n) AS
         (SELECT 1 UNION ALL SELECT n + 1 FROM round WHERE n < (SELECT wanted FROM rounds))
         SELECT p.* FROM round CROSS JOIN stored_products p",
    ] {
        sqlx::query(statement).execute(&mut *tx).await.unwrap();
    }
    tx.commit().await.unwrap();
    let wanted = SearchArguments {
        limit: 10,
        ..Default::default()
    };
    store.database.interruptible.limit(Duration::ZERO);
    for _ in 0..2 * AT_ONCE {
        let stopped = store.search(&wanted).await.unwrap_err();
        assert!(matches!(stopped, ProductsError::TooSlow { .. }), "{stopped:?}");
    }
    let mut tx = store.database.begin().await.unwrap();
    sqlx::query("UPDATE rounds SET wanted = 1")
        .execute(&mut *tx)
        .await
        .unwrap();
    tx.commit().await.unwrap();
    store.database.interruptible.limit(Duration::from_secs(3600));
    for _ in 0..2 * AT_ONCE {
        assert_eq!(store.search(&wanted).await.unwrap().total, 420);
    }
}

#[tokio::test]
async fn a_reindex_that_is_dropped_leaves_the_index_in_use() {
    let (url, _folder) = fresh_url();
    let store = Store::open(&url).await.unwrap();
    let lamps = found(&store, "desk lamp").await;
    assert_eq!(lamps.len(), 5);
    let mut dropped = Rebuild::start(&store, 100).await.unwrap();
    let progress = dropped.next_batch().await.unwrap().unwrap();
    assert_eq!((progress.done, progress.total), (100, 420));
    drop(dropped);
    assert_eq!(found(&store, "desk lamp").await, lamps);
    let created = store.create(draft("Glimmerfoil", 1)).await.unwrap();
    assert_eq!(found(&store, "glimmerfoil").await, [created.sku.as_str()]);
}

#[tokio::test]
async fn edits_during_a_reindex_are_in_the_new_index_and_only_the_latest_reindex_finishes() {
    let (url, _folder) = fresh_url();
    let store = Store::open(&url).await.unwrap();
    let mut overtaken = Rebuild::start(&store, 100).await.unwrap();
    overtaken.next_batch().await.unwrap();
    let mut rebuild = Rebuild::start(&store, 300).await.unwrap();
    rebuild.next_batch().await.unwrap();
    let rename = |name: &str| Changes {
        name: Some(name.to_owned()),
        ..Default::default()
    };
    store
        .update(&sku("OFF-0001"), rename("Quillstone"), None)
        .await
        .unwrap(); // in a later batch
    store
        .update(&sku("AUD-0036"), rename("Larkspindle"), None)
        .await
        .unwrap(); // in the batch done
    store.create(draft("Glimmerfoil", 1)).await.unwrap();
    while rebuild.next_batch().await.unwrap().is_some() {}
    let report = rebuild.finish().await.unwrap();
    assert_eq!(report.products, 421);
    assert_eq!(found(&store, "quillstone").await, ["OFF-0001"]);
    assert_eq!(found(&store, "larkspindle").await, ["AUD-0036"]);
    assert_eq!(found(&store, "glimmerfoil").await, ["OFF-0421"]);
    assert_eq!(found(&store, "desk lamp").await.len(), 5);
    assert!(matches!(
        overtaken.next_batch().await,
        Err(ProductsError::Superseded)
    ));
    assert!(matches!(overtaken.finish().await, Err(ProductsError::Superseded)));
}

/// A server with a peer whose messages end up in a channel.
struct Session {
    server: Products,
    context: RequestContext<RoleServer>,
    sent: UnboundedReceiver<ServerJsonRpcMessage>,
    _folder: TempDir,
}

/// A transport that sends into a channel and never receives.
struct Outbox(UnboundedSender<ServerJsonRpcMessage>);

impl Transport<RoleServer> for Outbox {
    type Error = Infallible;

    fn send(
        &mut self,
        item: ServerJsonRpcMessage,
    ) -> impl Future<Output = Result<(), Infallible>> + Send + 'static {
        let _ = self.0.send(item);
        ready(Ok(()))
    }

    async fn receive(&mut self) -> Option<RxJsonRpcMessage<RoleServer>> {
        pending().await
    }

    async fn close(&mut self) -> Result<(), Infallible> {
        Ok(())
    }
}

impl Session {
    async fn open() -> Self {
        let (url, _folder) = fresh_url();
        let server = Products::open(&url).await.unwrap();
        let (outbox, sent) = unbounded_channel();
        let service = serve_directly(server.clone(), Outbox(outbox), None);
        let context = RequestContext::new(RequestId::Number(1), service.peer().clone());
        tokio::spawn(service.waiting());
        Self {
            server,
            context,
            sent,
            _folder,
        }
    }

    async fn request(&self, method: &str, params: Value) -> Result<Value, ErrorData> {
        let request: ClientRequest =
            serde_json::from_value(json!({ "method": method, "params": params })).unwrap();
        let answer = self.server.handle_request(request, self.context.clone()).await?;
        Ok(serde_json::to_value(answer).unwrap())
    }

    async fn call(&self, tool: &str, arguments: Value) -> Value {
        self.request("tools/call", json!({ "name": tool, "arguments": arguments }))
            .await
            .unwrap()
    }
}

#[tokio::test]
async fn every_tool_says_what_it_takes_returns_and_does() {
    let session = Session::open().await;
    let listed = session.request("tools/list", json!({})).await.unwrap();
    let mut names = Vec::new();
    for tool in listed["tools"].as_array().unwrap() {
        names.push(tool["name"].as_str().unwrap().to_owned());
        assert!(
            tool["title"].is_string() && tool["description"].is_string(),
            "{tool}"
        );
        assert_eq!(tool["inputSchema"]["additionalProperties"], false, "{tool}");
        assert_eq!(tool["outputSchema"]["type"], "object", "{tool}");
        assert_eq!(tool["annotations"]["openWorldHint"], false, "{tool}");
        for (_, property) in tool["inputSchema"]["properties"]
            .as_object()
            .into_iter()
            .flatten()
        {
            assert!(property["description"].is_string(), "{tool}");
        }
    }
    let expected = [
        "adjust_stock",
        "create",
        "delete",
        "find_products",
        "get",
        "list_categories",
        "reindex",
        "search",
        "update",
    ];
    assert_eq!(names, expected);
}

#[tokio::test]
async fn a_result_is_the_same_as_text_and_as_structured_content() {
    let session = Session::open().await;
    let answer = session
        .call("search", json!({ "query": "desk", "limit": 2 }))
        .await;
    let text: Value = serde_json::from_str(answer["content"][0]["text"].as_str().unwrap()).unwrap();
    assert_eq!(text, answer["structuredContent"]);
    assert_eq!(text["items"].as_array().unwrap().len(), 2);
    assert!(text["total"].as_i64() > Some(2) && text["next_cursor"].is_string());
}

#[tokio::test]
async fn a_failed_call_is_a_result_that_says_what_to_do() {
    let session = Session::open().await;
    let new = json!({ "sku": "off-0001", "name": "n", "description": "d", "category": "c",
                      "brand": "b", "price_cents": 1 });
    let cases = [
        (
            "get",
            json!({ "sku": "OFF-9999" }),
            "find the right one with the search tool",
        ),
        ("get", json!({ "sku": "nonsense" }), "such as OFF-0137"),
        ("get", json!({ "sku": "OFF-0001", "id": 1 }), "unknown field `id`"),
        ("search", json!({ "limit": 101 }), "between 1 and 100"),
        (
            "search",
            json!({ "category": "Boats" }),
            "use one of Audio, Bathroom, Computing",
        ),
        ("search", json!({ "cursor": "00" }), "send next_cursor unchanged"),
        ("create", new, "leave the sku out"),
        ("update", json!({ "sku": "OFF-0001" }), "send at least one field"),
        (
            "update",
            json!({ "sku": "OFF-0001", "currency": "$" }),
            "such as USD",
        ),
        (
            "update",
            json!({ "sku": "OFF-0001", "brand": "b", "expected_version": 9 }),
            "read it again",
        ),
        (
            "adjust_stock",
            json!({ "sku": "OFF-0001", "delta": -9999, "reason": "r" }),
            "leaves between 0",
        ),
        (
            "adjust_stock",
            json!({ "sku": "OFF-0001", "delta": 0, "reason": "r" }),
            "must not be 0",
        ),
        ("reindex", json!({ "batch_size": 0 }), "between 1 and 500"),
        ("delete", json!({ "sku": "OFF-0001" }), "`confirm`: true"),
    ];
    for (tool, arguments, expected) in cases {
        let answer = session.call(tool, arguments).await;
        let text = answer["content"][0]["text"].as_str().unwrap();
        assert!(
            answer["isError"] == true && text.contains(expected),
            "{tool}: {answer}"
        );
    }
}

#[tokio::test]
async fn resources_prompts_and_completions_lead_to_products() {
    let session = Session::open().await;
    let read = async |uri: &str| session.request("resources/read", json!({ "uri": uri })).await;
    let answer = read("product://off-0001").await.unwrap();
    assert_eq!(answer["contents"][0]["mimeType"], "application/json");
    let product: Value = serde_json::from_str(answer["contents"][0]["text"].as_str().unwrap()).unwrap();
    assert_eq!(product["sku"], "OFF-0001");
    for uri in ["product://categories", "product://low_stock"] {
        assert!(read(uri).await.is_ok(), "{uri}");
    }
    let missing = read("product://OFF-9999").await.unwrap_err();
    assert_eq!(
        (missing.code.0, missing.data),
        (-32602, Some(json!({ "uri": "product://OFF-9999" })))
    );

    let arguments = json!({ "sku": "OFF-0001", "tone": "playful" });
    let prompt = json!({ "name": "describe_product", "arguments": arguments });
    let prompt = session.request("prompts/get", prompt).await.unwrap();
    assert_eq!(
        prompt["messages"][1]["content"]["resource"]["uri"],
        "product://OFF-0001"
    );
    let prompt = json!({ "name": "find_in_category", "arguments": { "category": "toys" } });
    let prompt = session.request("prompts/get", prompt).await.unwrap();
    assert_eq!(prompt["messages"].as_array().unwrap().len(), 11);

    let complete = async |reference: Value, name: &str, value: &str| {
        let argument = json!({ "name": name, "value": value });
        let params = json!({ "ref": reference, "argument": argument });
        session.request("completion/complete", params).await.unwrap()["completion"].clone()
    };
    let prompt = json!({ "type": "ref/prompt", "name": "find_in_category" });
    let completed = complete(prompt, "category", "t").await;
    assert_eq!(
        completed,
        json!({ "values": ["Toys", "Travel"], "total": 2, "hasMore": false })
    );
    let template = json!({ "type": "ref/resource", "uri": "product://{sku}" });
    assert_eq!(complete(template.clone(), "sku", "aud-00").await["total"], 35);
    let all = complete(template, "sku", "").await;
    assert_eq!((&all["total"], &all["hasMore"]), (&json!(420), &json!(true)));
    assert_eq!(all["values"].as_array().unwrap().len(), 100);
}

#[tokio::test]
async fn a_reindex_reports_rising_progress_and_ends_when_cancelled() {
    let mut session = Session::open().await;
    session
        .context
        .meta
        .set_progress_token(rmcp::model::ProgressToken(RequestId::Number(7)));
    let report = session.call("reindex", json!({ "batch_size": 100 })).await;
    assert_eq!(report["structuredContent"]["products"], 420);
    let mut progress = Vec::new();
    for _ in 0..5 {
        let message = serde_json::to_value(session.sent.recv().await.unwrap()).unwrap();
        assert_eq!(
            (&message["params"]["progressToken"], &message["params"]["total"]),
            (&json!(7), &json!(420.0))
        );
        progress.push(message["params"]["progress"].as_f64().unwrap());
    }
    assert_eq!(progress, [100.0, 200.0, 300.0, 400.0, 420.0]);

    let cancel = session.context.ct.clone();
    let arguments = json!({ "batch_size": 1, "pause_ms": 1000 });
    let params = json!({ "name": "reindex", "arguments": arguments });
    let request = serde_json::from_value(json!({ "method": "tools/call", "params": params })).unwrap();
    let (server, context) = (session.server.clone(), session.context.clone());
    let running = tokio::spawn(async move { server.handle_request(request, context).await });
    session.sent.recv().await.unwrap(); // it is under way
    cancel.cancel();
    let answer = serde_json::to_value(running.await.unwrap().unwrap()).unwrap();
    assert_eq!(answer["isError"], true);
    assert!(!found(&session.server.store, "desk lamp").await.is_empty());
}
