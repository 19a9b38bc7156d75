//! What somebody wants to do, and how it is told from everything else.

use std::borrow::Cow;

use super::pattern::resolved;
use crate::{
    card::NAME_SEPARATOR,
    mcp::method::{self, is_custom},
};

/// What somebody wants to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Action<'a> {
    /// The id of the server that is asked; empty for what operators do.
    pub server: &'a str,
    /// The MCP method.
    pub method: &'a str,
    /// What the method names there, without the server's prefix.
    pub what: What<'a>,
    /// What the server says of the tool.
    pub annotations: Annotations,
    /// What the method is given.
    pub arguments: Arguments<'a>,
}

/// The thing itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum What<'a> {
    /// A tool by name.
    Tool(&'a str),
    /// A prompt by name.
    Prompt(&'a str),
    /// A resource by URI, or a template by its text.
    Resource(&'a str),
    /// The method itself, which names nothing else.
    Method,
    /// Something that operators do, such as `servers:write`.
    Admin(&'a str),
}

/// What is given with a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Arguments<'a> {
    /// Nothing yet: the question is whether there are any with which it is allowed. So lists are made.
    Open,
    /// These, as JSON text.
    Given(&'a str),
}

/// What a server says of a tool, with what the protocol assumes where it says nothing. A hint: a server may be wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Annotations {
    /// It changes nothing.
    pub read_only: bool,
    /// It may destroy something.
    pub destructive: bool,
    /// Done twice, it is done once.
    pub idempotent: bool,
    /// It reaches beyond its server.
    pub open_world: bool,
}

impl Default for Annotations {
    fn default() -> Self {
        Self {
            read_only: false,
            destructive: true,
            idempotent: false,
            open_world: true,
        }
    }
}

impl Annotations {
    /// Those of a tool as its server wrote it.
    #[must_use]
    pub fn of_tool(tool: &str) -> Self {
        #[derive(serde::Deserialize)]
        struct Tool {
            #[serde(default)]
            annotations: Option<Hints>,
        }
        #[derive(serde::Deserialize)]
        #[serde(rename_all = "camelCase")]
        struct Hints {
            read_only_hint: Option<bool>,
            destructive_hint: Option<bool>,
            idempotent_hint: Option<bool>,
            open_world_hint: Option<bool>,
        }
        let usual = Self::default();
        let hints = serde_json::from_str::<Tool>(tool)
            .ok()
            .and_then(|tool| tool.annotations);
        hints.map_or(usual, |hints| Self {
            read_only: hints.read_only_hint.unwrap_or(usual.read_only),
            destructive: hints.destructive_hint.unwrap_or(usual.destructive),
            idempotent: hints.idempotent_hint.unwrap_or(usual.idempotent),
            open_world: hints.open_world_hint.unwrap_or(usual.open_world),
        })
    }
}

impl<'a> Action<'a> {
    /// A call of a tool, with whatever arguments.
    #[must_use]
    pub fn tool(server: &'a str, tool: &'a str) -> Self {
        Self::new(server, method::TOOLS_CALL, What::Tool(tool))
    }

    /// Getting a prompt, with whatever arguments.
    #[must_use]
    pub fn prompt(server: &'a str, prompt: &'a str) -> Self {
        Self::new(server, method::PROMPTS_GET, What::Prompt(prompt))
    }

    /// Reading a resource.
    #[must_use]
    pub fn resource(server: &'a str, uri: &'a str) -> Self {
        Self::new(server, method::RESOURCES_READ, What::Resource(uri))
    }

    /// A method that names nothing else.
    #[must_use]
    pub fn method(server: &'a str, method: &'a str) -> Self {
        Self::new(server, method, What::Method)
    }

    /// Something that operators do.
    #[must_use]
    pub fn admin(action: &'a str) -> Self {
        Self::new("", "", What::Admin(action))
    }

    /// A method with what it names. `reference` is what a completion is for.
    #[must_use]
    pub fn of(server: &'a str, called: &'a str, name: Option<&'a str>, reference: Option<What<'a>>) -> Self {
        let what = match (called, name, reference) {
            (method::TOOLS_CALL, Some(name), _) => What::Tool(name),
            (method::PROMPTS_GET, Some(name), _) => What::Prompt(name),
            (method::RESOURCES_READ | method::SUBSCRIBE | method::UNSUBSCRIBE, Some(uri), _) => {
                What::Resource(uri)
            }
            (method::COMPLETE, _, Some(what)) => what,
            _ => What::Method,
        };
        Self::new(server, called, what)
    }

    fn new(server: &'a str, method: &'a str, what: What<'a>) -> Self {
        Self {
            server,
            method,
            what,
            annotations: Annotations::default(),
            arguments: Arguments::Open,
        }
    }

    /// The same with arguments, as JSON text.
    #[must_use]
    pub fn with_arguments(self, arguments: &'a str) -> Self {
        Self {
            arguments: Arguments::Given(arguments),
            ..self
        }
    }

    /// The same of a tool of which its server says this.
    #[must_use]
    pub fn with_annotations(self, annotations: Annotations) -> Self {
        Self { annotations, ..self }
    }

    /// What is named, without its server.
    #[must_use]
    pub fn name(&self) -> &'a str {
        match self.what {
            What::Tool(name) | What::Prompt(name) | What::Resource(name) | What::Admin(name) => name,
            What::Method => self.method,
        }
    }

    /// Every spelling under which a document may name it.
    pub(super) fn spellings(&self) -> Spellings<'a> {
        let full = |name: &str| format!("{}{NAME_SEPARATOR}{name}", self.server);
        match self.what {
            What::Admin(action) => Spellings([Some(Cow::Borrowed(action)), None]),
            What::Resource(uri) => {
                Spellings([Some(full(uri).into()), resolved(uri).map(|uri| full(&uri).into())])
            }
            _ => Spellings([Some(full(self.name()).into()), None]),
        }
    }

    /// Whether it is one of the protocol's own methods that name nothing: what they give is filtered, or belongs to who asks.
    pub(super) fn is_of_protocol(&self) -> bool {
        matches!(self.what, What::Method) && !is_custom(self.method)
    }
}

/// The names of one thing; the first is as it was spelled.
pub(super) struct Spellings<'a>([Option<Cow<'a, str>>; 2]);

impl Spellings<'_> {
    pub(super) fn all(&self) -> impl Iterator<Item = &str> {
        self.0.iter().flatten().map(AsRef::as_ref)
    }
}

/// The lists of a document, one for each kind of thing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Tool,
    Prompt,
    Resource,
    Method,
    Admin,
}

impl What<'_> {
    pub(super) fn kind(self) -> Kind {
        match self {
            Self::Tool(_) => Kind::Tool,
            Self::Prompt(_) => Kind::Prompt,
            Self::Resource(_) => Kind::Resource,
            Self::Method => Kind::Method,
            Self::Admin(_) => Kind::Admin,
        }
    }
}
