//! How doors ask: one request, and the answer that it is to have whatever happens.

use super::{
    Answering, Caller, Final, Front, Step,
    answering::State,
    authorize::{Judged, Weighed},
    entrance::Entrance,
};
use crate::request::Incoming;

impl Front {
    /// Takes one modern request. The answer is asked of what this returns.
    pub async fn ask(&self, caller: &Caller, incoming: &Incoming) -> Answering {
        self.take(caller, incoming, None).await
    }

    /// Takes a request that was judged already.
    pub async fn ask_weighed(&self, weighed: Weighed<'_>) -> Answering {
        self.take(weighed.caller, weighed.incoming, Some(weighed.judged))
            .await
    }

    async fn take(
        &self,
        caller: &Caller,
        incoming: &Incoming,
        judged: Option<Result<(), Box<Judged>>>,
    ) -> Answering {
        let outside = caller.trace.as_ref().or(incoming.meta.trace.as_ref());
        let trace = self.0.ids.next_trace(outside);
        let id = incoming.id.clone();
        let stop = self.stop(&caller.principal);
        if stop.is_pulled() {
            self.put_blocked(caller, incoming);
            let state = State::Local(Some(Final::blocked(id.as_deref())));
            return Answering {
                state,
                id,
                trace,
                stop,
            };
        }
        let entered = match self.enter(caller, incoming).await {
            Ok(Entrance::AsItCame) => self.dispatch(caller, incoming, &trace, judged).await,
            // What was judged was the other request.
            Ok(Entrance::Exchanged(other)) => self.dispatch(&other.0, &other.1, &trace, None).await,
            Ok(Entrance::Answered(state)) => Ok(state),
            Err(error) => Err(error),
        };
        let state = match entered {
            Ok(state) => state,
            Err(error) => {
                self.put_unknown(caller, incoming, &error);
                let error = self.veiled(&caller.principal, incoming, error);
                State::Local(Some(Final::error(incoming, &error)))
            }
        };
        Answering {
            state,
            id,
            trace,
            stop,
        }
    }

    /// Passes a notification on to the server that it is for, and waits until that has taken it.
    ///
    /// # Errors
    /// When the endpoint does not pass such a notification, or its server does not take it.
    pub async fn notify(&self, caller: &Caller, incoming: &Incoming) -> Result<(), Box<Final>> {
        let mut answering = match self.check_method(&caller.endpoint, &incoming.method) {
            Ok(()) => self.ask(caller, incoming).await,
            Err(error) => return Err(Box::new(Final::error(incoming, &error))),
        };
        loop {
            match answering.next().await {
                Step::Part(_) => {}
                Step::Final(last) if last.code.is_none() => return Ok(()),
                Step::Final(last) => return Err(Box::new(last)),
            }
        }
    }
}
