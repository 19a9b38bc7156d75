//! A legacy client's call, taken to its one answer: what the server asks in the middle of it is asked of the client, and the call is
//! made again with the answers.
//!
//! In the modern era a server that needs something ends the call with that as its result, and gets the answers with the next one. A
//! legacy client is asked by requests on the stream of its call instead, and sees one call. HTTP and the doors that hold a
//! conversation use this alike; they differ in where a client's responses come in.

use std::{collections::VecDeque, sync::Arc, time::Duration};

use bus_schema::{
    RpcError,
    rpc::{self, Message},
};
use bytes::Bytes;
use futures::{StreamExt as _, stream::FuturesUnordered};
use tokio::time::{Instant, sleep, timeout_at};
use uuid::Uuid;

use super::{
    Session,
    asking::{self, Askable, ClientRequest, InputRequest, InputRequired},
    ledger::Ledger,
    questions::{Question, Questions},
    task::client::Augmentation,
    tasks,
    translate::{Answered, Declares, downgrade, unwanted_task, upgrade},
};
use crate::{
    front::{Answering, Caller, Front, Step},
    request::Incoming,
};

/// How often a server may ask in the course of one call.
const MAX_ROUNDS: u32 = 16;
/// How long a client may take to answer: a person thinks, or is away.
const ANSWER_LIMIT: Duration = Duration::from_secs(60 * 60);
/// How long a call waits before it is made again when the server has asked nothing and only put it off.
const FIRST_PAUSE: Duration = Duration::from_millis(250);
const LONGEST_PAUSE: Duration = Duration::from_secs(10);

/// Who has to do with a call.
#[derive(Clone)]
pub(crate) struct Parties {
    pub(crate) front: Front,
    pub(crate) caller: Caller,
    pub(crate) session: Arc<Session>,
    pub(crate) questions: Arc<Questions>,
    pub(crate) ledger: Arc<Ledger>,
}

/// A call of a legacy client.
pub(crate) struct Driving {
    parties: Parties,
    /// The request in modern form, as it was made first.
    request: Incoming,
    /// How the client wants it to be a task, if it does.
    wanted: Option<Augmentation>,
    state: State,
    rounds: u32,
    pause: Duration,
}

/// What a call has to say to its client.
#[derive(Debug)]
pub(crate) enum Said {
    /// A notification.
    Part(Bytes),
    /// A request to the client, whose response the call waits for.
    Question(Bytes),
    /// The response; nothing comes after it.
    Answer(Bytes),
}

enum State {
    /// A server works on it.
    Running(Box<Answering>),
    /// The client is asked.
    Gathering(Round),
    /// It is about a task.
    Task(tasks::Asking),
    /// It is over.
    Ended,
}

/// One round of questions.
#[derive(Default)]
pub(super) struct Round {
    /// What the client has yet to be sent.
    unsent: VecDeque<Bytes>,
    open: Vec<Open>,
    /// Answers by what they are filed under, both as JSON.
    answers: Vec<(String, String)>,
    /// What the server wants back, as JSON.
    state: Option<String>,
}

/// A question that the client has yet to answer.
struct Open {
    /// What the answer is filed under, as JSON.
    key: String,
    asked: String,
    question: Question,
}

impl Driving {
    /// Makes the call.
    pub(crate) async fn begin(parties: Parties, incoming: Incoming) -> Self {
        let session = &parties.session;
        let wanted = tasks::wanted(session, &incoming);
        let (request, state) = if tasks::is_about(session, &incoming.method) {
            let asking = tasks::Asking::begin(parties.clone(), incoming.clone());
            (incoming, State::Task(asking))
        } else {
            let declares = wanted.as_ref().map_or(Declares::Plain, |_| Declares::Tasks);
            let request = upgrade(session, incoming, declares);
            let answering = parties.front.ask(&parties.caller, &request).await;
            (request, State::Running(Box::new(answering)))
        };
        Self {
            parties,
            request,
            wanted,
            state,
            rounds: 0,
            pause: FIRST_PAUSE,
        }
    }

    /// Waits for what comes next.
    ///
    /// # Panics
    /// When it is asked again after the answer.
    pub(crate) async fn next(&mut self) -> Said {
        loop {
            match &mut self.state {
                State::Running(answering) => {
                    let last = match answering.next().await {
                        Step::Part(part) => return Said::Part(part),
                        Step::Final(last) => last,
                    };
                    match downgrade(self.parties.session.dialect(), &self.request.method, &last) {
                        Answered::Finally(body) => return self.end_as_wanted(body).await,
                        Answered::Task(body) if self.wanted.is_some() => return self.end(body),
                        Answered::Task(_) => return self.end(self.request.error(&unwanted_task())),
                        Answered::InputRequired(required) => match self.begin_round(required) {
                            Ok(round) => self.state = State::Gathering(round),
                            Err(error) => return self.end(self.request.error(&error)),
                        },
                    }
                }
                State::Gathering(round) => {
                    let ending = &self.parties.caller.ending;
                    if !ending.is_cancelled()
                        && let Some(question) = round.next_unsent()
                    {
                        return Said::Question(question);
                    }
                    // An answer that was taken counts, even when the end comes at the same time.
                    let gathered = tokio::select! {
                        biased;
                        gathered = round.gather() => gathered,
                        () = ending.cancelled() => Err(door_ends()),
                    };
                    match gathered {
                        Ok(()) => {}
                        Err(error) => return self.end(self.request.error(&error)),
                    }
                    let again = round.again(&self.request);
                    self.pause = round.pause(self.pause).await;
                    match again {
                        Ok(again) => {
                            let answering = self.parties.front.ask(&self.parties.caller, &again).await;
                            self.state = State::Running(Box::new(answering));
                        }
                        Err(error) => return self.end(self.request.error(&error)),
                    }
                }
                State::Task(asking) => {
                    let said = asking.next().await;
                    if matches!(said, Said::Answer(_)) {
                        self.state = State::Ended;
                    }
                    return said;
                }
                State::Ended => panic!("a call is not asked again after its answer"),
            }
        }
    }

    fn end(&mut self, body: Bytes) -> Said {
        self.state = State::Ended;
        Said::Answer(body)
    }

    /// Ends with an answer that is no task; a client that wants one is told of it as one.
    async fn end_as_wanted(&mut self, body: Bytes) -> Said {
        let Parties { session, ledger, .. } = &self.parties;
        let body = match &self.wanted {
            Some(wanted) => tasks::keep(ledger, session, wanted, body).await,
            None => body,
        };
        self.end(body)
    }

    /// Makes of what the server wants to know the requests that the client gets.
    fn begin_round(&mut self, required: InputRequired) -> Result<Round, RpcError> {
        self.rounds += 1;
        if self.rounds > MAX_ROUNDS {
            return Err(RpcError::internal(format!(
                "the server asked for more than {MAX_ROUNDS} rounds of input in one call"
            )));
        }
        let mut round = Round {
            state: required.state,
            ..Round::default()
        };
        let Parties {
            session, questions, ..
        } = &self.parties;
        let askable = Askable::of(&session.capabilities);
        for request in required.requests {
            round.put(questions, session, askable, request)?;
        }
        Ok(round)
    }
}

impl Drop for Driving {
    /// A call that only waits for its client is cut off without a word of a server's.
    fn drop(&mut self) {
        if let State::Gathering(_) = self.state {
            self.parties.front.put_cut(&self.parties.caller, &self.request);
        }
    }
}

impl Round {
    /// Adds a question to the client; one that it cannot be asked has its answer at once.
    pub(super) fn put(
        &mut self,
        questions: &Arc<Questions>,
        session: &Session,
        askable: Askable,
        request: InputRequest,
    ) -> Result<(), RpcError> {
        let InputRequest { key, method, params } = request;
        let elicitation_id = Uuid::now_v7().to_string();
        match asking::client_request(session.version, askable, &method, &params, &elicitation_id) {
            ClientRequest::Send(params) => {
                let question = questions.ask(&session.key);
                let (id, asked) = (rpc::quote(&question.id), rpc::quote(&method));
                let text = format!(r#"{{"jsonrpc":"2.0","id":{id},"method":{asked},"params":{params}}}"#);
                self.unsent.push_back(text.into());
                self.open.push(Open {
                    key,
                    asked: method,
                    question,
                });
            }
            ClientRequest::Cannot(answer) => self.answers.push((key, answer?)),
        }
        Ok(())
    }

    /// Takes the next request that the client has yet to be sent.
    pub(super) fn next_unsent(&mut self) -> Option<Bytes> {
        self.unsent.pop_front()
    }

    /// Waits for all answers, or for the first that ends the call.
    pub(super) async fn gather(&mut self) -> Result<(), RpcError> {
        let limit = Instant::now() + ANSWER_LIMIT;
        let mut open: FuturesUnordered<_> = self.open.drain(..).map(Open::answer).collect();
        while let Some(answer) = timeout_at(limit, open.next()).await.map_err(|_| silent())? {
            self.answers.push(answer?);
        }
        Ok(())
    }

    /// The answers as `inputResponses`, which is JSON.
    pub(super) fn responses(&self) -> String {
        let answers = self.answers.iter();
        asking::input_responses(answers.map(|(key, answer)| (key.as_str(), answer.as_str())))
    }

    /// The request of the next round: the first one, with the answers and what the server wants back.
    fn again(&self, request: &Incoming) -> Result<Incoming, RpcError> {
        let responses = (!self.answers.is_empty()).then(|| self.responses());
        let again = asking::retry(&request.body, responses.as_deref(), self.state.as_deref());
        let again = again.ok_or_else(|| RpcError::internal("the call cannot be made again"))?;
        Incoming::read(again).map_err(|refused| refused.error)
    }

    /// A server that has asked nothing is busy: the next round is a while off, and longer each time. Gives the next pause.
    async fn pause(&self, pause: Duration) -> Duration {
        if !self.answers.is_empty() {
            return FIRST_PAUSE;
        }
        sleep(pause).await;
        (pause * 2).min(LONGEST_PAUSE)
    }
}

impl Open {
    /// Waits for the client's answer, and gives it with what it is filed under.
    async fn answer(mut self) -> Result<(String, String), RpcError> {
        let response = (&mut self.question.response).await.map_err(|_| silent())?;
        let message = Message::parse(&response)?;
        let unreadable = || RpcError::internal("its error cannot be read");
        let answer = match (message.result, message.error) {
            (Some(result), None) => asking::client_answer(&self.asked, Ok(result)),
            (_, error) => {
                let read = error.and_then(|raw| serde_json::from_str(raw.get()).ok());
                asking::client_answer(&self.asked, Err(&read.unwrap_or_else(unreadable)))
            }
        };
        Ok((self.key, answer?))
    }
}

/// For a call that only waits for its client while its door ends. No work is cut off: the server has asked, and waits as well.
fn door_ends() -> RpcError {
    RpcError::internal(
        "this door is stopping, and the call was waiting for the client's input; nothing more comes of it: make the call again",
    )
}

fn silent() -> RpcError {
    RpcError::internal("the client did not answer what the server asked of it")
}
