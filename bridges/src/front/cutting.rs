//! What is put on record of calls that had begun and were cut off, as their caller was stopped meanwhile: with who has said so.
//!
//! It is put into words only then, as every call comes by here.

use bus_schema::{
    Principal, TraceContext,
    audit::{Kind, Outcome, Record},
};

use super::{
    Answering, Caller, Endpoint, Front,
    answering::{Remote, State},
    bounds::Stop,
};
use crate::request::Incoming;

impl Front {
    /// Puts a call on record that is dropped while it waits for its client, if its caller is stopped.
    pub(crate) fn put_cut(&self, caller: &Caller, asked: &Incoming) {
        let server = match &caller.endpoint {
            Endpoint::Server(id) => id.as_str(),
            Endpoint::All | Endpoint::Search => "",
        };
        self.put_ended(&caller.principal, || {
            let name = asked.name.as_ref().map(|name| name.value.as_str());
            let trace = caller.trace.as_ref().map(TraceContext::trace_id);
            Record::refused(Kind::Block, ENDED)
                .through(caller.door)
                .at(server)
                .asking(&asked.method, name)
                .about(&asked.body)
                .traced(trace, caller.protocol_version.as_str())
        });
    }

    fn put_ended(&self, principal: &Principal, known: impl FnOnce() -> Record) {
        let Some(block) = self.blocks().block_of(principal) else {
            return;
        };
        let why = format!("the caller was blocked by `{}`", block.by);
        self.bus().audit().put(Record {
            outcome: Outcome::Ended,
            ..known().by(principal).because(why)
        });
    }
}

const ENDED: &str = "ended";

impl State {
    /// Puts a call on record that is dropped before its answer, if its caller is stopped.
    pub(super) fn put_cut(&self, stop: &Stop, trace: &TraceContext) {
        let State::Remote(remote) = self else { return };
        if remote.is_over {
            return;
        }
        let Remote {
            front,
            server,
            method,
            name,
            body,
            door,
            protocol,
            ..
        } = &**remote;
        front.put_ended(stop.principal(), || {
            Record::refused(Kind::Block, ENDED)
                .through(door)
                .at(server)
                .asking(method, name.as_deref())
                .about(body)
                .traced(Some(trace.trace_id()), protocol.as_str())
        });
    }
}

impl Drop for Answering {
    fn drop(&mut self) {
        self.state.put_cut(&self.stop, &self.trace);
    }
}
