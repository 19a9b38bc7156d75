//! Where server.json documents come from: a file, a URL, or a registry that is read to its end.

use std::{collections::HashSet, fs, path::Path};

use anyhow::{Context as _, bail};
use bridges::upstream::remote::{Addresses, Documents, RemoteError};
use serde_json::{Map, Value};
use url::Url;

use crate::args::Import;

/// How many entries are asked for at once; the official registry gives no more.
const PAGE: &str = "100";
/// How many entries are read. A registry with more has to be searched.
const MOST_ENTRIES: usize = 20_000;
const MAX_FILE_BYTES: u64 = 16 * 1024 * 1024;
const OFFICIAL: &str = "io.modelcontextprotocol.registry/official";
/// The versions of the registry's interface that are spoken, the preferred one first.
const VERSIONS: [&str; 2] = ["v0.1", "v0"];

/// A server.json, and what a registry says of it.
pub(super) struct Entry {
    /// The document.
    pub(super) server: Map<String, Value>,
    /// `active`, `deprecated` or `deleted`.
    pub(super) status: String,
}

/// All that the operator has named: the newest version of each server.
///
/// # Errors
/// What cannot be read, and why.
pub(super) async fn read(import: &Import) -> anyhow::Result<Vec<Entry>> {
    let source = &import.source;
    if !source.contains("://") {
        let document = from_file(Path::new(source))?;
        return entries(&document).with_context(|| format!("{source} cannot be used"));
    }
    let url = Url::parse(source).with_context(|| format!("`{source}` is no URL"))?;
    let reach = if import.allow_private {
        Addresses::Private
    } else {
        Addresses::Public
    };
    let documents = Documents::new(reach)?;
    let reader = Reader { documents, import };
    reader.read(url).await
}

fn from_file(path: &Path) -> anyhow::Result<Value> {
    let about = || format!("cannot read {}", path.display());
    if !path.exists() {
        let path = path.display();
        bail!("there is no file {path}; the URL of a registry begins with https://");
    }
    let size = fs::metadata(path).with_context(about)?.len();
    if size > MAX_FILE_BYTES {
        bail!(
            "{} has {size} bytes, and a server.json has at most {MAX_FILE_BYTES}",
            path.display()
        );
    }
    let text = fs::read(path).with_context(about)?;
    serde_json::from_slice(&text).with_context(|| format!("{} is no JSON", path.display()))
}

struct Reader<'a> {
    documents: Documents,
    import: &'a Import,
}

/// What a URL stands for.
enum Place {
    /// One document.
    Document(Url),
    /// A list of servers, at the first of these that is there.
    Lists(Vec<Url>),
}

impl Reader<'_> {
    async fn read(&self, url: Url) -> anyhow::Result<Vec<Entry>> {
        let lists = match place(&url)? {
            Place::Document(url) => {
                let document = self.get(&url).await.map_err(|error| self.explain(&url, error))?;
                return entries(&parse(&url, &document)?).with_context(|| format!("{url} cannot be used"));
            }
            Place::Lists(lists) => lists,
        };
        let mut lists = lists.into_iter().peekable();
        while let Some(list) = lists.next() {
            match self.first_page(&list).await {
                Err(RemoteError::Status { status, .. })
                    if status.as_u16() == 404 && lists.peek().is_some() => {}
                Err(error) => return Err(self.explain(&list, error)),
                Ok(page) => return self.follow(&list, parse(&list, &page)?).await,
            }
        }
        bail!("{url} has no registry");
    }

    async fn get(&self, url: &Url) -> Result<Vec<u8>, RemoteError> {
        self.documents.get(url.as_str()).await.map(Vec::from)
    }

    async fn first_page(&self, list: &Url) -> Result<Vec<u8>, RemoteError> {
        self.get(&self.page(list, None)).await
    }

    fn page(&self, list: &Url, cursor: Option<&str>) -> Url {
        let mut url = list.clone();
        let mut query = url.query_pairs_mut();
        query.append_pair("version", "latest").append_pair("limit", PAGE);
        if let Some(search) = &self.import.search {
            query.append_pair("search", search);
        }
        if let Some(cursor) = cursor {
            query.append_pair("cursor", cursor);
        }
        drop(query);
        url
    }

    /// Reads the pages after the first.
    async fn follow(&self, list: &Url, first: Value) -> anyhow::Result<Vec<Entry>> {
        let mut all: Vec<Entry> = Vec::new();
        let mut cursors = HashSet::new();
        let mut page = first;
        loop {
            if !page["servers"].is_array() {
                bail!("{list} is no list of a registry: it has no `servers`");
            }
            all.extend(entries(&page).with_context(|| format!("a page of {list} cannot be used"))?);
            if all.len() > MOST_ENTRIES {
                bail!("{list} has more than {MOST_ENTRIES} servers; choose some of them with --search");
            }
            let metadata = &page["metadata"];
            let next = metadata["nextCursor"]
                .as_str()
                .or(metadata["next_cursor"].as_str());
            let Some(next) = next.filter(|next| !next.is_empty()) else {
                return Ok(newest(all));
            };
            if !cursors.insert(next.to_owned()) {
                bail!("{list} gives the cursor `{next}` twice, and has no end");
            }
            let url = self.page(list, Some(next));
            let text = self.get(&url).await.map_err(|error| self.explain(&url, error))?;
            page = parse(&url, &text)?;
        }
    }

    fn explain(&self, url: &Url, error: RemoteError) -> anyhow::Error {
        let inside = matches!(error, RemoteError::Forbidden { .. } | RemoteError::BadUrl { .. });
        let error = anyhow::Error::new(error).context(format!("cannot read {url}"));
        if inside && !self.import.allow_private {
            return error.context("--allow-private allows private addresses and http://");
        }
        error
    }
}

fn parse(url: &Url, text: &[u8]) -> anyhow::Result<Value> {
    serde_json::from_slice(text).with_context(|| format!("what {url} answers is no JSON"))
}

/// Tells the URL of a registry from that of a document.
fn place(url: &Url) -> anyhow::Result<Place> {
    let path = url.path().trim_end_matches('/').to_owned();
    let parts: Vec<&str> = path.split('/').collect();
    let is_version = |part: &str| {
        part.strip_prefix('v')
            .is_some_and(|rest| rest.starts_with(|c: char| c.is_ascii_digit()))
    };
    if Path::new(&path).extension().is_some_and(|end| end == "json") {
        return Ok(Place::Document(url.clone()));
    }
    if url.query().is_some() {
        bail!("{url} has a query; leave it out, and choose servers with --search");
    }
    let at = |path: String| {
        let mut other = url.clone();
        other.set_path(&path);
        other
    };
    let servers = parts
        .windows(2)
        .position(|pair| is_version(pair[0]) && pair[1] == "servers");
    match servers {
        // …/v0.1/servers
        Some(found) if found + 2 == parts.len() => Ok(Place::Lists(vec![at(path)])),
        // …/v0.1/servers/{name}, …/versions, …/versions/{version}
        Some(found) => {
            let rest = &parts[found + 2..];
            let path = match rest {
                [_] => format!("{path}/versions/latest"),
                [_, "versions"] => format!("{path}/latest"),
                [_, "versions", _] => path.clone(),
                _ => bail!("{url} is no URL of a registry's server; the slash in its name is written %2F"),
            };
            Ok(Place::Document(at(path)))
        }
        None if parts.last().is_some_and(|last| is_version(last)) => {
            Ok(Place::Lists(vec![at(format!("{path}/servers"))]))
        }
        None => Ok(Place::Lists(
            VERSIONS
                .map(|version| at(format!("{path}/{version}/servers")))
                .to_vec(),
        )),
    }
}

/// The servers in a document: a server.json, one that a registry tells of, or a list of those.
fn entries(document: &Value) -> anyhow::Result<Vec<Entry>> {
    let listed = match document.get("servers") {
        Some(Value::Array(servers)) => servers.iter().collect(),
        _ => vec![document],
    };
    let mut all = Vec::with_capacity(listed.len());
    for one in listed {
        let wrapped = one.get("server").filter(|server| server.is_object());
        let Value::Object(server) = wrapped.unwrap_or(one) else {
            bail!("it is no server.json: an object with a name is expected");
        };
        if !server.get("name").is_some_and(Value::is_string) {
            bail!("it is no server.json: it has no name");
        }
        let told = one.get("_meta").and_then(|meta| meta.get(OFFICIAL));
        let told = |key: &str| told.and_then(|told| told.get(key));
        let is_latest = told("isLatest").or_else(|| told("is_latest"));
        if is_latest == Some(&Value::Bool(false)) && document.get("servers").is_some() {
            continue;
        }
        let status = told("status").or_else(|| server.get("status"));
        all.push(Entry {
            server: server.clone(),
            status: status.and_then(Value::as_str).unwrap_or("active").to_owned(),
        });
    }
    Ok(all)
}

/// One entry for each name: the last, as older registries list the versions of a server in their order.
fn newest(all: Vec<Entry>) -> Vec<Entry> {
    let mut names = HashSet::new();
    let mut kept: Vec<Entry> = all
        .into_iter()
        .rev()
        .filter(|entry| names.insert(entry.server["name"].clone()))
        .collect();
    kept.reverse();
    kept
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn every_url_of_a_registry_is_understood() {
        for (url, meant) in [
            ("https://r.example", "https://r.example/v0.1/servers"),
            ("https://r.example/x/", "https://r.example/x/v0.1/servers"),
            ("https://r.example/v0", "https://r.example/v0/servers"),
            ("https://r.example/v0.1/servers", "https://r.example/v0.1/servers"),
            (
                "https://r.example/v0.1/servers/a%2Fb",
                "https://r.example/v0.1/servers/a%2Fb/versions/latest",
            ),
            (
                "https://r.example/v0.1/servers/a%2Fb/versions/1.0.0",
                "https://r.example/v0.1/servers/a%2Fb/versions/1.0.0",
            ),
            (
                "https://r.example/x/server.json?y",
                "https://r.example/x/server.json?y",
            ),
        ] {
            let place = place(&Url::parse(url).unwrap()).unwrap();
            let found = match place {
                Place::Document(url) => url,
                Place::Lists(urls) => urls[0].clone(),
            };
            assert_eq!(found.as_str(), meant, "{url}");
        }
        for wrong in [
            "https://r.example/v0.1/servers/a/b",
            "https://r.example/?search=x",
        ] {
            assert!(place(&Url::parse(wrong).unwrap()).is_err(), "{wrong}");
        }
    }

    #[test]
    fn old_versions_are_left_out_of_lists() {
        let list = json!({ "servers": [
            { "server": { "name": "a/b", "version": "1" }, "_meta": { OFFICIAL: { "isLatest": false } } },
            { "server": { "name": "a/b", "version": "2" }, "_meta": { OFFICIAL: { "isLatest": true, "status": "deprecated" } } },
            { "name": "a/c", "version": "1" },
            { "name": "a/c", "version": "2" },
        ] });
        let kept = newest(entries(&list).unwrap());
        let told: Vec<_> = kept
            .iter()
            .map(|entry| (entry.server["version"].as_str().unwrap(), entry.status.as_str()))
            .collect();
        assert_eq!(told, [("2", "deprecated"), ("2", "active")]);
        for wrong in [json!([]), json!({}), json!({ "servers": [1] }), json!("x")] {
            assert!(entries(&wrong).is_err(), "{wrong}");
        }
    }
}
