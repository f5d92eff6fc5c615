//! The .deb on a clean Debian with systemd as its first process: the hardened unit does what it is for.

use std::time::Duration;

use anyhow::{Context as _, Result};
use lab::{cpus, wait_for};
use serde_json::Value;

use super::{debian::Debian, life::next, package};

const SOON: Duration = Duration::from_secs(30);
const FINE: &str = "guarding: profile kube-router, mode restore";
const ROUTE: &str = "10.244.2.0/24";

/// What kube-router makes of a node, in short.
const NODE: &str = "ip link add v0 type veth peer name v1 && ip link set v0 up && ip link set v1 up \
                    && ip route add 10.244.2.0/24 dev v0 proto 17";

impl Debian {
    /// A property of the unit.
    fn property(&self, name: &str) -> Result<String> {
        self.sh(&format!("systemctl show --property {name} --value route-guardian"))
    }

    /// Waits until another process than `before` guards.
    fn guards_anew(&self, before: &str) -> Result<String> {
        let mut pid = String::new();
        wait_for("another guardian", SOON, || {
            pid = self.property("MainPID")?;
            Ok(pid != before
                && self.property("StatusText")? == FINE
                && self.property("ActiveState")? == "active")
        })?;
        Ok(pid)
    }
}

/// Under all that the unit forbids it attaches its sensors, restores, names, and is of real-time priority.
#[test]
fn the_service_guards_under_its_hardening() -> Result<()> {
    let debian = Debian::booted()?;
    debian.sh(NODE)?;
    debian.install(&package("deb")?)?;
    // Started by the installation, and ready when that has ended.
    assert_eq!(debian.property("ActiveState")?, "active", "{}", debian.sh("journalctl -u route-guardian")?);
    assert_eq!(debian.property("StatusText")?, FINE, "{}", debian.sh("journalctl -u route-guardian")?);
    assert_ne!(debian.sh("stat -c %U /run/route-guardian/control.sock")?, "root");
    assert_eq!(debian.sh("stat -c %a /run/route-guardian/control.sock")?, "660");
    let pid = debian.property("MainPID")?;
    let warnings = debian.sh("journalctl -u route-guardian -p warning -q -o cat")?;
    let mut warnings: Vec<&str> = warnings.lines().collect();
    // As the tests are in a pid namespace, and so is the service.
    warnings.retain(|line| !line.contains("not in the initial pid namespace"));
    if debian.sh(&format!("grep 'realtime priority' /proc/{pid}/limits"))?.contains(" 1 ") {
        assert!(debian.sh(&format!("chrt --pid {pid}"))?.contains("SCHED_RR"), "{warnings:?}");
    } else {
        eprintln!(
            "not tested: the real-time priority. This machine lets nobody raise limits (CAP_SYS_RESOURCE)"
        );
        warnings.retain(|line| !line.contains("no priority for the guard thread"));
    }
    assert!(warnings.is_empty(), "{warnings:?}");

    // The process is gone when its record is written, the unit is not: what names it is the cgroup's id.
    let cleanup = format!(
        "[Service]\nType=oneshot\nExecStart=/usr/bin/ip route del {ROUTE}\n\
                           ExecStart=/usr/bin/sleep 1\n"
    );
    debian.put("/run/systemd/system/cleanup.service", cleanup.as_bytes())?;
    debian.sh("systemctl daemon-reload && systemctl start cleanup.service")?;
    let shown = || debian.sh(&format!("ip route show {ROUTE}"));
    wait_for("the route", SOON, || Ok(shown()?.contains("proto 17"))).with_context(|| {
        debian
            .sh("route-guardian status; route-guardian events -o json; journalctl -u route-guardian")
            .unwrap_or_default()
    })?;
    let mut record = Value::Null;
    wait_for("its record", SOON, || {
        let lines = debian.sh("route-guardian events -o json")?;
        record = lines.lines().last().map_or(Ok(Value::Null), serde_json::from_str)?;
        Ok(record["outcome"] == "restored")
    })?;
    assert_eq!(record["actor"]["exe"], "/usr/bin/ip", "{record:#}");
    assert_eq!(record["actor"]["unit"], "cleanup.service", "{record:#}");
    // More nobody can say of who is in a pid namespace.
    assert_eq!(record["actor"]["confidence"], "partial", "{record:#}");
    let status: Value = serde_json::from_slice(&debian.try_sh("route-guardian status -o json")?.stdout)?;
    let degraded = status["degraded"].as_array().map(Vec::as_slice).unwrap_or_default();
    let other = degraded.iter().find(|why| !why.to_string().contains("not in the initial pid namespace"));
    assert_eq!(other, None, "{status:#}");
    assert!(debian.holds("test -s /var/lib/route-guardian/desired.jsonl")?);

    // What it asks of the scheduler the filter of system calls lets it ask. Others may keep it from being there at once.
    let mut routes = (100..200).map(|n| format!("10.244.{n}.0/24"));
    for cpu in cpus()? {
        wait_for(&format!("the guard to sleep on CPU {cpu}"), SOON, || {
            let route = routes.next().context("enough tried")?;
            debian.sh(&format!("ip route add {route} dev v0 proto 17"))?;
            wait_for("it to be guarded", SOON, || {
                debian.holds(&format!("route-guardian snapshot | grep -q {route}"))
            })?;
            debian.sh(&format!("taskset -c {cpu} ip route del {route}; sleep 0.1"))?;
            Ok(debian.sh(&format!("cut -d ' ' -f 39 /proc/{pid}/stat"))? == cpu.to_string())
        })?;
    }
    Ok(())
}

#[test]
fn systemd_reloads_restarts_upgrades_and_removes_it() -> Result<()> {
    let debian = Debian::booted()?;
    debian.sh("mkdir -p /etc/systemd/system/route-guardian.service.d")?;
    let shorter = "[Service]\nWatchdogSec=5s\nRestartSec=100ms\n";
    debian.put("/etc/systemd/system/route-guardian.service.d/shorter.conf", shorter.as_bytes())?;
    debian.install(&package("deb")?)?;
    let pid = debian.property("MainPID")?;

    debian.sh(
        "echo 'mode = \"observe\"' > /etc/route-guardian/config.toml && systemctl reload route-guardian",
    )?;
    wait_for("the reload", SOON, || Ok(debian.property("StatusText")?.ends_with("mode observe")))?;
    debian.sh("echo '# mine' > /etc/route-guardian/config.toml && systemctl reload route-guardian")?;
    wait_for("the reload", SOON, || Ok(debian.property("StatusText")? == FINE))?;
    assert_eq!(debian.property("MainPID")?, pid, "a reload is no restart");

    debian.sh(&format!("kill -KILL {pid}"))?;
    let pid = debian.guards_anew(&pid)?;
    debian.sh(&format!("kill -STOP {pid}"))?;
    let pid = debian.guards_anew(&pid)?;
    assert_eq!(debian.property("NRestarts")?, "2", "killed, and hung: the watchdog");

    let dir = tempfile::tempdir()?;
    debian.install(&next(&dir)?)?;
    let pid = debian.guards_anew(&pid)?;
    assert_eq!(debian.sh("cat /etc/route-guardian/config.toml")?, "# mine");
    assert!(debian.holds(&format!("test -e /proc/{pid}"))?);

    debian.sh("dpkg --remove route-guardian")?;
    assert!(!debian.holds(&format!("test -e /proc/{pid}"))?, "it runs no more");
    assert!(debian.holds("test -e /etc/route-guardian/config.toml && test -d /var/lib/route-guardian/")?);
    debian.sh("dpkg --purge route-guardian")?;
    for left in ["/etc/route-guardian", "/var/lib/route-guardian", "/var/lib/private/route-guardian"] {
        assert!(!debian.holds(&format!("test -e {left} -o -L {left}"))?, "{left}");
    }
    Ok(())
}
