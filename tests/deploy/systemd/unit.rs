//! The unit, as systemd itself sees it.

use std::{fs, process::Command};

use anyhow::{Context, Result};

use super::{debian::Debian, package};
use crate::{run, said, top};

const UNIT: &str = "/lib/systemd/system/route-guardian.service";

/// As cloud-init's: the network is up before it, and what is basic is there only after it.
const EARLY: &str = "[Unit]\nDefaultDependencies=no\nAfter=systemd-networkd.service\nWants=systemd-networkd.service\n\
                     Before=sysinit.target\n[Service]\nType=oneshot\nExecStart=/bin/true\n[Install]\n\
                     WantedBy=sysinit.target\n";

/// Tenths of what `systemd-analyze security` gives, 0 the best: 2.6.
const EXPOSURE: &str = "26";

#[test]
fn the_unit_is_hardened() -> Result<()> {
    let unit = top().join("deploy/systemd/route-guardian.service");
    run(Command::new("systemd-analyze")
        .args(["security", "--offline=true", "--no-pager", &format!("--threshold={EXPOSURE}")])
        .arg(unit))?;
    Ok(())
}

/// Verified with everything in its place, and with a node that needs its network early.
#[test]
fn the_unit_is_correct_and_orders_itself_in_no_circle() -> Result<()> {
    let debian = Debian::asleep()?;
    debian.install(&package("deb")?)?;
    debian.put("/etc/systemd/system/early.service", EARLY.as_bytes())?;
    debian.sh("systemctl enable early.service systemd-networkd.service")?;
    let verify = || -> Result<String> {
        // The clean Debian has no `man` that could look whether the page is there.
        let output = debian.try_sh(&format!("systemd-analyze verify --man=no default.target {UNIT}"))?;
        Ok(said(&output))
    };
    assert_eq!(verify()?, "");

    // What that would look like, with the dependencies that a service has by default.
    let unit = fs::read_to_string(top().join("deploy/systemd/route-guardian.service"))?;
    let (before, after) = unit.split_once("DefaultDependencies=no\n").context("the line is not there")?;
    debian.put(UNIT, format!("{before}{after}").as_bytes())?;
    let said = verify()?;
    assert!(said.contains("ordering cycle"), "{said}");
    Ok(())
}
