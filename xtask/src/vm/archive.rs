//! Debian's archive, as apt knows it: that of this machine, and that of Debian's other releases beside it, with lists of
//! their own. Nothing is installed.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
    time::{Duration, SystemTime},
};

use anyhow::{Context, Result};

use crate::program::{answer, quietly, say};

/// The suites that are looked into where this machine's own have no such kernel, with the keys that this machine
/// already trusts.
const SUITES: &[&str] = &["bullseye", "bookworm", "bookworm-backports", "trixie", "trixie-backports"];

/// Lists older than this are fetched again.
const STALE: Duration = Duration::from_secs(24 * 3600);

/// A set of package lists.
#[derive(Clone, Debug)]
pub struct Archive {
    /// What apt is told to look at them.
    options: Vec<String>,
}

impl Archive {
    /// What this machine installs from.
    pub const fn own() -> Self {
        Self { options: Vec::new() }
    }

    /// Debian's other releases, at the mirror that this machine uses; their lists are kept below `dir`.
    pub fn others(dir: &Path) -> Result<Self> {
        for folder in ["lists/partial", "cache/archives/partial"] {
            fs::create_dir_all(dir.join(folder))?;
        }
        let sources = dir.join("sources.list");
        let mirror = mirror().context("apt does not say where it gets Debian from")?;
        let lines: Vec<String> = SUITES.iter().map(|suite| format!("deb {mirror} {suite} main")).collect();
        let lines = lines.join("\n") + "\n";
        let place = dir.display();
        let options = [
            format!("Dir::Etc::sourcelist={}", sources.display()),
            "Dir::Etc::sourceparts=-".into(),
            format!("Dir::State::lists={place}/lists"),
            format!("Dir::Cache={place}/cache"),
            // Names of programs and screenshots are of no use here.
            "Acquire::IndexTargets::deb::DEP-11::DefaultEnabled=false".into(),
            "Acquire::IndexTargets::deb::Contents-deb::DefaultEnabled=false".into(),
        ];
        let archive =
            Self { options: options.into_iter().flat_map(|option| ["-o".into(), option]).collect() };
        let updated = fs::metadata(dir.join("updated")).and_then(|meta| meta.modified());
        let is_fresh =
            updated.is_ok_and(|at| SystemTime::now().duration_since(at).is_ok_and(|age| age < STALE));
        if !is_fresh || fs::read_to_string(&sources).is_ok_and(|old| old != lines) {
            say("fetching the package lists of Debian's other releases");
            fs::write(&sources, lines)?;
            // A release that is not there any more must not keep the others away.
            match quietly(&mut archive.apt("apt-get", &["--quiet=2", "update"])) {
                Ok(()) => fs::write(dir.join("updated"), "")?,
                Err(error) => say(&format!("not all package lists came: {error:#}")),
            }
        }
        Ok(archive)
    }

    fn apt(&self, program: &str, words: &[&str]) -> Command {
        let mut command = Command::new(program);
        command.args(&self.options).args(words);
        command
    }

    /// The packages whose name matches this regular expression.
    pub fn named(&self, pattern: &str) -> Vec<String> {
        let found =
            answer(&mut self.apt("apt-cache", &["search", "--names-only", pattern])).unwrap_or_default();
        found.lines().filter_map(|line| line.split(' ').next()).map(str::to_owned).collect()
    }

    /// Fetches a package and unpacks it to `root` below `dir`.
    pub fn unpack(&self, package: &str, dir: &Path) -> Result<()> {
        let deb = self.fetch(package, dir)?;
        quietly(Command::new("dpkg-deb").arg("-x").arg(&deb).arg(dir.join("root")))?;
        fs::remove_file(&deb).with_context(|| format!("cannot remove {}", deb.display()))
    }

    /// Fetches a package without installing it: apt checks what comes.
    fn fetch(&self, package: &str, dir: &Path) -> Result<PathBuf> {
        let folder = dir.join("fetched");
        fs::create_dir_all(&folder)?;
        quietly(self.apt("apt-get", &["--quiet=2", "download", package]).current_dir(&folder))?;
        let mut debs = fs::read_dir(&folder)?.filter_map(|entry| entry.ok().map(|entry| entry.path()));
        debs.find(|path| path.extension().is_some_and(|extension| extension == "deb"))
            .with_context(|| format!("apt has fetched no {package}"))
    }
}

/// Where this machine gets Debian's releases from.
fn mirror() -> Option<String> {
    let words = ["indextargets", "--format", "$(REPO_URI) $(ORIGIN) $(CODENAME)", "Created-By: Packages"];
    let text = answer(Command::new("apt-get").args(words))?;
    let mut targets = text.lines().filter_map(|line| {
        let fields: Vec<&str> = line.split(' ').collect();
        // Not that of security updates, which has no other suites.
        matches!(fields.as_slice(), [_, "Debian", name] if !name.contains('-')).then(|| fields[0].to_owned())
    });
    targets.next()
}
