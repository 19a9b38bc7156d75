//! Whose resource a URI is, on the endpoint of all servers, where URIs stay as their servers write them.

use bus_schema::{RpcError, ServerId};
use runtime::catalogue::Listed;
use serde_json::json;

use super::aggregate::Aggregate;

impl Aggregate {
    /// The server whose resource a URI is: the one that lists it, else whose template it fits, else whose scheme it has.
    pub(super) async fn owner_of_resource(&self, uri: &str) -> Result<ServerId, RpcError> {
        let resources = self.current(Listed::Resources).await;
        let templates = self.current(Listed::Templates).await;
        let listed = resources
            .servers
            .iter()
            .filter(|(_, list)| list.get(uri).is_some());
        let fitting = templates
            .servers
            .iter()
            .filter(|(_, list)| list.items.iter().any(|item| fits(&item.key, uri)));
        let alike = resources
            .servers
            .iter()
            .chain(&templates.servers)
            .filter(|(_, list)| {
                scheme(uri).is_some() && list.items.iter().any(|item| scheme(&item.key) == scheme(uri))
            });
        let ways: [Vec<&ServerId>; 3] = [
            listed.map(|(id, _)| id).collect(),
            fitting.map(|(id, _)| id).collect(),
            alike.map(|(id, _)| id).collect(),
        ];
        for mut owners in ways {
            owners.sort();
            owners.dedup();
            match owners.as_slice() {
                [] => {}
                [owner] => return Ok((*owner).clone()),
                many => return Err(ambiguous(uri, many)),
            }
        }
        Err(
            RpcError::invalid_params(format!("resource `{uri}` does not exist"))
                .with_data(json!({ "uri": uri })),
        )
    }
}

fn ambiguous(uri: &str, owners: &[&ServerId]) -> RpcError {
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
