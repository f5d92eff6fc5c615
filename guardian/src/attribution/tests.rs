use std::{
    cell::Cell,
    io::{BufRead, BufReader},
    process::{Command, Stdio},
};

use super::*;

/// A made-up process; the older the lower its pid, and none before PID 1.
pub(super) fn process(tgid: u32, parent: u32) -> Process {
    Process {
        exe_deleted: false,
        id: id(tgid),
        parent: (parent != 0).then(|| id(parent)),
        comm: format!("p{tgid}"),
        exe: Some(format!("/bin/p{tgid}")),
        argv: vec![format!("p{tgid}")],
        argv_cut: false,
        uid: 0,
        login_uid: None,
        cgroup_id: 0,
    }
}

/// A change made by [`process`].
pub(super) fn task(tgid: u32) -> TaskFacts {
    let mut comm = [0; 16];
    let name = format!("p{tgid}");
    comm[..name.len()].copy_from_slice(name.as_bytes());
    TaskFacts {
        tid: tgid,
        id: id(tgid),
        uid: 0,
        cpu: None,
        comm,
        cgroup_id: 0,
        kthread: false,
        interrupt: false,
        known: true,
        port: 0,
        kernel_made: None,
    }
}

fn id(tgid: u32) -> ProcessId {
    ProcessId { tgid, start_ns: u64::from(tgid) * 25_000_003 }
}

const NOBODY: &dyn Fn(u32) -> Option<Process> = &|_| None;

#[test]
fn the_kernel_is_never_a_pid() {
    let mut attribution = Attribution::new(16);
    let mut what = |task: TaskFacts| match &*attribution.actor_of(&task, &|_| panic!("asked about a task")) {
        Actor::Kernel { what } => what.to_string(),
        other => panic!("{other:?}"),
    };
    let kworker = TaskFacts { kthread: true, comm: *b"kworker/0:1\0\0\0\0\0", ..task(40) };
    assert_eq!(what(kworker), "kworker/0:1");
    assert_eq!(what(TaskFacts { interrupt: true, ..task(7) }), "softirq");
    assert_eq!(what(TaskFacts { kernel_made: Some(KernelWork::Expiry), ..task(7) }), "expiry");
    let advertisement =
        TaskFacts { kernel_made: Some(KernelWork::RouterAdvertisement), known: false, ..task(7) };
    assert_eq!(what(advertisement), "router advertisement");
}

#[test]
fn kernel_thread_names_are_bounded_and_need_not_be_text() {
    let mut attribution = Attribution::new(16);
    for n in 0..1000_u16 {
        let mut comm = [0xff; 16];
        comm[..2].copy_from_slice(&n.to_le_bytes());
        attribution.actor_of(&TaskFacts { kthread: true, comm, ..task(40) }, NOBODY);
    }
    assert!(attribution.kernel_threads.len() <= Attribution::KERNEL_THREADS);
}

#[test]
fn a_process_that_calls_itself_kworker_is_a_process() {
    let mut attribution = Attribution::new(16);
    attribution.learn(process(1, 0));
    attribution.learn(process(7, 1));
    let actor = attribution.actor_of(&TaskFacts { comm: *b"kworker/0:1\0\0\0\0\0", ..task(7) }, NOBODY);
    assert_eq!(actor.process().unwrap().exe.as_deref(), Some("/bin/p7"));
    assert_eq!(actor.confidence(), Confidence::Exact);
}

#[test]
fn what_no_sensor_saw_is_unknown() {
    let actor = Attribution::new(16).actor_of(&TaskFacts { known: false, ..task(7) }, NOBODY);
    assert_eq!((&*actor, actor.confidence()), (&Actor::Unknown, Confidence::None));
}

#[test]
fn one_process_costs_one_build() {
    let mut attribution = Attribution::new(16);
    let asked = Cell::new(0);
    let sensor = |tgid: u32| {
        asked.set(asked.get() + 1);
        Some(process(tgid, tgid - 1))
    };
    let first = attribution.actor_of(&task(3), &sensor);
    assert_eq!(first.confidence(), Confidence::Exact);
    assert_eq!(asked.get(), 3);
    for _ in 0..10_000 {
        assert!(Arc::ptr_eq(&attribution.actor_of(&task(3), &sensor), &first));
    }
    assert_eq!(asked.get(), 3);
}

#[test]
fn confidence_says_what_is_missing() {
    let confidence = |change: fn(&mut Process)| {
        let mut attribution = Attribution::new(16);
        attribution.learn(process(1, 0));
        let mut subject = process(7, 1);
        change(&mut subject);
        attribution.learn(subject);
        attribution.actor_of(&task(7), NOBODY).confidence()
    };
    assert_eq!(confidence(|_| {}), Confidence::Exact);
    assert_eq!(confidence(|process| process.exe = None), Confidence::Partial);
    assert_eq!(confidence(|process| process.argv.clear()), Confidence::Partial);
    assert_eq!(confidence(|process| process.parent = None), Confidence::Partial);
}

#[test]
fn a_stranger_is_told_by_what_the_change_brought_along() {
    // A pid that cannot be: nobody has it in /proc.
    let ghost = TaskFacts { id: ProcessId { tgid: u32::MAX, start_ns: 1 }, uid: 1000, ..task(7) };
    let mut attribution = Attribution::new(16);
    let actor = attribution.actor_of(&ghost, NOBODY);
    assert_eq!(actor.confidence(), Confidence::Partial);
    let known = actor.process().unwrap();
    assert_eq!((known.id, known.uid, known.comm.as_str(), &known.exe), (ghost.id, 1000, "p7", &None));
    assert!(Arc::ptr_eq(&attribution.actor_of(&ghost, NOBODY), &actor));
    // The sensor's record comes after all.
    attribution.learn(Process { id: ghost.id, ..process(7, 1) });
    assert!(attribution.actor_of(&ghost, NOBODY).process().unwrap().exe.is_some());
}

#[test]
fn a_sensor_that_answers_for_an_earlier_run_is_not_believed() {
    let own = procfs::read(std::process::id()).unwrap();
    let facts = TaskFacts { id: own.id, uid: own.uid, ..task(7) };
    let stale = |tgid| {
        (tgid == own.id.tgid).then(|| Process {
            id: ProcessId { start_ns: own.id.start_ns - 5 * procfs::TICK_NS, ..own.id },
            exe: Some("/usr/local/bin/kube-router".to_owned()),
            ..process(7, 1)
        })
    };
    let actor = Attribution::new(1024).actor_of(&facts, &stale);
    assert_eq!(actor.process().unwrap().exe, own.exe);
}

fn facts_of(process: &Process) -> TaskFacts {
    let mut comm = [0; 16];
    comm[..process.comm.len()].copy_from_slice(process.comm.as_bytes());
    TaskFacts { id: process.id, uid: process.uid, comm, ..task(7) }
}

#[test]
fn a_real_child_has_its_real_family() {
    let mut attribution = Attribution::new(Attribution::PROCESSES);
    assert!(attribution.prime() > 0);
    let mut child = Command::new("/bin/sh")
        .args(["-c", "sleep 600 >&- & echo $!; read never; kill $!"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut line = String::new();
    BufReader::new(child.stdout.as_mut().unwrap()).read_line(&mut line).unwrap();
    let pid: u32 = line.trim().parse().unwrap();
    // The shell may have forked and not yet executed `sleep`.
    let sleep = (0..1000)
        .find_map(|_| {
            std::thread::sleep(std::time::Duration::from_millis(1));
            procfs::read(pid).filter(|process| process.argv == ["sleep", "600"])
        })
        .expect("sleep runs");
    let actor = attribution.actor_of(&facts_of(&sleep), NOBODY);
    drop(child.stdin.take());
    child.wait().unwrap();

    let Actor::Process { process, ancestors, cgroup, .. } = &*actor else { panic!("{actor:?}") };
    assert_eq!(process.argv, ["sleep", "600"]);
    let family: Vec<u32> = ancestors.iter().map(|ancestor| ancestor.id.tgid).collect();
    assert_eq!(family[..2], [child.id(), std::process::id()]);
    assert_eq!(actor.confidence(), Confidence::Exact, "{actor:?}");
    assert!(cgroup.is_some());

    let record = actor_record(&actor);
    assert_eq!(record.argv, ["sleep", "600"]);
    assert_eq!(record.ancestors.len(), ancestors.len());
}
