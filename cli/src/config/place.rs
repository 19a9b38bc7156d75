//! Where this process runs: what a traffic rule that prefers the nearest replicas goes by.

use bus_schema::card::Place;
use rustix::system::uname;
use serde::Deserialize;

use crate::args::Common;

/// `[place]` in a file.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct PlaceTable {
    node: Option<String>,
    region: Option<String>,
}

impl PlaceTable {
    /// What is known, with the flags laid over it. A machine is known by its host name if by nothing else.
    pub(super) fn place(self, common: &Common) -> Place {
        let node = common.node.clone().or(self.node);
        Place {
            node: node.unwrap_or_else(|| uname().nodename().to_string_lossy().into_owned()),
            region: common.region.clone().or(self.region).unwrap_or_default(),
        }
    }
}
