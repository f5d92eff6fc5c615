//! The sensors against the running kernel, each test in a network namespace of its own.
//!
//! They need root, `ip`, and a kernel that takes BPF socket filters and raw tracepoints; without, they fail and say
//! so.

mod sensor_context;
mod sensor_lab;

use std::{
    collections::BTreeSet,
    os::unix::fs::symlink,
    path::Path,
    process::Command,
    time::{Duration, Instant},
};

use rtnetlink::sys::{Socket, SocketAddr, protocols::NETLINK_ROUTE};

use route_guardian::{
    core::plan::{Action, Applied},
    model::{Attribute, Leg, Route, RouteKey, Stamp, route::rt},
    netlink::Executor,
    sensor::{KernelScope, Lost, Options, Sensed, SensorStatus, Sensors},
};
use sensor_lab::{
    ADD, DEL, Lab, Seen, client, in_namespace, ip, is_named, is_readable, netlink, now, run, self_as,
};

const TEN: u8 = 10;

#[test]
fn a_deletion_names_program_arguments_and_ancestors() {
    in_namespace(|| {
        let mut lab = Lab::open();
        ip("route add 10.50.1.0/24 dev a0");
        lab.settle();
        // A shell that stays between us and `ip`.
        run("sh", &["-c", "ip route del 10.50.1.0/24 dev a0; true"]);
        lab.settle();
        let found = lab.message(DEL, [TEN, 50, 1, 0]);
        let task = &found.task;
        assert!(task.known && !task.kthread && !task.interrupt && !task.exiting, "{task:?}");
        assert!(is_named(task, "ip"), "{task:?}");
        let process = lab.process_of(task);
        assert_eq!(process.exe.as_deref(), sensor_lab::real_ip().to_str());
        assert_eq!(process.argv, ["ip", "route", "del", "10.50.1.0/24", "dev", "a0"]);
        assert_eq!((process.uid, process.argv_cut, process.comm.as_str()), (0, false, "ip"));
        assert!(process.cgroup_id == task.cgroup_id, "{process:?} {task:?}");
        let ancestors = lab.ancestors(&process);
        let shell = &ancestors[0];
        assert!(shell.exe.as_deref().is_some_and(|exe| exe.ends_with("sh")), "{ancestors:?}");
        assert_eq!(shell.argv[..2], ["sh", "-c"]);
        assert_eq!(ancestors[1].id.tgid, std::process::id());
        assert_eq!(ancestors[1].exe.as_deref(), std::env::current_exe().unwrap().to_str());
        assert!(ancestors.len() > 2, "older processes come from /proc: {ancestors:?}");
        assert_eq!(ancestors.last().map(|p| p.parent), Some(None), "up to the first process: {ancestors:?}");
        assert!(lab.exits.contains(&process.id), "its end is told");
        assert_eq!(lab.sensors.process(process.id.tgid), Some(process));
        assert_eq!(lab.sensors.lost(), Lost::default());
    });
}

#[test]
fn raw_netlink_and_ioctl_clients_are_named() {
    in_namespace(|| {
        let mut lab = Lab::open();
        for (subnet, client) in [(1, "client_netlink"), (2, "client_ioctl"), (3, "client_child_by_fork")] {
            ip(&format!("route add 10.51.{subnet}.0/24 dev a0"));
            lab.settle();
            let child = self_as(client, &format!("10.51.{subnet}.0"));
            lab.settle();
            let found = lab.message(DEL, [TEN, 51, subnet, 0]);
            let process = lab.process_of(&found.task);
            assert_eq!(process.exe.as_deref(), std::env::current_exe().unwrap().to_str());
            assert!(process.argv.iter().any(|arg| arg == client), "{process:?}");
            if client == "client_child_by_fork" {
                // Two forks and no exec: the same program, its parents gone.
                assert_ne!(process.id.tgid, child);
                let ancestors = lab.ancestors(&process);
                assert_eq!(ancestors[1].id.tgid, child, "{ancestors:?}");
                assert_eq!(ancestors[2].id.tgid, std::process::id());
            } else {
                // The test harness of the client runs it in a thread.
                assert_eq!(process.id.tgid, child);
                assert_ne!(found.task.tid, found.task.id.tgid, "in a thread");
            }
        }
    });
}

#[test]
fn names_anyone_can_set_do_not_deceive() {
    in_namespace(|| {
        let mut lab = Lab::open();
        let dir = tempfile::tempdir().unwrap();
        // A copy with a famous name, a symbolic link with one, and a relative path.
        let copy = dir.path().join("kube-router");
        std::fs::copy(sensor_lab::real_ip(), &copy).unwrap();
        let link = dir.path().join("networkd");
        symlink(sensor_lab::real_ip(), &link).unwrap();
        for n in 1..=3 {
            ip(&format!("route add 10.52.{n}.0/24 dev a0"));
        }
        run(copy.to_str().unwrap(), &["route", "del", "10.52.1.0/24"]);
        run(link.to_str().unwrap(), &["route", "del", "10.52.2.0/24"]);
        let status = Command::new("./kube-router")
            .current_dir(dir.path())
            .args(["route", "del", "10.52.3.0/24"])
            .status()
            .unwrap();
        assert!(status.success());
        lab.settle();
        for (n, comm, exe) in [
            (1, "kube-router", copy.as_path()),
            (2, "networkd", &sensor_lab::real_ip()),
            (3, "kube-router", &copy),
        ] {
            let found = lab.message(DEL, [TEN, 52, n, 0]);
            assert!(is_named(&found.task, comm), "{found:?}");
            assert_eq!(lab.process_of(&found.task).exe.as_deref(), exe.canonicalize().unwrap().to_str());
        }
    });
}

#[test]
fn paths_cross_mounts_and_deep_ones_say_they_are_cut() {
    in_namespace(|| {
        let mut lab = Lab::open();
        let dir = tempfile::tempdir().unwrap();
        let deep = dir.path().join("a-directory-with-a-long-name/".repeat(12));
        std::fs::create_dir_all(&deep).unwrap();
        let buried = deep.join("ip");
        std::fs::copy(sensor_lab::real_ip(), &buried).unwrap();
        let mounted = dir.path().join("mounted");
        std::fs::create_dir(&mounted).unwrap();
        ip("route add 10.53.1.0/24 dev a0");
        ip("route add 10.53.2.0/24 dev a0");
        run(buried.to_str().unwrap(), &["route", "del", "10.53.1.0/24"]);
        let script = "mount -t tmpfs none \"$0\" && cp \"$1\" \"$0/ip\" && \"$0/ip\" route del 10.53.2.0/24";
        run(
            "unshare",
            &["-m", "sh", "-c", script, mounted.to_str().unwrap(), sensor_lab::real_ip().to_str().unwrap()],
        );
        lab.settle();
        let cut = lab.process_of(&lab.message(DEL, [TEN, 53, 1, 0]).task).exe.unwrap();
        assert!(cut.starts_with("…/a-directory") && cut.ends_with("-name/ip"), "{cut}");
        let crossing = lab.process_of(&lab.message(DEL, [TEN, 53, 2, 0]).task);
        assert_eq!(crossing.exe.as_deref(), mounted.join("ip").to_str());
    });
}

#[test]
fn long_arguments_are_cut_visibly() {
    in_namespace(|| {
        let mut lab = Lab::open();
        ip("route add 10.54.1.0/24 dev a0");
        // Options that change nothing, over and over.
        let mut args = vec!["-o"; 400];
        args.extend(["route", "del", "10.54.1.0/24"]);
        run("ip", &args);
        lab.settle();
        let process = lab.process_of(&lab.message(DEL, [TEN, 54, 1, 0]).task);
        assert!(process.argv_cut);
        // 3 bytes of `ip`, 169 times 3 of `-o`, and one more without its terminator.
        assert_eq!(process.argv.len(), 171);
        assert_eq!(process.argv[170], "-o");
    });
}

#[test]
fn own_changes_and_what_is_out_of_scope_are_dropped() {
    in_namespace(|| {
        let scope = KernelScope { protocols: vec![17], tables: vec![77, 4000] };
        let mut lab = Lab::open_with(&Options { scope, ..Options::default() });
        let [lo, a0, a1] = ["lo", "a0", "a1"].map(sensor_lab::ifindex);
        lab.sensors.set_links(&BTreeSet::from([lo, a0, a1])).unwrap();
        ip("route add 10.55.1.0/24 dev a0 proto 99");
        ip("route add 10.55.2.0/24 dev a0 proto 17");
        ip("route add 10.55.3.0/24 dev a0 table 77");
        ip("route add 10.55.4.0/24 dev a0 table 4000");
        ip("route add 10.55.5.0/24 nexthop dev a0 nexthop dev a1");
        ip("route replace 10.55.1.0/24 dev a0 proto 98");
        lab.settle();
        assert_eq!(lab.destinations(ADD), [[10, 55, 2, 0], [10, 55, 3, 0], [10, 55, 4, 0], [10, 55, 1, 0]]);
        assert!(
            lab.seen.last().unwrap().flags() & 0x100 != 0,
            "a replace of what is out of scope may concern us"
        );
        lab.seen.clear();

        lab.sensors.set_links(&BTreeSet::from([lo, a0])).unwrap();
        ip("route del 10.55.5.0/24");
        ip("route del 10.55.1.0/24");
        ip("route add 10.55.6.0/24 dev a1 proto 99");
        netlink::delete([10, 55, 6, 0], 24);
        ip("rule add from 10.0.0.0/8 table 77");
        ip("nexthop add id 7 dev a0");
        ip("addr add 10.8.0.1/24 dev a0");
        ip("link set a0 mtu 1400");
        lab.settle();
        assert_eq!(lab.destinations(DEL), [[10, 55, 5, 0]], "one by a leg, none of our own");
        assert_eq!(lab.destinations(ADD), [[10, 55, 6, 0]]);
        let kinds: BTreeSet<u16> = lab.seen.iter().map(Seen::kind).collect();
        assert!(kinds.is_superset(&BTreeSet::from([16, 20, 32, 104])), "{kinds:?}");
    });
}

#[test]
fn routes_are_kept_on_links_that_nobody_has_classified() {
    in_namespace(|| {
        let scope = KernelScope { protocols: vec![17], tables: vec![] };
        let mut lab = Lab::open_with(&Options { scope, ..Options::default() });
        let known = BTreeSet::from(["lo", "a0", "a1"].map(sensor_lab::ifindex));
        lab.sensors.set_links(&known).unwrap();
        // A bridge: every kernel that the tests run on has one.
        ip("link add b0 type bridge");
        ip("link set b0 up");
        let b0 = sensor_lab::ifindex("b0");
        let destinations = |lab: &mut Lab, n: u8| {
            ip(&format!("route add 10.55.{n}.0/24 dev a0 proto 99"));
            ip(&format!("route add 10.55.{}.0/24 dev b0 proto 99", n + 1));
            ip(&format!("route add 10.55.{}.0/24 proto 99 nexthop dev a0 nexthop dev b0", n + 2));
            ip(&format!("route add 10.55.{}.0/24 proto 99 nexthop dev a0 nexthop dev a1", n + 3));
            lab.settle();
            let seen: Vec<u8> = lab.destinations(ADD).iter().map(|to| to[2]).collect();
            lab.seen.clear();
            seen
        };
        assert_eq!(destinations(&mut lab, 1), [2, 3], "not known to be outside, by its link or one leg");
        lab.sensors.set_link(b0, true).unwrap();
        assert!(destinations(&mut lab, 11).is_empty(), "outside");

        // Its ifindex is given to another link.
        ip("link del b0");
        lab.sensors.set_link(b0, false).unwrap();
        ip(&format!("link add b0 index {b0} type bridge"));
        ip("link set b0 up");
        assert_eq!(destinations(&mut lab, 21), [22, 23], "not known yet");

        // More links than the map holds: no error, and what does not fit is kept.
        let many: BTreeSet<u32> = known.iter().copied().chain(1_000_000..1_065_536).collect();
        lab.sensors.set_links(&many).unwrap();
        lab.sensors.set_link(b0, true).unwrap();
        assert_eq!(destinations(&mut lab, 31), [32, 33], "no room for it");
        lab.sensors.set_links(&known.into_iter().chain([b0]).collect()).unwrap();
        assert!(destinations(&mut lab, 41).is_empty(), "room again");
    });
}

#[test]
fn routes_with_64_legs_arrive_whole() {
    in_namespace(|| {
        let mut lab = Lab::open();
        for (family, prefix, via) in [("-4", "10.56.0.0/16", "10.9.0."), ("-6", "fd56::/64", "fd09::")] {
            let legs: Vec<String> =
                (2..66).map(|n| format!("nexthop via {via}{n} dev a0 weight {n}")).collect();
            ip(&format!("{family} route add {prefix} {}", legs.join(" ")));
            lab.settle();
            ip(&format!("{family} route del {prefix}"));
            lab.settle();
            for kind in [ADD, DEL] {
                let whole = lab.seen.iter().filter(|seen| seen.kind() == kind && seen.legs() == 64);
                assert_eq!(whole.count(), 1, "{family} type {kind}");
            }
            assert!(lab.seen.iter().all(|seen| seen.bytes.len() == seen.whole_len));
            lab.seen.clear();
        }
        assert_eq!(lab.sensors.lost(), Lost::default());
    });
}

#[test]
fn ten_thousand_deletions_at_once_lose_nothing() {
    in_namespace(|| {
        let mut lab = Lab::open();
        for (family, route) in [("-4", "10.100"), ("-6", "fd57")] {
            let line = |verb: &str, n: u32| match family {
                "-4" => format!("route {verb} {route}.{}.{}/32 dev a0 proto 17\n", n / 256, n % 256),
                _ => format!("route {verb} {route}::{n:x}/128 dev a0 proto 17\n"),
            };
            for (verb, kind) in [("add", ADD), ("del", DEL)] {
                let file = tempfile::NamedTempFile::new().unwrap();
                let lines: String = (0..10_000).map(|n| line(verb, n)).collect();
                std::fs::write(file.path(), lines).unwrap();
                let started = Instant::now();
                run("ip", &[family, "-batch", file.path().to_str().unwrap()]);
                let took = started.elapsed();
                // Nobody has read the ring meanwhile.
                let processes = lab.processes.len();
                lab.seen.clear();
                lab.settle();
                assert_eq!(lab.seen.iter().filter(|seen| seen.kind() == kind).count(), 10_000);
                // Its own, and those of ancestors that were not told about before.
                assert!(lab.processes.len() - processes <= 16, "one record a process");
                eprintln!("{family} {verb}: {took:?}");
            }
        }
        assert_eq!(lab.sensors.lost(), Lost::default());
    });
}

/// What the tap lets through to wake the daemon is the very message that the others get.
#[test]
fn who_listens_besides_gets_whole_messages() {
    in_namespace(|| {
        let listen = || {
            let mut socket = Socket::new(NETLINK_ROUTE).unwrap();
            socket.bind(&SocketAddr::new(0, 0)).unwrap();
            socket.set_non_blocking(true).unwrap();
            socket
        };
        // The kernel goes through them from the newest to the oldest, and gives the first the message itself.
        let (before, after) = (listen(), listen());
        let ipv4_routes = 7;
        before.add_membership(ipv4_routes).unwrap();
        let mut lab = Lab::open();
        lab.settle();
        let heard = |socket: &Socket| {
            std::iter::from_fn(|| socket.recv_from_full().ok())
                .map(|(bytes, _)| {
                    assert!(bytes.len() >= 16, "cut: {bytes:?}");
                    let said = u32::from_ne_bytes(bytes[..4].try_into().unwrap()) as usize;
                    assert_eq!(bytes.len(), said, "{bytes:?}");
                    u16::from_ne_bytes([bytes[4], bytes[5]])
                })
                .collect::<Vec<_>>()
        };
        heard(&before);
        let mut listening = vec![&before];
        for _ in 0..2 {
            ip("route add 10.59.1.0/24 dev a0");
            ip("route del 10.59.1.0/24 dev a0");
            let [socket, _] = lab.sensors.descriptors();
            assert!(is_readable(socket), "nothing was let through");
            for socket in &listening {
                assert_eq!(heard(socket), [ADD, DEL]);
            }
            lab.settle();
            after.add_membership(ipv4_routes).unwrap();
            listening.push(&after);
        }
        assert_eq!(lab.sensors.lost(), Lost::default());
    });
}

/// Whoever reads at the same time as it is written falls asleep between any two steps of that.
#[test]
fn no_wake_up_is_lost() {
    const ROUTES: usize = 20_000;
    in_namespace(|| {
        let mut lab = Lab::open();
        let file = tempfile::NamedTempFile::new().unwrap();
        let lines = ["route add 10.61.1.0/24 dev a0\n", "route del 10.61.1.0/24 dev a0\n"].concat();
        std::fs::write(file.path(), lines.repeat(ROUTES / 2)).unwrap();
        let mut ip = Command::new("ip").arg("-batch").arg(file.path()).spawn().unwrap();
        let (mut seen, mut sleeps) = (0, 0);
        while seen < ROUTES {
            // What wakes only the first time would do so for what came before.
            assert!(
                lab.wait(Duration::from_secs(20)),
                "asleep after {seen} of {ROUTES} messages and {sleeps} wake-ups"
            );
            sleeps += 1;
            lab.sensors.drain(usize::MAX, &mut |sensed| {
                seen += usize::from(matches!(sensed, Sensed::Message { .. }));
            });
            // To ask what was lost takes away nothing that wakes.
            assert_eq!(lab.sensors.lost(), Lost::default());
        }
        assert!(ip.wait().unwrap().success());
        eprintln!("{sleeps} wake-ups");
        assert!(sleeps > 10, "it never fell asleep");
        assert_eq!(lab.sensors.lost(), Lost::default());
    });
}

#[test]
fn a_full_ring_counts_what_it_loses() {
    in_namespace(|| {
        let mut lab = Lab::open_with(&Options { ring_bytes: 4096, ..sensor_lab::everything() });
        for n in 0..40 {
            ip(&format!("route add 10.58.{n}.0/24 dev a0"));
        }
        lab.settle();
        let lost = lab.sensors.lost();
        assert!(lost.messages > 0, "{lost:?}");
        let seen =
            lab.seen.iter().filter(|seen| seen.kind() == ADD && seen.destination()[..2] == [10, 58]).count();
        assert_eq!(seen as u64 + lost.messages, 40, "each is seen or counted: {lost:?}");
    });
}

/// What a socket may have attached to it is little before 6.8, and an administrator may make it less.
#[test]
fn the_programs_fit_the_memory_of_a_socket() {
    in_namespace(|| {
        let bound = "/proc/sys/net/core/optmem_max";
        if !Path::new(bound).exists() {
            // One bound for all namespaces, which is no test's to change: what fits is what the other tests run with.
            assert!(!sensor_lab::is_since((6, 8)), "no {bound}");
            return;
        }
        std::fs::write(bound, "20480").unwrap();
        // With diagnostics, which are code.
        let status = Sensors::open(&Options { debug: true, ..sensor_lab::everything() }).unwrap().status();
        let identity = status.iter().find(|sensor| sensor.name == "identity").unwrap();
        assert!(identity.attached && identity.why.is_none(), "{identity:?}");
        std::fs::write(bound, "4096").unwrap();
        let refused = Sensors::open(&sensor_lab::everything()).err().map(|error| error.to_string());
        assert!(refused.as_ref().is_some_and(|why| why.contains("optmem_max")), "{refused:?}");
    });
}

#[test]
fn every_sensor_works_here() {
    in_namespace(|| {
        // With diagnostics, which are code that is otherwise dead.
        let lab = Lab::open_with(&Options { debug: true, ..sensor_lab::everything() });
        let status = lab.sensors.status();
        let names: Vec<_> = status.iter().map(|sensor| sensor.name).collect();
        assert_eq!(
            names,
            [
                "tap",
                "identity",
                "interrupt",
                "fork",
                "exec",
                "exit",
                "extack",
                "processes",
                "lookups",
                "cable",
                "fib"
            ]
        );
        // Of lookups and cables it says when they are attached, of the FIB hooks by what means.
        let fine = |sensor: &SensorStatus| sensor.why.is_none() || matches!(sensor.name, "lookups" | "cable");
        let there = |sensor: &SensorStatus| {
            sensor.name != "fib" && (sensor.name != "extack" || sensor_lab::says_why_it_refuses())
        };
        let others = || status.iter().filter(|sensor| there(sensor));
        assert!(others().all(|sensor| sensor.attached && fine(sensor)), "{status:?}");
        assert_eq!(
            lab.sensors.process(std::process::id()).unwrap().exe.as_deref(),
            Path::new("/proc/self/exe").read_link().unwrap().to_str()
        );
    });
}

/// The kernel says why it refuses something to this process, and not what it says to others.
#[test]
fn the_kernels_words_for_a_refusal() {
    in_namespace(|| {
        let lab = Lab::open();
        let refused = Route {
            key: RouteKey {
                table: rt::TABLE_MAIN,
                dst: "10.77.0.0/16".parse().unwrap(),
                src: None,
                tos: 0,
                metric: 0,
            },
            protocol: 17,
            scope: rt::SCOPE_UNIVERSE,
            kind: rt::RTN_UNICAST,
            flags: 0,
            expires: false,
            legs: vec![Leg {
                oif: 0,
                attributes: vec![Attribute { kind: rt::RTA_GATEWAY, value: [192, 0, 2, 1].into() }],
                ..Leg::default()
            }],
            attributes: vec![],
        };
        let by_another =
            Command::new("ip").args(["route", "add", "10.77.0.0/16", "via", "192.0.2.1"]).output();
        assert!(!by_another.unwrap().status.success());
        assert_eq!(lab.sensors.words(Stamp(0)), None, "said to somebody else");
        let before = now();
        let applied = Executor::open().unwrap().apply(&[Action::Add(refused.into())]);
        let [Applied::Refused { message: Some(message), .. }] = applied.as_slice() else {
            panic!("{applied:?}")
        };
        let said = lab.sensors.words(before);
        assert_eq!(said.as_ref(), sensor_lab::says_why_it_refuses().then_some(message));
        assert_eq!(lab.sensors.words(now()), None, "nothing since");
    });
}

#[test]
fn nothing_happens_when_nothing_changes() {
    in_namespace(|| {
        let lab = Lab::open();
        run("true", &[]);
        assert!(!lab.wait(Duration::from_millis(300)), "a process that changes nothing wakes nobody");
    });
}

/// Not an assertion but a measurement: from the kernel's stamp to user space, one deletion at a time.
#[test]
fn latency() {
    in_namespace(|| {
        let mut lab = Lab::open();
        let mut micros: Vec<u128> = (0..200)
            .map(|n| {
                ip(&format!("route add 10.60.{n}.0/24 dev a0"));
                lab.settle_for(Duration::from_millis(1));
                let remover = std::thread::spawn(move || {
                    sensor_lab::self_forked(move || netlink::delete([10, 60, n, 0], 24));
                });
                while !lab.seen.iter().any(|seen| seen.kind() == DEL) {
                    lab.wait(Duration::from_secs(1));
                    lab.drain();
                }
                remover.join().unwrap();
                let took = lab.seen.iter().find(|seen| seen.kind() == DEL).unwrap().delay.as_nanos() / 1000;
                lab.seen.clear();
                took
            })
            .collect();
        micros.sort_unstable();
        eprintln!(
            "latency in µs: p50 {} p90 {} p99 {} max {}",
            micros[100], micros[180], micros[198], micros[199]
        );
    });
}

#[test]
#[ignore = "started by other tests: a program that deletes with netlink"]
fn client_netlink() {
    netlink::delete(client(), 24);
}

#[test]
#[ignore = "started by other tests: a program that deletes with an ioctl"]
fn client_ioctl() {
    netlink::delete_by_ioctl(client(), 24);
}

#[test]
#[ignore = "started by other tests: a program that deletes while it computes"]
fn client_io_uring() {
    netlink::delete_by_io_uring(client(), 24);
}

#[test]
#[ignore = "started by other tests: a grandchild without an exec"]
fn client_child_by_fork() {
    let destination = client();
    sensor_lab::self_forked(move || {
        sensor_lab::self_forked(move || netlink::delete(destination, 24));
    });
}

#[test]
#[ignore = "started by other tests: holds a tun device"]
fn client_tun() {
    netlink::hold_tun(&std::env::var("CLIENT_ARG").unwrap());
}

#[test]
#[ignore = "started by other tests: computes until it is ended, or for two minutes"]
fn client_busy() {
    let started = Instant::now();
    // No system call: the clock is read without one.
    while started.elapsed() < Duration::from_secs(120) {
        std::hint::spin_loop();
    }
}
