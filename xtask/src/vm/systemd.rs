//! A guest like a node: systemd as its first process, with udev and D-Bus, and two network cards on one cable.
//!
//! The first card is the node's; the second one is for the test to take for the rest of the world. The guest may talk to
//! QEMU's monitor over its third serial port: that is how it pulls the cable (`set_link n0 off`).

use std::{
    ffi::OsString,
    fs,
    io::Write,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context, Result};

use super::{
    ENDED, Init,
    cpio::Archive,
    image::{MODULES, libraries_of},
    release::LEFT_OUT,
};
use crate::program::{answer, root};

/// Debian's packages whose files the guest has, as they are installed here.
const PACKAGES: &[&str] = &["dbus", "dbus-daemon", "dbus-system-bus-common"];

/// Likewise, where systemd is not another release's.
const SYSTEMD: &[&str] = &["systemd", "systemd-sysv", "udev"];

/// systemd's own unit.
const NETWORKD: &str = "/lib/systemd/system/systemd-networkd.service";

/// Says when the guardian was ready and when networkd was started, as the machine booted; in microseconds.
const AT_BOOT: &str = r#"#!/bin/bash
when() { echo "$1 $(systemctl show --value --property="$3TimestampMonotonic" "$2")"; }
{ when guardian route-guardian ActiveEnter; when networkd systemd-networkd ExecMainStart; } >/run/at-boot
"#;

/// Programs besides, with their libraries.
const PROGRAMS: &[&str] = &["/usr/sbin/ipvsadm", "/usr/sbin/agetty", "/usr/bin/mount", "/usr/bin/umount"];

/// The guardian's own unit, and where it looks for the program.
const UNIT: &str = "deploy/systemd/route-guardian.service";
const BINARY: &str = "target/release/route-guardian";

impl Init {
    /// What the kernel is told to start.
    pub(super) const fn kernel_arguments(self) -> &'static str {
        match self {
            Self::Script => "rdinit=/init",
            Self::Systemd => "rdinit=/lib/systemd/systemd systemd.show_status=false",
        }
    }

    /// How many CPUs. The emulator has one thread for all of them, and of two that are busy each waits for the tenth of a
    /// second that the other has: a whole node would be late for that alone.
    pub(super) const fn cpus(self) -> usize {
        match self {
            Self::Script => 2,
            Self::Systemd => 1,
        }
    }

    /// By what an emulated guest's clock goes. A node is measured (how many queries are late), and one that is twenty times
    /// as slow as any server, and slower when this machine has other work, is late for that alone: its clock goes by its
    /// instructions, two nanoseconds for each, and where there is nothing to do it is the next deadline at once.
    pub(super) const fn clock(self) -> &'static [&'static str] {
        match self {
            Self::Script => &[],
            Self::Systemd => &["-icount", "shift=1,sleep=off"],
        }
    }

    /// What QEMU is told besides: `dir` is for its sockets.
    pub(super) fn devices(self, dir: &Path) -> Vec<OsString> {
        let fixed = |words: &[&str]| words.iter().map(OsString::from).collect();
        match self {
            Self::Script => fixed(&["-nic", "none", "-monitor", "none"]),
            Self::Systemd => {
                let socket = dir.join("monitor");
                let path = socket.display();
                let mut all: Vec<OsString> = fixed(&[
                    "-netdev",
                    "hubport,id=n0,hubid=0",
                    "-device",
                    "virtio-net-pci,id=c0,netdev=n0,mac=52:54:00:00:00:01",
                    "-netdev",
                    "hubport,id=n1,hubid=0",
                    "-device",
                    "virtio-net-pci,id=c1,netdev=n1,mac=52:54:00:00:00:02",
                ]);
                for words in [
                    format!("-chardev socket,id=line,path={path},server=on,wait=off"),
                    "-serial chardev:line".into(),
                    format!("-chardev socket,id=monitor,path={path}"),
                    "-mon chardev=monitor,mode=control".into(),
                ] {
                    all.extend(words.split(' ').map(OsString::from));
                }
                all
            }
        }
    }
}

/// Adds what makes a node of the guest; systemd too, unless it is there.
pub(super) fn add(archive: &mut Archive<impl Write>, has_systemd: bool) -> Result<()> {
    for folder in ["/etc/systemd/system/multi-user.target.wants", "/var/lib/dbus", "/var/tmp", "/home"] {
        archive.folder(Path::new(folder))?;
    }
    let systemd = if has_systemd { &[] } else { SYSTEMD };
    let list = answer(Command::new("dpkg").arg("-L").args(PACKAGES).args(systemd))
        .context("dpkg does not list systemd's files")?;
    let wanted = |path: &&Path| {
        !LEFT_OUT.iter().any(|folder| path.starts_with(folder))
            && fs::symlink_metadata(path).is_ok_and(|meta| !meta.is_dir())
    };
    let files: Vec<PathBuf> = list.lines().map(Path::new).filter(wanted).map(Path::to_owned).collect();
    for path in files.iter().cloned().chain(PROGRAMS.iter().map(PathBuf::from)) {
        if !path.exists() {
            continue;
        }
        archive.copy(&path)?;
        if is_program(&path) {
            for library in libraries_of(&path) {
                archive.copy(&library)?;
            }
        }
    }
    for (path, text) in [
        ("/etc/machine-id", "0123456789abcdef0123456789abcdef\n".to_owned()),
        ("/etc/hostname", "node\n".to_owned()),
        ("/etc/fstab", String::new()),
        ("/etc/os-release", "ID=debian\nNAME=guest\n".to_owned()),
        ("/etc/modules-load.d/guest.conf", MODULES.join("\n") + "\n"),
        ("/etc/systemd/system/job.service", job()),
    ] {
        archive.file(Path::new(path), 0o644, text.as_bytes())?;
    }
    archive.file(Path::new("/at-boot"), 0o755, AT_BOOT.as_bytes())?;
    for (link, target) in [
        ("/etc/systemd/system/default.target", "/lib/systemd/system/multi-user.target"),
        ("/etc/systemd/system/multi-user.target.wants/job.service", "../job.service"),
        ("/etc/systemd/system/getty.target", "/dev/null"),
        // As on a node where both are installed.
        ("/etc/systemd/system/multi-user.target.wants/systemd-networkd.service", NETWORKD),
        ("/etc/systemd/system/multi-user.target.wants/route-guardian.service", "../route-guardian.service"),
        // What is tested may lie there.
        ("/etc/systemd/system/tmp.mount", "/dev/null"),
        ("/etc/tmpfiles.d/tmp.conf", "/dev/null"),
        ("/var/run", "/run"),
    ] {
        archive.link(Path::new(link), Path::new(target))?;
    }
    let unit = fs::read(root().join(UNIT)).with_context(|| format!("{UNIT} is not there"))?;
    archive.file(Path::new("/etc/systemd/system/route-guardian.service"), 0o644, &unit)?;
    // No link: where the repository is below /tmp, the unit does not see it (PrivateTmp=).
    let binary = fs::read(root().join(BINARY)).with_context(|| format!("{BINARY} is not there"))?;
    archive.file(Path::new("/usr/bin/route-guardian"), 0o755, &binary)
}

/// Whether a file is one that the dynamic linker has to do with.
fn is_program(path: &Path) -> bool {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    fs::read(path).is_ok_and(|bytes| bytes.starts_with(b"\x7fELF")) && !name.ends_with(".debug")
}

/// Runs the job when the node is up, tells how it ended, and switches the machine off.
fn job() -> String {
    format!(
        r#"[Unit]
Description=What this guest is for
After=sysinit.target dbus.service systemd-networkd.service

[Service]
Type=oneshot
Environment=HOME=/root PATH=/usr/sbin:/usr/bin:/sbin:/bin
ExecStart=/bin/bash -c 'stty -F /dev/ttyS1 raw; /at-boot; /job </dev/null >/dev/ttyS1 2>&1; echo "{ENDED}$$?" >/dev/ttyS1; sync; sleep 0.2; echo o >/proc/sysrq-trigger'
"#
    )
}
