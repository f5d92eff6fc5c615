//! Modes, limits of the scope, signals.

use std::{fs, process::Command, thread, time::Duration};

use anyhow::Result;
use lab::{Lab, netlink, slowness, wait_for};

const SOON: Duration = Duration::from_secs(3);

#[test]
fn observe_touches_nothing() -> Result<()> {
    let lab = Lab::node()?;
    let guardian = lab.guardian().args("--mode observe").start()?;
    lab.ip("route del 10.244.2.0/24")?;
    lab.ip("route replace 10.244.3.0/24 via 10.0.0.66")?;
    let after = lab.routes()?;
    for key in ["10.244.2.0/24", "10.244.3.0/24"] {
        let event = guardian.event(key, |e| e.key() == key)?;
        assert_eq!(event.outcome(), "observed", "{event}");
        assert_eq!(event.text("/actor/confidence"), "exact", "{event}");
    }
    thread::sleep(Duration::from_millis(500));
    assert_eq!(after, lab.routes()?);
    let metrics = guardian.metrics()?;
    assert_eq!(metrics.sum("mode", &["mode=\"observe\""]), Some(1.0), "{}", metrics.0);
    assert_eq!(metrics.sum("restores_total", &["outcome=\"restored\""]), Some(0.0), "{}", metrics.0);
    // `diff` says what is missing, `restore --dry-run` what would be done.
    let diff = guardian.ask("diff")?;
    assert_eq!(diff.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&diff.stdout).contains("10.244.2.0/24"));
    let plan = guardian.answer("restore --dry-run")?;
    assert!(plan.contains("10.244.2.0/24"), "{plan}");
    assert_eq!(after, lab.routes()?);
    Ok(())
}

#[test]
fn without_bpf_it_restores_and_says_that_it_is_degraded() -> Result<()> {
    let lab = Lab::node()?;
    let before = lab.routes()?;
    // Longer than it takes to look.
    let settle = 300 * slowness();
    let text = format!("\"{settle}ms\"");
    let guardian = lab.guardian().args("--no-bpf").set("restore.settle", &text).start()?;
    lab.ip("route del 10.244.2.0/24")?;
    lab.ip("-6 route del fd00:244:2::/64")?;
    // Not before the settle time: an owner's delete-and-add would be taken for a loss.
    assert!(!lab.shows("route show 10.244.2.0/24")?);
    wait_for("the routes", SOON, || Ok(lab.routes()? == before))?;
    let event = guardian.event("the record", |e| e.key() == "10.244.2.0/24" && e.outcome() == "restored")?;
    assert_eq!(event.text("/actor/confidence"), "none", "{event}");
    assert_eq!(event.text("/verdict"), "unknown", "{event}");
    assert!(event.number("/outage_us").is_some_and(|us| us >= u64::from(settle) * 1000), "{event}");
    let status = guardian.ask("status")?;
    let text = String::from_utf8_lossy(&status.stdout).into_owned();
    assert_eq!(status.status.code(), Some(1), "{text}");
    assert!(text.contains("DEGRADED") && text.contains("no actor can be named"), "{text}");
    Ok(())
}

/// The kernel says nothing of its types: whoever holds the socket of a request is named, where it still does, and never
/// more than partly.
#[test]
fn without_type_information_the_holder_of_the_socket_is_named() -> Result<()> {
    let lab = Lab::node()?;
    let before = lab.routes()?;
    let hidden = lab.dir().join("hidden");
    fs::write(&hidden, "mount -t tmpfs none /sys/kernel/btf && exec \"$@\"\n")?;
    let through = format!("unshare --mount sh {}", hidden.display());
    let guardian = lab.guardian().through(&through).set("restore.settle", "\"300ms\"").start()?;
    let text = String::from_utf8_lossy(&guardian.ask("status")?.stdout).into_owned();
    assert!(text.contains("DEGRADED") && text.contains("/sys/kernel/btf/vmlinux"), "{text}");
    // It stays open.
    let mut client = netlink::Client::open()?;
    client.delete(netlink::Key::main("10.244.3.0".parse()?, 24))?;
    wait_for("the routes", SOON, || Ok(lab.routes()? == before))?;
    let event = guardian.event("the record", |e| e.key() == "10.244.3.0/24" && e.outcome() == "restored")?;
    assert_eq!(event.number("/actor/pid"), Some(std::process::id().into()), "{event}");
    let exe = std::env::current_exe()?;
    assert_eq!(event.text("/actor/exe"), exe.to_string_lossy(), "{event}");
    assert_eq!((event.text("/actor/confidence"), event.text("/verdict")), ("partial", "foreign"), "{event}");
    for event in guardian.events()? {
        assert_ne!(event.text("/actor/confidence"), "exact", "{event}");
    }
    drop(client);
    Ok(())
}

#[test]
fn what_is_not_in_scope_is_never_touched() -> Result<()> {
    let lab = Lab::node()?;
    lab.ip("route add 192.0.2.0/24 via 10.0.0.11 proto static")?;
    lab.ip("-6 route add 2001:db8::/64 via fd00:10::11 proto static")?;
    let guardian = lab.guardian().set("scope.exclude", "[\"10.244.9.0/24\"]").start()?;
    lab.ip("route add 10.244.9.0/24 via 10.0.0.11 proto 17")?;
    for route in ["192.0.2.0/24", "2001:db8::/64", "10.244.9.0/24"] {
        lab.ip(&format!("route del {route}"))?;
    }
    // Once this one is back, the guardian has seen those before it.
    lab.ip("route del 10.244.2.0/24")?;
    guardian.event("the record", |e| e.key() == "10.244.2.0/24" && e.outcome() == "restored")?;
    assert_eq!(guardian.events()?.len(), 1);
    assert!(!lab.shows("route show 192.0.2.0/24")?);
    assert!(!lab.shows("-6 route show 2001:db8::/64")?);
    assert!(!lab.shows("route show 10.244.9.0/24")?);
    Ok(())
}

#[test]
fn a_status_that_is_fine() -> Result<()> {
    let lab = Lab::node()?;
    let guardian = lab.guardian().start()?;
    let status = guardian.ask("status")?;
    assert_eq!(status.status.code(), Some(0), "{}", String::from_utf8_lossy(&status.stdout));
    assert_eq!(guardian.get("/healthz")?.0, 200);
    // Exit status 0: nothing differs.
    guardian.answer("diff")?;
    let metrics = guardian.metrics()?;
    assert!(
        metrics.sum("protected_objects", &["object=\"route\""]).is_some_and(|n| n >= 8.0),
        "{}",
        metrics.0
    );
    for counter in ["deletions_total", "restores_total", "events_lost_total", "failed_lookups_total"] {
        assert_eq!(metrics.sum(counter, &[]), Some(0.0), "every series exists from the start: {}", metrics.0);
    }
    Ok(())
}

#[test]
fn prometheus_has_nothing_to_say_about_the_metrics() -> Result<()> {
    let lab = Lab::node()?;
    let guardian = lab.guardian().start()?;
    lab.ip("route del 10.244.2.0/24")?;
    guardian.event("the record", |e| e.outcome() == "restored")?;
    let file = lab.dir().join("metrics");
    fs::write(&file, guardian.metrics()?.0)?;
    let output =
        Command::new("promtool").args(["check", "metrics"]).stdin(fs::File::open(&file)?).output()?;
    let said = [output.stdout, output.stderr].map(|s| String::from_utf8_lossy(&s).into_owned()).concat();
    assert!(output.status.success() && said.trim().is_empty(), "{said}");
    Ok(())
}

#[test]
fn a_status_when_it_does_not_run() -> Result<()> {
    let lab = Lab::node()?;
    let status = Command::new(lab::binary())
        .args(["status", "--socket"])
        .arg(lab.dir().join("nobody.sock"))
        .output()?;
    assert_eq!(status.status.code(), Some(3), "{}", String::from_utf8_lossy(&status.stderr));
    Ok(())
}

#[test]
fn sigterm_leaves_the_routes_alone() -> Result<()> {
    let lab = Lab::node()?;
    let before = lab.routes()?;
    let guardian = lab.guardian().start()?;
    lab.ip("route del 10.244.2.0/24")?;
    wait_for("the route", SOON, || Ok(lab.routes()? == before))?;
    let status = guardian.stop()?;
    assert!(status.success(), "{status}");
    assert_eq!(before, lab.routes()?);
    Ok(())
}

#[test]
fn a_second_start_in_the_same_boot_adopts_what_is_there() -> Result<()> {
    let lab = Lab::node()?;
    lab.guardian().start()?.stop()?;
    lab.ip("route del 10.244.2.0/24")?;
    let after = lab.routes()?;
    let guardian = lab.guardian().start()?;
    lab.ip("route del 10.244.3.0/24")?;
    guardian.event("the record", |e| e.key() == "10.244.3.0/24" && e.outcome() == "restored")?;
    assert_eq!(after, lab.routes()?);
    Ok(())
}

#[test]
fn sighup_with_a_broken_configuration_keeps_the_last_good_one() -> Result<()> {
    let lab = Lab::node()?;
    let before = lab.routes()?;
    let mut guardian = lab.guardian().start()?;
    let good = fs::read_to_string(guardian.config())?;
    let reloaded = |guardian: &lab::Guardian, to: f64| {
        wait_for("the reload", SOON, || {
            Ok(guardian.metrics()?.sum("config_last_reload_successful", &[]) == Some(to))
        })
    };
    reloaded(&guardian, 1.0)?;
    fs::write(guardian.config(), "mode = \"observe\"\nsettle = ")?;
    guardian.signal(libc::SIGHUP)?;
    reloaded(&guardian, 0.0)?;
    // Log and status say why.
    let why = format!("{}:2: not TOML: ", guardian.config().display());
    let status = guardian.status()?;
    assert_eq!(status["mode"], "restore", "{status}");
    assert!(status["degraded"][0].as_str().is_some_and(|words| words.contains(&why)), "{status}");
    let log = guardian.log();
    assert!(log.contains(&format!("the configuration in use is kept: {why}")), "{log}");
    lab.ip("route del 10.244.2.0/24")?;
    wait_for("the route", SOON, || Ok(lab.routes()? == before))?;

    fs::write(guardian.config(), format!("mode = \"observe\"\n{good}"))?;
    guardian.signal(libc::SIGHUP)?;
    reloaded(&guardian, 1.0)?;
    assert_eq!(guardian.status()?["degraded"], serde_json::json!([]));
    lab.ip("route del 10.244.2.0/24")?;
    guardian.event("the record", |e| e.outcome() == "observed")?;
    assert!(!lab.shows("route show 10.244.2.0/24")?);
    Ok(())
}
