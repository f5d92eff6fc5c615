//! The guardian as the unit that it is shipped as, under systemd as the first process of a machine.

use std::{fs, path::Path};

use anyhow::{Context as _, Result};
use lab::wait_for;

use crate::rig::{Rig, SLOW, Setup, guardian, guards, ip, run, state, systemctl};

const CONFIG: &str = "/etc/route-guardian/config.toml";
const DROP_IN: &str = "/run/systemd/system/route-guardian.service.d";
const ROUTE: &str = "10.244.3.0/24";

/// What systemd said when the machine had started, before anything was done to it.
const AT_BOOT: &str = "/run/at-boot";

/// A property of a unit.
fn property(unit: &str, name: &str) -> Result<String> {
    let output = std::process::Command::new("systemctl")
        .args(["show", "--value", &format!("--property={name}"), unit])
        .output()?;
    Ok(String::from_utf8_lossy(&output.stdout).trim().to_owned())
}

/// The pid of a guardian that guards, and is another than `before`.
fn another(before: &str) -> Result<String> {
    let mut pid = String::new();
    wait_for("another guardian", SLOW, || {
        pid = property("route-guardian", "MainPID")?;
        Ok(pid != before && pid != "0" && property("route-guardian", "ActiveState")? == "active")
    })?;
    Ok(pid)
}

/// A route goes, and comes back.
fn restores() -> Result<()> {
    let before = state()?;
    ip(&format!("route del {ROUTE}"))?;
    wait_for("the route to come back", SLOW, || Ok(state()? == before))
}

/// At the start of a machine where both are enabled, the guardian is ready before systemd-networkd is started.
#[test]
fn a_boot() -> Result<()> {
    let said = fs::read_to_string(AT_BOOT).context("this is for a guest: `cargo xtask vm --node`")?;
    let when = |key: &str| -> Result<u64> {
        let value = said.lines().find_map(|line| line.strip_prefix(key));
        value.with_context(|| format!("no {key} in\n{said}"))?.parse().context(said.clone())
    };
    let ready = when("guardian ")?;
    let networkd = when("networkd ")?;
    println!("after {ready} us the guardian was ready, after {networkd} us networkd was started");
    assert!(ready > 0 && ready < networkd, "{said}");
    Ok(())
}

/// It takes a changed configuration, keeps the last good one, and is there again when it was killed, or hangs.
#[test]
fn its_life() -> Result<()> {
    let _rig = Rig::new(Setup::Static)?;
    fs::create_dir_all(DROP_IN)?;
    fs::write(Path::new(DROP_IN).join("shorter.conf"), "[Service]\nWatchdogSec=20s\n")?;
    systemctl("daemon-reload")?;
    guardian()?;
    assert_eq!(property("route-guardian", "WatchdogUSec")?, "20s");
    restores()?;
    let pid = property("route-guardian", "MainPID")?;

    fs::create_dir_all("/etc/route-guardian")?;
    for (text, word) in [("mode = \"observe\"\n", "mode observe"), ("mode = \"sleep\"\n", "mode observe")] {
        fs::write(CONFIG, text)?;
        systemctl("reload route-guardian")?;
        wait_for(word, SLOW, || Ok(property("route-guardian", "StatusText")?.contains(word)))?;
    }
    fs::remove_file(CONFIG)?;
    systemctl("reload route-guardian")?;
    wait_for("the reload", SLOW, || Ok(property("route-guardian", "StatusText")?.contains("mode restore")))?;
    assert_eq!(property("route-guardian", "MainPID")?, pid, "a reload is no restart");
    restores()?;

    run("kill", &format!("-KILL {pid}"))?;
    let pid = another(&pid)?;
    guards()?;
    restores()?;
    run("kill", &format!("-STOP {pid}"))?;
    another(&pid)?;
    guards()?;
    assert_eq!(property("route-guardian", "NRestarts")?, "2", "killed, and hung: the watchdog");
    restores()?;

    fs::remove_dir_all(DROP_IN)?;
    systemctl("daemon-reload")
}
