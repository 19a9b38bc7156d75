//! Exports of the real catalogue, on both databases: read back by other programs, and whole however often they were interrupted.

use std::{path::Path, sync::Arc, time::Duration};

use actors::{
    exports::{Dataset, DateRange, Delivered, Delivery, ExportError, Format, Plan, Step, iso8601},
    products::Products,
};
use bus_schema::Principal;
use bytes::Bytes;
use runtime::store::objects::{ObjectKey, ObjectLimits, Objects};
use serde_json::{Value, json};
use tests::{
    eventually, http::Client, issuer::Issuer, nats::Nats, platform::Platform, postgres::Postgres, within,
};

use crate::processes::Cluster;

fn key(id: &str) -> ObjectKey {
    ObjectKey::new(&Principal::developer(), id)
}

/// A moment behind everything that the catalogue is seeded with.
const NOW_MS: i64 = 1_800_000_000_000;

fn plan(format: Format, batch_rows: u32) -> Plan {
    let plan = Plan::new(format, DateRange::default(), NOW_MS);
    plan.in_batches_of(batch_rows).expect("a size")
}

async fn delivered(
    objects: &Objects,
    id: &str,
    dataset: Arc<dyn Dataset>,
    plan: Plan,
) -> Result<Delivered, ExportError> {
    let mut delivery = Delivery::open(objects, &key(id), dataset, plan).await?;
    loop {
        let (next, step) = delivery.step().await?;
        delivery = next;
        if let Step::Finished(delivered) = step {
            return Ok(delivered);
        }
    }
}

async fn sqlite(folder: &Path) -> Products {
    let url = format!("sqlite://{}", folder.join("products.db").display());
    Products::open(&url).await.expect("it opens")
}

/// What Python's own readers find in a file: the rows, as JSON.
async fn read_by_python(program: &str, file: &Bytes) -> Value {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("file");
    std::fs::write(&path, file).expect("is written");
    let mut python = tokio::process::Command::new("python3");
    python.args(["-c", program]).arg(&path).kill_on_drop(true);
    let output = within("python", python.output()).await.expect("python3 runs");
    let told = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.success(), "{told}");
    serde_json::from_slice(&output.stdout).expect("JSON")
}

const READ_CSV: &str = "
import csv, json, sys
rows = list(csv.DictReader(open(sys.argv[1], newline='', encoding='utf-8')))
for row in rows:
    row['tags'] = json.loads(row['tags'])
    for name in ('price_cents', 'stock', 'version'):
        row[name] = int(row[name])
print(json.dumps(rows))
";
const READ_JSON: &str = "
import json, sys
print(json.dumps(json.load(open(sys.argv[1], encoding='utf-8'))))
";

#[tokio::test]
async fn the_catalogue_is_read_back_by_other_programs_from_sqlite() {
    let folder = tempfile::tempdir().expect("a folder");
    let products = sqlite(folder.path()).await;
    // Boxed, as it is large.
    Box::pin(within("the files", read_back(&products))).await;
}

#[tokio::test]
async fn the_catalogue_is_read_back_by_other_programs_from_postgresql() {
    let postgres = Postgres::start().await;
    let products = Products::open(&postgres.url).await.expect("it opens");
    Box::pin(within("the files", read_back(&products))).await;
}

async fn read_back(products: &Products) {
    let nats = Nats::start().await;
    let objects = Objects::new(&nats.bus().await, ObjectLimits::default());
    let dataset = products.datasets().find("products").expect("there is one");
    let mut files = Vec::new();
    for format in [Format::Csv, Format::Json, Format::Parquet] {
        let id = format.name();
        let done = delivered(&objects, id, Arc::clone(&dataset), plan(format, 100)).await;
        let done = done.expect("a file");
        assert_eq!(done.rows, 420);
        assert_eq!(done.file.about.file_name, format!("products.{id}"));
        let file = objects.get(&key(id)).await.expect("asks").expect("is there");
        assert_eq!(done.file.bytes, file.len() as u64);
        files.push(file);
    }
    let from_csv = read_by_python(READ_CSV, &files[0]).await;
    let from_json = read_by_python(READ_JSON, &files[1]).await;
    assert_eq!(from_csv, from_json);
    let rows = from_json.as_array().expect("an array");
    assert_eq!(rows.len(), 420);
    let first = &rows[0];
    assert_eq!(first["sku"], "OFF-0001");
    assert!(
        first["created_at"]
            .as_str()
            .expect("a moment")
            .starts_with("2025-01-06T")
    );
    assert!(rows.iter().map(|row| row["created_at"].as_str()).is_sorted());
    assert_eq!(read_parquet(&files[2]), *rows);
}

/// The same rows, as parquet's own reader finds them.
fn read_parquet(file: &Bytes) -> Vec<Value> {
    use parquet::{
        file::reader::{FileReader as _, SerializedFileReader},
        record::{Field, ListAccessor as _, Row},
    };
    let reader = SerializedFileReader::new(file.clone()).expect("a parquet file");
    assert_eq!(reader.metadata().num_row_groups(), 5);
    let rows = reader.get_row_iter(None).expect("rows");
    let value = |field: &Field| match field {
        Field::Str(text) => json!(text),
        Field::Long(number) => json!(number),
        Field::TimestampMillis(unix_ms) => json!(iso8601(*unix_ms)),
        Field::ListInternal(list) => (0..list.len())
            .map(|at| json!(list.get_string(at).expect("a text")))
            .collect(),
        other => panic!("unexpected {other:?}"),
    };
    let row = |row: Result<Row, _>| {
        let row = row.expect("a row");
        let members = row
            .get_column_iter()
            .map(|(name, field)| (name.clone(), value(field)));
        Value::Object(members.collect())
    };
    rows.map(row).collect()
}

#[tokio::test]
async fn an_export_that_is_killed_again_and_again_gives_the_file_of_one_that_is_not() {
    let (folder, nats) = (tempfile::tempdir().expect("a folder"), Nats::start().await);
    let products = sqlite(folder.path()).await;
    let dataset = products.datasets().find("products").expect("there is one");
    for format in [Format::Csv, Format::Json, Format::Parquet] {
        let quiet = Objects::new(&nats.bus().await, ObjectLimits::default());
        let expected = delivered(
            &quiet,
            &format!("quiet {format}"),
            dataset.clone(),
            plan(format, 40),
        )
        .await
        .expect("a file");
        let id = format!("killed {format}");
        let mut killed = 0;
        let done = loop {
            // Each worker has a connection of its own, and is dropped a little later than the one before, wherever it is then.
            let objects = Objects::new(&nats.bus().await, ObjectLimits::default());
            let working = delivered(&objects, &id, dataset.clone(), plan(format, 40));
            match tokio::time::timeout(Duration::from_millis(2 + killed * 3), working).await {
                Ok(done) => break done.expect("a file"),
                Err(_) => killed += 1,
            }
            assert!(killed < 1_000, "it never ends");
        };
        assert!(killed > 0, "nobody was killed");
        assert_eq!(done.rows, expected.rows);
        assert_eq!(done.file.sha256, expected.file.sha256, "{format}");
        // A step that is repeated after the end says the same again.
        let again = delivered(&quiet, &id, dataset.clone(), plan(format, 40)).await;
        assert_eq!(again.expect("a file"), done);
    }
    let quiet = Objects::new(&nats.bus().await, ObjectLimits::default());
    let other = delivered(&quiet, "killed csv", dataset, plan(Format::Json, 40)).await;
    assert!(matches!(other, Err(ExportError::Other { .. })));
}

#[tokio::test]
async fn a_range_of_dates_takes_in_what_was_created_in_it_and_changes_move_nothing() {
    let folder = tempfile::tempdir().expect("a folder");
    let products = sqlite(folder.path()).await;
    let nats = Nats::start().await;
    let objects = Objects::new(&nats.bus().await, ObjectLimits::default());
    let dataset = products.datasets().find("products").expect("there is one");
    let range = DateRange::parse(Some("2025-02-01"), Some("2025-02-28")).expect("a range");
    let ranged = Plan::new(Format::Json, range, NOW_MS)
        .in_batches_of(7)
        .expect("a size");
    let mut delivery = Delivery::open(&objects, &key("r"), dataset.clone(), ranged)
        .await
        .expect("opens");
    // What changes while it runs stands where it stood.
    let (next, step) = delivery.step().await.expect("a step");
    assert!(matches!(step, Step::Committed { rows: 7 }), "{step:?}");
    change(
        folder.path(),
        "UPDATE products SET name = 'renamed', updated_at = '2026-01-01T00:00:00.000Z'",
    )
    .await;
    delivery = next;
    let done = loop {
        let (next, step) = delivery.step().await.expect("a step");
        delivery = next;
        if let Step::Finished(done) = step {
            break done;
        }
    };
    assert_eq!(done.rows, dataset.count(range).await.expect("a count"));
    let file = objects.get(&key("r")).await.expect("asks").expect("is there");
    let rows: Vec<Value> = serde_json::from_slice(&file).expect("JSON");
    let created: Vec<&str> = rows.iter().filter_map(|row| row["created_at"].as_str()).collect();
    assert_eq!(created.len() as u64, done.rows);
    assert!(
        created.len() > 50 && created.is_sorted_by(|a, b| a < b),
        "{created:?}"
    );
    assert!(created.iter().all(|at| at.starts_with("2025-02-")));
    let renamed = rows.iter().filter(|row| row["name"] == json!("renamed")).count();
    assert_eq!(renamed, rows.len() - 7);
}

async fn change(folder: &Path, sql: &'static str) {
    use sqlx::{Connection as _, Executor as _, SqliteConnection};
    let url = format!("sqlite://{}", folder.join("products.db").display());
    let mut database = SqliteConnection::connect(&url).await.expect("it opens");
    database.execute(sql).await.expect("it changes");
}

/// Asks how a task stands until it has ended.
async fn ended(client: &Client, id: &str) -> Value {
    let mut told = Value::Null;
    eventually("the task ends", async || {
        told = called(client, "get_task_status", json!({ "task_id": id })).await;
        told["has_ended"] == true
    })
    .await;
    told
}

async fn called(client: &Client, tool: &str, arguments: Value) -> Value {
    let answer = client.call(tool, arguments).await;
    assert_eq!(answer["result"]["isError"], false, "{tool}: {answer}");
    answer["result"]["structuredContent"].clone()
}

#[tokio::test]
async fn a_model_without_tasks_exports_lists_cancels_and_gets_its_file() {
    let platform = Platform::start("", &["products", "jobs"]).await;
    let client = platform.client("jobs");
    let tools = client.list_tools().await;
    let described = tools["result"]["tools"].as_array().expect("tools").iter();
    let export = described.clone().find(|tool| tool["name"] == "start_data_export");
    let said = export.expect("the tool")["description"]
        .as_str()
        .expect("text")
        .to_owned();
    for word in ["`products`", "`stock_changes`", "get_task_status", "has_ended"] {
        assert!(said.contains(word), "{said}");
    }
    let wanted =
        json!({ "dataset": "products", "format": "json", "from": "2025-02-01", "until": "2025-02-28" });
    let begun = called(&client, "start_data_export", wanted).await;
    let id = begun["task_id"].as_str().expect("an id").to_owned();
    assert_eq!(
        (&begun["has_ended"], &begun["tool"]),
        (&json!(false), &json!("start_data_export"))
    );
    let done = ended(&client, &id).await;
    assert_eq!(done["status"], "completed", "{done}");
    let file = &done["result"]["structuredContent"];
    let url = file["url"].as_str().expect("a URL");
    assert_eq!(url, platform.url(&format!("/results/{id}")));
    let got = within("the file", reqwest::get(url)).await.expect("an answer");
    let tag = format!("\"{}\"", file["sha256"].as_str().expect("a checksum"));
    assert_eq!(got.headers()["etag"], tag.as_str());
    let bytes = got.bytes().await.expect("a body");
    assert_eq!(file["bytes"], bytes.len());
    let rows: Vec<Value> = serde_json::from_slice(&bytes).expect("JSON");
    assert!(!rows.is_empty() && file["rows"] == rows.len(), "{file}");
    let listed = called(&client, "list_my_tasks", json!({ "status": ["completed"] })).await;
    assert_eq!(listed["tasks"][0]["task_id"], id.as_str());
    let pending = called(&client, "list_my_tasks", json!({})).await;
    assert_eq!(pending["tasks"], json!([]));
    // What has ended stays as it is.
    let cancelled = called(&client, "cancel_task", json!({ "task_id": id })).await;
    assert_eq!(cancelled["status"], "completed");
    for (tool, arguments, words) in [
        (
            "start_data_export",
            json!({ "dataset": "orders" }),
            "use one of products, stock_changes",
        ),
        (
            "start_data_export",
            json!({ "dataset": "products", "format": "xls" }),
            "xls",
        ),
        (
            "start_data_export",
            json!({ "dataset": "products", "from": "tomorrow" }),
            "send a date such as",
        ),
        (
            "get_task_status",
            json!({ "task_id": "tlt-x" }),
            "find it with list_my_tasks",
        ),
        ("list_my_tasks", json!({ "limit": 0 }), "between 1 and 100"),
        (
            "list_my_tasks",
            json!({ "cursor": "x" }),
            "send next_cursor unchanged",
        ),
    ] {
        let answer = client.call(tool, arguments).await;
        let text = answer["result"]["content"][0]["text"]
            .as_str()
            .unwrap_or_default();
        assert!(
            answer["result"]["isError"] == true && text.contains(words),
            "{answer}"
        );
    }
    platform.stop().await;
}

#[tokio::test]
async fn an_export_is_its_owners_and_nobody_elses() {
    let issuer = Issuer::start().await;
    let platform = Platform::start(&issuer.section("audience = \"here\""), &["products", "jobs"]).await;
    let token = |who: &str| issuer.token(who, "here", json!({}));
    let (ann, bob) = (
        platform.client("jobs").with_token(&token("ann")),
        platform.client("jobs").with_token(&token("bob")),
    );
    let begun = called(&ann, "start_data_export", json!({ "dataset": "products" })).await;
    let id = begun["task_id"].as_str().expect("an id");
    assert_eq!(ended(&ann, id).await["result"]["structuredContent"]["rows"], 420);
    for tool in ["get_task_status", "cancel_task"] {
        let answer = bob.call(tool, json!({ "task_id": id })).await;
        assert_eq!(answer["result"]["isError"], true, "{answer}");
    }
    let all = json!({ "status": ["completed", "cancelled", "failed"] });
    assert_eq!(called(&bob, "list_my_tasks", all).await["tasks"], json!([]));
    for (who, status) in [("ann", 200), ("bob", 404)] {
        let request = reqwest::Client::new().get(platform.url(&format!("/results/{id}")));
        let got = within("an answer", request.bearer_auth(token(who)).send()).await;
        assert_eq!(got.expect("an answer").status(), status, "{who}");
    }
    platform.stop().await;
}

/// Makes the catalogue so large that an export of it has many batches.
const MANY: &str = "
    WITH RECURSIVE n (n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM n WHERE n < 150)
    INSERT INTO products (sku, name, description, category, brand, price_cents, currency, stock, tags, version, created_at, updated_at)
    SELECT sku || '-' || n, name, description, category, brand, price_cents, currency, stock, tags, version, created_at, updated_at
    FROM products, n";

#[tokio::test]
async fn an_export_whose_worker_is_killed_is_carried_on_by_another() {
    let cluster = Cluster::start().await;
    let folder = tempfile::tempdir().expect("a folder");
    let products = sqlite(folder.path()).await;
    change(folder.path(), MANY).await;
    let url = format!("sqlite://{}", folder.path().join("products.db").display());
    let file = cluster.file("jobs.toml", &format!("[products]\ndatabase_url = \"{url}\"\n"));
    let words = ["jobs", "--config", &file.display().to_string()];
    let mut lost = cluster.serve(&words).await;
    let bridge = cluster.bridge().await;
    let client = bridge.client("jobs");
    eventually("the bridge knows the server", async || {
        client.list_tools().await["result"].is_object()
    })
    .await;
    let begun = called(
        &client,
        "start_data_export",
        json!({ "dataset": "products", "format": "parquet" }),
    )
    .await;
    let id = begun["task_id"].as_str().expect("an id").to_owned();
    let key = key(&id);
    let objects = Objects::new(&cluster.nats.bus().await, ObjectLimits::default());
    // A part of it is committed, as a record that has not ended tells.
    eventually("it is under way", async || {
        let told = called(&client, "get_task_status", json!({ "task_id": id })).await;
        told["fraction"].as_f64().is_some_and(|fraction| fraction > 0.0)
    })
    .await;
    lost.program.child.kill().await.expect("killed");
    assert!(
        objects.info(&key).await.expect("asks").is_none(),
        "it has ended already"
    );
    let _taker = cluster.serve(&words).await;
    eventually("the bridge knows the other", async || {
        client.list_tools().await["result"].is_object()
    })
    .await;
    let done = ended(&client, &id).await;
    let told = &done["result"]["structuredContent"];
    assert_eq!(told["rows"], 420 * 151, "{done}");
    let dataset = products.datasets().find("products").expect("there is one");
    let whole = delivered(
        &objects,
        "whole",
        dataset,
        Plan::new(Format::Parquet, DateRange::default(), NOW_MS),
    )
    .await;
    assert_eq!(
        told["sha256"],
        whole.expect("a file").file.sha256,
        "as if nobody had been killed"
    );
}
