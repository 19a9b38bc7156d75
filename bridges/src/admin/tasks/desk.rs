//! What somebody can do about tasks from outside: look them up, cancel them, try them again, give them up, and answer them.

use std::collections::BTreeMap;

use bus_schema::{
    Principal, Token,
    subject::TaskPlace,
    task::{self, APPROVAL, State, Task, TaskId},
};
use runtime::tasks::{Following, Page, TaskError, Tasks, Wanted, place_of};
use serde_json::value::RawValue;

use super::answers::{BadAnswers, read_answers};

/// Which of a tenant's tasks somebody has to do with.
#[derive(Clone, Copy, Debug)]
pub enum Whose<'a> {
    /// All of them.
    Everybodys,
    /// Those of one caller.
    Of(&'a Principal),
}

/// Who answers a task.
#[derive(Clone, Copy, Debug)]
pub enum Answerer<'a> {
    /// Somebody at a door: whom it asks, or an operator who says whether its call may run.
    Caller(&'a Principal),
    /// Whoever has the credentials of the bus, which are good for all answers.
    Bus(&'a Principal),
}

/// Which tasks are listed.
#[derive(Clone, Debug)]
pub struct TaskFilter {
    /// In which standings ([`task::STANDINGS`]); any when it is empty.
    pub standings: Vec<String>,
    /// Of which server.
    pub server: Option<String>,
    /// Of callers with this subject.
    pub user: Option<String>,
    /// How many at most.
    pub limit: usize,
    /// Where the page before has ended.
    pub cursor: Option<String>,
}

/// What became of answers.
#[derive(Clone, Debug)]
pub struct Answered {
    /// Which task was answered.
    pub id: TaskId,
    /// The questions that are answered now.
    pub answered: Vec<String>,
    /// Those that it still waits for.
    pub outstanding: Vec<String>,
}

/// Why something was not done about a task.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TaskRefusal {
    /// There is none, or it is somebody else's.
    #[error("no task `{0}` is kept")]
    Unknown(String),
    /// The page cannot be found.
    #[error("cursor is `{0}`; send the nextCursor of the page before")]
    BadCursor(String),
    /// It is not held.
    #[error("task `{id}` is {standing}; only what is held can be tried again or given up")]
    NotHeld {
        /// Which task.
        id: TaskId,
        /// How it stands.
        standing: &'static str,
    },
    /// Nothing can be cancelled any more.
    #[error("task `{id}` has ended, and stays {standing}")]
    Ended {
        /// Which task.
        id: TaskId,
        /// How it stands.
        standing: &'static str,
    },
    /// Only whom it asks can answer it.
    #[error("task `{id}` asks {owner}; others can only say whether a call may run that needs a yes")]
    NotAsked {
        /// Which task.
        id: TaskId,
        /// Whom it asks.
        owner: String,
    },
    /// The answers are not what it asks.
    #[error(transparent)]
    Answers(#[from] BadAnswers),
    /// What is kept of tasks cannot be read or written.
    #[error(transparent)]
    Kept(#[from] TaskError),
}

/// Looks after the tasks of one tenant.
#[derive(Clone)]
pub struct TaskDesk {
    tasks: Tasks,
    tenant: String,
}

impl TaskDesk {
    /// A desk for a tenant.
    #[must_use]
    pub fn new(tasks: Tasks, tenant: impl Into<String>) -> Self {
        let tenant = tenant.into();
        Self { tasks, tenant }
    }

    /// A page of tasks. It may have fewer than were wanted, and not be the last.
    ///
    /// # Errors
    /// When the cursor is none of ours, or the broker does not answer.
    pub async fn list(&self, whose: Whose<'_>, filter: &TaskFilter) -> Result<Page, TaskRefusal> {
        let wanted = Wanted {
            tenant: &self.tenant,
            owner: owner(whose),
            standings: &filter.standings,
            server: filter.server.as_deref(),
            limit: filter.limit,
            cursor: filter.cursor.as_deref(),
        };
        let fits = |task: &Task| {
            let subject = &task.order.request.principal.subject;
            filter.user.as_ref().is_none_or(|user| user == subject)
        };
        let page = self.tasks.list_those(&wanted, fits).await?;
        page.ok_or_else(|| TaskRefusal::BadCursor(filter.cursor.clone().unwrap_or_default()))
    }

    /// One task.
    ///
    /// # Errors
    /// When there is none, or the broker does not answer.
    pub async fn show(&self, whose: Whose<'_>, id: &str) -> Result<Task, TaskRefusal> {
        self.find(whose, id).await.map(|(_, task)| task)
    }

    /// One task, as it changes.
    ///
    /// # Errors
    /// When there is none, or the broker does not answer.
    pub async fn follow(&self, whose: Whose<'_>, id: &str) -> Result<Following, TaskRefusal> {
        let place = self.place(whose, id).await?;
        let following = self.tasks.follow(place).await?;
        following.ok_or_else(|| unknown(id))
    }

    /// Cancels a task for good, and gives it as it is then. One that was cancelled before stays so.
    ///
    /// # Errors
    /// When there is none, it has ended otherwise, or the broker does not answer.
    pub async fn cancel(&self, whose: Whose<'_>, id: &str) -> Result<Task, TaskRefusal> {
        let place = self.place(whose, id).await?;
        let task = self.tasks.cancel(&place).await?.ok_or_else(|| unknown(id))?;
        match task.state {
            State::Cancelled => Ok(task),
            _ => Err(TaskRefusal::Ended {
                id: task.order.id.clone(),
                standing: task.standing(),
            }),
        }
    }

    /// Has a task that is held tried again, which begins a little later. Gives it as it was.
    ///
    /// # Errors
    /// When there is none, it is not held, or the broker does not answer.
    pub async fn retry(&self, id: &str) -> Result<Task, TaskRefusal> {
        let place = self.place(Whose::Everybodys, id).await?;
        let task = self.tasks.retry(&place).await?.ok_or_else(|| unknown(id))?;
        must_be_held(&task)?;
        Ok(task)
    }

    /// Gives up a task that is held, and gives it as it is then. `by` is written down with it.
    ///
    /// # Errors
    /// When there is none, it is not held, or the broker does not answer.
    pub async fn discard(&self, id: &str, by: &str) -> Result<Task, TaskRefusal> {
        let (place, task) = self.find(Whose::Everybodys, id).await?;
        must_be_held(&task)?;
        let task = self.tasks.discard(&place, by).await?;
        let task = task.ok_or_else(|| unknown(id))?;
        // Somebody may have been quicker, and it may have gone on.
        let is_given_up = matches!(task.state, State::Failed { .. }) && task.decided_by.is_some();
        if !is_given_up {
            return Err(not_held(&task));
        }
        Ok(task)
    }

    /// Answers what a task asks, by keys. It goes on a little later, when nothing is outstanding.
    ///
    /// # Errors
    /// When there is none, it asks nothing of this, or somebody else, or the broker does not answer.
    pub async fn answer(
        &self,
        whose: Whose<'_>,
        who: Answerer<'_>,
        id: &str,
        answers: &BTreeMap<String, Box<RawValue>>,
    ) -> Result<Answered, TaskRefusal> {
        let (_, task) = self.find(whose, id).await?;
        let by = match who {
            Answerer::Bus(by) => by,
            Answerer::Caller(by) if may_answer(&task, by, answers) => by,
            Answerer::Caller(_) => {
                return Err(TaskRefusal::NotAsked {
                    owner: task.order.request.principal.subject,
                    id: task.order.id,
                });
            }
        };
        let bodies = read_answers(&task, answers)?;
        self.tasks.answer(&task, bodies, by).await?;
        let outstanding = task.outstanding().map(|(key, _)| key);
        let outstanding = outstanding.filter(|key| !answers.contains_key(*key));
        Ok(Answered {
            id: task.order.id.clone(),
            answered: answers.keys().cloned().collect(),
            outstanding: outstanding.map(str::to_owned).collect(),
        })
    }

    async fn find(&self, whose: Whose<'_>, id: &str) -> Result<(TaskPlace, Task), TaskRefusal> {
        let place = self.place(whose, id).await?;
        let kept = self.tasks.get(&place).await?.ok_or_else(|| unknown(id))?;
        Ok((place, kept.task))
    }

    async fn place(&self, whose: Whose<'_>, id: &str) -> Result<TaskPlace, TaskRefusal> {
        let read = TaskId::parse(id).ok_or_else(|| unknown(id))?;
        match whose {
            Whose::Of(principal) => Ok(place_of(principal, &read)),
            Whose::Everybodys => {
                let place = self.tasks.find(&self.tenant, &read).await?;
                place.ok_or_else(|| unknown(id))
            }
        }
    }
}

/// Whether somebody at a door may give these answers: all that it asks of themselves, and of others whether a call may run.
fn may_answer(task: &Task, by: &Principal, answers: &BTreeMap<String, Box<RawValue>>) -> bool {
    let order = &task.order;
    let is_own = by.identity() == order.request.principal.identity();
    is_own || (order.approval.is_some() && answers.keys().all(|key| key == APPROVAL))
}

fn owner(whose: Whose<'_>) -> Option<Token> {
    match whose {
        Whose::Everybodys => None,
        Whose::Of(principal) => Some(task::owner(principal.identity())),
    }
}

fn unknown(id: &str) -> TaskRefusal {
    TaskRefusal::Unknown(id.to_owned())
}

fn not_held(task: &Task) -> TaskRefusal {
    TaskRefusal::NotHeld {
        id: task.order.id.clone(),
        standing: task.standing(),
    }
}

fn must_be_held(task: &Task) -> Result<(), TaskRefusal> {
    match task.state {
        State::Held { .. } => Ok(()),
        _ => Err(not_held(task)),
    }
}
