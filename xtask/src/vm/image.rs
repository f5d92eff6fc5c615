//! The guest's root.

use std::{
    collections::BTreeSet,
    fs::{self, File},
    io::BufWriter,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context, Result};

use super::{ENDED, Init, Job, cpio::Archive, kernel::Kernel, release, systemd};
use crate::program::{answer, find};

/// Programs of this machine that the guest has, with their libraries. What is not there is left out: whoever
/// needs it says so.
const PROGRAMS: &[&str] = &[
    "bash",
    "sh",
    "awk",
    "basename",
    "cat",
    "chmod",
    "chown",
    "chroot",
    "cp",
    "curl",
    "cut",
    "date",
    "diff",
    "dirname",
    "dmesg",
    "env",
    "false",
    "find",
    "getpcaps",
    "grep",
    "head",
    "hostname",
    "id",
    "install",
    "ip",
    "kill",
    "ln",
    "ls",
    "mkdir",
    "mkfifo",
    "mknod",
    "mktemp",
    "modprobe",
    "mount",
    "mv",
    "nice",
    "nsenter",
    "perl",
    "pgrep",
    "pivot_root",
    "pkill",
    "printf",
    "ps",
    "python3",
    "readlink",
    "rm",
    "rmdir",
    "run-parts",
    "sed",
    "seq",
    "setpriv",
    "setsid",
    "sha256sum",
    "sleep",
    "sort",
    "stat",
    "stdbuf",
    "stty",
    "sync",
    "sysctl",
    "tail",
    "taskset",
    "tee",
    "test",
    "timeout",
    "touch",
    "tr",
    "true",
    "umount",
    "uname",
    "unshare",
    "wc",
    "xargs",
    "ifconfig",
    "route",
    "brctl",
    "busybox",
    "bridge",
    "tc",
    "networkctl",
    "dbus-daemon",
    "promtool",
    "bird",
    "keepalived",
    "dhclient",
    "dhclient-script",
    "dnsmasq",
    "ifup",
    "ifdown",
    "NetworkManager",
    "nmcli",
    "/lib/systemd/systemd-networkd",
    "/usr/lib/frr/zebra",
    "/usr/lib/frr/staticd",
];

/// Other files and folders that those need.
const FILES: &[&str] = &[
    "/etc/iproute2",
    "/etc/nsswitch.conf",
    "/etc/protocols",
    "/etc/services",
    "/usr/lib/python3.11",
    "/usr/lib/x86_64-linux-gnu/perl-base",
    "/etc/NetworkManager",
    "/etc/dhcp",
    "/etc/network",
    "/usr/lib/bridge-utils",
    "/usr/lib/ifupdown",
    "/usr/lib/NetworkManager",
    "/etc/frr",
    "/usr/bin/vtysh",
    "/usr/lib/x86_64-linux-gnu/frr",
    "/usr/lib/x86_64-linux-gnu/coreutils",
];

/// Modules that the tests' namespaces are made of.
pub(super) const MODULES: &[&str] = &[
    "veth",
    "bridge",
    "dummy",
    "ipip",
    "ip6_tunnel",
    "ip_gre",
    "ip6_gre",
    "sit",
    "tun",
    "fou",
    "fou6",
    "vxlan",
    "geneve",
    "vrf",
    "bonding",
    "8021q",
    "macvlan",
    "macvtap",
    "ipvlan",
    "ifb",
    "mpls_router",
    "mpls_iptunnel",
    "ip_vs",
    "ip_vs_rr",
    "sch_ingress",
    "cls_bpf",
    "virtio_net",
    "virtio_pci",
];

/// Writes the initramfs of a guest.
pub fn write(to: &Path, kernel: &Kernel, job: &Job) -> Result<()> {
    let mut archive = Archive::new(BufWriter::new(File::create(to)?));
    for folder in [
        "/proc",
        "/sys",
        "/dev",
        "/run",
        "/tmp",
        "/mnt",
        "/var/lib",
        "/var/log",
        "/root",
        "/etc/systemd/network",
    ] {
        archive.folder(Path::new(folder))?;
    }
    archive.device(Path::new("/dev/console"), 5, 1)?;
    // Merged /usr, and where D-Bus is looked for, as on this machine.
    for folder in ["/bin", "/sbin", "/lib", "/lib64", "/var/run"] {
        if let Ok(target) = fs::read_link(folder) {
            archive.link(Path::new(folder), &target)?;
        }
    }
    // Before this machine's: the first at a path is kept.
    for (from, to) in job.release.as_deref().map(release::files).transpose()?.unwrap_or_default() {
        archive.exactly(&from, &to)?;
    }
    let programs = PROGRAMS.iter().filter_map(|name| {
        if name.starts_with('/') {
            Some(PathBuf::from(name)).filter(|path| path.exists())
        } else {
            of_debian(name)
        }
    });
    let mut libraries = BTreeSet::new();
    for path in programs {
        archive.copy(&path)?;
        libraries.extend(libraries_of(&path));
    }
    for path in &job.files {
        archive.file(path, 0o755, &without_debug_info(path)?)?;
        libraries.extend(libraries_of(path));
    }
    for path in FILES.iter().map(Path::new).filter(|path| path.exists()) {
        archive.copy(path)?;
    }
    if Path::new("/usr/lib/x86_64-linux-gnu/frr").exists() {
        for module in fs::read_dir("/usr/lib/x86_64-linux-gnu/frr")?.filter_map(Result::ok) {
            libraries.extend(libraries_of(&module.path()));
        }
    }
    for path in &libraries {
        archive.copy(path)?;
    }
    add_modules(&mut archive, kernel)?;
    add_accounts(&mut archive)?;
    archive.file(Path::new("/job"), 0o755, format!("#!/bin/bash\n{}\n", job.command).as_bytes())?;
    match job.init {
        Init::Script => archive.file(Path::new("/init"), 0o755, init().as_bytes())?,
        Init::Systemd => systemd::add(&mut archive, job.release.is_some())?,
    }
    archive.finish()?;
    Ok(())
}

/// A program by its name, as Debian has it: a version manager's stand-in has no use in the guest.
fn of_debian(name: &str) -> Option<PathBuf> {
    let debian = ["/usr/bin", "/usr/sbin", "/bin", "/sbin"].iter().map(|dir| Path::new(dir).join(name));
    debian.into_iter().find(|path| path.exists()).or_else(|| find(name))
}

/// A file of the job, smaller where it is a program.
fn without_debug_info(path: &Path) -> Result<Vec<u8>> {
    let stripped = tempfile::NamedTempFile::new()?;
    let strip = Command::new("strip").arg("--strip-debug").arg("-o").arg(stripped.path()).arg(path).output();
    let file = if strip.is_ok_and(|output| output.status.success()) { stripped.path() } else { path };
    fs::read(file).with_context(|| format!("cannot read {}", path.display()))
}

pub(super) fn libraries_of(program: &Path) -> Vec<PathBuf> {
    let text = answer(Command::new("ldd").arg(program)).unwrap_or_default();
    text.split_whitespace()
        .filter(|word| word.starts_with('/'))
        .map(PathBuf::from)
        .filter(|p| p.exists())
        .collect()
}

/// The wanted modules with those they need, by `modules.dep`.
fn add_modules(archive: &mut Archive<impl std::io::Write>, kernel: &Kernel) -> Result<()> {
    let to = Path::new("/lib/modules").join(&kernel.release);
    let real = fs::canonicalize("/lib").context("/lib is not there")?;
    let to = real.join(to.strip_prefix("/lib")?);
    let list = fs::read_to_string(kernel.modules.join("modules.dep")).context("depmod has left no list")?;
    for line in list.lines() {
        let Some((module, needs)) = line.split_once(':') else { continue };
        let name = Path::new(module).file_name().unwrap_or_default().to_string_lossy();
        let name = name.split('.').next().unwrap_or_default().replace('-', "_");
        if MODULES.contains(&name.as_str()) {
            for file in std::iter::once(module).chain(needs.split_whitespace()) {
                archive.copy_as(&kernel.modules.join(file), &to.join(file))?;
            }
        }
    }
    for entry in fs::read_dir(&kernel.modules)?.filter_map(Result::ok) {
        if entry.file_name().to_string_lossy().starts_with("modules.") {
            archive.copy_as(&entry.path(), &to.join(entry.file_name()))?;
        }
    }
    Ok(())
}

/// The accounts that programs of the guest change to.
fn add_accounts(archive: &mut Archive<impl std::io::Write>) -> Result<()> {
    for (file, names) in [
        (
            "/etc/passwd",
            ["root:", "nobody:", "systemd-network:", "messagebus:", "dnsmasq:", "frr:"].as_slice(),
        ),
        (
            "/etc/group",
            &[
                "root:",
                "nogroup:",
                "systemd-network:",
                "messagebus:",
                "tty:",
                "disk:",
                "kmem:",
                "frr:",
                "frrvty:",
            ],
        ),
    ] {
        let text = fs::read_to_string(file)?;
        let kept: Vec<&str> =
            text.lines().filter(|line| names.iter().any(|name| line.starts_with(name))).collect();
        archive.file(Path::new(file), 0o644, (kept.join("\n") + "\n").as_bytes())?;
    }
    Ok(())
}

fn init() -> String {
    let modules = MODULES.join(" ");
    format!(
        r#"#!/bin/bash
export PATH=/usr/sbin:/usr/bin:/sbin:/bin HOME=/root
# The root that the kernel unpacks into cannot be exchanged (pivot_root(2)), a mount upon it can.
if [ -z "$ROOTED" ]; then
    mount --bind / /mnt && cd /mnt && mount --move . / && ROOTED=1 exec chroot . /init
fi
unset ROOTED
cd /
mount -t proc proc /proc
mount -t sysfs sysfs /sys
mount -t devtmpfs devtmpfs /dev
mkdir -p /dev/pts /dev/shm /sys/fs/cgroup
mount -t devpts devpts /dev/pts
mount -t tmpfs tmpfs /dev/shm
mount -t tmpfs tmpfs /run
chmod 1777 /tmp
mount -t cgroup2 cgroup2 /sys/fs/cgroup
mount -t tracefs tracefs /sys/kernel/tracing
mount -t bpf bpf /sys/fs/bpf
ln -s /proc/self/fd /dev/fd
echo 1 >/proc/sys/kernel/panic
echo guest >/proc/sys/kernel/hostname
# No network namespace gets tunnels (sit0, tunl0) that nobody asked for, as without these modules.
echo 1 >/proc/sys/net/core/fb_tunnels_only_for_init_net
for module in {modules}; do modprobe -q $module; done
ip link set lo up
stty -F /dev/ttyS1 raw 2>/dev/null
/job </dev/null >/dev/ttyS1 2>&1
echo "{ENDED}$?" >/dev/ttyS1
sync
sleep 0.2
echo o >/proc/sysrq-trigger
sleep 10
"#
    )
}
