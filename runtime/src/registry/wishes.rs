//! What else the registry is asked to do: it alone writes what operators say of traffic, virtual servers and blocked callers, as it alone
//! decides who may.

use bus_schema::{
    Principal,
    block::{self, Block, Release, Stop},
    registry::{Keeping, Remove},
    traffic,
    virtual_server::{self, Define, Defined, Undefine},
};
use serde::de::IgnoredAny;

use super::RegistryError;
use crate::{bus::Bus, call::Retry};

impl Bus {
    /// Asks the registry to keep a traffic rule.
    ///
    /// # Errors
    /// [`RegistryError`] when it does not.
    pub async fn set_traffic(
        &self,
        principal: &Principal,
        wish: &traffic::Set,
    ) -> Result<Keeping<traffic::Kept>, RegistryError> {
        self.ask_registry(principal, traffic::SET, wish, Retry::Never)
            .await
    }

    /// Asks the registry to forget a traffic rule.
    ///
    /// # Errors
    /// [`RegistryError`] when it does not.
    pub async fn clear_traffic(&self, principal: &Principal, wish: &Remove) -> Result<(), RegistryError> {
        let done = self.ask_registry(principal, traffic::CLEAR, wish, Retry::Never);
        done.await.map(|IgnoredAny| ())
    }

    /// Asks the registry to keep the definition of a virtual server.
    ///
    /// # Errors
    /// [`RegistryError`] when it does not.
    pub async fn define(
        &self,
        principal: &Principal,
        wish: &Define,
    ) -> Result<Keeping<Defined>, RegistryError> {
        self.ask_registry(principal, virtual_server::DEFINE, wish, Retry::Never)
            .await
    }

    /// Asks the registry to forget a virtual server.
    ///
    /// # Errors
    /// [`RegistryError`] when it does not.
    pub async fn undefine(&self, principal: &Principal, wish: &Undefine) -> Result<(), RegistryError> {
        let done = self.ask_registry(principal, virtual_server::UNDEFINE, wish, Retry::Never);
        done.await.map(|IgnoredAny| ())
    }

    /// Asks the registry to stop somebody.
    ///
    /// # Errors
    /// [`RegistryError`] when it does not.
    pub async fn block(&self, principal: &Principal, wish: &Stop) -> Result<Block, RegistryError> {
        // Made twice, it says the same.
        self.ask_registry(principal, block::PUT, wish, Retry::Safe).await
    }

    /// Asks the registry to let somebody go.
    ///
    /// # Errors
    /// [`RegistryError`] when it does not.
    pub async fn unblock(&self, principal: &Principal, wish: &Release) -> Result<(), RegistryError> {
        let done = self.ask_registry(principal, block::REMOVE, wish, Retry::Never);
        done.await.map(|IgnoredAny| ())
    }
}
