//! The real systemd-networkd on a lab's `eth0`, without systemd as PID 1, D-Bus or udev.

use std::{
    fs::{self, File},
    os::unix::fs::chown,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    time::{Duration, Instant},
};

use anyhow::{Context, Result, ensure};

use crate::{Lab, NODE, Pod, Tethered, binary, slowness, tethered, wait_for};

/// What it needs around it, in a mount namespace of its own: its state, its configuration, and a sysfs of
/// this network namespace that is writable (it takes a read-only one for a container, and then configures
/// its links before it has read the routes, and drops none). `$1` is the folder with `run` and `etc`.
const SCRIPT: &str = r#"
set -e
mount --make-rprivate /
mount --bind "$1/etc" /etc/systemd
mount --bind "$1/run" /run
mount -t sysfs sysfs /sys
export SYSTEMD_LOG_LEVEL=debug SYSTEMD_LOG_TARGET=console
exec "$2"
"#;

const NETWORK: &str = "[Match]\nName=eth0\n[Network]\nLinkLocalAddressing=no\nIPv6AcceptRA=no\n";

/// A system bus on which everybody may do everything, for `networkctl`.
const BUS: &str = r#"<busconfig>
<type>system</type>
<listen>unix:path=/run/dbus/system_bus_socket</listen>
<auth>EXTERNAL</auth>
<policy context="default">
<allow user="*"/><allow own="*"/><allow send_type="*" eavesdrop="true"/><allow receive_type="*"/>
</policy>
</busconfig>
"#;

/// How the administrator has set up systemd-networkd.
#[derive(Clone, Copy, Debug, Default)]
#[allow(clippy::struct_excessive_bools, reason = "independent settings")]
pub struct Settings {
    /// A last file that matches every link.
    pub catch_all: bool,
    /// `ManageForeignRoutes=no` and `ManageForeignRoutingPolicyRules=no`.
    pub leave_foreign: bool,
    /// A first file that leaves `kube-*`, `tun*` and `veth*` unmanaged.
    pub unmanaged: bool,
    /// What `route-guardian doctor --fix --yes` writes.
    pub by_doctor: bool,
}

/// systemd-networkd, which keeps what it saves from one start to the next.
#[derive(Debug)]
pub struct Networkd<'lab> {
    lab: &'lab Lab,
    dir: PathBuf,
    process: Option<Tethered>,
    /// Where it has been asked for.
    bus: Option<Tethered>,
}

impl<'lab> Networkd<'lab> {
    /// A node whose `eth0` systemd-networkd has managed since it booted, and on which kube-router runs since;
    /// systemd-networkd is not running just now. It has set the address itself: one that is there already makes
    /// it loop.
    pub fn on_node(lab: &'lab Lab) -> Result<Self> {
        lab.uplink()?;
        let mut networkd = Self::new(lab)?;
        networkd.start()?;
        networkd.stop()?;
        lab.kube_links()?;
        lab.kube_routes()?;
        Ok(networkd)
    }

    /// As [`Self::on_node`], with every kind of object, and set up like this: with the pods.
    pub fn on_guarded_node(lab: &'lab Lab, settings: Settings) -> Result<(Self, Vec<Pod>)> {
        lab.uplink()?;
        Self::on_wired_node(lab, settings)
    }

    /// As [`Self::on_guarded_node`], where there is an `eth0`.
    pub fn on_wired_node(lab: &'lab Lab, settings: Settings) -> Result<(Self, Vec<Pod>)> {
        let mut networkd = Self::new(lab)?;
        let etc = networkd.dir.join("etc");
        fs::write(networkd.network_file(), format!("{NETWORK}Address={NODE}/24\nAddress=fd00:10::10/64\n"))?;
        if settings.catch_all {
            let text = NETWORK.replace("Name=eth0", "Name=*");
            fs::write(etc.join("network/zz-all.network"), text)?;
        }
        if settings.unmanaged {
            let text = "[Match]\nName=kube-* tun* veth*\n[Link]\nUnmanaged=yes\n";
            fs::write(etc.join("network/05-kube-router.network"), text)?;
        }
        if settings.leave_foreign {
            let text = "[Network]\nManageForeignRoutes=no\nManageForeignRoutingPolicyRules=no\n";
            fs::create_dir_all(etc.join("networkd.conf.d"))?;
            fs::write(etc.join("networkd.conf.d/kube-router.conf"), text)?;
        }
        networkd.bus = Some(bus(&networkd.dir.join("run"))?);
        networkd.start()?;
        networkd.stop()?;
        let pods = lab.kube_objects()?;
        if settings.by_doctor {
            networkd.doctor("--fix --yes")?;
        }
        Ok((networkd, pods))
    }

    /// `route-guardian doctor` with these words, on a root folder that has this configuration; what it said.
    pub fn doctor(&self, words: &str) -> Result<String> {
        let root = self.dir.join("root");
        let etc = root.join("etc");
        if !etc.exists() {
            fs::create_dir_all(&etc)?;
            std::os::unix::fs::symlink(self.dir.join("etc"), etc.join("systemd"))?;
        }
        let output = Command::new(binary())
            .arg("doctor")
            .args(words.split_whitespace())
            .arg("--root")
            .arg(&root)
            .arg("--socket")
            .arg(self.dir.join("no.sock"))
            .output()?;
        let said = String::from_utf8_lossy(&output.stdout).into_owned();
        let complaint = String::from_utf8_lossy(&output.stderr).into_owned();
        ensure!(output.status.code().is_some_and(|code| code < 2), "doctor {words}: {said}{complaint}");
        Ok(said)
    }

    /// Ends it with SIGKILL.
    pub fn kill(&mut self) -> Result<()> {
        if let Some(mut process) = self.process.take() {
            process.signal(libc::SIGKILL)?;
            process.wait(Duration::from_secs(5))?;
        }
        Ok(())
    }

    /// The file that says what to do with `eth0`.
    pub fn network_file(&self) -> PathBuf {
        self.dir.join("etc/network/10-eth0.network")
    }

    /// `networkctl` with these words, where there is a bus.
    pub fn control(&self, words: &str) -> Result<()> {
        let pid = self.pid().context("systemd-networkd is not running")?.to_string();
        let output = Command::new("nsenter")
            .args(["--mount", "--target", &pid, "networkctl", "--no-pager"])
            .args(words.split_whitespace())
            .output()?;
        ensure!(
            output.status.success(),
            "networkctl {words}: {}",
            String::from_utf8_lossy(&output.stderr).trim()
        );
        Ok(())
    }

    /// Waits until it has had nothing to say for so long, on a machine that is not slow.
    pub fn quiet(&self, long: Duration) -> Result<()> {
        let (mut said, mut since) = (self.log().len(), Instant::now());
        wait_for("systemd-networkd to be done", Duration::from_secs(30), || {
            let now = self.log().len();
            if now != said {
                (said, since) = (now, Instant::now());
            }
            Ok(since.elapsed() >= long * slowness())
        })
    }

    /// The program.
    pub const PROGRAM: &'static str = "/lib/systemd/systemd-networkd";

    /// Prepares it to manage `eth0` with the node's address, and no other link.
    pub fn new(lab: &'lab Lab) -> Result<Self> {
        ensure!(
            Path::new(Self::PROGRAM).exists(),
            "{} is not installed; `cargo xtask setup --tests` installs what the tests need",
            Self::PROGRAM
        );
        let dir = lab.dir().join("networkd");
        fs::create_dir_all(dir.join("etc/network"))?;
        fs::write(dir.join("etc/network/10-eth0.network"), format!("{NETWORK}Address={NODE}/24\n"))?;
        fs::create_dir_all(dir.join("run/udev/data"))?;
        let (uid, gid) = user("systemd-network")?;
        for folder in ["systemd/netif", "systemd/netif/links", "systemd/netif/leases", "systemd/netif/lldp"] {
            let folder = dir.join("run").join(folder);
            fs::create_dir_all(&folder)?;
            chown(&folder, Some(uid), Some(gid))?;
        }
        Ok(Self { lab, dir, process: None, bus: None })
    }

    /// Starts it, and waits until it has configured `eth0`.
    pub fn start(&mut self) -> Result<()> {
        for link in self.lab.ip_json("link")?.as_array().into_iter().flatten() {
            if let Some(index) = link.get("ifindex") {
                // "Initialised": what udev writes when it is done with a link.
                fs::write(self.dir.join(format!("run/udev/data/n{index}")), "I:1\n")?;
            }
        }
        let eth0 = self.lab.ip_json("link show eth0")?;
        let index = eth0.pointer("/0/ifindex").context("there is no eth0")?;
        let state = self.dir.join(format!("run/systemd/netif/links/{index}"));
        if let Err(error) = fs::remove_file(&state) {
            ensure!(
                error.kind() == std::io::ErrorKind::NotFound,
                "cannot remove {}: {error}",
                state.display()
            );
        }
        let log = File::create(self.dir.join("log"))?;
        let process = tethered(
            Command::new("unshare")
                .args(["--mount", "sh", "-c", SCRIPT, "networkd"])
                .arg(&self.dir)
                .arg(Self::PROGRAM)
                .stdin(Stdio::null())
                .stdout(log.try_clone()?)
                .stderr(log),
        )?;
        let process = self.process.insert(process);
        wait_for("systemd-networkd to configure eth0", Duration::from_secs(20), || {
            ensure!(process.ended()?.is_none(), "systemd-networkd ended");
            Ok(fs::read_to_string(&state).is_ok_and(|text| text.contains("ADMIN_STATE=configured")))
        })
        .with_context(|| {
            format!("its log:\n{}", fs::read_to_string(self.dir.join("log")).unwrap_or_default())
        })
    }

    /// Its process id while it runs.
    pub fn pid(&self) -> Option<u32> {
        self.process.as_ref().map(Tethered::pid)
    }

    /// What it has logged since it was started last.
    pub fn log(&self) -> String {
        fs::read_to_string(self.dir.join("log")).unwrap_or_default()
    }

    /// Stops it.
    pub fn stop(&mut self) -> Result<()> {
        if let Some(mut process) = self.process.take() {
            process.stop()?;
        }
        Ok(())
    }
}

/// A system bus for those whose `/run` is this folder. It is a child of the test, and not of the daemon: one that has
/// changed its user may not signal root's processes, not even when it ends (`PR_SET_PDEATHSIG`).
pub fn bus(run: &Path) -> Result<Tethered> {
    let folder = run.join("dbus");
    fs::create_dir_all(&folder)?;
    let (config, socket) = (folder.join("bus.conf"), folder.join("system_bus_socket"));
    fs::write(&config, BUS)?;
    let mut process = tethered(
        Command::new("dbus-daemon")
            .arg(format!("--config-file={}", config.display()))
            .arg(format!("--address=unix:path={}", socket.display()))
            .args(["--nofork", "--nopidfile", "--nosyslog"])
            .stdin(Stdio::null())
            .stderr(Stdio::null()),
    )?;
    wait_for("the bus", Duration::from_secs(10), || {
        ensure!(process.ended()?.is_none(), "dbus-daemon ended");
        Ok(socket.exists())
    })?;
    Ok(process)
}

/// User and group id of a system user, from `/etc/passwd`.
fn user(name: &str) -> Result<(u32, u32)> {
    let passwd = fs::read_to_string("/etc/passwd")?;
    let entry = passwd.lines().find_map(|line| {
        let mut fields = line.split(':');
        let found = fields.next() == Some(name);
        let (uid, gid) = (fields.nth(1)?.parse().ok()?, fields.next()?.parse().ok()?);
        found.then_some((uid, gid))
    });
    entry.with_context(|| format!("there is no user {name}; it comes with Debian's package systemd"))
}
