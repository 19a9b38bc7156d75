//! The lists of all servers as one: built once for each state of the bus, and kept as ready bytes.

use std::{sync::Arc, time::Duration};

use arc_swap::ArcSwapOption;
use bus_schema::{RpcError, ServerId, mcp::method, rpc};
use bytes::Bytes;
use futures::future::join_all;
use runtime::{
    Catalogue,
    catalogue::{Item, Lists},
};
use serde_json::{json, value::RawValue};
use tokio::{sync::Mutex, time::timeout};
use tracing::warn;

use super::LIST_TTL_MS;
use crate::request::Incoming;

/// How long a list waits for a server that does not answer.
const LIST_LIMIT: Duration = Duration::from_secs(5);
/// The `_meta` key that names servers which a list misses.
const MISSING_KEY: &str = "io.trunkline/missing";

/// The one catalogue of all servers.
pub(super) struct Aggregate {
    catalogue: Catalogue,
    built: ArcSwapOption<Built>,
    /// Held while a new one is built, so that it is built once.
    building: Mutex<()>,
}

/// All lists at one state of the bus.
struct Built {
    generation: u64,
    tools: Bytes,
    prompts: Bytes,
    resources: Bytes,
    templates: Bytes,
    servers: Vec<(ServerId, Arc<Lists>)>,
}

impl Aggregate {
    pub(super) fn new(catalogue: Catalogue) -> Self {
        Self {
            catalogue,
            built: ArcSwapOption::empty(),
            building: Mutex::default(),
        }
    }

    /// The result of a list method; `None` for other methods.
    pub(super) async fn list(&self, incoming: &Incoming) -> Result<Option<Bytes>, RpcError> {
        let pick: fn(&Built) -> &Bytes = match incoming.method.as_str() {
            method::TOOLS_LIST => |built| &built.tools,
            method::PROMPTS_LIST => |built| &built.prompts,
            method::RESOURCES_LIST => |built| &built.resources,
            method::TEMPLATES_LIST => |built| &built.templates,
            _ => return Ok(None),
        };
        // All items stand on the first page, so that no cursor was ever given out; the empty one is where a list begins.
        if incoming.cursor.as_ref().is_some_and(|cursor| !cursor.is_empty()) {
            return Err(RpcError::invalid_params(
                "`params.cursor` was not given out by this endpoint",
            ));
        }
        Ok(Some(pick(&*self.current().await).clone()))
    }

    /// The server whose resource a URI is: the one that lists it, else whose template it fits, else whose scheme it has.
    pub(super) async fn owner_of_resource(&self, uri: &str) -> Result<ServerId, RpcError> {
        let built = self.current().await;
        let lists_it = |lists: &Lists| lists.resources.iter().any(|item| item.key == uri);
        let fits_template = |lists: &Lists| lists.templates.iter().any(|item| fits(&item.key, uri));
        let has_scheme = |lists: &Lists| {
            let scheme = scheme(uri);
            scheme.is_some()
                && lists
                    .resources
                    .iter()
                    .chain(&lists.templates)
                    .any(|item| self::scheme(&item.key) == scheme)
        };
        let ways: [&dyn Fn(&Lists) -> bool; 3] = [&lists_it, &fits_template, &has_scheme];
        for owns in ways {
            let owners: Vec<_> = built
                .servers
                .iter()
                .filter(|(_, lists)| owns(lists))
                .map(|(id, _)| id)
                .collect();
            match owners.as_slice() {
                [] => {}
                [owner] => return Ok((*owner).clone()),
                many => {
                    let owners: Vec<_> = many.iter().map(|id| id.as_str()).collect();
                    let message = format!(
                        "resource `{uri}` is offered by several servers ({}); read it on /servers/<id>/mcp",
                        owners.join(", ")
                    );
                    return Err(
                        RpcError::invalid_params(message).with_data(json!({ "uri": uri, "servers": owners }))
                    );
                }
            }
        }
        Err(
            RpcError::invalid_params(format!("resource `{uri}` does not exist"))
                .with_data(json!({ "uri": uri })),
        )
    }

    async fn current(&self) -> Arc<Built> {
        let generation = self.catalogue.directory().snapshot().generation;
        let fresh = |built: &Arc<Built>| built.generation == generation;
        if let Some(built) = self.built.load_full().filter(fresh) {
            return built;
        }
        let _building = self.building.lock().await;
        if let Some(built) = self.built.load_full().filter(fresh) {
            return built;
        }
        let (built, complete) = self.build().await;
        let built = Arc::new(built);
        if complete {
            self.built.store(Some(Arc::clone(&built)));
        }
        built
    }

    async fn build(&self) -> (Built, bool) {
        let snapshot = self.catalogue.directory().snapshot();
        let asked = snapshot.servers().map(|(id, _)| async move {
            let lists = timeout(LIST_LIMIT, self.catalogue.lists(id)).await;
            (id.clone(), lists)
        });
        let mut servers = Vec::new();
        let mut missing = Vec::new();
        for (id, lists) in join_all(asked).await {
            match lists {
                Ok(Ok(lists)) => servers.push((id, lists)),
                Ok(Err(error)) => {
                    warn!(%error, server.id = %id, "a list goes out without this server");
                    missing.push(id);
                }
                Err(_) => {
                    warn!(server.id = %id, "a list goes out without this server, which did not answer in time");
                    missing.push(id);
                }
            }
        }
        let written = |key: &str, pick: fn(&Lists) -> &Vec<Item>, naming: Naming| {
            write_list(
                key,
                servers.iter().map(|(id, lists)| (id, pick(lists))),
                naming,
                &missing,
            )
        };
        let built = Built {
            generation: snapshot.generation,
            tools: written("tools", |lists| &lists.tools, Naming::Prefixed),
            prompts: written("prompts", |lists| &lists.prompts, Naming::Prefixed),
            resources: written("resources", |lists| &lists.resources, Naming::AsIs),
            templates: written("resourceTemplates", |lists| &lists.templates, Naming::AsIs),
            servers,
        };
        (built, missing.is_empty())
    }
}

/// Whether items get their server's id before their name.
#[derive(Clone, Copy)]
enum Naming {
    Prefixed,
    AsIs,
}

fn write_list<'a>(
    key: &str,
    servers: impl Iterator<Item = (&'a ServerId, &'a Vec<Item>)>,
    naming: Naming,
    missing: &[ServerId],
) -> Bytes {
    let mut out =
        format!(r#"{{"resultType":"complete","ttlMs":{LIST_TTL_MS},"cacheScope":"private","#).into_bytes();
    if !missing.is_empty() {
        out.extend_from_slice(format!(r#""_meta":{},"#, json!({ MISSING_KEY: missing })).as_bytes());
    }
    out.extend_from_slice(format!(r#""{key}":["#).as_bytes());
    let mut first = true;
    for (id, items) in servers {
        for item in items {
            if !std::mem::take(&mut first) {
                out.push(b',');
            }
            match naming {
                Naming::Prefixed => out.extend_from_slice(&renamed(&item.json, &id.prefixed(&item.key))),
                Naming::AsIs => out.extend_from_slice(item.json.get().as_bytes()),
            }
        }
    }
    out.extend_from_slice(b"]}");
    out.into()
}

/// An item under another name; every other byte stays.
fn renamed(item: &RawValue, name: &str) -> Vec<u8> {
    #[derive(serde::Deserialize)]
    struct Named<'a> {
        #[serde(borrow)]
        name: &'a RawValue,
    }
    match serde_json::from_str::<Named<'_>>(item.get()) {
        Ok(named) => rpc::splice(item.get().as_bytes(), named.name.get(), &rpc::quote(name)),
        Err(_) => item.get().as_bytes().to_vec(),
    }
}

fn scheme(uri: &str) -> Option<&str> {
    uri.split_once(':').map(|(scheme, _)| scheme)
}

/// Whether a URI may come from an RFC 6570 template: the fixed pieces stand in it, in order and at both ends.
fn fits(template: &str, uri: &str) -> bool {
    let literals: Vec<&str> = template
        .split('{')
        .map(|piece| piece.split_once('}').map_or(piece, |(_, after)| after))
        .collect();
    let (Some(first), Some(last)) = (literals.first(), literals.last()) else {
        return false;
    };
    if literals.len() == 1 {
        return template == uri;
    }
    let Some(mut rest) = uri.strip_prefix(first).and_then(|rest| rest.strip_suffix(last)) else {
        return false;
    };
    for literal in &literals[1..literals.len() - 1] {
        let Some(at) = rest.find(literal) else {
            return false;
        };
        rest = &rest[at + literal.len()..];
    }
    true
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn templates_fit_their_uris() {
        for (template, uri, expected) in [
            ("product://{sku}", "product://OFF-1", true),
            ("product://{sku}", "order://OFF-1", false),
            ("test://template/{id}/data", "test://template/7/data", true),
            ("test://template/{id}/data", "test://template/7/other", false),
            ("test://template/{id}/data", "test://template/7/data/more", false),
            ("fixed://x", "fixed://x", true),
            ("fixed://x", "fixed://xy", false),
        ] {
            assert_eq!(fits(template, uri), expected, "{template} {uri}");
        }
    }

    #[test]
    fn an_item_is_renamed_and_keeps_its_bytes() {
        let item = RawValue::from_string(r#"{ "x":1e400, "name":"a","z":[1] }"#.to_owned()).expect("json");
        assert_eq!(renamed(&item, "s__a"), br#"{ "x":1e400, "name":"s__a","z":[1] }"#);
    }
}
