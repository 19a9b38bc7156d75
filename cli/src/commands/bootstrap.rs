//! Registers a fleet when the platform starts. What is registered already stays: somebody may have changed it since, and meant it.

use std::time::Duration;

use bus_schema::registry::{Declaration, Over, Refusal, Was};
use runtime::registry::RegistryError;
use tokio::time::sleep;
use tracing::{info, warn};

use super::servers::add;
use crate::config::Config;

/// How long a registry that does not answer is left before it is asked again.
const ASK_AGAIN: Duration = Duration::from_secs(2);

/// Registers each server, and waits for a registry if there is none yet.
pub(super) async fn register(bus: runtime::Bus, config: Config, fleet: Vec<Declaration>) {
    for declaration in fleet {
        let id = declaration.id.clone();
        while let Err(error) = once(&bus, &config, declaration.clone()).await {
            match error.downcast_ref::<RegistryError>() {
                Some(RegistryError::Refused {
                    refusal: Some(Refusal::Exists),
                    ..
                }) => {
                    info!(server.id = %id, "is registered otherwise than the bootstrap file says, and stays so; `trunkline servers add --file … --replace` replaces it");
                    break;
                }
                Some(
                    RegistryError::Call(_)
                    | RegistryError::Refused {
                        refusal: Some(Refusal::Unavailable),
                        ..
                    },
                ) => {
                    warn!(server.id = %id, "no registry answers yet; it is asked again");
                    sleep(ASK_AGAIN).await;
                }
                _ => {
                    warn!(
                        error = format!("{error:#}"),
                        "a server of the bootstrap file was not registered"
                    );
                    break;
                }
            }
        }
    }
}

async fn once(bus: &runtime::Bus, config: &Config, declaration: Declaration) -> anyhow::Result<()> {
    let id = declaration.id.clone();
    if add::register(bus, config, declaration, Over::Nothing).await? == Was::New {
        info!(server.id = %id, "registered a server of the bootstrap file");
    }
    Ok(())
}
