//! The .deb comes, is followed by the next, and goes, on a clean Debian whose first process is not systemd.

use std::{fs, path::PathBuf, process::Command};

use anyhow::Result;

use super::{debian::Debian, package};
use crate::run;

pub const CONFIG: &str = "/etc/route-guardian/config.toml";
pub const ENABLED: &str = "test -L /etc/systemd/system/multi-user.target.wants/route-guardian.service";

/// Every path on the disk, but for what packagers note and what is a cache or a log.
pub const TREE: &str = "find / -xdev \\( -path /var/lib/dpkg -o -path /root/.rpmdb -o -path /var/log -o -path /var/cache \\) \
                        -prune -o -print | sort";

/// The package as the next release would have it: a higher version, and another configuration file.
pub fn next(dir: &tempfile::TempDir) -> Result<PathBuf> {
    let (tree, deb) = (dir.path().join("next"), dir.path().join("next.deb"));
    run(Command::new("dpkg-deb").arg("--raw-extract").arg(package("deb")?).arg(&tree))?;
    let control = tree.join("DEBIAN/control");
    let text = fs::read_to_string(&control)?;
    fs::write(&control, text.replace("\nVersion: ", "\nVersion: 1:"))?;
    let config = tree.join(CONFIG.trim_start_matches('/'));
    fs::write(&config, fs::read_to_string(&config)? + "# of the next release\n")?;
    // These are checked by nobody at an installation, and would be wrong.
    let _ = fs::remove_file(tree.join("DEBIAN/md5sums"));
    run(Command::new("dpkg-deb").args(["--root-owner-group", "-Znone", "--build"]).args([&tree, &deb]))?;
    Ok(deb)
}

#[test]
fn it_installs_upgrades_keeps_what_was_changed_and_purges_cleanly() -> Result<()> {
    let debian = Debian::asleep()?;
    let before = debian.sh(TREE)?;
    debian.install(&package("deb")?)?;
    assert!(debian.holds(ENABLED)?);
    debian.sh("route-guardian config check")?;

    debian.sh(&format!("echo 'mode = \"observe\"' > {CONFIG} && systemctl disable route-guardian"))?;
    let dir = tempfile::tempdir()?;
    debian.install(&next(&dir)?)?;
    assert_eq!(debian.sh("dpkg-query -W -f '${Version}' route-guardian")?.split(':').next(), Some("1"));
    assert_eq!(debian.sh(&format!("cat {CONFIG}"))?, "mode = \"observe\"", "the administrator's stays");
    assert!(debian.sh(&format!("cat {CONFIG}.dpkg-dist"))?.ends_with("# of the next release"));
    assert!(!debian.holds(ENABLED)?, "what was disabled stays so");

    debian.sh("mkdir -p /var/lib/route-guardian && touch /var/lib/route-guardian/desired.jsonl")?;
    debian.sh("dpkg --remove route-guardian")?;
    assert!(!debian.holds("test -e /usr/bin/route-guardian")?);
    assert!(debian.holds(&format!("test -e {CONFIG} && test -e /var/lib/route-guardian/desired.jsonl"))?);
    debian.sh("dpkg --purge route-guardian")?;
    assert_eq!(debian.sh(TREE)?, before, "nothing is left");
    Ok(())
}
