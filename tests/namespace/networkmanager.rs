//! What `doctor` says of the configuration of `NetworkManager`, against the real one: which links it manages, and what it
//! takes away from those with the remedy and without.

use std::{fs, path::PathBuf, process::Command, time::Duration};

use anyhow::{Context, Result, ensure};
use lab::{Lab, Tethered, wait_for};
use serde_json::Value;

use crate::neighbours::{daemon, log};

const PATIENCE: Duration = Duration::from_secs(20);
/// Nothing of the host's: no profiles, no name servers, and the state of links is not remembered.
const MAIN: &str = "[main]\nplugins=keyfile\ndns=none\nrc-manager=unmanaged\nno-auto-default=*\n";
const FILE: &str = "etc/NetworkManager/NetworkManager.conf";

/// It, on a bus of its own, with the configuration below `root`.
struct Manager<'lab> {
    lab: &'lab Lab,
    process: Tethered,
    _bus: Tethered,
}

fn root(lab: &Lab) -> PathBuf {
    lab.dir().join("root")
}

/// The configuration is these files and no other.
fn configure(lab: &Lab, files: &[(&str, &str)]) -> Result<()> {
    let root = root(lab);
    if root.exists() {
        fs::remove_dir_all(&root)?;
    }
    for folder in [
        "etc/NetworkManager/system-connections",
        "run/NetworkManager/conf.d",
        "usr/lib/NetworkManager/conf.d",
    ] {
        fs::create_dir_all(root.join(folder))?;
    }
    fs::write(root.join(FILE), MAIN)?;
    for (path, text) in files {
        let path = root.join(path);
        fs::create_dir_all(path.parent().context("a file is in a folder")?)?;
        let text = if path.ends_with(FILE) { format!("{MAIN}{text}") } else { (*text).to_owned() };
        fs::write(path, text)?;
    }
    Ok(())
}

impl<'lab> Manager<'lab> {
    fn start(lab: &'lab Lab) -> Result<Self> {
        let run = lab.dir().join("run");
        if run.exists() {
            fs::remove_dir_all(&run)?;
        }
        let bus = lab::bus(&run)?;
        let before = log(lab).len();
        let text = "mkdir -p /run/dbus /run/NetworkManager/conf.d /var/lib/NetworkManager
            mount -t sysfs -o ro sysfs /sys
            mount --bind \"$1/run/dbus\" /run/dbus
            mount --bind \"$1/root/etc/NetworkManager\" /etc/NetworkManager
            mount --bind \"$1/root/run/NetworkManager/conf.d\" /run/NetworkManager/conf.d
            mount --bind \"$1/root/usr/lib/NetworkManager/conf.d\" /usr/lib/NetworkManager/conf.d
            exec NetworkManager --debug --log-level=INFO";
        let process = daemon(lab, text)?;
        let manager = Self { lab, process, _bus: bus };
        wait_for("NetworkManager to have started", PATIENCE, || {
            Ok(log(lab)[before..].contains("startup complete"))
        })
        .with_context(|| log(lab))?;
        Ok(manager)
    }

    fn control(&self, words: &str) -> Result<String> {
        let output = Command::new("nsenter")
            .args(["--mount", "--target", &self.process.pid().to_string(), "nmcli", "--wait", "20"])
            .args(words.split_whitespace())
            .output()?;
        ensure!(
            output.status.success(),
            "nmcli {words}: {}{}",
            String::from_utf8_lossy(&output.stderr),
            log(self.lab)
        );
        Ok(String::from_utf8_lossy(&output.stdout).into_owned())
    }

    /// The guarded links that it manages.
    fn managed(&self) -> Result<Vec<String>> {
        let shown = self.control("--terse --fields DEVICE,STATE device")?;
        let lines = shown.lines().filter_map(|line| line.split_once(':'));
        let mut names: Vec<String> = lines
            .filter(|(name, state)| guarded(name) && *state != "unmanaged")
            .map(|(name, _)| name.to_owned())
            .collect();
        names.sort();
        Ok(names)
    }
}

fn guarded(name: &str) -> bool {
    ["kube-bridge", "kube-dummy-if", "veth0000a"].contains(&name) || name.starts_with("tun-")
}

fn doctor(lab: &Lab, words: &str) -> Result<String> {
    let output = Command::new(lab::binary())
        .arg("doctor")
        .args(words.split_whitespace())
        .arg("--root")
        .arg(root(lab))
        .arg("--socket")
        .arg(lab.dir().join("no.sock"))
        .output()?;
    let complaint = String::from_utf8_lossy(&output.stderr).into_owned();
    ensure!(output.status.code().is_some_and(|code| code < 2), "doctor {words}: {complaint}");
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

/// The links that it manages, as `doctor` says.
fn told(lab: &Lab) -> Result<Vec<String>> {
    let diagnosis: Value = serde_json::from_str(&doctor(lab, "-o json")?)?;
    let groups = diagnosis["groups"].as_array().context("no groups")?;
    let group = groups.iter().find(|group| group["name"] == "NetworkManager").context("no group of it")?;
    let mut names: Vec<String> = Vec::new();
    for finding in group["findings"].as_array().context("no findings")? {
        let what = finding["what"].as_str().unwrap_or_default();
        if let Some(list) = what.strip_prefix("it manages guarded links: ") {
            ensure!(!what.contains("cannot be told"), "{what}");
            names.extend(list.split(", ").filter(|name| guarded(name)).map(Into::into));
        }
    }
    names.sort();
    Ok(names)
}

/// Configurations of every kind: what `doctor` reads in them is what the real one makes of them.
#[test]
fn doctor_reads_its_configuration_as_it_does_itself() -> Result<()> {
    let node = Lab::guarded()?;
    let lab = &node.lab;
    // A link that others have made it leaves alone as long as it has no address.
    lab.ip(&format!("addr add 192.0.2.1/32 dev {}", lab::TUNNEL))?;
    let etc = "etc/NetworkManager/conf.d/50.conf";
    let run = "run/NetworkManager/conf.d/50.conf";
    let usr = "usr/lib/NetworkManager/conf.d/50.conf";
    let earlier = "etc/NetworkManager/conf.d/10.conf";
    let bridge = "[keyfile]\nunmanaged-devices=interface-name:kube-bridge\n";
    let cases: &[&[(&str, &str)]] = &[
        &[],
        &[(FILE, bridge)],
        &[(etc, bridge), (earlier, "[keyfile]\nunmanaged-devices=*\n")],
        &[(usr, "[keyfile]\nunmanaged-devices=*\n"), (FILE, bridge)],
        &[(usr, "[keyfile]\nunmanaged-devices=*\n"), (run, bridge)],
        &[(run, "[keyfile]\nunmanaged-devices=*\n"), (etc, "")],
        &[(etc, "[keyfile]\nunmanaged-devices=kube-*, interface-name:tun-*\n")],
        &[(etc, "[keyfile]\nunmanaged-devices=except:interface-name:kube-?ridge\n")],
        &[(etc, "[keyfile]\nunmanaged-devices=except:kube-bridge\n")],
        &[(etc, "[keyfile]\nunmanaged-devices=*;except:type:vxlan\n")],
        &[(etc, "[keyfile]\nunmanaged-devices=type:bridge\n")],
        &[(etc, "[keyfile]\nunmanaged-devices=type:veth\n")],
        &[(etc, "[keyfile]\nunmanaged-devices=type:ethernet\n")],
        &[(etc, "[keyfile]\nunmanaged-devices=Interface-Name:~k*e-*;interface-name:=tun-*\n")],
        &[(FILE, bridge), (etc, "[keyfile]\nunmanaged-devices+=interface-name:tun-*\n")],
        &[(FILE, bridge), (etc, "[keyfile]\nunmanaged-devices-=interface-name:kube-bridge\n")],
        &[(etc, "[.config]\nenable=false\n[keyfile]\nunmanaged-devices=*\n")],
        &[(etc, "[device]\nmanaged=0\n")],
        &[(etc, "[device-a]\nmatch-device=type:bridge\nmanaged=0\n[device-b]\nmatch-device=*\nmanaged=1\n")],
        &[(etc, "[device]\nmanaged=0\n[device-a]\nmatch-device=interface-name:kube-bridge\nmanaged=1\n")],
        &[
            (earlier, "[device-a]\nmatch-device=type:bridge\nmanaged=0\n"),
            (etc, "[device-b]\nmatch-device=interface-name:kube-dummy-if\nmanaged=1\n"),
        ],
        &[(etc, "[device-a]\nmatch-device=type:bridge\nstop-match=1\n[device]\nmanaged=0\n")],
    ];
    for files in cases {
        configure(lab, files)?;
        let mut manager = Manager::start(lab)?;
        let (says, does) = (told(lab)?, manager.managed()?);
        manager.process.stop()?;
        ensure!(says == does, "{files:?}: doctor says {says:?}, and it manages {does:?}");
    }
    Ok(())
}

/// What is lost of guarded links and what is by them when networking is switched off, with no guardian running.
fn lost(by_doctor: bool) -> Result<Vec<String>> {
    let node = Lab::guarded()?;
    let lab = &node.lab;
    configure(lab, &[])?;
    let manager = Manager::start(lab)?;
    if by_doctor {
        ensure!(doctor(lab, "")?.contains("it manages guarded links"));
        let said = doctor(lab, "--fix --yes")?;
        ensure!(said.contains("nmcli general reload conf"), "{said}");
        // What it says is to be run: no restart is.
        manager.control("general reload conf")?;
        wait_for("NetworkManager to let go of them", PATIENCE, || Ok(manager.managed()?.is_empty()))?;
        ensure!(!doctor(lab, "")?.contains("it manages guarded links"));
    }
    let before = lab.state()?;
    manager.control("networking off")?;
    wait_for("networking to be off", PATIENCE, || Ok(manager.managed()?.is_empty()))?;
    std::thread::sleep(Duration::from_secs(1));
    let after = lab.state()?;
    Ok(before.labels().filter(|&l| before.get(l) != after.get(l)).map(Into::into).collect())
}

#[test]
fn the_remedy_keeps_guarded_links_when_networking_is_switched_off() -> Result<()> {
    let (without, with) = (lost(false)?, lost(true)?);
    let guarded = |labels: &[String]| {
        labels
            .iter()
            .filter(|l| ["kube-", "tun-", "veth0"].iter().any(|n| l.contains(n)))
            .cloned()
            .collect::<Vec<_>>()
    };
    ensure!(!guarded(&without).is_empty(), "nothing is lost anyway: {without:?}");
    ensure!(guarded(&with).is_empty(), "lost with the remedy: {with:?}; without it: {without:?}");
    Ok(())
}
