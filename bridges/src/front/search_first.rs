//! The endpoint that shows two tools instead of all: one finds tools, the other calls what was found.
//!
//! A model reads every tool of a list before it reads its task; of thousands it should read the few that fit. A call through
//! `call_tool` becomes a call of the tool that it names, so its progress, its questions and its cancellation go the usual way and
//! its answer comes back untouched.

use bus_schema::{
    Principal, RpcError, ServerId,
    edit::{Members, Object},
    mcp::{meta, method},
    rpc,
};
use runtime::discovery::{Found, Tools};
use serde::Deserialize;
use serde_json::{json, value::RawValue};

use super::{
    Caller, Endpoint, Final, Front, LIST_TTL_MS,
    answering::State,
    entrance::{Entrance, exchanged},
};
use crate::request::{Incoming, Piece};

const SEARCH_TOOLS: &str = "search_tools";
const CALL_TOOL: &str = "call_tool";
/// How many tools a search gives unless it asks for more or fewer, and how many at most.
const FOUND: usize = 5;
const MOST_FOUND: usize = 50;

/// How a model should use the endpoint.
pub(super) const INSTRUCTIONS: &str = "This endpoint reaches the tools of many servers. Find those that fit a task with `search_tools`, \
     then call one with `call_tool` under the name that the search gave, with arguments as its input schema says.";

/// The members of a found tool that a model chooses and calls it by.
const SHOWN: [&str; 4] = ["title", "description", "inputSchema", "annotations"];

const TOOLS: &str = r#"[{"name":"search_tools","title":"Search tools","description":"Finds the tools that fit a task best, among those of all servers. Gives their names, descriptions and input schemas; call one with `call_tool`.","inputSchema":{"type":"object","properties":{"query":{"type":"string","description":"What the tool should do, in a few words"},"limit":{"type":"integer","minimum":1,"maximum":50,"default":5,"description":"How many tools to give at most"},"server":{"type":"string","description":"The id of a server, to search its tools only"},"tags":{"type":"array","items":{"type":"string"},"description":"Labels that the servers must have"}},"required":["query"],"additionalProperties":false},"outputSchema":{"type":"object","properties":{"tools":{"type":"array","description":"The tools, the best first","items":{"type":"object","properties":{"name":{"type":"string"},"server":{"type":"string"},"title":{"type":"string"},"description":{"type":"string"},"inputSchema":{"type":"object"},"annotations":{"type":"object"}},"required":["name","server","inputSchema"]}},"missing":{"type":"array","description":"Servers that did not say what they offer","items":{"type":"string"}}},"required":["tools"]},"annotations":{"readOnlyHint":true,"idempotentHint":true,"openWorldHint":false}},{"name":"call_tool","title":"Call a tool","description":"Calls a tool that `search_tools` has found, and gives that tool's own result.","inputSchema":{"type":"object","properties":{"name":{"type":"string","description":"The tool's name, as `search_tools` gave it"},"arguments":{"type":"object","description":"The arguments, as the tool's input schema says"}},"required":["name"],"additionalProperties":false}}]"#;

impl Front {
    pub(super) async fn enter_search(
        &self,
        caller: &Caller,
        incoming: &Incoming,
    ) -> Result<Entrance, RpcError> {
        match (incoming.method.as_str(), &incoming.name) {
            (method::TOOLS_LIST, _) => {
                self.allow(caller, incoming).await?;
                let list = format!(
                    r#"{{"resultType":"complete","ttlMs":{LIST_TTL_MS},"cacheScope":"private","tools":{TOOLS}}}"#
                );
                Ok(answered(incoming, &list))
            }
            (method::TOOLS_CALL, Some(name)) if name.value == SEARCH_TOOLS => {
                let result = match Search::read(incoming) {
                    Ok(search) => self.search(&caller.principal, search).await,
                    Err(why) => failed(&why),
                };
                Ok(answered(incoming, &result))
            }
            (method::TOOLS_CALL, Some(name)) if name.value == CALL_TOOL => {
                match self.called(&caller.principal, incoming).await {
                    Ok((found, arguments)) => call(caller, incoming, name, &found, arguments),
                    Err(why) => {
                        self.put_unknown(caller, incoming, &RpcError::invalid_params(""));
                        Ok(answered(incoming, &failed(&why)))
                    }
                }
            }
            // What a search has found may also be called by its name, and prompts and resources are those of all servers.
            _ => Ok(Entrance::AsItCame),
        }
    }

    async fn search(&self, principal: &Principal, search: Search) -> String {
        let discovery = self.0.discovery.seen_with(self.sight(principal));
        let mut discovery = discovery.with_tags(search.tags);
        if let Some(server) = &search.server {
            match server.parse::<ServerId>() {
                Ok(id) if self.directory().snapshot().server(&id).is_some() => {
                    discovery = discovery.with_server(id);
                }
                _ => return failed(&format!("there is no server `{server}`; search without `server`")),
            }
        }
        let limit = search.limit.unwrap_or(FOUND);
        found(&discovery.search(&search.query, limit).await)
    }

    /// The tool that a call through `call_tool` names, and its arguments; `None` for any other call.
    pub(super) async fn called_tool<'a>(
        &self,
        principal: &Principal,
        incoming: &'a Incoming,
    ) -> Option<(Found, &'a str)> {
        let name = incoming.name.as_ref()?;
        if name.value != CALL_TOOL {
            return None;
        }
        self.called(principal, incoming).await.ok()
    }

    /// The tool that a call names, and its arguments as they were written.
    async fn called<'a>(
        &self,
        principal: &Principal,
        incoming: &'a Incoming,
    ) -> Result<(Found, &'a str), String> {
        #[derive(Deserialize)]
        #[serde(deny_unknown_fields)]
        struct Call<'a> {
            name: String,
            #[serde(borrow, default)]
            arguments: Option<&'a RawValue>,
        }
        let call: Call<'_> = arguments(incoming, CALL_TOOL)?;
        let arguments = call.arguments.map_or("{}", RawValue::get);
        if call
            .arguments
            .is_some_and(|arguments| !meta::is_object(arguments))
        {
            return Err(format!(
                "`arguments` of `{CALL_TOOL}` must be an object with the arguments of the tool"
            ));
        }
        let discovery = self.0.discovery.seen_with(self.sight(principal));
        let found = discovery.find(&call.name).await;
        found
            .map(|found| (found, arguments))
            .map_err(|error| format!("{error}. `{SEARCH_TOOLS}` finds tools"))
    }
}

/// A search as its client wrote it.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Search {
    query: String,
    #[serde(default)]
    limit: Option<usize>,
    #[serde(default)]
    server: Option<String>,
    #[serde(default)]
    tags: Vec<String>,
}

impl Search {
    fn read(incoming: &Incoming) -> Result<Self, String> {
        let search: Self = arguments(incoming, SEARCH_TOOLS)?;
        match search.limit {
            Some(limit) if !(1..=MOST_FOUND).contains(&limit) => Err(format!(
                "`limit` of `{SEARCH_TOOLS}` is {limit}; use 1 to {MOST_FOUND}"
            )),
            _ => Ok(search),
        }
    }
}

fn arguments<'a, T: Deserialize<'a>>(incoming: &'a Incoming, tool: &str) -> Result<T, String> {
    let written = incoming
        .arguments
        .clone()
        .map_or(&b"{}"[..], |place| &incoming.body[place]);
    serde_json::from_slice(written).map_err(|error| format!("the arguments of `{tool}` are wrong: {error}"))
}

/// The call of the tool itself: its own name and arguments in the place of ours. What else the client sent stays, such as its
/// progress token, or its answers to what the tool has asked.
fn call(
    caller: &Caller,
    incoming: &Incoming,
    name: &Piece,
    found: &Found,
    arguments: &str,
) -> Result<Entrance, RpcError> {
    let mut pieces = vec![(&name.place, rpc::quote(found.name()))];
    if let Some(place) = &incoming.arguments {
        pieces.push((place, arguments.to_owned()));
    }
    exchanged(caller, Endpoint::Server(found.server.clone()), incoming, &pieces)
}

fn found(tools: &Tools) -> String {
    let each: Vec<String> = tools.tools.iter().map(shown).collect();
    let mut structured = format!(r#"{{"tools":[{}]"#, each.join(","));
    if !tools.missing.is_empty() {
        structured.push_str(&format!(r#","missing":{}"#, json!(tools.missing)));
    }
    structured.push('}');
    let text = rpc::quote(&structured);
    format!(
        r#"{{"resultType":"complete","content":[{{"type":"text","text":{text}}}],"structuredContent":{structured},"isError":false}}"#
    )
}

/// A tool as a search shows it: what its server wrote, under the name that `call_tool` takes.
fn shown(found: &Found) -> String {
    let mut tool = Object::default();
    tool.push(r#""name""#, &rpc::quote(&found.prefixed()));
    tool.push(r#""server""#, &rpc::quote(found.server.as_str()));
    if let Some(members) = Members::of(&found.item().json) {
        for key in SHOWN {
            if let Some(value) = members.get(key) {
                tool.push(&rpc::quote(key), value.get());
            }
        }
    }
    tool.finish()
}

/// What a model reads whose call was wrong, and which it can put right.
fn failed(why: &str) -> String {
    let text = rpc::quote(why);
    format!(r#"{{"resultType":"complete","content":[{{"type":"text","text":{text}}}],"isError":true}}"#)
}

fn answered(incoming: &Incoming, result: &str) -> Entrance {
    let body = rpc::result_response(incoming.id.as_deref().unwrap_or("null"), result.as_bytes());
    Entrance::Answered(State::Local(Some(Final {
        code: None,
        body: body.into(),
        fault: None,
    })))
}

#[cfg(test)]
mod tests {
    use serde_json::Value;

    use super::*;

    #[test]
    fn the_tools_say_what_is_taken() {
        let tools: Vec<Value> = serde_json::from_str(TOOLS).expect("JSON");
        let names: Vec<_> = tools
            .iter()
            .map(|tool| tool["name"].as_str().expect("a name"))
            .collect();
        assert_eq!(names, [SEARCH_TOOLS, CALL_TOOL]);
        let limit = &tools[0]["inputSchema"]["properties"]["limit"];
        assert_eq!(
            (&limit["default"], &limit["maximum"]),
            (&json!(FOUND), &json!(MOST_FOUND))
        );
    }
}
