//! Those who look like somebody else, or whose program cannot be found.

use std::{ffi::OsStr, fs, os::unix::ffi::OsStrExt as _, process::Command};

use anyhow::{Context, Result};

use super::{ADDRESS, KEY, Truth, lost, run, taken, taker, watched};

/// Names and arguments that a process gives itself change nothing.
macro_rules! renamed {
    ($($name:ident: $how:literal, $comm:literal;)*) => {$(
        #[test]
        fn $name() -> Result<()> {
            let (truth, event, _) = taken($how)?;
            truth.check(&event);
            assert_eq!(event.text("/actor/class"), "other", "{event}");
            assert_eq!(event.text("/actor/comm"), $comm, "{event}");
            Ok(())
        }
    )*};
}

renamed! {
    a_kworker_by_name: "kworker", "route-taker";
    a_kube_router_by_name: "kube-router", "route-taker";
    other_arguments: "overwritten", "route-taker";
}

#[test]
fn a_program_that_is_deleted() -> Result<()> {
    let (lab, guardian) = watched()?;
    let ip = lab.copy("ip", "gone")?;
    let mut actor = lab.actor(&ip)?;
    fs::remove_file(&ip)?;
    actor.say(&format!("route del {KEY}"))?;
    let event = lost(&guardian)?;
    Truth::new(&ip, &[&ip.to_string_lossy(), "-force", "-batch", "-"]).pid(actor.pid()).check(&event);
    assert_eq!(event.0.pointer("/actor/exe_deleted"), Some(&true.into()), "{event}");
    actor.finish()
}

#[test]
fn a_program_in_no_filesystem() -> Result<()> {
    let (_lab, guardian) = watched()?;
    let (pid, _) = run(Command::new(taker()).args(["memfd", ADDRESS]))?;
    let event = lost(&guardian)?;
    Truth::new("/memfd:taker", &[&taker().to_string_lossy(), "plain", ADDRESS]).pid(pid).check(&event);
    assert_eq!(event.0.pointer("/actor/exe_deleted"), Some(&true.into()), "{event}");
    Ok(())
}

#[test]
fn a_program_that_is_replaced_stays_named() -> Result<()> {
    let (lab, guardian) = watched()?;
    let ip = lab.copy("ip", "upgraded")?;
    let mut actor = lab.actor(&ip)?;
    let other = lab.copy("true", "other")?;
    fs::rename(other, &ip)?;
    actor.say(&format!("route del {KEY}"))?;
    let event = lost(&guardian)?;
    Truth::new(&ip, &[&ip.to_string_lossy(), "-force", "-batch", "-"]).check(&event);
    assert_eq!(event.0.pointer("/actor/exe_deleted"), Some(&true.into()), "{event}");
    actor.finish()
}

/// Arguments beyond the bound are cut, and the record says so.
#[test]
fn long_arguments() -> Result<()> {
    let (_lab, guardian) = watched()?;
    let (pid, _) = run(Command::new(taker()).args(["plain", ADDRESS, "--"]).args(vec!["0123456789"; 2000]))?;
    let event = lost(&guardian)?;
    assert_eq!(event.0.pointer("/actor/argv_cut"), Some(&true.into()), "{event}");
    let kept: usize = event.argv().iter().map(|word| word.len() + 1).sum();
    assert!((500..=513).contains(&kept), "{kept}: {event}");
    Truth::new(taker(), &event.argv()).pid(pid).check(&event);
    Ok(())
}

#[test]
fn arguments_that_are_no_text() -> Result<()> {
    let (_lab, guardian) = watched()?;
    let path = taker();
    let mut command = Command::new(&path);
    command.args(["plain", ADDRESS, "--", "", "two\nlines\x1b[2J"]).arg(OsStr::from_bytes(b"\xff\xfe"));
    run(&mut command)?;
    let argv =
        [&*path.to_string_lossy(), "plain", ADDRESS, "--", "", "two\nlines\x1b[2J", "\u{fffd}\u{fffd}"];
    let event = lost(&guardian)?;
    Truth::new(&path, &argv).check(&event);
    let shown = guardian.answer("events -o wide")?;
    assert!(!shown.contains('\x1b'), "{shown}");
    Ok(())
}

/// Of a path beyond the bound the end is kept, and it is not called exact.
#[test]
fn a_very_long_path() -> Result<()> {
    let (lab, guardian) = watched()?;
    let name = format!("{0}/{0}/{0}/ip", "d".repeat(120));
    let ip = lab.copy("ip", &name)?;
    run(Command::new(&ip).args(["route", "del", KEY]))?;
    let event = lost(&guardian)?;
    assert_eq!(event.text("/actor/confidence"), "partial", "{event}");
    let kept = event.text("/actor/exe").strip_prefix('…').context("not cut")?;
    assert!(ip.to_string_lossy().ends_with(kept) && kept.len() > 100, "{event}");
    Ok(())
}
