//! What is in the packages.

use std::{fs, path::Path, process::Command};

use anyhow::{Context, Result};
use lab::Lab;

use super::package;
use crate::{run, said, top};

/// In both packages.
const BOTH: &[&str] = &[
    "/etc/route-guardian/config.toml",
    "/usr/bin/route-guardian",
    "/usr/lib/systemd/system/route-guardian.service",
    "/usr/share/bash-completion/completions/route-guardian",
    "/usr/share/doc/route-guardian/changelog.gz",
    "/usr/share/doc/route-guardian/systemd.md",
    "/usr/share/fish/vendor_completions.d/route-guardian.fish",
    "/usr/share/man/man5/route-guardian-config.5.gz",
];
const DEB: &[&str] =
    &["/usr/share/doc/route-guardian/copyright", "/usr/share/zsh/vendor-completions/_route-guardian"];
const RPM: &[&str] = &[
    "/usr/share/licenses/route-guardian/LICENSE-APACHE",
    "/usr/share/licenses/route-guardian/LICENSE-MIT",
    "/usr/share/zsh/site-functions/_route-guardian",
];

/// Every file has to be one of those expected, or a command's manual page.
fn holds_exactly(dir: &Path, more: &[&str]) -> Result<()> {
    let listed = run(Command::new("find").arg(dir).args(["-type", "f", "-printf", "/%P\n"]))?;
    let (pages, mut files): (Vec<&str>, Vec<&str>) =
        listed.lines().partition(|file| file.starts_with("/usr/share/man/man1/route-guardian"));
    let mut expected = [BOTH, more].concat();
    files.sort_unstable();
    expected.sort_unstable();
    assert_eq!(files, expected);
    // A folder that not everybody may enter would hide what other packages have there.
    let odd = run(Command::new("find").arg(dir).args(["-mindepth", "1", "-type", "d", "!", "-perm", "755"]))?;
    assert_eq!(odd, "", "folders of another mode");
    // A page for the program, and one for each command.
    let page =
        |name: &str| pages.contains(&format!("/usr/share/man/man1/route-guardian{name}.1.gz").as_str());
    assert!(page("") && page("-run") && page("-doctor") && page("-config-check"), "{pages:?}");
    let built = fs::read(lab::binary())?;
    assert!(fs::read(dir.join("usr/bin/route-guardian"))? == built, "it is not the binary that was built");
    let unit = |path: &Path| fs::read_to_string(path.join("route-guardian.service"));
    assert_eq!(unit(&dir.join("usr/lib/systemd/system"))?, unit(&top().join("deploy/systemd"))?);
    Ok(())
}

/// What is found to be wrong with a node's guardian can be looked up in what it was made from.
#[test]
fn the_binary_says_of_which_commit_it_is() -> Result<()> {
    let git = Command::new("git").current_dir(top()).args(["rev-parse", "--short=12", "HEAD"]).output();
    let git = git.ok().filter(|git| git.status.success() && top().join(".git").exists());
    let commit = git.map_or_else(|| "unknown".to_owned(), |git| said(&git));
    let lab = Lab::node()?;
    let metrics = lab.guardian().start()?.metrics()?;
    // More may follow: that there were changes.
    let label = format!("commit=\"{}", commit.trim());
    assert_eq!(metrics.sum("build_info", &[&label]), Some(1.0), "{label} is not in {}", metrics.0);
    Ok(())
}

#[test]
fn the_deb_holds_what_it_should() -> Result<()> {
    let dir = tempfile::tempdir()?;
    let deb = package("deb")?;
    run(Command::new("dpkg-deb").arg("--extract").args([&deb, dir.path()]))?;
    holds_exactly(dir.path(), DEB)?;
    let conffiles = run(Command::new("dpkg-deb").arg("--info").arg(&deb).arg("conffiles"))?;
    assert_eq!(conffiles.trim(), "/etc/route-guardian/config.toml");
    // It has to be installable where its C library is.
    let depends = run(Command::new("dpkg-deb").arg("--field").arg(&deb).arg("Depends"))?;
    assert!(depends.contains("libc6 (>= 2."), "{depends}");
    readable(dir.path())
}

#[test]
fn the_rpm_holds_what_it_should() -> Result<()> {
    let dir = tempfile::tempdir()?;
    let rpm = package("rpm")?;
    let unpack = "rpm2cpio \"$0\" | cpio --extract --make-directories --quiet";
    run(Command::new("sh").args(["-c", unpack]).arg(&rpm).current_dir(dir.path()))?;
    holds_exactly(dir.path(), RPM)?;
    let ask = |what: &str| run(Command::new("rpm").args(["--query", "--package", what]).arg(&rpm));
    assert_eq!(ask("--configfiles")?.trim(), "/etc/route-guardian/config.toml");
    let requires = ask("--requires")?;
    assert!(requires.contains("libc.so.6(GLIBC_2."), "{requires}");
    let scripts = ask("--scripts")?;
    for script in ["postinstall", "preuninstall", "postuninstall"] {
        assert!(scripts.contains(&format!("{script} scriptlet")), "{scripts}");
    }
    Ok(())
}

/// Manual pages, completions and configuration are understood by those that they are for.
fn readable(dir: &Path) -> Result<()> {
    let pages = ["man1", "man5"].map(|section| fs::read_dir(dir.join("usr/share/man").join(section)));
    for page in pages.into_iter().collect::<Result<Vec<_>, _>>()?.into_iter().flatten() {
        let page = page?.path();
        // Without -Z the pager's formatting hides what groff says.
        let mut man = Command::new("man");
        man.args(["--warnings", "-E", "UTF-8", "-l", "-Tutf8", "-Z"]).arg(&page).env("MANWIDTH", "80");
        let output = man.env("LC_ALL", "C.UTF-8").output()?;
        let complaints = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success() && complaints.is_empty(), "{}: {complaints}", page.display());
    }
    let share = dir.join("usr/share");
    for (shell, script) in [
        ("bash", "bash-completion/completions/route-guardian"),
        ("zsh", "zsh/vendor-completions/_route-guardian"),
        ("fish", "fish/vendor_completions.d/route-guardian.fish"),
    ] {
        let output = Command::new(shell).arg("-n").arg(share.join(script)).output();
        let output = output.with_context(|| format!("cannot run {shell}"))?;
        assert!(output.status.success() && said(&output).is_empty(), "{shell}: {}", said(&output));
    }
    let config = dir.join("etc/route-guardian/config.toml");
    let show = |file: &Path| run(Command::new(lab::binary()).args(["config", "show", "--config"]).arg(file));
    let empty = dir.join("empty.toml");
    fs::write(&empty, "")?;
    assert_eq!(show(&config)?, show(&empty)?, "it changes no default");
    let text = fs::read_to_string(&config)?;
    // Explanations begin with a space.
    let lines = text.lines().filter(|line| !line.starts_with("# "));
    let uncommented: String =
        lines.map(|line| line.strip_prefix('#').unwrap_or(line).to_owned() + "\n").collect();
    fs::write(&config, uncommented)?;
    assert_eq!(show(&config)?, show(&empty)?, "what it says are the defaults");
    Ok(())
}

#[test]
fn shellcheck_has_nothing_to_say_about_the_scripts() -> Result<()> {
    let folder = top().join("deploy/package");
    let mut scripts = Vec::new();
    for kind in ["deb", "rpm"] {
        for file in fs::read_dir(folder.join(kind))? {
            let path = file?.path();
            if fs::read(&path)?.starts_with(b"#!") {
                scripts.push(path);
            }
        }
    }
    assert_eq!(scripts.len(), 6, "{scripts:?}");
    run(Command::new("shellcheck").args(scripts))?;
    Ok(())
}
