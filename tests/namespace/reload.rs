//! What a SIGHUP takes up and what it leaves to the next start: what `config show --explain` says of each key.

use std::{collections::BTreeSet, fs, path::Path, process::Command, thread, time::Duration};

use anyhow::{Result, ensure};
use lab::{Guardian, Lab, NODE, wait_for};

const SOON: Duration = Duration::from_secs(5);

/// The keys of which it is said that they take a restart, or do not.
fn keys(restart: bool) -> Result<BTreeSet<String>> {
    let output = Command::new(lab::binary())
        .args(["config", "show", "--explain", "--config", "/dev/null"])
        .output()?;
    let shown = String::from_utf8(output.stdout)?;
    let (mut keys, mut section, mut about) = (BTreeSet::new(), String::new(), String::new());
    for line in shown.lines() {
        if let Some(comment) = line.strip_prefix('#') {
            about += comment;
        } else if let Some(name) = line.strip_prefix('[') {
            section = name.replace(']', ".");
            about.clear();
        } else if let Some((key, _)) = line.split_once(" = ") {
            if about.ends_with("Takes a restart.") == restart {
                keys.insert(format!("{section}{key}"));
            }
            about.clear();
        }
    }
    ensure!(!keys.is_empty(), "{shown}");
    Ok(keys)
}

/// Has it read its configuration again, with these lines over those that it had.
pub fn reload(guardian: &mut Guardian, lines: &str) -> Result<()> {
    let name = |line: &str| line.split(" = ").next().unwrap_or_default().to_owned();
    let replaced: BTreeSet<String> = lines.lines().map(name).collect();
    let before = fs::read_to_string(guardian.config())?;
    let kept = before.lines().filter(|line| !replaced.contains(&name(line)));
    read_again(guardian, &lines.lines().chain(kept).collect::<Vec<_>>().join("\n"))
}

/// Has this as its configuration.
fn read_again(guardian: &mut Guardian, config: &str) -> Result<()> {
    let times = |guardian: &Guardian| guardian.log().matches("configuration read again").count();
    let before = times(guardian);
    fs::write(guardian.config(), config)?;
    guardian.signal(libc::SIGHUP)?;
    wait_for("the reload", SOON, || Ok(times(guardian) > before))
}

/// What is to come of a route's deletion after the reload.
enum Then {
    /// A record with this outcome.
    Told(&'static str),
    /// Nothing: it is none of the guardian's business.
    Ignored,
}
use Then::{Ignored, Told};

/// One key with its new value; a route that is made before, if it is not there anyway; who deletes it; and then.
type Case<'a> = (&'a str, String, &'a str, &'a str, Then);

#[test]
fn it_takes_up_every_key_that_takes_no_restart() -> Result<()> {
    let ip = format!("[{:?}]", lab::program("ip")?);
    let text = str::to_owned;
    let (route, other) = ("10.244.2.0/24", "192.0.2.0/24");
    let cases: Vec<Case<'_>> = vec![
        ("mode", text("\"observe\""), route, "ip", Told("observed")),
        ("profile", text("\"flannel\""), route, "ip", Ignored),
        ("scope.links", text("[\"eth0\"]"), "192.0.2.0/24 via 10.0.0.11", "ip", Told("restored")),
        ("scope.protocols", text("[186]"), "192.0.2.0/24 via 10.0.0.11 proto 186", "ip", Told("restored")),
        ("scope.tables", text("[100]"), "192.0.2.0/24 via 10.0.0.11 table 100", "ip", Told("restored")),
        ("scope.exclude", text("[\"10.244.0.0/16\"]"), route, "ip", Ignored),
        ("owner.exe", ip, route, "ip", Told("allowed")),
        ("owner.cgroup", text("[\"*\"]"), route, "ip", Told("allowed")),
        ("owner.children", text("false"), route, "kube-router", Told("restored")),
    ];
    let mut tried: BTreeSet<String> = cases.iter().map(|case| case.0.to_owned()).collect();
    for (key, value, words, who, then) in cases {
        let lab = Lab::node()?;
        let owner = lab.copy("sh", "kube-router")?;
        let mut guardian = lab.guardian().start()?;
        let target = if words == route { route } else { other };
        if target == other {
            lab.ip(&format!("route add {words}"))?;
        }
        reload(&mut guardian, &format!("{key} = {value}"))?;
        let guarded = !matches!(then, Ignored);
        wait_for(key, SOON, || Ok(guardian.answer("snapshot")?.contains(target) == guarded))?;
        let line = format!("ip route del {words}; :");
        let shell = if who == "ip" { Path::new("sh") } else { &owner };
        ensure!(Command::new(shell).args(["-c", &line]).status()?.success(), "{key}: {line}");
        match then {
            Told(outcome) => drop(guardian.event(key, |e| e.key() == target && e.outcome() == outcome)?),
            Ignored => {
                thread::sleep(Duration::from_millis(300));
                ensure!(
                    guardian.events()?.is_empty() && !lab.shows(&format!("route show {target}"))?,
                    "{key}"
                );
            }
        }
    }

    let lab = Lab::node()?;
    let mut guardian = lab.guardian().start()?;
    ensure!(guardian.status()?["owner"]["held_from"].is_string(), "losses are held some day");
    let damping = "damping.burst = 1\ndamping.initial = \"1h\"\ndamping.max = \"2h\"";
    reload(&mut guardian, &format!("owner.absent_after = \"never\"\n{damping}"))?;
    ensure!(guardian.status()?["owner"]["held_from"].is_null(), "losses are never held");
    lab.ip("route del 10.244.2.0/24")?;
    wait_for("the route", SOON, || lab.shows("route show 10.244.2.0/24"))?;
    lab.ip("route del 10.244.2.0/24")?;
    guardian.event("the second loss", |e| e.outcome() == "held")?;
    let retry = guardian.status()?["held"][0]["retry_in_ms"].as_u64().unwrap_or_default();
    ensure!(retry > 3_500_000, "it waits for {retry} ms, and not for an hour");
    tried
        .extend(["owner.absent_after", "damping.burst", "damping.initial", "damping.max"].map(str::to_owned));

    let lab = Lab::node()?;
    let mut guardian = lab.guardian().args("--no-bpf").set("restore.settle", "\"1h\"").start()?;
    reload(&mut guardian, "restore.settle = \"100ms\"")?;
    lab.ip("route del 10.244.2.0/24")?;
    wait_for("the route", SOON, || lab.shows("route show 10.244.2.0/24"))?;
    tried.insert("restore.settle".into());

    let lab = Lab::node()?;
    let networkd = lab.copy("ip", "systemd-networkd")?;
    let mut guardian = lab.guardian().set("restore.lend", "\"never\"").start()?;
    // It sets the address again itself: what another has set is not lent.
    let command = |words: &str| -> Result<()> {
        let status = Command::new(&networkd).args(words.split_whitespace()).status()?;
        ensure!(status.success(), "{words}");
        Ok(())
    };
    let mut take = |then: &str| -> Result<bool> {
        command(&format!("addr del {NODE}/24 dev eth0"))?;
        guardian.event("a route by it", |e| e.key() == "10.244.2.0/24")?;
        let lent = lab.shows(&format!("-4 addr show dev eth0 to {NODE}/32"))?;
        command(&format!("addr replace {NODE}/24 dev eth0"))?;
        reload(&mut guardian, then)?;
        Ok(lent)
    };
    ensure!(!take("restore.lend = \"1m\"")?, "lent, though never");
    wait_for("the address to be lent", SOON, || take(""))?;
    tried.insert("restore.lend".into());

    assert_eq!(tried, keys(false)?);
    Ok(())
}

#[test]
fn it_names_every_key_that_takes_a_restart_and_goes_on_with_the_old_value() -> Result<()> {
    let lab = Lab::node()?;
    let mut guardian = lab.guardian().start()?;
    let first = fs::read_to_string(guardian.config())?;
    let elsewhere = lab.dir().join("elsewhere");
    let lines = [
        ("control.socket", format!("{:?}", elsewhere.join("control.sock"))),
        ("http.listen", "\"127.0.0.1:10954\"".into()),
        ("kubernetes.events", "true".into()),
        ("kubernetes.node", "\"node-7\"".into()),
        ("kubernetes.node_condition", "true".into()),
        ("kubernetes.server", "\"https://192.0.2.1:6443\"".into()),
        ("restore.on_start", "\"restore\"".into()),
        ("state.dir", format!("{elsewhere:?}")),
        ("state.journal_max", "\"1MiB\"".into()),
    ];
    assert_eq!(lines.iter().map(|(key, _)| (*key).to_owned()).collect::<BTreeSet<_>>(), keys(true)?);
    let text: Vec<String> = lines.iter().map(|(key, value)| format!("{key} = {value}")).collect();
    reload(&mut guardian, &text.join("\n"))?;
    let log = guardian.log();
    let said = log.lines().find(|line| line.contains("taken over at the next start")).unwrap_or_default();
    for (key, _) in &lines {
        ensure!(said.contains(key), "{key} is not named: {log}");
    }

    lab.ip("route del 10.244.2.0/24")?;
    wait_for("the route", SOON, || lab.shows("route show 10.244.2.0/24"))?;
    // Asks the old socket, and the old port.
    let restored = guardian.metrics()?.sum("restores_total", &["outcome=\"restored\""]);
    assert_eq!(restored, Some(1.0));
    let journal = guardian.state().join("events.jsonl");
    wait_for("the journal", SOON, || Ok(fs::read_to_string(&journal)?.contains("10.244.2.0/24")))?;
    ensure!(!elsewhere.exists(), "something is in the new folder already");

    // It is what the guardian was started with that counts: they still wait, and then not.
    let named = |guardian: &Guardian| guardian.log().matches("taken over at the next start").count();
    let second = fs::read_to_string(guardian.config())?;
    read_again(&mut guardian, &second)?;
    assert_eq!(named(&guardian), 2, "{}", guardian.log());
    read_again(&mut guardian, &first)?;
    assert_eq!(named(&guardian), 2, "{}", guardian.log());
    Ok(())
}
