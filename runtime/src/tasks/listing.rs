//! Pages of tasks: those in the queue that nothing has happened to, then the others, those that changed last at the end.

use bus_schema::{
    Token,
    task::{Order, Task},
};

use super::{TaskError, Tasks, place_of_order};

/// How many tasks are looked at for one page at most.
const MAX_LOOKED_AT: usize = 2_000;

/// Which tasks are wanted.
#[derive(Clone, Debug)]
pub struct Wanted<'a> {
    /// Of which tenant.
    pub tenant: &'a str,
    /// Whose; of everybody when it is `None`.
    pub owner: Option<Token>,
    /// In which standings ([`Task::standing`]); any when it is empty.
    pub standings: &'a [String],
    /// Of which server; any when it is `None`.
    pub server: Option<&'a str>,
    /// How many at most.
    pub limit: usize,
    /// Where the page before has ended.
    pub cursor: Option<&'a str>,
}

impl Wanted<'_> {
    fn wants(&self, task: &Task) -> bool {
        let standing = task.standing();
        (self.standings.is_empty() || self.standings.iter().any(|wanted| wanted == standing))
            && self
                .server
                .is_none_or(|server| server == task.order.request.server)
    }
}

/// A page of tasks.
#[derive(Clone, Debug, Default)]
pub struct Page {
    /// The tasks.
    pub tasks: Vec<Task>,
    /// Where the next page begins; `None` when this is the last.
    pub next: Option<String>,
}

/// Where a page begins: in the queue or in the records, at a sequence of their stream.
enum Cursor {
    Queue(u64),
    Records(u64),
}

impl Cursor {
    fn read(text: Option<&str>) -> Option<Self> {
        let Some(text) = text else {
            return Some(Self::Queue(1));
        };
        let (kind, at) = text.split_once('-')?;
        let at = at.parse().ok()?;
        match kind {
            "q" => Some(Self::Queue(at)),
            "r" => Some(Self::Records(at)),
            _ => None,
        }
    }

    fn spelled(&self) -> String {
        match self {
            Self::Queue(at) => format!("q-{at}"),
            Self::Records(at) => format!("r-{at}"),
        }
    }
}

impl Tasks {
    /// A page of tasks. `None` when the cursor is none of ours.
    ///
    /// # Errors
    /// When the broker does not answer.
    pub async fn list(&self, wanted: &Wanted<'_>) -> Result<Option<Page>, TaskError> {
        self.list_those(wanted, |_| true).await
    }

    /// The same of the tasks that something more is true of. A page may have fewer than were wanted, and not be the last.
    ///
    /// # Errors
    /// When the broker does not answer.
    pub async fn list_those(
        &self,
        wanted: &Wanted<'_>,
        fits: impl Fn(&Task) -> bool + Send + Sync,
    ) -> Result<Option<Page>, TaskError> {
        let Some(mut at) = Cursor::read(wanted.cursor) else {
            return Ok(None);
        };
        let tenant = Token::encode(wanted.tenant);
        let mut page = Page::default();
        for _ in 0..MAX_LOOKED_AT {
            if page.tasks.len() == wanted.limit {
                break;
            }
            let owner = wanted.owner.as_ref();
            let (next, task) = match at {
                Cursor::Queue(from) => match self.0.store.next_order(&tenant, owner, from).await? {
                    Some((sequence, order)) => (Cursor::Queue(sequence + 1), self.unwritten(order).await?),
                    None => (Cursor::Records(1), None),
                },
                Cursor::Records(from) => match self.0.store.next_record(&tenant, owner, from).await? {
                    Some((sequence, task)) => (Cursor::Records(sequence + 1), Some(task)),
                    None => return Ok(Some(page)),
                },
            };
            page.tasks
                .extend(task.filter(|task| wanted.wants(task) && fits(task)));
            at = next;
        }
        page.next = Some(at.spelled());
        Ok(Some(page))
    }

    /// The task of an order that is all there is of it.
    async fn unwritten(&self, order: Order) -> Result<Option<Task>, TaskError> {
        let record = self.0.store.read_record(&place_of_order(&order)).await?;
        Ok(record.is_none().then(|| Task::new(order)))
    }
}
