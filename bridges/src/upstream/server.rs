//! An upstream server as one that a host can serve: which conversation a message goes to.
//!
//! Most calls share one conversation. Callers of a legacy server that can be asked for input have lanes of their own, and the course
//! of such a call, with its rounds, is in [`super::rounds`].

use std::{
    collections::{BTreeMap, BTreeSet},
    convert::Infallible,
    sync::Arc,
    time::Duration,
};

use bus_schema::{
    Request, RoutedState, RpcError, ServerId,
    mcp::{Era, meta, method},
};
use futures::{FutureExt as _, future::BoxFuture};
use runtime::{McpServer, Outcome, Parts, Verdict};
use serde_json::json;
use tokio::sync::{broadcast, watch};
use tokio_util::sync::CancellationToken;

use crate::legacy::request::for_server;

use super::{
    call::Call,
    capabilities::Declared,
    connection::Session,
    handshake::own_meta,
    lanes::{Lanes, Manner, Owner, Turn, Wanted},
    link::Link,
    park::{self, Parks, Ticket},
    pending::Origin,
    remote::{Users, Whose},
    request::{Asked, Reading},
    seal::Binding,
    subscriptions::Subscriptions,
    tasks::Tasks,
    users::Turned,
};

/// An upstream server that is ready for calls.
pub(super) struct UpstreamServer {
    pub(super) link: Arc<Link>,
    pub(super) session: Session,
    pub(super) lanes: Arc<Lanes>,
    pub(super) parks: Arc<Parks>,
    pub(super) tasks: Arc<Tasks>,
    pub(super) subscriptions: Subscriptions,
    /// Those who come with credentials of their own, if they do.
    pub(super) users: Option<Arc<Users>>,
    /// Cancelled when running calls must not go on.
    pub(super) over: CancellationToken,
}

/// What has become of a message.
pub(super) enum Begun {
    Call(Box<Call>),
    Done(Outcome),
}

/// Why a message has not become anything, and what that says of the server.
pub(super) struct NotBegun(RpcError, Verdict);

impl From<RpcError> for NotBegun {
    /// It is the caller who is told what is wrong.
    fn from(error: RpcError) -> Self {
        Self(error, Verdict::Unasked)
    }
}

impl NotBegun {
    /// The server does not take it.
    pub(super) fn untaken(error: RpcError) -> Self {
        Self(error, Verdict::Failed)
    }
}

impl UpstreamServer {
    pub(super) fn new(
        link: Arc<Link>,
        session: Session,
        lanes: Arc<Lanes>,
        parks: Arc<Parks>,
        tasks: Arc<Tasks>,
    ) -> Self {
        Self {
            subscriptions: Subscriptions::new(Arc::clone(&link), &session),
            users: lanes.connector.users(),
            link,
            session,
            lanes,
            parks,
            tasks,
            over: CancellationToken::new(),
        }
    }

    pub(super) fn era(&self) -> Era {
        self.session.version.era()
    }

    pub(super) fn id(&self) -> &ServerId {
        &self.link.server
    }

    /// Does what has to be done beside the calls, for as long as it is waited for.
    pub(super) async fn accompany(&self) -> Infallible {
        tokio::select! {
            never = self.parks.sweep() => never,
            never = self.tasks.sweep() => never,
            never = self.tasks.look_after() => never,
            never = self.subscriptions.keep() => never,
            never = self.lanes.hearing.pass_on(&self.link) => never,
            never = self.end_forgotten() => never,
        }
    }

    async fn answer(self: Arc<Self>, request: Request, parts: Parts) -> Outcome {
        let body = for_server(self.session.version, &request.method, &request.body.0);
        let (begun, id) = match Reading::of(&body) {
            Ok(reading) => (
                self.begin(&reading, &request).await,
                reading.id().map(str::to_owned),
            ),
            Err(error) => return Outcome::error_for(&body, &error).saying(Verdict::Unasked),
        };
        if let Err(NotBegun(error, _)) = &begun
            && *error == park::gone(self.id())
        {
            self.parks.put_gone(&request);
        }
        // The server has its copy; a call may last for long.
        drop((body, request));
        match begun {
            Ok(Begun::Call(call)) => tokio::select! {
                outcome = self.run(*call, &parts) => outcome,
                () = self.over.cancelled() => {
                    let error = RpcError::internal(format!("server `{}` has ended", self.id()));
                    Outcome::error(id.as_deref(), &error).saying(Verdict::Failed)
                }
            },
            Ok(Begun::Done(outcome)) => outcome.saying(Verdict::Unasked),
            Err(NotBegun(error, verdict)) => Outcome::error(id.as_deref(), &error).saying(verdict),
        }
    }

    async fn begin(&self, reading: &Reading<'_>, request: &Request) -> Result<Begun, NotBegun> {
        let Some(id) = reading.id() else {
            return Ok(self.tell(reading, request).await?);
        };
        if let (method::DISCOVER, Some(discovered)) = (reading.method(), &self.session.discovered) {
            return Ok(Begun::Done(Outcome::result(id, discovered.as_bytes())));
        }
        let asked = reading.asked();
        if self.session.offers.tasks && method::TASKS.contains(&reading.method()) {
            return Ok(Begun::Done(self.about_task(reading, &asked, request).await?));
        }
        reading.check(self.era(), &asked.declared)?;
        if self.era() == Era::Modern {
            // The state is the server's own, unless it can only be ours, or meant for another.
            let state = reading.request_state().and_then(meta::as_text);
            let is_ours = state.is_some_and(|state| RoutedState::parse(&state).is_some());
            match (self.user_of(reading.method(), &request.principal), is_ours) {
                (Some(_), true) => return self.resume(reading, asked, request).await,
                (Some(_), false) => return self.first(reading, asked, request).await,
                (None, true) => return Err(park::gone(self.id()).into()),
                (None, false) => {}
            }
            let trace = request.trace.as_ref();
            return self
                .link
                .begin(reading, asked, Era::Modern, trace)
                .await
                .map(|call| Begun::Call(Box::new(call)))
                .map_err(NotBegun::untaken);
        }
        if !method::ASKING.contains(&reading.method()) {
            return self.first(reading, asked, request).await;
        }
        if reading.request_state().is_some() {
            return self.resume(reading, asked, request).await;
        }
        // Whatever this server asks comes with a state, so that answers without one are to no question of its.
        if reading.answers()?.is_some() {
            return self
                .first(&Reading::of(&reading.first_round())?, asked, request)
                .await;
        }
        self.first(reading, asked, request).await
    }

    /// Begins a call that nobody has begun before.
    async fn first(&self, reading: &Reading<'_>, asked: Asked, request: &Request) -> Result<Begun, NotBegun> {
        let ticket = self.ticket(reading, &asked.declared, request);
        let unconnected = self.unless_connected(&asked, request, ticket.as_ref(), Turned::First);
        if let Some(begun) = unconnected.await? {
            return Ok(begun);
        }
        self.call(reading, asked, request, ticket)
            .await
            .map(|call| Begun::Call(Box::new(call)))
    }

    /// Makes a call, on the conversation that its caller needs.
    pub(super) async fn call(
        &self,
        reading: &Reading<'_>,
        mut asked: Asked,
        request: &Request,
        ticket: Option<Ticket>,
    ) -> Result<Call, NotBegun> {
        let manner = if ticket.is_some() {
            Manner::Alone
        } else {
            Manner::Along
        };
        let user = self.user_of(reading.method(), &request.principal);
        let turn = self.turn(&asked.declared, manner, request, user).await?;
        let link = turn.as_ref().map_or(&self.link, |turn| &turn.link);
        let as_task = self.as_task(link, reading, &mut asked).await;
        let trace = request.trace.as_ref();
        let begun = match &as_task {
            Some(body) => link.begin(&Reading::of(body)?, asked, self.era(), trace).await,
            None => link.begin(reading, asked, self.era(), trace).await,
        };
        let mut call = begun.map_err(NotBegun::untaken)?;
        call.turn = turn;
        call.ticket = ticket;
        call.owner = as_task.map(|_| Owner::of(&request.principal));
        Ok(call)
    }

    /// What a call needs whose caller can be asked for input.
    pub(super) fn ticket(
        &self,
        reading: &Reading<'_>,
        declared: &Declared,
        request: &Request,
    ) -> Option<Ticket> {
        let may_be_asked = declared.can_be_asked() && method::ASKING.contains(&reading.method());
        may_be_asked.then(|| self.new_ticket(reading, request))
    }

    pub(super) fn new_ticket(&self, reading: &Reading<'_>, request: &Request) -> Ticket {
        Ticket {
            owner: Owner::of(&request.principal),
            binding: Binding::new(
                &request.principal,
                self.id().as_str(),
                reading.method(),
                &reading.repeated(),
            ),
            before: None,
        }
    }

    /// A place on the lane of a caller that needs one; `None` when the shared conversation is right for it.
    async fn turn(
        &self,
        declared: &Declared,
        manner: Manner,
        request: &Request,
        user: Option<Whose>,
    ) -> Result<Option<Turn>, RpcError> {
        if user.is_none() && (self.era() == Era::Modern || declared.is_plain()) {
            return Ok(None);
        }
        // A little less than the caller has, so that it hears what it has waited for.
        let limit = Duration::from_millis(request.timeout_ms) * 9 / 10;
        let wanted = Wanted::new(&request.principal, declared, &self.session, manner, limit);
        let wanted = match user {
            Some(user) => wanted.with_credential(&request.principal, user),
            None => wanted,
        };
        self.lanes.turn(wanted).await
    }

    /// Asks the server something that every one can answer; an error is an answer.
    async fn ask_whether_there(&self) -> Result<(), String> {
        let version = self.session.version;
        let asked = match version.era() {
            Era::Legacy => {
                self.link
                    .ask_for_line(Origin::Room, method::PING, &json!({}))
                    .await
            }
            Era::Modern => {
                let params = json!({ "_meta": own_meta(version) });
                self.link
                    .ask_for_line(Origin::Room, method::DISCOVER, &params)
                    .await
            }
        };
        asked.map(|_| ()).map_err(|error| error.message)
    }

    /// Hands on a notification. What the protocol itself defines is about the caller's own session, and stays.
    async fn tell(&self, reading: &Reading<'_>, request: &Request) -> Result<Begun, RpcError> {
        // A user's own connection hears of that user's calls only.
        if self.users.is_none() && !method::NOTIFICATIONS.contains(&reading.method()) {
            let turn = self
                .turn(&reading.asked().declared, Manner::Along, request, None)
                .await?;
            let link = turn.as_ref().map_or(&self.link, |turn| &turn.link);
            link.send(reading.line(self.era(), 0, request.trace.as_ref()))
                .await?;
        }
        Ok(Begun::Done(Outcome::taken()))
    }
}

impl McpServer for UpstreamServer {
    fn handle(self: Arc<Self>, request: Request, parts: Parts) -> BoxFuture<'static, Outcome> {
        self.answer(request, parts).boxed()
    }

    fn probe(self: Arc<Self>) -> BoxFuture<'static, Result<(), String>> {
        async move { self.ask_whether_there().await }.boxed()
    }

    fn list_changes(&self) -> Option<watch::Receiver<u64>> {
        Some(self.link.list_changes.subscribe())
    }

    fn updates(&self) -> Option<broadcast::Receiver<Arc<str>>> {
        Some(self.link.updates.subscribe())
    }

    fn watch(self: Arc<Self>, uris: BTreeSet<String>) -> BoxFuture<'static, BTreeSet<String>> {
        async move {
            let honoured = self.subscriptions.watch(uris).await;
            self.lanes.hearing.watch(honoured.clone()).await;
            honoured
        }
        .boxed()
    }

    fn private_changes(&self) -> [u64; 3] {
        self.lanes.hearing.list_changes()
    }

    fn refusals(&self) -> BTreeMap<String, RpcError> {
        self.subscriptions.refusals()
    }

    fn protocol_version(&self) -> String {
        self.session.version.to_string()
    }
}
