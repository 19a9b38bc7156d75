//! Requests that no process of ours would make: they are refused without an answer, counted, and put on record.

use bus_schema::{
    Request,
    audit::{Kind, Record},
    codec::CodecError,
};
use tracing::warn;

use super::run::Shared;

/// The reply subject is no caller's inbox.
pub(super) fn reply_subject(shared: &Shared) {
    shared.bus.metrics().refused(shared.options.metered());
    put(
        shared,
        "reply_subject",
        "the reply subject is no caller's inbox",
        None,
    );
}

/// The request names another caller than its reply subject does, or somebody of another tenant.
pub(super) fn of_another(shared: &Shared, request: &Request, why: &'static str) {
    shared.bus.metrics().refused(shared.options.metered());
    let rule = match request.principal.tenant == shared.options.tenant {
        true => "reply_of_another",
        false => "tenant_of_another",
    };
    put(shared, rule, why, Some(request));
}

/// The envelope cannot be read.
pub(super) fn envelope(shared: &Shared, error: &CodecError) {
    warn!(%error, server.id = %shared.options.id, "refused a request whose envelope cannot be read");
    put(shared, "envelope", "the envelope cannot be read", None);
}

/// Whom a forged request is for is the word of whoever has forged it, so no principal is told.
fn put(shared: &Shared, rule: &str, why: &'static str, request: Option<&Request>) {
    let record = Record::refused(Kind::Forgery, rule)
        .at(shared.options.id.as_str())
        .because(why);
    let record = Record {
        tenant: shared.options.tenant.clone(),
        ..record
    };
    shared.bus.audit().put(match request {
        Some(request) => record.asking(&request.method, request.name.as_deref()),
        None => record,
    });
}
