//! The platform as the suite's client: it reaches the suite's server as one of its upstreams, and a client of the platform does
//! everything there that the server offers.
//!
//! A scenario looks at what arrives at its server, so one client serves all of them: it lists everything, calls each tool with
//! what its schema asks for, answers what it is asked meanwhile, gets each prompt and reads each resource.

use std::iter;

use bus_schema::{
    header,
    mcp::{meta, method, mirrored},
};
use reqwest::RequestBuilder;
use serde_json::{Map, Value, json};

use crate::{http::Client, platform::Platform, session::messages};

/// The id of the suite's server on the bus.
const ID: &str = "suite";
/// How often a call is made again with answers.
const MOST_ROUNDS: usize = 5;
/// What the suite's scenario about schemas wants back, and the tool that takes it.
const SHOWN_TOOL: &str = "json_schema_2020_12_tool";
const ECHO_TOOL: &str = "json_schema_echo";

/// Plays a scenario against the suite's server at a URL. The context is what the suite wants to be sent, if it says so.
///
/// # Panics
/// When the platform does not start, or does not answer.
pub async fn play(url: &str, context: &Value) {
    let line = format!(
        "[[servers]]\nid = {}\nurl = {}\nallow_private = true\n",
        json!(ID),
        json!(url)
    );
    let platform = Platform::start(&line, &[ID]).await;
    platform.knows(ID).await;
    let caller = Caller(platform.client(ID));
    caller.play(context).await;
    platform.stop().await;
}

struct Caller(Client);

impl Caller {
    async fn play(&self, context: &Value) {
        // A server that has no tools, prompts or resources says so, and nothing follows from that: the suite looks at what arrives.
        let tools = self.list(method::TOOLS_LIST, "tools").await.unwrap_or_default();
        for tool in &tools {
            let name = tool["name"].as_str().unwrap_or_default();
            for arguments in arguments_for(name, tool, &tools, context) {
                self.finish(
                    method::TOOLS_CALL,
                    json!({ "name": name, "arguments": arguments }),
                    &tool["inputSchema"],
                )
                .await;
            }
        }
        for prompt in self
            .list(method::PROMPTS_LIST, "prompts")
            .await
            .unwrap_or_default()
        {
            let given = prompt["arguments"].as_array().into_iter().flatten();
            let arguments: Map<String, Value> = given
                .filter_map(|argument| Some((argument["name"].as_str()?.to_owned(), "a".into())))
                .collect();
            let params = json!({ "name": prompt["name"], "arguments": arguments });
            self.finish(method::PROMPTS_GET, params, &Value::Null).await;
        }
        for resource in self
            .list(method::RESOURCES_LIST, "resources")
            .await
            .unwrap_or_default()
        {
            let params = json!({ "uri": resource["uri"] });
            self.finish(method::RESOURCES_READ, params, &Value::Null).await;
        }
    }

    async fn list(&self, called: &str, key: &str) -> Option<Vec<Value>> {
        let mut answer = self.ask(called, json!({}), &Value::Null).await;
        match answer["result"][key].take() {
            Value::Array(list) => Some(list),
            _ => None,
        }
    }

    /// Makes a call, and makes it again with answers for as long as it asks for some.
    async fn finish(&self, called: &str, params: Value, schema: &Value) {
        let mut next = params.clone();
        for _ in 0..MOST_ROUNDS {
            let answer = self.ask(called, next, schema).await;
            let result = &answer["result"];
            let Some(requests) = result["inputRequests"].as_object() else {
                return;
            };
            let answers: Map<String, Value> = requests
                .iter()
                .map(|(key, request)| (key.clone(), respond(request)))
                .collect();
            next = params.clone();
            next["inputResponses"] = Value::Object(answers);
            if let Some(state) = result.get("requestState") {
                next["requestState"] = state.clone();
            }
        }
    }

    async fn ask(&self, called: &str, mut params: Value, schema: &Value) -> Value {
        let capabilities = json!({ "elicitation": {}, "sampling": {}, "roots": {} });
        let arguments = params["arguments"].clone();
        params["_meta"] = json!({ meta::CLIENT_CAPABILITIES: capabilities });
        if params["arguments"].is_null()
            && let Some(params) = params.as_object_mut()
        {
            params.remove("arguments");
        }
        let request = with_mirrored(self.0.modern(called, params), schema, &arguments);
        messages(request).await.pop().unwrap_or_default()
    }
}

/// Repeats the arguments in headers that the tool's schema wants to be repeated.
fn with_mirrored(request: RequestBuilder, schema: &Value, arguments: &Value) -> RequestBuilder {
    let mirrored = mirrored::mirrored(schema).unwrap_or_default();
    mirrored.iter().fold(request, |request, one| {
        let argument = one.path.iter().try_fold(arguments, |value, key| value.get(key));
        let text = match argument {
            None | Some(Value::Null) => return request,
            Some(Value::String(text)) => text.clone(),
            Some(other) => other.to_string(),
        };
        request.header(
            format!("{}{}", header::PARAM_PREFIX, one.name),
            header::encode_value(&text).as_ref(),
        )
    })
}

/// The arguments of each call of a tool: those that the suite wants, or some that fit the schema.
fn arguments_for(name: &str, tool: &Value, tools: &[Value], context: &Value) -> Vec<Value> {
    let wanted: Vec<Value> = context["toolCalls"]
        .as_array()
        .into_iter()
        .flatten()
        .filter(|call| call["name"] == name)
        .map(|call| call["arguments"].clone())
        .collect();
    if !wanted.is_empty() {
        return wanted;
    }
    if name == ECHO_TOOL
        && let Some(shown) = tools.iter().find(|tool| tool["name"] == SHOWN_TOOL)
    {
        return vec![json!({ "schema": shown["inputSchema"] })];
    }
    vec![sample(&tool["inputSchema"])]
}

/// A value that fits a schema, as far as simple schemas go: its default, or something of its type.
fn sample(schema: &Value) -> Value {
    if let Some(default) = schema.get("default") {
        return default.clone();
    }
    let titled = || {
        ["oneOf", "anyOf"]
            .iter()
            .find_map(|key| schema[key][0].get("const"))
    };
    if let Some(first) = schema["enum"].get(0).or_else(titled) {
        return first.clone();
    }
    match schema["type"].as_str() {
        Some("string") => "a".into(),
        Some("integer" | "number") => 5.into(),
        Some("boolean") => true.into(),
        Some("array") => iter::once(sample(&schema["items"])).collect(),
        Some("object") => {
            let properties = schema["properties"].as_object().into_iter().flatten();
            let filled: Map<String, Value> = properties
                .map(|(key, schema)| (key.clone(), sample(schema)))
                .collect();
            Value::Object(filled)
        }
        _ => Value::Null,
    }
}

/// What a willing user, model or client says to what a server asks.
fn respond(request: &Value) -> Value {
    match request["method"].as_str() {
        Some("elicitation/create") => {
            json!({ "action": "accept", "content": sample(&request["params"]["requestedSchema"]) })
        }
        Some("sampling/createMessage") => {
            let content = json!({ "type": "text", "text": "Yes." });
            json!({ "role": "assistant", "content": content, "model": "none", "stopReason": "endTurn" })
        }
        _ => json!({ "roots": [] }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sample_takes_the_defaults_of_a_schema() {
        let schema = json!({ "type": "object", "properties": {
            "name": { "type": "string", "default": "John Doe" },
            "age": { "type": "integer" },
            "status": { "type": "string", "enum": ["active", "inactive"] },
            "verified": { "type": "boolean", "default": false },
            "roles": { "type": "array", "items": { "anyOf": [{ "const": "owner", "title": "Owner" }] } },
        } });
        let expected = json!({
            "name": "John Doe", "age": 5, "status": "active", "verified": false, "roles": ["owner"]
        });
        assert_eq!(sample(&schema), expected);
    }

    #[test]
    fn the_arguments_that_the_suite_wants_are_the_ones_sent() {
        let tools = [json!({ "name": "t", "inputSchema": { "type": "object" } })];
        let context = json!({ "toolCalls": [{ "name": "t", "arguments": { "a": 1 } }, { "name": "u", "arguments": {} }] });
        assert_eq!(
            arguments_for("t", &tools[0], &tools, &context),
            [json!({ "a": 1 })]
        );
        assert_eq!(arguments_for("t", &tools[0], &tools, &Value::Null), [json!({})]);
    }
}
