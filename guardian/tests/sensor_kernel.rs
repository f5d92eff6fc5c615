//! What a kernel's own functions give, where it lets them be hooked; and a line that says what this kernel gives at all.
//!
//! As the other tests of sensors they need root and `ip`. `cargo xtask kernels` runs this on all of Debian's kernels.

mod sensor_lab;

use std::{collections::BTreeSet, process::Command};

use route_guardian::{
    model::route::rt,
    sensor::{KernelScope, Lost, Options},
};
use sensor_lab::{DEL, Lab, in_namespace, ip, is_named, now, run};

/// Whether this kernel takes the FIB hooks. Those that clusters run do.
fn has_fib_hooks(lab: &Lab) -> bool {
    let fib = lab.sensors.status().into_iter().find(|sensor| sensor.name == "fib").expect("the sensor fib");
    let version = std::fs::read_to_string("/proc/version").expect("/proc/version");
    println!("sensor fib attached: {}, {:?}, on {version}", fib.attached, fib.why);
    assert!(fib.attached || !version.contains("debian-kernel"), "{fib:?} on {version}");
    fib.attached
}

#[test]
fn each_route_that_falls_in_silence_is_told_once() {
    each_falls_once(true);
}

/// The same by breakpoints, for kernels without trampolines.
#[test]
fn each_route_that_falls_in_silence_is_told_once_by_kprobes() {
    each_falls_once(false);
}

fn each_falls_once(trampolines: bool) {
    const ROUTES: u32 = 10_000;
    in_namespace(move || {
        let ring_bytes = 16 << 20;
        let mut lab = Lab::open_with(&Options { ring_bytes, trampolines, ..sensor_lab::everything() });
        let hooks = has_fib_hooks(&lab);
        let dir = tempfile::tempdir().unwrap();
        let batch = dir.path().join("routes");
        let line =
            |n: u32| format!("route add 10.{}.{}.0/24 dev a0 proto 17 metric 7\n", 60 + n / 256, n % 256);
        std::fs::write(&batch, (0..ROUTES).map(line).collect::<String>()).unwrap();
        ip(&format!("-batch {}", batch.display()));
        lab.settle();
        lab.seen.clear();
        lab.fallen.clear();
        ip("link set a0 down");
        lab.settle();
        assert_eq!(lab.sensors.lost(), Lost::default());
        let mut told: Vec<String> = lab
            .fallen
            .iter()
            .filter(|(_, route)| route.protocol == 17)
            .map(|(_, route)| route.key.dst.to_string())
            .collect();
        if !hooks {
            assert!(told.is_empty(), "{told:?}");
            return;
        }
        assert_eq!(told.len(), ROUTES as usize);
        told.sort();
        told.dedup();
        assert_eq!(told.len(), ROUTES as usize, "each once");
        for (task, route) in lab.fallen.iter().filter(|(_, route)| route.protocol == 17) {
            assert!(task.known && is_named(task, "ip") && !task.own, "{task:?}");
            assert_eq!((route.key.table, route.key.metric, route.key.tos), (254, 7, 0));
            assert_eq!((route.kind, route.scope, route.key.dst.len()), (rt::RTN_UNICAST, 253, 24));
        }
        let (task, _) = &lab.fallen[0];
        assert_eq!(lab.process_of(task).argv, ["ip", "link", "set", "a0", "down"]);
        // The connected route and its address's own go as well.
        assert!(lab.fallen.iter().any(|(_, route)| route.key.dst.to_string() == "10.9.0.0/24"));
    });
}

/// What is deleted on request is announced, and told by that alone; so is what is out of scope by nothing.
#[test]
fn what_does_not_fall_in_silence_is_not_told_to_fall() {
    in_namespace(|| {
        let mut lab = Lab::open_with(&Options {
            scope: KernelScope { protocols: vec![17], tables: vec![77] },
            ..sensor_lab::everything()
        });
        let hooks = has_fib_hooks(&lab);
        lab.sensors.set_links(&BTreeSet::from([sensor_lab::ifindex("a0")])).unwrap();
        for route in [
            "10.60.1.0/24 proto 17",
            "10.60.2.0/24 proto 4",
            "10.60.3.0/24 proto 4 table 77",
            "10.60.4.0/24 proto 17 tos 8",
        ] {
            ip(&format!("route add {route} dev a0"));
        }
        ip("route del 10.60.1.0/24 dev a0");
        lab.settle();
        assert!(lab.fallen.is_empty(), "{:?}", lab.fallen);
        ip("addr del 10.9.0.1/24 dev a0");
        lab.settle();
        let mut told: Vec<(String, u32, u8)> = lab
            .fallen
            .iter()
            .map(|(_, route)| (route.key.dst.to_string(), route.key.table, route.key.tos))
            .collect();
        told.sort();
        let expected = [("10.60.3.0/24".to_owned(), 77, 0), ("10.60.4.0/24".to_owned(), 254, 8)];
        assert_eq!(told, if hooks { expected.to_vec() } else { vec![] });
    });
}

/// One line for the table of kernels: what was tried here, and what came of it.
#[test]
fn what_this_kernel_gives() {
    in_namespace(|| {
        let mut lab = Lab::open();
        let release = std::fs::read_to_string("/proc/sys/kernel/osrelease").unwrap();
        let status = lab.sensors.status();
        let sensor = |name: &str| status.iter().find(|sensor| sensor.name == name).unwrap();
        let works = |name: &str| if sensor(name).attached { "yes" } else { "no" };

        ip("route add 10.50.1.0/24 dev a0 proto 17");
        lab.settle();
        run("sh", &["-c", "ip route del 10.50.1.0/24 dev a0; true"]);
        lab.settle();
        let task = lab.message(DEL, [10, 50, 1, 0]).task.clone();
        let process = lab.processes.iter().rfind(|process| process.id == task.id).cloned();
        let named =
            process.as_ref().is_some_and(|p| p.exe.is_some() && p.argv.len() == 6 && p.parent.is_some());

        let before = now();
        let refused = Command::new("ip").args(["route", "add", "10.77.0.0/16", "via", "192.0.2.1"]).output();
        assert!(!refused.unwrap().status.success());
        assert_eq!(lab.sensors.words(before), None, "said to somebody else");

        ip("route add 10.50.2.0/24 dev a0 proto 17");
        lab.settle();
        lab.fallen.clear();
        ip("link set a0 down");
        lab.settle();
        let silent = lab.fallen.iter().find(|(_, route)| route.key.dst.to_string() == "10.50.2.0/24");
        let silent = match (silent, sensor("fib")) {
            (Some((task, _)), fib) if task.known => {
                let by = fib.why.as_deref().unwrap_or_default().split(' ').nth(1).unwrap_or("?").to_owned();
                format!("at once, named ({by})")
            }
            _ => "by reading again, named by the cause".to_owned(),
        };
        let request = if named {
            "exact"
        } else if task.known {
            "in part"
        } else {
            "not named"
        };
        println!(
            "\nkernel: {} | {request} | {silent} | {} | {} | {} | {}",
            release.trim(),
            works("interrupt"),
            works("extack"),
            works("lookups"),
            works("cable"),
        );
        assert!(named, "{task:?} {process:?}");
    });
}
