//! Guardrails as people write them. A document is only words; [`Guardrails::compile`](super::Guardrails::compile) says whether it means
//! something.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// Guardrails, as they are written and kept.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Document {
    /// What is done, one step after the other; hooks come last, whatever the order.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub steps: Vec<Step>,
}

/// One step. Which fields it may have is a matter of its check.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Step {
    /// What it is called, by which refusals, flags, meters and logs name it.
    pub name: String,
    /// What it looks at.
    pub check: Check,
    /// What of servers it is for, as `<server>__<name>` with `*` for any characters; everything when there is none.
    #[serde(default, rename = "for", skip_serializing_if = "Vec::is_empty")]
    pub of: Vec<String>,
    /// Which texts it looks at.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub on: Vec<Side>,
    /// What it does about what it finds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub then: Option<Then>,
    /// What it looks for, by name.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub find: Vec<String>,
    /// Regular expressions of the operator's own that it looks for, by the names that they are told by.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub patterns: BTreeMap<String, String>,
    /// Phrases of the operator's own that it looks for.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub phrases: Vec<String>,
    /// How many bytes the arguments may have, as JSON.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub argument_bytes: Option<u64>,
    /// How many bytes the result may have, as JSON.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub result_bytes: Option<u64>,
    /// Which hook is asked.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hook: Option<String>,
    /// How long the hook is waited for, in milliseconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub timeout_ms: Option<u64>,
    /// What becomes of a call whose hook does not answer.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub on_failure: Option<OnFailure>,
}

/// What a step looks at.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Check {
    /// Whether arguments fit the tool's `inputSchema`, and structured results its `outputSchema`.
    Schema,
    /// How long texts are.
    Size,
    /// Secrets, and what people do not want to be known of them.
    Sensitive,
    /// Words that speak to the model, and characters that nobody sees.
    Injection,
    /// What an actor of the operator's says.
    Hook,
}

impl Check {
    /// As documents spell it.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Schema => "schema",
            Self::Size => "size",
            Self::Sensitive => "sensitive",
            Self::Injection => "injection",
            Self::Hook => "hook",
        }
    }
}

/// Which text is meant.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Side {
    /// What the caller sends.
    Arguments,
    /// What the server answers.
    Results,
    /// What the server lists: tools, prompts, resources and templates, each as it is described.
    Lists,
    /// What the server offers to complete an argument with.
    Completions,
}

impl Side {
    /// As documents spell it.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Arguments => "arguments",
            Self::Results => "results",
            Self::Lists => "lists",
            Self::Completions => "completions",
        }
    }
}

/// What is done about what is found.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Then {
    /// The call goes on, and its result says what was found.
    Flag,
    /// What was found is taken out of the text.
    Redact,
    /// The call is refused, or its result is kept back.
    Block,
}

impl Then {
    /// As documents spell it.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Flag => "flag",
            Self::Redact => "redact",
            Self::Block => "block",
        }
    }
}

/// What becomes of a call whose hook does not answer in time, or with something that cannot be read.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum OnFailure {
    /// It is refused.
    #[default]
    Deny,
    /// It goes on as if the hook had allowed it.
    Allow,
}
