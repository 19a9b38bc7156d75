//! Who somebody at the command line is.

use bus_schema::Principal;

use super::{Config, variable};

impl Config {
    /// Who somebody at the command line is to the registry and in what it keeps: the name that they have on this machine.
    #[must_use]
    pub fn operator(&self) -> Principal {
        let names = ["USER", "LOGNAME", "USERNAME"];
        let user = names.into_iter().find_map(variable);
        Principal::command_line(user.as_deref().unwrap_or("unknown"), &self.tenant)
    }
}
