//! Who owns the routes may change them, and the guardian follows; who merely says so may not.

use std::{path::Path, process::Command, thread, time::Duration};

use anyhow::{Result, ensure};
use lab::{Guardian, Lab, wait_for};

const SOON: Duration = Duration::from_secs(3);

fn run(program: &Path, args: &[&str]) -> Result<()> {
    let status = Command::new(program).args(args).status()?;
    ensure!(status.success(), "{} {args:?}: {status}", program.display());
    Ok(())
}

/// Waits for a record about `key` that says the owner did it and was obeyed.
fn allowed(guardian: &Guardian, key: &str, change: &str) -> Result<()> {
    let event =
        guardian.event(key, |e| e.key() == key && e.text("/change") == change && e.outcome() == "allowed")?;
    assert_eq!(event.text("/verdict"), "owner", "{event}");
    Ok(())
}

fn via(lab: &Lab, gateway: &str) -> Result<bool> {
    Ok(lab.ip("route show 10.244.2.0/24")?.contains(&format!("via {gateway} ")))
}

#[test]
fn the_owner_may_delete_add_and_replace() -> Result<()> {
    let lab = Lab::node()?;
    let kube_router = lab.copy("ip", "kube-router")?;
    let guardian = lab.guardian().owner(&[&kube_router]).start()?;

    run(&kube_router, &["route", "del", "10.244.2.0/24"])?;
    allowed(&guardian, "10.244.2.0/24", "deleted")?;
    assert!(!lab.shows("route show 10.244.2.0/24")?, "the guardian put back what its owner withdrew");

    // What the owner adds is guarded from then on.
    run(&kube_router, &["route", "add", "10.244.2.0/24", "via", "10.0.0.21", "proto", "17"])?;
    lab.ip("route del 10.244.2.0/24")?;
    wait_for("the added route", SOON, || via(&lab, "10.0.0.21"))?;

    // What the owner replaces comes back as the owner last had it.
    run(&kube_router, &["route", "replace", "10.244.2.0/24", "via", "10.0.0.22", "proto", "17"])?;
    allowed(&guardian, "10.244.2.0/24", "replaced")?;
    assert!(via(&lab, "10.0.0.22")?);
    lab.ip("route del 10.244.2.0/24")?;
    wait_for("the replaced route", SOON, || via(&lab, "10.0.0.22"))?;

    // And a foreign replace in between is undone to that, too.
    lab.ip("route replace 10.244.2.0/24 via 10.0.0.66 proto 17")?;
    wait_for("the owner's route", SOON, || via(&lab, "10.0.0.22"))
}

/// kube-router deletes and adds the same destination on any best-path update.
#[test]
fn the_owner_may_delete_and_add_at_once() -> Result<()> {
    let lab = Lab::node()?;
    let kube_router = lab.copy("ip", "kube-router")?;
    let guardian = lab.guardian().owner(&[&kube_router]).start()?;
    for n in 1..=40 {
        run(&kube_router, &["route", "del", "10.244.2.0/24"])?;
        run(&kube_router, &["route", "add", "10.244.2.0/24", "via", &format!("10.0.0.{n}"), "proto", "17"])?;
        assert!(via(&lab, &format!("10.0.0.{n}"))?);
    }
    lab.ip("route del 10.244.2.0/24")?;
    wait_for("the last route", SOON, || via(&lab, "10.0.0.40"))?;
    // Told when there is time for it.
    guardian.event("the restore", |e| e.outcome() == "restored")?;
    let metrics = guardian.metrics()?;
    assert_eq!(metrics.sum("restores_total", &["outcome=\"restored\""]), Some(1.0), "{}", metrics.0);
    Ok(())
}

/// Before its 2.6, kube-router ran `ip` for much of its work.
#[test]
fn a_child_of_the_owner_is_the_owner() -> Result<()> {
    let lab = Lab::node()?;
    let kube_router = lab.copy("sh", "kube-router")?;
    let guardian = lab.guardian().owner(&[&kube_router]).start()?;
    run(&kube_router, &["-c", "ip route del 10.244.2.0/24; ( ip -6 route del fd00:244:2::/64; : ); :"])?;
    allowed(&guardian, "10.244.2.0/24", "deleted")?;
    allowed(&guardian, "fd00:244:2::/64", "deleted")?;
    assert!(!lab.shows("route show 10.244.2.0/24")?);
    assert!(!lab.shows("-6 route show fd00:244:2::/64")?);
    Ok(())
}

#[test]
fn children_only_where_configured() -> Result<()> {
    let lab = Lab::node()?;
    let kube_router = lab.copy("sh", "kube-router")?;
    let _guardian = lab.guardian().owner(&[&kube_router]).set("owner.children", "false").start()?;
    run(&kube_router, &["-c", "ip route del 10.244.2.0/24; :"])?;
    wait_for("the route", SOON, || via(&lab, lab::PEER))
}

#[test]
fn a_name_is_not_enough() -> Result<()> {
    let lab = Lab::node()?;
    let guardian = lab.guardian().start()?;
    // Its file name, and so its comm, is kube-router; its path is another.
    let impostor = lab.copy("ip", "elsewhere/kube-router")?;
    run(&impostor, &["route", "del", "10.244.2.0/24"])?;
    let event = guardian.event("the record", |e| e.key() == "10.244.2.0/24" && e.outcome() == "restored")?;
    assert_eq!(event.text("/verdict"), "foreign", "{event}");
    assert_eq!(event.text("/actor/comm"), "kube-router", "{event}");
    assert_ne!(event.text("/actor/class"), "kube_router", "{event}");
    wait_for("the route", SOON, || via(&lab, lab::PEER))
}

#[test]
fn a_first_argument_is_not_enough() -> Result<()> {
    let lab = Lab::node()?;
    let owner = lab.dir().join("kube-router");
    let guardian = lab.guardian().owner(&[&owner]).start()?;
    let script = format!("exec -a {} ip route del 10.244.2.0/24", owner.display());
    run(Path::new("bash"), &["-c", &script])?;
    let event = guardian.event("the record", |e| e.key() == "10.244.2.0/24" && e.outcome() == "restored")?;
    assert_eq!(event.text("/verdict"), "foreign", "{event}");
    wait_for("the route", SOON, || via(&lab, lab::PEER))
}

/// What the owner takes away with one request falls with it: the routes on a link it deletes.
#[test]
fn the_owner_may_delete_a_tunnel_with_its_routes() -> Result<()> {
    let lab = Lab::node()?;
    let kube_router = lab.copy("ip", "kube-router")?;
    let guardian = lab.guardian().owner(&[&kube_router]).start()?;
    run(&kube_router, &["link", "del", lab::TUNNEL])?;
    lab.ip("route del 10.244.2.0/24")?;
    // Once this one is back, the guardian has dealt with what came before it.
    wait_for("the other route", SOON, || via(&lab, lab::PEER))?;
    thread::sleep(Duration::from_millis(300));
    assert!(!lab.shows("route show 10.244.3.0/24")?);
    let metrics = guardian.metrics()?;
    assert_eq!(metrics.sum("missing_objects", &[]), Some(0.0), "{}", metrics.0);
    Ok(())
}
