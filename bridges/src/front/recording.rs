//! What is put on record of requests that go no further than the front.

use bus_schema::{
    RpcError, ServerId,
    audit::{Kind, Record},
    mcp::error,
};
use runtime::limits::Exceeded;

use super::{Caller, Front, authorize::Judged, route::Route};
use crate::request::Incoming;

impl Front {
    /// Puts a refusal on record, with all that is known of the request.
    pub(super) fn put(&self, caller: &Caller, incoming: &Incoming, refused: Record) {
        let record = of_request(caller, incoming, refused);
        caller.met.is_put();
        self.bus().audit().put(record);
    }

    /// Puts on record that a request named what its caller does not see, where something is hidden at all: nobody tells here whether it is
    /// hidden or not there.
    pub(super) fn put_unknown(&self, caller: &Caller, incoming: &Incoming, error: &RpcError) {
        let is_unknown = matches!(error.code, error::INVALID_PARAMS | error::METHOD_NOT_FOUND);
        if is_unknown && self.in_force(&caller.principal).policy().may_hide() && !caller.met.was_put() {
            let refused = Record::refused(Kind::Policy, "unknown");
            self.put(
                caller,
                incoming,
                refused.because("the caller sees nothing of this name"),
            );
        }
    }

    /// Puts on record that a stopped caller asks something.
    pub(super) fn put_blocked(&self, caller: &Caller, incoming: &Incoming) {
        self.put(caller, incoming, Record::refused(Kind::Block, "blocked"));
    }

    /// Puts on record that a limit does not allow a call now.
    pub(super) fn put_limited(&self, caller: &Caller, incoming: &Incoming, exceeded: &Exceeded) {
        let refused = Record::refused(Kind::Limit, &exceeded.standing.limit);
        self.put(caller, incoming, refused);
    }

    /// Whether a caller may ask this. What it may not is put on record.
    ///
    /// # Errors
    /// Why not.
    pub(super) async fn allow(&self, caller: &Caller, incoming: &Incoming) -> Result<(), RpcError> {
        let judged = self.judge(&caller.principal, &caller.endpoint, incoming).await;
        self.settle(caller, incoming, judged)
    }

    /// Goes by what was judged of a request. What it may not is put on record.
    ///
    /// # Errors
    /// Why it may not.
    pub(super) fn settle(
        &self,
        caller: &Caller,
        incoming: &Incoming,
        judged: Result<(), Box<Judged>>,
    ) -> Result<(), RpcError> {
        let Err(judged) = judged else { return Ok(()) };
        // The judgement knows the tool by its server's own name.
        let (server, name) = (judged.record.server.clone(), judged.record.name.clone());
        let record = of_request(caller, incoming, judged.record);
        caller.met.is_put();
        self.bus().audit().put(Record {
            server,
            name,
            ..record
        });
        Err(judged.barred.into())
    }

    /// Checks whose a task is that a request is about, and gives the version of the server that has made it, if that matters.
    pub(super) async fn own_task(
        &self,
        caller: &Caller,
        incoming: &Incoming,
        route: &Route,
    ) -> Result<Option<String>, RpcError> {
        let checked = self.task(&caller.principal, incoming, route).await;
        if checked
            .as_ref()
            .is_err_and(|error| error.code == error::INVALID_PARAMS)
        {
            let refused = Record::refused(Kind::Owner, "task").because("the task is not this caller's");
            self.put(caller, incoming, refused);
        }
        checked
    }

    /// Puts on record that somebody is not told of a resource.
    pub(super) fn put_unheard(&self, caller: &Caller, incoming: &Incoming, server: &ServerId, uri: &str) {
        let refused = of_request(caller, incoming, Record::refused(Kind::Policy, "listen"));
        let record = refused.at(server.as_str()).asking(&incoming.method, Some(uri));
        self.bus().audit().put(record);
    }
}

fn of_request(caller: &Caller, incoming: &Incoming, refused: Record) -> Record {
    let server = match &caller.endpoint {
        super::Endpoint::Server(id) => id.as_str(),
        super::Endpoint::All | super::Endpoint::Search => "",
    };
    let trace = caller.trace.as_ref().or(incoming.meta.trace.as_ref());
    refused
        .by(&caller.principal)
        .through(caller.door)
        .at(server)
        .asking(
            &incoming.method,
            incoming.name.as_ref().map(|name| name.value.as_str()),
        )
        .about(&incoming.body)
        .traced(
            trace.map(bus_schema::TraceContext::trace_id),
            caller.protocol_version.as_str(),
        )
}
