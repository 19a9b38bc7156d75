//! `trunkline keys`: API keys, of which the platform keeps digests only.

use bridges::auth::new_api_key;
use bus_schema::policy::Scope;
use serde_json::json;

use super::output;
use crate::args::{Keys, KeysCommand, NewKey};

pub(crate) fn run(keys: &Keys, tenant: Option<&str>) -> anyhow::Result<()> {
    match &keys.command {
        KeysCommand::New(new) => print(new, tenant),
    }
}

fn print(new: &NewKey, tenant: Option<&str>) -> anyhow::Result<()> {
    let made = new_api_key();
    let scopes: Vec<&str> = new.scopes.iter().map(Scope::as_str).collect();
    // What JSON writes as a text or a list of texts is TOML as well.
    let mut lines = format!(
        "[[auth.api_keys]]\nsubject = {}\nsha256 = {}\n",
        json!(new.subject),
        json!(made.sha256)
    );
    if let Some(tenant) = tenant {
        lines += &format!("tenant = {}\n", json!(tenant));
    }
    for (key, list) in [("roles", json!(new.roles)), ("scopes", json!(scopes))] {
        if list != json!([]) {
            lines += &format!("{key} = {list}\n");
        }
    }
    if new.json {
        return output::json(&json!({ "key": made.key, "config": lines }));
    }
    output::line("The key, which is shown only this once:\n");
    output::line(&format!("  {}\n", made.key));
    output::line("For trunkline.toml, beside mode = \"api_keys\" or mode = \"oauth\" in [auth]:\n");
    for line in lines.lines() {
        output::line(&format!("  {line}"));
    }
    Ok(())
}
