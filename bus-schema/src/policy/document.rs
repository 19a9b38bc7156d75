//! A policy as people write it: which roles have which scopes, what each scope opens, and rules for the rest.
//!
//! A document is only words; [`Policy::compile`](super::Policy::compile) says whether it means something.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// A policy, as it is written and kept.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Document {
    /// What becomes of what nothing in the document names.
    pub default: Otherwise,
    /// What people are, with the scopes that they have by it.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub roles: BTreeMap<String, Role>,
    /// What each scope opens.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub scopes: BTreeMap<String, Opens>,
    /// What is allowed, denied or hidden beside.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub rules: Vec<Rule>,
}

/// What becomes of what a document does not name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Otherwise {
    /// It is hidden from everybody.
    Deny,
    /// Everybody has it.
    Allow,
}

/// A role and what it has.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Role {
    /// Roles whose scopes it has as well.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub includes: Vec<String>,
    /// Its own scopes.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub scopes: Vec<String>,
}

/// What a scope opens: a list of tools, or a list for each kind of thing.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(
    untagged,
    expecting = "a list of tools, or a table with `tools`, `prompts`, `resources`, `methods` and `admin`"
)]
pub enum Opens {
    /// Tools.
    Tools(Vec<String>),
    /// Anything.
    Targets(Targets),
}

/// Things by name. Patterns are `<server>__<name>`, those of `admin` the action alone; `*` stands for any characters.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Targets {
    /// Tools.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub tools: Vec<String>,
    /// Prompts.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub prompts: Vec<String>,
    /// Resources by URI.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub resources: Vec<String>,
    /// Methods that servers have beside those of MCP, and MCP's own that name nothing, such as `crm__tasks/cancel`.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub methods: Vec<String>,
    /// What operators do, such as `servers:write`.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub admin: Vec<String>,
}

/// What a rule does to what it concerns.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Effect {
    /// It may be had.
    Allow,
    /// It may not, whatever else allows it; lists go on showing it.
    Deny,
    /// It may not, and is not seen either.
    Hide,
}

/// One rule. It concerns what its lists name; without any it concerns everything.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Rule {
    /// What it is called, by which refusals and explanations name it.
    pub name: String,
    /// What it does.
    pub effect: Effect,
    /// Tools.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub tools: Vec<String>,
    /// Prompts.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub prompts: Vec<String>,
    /// Resources by URI.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub resources: Vec<String>,
    /// Methods.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub methods: Vec<String>,
    /// What operators do.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub admin: Vec<String>,
    /// Scopes that matter to it: what it allows it allows to those who have all of them, and what it denies it denies to all others.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub scopes: Vec<String>,
    /// A condition in CEL. Without one the rule holds always.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub when: Option<String>,
}

impl Rule {
    /// What it names.
    pub(super) fn targets(&self) -> Targets {
        Targets {
            tools: self.tools.clone(),
            prompts: self.prompts.clone(),
            resources: self.resources.clone(),
            methods: self.methods.clone(),
            admin: self.admin.clone(),
        }
    }
}

impl Opens {
    /// What it opens, by kind.
    pub(super) fn targets(&self) -> Targets {
        match self {
            Self::Tools(tools) => Targets {
                tools: tools.clone(),
                ..Targets::default()
            },
            Self::Targets(targets) => targets.clone(),
        }
    }
}
