//! Bad input and missing rights: one clear error, nothing touched.

use std::{fs, net::TcpListener};

use anyhow::Result;
use lab::{Lab, Launch, wait_for};

/// It does not start, says each of `words`, does not panic, and leaves the routes alone.
fn refuses(lab: &Lab, launch: Launch<'_>, words: &[&str]) -> Result<()> {
    let before = lab.routes()?;
    let output = launch.refused()?;
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(!output.status.success(), "{said}");
    assert!(output.status.code().is_some(), "ended by a signal: {}; {said}", output.status);
    assert!(!said.contains("panicked"), "{said}");
    for word in words {
        assert!(said.contains(word), "no {word:?} in: {said}");
    }
    let mut after = lab.routes()?;
    // With an IPv6 address the kernel adds routes when it has found no duplicate (`rtm_protocol` is the sixth byte).
    after.retain(|route| before.contains(route) || route.get(5) != Some(&PROT_KERNEL));
    assert_eq!(before, after);
    Ok(())
}

/// `RTPROT_KERNEL` of `include/uapi/linux/rtnetlink.h`.
const PROT_KERNEL: u8 = 2;

#[test]
fn a_broken_configuration() -> Result<()> {
    let lab = Lab::node()?;
    let launch = lab.guardian().configuration("mode = \"restore\"\n[scope\nlinks = []\n");
    let file = launch.config_file().to_string_lossy().into_owned();
    refuses(&lab, launch, &[&file, "2"])
}

#[test]
fn an_unknown_key_names_the_nearest_known_one() -> Result<()> {
    let lab = Lab::node()?;
    refuses(&lab, lab.guardian().set("restore.settel", "\"1s\""), &["settel", "settle"])
}

#[test]
fn a_bad_glob() -> Result<()> {
    let lab = Lab::node()?;
    refuses(&lab, lab.guardian().set("scope.links", "[\"tun-[\"]"), &["tun-[", "links"])
}

#[test]
fn a_duration_without_a_unit() -> Result<()> {
    let lab = Lab::node()?;
    refuses(&lab, lab.guardian().set("restore.settle", "\"2\""), &["settle"])
}

#[test]
fn a_configuration_file_that_is_not_there() -> Result<()> {
    let lab = Lab::node()?;
    let absent = lab.dir().join("absent.toml");
    let output = std::process::Command::new(lab::binary()).args(["run", "--config"]).arg(&absent).output()?;
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(!output.status.success());
    assert!(said.contains("absent.toml"), "{said}");
    Ok(())
}

#[test]
fn a_port_in_use() -> Result<()> {
    let lab = Lab::node()?;
    let _taken = TcpListener::bind("127.0.0.1:10953")?;
    refuses(&lab, lab.guardian(), &["127.0.0.1:10953"])
}

#[test]
fn a_state_folder_that_cannot_be_written() -> Result<()> {
    let lab = Lab::node()?;
    let file = lab.dir().join("a-file");
    fs::write(&file, "")?;
    let launch = lab.guardian().set("state.dir", &format!("{:?}", file.join("state")));
    refuses(&lab, launch, &["a-file"])?;
    // A file system that is read-only, also for root.
    refuses(
        &lab,
        lab.guardian().set("state.dir", "\"/sys/kernel/route-guardian\""),
        &["/sys/kernel/route-guardian"],
    )
}

#[test]
fn a_second_guardian_in_the_namespace() -> Result<()> {
    let lab = Lab::node()?;
    let before = lab.routes()?;
    let first = lab.guardian().start()?;
    refuses(&lab, lab.guardian().named("second", 10954), &[&first.pid().to_string()])?;
    lab.ip("route del 10.244.2.0/24")?;
    wait_for("the first to restore", std::time::Duration::from_secs(3), || Ok(lab.routes()? == before))?;
    // Another namespace is another matter.
    let other = Lab::node()?;
    other.guardian().start()?.stop()?;
    Ok(())
}

#[test]
fn without_capabilities() -> Result<()> {
    let lab = Lab::node()?;
    refuses(&lab, lab.guardian().through("setpriv --bounding-set=-all --inh-caps=-all"), &["CAP_NET_ADMIN"])?;
    refuses(
        &lab,
        lab.guardian().through("setpriv --bounding-set=-net_admin --inh-caps=-all"),
        &["CAP_NET_ADMIN"],
    )
}

#[test]
fn config_check_says_the_same() -> Result<()> {
    let lab = Lab::new()?;
    let file = lab.dir().join("bad.toml");
    fs::write(&file, "[restore]\nsettel = \"1s\"\n")?;
    let check = |file| std::process::Command::new(lab::binary()).args(["config", "check"]).arg(file).output();
    let output = check(&file)?;
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(!output.status.success());
    for word in ["bad.toml", "2", "settel", "settle"] {
        assert!(said.contains(word), "no {word:?} in: {said}");
    }
    fs::write(&file, "[restore]\nsettle = \"1s\"\n")?;
    assert!(check(&file)?.status.success());
    Ok(())
}
