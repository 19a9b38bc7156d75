//! The subjects of the queue of tasks, and of what is to come into it later.

use std::fmt;

use crate::{
    task::{Priority, TaskId, Word},
    token::Token,
};

const QUEUE: &str = "mcp.task";
const LATER: &str = "mcp.sched";
const DEAD: &str = "mcp.dead";
const RUN: &str = "run";

/// Which task something is about.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct TaskPlace {
    /// Whose tenant.
    pub tenant: Token,
    /// Whose it is; see [`owner`](crate::task::owner).
    pub owner: Token,
    /// Which one.
    pub id: TaskId,
}

impl TaskPlace {
    /// The subject of a word about it in the queue.
    #[must_use]
    pub fn word(&self, group: &Token, priority: Priority, word: &Word) -> String {
        let (priority, verb) = (priority.as_str(), word.verb());
        format!(
            "{QUEUE}.{}.{group}.{priority}.{}.{}.{verb}",
            self.tenant, self.owner, self.id
        )
    }

    /// The subject of what makes it, of whatever group and priority: as long as it is in the queue, one message has it.
    #[must_use]
    pub fn order(&self) -> String {
        format!("{QUEUE}.{}.*.*.{}.{}.{RUN}", self.tenant, self.owner, self.id)
    }

    /// The subject of the word that is to come into the queue later. There is one for each task, and a new one is in place of the old.
    #[must_use]
    pub fn later(&self) -> String {
        format!("{LATER}.{}.{}.{}", self.tenant, self.owner, self.id)
    }

    /// The subject under which it is told that the task is held for an operator.
    #[must_use]
    pub fn dead(&self) -> String {
        format!("{DEAD}.{}.{}.{}", self.tenant, self.owner, self.id)
    }

    /// Its record's key in the bucket of tasks.
    #[must_use]
    pub fn key(&self) -> String {
        self.to_string()
    }

    /// Reads the place out of a word's subject.
    #[must_use]
    pub fn of_word(subject: &str) -> Option<Self> {
        let rest = subject.strip_prefix(QUEUE)?.strip_prefix('.')?;
        match rest.split('.').collect::<Vec<_>>().as_slice() {
            [tenant, _, _, owner, id, _] => Self::read(tenant, owner, id),
            _ => None,
        }
    }

    /// Reads the place out of a record's key, or out of the end of the subject under which a task is told to be held.
    #[must_use]
    pub fn of_key(key: &str) -> Option<Self> {
        let key = key.strip_prefix(DEAD).map_or(key, |rest| &rest[1..]);
        match key.split('.').collect::<Vec<_>>().as_slice() {
            [tenant, owner, id] => Self::read(tenant, owner, id),
            _ => None,
        }
    }

    fn read(tenant: &str, owner: &str, id: &str) -> Option<Self> {
        Some(Self {
            tenant: Token::parse(tenant).ok()?,
            owner: Token::parse(owner).ok()?,
            id: TaskId::parse(id)?,
        })
    }
}

impl fmt::Display for TaskPlace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}.{}", self.tenant, self.owner, self.id)
    }
}

/// What the stream of the queue holds.
#[must_use]
pub fn task_queue() -> Vec<String> {
    vec![format!("{QUEUE}.>"), format!("{LATER}.>")]
}

/// What tells of tasks that are held.
#[must_use]
pub fn dead_tasks() -> String {
    format!("{DEAD}.>")
}

/// The words for the workers of a group, in all tenants.
#[must_use]
pub fn words_for(group: &Token, priority: Priority) -> String {
    format!("{QUEUE}.*.{group}.{}.>", priority.as_str())
}

/// The orders of somebody's tasks, or of everybody's in a tenant, that are in the queue.
#[must_use]
pub fn orders_of(tenant: &Token, owner: Option<&Token>) -> String {
    let owner = owner.map_or("*", Token::as_str);
    format!("{QUEUE}.{tenant}.*.*.{owner}.*.{RUN}")
}

/// The order of a task whose owner is not known.
#[must_use]
pub fn order_of_anybody(tenant: &Token, id: &TaskId) -> String {
    format!("{QUEUE}.{tenant}.*.*.*.{id}.{RUN}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_place_is_read_from_every_subject_and_key_that_names_it() {
        let place = TaskPlace {
            tenant: Token::encode("a b"),
            owner: Token::encode("00ff"),
            id: TaskId::of(3),
        };
        let group = Token::encode(crate::task::HOSTED);
        let subject = place.word(&group, Priority::High, &Word::Again);
        assert_eq!(
            subject,
            format!("mcp.task.a_20b._5Ftasks.high.00ff.{}.again", place.id)
        );
        assert_eq!(TaskPlace::of_word(&subject), Some(place.clone()));
        assert_eq!(TaskPlace::of_key(&place.key()), Some(place.clone()));
        assert_eq!(TaskPlace::of_key(&place.dead()), Some(place.clone()));
        for other in ["", "mcp.task.a", "mcp.rpc.a.b.c.d.e.f", "a.b.c"] {
            assert_eq!(TaskPlace::of_word(other), None, "{other}");
            assert_eq!(TaskPlace::of_key(other), None, "{other}");
        }
    }
}
