//! Whose resource a URI is, on the endpoint of all servers, where URIs stay as their servers write them.

use std::{collections::BTreeSet, sync::Arc};

use bus_schema::{RpcError, ServerId};
use runtime::{
    catalogue::{List, Listed},
    policies::Sight,
};
use serde_json::json;

use super::aggregate::Aggregate;
use crate::askable::Askable;

impl Aggregate {
    /// The server whose resource a URI is to clients that can be asked this: the one that lists it, else whose template it fits, else whose scheme it has.
    /// Whose resource somebody cannot see has none.
    pub(super) async fn owner_of_resource(
        &self,
        uri: &str,
        declares: Askable,
        sight: Option<&Sight>,
    ) -> Result<ServerId, RpcError> {
        let seen = |owners: Vec<ServerId>| -> Vec<ServerId> {
            let sees = |id: &ServerId| sight.is_none_or(|sight| sight.shows_resource(id, uri));
            owners.into_iter().filter(sees).collect()
        };
        // Nearly all resources are on the list that every client sees, which costs no server anything.
        let resources = self.current(Listed::Resources, Askable::default()).await;
        match seen(listing(&resources.servers, uri)).as_slice() {
            [] => {}
            [owner] => return Ok(owner.clone()),
            many => return Err(ambiguous(uri, many)),
        }
        let resources = self.current(Listed::Resources, declares).await;
        let templates = self.current(Listed::Templates, declares).await;
        let all = resources.servers.iter().chain(&templates.servers);
        let ways = [
            listing(&resources.servers, uri),
            owners(&templates.servers, |item| fits(item, uri)),
            owners(all, |item| scheme(uri).is_some() && scheme(item) == scheme(uri)),
        ];
        for owners in ways {
            match seen(owners).as_slice() {
                [] => {}
                [owner] => return Ok(owner.clone()),
                many => return Err(ambiguous(uri, many)),
            }
        }
        Err(
            RpcError::invalid_params(format!("resource `{uri}` does not exist"))
                .with_data(json!({ "uri": uri })),
        )
    }
}

/// The servers that list a URI.
fn listing(servers: &[(ServerId, Arc<List>)], uri: &str) -> Vec<ServerId> {
    let listing = servers.iter().filter(|(_, list)| list.get(uri).is_some());
    listing.map(|(id, _)| id.clone()).collect()
}

/// The servers with an item that is meant, each once.
fn owners<'a>(
    servers: impl IntoIterator<Item = &'a (ServerId, Arc<List>)>,
    meant: impl Fn(&str) -> bool,
) -> Vec<ServerId> {
    let shows = |list: &List| list.items.iter().any(|item| meant(&item.key));
    let owners: BTreeSet<&ServerId> = servers
        .into_iter()
        .filter(|(_, list)| shows(list))
        .map(|(id, _)| id)
        .collect();
    owners.into_iter().cloned().collect()
}

fn ambiguous(uri: &str, owners: &[ServerId]) -> RpcError {
    let owners: Vec<&str> = owners.iter().map(|id| id.as_str()).collect();
    let message = format!(
        "resource `{uri}` is offered by several servers ({}); read it on /servers/<id>/mcp",
        owners.join(", ")
    );
    RpcError::invalid_params(message).with_data(json!({ "uri": uri, "servers": owners }))
}

fn scheme(uri: &str) -> Option<&str> {
    uri.split_once(':').map(|(scheme, _)| scheme)
}

/// Whether a URI may come from an RFC 6570 template: the fixed pieces stand in it, in order and at both ends.
pub(super) fn fits(template: &str, uri: &str) -> bool {
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
}
