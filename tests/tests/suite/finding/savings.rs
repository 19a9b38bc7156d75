//! What the search endpoint saves of a model's prompt when there are a thousand tools, and whether it finds the right ones.
//!
//! `cargo test --workspace --test suite a_thousand_tools -- --nocapture` prints the figures of `docs/performance.md`.

use serde_json::{Value, json};
use tests::{
    http::Client,
    platform::Platform,
    scripted::{Scripted, status},
};

use super::names;

/// What companies keep, each with what a tool says of it.
const THINGS: [(&str, &str); 50] = [
    ("invoice", "a bill that a customer has to pay"),
    ("customer", "a company or person that buys"),
    ("contract", "a signed agreement with its terms"),
    ("ticket", "a request for support with its conversation"),
    ("deployment", "a release of a service in an environment"),
    ("incident", "an outage and its timeline"),
    ("employee", "a member of staff with role and manager"),
    ("payslip", "what an employee was paid in a month"),
    ("vacation", "days off that were asked for or granted"),
    ("candidate", "somebody who applies for a position"),
    ("position", "a job that is to be filled"),
    ("shipment", "parcels on their way to an address"),
    ("warehouse", "a place where goods are stored"),
    ("supplier", "a company that goods are bought from"),
    ("purchase_order", "an order of goods at a supplier"),
    ("budget", "money that a department may spend in a year"),
    ("expense", "what somebody has paid and gets back"),
    ("bank_account", "an account with its balance"),
    ("payment", "money that was sent or received"),
    ("tax_return", "a declaration to the tax office"),
    ("campaign", "a series of mails or advertisements"),
    ("lead", "somebody who may become a customer"),
    ("opportunity", "a sale that may happen, with its stage"),
    ("quote", "an offer with prices that is valid for a time"),
    ("subscription", "a plan that renews by itself"),
    ("repository", "source code with its history"),
    ("pull_request", "a change that waits for review"),
    ("build", "a run of the continuous integration"),
    ("feature_flag", "a switch that turns behaviour on for some users"),
    ("dashboard", "charts of metrics on one page"),
    ("alert_rule", "a condition under which somebody is paged"),
    ("dataset", "a table of records for analysis"),
    ("report", "a document that is made from data on a schedule"),
    ("meeting", "an event in the calendar with its guests"),
    ("room", "a place in the office that can be booked"),
    ("document", "a text that several people edit"),
    ("folder", "a place for documents with permissions"),
    ("wiki_page", "a page of the knowledge base"),
    ("chat_channel", "a conversation of a team"),
    ("mailing_list", "an address that reaches many people"),
    ("vulnerability", "a weakness that was found in a system"),
    ("certificate", "a key with a date on which it expires"),
    (
        "access_request",
        "a wish for permissions that somebody must grant",
    ),
    ("device", "a laptop or phone with its owner"),
    ("license", "the right to use a piece of software"),
    ("machine", "a virtual server with its size and region"),
    ("dns_record", "a name that points to an address"),
    ("backup", "a copy of data that can be restored"),
    ("survey", "questions that customers or staff answer"),
    ("course", "a training that employees take"),
];

/// What is done with them.
const DEEDS: [(&str, &str); 20] = [
    ("create", "Creates"),
    ("get", "Reads one by its id, with all details:"),
    ("list", "Pages through all that match a filter:"),
    ("update", "Changes some fields of"),
    ("delete", "Deletes for good"),
    ("archive", "Moves to the archive, from where it can be restored,"),
    ("restore", "Brings back from the archive"),
    ("approve", "Approves"),
    ("reject", "Rejects, with a reason that its author is told,"),
    ("assign", "Makes somebody responsible for"),
    ("comment_on", "Adds a comment to"),
    ("attach_file_to", "Uploads a file and attaches it to"),
    ("export", "Writes as CSV, JSON or PDF"),
    ("import", "Reads from an uploaded file"),
    ("share", "Gives somebody access to"),
    ("duplicate", "Makes a copy of"),
    ("merge", "Joins two into one:"),
    ("watch", "Sends a notification on every change of"),
    ("schedule", "Plans for a later time"),
    ("audit", "Shows who changed what and when in"),
];

fn tool(deed: (&str, &str), thing: (&str, &str)) -> Value {
    let spoken = thing.0.replace('_', " ");
    json!({
        "name": format!("{}_{}", deed.0, thing.0),
        "title": format!("{} {spoken}", deed.0.replace('_', " ")),
        "description": format!(
            "{} {spoken} ({}). Needs the permission `{}:write` where it changes something. Returns the {spoken} as it is afterwards.",
            deed.1, thing.1, thing.0
        ),
        "inputSchema": {
            "type": "object",
            "properties": {
                format!("{}_id", thing.0): { "type": "string", "description": format!("The id of the {spoken}, such as the list gives it") },
                "fields": { "type": "array", "items": { "type": "string" }, "description": "Which fields to return; all without it" },
                "dry_run": { "type": "boolean", "default": false, "description": "Say what would happen, and do nothing" },
                "idempotency_key": { "type": "string", "description": "Makes the call safe to repeat for a day" },
            },
            "required": [format!("{}_id", thing.0)],
        },
        "annotations": { "readOnlyHint": (["get", "list", "export", "audit"].contains(&deed.0)) },
    })
}

/// What is asked, and the tool that should be found.
const ASKED: [(&str, &str); 12] = [
    ("approve an expense", "approve_expense"),
    ("give a colleague access to a document", "share_document"),
    ("who changed this feature flag", "audit_feature_flag"),
    ("list open pull requests", "list_pull_request"),
    ("restore a backup", "restore_backup"),
    ("add a comment to a support ticket", "comment_on_ticket"),
    ("export invoices as CSV", "export_invoice"),
    ("book a meeting for a later time", "schedule_meeting"),
    ("create a dns record", "create_dns_record"),
    ("assign the incident to somebody", "assign_incident"),
    ("upload a file to a contract", "attach_file_to_contract"),
    ("merge two customers", "merge_customer"),
];

/// About how many tokens a text is for a model: a quarter of its bytes.
fn tokens(bytes: usize) -> usize {
    bytes.div_ceil(4)
}

async fn tools(client: &Client) -> usize {
    client.list_tools().await["result"]["tools"].to_string().len()
}

#[tokio::test]
async fn a_thousand_tools_cost_a_prompt_what_two_do() {
    let all: Vec<Value> = THINGS
        .into_iter()
        .flat_map(|thing| DEEDS.map(|deed| tool(deed, thing)))
        .collect();
    assert_eq!(all.len(), 1_000);
    let all = Value::from(all);
    let company = Scripted::start(move |asked| {
        let answer = match asked.path.as_str() {
            "/mcp" => asked.modern(&all),
            _ => status(404),
        };
        async move { answer }
    })
    .await;
    let file = format!(
        "[[servers]]\nid = \"company\"\nurl = \"{}\"\nallow_private = true\n",
        company.url()
    );
    let platform = Platform::start(&file, &["company"]).await;
    platform.knows("company").await;
    let client = Client::new(platform.url("/mcp/search"));
    let whole = tools(&Client::new(platform.url("/mcp/all"))).await;
    let two = tools(&client).await;
    let (mut first, mut results) = (0, 0);
    for (query, wanted) in ASKED {
        let answer = client.call("search_tools", json!({ "query": query })).await;
        let found = &answer["result"]["structuredContent"];
        results += found.to_string().len();
        let names = names(found);
        let wanted = format!("company__{wanted}");
        assert!(names.contains(&wanted.as_str()), "{query}: {names:?}");
        first += usize::from(names[0] == wanted);
    }
    let result = results / ASKED.len();
    println!(
        "1,000 tools: {whole} bytes, about {} tokens\nsearch_tools and call_tool: {two} bytes, about {} tokens\n\
         one search with its five tools: {result} bytes, about {} tokens\nright tool first: {first} of {}",
        tokens(whole),
        tokens(two),
        tokens(result),
        ASKED.len()
    );
    assert!((two + result) * 50 < whole, "{two} and {result} of {whole}");
    assert!(first * 4 >= ASKED.len() * 3, "{first} of {}", ASKED.len());
}
