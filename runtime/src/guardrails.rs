//! The guardrails in force, ready to use, as [`documents`] holds them.
//!
//! Until a process knows what is kept it lets no call through that guardrails look at.

use std::sync::Arc;

use bus_schema::guardrails::{BadGuardrails, Document, Guardrails, ROLLBACK, SET};

use crate::{
    bus::Bus,
    documents::{self, Documents, Kind, Unusable},
    store::BucketOptions,
};

/// Guardrails, as a kind of document.
#[derive(Debug)]
pub struct Rails;

/// The guardrails of all tenants, as this process knows them.
pub type AllGuardrails = Documents<Rails>;
/// The guardrails of a tenant, ready to use.
pub type InForce = documents::InForce<Rails>;
/// The versions of all tenants' guardrails.
pub type GuardrailStore = documents::Store<Rails>;

impl Kind for Rails {
    type Document = Document;
    type Configured = Document;
    type Ready = Result<Arc<Guardrails>, &'static str>;

    const WHAT: &'static str = "guardrails";
    const CURRENT: BucketOptions = documents::current("guardrails");
    const HISTORY: BucketOptions = documents::history("guardrails_history");
    const SET: &'static str = SET;
    const ROLLBACK: &'static str = ROLLBACK;

    fn heard(bus: &Bus) -> AllGuardrails {
        bus.guardrails()
    }

    fn ready(document: &Document, _: &Document) -> Result<Self::Ready, Unusable> {
        let rails = Guardrails::compile(document).map_err(|bad| Unusable {
            why: bad.to_string(),
            at: bad.at,
        })?;
        Ok(Ok(Arc::new(rails)))
    }

    fn otherwise(configured: &Document) -> Self::Ready {
        Self::ready(configured, configured).unwrap_or(Err("the configured guardrails cannot be used"))
    }

    fn not_known() -> Self::Ready {
        Err("which guardrails there are is not known yet")
    }

    fn not_read() -> Self::Ready {
        Err("the guardrails that are kept cannot be read by this process")
    }
}

impl InForce {
    /// What is done; otherwise why nothing goes through.
    ///
    /// # Errors
    /// Why there are none that could be used.
    pub fn rails(&self) -> Result<&Arc<Guardrails>, &'static str> {
        self.ready.as_ref().map_err(|why| *why)
    }
}

impl Bus {
    /// The guardrails, as this process hears of them; the first who asks begins to listen.
    #[must_use]
    pub fn guardrails(&self) -> AllGuardrails {
        self.guardrails_once()
            .get_or_init(|| AllGuardrails::hear(self))
            .clone()
    }
}

impl AllGuardrails {
    /// Says what holds where nothing is kept.
    ///
    /// # Errors
    /// [`BadGuardrails`] when the document cannot be meant; then nothing changes.
    pub fn configure(&self, configured: Document) -> Result<(), BadGuardrails> {
        Guardrails::compile(&configured)?;
        self.put_configured(configured);
        Ok(())
    }
}
