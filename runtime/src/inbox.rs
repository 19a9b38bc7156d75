//! The process's one inbox: answers of all hosts arrive on one wildcard subscription and are sorted by call number.

use std::{
    collections::{HashMap, HashSet, VecDeque},
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
};

use async_nats::StatusCode;
use bus_schema::{envelope::WINDOW, subject};
use bytes::Bytes;
use tokio::sync::Notify;

/// What can wait for a call whose client does not read, at most: the window, the answer, and a quarter of an hour of heartbeats.
const MAILBOX_CAPACITY: usize = 960 + WINDOW as usize;

/// One thing that a call hears.
pub(crate) enum Arrival {
    /// A frame, not yet decoded.
    Frame(Bytes),
    /// Nobody serves the subject.
    NoResponders,
    /// The broker says that an instance's connection has ended.
    InstanceLost {
        /// Which instance.
        instance: Arc<str>,
        /// The places of the servers that it had left in order before.
        left: Arc<HashSet<Arc<str>>>,
    },
    /// An instance of a server has said which calls it took, and takes no more.
    InstanceLeft {
        /// The place of which server.
        server: Arc<str>,
        /// Which instance.
        instance: Arc<str>,
    },
    /// The host sent more than it may.
    Overflow,
}

/// Where one call's arrivals wait.
#[derive(Default)]
pub(crate) struct Mailbox {
    /// Held only to push or pop.
    arrivals: Mutex<VecDeque<Arrival>>,
    arrived: Notify,
}

impl Mailbox {
    fn push(&self, arrival: Arrival) {
        let mut arrivals = self.arrivals.lock().unwrap_or_else(PoisonError::into_inner);
        if arrivals.len() < MAILBOX_CAPACITY {
            arrivals.push_back(arrival);
        } else if arrivals.len() == MAILBOX_CAPACITY {
            arrivals.push_back(Arrival::Overflow);
        }
        drop(arrivals);
        self.arrived.notify_one();
    }

    /// Waits for the next arrival.
    pub(crate) async fn next(&self) -> Arrival {
        loop {
            let next = self
                .arrivals
                .lock()
                .unwrap_or_else(PoisonError::into_inner)
                .pop_front();
            match next {
                Some(arrival) => return arrival,
                None => self.arrived.notified().await,
            }
        }
    }
}

/// The mailboxes of all calls under way.
#[derive(Default)]
pub(crate) struct Inbox {
    last_call: AtomicU64,
    /// Held only to look up, insert or remove.
    mailboxes: Mutex<HashMap<u64, Arc<Mailbox>>>,
}

impl Inbox {
    /// Opens a mailbox under a fresh call number.
    pub(crate) fn open(&self) -> (u64, Arc<Mailbox>) {
        let call = self.last_call.fetch_add(1, Ordering::Relaxed) + 1;
        let mailbox = Arc::new(Mailbox::default());
        self.lock().insert(call, Arc::clone(&mailbox));
        (call, mailbox)
    }

    pub(crate) fn close(&self, call: u64) {
        self.lock().remove(&call);
    }

    /// Sorts one message in; what belongs to no call is an answer that came too late.
    pub(crate) fn deliver(&self, message: async_nats::Message) {
        // Whoever may have JetStream deliver something chooses where, and not under which subject.
        let Some(call) =
            subject::call_of_inbox(&message.subject).filter(|_| subject::is_inbox(&message.subject))
        else {
            return;
        };
        let Some(mailbox) = self.lock().get(&call).cloned() else {
            return;
        };
        mailbox.push(if message.status == Some(StatusCode::NO_RESPONDERS) {
            Arrival::NoResponders
        } else {
            Arrival::Frame(message.payload)
        });
    }

    pub(crate) fn instance_lost(&self, instance: &Arc<str>, left: &Arc<HashSet<Arc<str>>>) {
        self.tell_all(|| Arrival::InstanceLost {
            instance: Arc::clone(instance),
            left: Arc::clone(left),
        });
    }

    pub(crate) fn instance_left(&self, server: &Arc<str>, instance: &Arc<str>) {
        self.tell_all(|| Arrival::InstanceLeft {
            server: Arc::clone(server),
            instance: Arc::clone(instance),
        });
    }

    fn tell_all(&self, arrival: impl Fn() -> Arrival) {
        let mailboxes: Vec<_> = self.lock().values().cloned().collect();
        for mailbox in mailboxes {
            mailbox.push(arrival());
        }
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, HashMap<u64, Arc<Mailbox>>> {
        self.mailboxes.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
