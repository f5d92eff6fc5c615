use std::cell::RefCell;

use super::*;
use crate::attribution::tests::{process, task};

const NOBODY: Ask = &|_| None;

fn names(ancestors: &[Arc<Process>]) -> Vec<u32> {
    ancestors.iter().map(|ancestor| ancestor.id.tgid).collect()
}

fn family(table: &mut ProcessTable, tgid: u32, ask: Ask) -> (Vec<u32>, bool) {
    let subject = table.subject(&task(tgid), ask).unwrap();
    let (ancestors, whole) = table.ancestors(&subject, ask);
    (names(&ancestors), whole)
}

fn table_of(processes: impl IntoIterator<Item = Process>) -> ProcessTable {
    let mut table = ProcessTable::new(64);
    processes.into_iter().for_each(|process| table.learn(process));
    table
}

/// As `Attribution` does, with an actor that only tells how complete it is.
fn answer(table: &mut ProcessTable, task: &TaskFacts, confidence: Confidence) -> Arc<Actor> {
    let process = table.subject(task, NOBODY).unwrap();
    let actor =
        Arc::new(Actor::Process { process, thread: None, ancestors: Vec::new(), cgroup: None, confidence });
    table.cache(task, &actor);
    actor
}

#[test]
fn start_times_compare_in_ticks() {
    let id = |start_ns| ProcessId { tgid: 7, start_ns };
    assert!(same_run(id(123_456_789_012), id(123_450_000_000)));
    assert!(!same_run(id(123_456_789_012), id(123_460_000_000)));
    assert!(same_run(id(123_456_789_012), id(0)));
    assert!(!same_run(id(5), ProcessId { tgid: 8, start_ns: 5 }));
    assert!(started_before(id(TICK_NS), id(2 * TICK_NS)));
    assert!(!started_before(id(TICK_NS), id(2 * TICK_NS - 1)));
    assert!(!started_before(id(0), id(2 * TICK_NS)));
}

#[test]
fn a_family_reaches_pid_1() {
    let mut table = table_of([process(1, 0), process(5, 1), process(6, 5), process(7, 6)]);
    assert_eq!(family(&mut table, 7, NOBODY), (vec![6, 5, 1], true));
    assert_eq!(family(&mut table, 1, NOBODY), (vec![], true));
}

#[test]
fn a_process_without_parent_ends_the_family() {
    let mut kthreadd = process(2, 1);
    kthreadd.parent = Some(ProcessId { tgid: 0, start_ns: 0 });
    let mut table = table_of([kthreadd, process(7, 2)]);
    assert_eq!(family(&mut table, 7, NOBODY), (vec![2], true));
}

#[test]
fn gaps_loops_and_depth_make_it_incomplete() {
    let mut table = table_of([process(7, 6)]);
    assert_eq!(family(&mut table, 7, NOBODY), (vec![], false));

    let mut lost = process(7, 6);
    lost.parent = None;
    assert_eq!(family(&mut table_of([lost]), 7, NOBODY), (vec![], false));

    // All within one tick, so that only the loop itself is in the way.
    let looped = |tgid, parent| {
        let mut process = process(tgid, parent);
        process.id.start_ns = TICK_NS;
        process.parent = Some(ProcessId { tgid: parent, start_ns: TICK_NS });
        process
    };
    let mut table = table_of([looped(7, 8), looped(8, 9), looped(9, 8)]);
    let subject = table.process(looped(7, 8).id, NOBODY).unwrap();
    let (ancestors, whole) = table.ancestors(&subject, NOBODY);
    assert_eq!((names(&ancestors), whole), (vec![8, 9], false));

    let mut deep = ProcessTable::new(256);
    (2..=100).for_each(|tgid| deep.learn(process(tgid, tgid - 1)));
    let (ancestors, whole) = family(&mut deep, 100, NOBODY);
    assert_eq!((ancestors.len(), whole), (ProcessTable::MAX_ANCESTORS, false));
}

#[test]
fn nobody_descends_from_someone_younger() {
    // Pid 5 was reused: its holder is younger than its alleged child, whose record has no start time for
    // its parent.
    let mut child = process(7, 5);
    child.parent = Some(ProcessId { tgid: 5, start_ns: 0 });
    let mut reused = process(5, 1);
    reused.id.start_ns = child.id.start_ns + TICK_NS;
    let mut table = table_of([reused, child]);
    assert_eq!(family(&mut table, 7, NOBODY), (vec![], false));
}

#[test]
fn the_unknown_are_asked_for_once() {
    let asked = RefCell::new(Vec::new());
    let ask = |id: ProcessId| {
        asked.borrow_mut().push(id.tgid);
        (id.tgid != 6).then(|| process(id.tgid, id.tgid - 1))
    };
    let mut table = ProcessTable::new(64);
    for _ in 0..3 {
        assert_eq!(family(&mut table, 8, &ask), (vec![7], false));
    }
    assert_eq!(*asked.borrow(), [8, 7, 6]);
}

#[test]
fn what_proc_rounds_keeps_the_exact_start_time() {
    let exact = process(7, 1).id;
    let ask = |id: ProcessId| {
        let mut process = process(id.tgid, 1);
        process.id.start_ns -= process.id.start_ns % TICK_NS;
        Some(process)
    };
    let mut table = ProcessTable::new(64);
    assert_eq!(table.process(exact, &ask).unwrap().id, exact);
    // And what comes without a start time takes the one that is known.
    let rounded = table.process(ProcessId { tgid: 9, start_ns: 0 }, &ask).unwrap();
    assert_eq!(rounded.id.start_ns, process(9, 1).id.start_ns / TICK_NS * TICK_NS);
}

#[test]
fn a_pid_that_is_reused_is_somebody_else() {
    let mut table = table_of([process(7, 1)]);
    let mut second = process(7, 1);
    second.id.start_ns += 3 * TICK_NS;
    second.exe = Some("/bin/second".to_owned());
    let later = TaskFacts { id: second.id, ..task(7) };
    answer(&mut table, &task(7), Confidence::Exact);
    assert!(table.cached(&task(7)).is_some());
    assert!(table.cached(&later).is_none());
    assert!(table.subject(&later, &|_| Some(second.clone())).unwrap().exe == second.exe);
    // The late message of the first finds nobody, and its late record changes nothing.
    assert!(table.cached(&task(7)).is_none());
    assert!(table.subject(&task(7), NOBODY).is_none());
    table.learn(process(7, 1));
    assert_eq!(table.process(second.id, NOBODY).unwrap().exe, second.exe);
    assert_eq!(table.len(), 1);
}

#[test]
fn an_answer_lasts_until_the_process_executes_another_program() {
    let mut table = table_of([process(7, 1)]);
    let first = answer(&mut table, &task(7), Confidence::Exact);
    table.learn(process(7, 1));
    assert!(Arc::ptr_eq(&table.cached(&task(7)).unwrap(), &first));

    let mut exec = process(7, 1);
    exec.exe = Some("/usr/sbin/ip".to_owned());
    exec.parent = Some(ProcessId { tgid: 3, start_ns: 1 });
    table.learn(exec.clone());
    assert!(table.cached(&task(7)).is_none());
    let now = table.process(exec.id, NOBODY).unwrap();
    assert_eq!(now.exe, exec.exe);
    assert_eq!(now.parent, process(7, 1).parent, "who adopted it is not its parent");

    // A process on its way out has no memory to tell of; what was known is better.
    table.learn(Process { exe: None, argv: vec![], ..exec.clone() });
    assert_eq!(table.process(exec.id, NOBODY).unwrap().exe, exec.exe);
}

#[test]
fn a_filled_gap_renews_what_was_partial_only() {
    let mut table = table_of([process(7, 6), process(8, 1)]);
    answer(&mut table, &task(7), Confidence::Partial);
    let exact = answer(&mut table, &task(8), Confidence::Exact);
    assert_eq!(family(&mut table, 7, NOBODY), (vec![], false));
    assert!(table.cached(&task(7)).is_some());
    table.learn(process(6, 1));
    assert!(table.cached(&task(7)).is_none());
    assert!(Arc::ptr_eq(&table.cached(&task(8)).unwrap(), &exact));
}

#[test]
fn another_user_or_cgroup_is_another_answer() {
    let mut table = table_of([process(7, 1)]);
    answer(&mut table, &task(7), Confidence::Exact);
    let setuid = TaskFacts { uid: 1000, ..task(7) };
    assert!(table.cached(&setuid).is_none());
    let actor = answer(&mut table, &setuid, Confidence::Exact);
    assert_eq!(actor.process().unwrap().uid, 1000);
    let moved = TaskFacts { cgroup_id: 99, ..setuid };
    assert!(table.cached(&moved).is_none());
    assert_eq!(answer(&mut table, &moved, Confidence::Exact).process().unwrap().cgroup_id, 99);
    assert!(table.cached(&moved).is_some());
}

#[test]
fn a_new_name_is_asked_about_once() {
    let asked = RefCell::new(0);
    let mut table = table_of([process(7, 1)]);
    let named = |name: &[u8]| {
        let mut comm = [0; 16];
        comm[..name.len()].copy_from_slice(name);
        TaskFacts { comm, ..task(7) }
    };
    // A thread with a name of its own: the same program.
    let same = |_: ProcessId| {
        *asked.borrow_mut() += 1;
        Some(process(7, 1))
    };
    let subject = table.subject(&named(b"worker"), &same).unwrap();
    assert_eq!((*asked.borrow(), subject.exe.clone()), (1, process(7, 1).exe));
    answer(&mut table, &named(b"worker"), Confidence::Exact);
    answer(&mut table, &task(7), Confidence::Exact);
    assert!(table.cached(&named(b"worker")).is_some() && table.cached(&task(7)).is_some());
    // Another program, of which no sensor told.
    let other = |_: ProcessId| Some(Process { exe: Some("/usr/sbin/ip".to_owned()), ..process(7, 1) });
    assert!(table.cached(&named(b"ip")).is_none());
    assert_eq!(table.subject(&named(b"ip"), &other).unwrap().exe.as_deref(), Some("/usr/sbin/ip"));
    // The dead are not asked about: whoever has the pid now is somebody else.
    table.exited(task(7).id);
    let never = |_: ProcessId| -> Option<Process> { panic!("asked about the dead") };
    assert!(table.subject(&named(b"ghost"), &never).is_some());
}

#[test]
fn memory_is_bounded_and_the_used_stay() {
    let mut table = ProcessTable::new(100);
    for tgid in 1..=3 {
        table.learn(process(tgid, tgid - 1));
    }
    for tgid in 10..5010 {
        table.learn(Process { parent: Some(process(3, 2).id), ..process(tgid, 3) });
        assert_eq!(family(&mut table, tgid, NOBODY), (vec![3, 2, 1], true));
        table.exited(process(tgid, 3).id);
        assert!(table.len() <= 100);
    }
    assert_eq!(table.evictions(), 5003 - 100);
    assert_eq!(table.queue.len(), table.len());
}

#[test]
fn a_table_of_one_still_answers() {
    let mut table = ProcessTable::new(0);
    for tgid in 1..20 {
        table.learn(process(tgid, tgid - 1));
        answer(&mut table, &task(tgid), Confidence::Partial);
        assert!(table.cached(&task(tgid)).is_some());
    }
    assert_eq!(table.len(), 1);
}

#[test]
fn the_newest_is_not_the_one_to_go() {
    let mut table = ProcessTable::new(3);
    for tgid in 1..=3 {
        table.learn(process(tgid, tgid - 1));
    }
    assert_eq!(family(&mut table, 3, NOBODY), (vec![2, 1], true));
    // All of them are in use, and the new one was not yet.
    table.learn(process(9, 3));
    assert!(table.process(process(9, 3).id, NOBODY).is_some());
    assert_eq!((table.len(), table.evictions()), (3, 1));
}
