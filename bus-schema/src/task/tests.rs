//! Every order of moves that a task can make, tried one after the other.

use std::collections::{BTreeMap, HashMap, VecDeque};

use super::*;
use crate::{Principal, Request, envelope::Body};

fn order() -> Order {
    Order {
        id: TaskId::of(7),
        group: HOSTED.to_owned(),
        endpoint: "shop".to_owned(),
        request: Request {
            caller: String::new(),
            call: 0,
            server: "shop".to_owned(),
            method: "tools/call".to_owned(),
            name: Some("buy".to_owned()),
            principal: Principal::new("ann", "t"),
            protocol_version: "2026-07-28".to_owned(),
            door: "http".to_owned(),
            timeout_ms: 1,
            trace: None,
            chunked_bytes: 0,
            body: Body::from(b"{}".to_vec()),
        },
        priority: Priority::Normal,
        created_ms: 1_000,
        kept_ms: KEPT_MS,
        start_ms: None,
        approval: None,
        at_most_once: false,
    }
}

/// What can happen to a task. Words have the sequence under which they are in the queue.
#[derive(Clone, Copy, Debug)]
enum Move {
    Hear(&'static str, u64, u32),
    Commit(u32),
    Ask(u32),
    Sleep(u32),
    PutOff(u32),
    Complete(u32),
    Fail(u32),
    Cancel,
    Discard,
}

const MOVES: [Move; 21] = [
    Move::Hear("run", 1, 1),
    Move::Hear("run", 1, 2),
    Move::Hear("wake1", 2, 1),
    Move::Hear("wake1", 2, 2),
    Move::Hear("answer", 3, 1),
    Move::Hear("answer", 3, 2),
    Move::Hear("part", 4, 1),
    Move::Hear("again", 5, 1),
    Move::Hear("again", 5, 2),
    Move::Commit(1),
    Move::Commit(2),
    Move::Ask(1),
    Move::Ask(2),
    Move::Sleep(1),
    Move::Sleep(3),
    Move::PutOff(2),
    Move::Complete(1),
    Move::Complete(2),
    Move::Fail(1),
    Move::Cancel,
    Move::Discard,
];

fn word(spelled: &str) -> Word {
    let answer = |keys: &[&str]| {
        let answers = keys
            .iter()
            .map(|key| ((*key).to_owned(), Body::from(b"1".to_vec())));
        Word::Answers {
            answers: answers.collect(),
            by: "ann".to_owned(),
        }
    };
    match spelled {
        "run" => Word::Run(Box::new(order())),
        "wake1" => Word::Wake(1),
        "answer" => answer(&["1-a", "1-b", "unknown"]),
        "part" => answer(&["1-a"]),
        _ => Word::Again,
    }
}

/// Makes a move; `false` when it cannot be made, and then nothing may have changed.
fn make(task: &mut Task, made: Move, now_ms: u64) -> bool {
    let questions = |round: u32| -> BTreeMap<String, Body> {
        let keys = [format!("{round}-a"), format!("{round}-b")];
        keys.map(|key| (key, Body::from(b"{}".to_vec()))).into()
    };
    let value = || Body::from(b"1".to_vec());
    match made {
        Move::Hear(spelled, sequence, count) => {
            let delivery = Delivery {
                worker: "w",
                sequence,
                count,
                now_ms,
            };
            task.hear(&word(spelled), &delivery) != Turn::Drop
        }
        Move::Commit(attempt) => task.commit(attempt, "s", value(), now_ms).is_ok(),
        Move::Ask(attempt) => {
            let questions = questions(task.round + 1);
            task.ask(attempt, questions, now_ms + 10, now_ms).is_ok()
        }
        Move::Sleep(attempt) => task.sleep(attempt, now_ms + 5, None, now_ms).is_ok(),
        Move::PutOff(attempt) => task.put_off(attempt, "no".to_owned(), now_ms + 5, now_ms).is_ok(),
        Move::Complete(attempt) => task.complete(attempt, value(), now_ms).is_ok(),
        Move::Fail(attempt) => task.fail(attempt, value(), now_ms).is_ok(),
        Move::Cancel => task.cancel(now_ms).is_ok(),
        Move::Discard => task.discard("op", now_ms).is_ok(),
    }
}

/// What must hold after every move.
fn check(before: &Task, made: Move, was_made: bool, after: &Task) {
    assert!(STANDINGS.contains(&after.standing()), "{}", after.standing());
    let told = format!("{made:?}: {:?} -> {:?}", before.state, after.state);
    if before.has_ended() || !was_made {
        assert_eq!(before, after, "{told}");
    }
    assert!(after.attempt >= before.attempt, "{told}");
    assert!(after.expires_ms >= before.expires_ms, "{told}");
    assert!(after.changed_ms >= before.changed_ms, "{told}");
    assert!(after.round >= before.round, "{told}");
    assert!(after.idle <= MAX_IDLE, "{told}");
    if !after.has_ended() {
        assert!(
            before.steps.keys().all(|step| after.steps.contains_key(step)),
            "{told}"
        );
        assert!(before.asked.iter().all(|(key, asked)| {
            after
                .asked
                .get(key)
                .is_some_and(|now| asked.answer.is_none() || now.answer == asked.answer)
        }));
    }
    let waits = matches!(after.state, State::Waiting { .. });
    assert_eq!(waits, after.status() == "input_required", "{told}");
    assert_eq!(waits, after.outstanding().next().is_some(), "{told}");
    // Nobody but the one who has it makes a worker's moves.
    if let Move::Commit(attempt)
    | Move::Ask(attempt)
    | Move::Sleep(attempt)
    | Move::PutOff(attempt)
    | Move::Complete(attempt)
    | Move::Fail(attempt) = made
    {
        let has_it = before.state == State::Working && before.attempt == attempt;
        assert_eq!(was_made, has_it, "{told}");
    }
}

/// A task without what only grows, so that the states that differ in nothing else are tried once.
fn shape(task: &Task) -> String {
    let (attempt, round) = (task.attempt.min(3), task.round.min(2));
    let answered: Vec<_> = task
        .asked
        .iter()
        .map(|(key, asked)| (key, asked.answer.is_some()))
        .collect();
    let state = task.standing();
    format!(
        "{state} {attempt} {} {} {round} {} {answered:?}",
        task.idle,
        task.lease,
        task.steps.len()
    )
}

#[test]
fn every_order_of_moves_keeps_what_is_promised() {
    let mut known: HashMap<String, usize> = HashMap::new();
    let mut open = VecDeque::from([(Task::new(order()), 0_usize)]);
    let (mut tried, mut seen) = (0_u32, BTreeMap::new());
    while let Some((task, depth)) = open.pop_front() {
        for made in MOVES {
            let mut after = task.clone();
            let now = 2_000 + 100 * depth as u64;
            let was_made = make(&mut after, made, now);
            check(&task, made, was_made, &after);
            tried += 1;
            *seen.entry(after.standing()).or_insert(0) += 1;
            if was_made && depth < 12 && known.insert(shape(&after), depth).is_none() {
                open.push_back((after, depth + 1));
            }
        }
    }
    for standing in [
        "queued",
        "working",
        "sleeping",
        "input_required",
        "held",
        "completed",
        "failed",
        "cancelled",
    ] {
        assert!(
            seen.contains_key(standing),
            "{standing} was never reached: {seen:?}"
        );
    }
    assert!(tried > 3_000, "{tried}");
}

#[test]
fn whoever_has_lost_a_task_changes_nothing() {
    let mut first = Task::new(order());
    let by = |worker, sequence, count| Delivery {
        worker,
        sequence,
        count,
        now_ms: 2_000,
    };
    let run = word("run");
    assert_eq!(first.hear(&run, &by("a", 1, 1)), Turn::First);
    // The second knows nothing of the first, who has written nothing.
    let mut second = Task::new(order());
    assert_eq!(second.hear(&run, &by("b", 1, 2)), Turn::Work);
    assert_ne!(first.attempt, second.attempt);
    assert_eq!(second.check(first.attempt), Err(Illegal::Lost));
    // A word that had its turn takes it from nobody.
    assert_eq!(second.hear(&word("answer"), &by("c", 9, 2)), Turn::Drop);
    assert_eq!(second.hear(&run, &by("c", 1, 3)), Turn::Work);
}

#[test]
fn a_task_that_kills_its_workers_is_held_and_goes_on_when_somebody_says_so() {
    let mut task = Task::new(order());
    let by = |sequence, count| Delivery {
        worker: "w",
        sequence,
        count,
        now_ms: 2_000,
    };
    for count in 2..=MAX_IDLE + 1 {
        assert_eq!(task.hear(&word("run"), &by(1, count)), Turn::Work, "{count}");
    }
    assert_eq!(task.hear(&word("run"), &by(1, MAX_IDLE + 2)), Turn::Write);
    assert_eq!((task.standing(), task.status()), ("held", "working"));
    assert_eq!(task.hear(&word("run"), &by(1, MAX_IDLE + 3)), Turn::Drop);
    assert_eq!(task.hear(&word("again"), &by(8, 1)), Turn::Work);
    assert_eq!(task.idle, 1);
}

#[test]
fn ids_are_told_from_those_of_servers_and_are_tokens() {
    let id = TaskId::of(u128::MAX - 1);
    assert_eq!(TaskId::parse(id.as_str()), Some(id.clone()));
    assert_eq!(id.token().as_str(), id.as_str());
    for other in [
        "",
        "tlt-",
        "tlt-00",
        "tl1.a.b",
        "TLT-00000000000000000000000000000007",
    ] {
        assert_eq!(TaskId::parse(other), None, "{other}");
    }
    let upper = id.as_str().to_uppercase().replace("TLT-", "tlt-");
    assert_eq!(TaskId::parse(&upper), None);
}

#[test]
fn records_and_words_survive_the_codec() {
    let codec = crate::ContentType::MessagePack;
    let mut task = Task::new(order());
    let by = Delivery {
        worker: "w",
        sequence: 1,
        count: 2,
        now_ms: 2_000,
    };
    assert_eq!(task.hear(&word("run"), &by), Turn::Work);
    task.commit(2, "s", Body::from(b"[1]".to_vec()), 3_000).unwrap();
    let questions = BTreeMap::from([("1-a".to_owned(), Body::from(b"{}".to_vec()))]);
    task.ask(2, questions, 9_000, 3_000).unwrap();
    let read: Task = codec.decode(&codec.encode(&task).unwrap()).unwrap();
    assert_eq!(read, task);
    for word in [word("run"), word("wake1"), word("part"), word("again")] {
        let read: Word = codec.decode(&codec.encode(&word).unwrap()).unwrap();
        assert_eq!(read, word);
    }
}

#[test]
fn settings_say_which_tools_become_tasks() {
    let knob: TaskKnob =
        serde_json::from_str(r#"{"mode":"never","tools":{"report":"always"},"approve":["wipe","*"]}"#)
            .unwrap();
    assert_eq!((knob.of("report"), knob.of("other")), (Mode::Always, Mode::Never));
    assert!(knob.needs_approval("wipe", false) && knob.needs_approval("other", true));
    assert!(!knob.needs_approval("other", false));
    assert!(TaskKnob { budget_ms: 0, ..knob }.check().is_err());
}
