//! Debian packages.

use std::{
    env, fs,
    os::unix::fs::OpenOptionsExt,
    path::{Path, PathBuf},
    process::Command,
    time::{Duration, SystemTime},
};

use anyhow::{Context, Result, bail};

use crate::program::{answer, as_root, find, quietly, say};

/// A program, by name in PATH or by path, and the Debian package that has it.
pub type Wanted = (&'static str, &'static str);

/// What the demo uses.
pub const DEMO: &[Wanted] =
    &[("ip", "iproute2"), ("/lib/systemd/systemd-networkd", "systemd"), ("unshare", "util-linux")];

/// What the benchmark uses.
pub const BENCH: &[Wanted] = &[("ip", "iproute2"), ("bash", "bash"), ("/usr/lib/frr/zebra", "frr")];

/// What the namespace tests use; demo and benchmark use nothing besides.
pub const TESTS: &[Wanted] = &[
    ("ip", "iproute2"),
    ("/lib/systemd/systemd-networkd", "systemd"),
    ("unshare", "util-linux"),
    ("setpriv", "util-linux"),
    ("taskset", "util-linux"),
    ("bash", "bash"),
    ("promtool", "prometheus"),
    ("prometheus", "prometheus"),
    ("prometheus-alertmanager", "prometheus-alertmanager"),
    ("brctl", "bridge-utils"),
    ("ifconfig", "net-tools"),
    ("/usr/bin/python3", "python3"),
    ("busybox", "busybox"),
    ("networkctl", "systemd"),
    ("dbus-daemon", "dbus"),
    ("/usr/lib/frr/zebra", "frr"),
    ("bird", "bird2"),
    ("keepalived", "keepalived"),
    ("dhclient", "isc-dhcp-client"),
    ("dnsmasq", "dnsmasq-base"),
    ("ifup", "ifupdown"),
    ("NetworkManager", "network-manager"),
    ("chromium", "chromium"),
    ("systemd-analyze", "systemd"),
    ("mmdebstrap", "mmdebstrap"),
    ("dpkg-deb", "dpkg"),
    ("rpm2cpio", "rpm"),
    ("cpio", "cpio"),
    ("man", "man-db"),
    ("zsh", "zsh"),
    ("fish", "fish"),
    ("shellcheck", "shellcheck"),
    ("openssl", "openssl"),
];

/// Package lists older than this are fetched again before anything is installed.
const STALE: Duration = Duration::from_secs(24 * 3600);

/// Whether a wanted program is there.
pub fn is_there(program: &str) -> bool {
    if program.starts_with('/') { Path::new(program).exists() } else { find(program).is_some() }
}

/// Whether apt knows a package, after its lists have been made fresh.
pub fn is_known(package: &str) -> bool {
    refresh().is_ok()
        && answer(Command::new("apt-cache").args(["policy", package]))
            .is_some_and(|text| text.contains("Candidate: ") && !text.contains("Candidate: (none)"))
}

/// Installs packages; an error says what to install by hand where that is not possible.
pub fn install(packages: &[&str], what_for: &str) -> Result<()> {
    if packages.is_empty() {
        return Ok(());
    }
    let names = packages.join(" ");
    if find("apt-get").is_none() {
        bail!("{what_for} needs what Debian calls {names}: install it by hand, there is no apt-get here");
    }
    say(&format!("installing {names}, for {what_for}"));
    let by_hand = || format!("cannot install them; by hand: apt-get install {names}");
    refresh().with_context(by_hand)?;
    let _quiet = NoServices::new();
    let install = || -> Result<()> {
        quietly(apt_get()?.args(["install", "--yes", "--no-install-recommends"]).args(packages))
    };
    if install().is_err() {
        // A list that has been overtaken by a newer version is the usual reason.
        update().with_context(by_hand)?;
        install().with_context(by_hand)?;
    }
    Ok(())
}

fn apt_get() -> Result<Command> {
    let mut command = as_root("env", "installing packages")?;
    command.args(["DEBIAN_FRONTEND=noninteractive", "apt-get", "--quiet=2", "-o", "Acquire::Retries=3"]);
    Ok(command)
}

fn update() -> Result<()> {
    quietly(apt_get()?.arg("update"))
}

/// Fetches the package lists where there are none, or old ones.
fn refresh() -> Result<()> {
    let newest = fs::read_dir("/var/lib/apt/lists")
        .into_iter()
        .flatten()
        .filter_map(Result::ok)
        .filter(|entry| entry.file_name().to_string_lossy().contains("Packages"))
        .filter_map(|entry| entry.metadata().ok()?.modified().ok())
        .max();
    // The lists keep the date of the archive; the folder has that of the last update.
    let updated = fs::metadata("/var/lib/apt/lists").and_then(|folder| folder.modified()).ok();
    match (newest, updated) {
        (Some(_), Some(at)) if SystemTime::now().duration_since(at).is_ok_and(|age| age < STALE) => Ok(()),
        _ => {
            say("fetching the package lists");
            update()
        }
    }
}

/// While it lives, no package that is installed starts a service (`policy-rc.d`, Debian Policy 9.3.3.1): the
/// tests want FRR's programs, not FRR on this machine's own routes. Should this process be killed, the file
/// that it leaves no longer forbids anything.
struct NoServices {
    file: Option<PathBuf>,
}

impl NoServices {
    fn new() -> Self {
        let file = Path::new("/usr/sbin/policy-rc.d");
        let text = format!(
            "#!/bin/sh\n# By cargo xtask setup.\n[ ! -d /proc/{} ] || exit 101\n",
            std::process::id()
        );
        // Not a root's business to ask why: without it the packages are installed all the same.
        let made = fs::OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(0o755)
            .open(file)
            .and_then(|mut out| std::io::Write::write_all(&mut out, text.as_bytes()));
        Self { file: made.is_ok().then(|| file.into()) }
    }
}

impl Drop for NoServices {
    fn drop(&mut self) {
        if let Some(file) = self.file.take() {
            let _ = fs::remove_file(file);
        }
    }
}

/// Whether this is a run of continuous integration.
pub fn is_ci() -> bool {
    env::var_os("CI").is_some_and(|value| !value.is_empty() && value != "false")
}
