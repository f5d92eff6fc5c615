//! Whether the task that runs is to blame: it may be interrupted merely, or about to end.

use std::time::{Duration, Instant};

use route_guardian::sensor::Task;

use crate::sensor_lab::{self, ADD, DEL, Lab, Seen, in_namespace, ip, is_named, self_as};

/// Who asks by `io_uring` is to blame, though no system call of it does it: it is not merely interrupted.
#[test]
fn who_asked_before_is_named() {
    in_namespace(|| {
        let mut lab = Lab::open();
        ip("route add 10.51.4.0/24 dev a0");
        lab.settle();
        let child = self_as("client_io_uring", "10.51.4.0");
        lab.settle();
        let found = lab.message(DEL, [10, 51, 4, 0]);
        assert!(!found.task.interrupt && !found.task.kthread, "{found:?}");
        assert_eq!(lab.process_of(&found.task).id.tgid, child);
    });
}

#[test]
fn a_router_advertisement_is_blamed_on_nobody() {
    in_namespace(|| {
        let mut lab = Lab::open();
        lab.seen.clear();
        // Sent by this very process, from another namespace: its changes are dropped, the router's are not.
        sensor_lab::advertise("a0", "r0", || {
            lab.settle_for(Duration::from_millis(500));
            ip("-6 route flush proto ra dev a0");
            lab.settle();
        });
        let by_router: Vec<_> = lab
            .seen
            .iter()
            .filter(|seen| seen.route_protocol_or(0) == 9 && !is_named(&seen.task, "ip"))
            .collect();
        assert!(by_router.iter().any(|seen| seen.kind() == ADD), "no route came: {:?}", lab.seen);
        assert!(by_router.iter().any(|seen| seen.kind() == DEL), "no route went: {by_router:?}");
        for seen in &by_router {
            assert!(seen.task.interrupt || seen.task.kthread, "{seen:?}");
        }
        assert!(by_router.iter().any(|seen| seen.task.interrupt), "{by_router:?}");
        let flushed = lab.seen.iter().rfind(|seen| seen.kind() == DEL).unwrap();
        assert!(!flushed.task.interrupt && is_named(&flushed.task, "ip"), "{flushed:?}");
    });
}

/// A timer's interrupt comes while the CPU runs a program, and the softirq that it brings along runs on the stack of that
/// program's task.
#[test]
fn what_runs_out_is_not_blamed_on_who_computes() {
    in_namespace(|| {
        std::fs::write("/proc/sys/net/ipv6/route/gc_interval", "1").unwrap();
        let mut lab = Lab::open();
        let busy = sensor_lab::Busy::everywhere();
        let mut tasks: Vec<Task> = Vec::new();
        // Now and then a kernel thread serves it, which says nothing.
        for n in 1..=8 {
            ip(&format!("-6 route add fd60:{n}::/64 dev a0 proto 17 expires 1"));
            let started = Instant::now();
            let gone = |seen: &&Seen| seen.kind() == DEL && seen.destination() == [0xfd, 0x60, 0, n];
            while !lab.seen.iter().any(|seen| gone(&seen)) {
                // The kernel may have set its timer for half a minute before it was told otherwise.
                assert!(started.elapsed() < Duration::from_secs(90), "{:?}", lab.seen);
                lab.settle();
            }
            tasks.extend(lab.seen.iter().find(gone).map(|seen| seen.task.clone()));
            if tasks.iter().filter(|task| task.interrupt).count() >= 3 {
                break;
            }
        }
        drop(busy);
        assert!(tasks.iter().all(|task| task.interrupt || task.kthread), "{tasks:?}");
        assert!(tasks.iter().any(|task| task.interrupt), "{tasks:?}");
    });
}

#[test]
fn a_killed_process_is_told_to_be_ending() {
    in_namespace(|| {
        let mut lab = Lab::open();
        let mut child = sensor_lab::start_as("client_tun", "t0");
        sensor_lab::wait_for_link("t0");
        ip("addr add 10.59.0.1/24 dev t0");
        lab.settle();
        lab.seen.clear();
        child.kill().unwrap();
        child.wait().unwrap();
        lab.settle();
        let gone = lab.seen.iter().find(|seen| seen.kind() == 17).expect("the link goes with its holder");
        assert!(gone.task.exiting && !gone.task.interrupt, "{gone:?}");
        assert_eq!(gone.task.id.tgid, child.id());
        let process = lab.process_of(&gone.task);
        assert!(process.argv.iter().any(|arg| arg == "client_tun"), "{process:?}");
        assert!(lab.exits.contains(&process.id));
    });
}
