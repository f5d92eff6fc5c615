//! What it takes while nothing happens, with all that can be told to Kubernetes switched on.

use std::{thread, time::Duration};

use anyhow::Result;
use lab::{Lab, wait_for};

use super::{
    api_server::ApiServer,
    away::memory,
    condition::{node, path},
    pod,
};
use crate::kubernetes::Variant;

/// For how long it is looked at.
const SPAN: Duration = Duration::from_secs(30);

#[test]
fn it_wakes_up_at_most_once_a_second_and_stays_small() -> Result<()> {
    let lab = Lab::node()?;
    let api = ApiServer::start(&lab, pod::granted(Variant::has_condition)?)?;
    api.keep(&path(), node())?;
    let guardian = pod::launch(&lab, &api, &[("events", "true"), ("node_condition", "true")])?.start()?;
    lab.ip("route del 10.244.2.0/24")?;
    wait_for("an Event", SPAN, || Ok(!api.events().is_empty()))?;
    // What follows from it is over, and threads that were needed for it have ended: an ended one is not counted.
    thread::sleep(Duration::from_secs(12));
    let before = guardian.switches()?;
    thread::sleep(SPAN);
    let woken = guardian.switches()? - before;
    let kib = memory(&guardian)?;
    println!("in {SPAN:?} without any change: {woken} wake-ups; memory of its own: {kib} KiB");
    assert!(woken <= SPAN.as_secs(), "{woken} wake-ups in {SPAN:?}");
    assert!(kib < 20 * 1024, "{kib} KiB");
    Ok(())
}
