//! The .rpm comes, is followed by the next, and goes. The root is Debian's, as is the rpm that does it: its database knows
//! of no other package, so that what the .rpm depends on is not looked at.

use std::{fs, path::PathBuf, process::Command};

use anyhow::Result;

use super::{
    debian::Debian,
    life::{CONFIG, ENABLED, TREE},
    package,
};
use crate::{run, top};

/// Folders that on a Red Hat are there with the package `filesystem`, or with the shell.
const SHARED: &[&str] = &[
    "/usr/share/fish",
    "/usr/share/fish/vendor_completions.d",
    "/usr/share/licenses",
    "/usr/share/zsh",
    "/usr/share/zsh/site-functions",
];

/// The package as the next release would have it: a higher version, and another configuration file.
fn next(dir: &tempfile::TempDir) -> Result<PathBuf> {
    let (tree, spec) = (dir.path().join("tree"), dir.path().join("next.spec"));
    fs::create_dir(&tree)?;
    let unpack = "rpm2cpio \"$0\" | cpio --extract --make-directories --preserve-modification-time --quiet";
    run(Command::new("sh").args(["-c", unpack]).arg(package("rpm")?).current_dir(&tree))?;
    let config = tree.join(CONFIG.trim_start_matches('/'));
    fs::write(&config, fs::read_to_string(&config)? + "# of the next release\n")?;
    let list = "[%{FILEMODES:perms} %{FILENAMES}\\n]";
    let listed =
        run(Command::new("rpm").args(["--query", "--package", "--queryformat", list]).arg(package("rpm")?))?;
    let files: String = listed
        .lines()
        .filter_map(|line| line.split_once(' '))
        .map(|(mode, path)| match path {
            CONFIG => format!("%config(noreplace) {path}\n"),
            folder if mode.starts_with('d') => format!("%dir {folder}\n"),
            file => format!("{file}\n"),
        })
        .collect();
    let scripts = top().join("deploy/package/rpm");
    let script = |name: &str| scripts.join(name).display().to_string();
    let text = format!(
        "%define debug_package %{{nil}}\n%define __os_install_post %{{nil}}\n\
         Name: route-guardian\nVersion: 999\nRelease: 1\nSummary: next\nLicense: next\nAutoReqProv: no\n\
         %description\nnext\n\
         %install\ncp -a {}/. %{{buildroot}}\n\
         %post -f {}\n%preun -f {}\n%postun -f {}\n\
         %files\n{files}",
        tree.display(),
        script("post"),
        script("preun"),
        script("postun"),
    );
    fs::write(&spec, text)?;
    let top = format!("_topdir {}", dir.path().join("rpm").display());
    run(Command::new("rpmbuild").args(["-bb", "--define", &top]).arg(&spec))?;
    let arch = run(Command::new("rpm").args(["--eval", "%{_arch}"]))?;
    Ok(dir.path().join(format!("rpm/RPMS/{0}/route-guardian-999-1.{0}.rpm", arch.trim())))
}

impl Debian {
    /// Brings an .rpm in and installs it, or upgrades to it.
    fn rpm(&self, package: &std::path::Path) -> Result<()> {
        self.put("/tmp/package.rpm", &fs::read(package)?)?;
        self.sh("rpm --upgrade --nodeps /tmp/package.rpm && rm /tmp/package.rpm")?;
        Ok(())
    }
}

#[test]
fn it_installs_upgrades_keeps_what_was_changed_and_is_erased() -> Result<()> {
    let debian = Debian::asleep()?;
    let before = debian.sh(TREE)?;
    debian.rpm(&package("rpm")?)?;
    assert!(debian.holds(ENABLED)?, "by the preset, which is to enable everything in this root");
    debian.sh("route-guardian config check")?;
    assert_eq!(debian.sh("rpm --verify --nodeps route-guardian")?, "");

    debian.sh(&format!("echo 'mode = \"observe\"' > {CONFIG} && systemctl disable route-guardian"))?;
    let dir = tempfile::tempdir()?;
    debian.rpm(&next(&dir)?)?;
    assert_eq!(debian.sh("rpm --query --queryformat '%{VERSION}' route-guardian")?, "999");
    assert_eq!(debian.sh(&format!("cat {CONFIG}"))?, "mode = \"observe\"", "the administrator's stays");
    assert!(debian.sh(&format!("cat {CONFIG}.rpmnew"))?.ends_with("# of the next release"));
    assert!(!debian.holds(ENABLED)?, "what was disabled stays so");

    debian.sh("systemctl enable route-guardian && mkdir -p /var/lib/route-guardian")?;
    debian.sh("rpm --erase route-guardian")?;
    assert!(!debian.holds(ENABLED)?, "who is gone is not to be started");
    assert_eq!(debian.sh(&format!("cat {CONFIG}.rpmsave"))?, "mode = \"observe\"");
    debian.sh("rm -r /etc/route-guardian /var/lib/route-guardian")?;
    let after = debian.sh(TREE)?;
    let mut left: Vec<&str> =
        after.lines().filter(|path| !before.lines().any(|known| known == *path)).collect();
    left.retain(|path| !SHARED.contains(path));
    assert!(left.is_empty(), "left: {left:?}");
    assert!(before.lines().all(|path| after.lines().any(|known| known == path)), "something is missing");
    Ok(())
}

/// With systemd as the first process it is started, goes on as the next version, and ends.
#[test]
fn systemd_starts_upgrades_and_stops_it() -> Result<()> {
    let debian = Debian::booted()?;
    let pid = || debian.sh("systemctl show --property MainPID --value route-guardian");
    debian.rpm(&package("rpm")?)?;
    let first = pid()?;
    assert_eq!(debian.sh("systemctl is-active route-guardian")?, "active");
    let dir = tempfile::tempdir()?;
    debian.rpm(&next(&dir)?)?;
    assert_eq!(debian.sh("systemctl is-active route-guardian")?, "active");
    let second = pid()?;
    assert!(first != second, "the old one goes on: {first}");
    debian.sh("rpm --erase route-guardian")?;
    assert!(!debian.holds(&format!("test -e /proc/{second}"))?, "it runs no more");
    Ok(())
}
