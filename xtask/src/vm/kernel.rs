//! Debian's kernels, unpacked and not installed.

use std::{
    env, fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context, Result, bail};

use super::archive::Archive;
use crate::program::{quietly, say};

/// A kernel of Debian's archive.
pub struct Kernel {
    /// What `uname -r` says in the guest.
    pub release: String,
    /// The image that QEMU starts.
    pub image: PathBuf,
    /// The folder with its modules, `depmod` run.
    pub modules: PathBuf,
}

/// The newest cloud kernel of a series that apt knows; fetched once.
pub fn find(series: &str) -> Result<Kernel> {
    let (package, archive) = newest(series)?;
    let dir = cache()?.join(&package);
    if !dir.join("complete").exists() {
        fs::create_dir_all(&dir)?;
        say(&format!("fetching {package}"));
        let archive = archive.with_context(|| format!("{package} was fetched in part, and cannot be now"))?;
        archive.unpack(&package, &dir)?;
        // Since Debian 13 all is below /usr.
        if !dir.join("root/lib").exists() {
            std::os::unix::fs::symlink("usr/lib", dir.join("root/lib"))?;
        }
        let release = only(&dir.join("root/lib/modules")).with_context(|| {
            format!("{package} has its modules in a package of its own, which is not looked into")
        })?;
        quietly(Command::new("depmod").arg("-b").arg(dir.join("root")).arg(&release))?;
        fs::write(dir.join("complete"), "")?;
    }
    let release = only(&dir.join("root/lib/modules"))?;
    Ok(Kernel {
        image: dir.join("root/boot").join(format!("vmlinuz-{release}")),
        modules: dir.join("root/lib/modules").join(&release),
        release,
    })
}

/// Kept for all checkouts: the kernels are large, and the same for all.
pub(super) fn cache() -> Result<PathBuf> {
    let home = || env::var_os("HOME").map(|home| Path::new(&home).join(".cache"));
    let base = env::var_os("XDG_CACHE_HOME").map(PathBuf::from).or_else(home);
    Ok(base.context("neither XDG_CACHE_HOME nor HOME is set")?.join("route-guardian/kernels"))
}

/// The newest kernel of a series, and the archive that has it; `None` for one that was fetched before and serves where
/// the lists are not there.
fn newest(series: &str) -> Result<(String, Option<Archive>)> {
    let pattern = format!("^linux-image-{}\\..*-cloud-amd64$", series.replace('.', "\\."));
    let last = |archive: &Archive| archive.named(&pattern).into_iter().max_by_key(|name| numbers(name));
    let own = Archive::own();
    if let Some(name) = last(&own) {
        return Ok((name, Some(own)));
    }
    let others = Archive::others(&cache()?.join("lists"));
    if let Ok(others) = &others
        && let Some(name) = last(others)
    {
        return Ok((name, Some(others.clone())));
    }
    match (fetched(series)?, others) {
        (Some(name), _) => Ok((name, None)),
        (None, Err(error)) => Err(error),
        (None, Ok(_)) => bail!("Debian has no cloud kernel of the series {series}: try 6.1 or 6.12"),
    }
}

fn fetched(series: &str) -> Result<Option<String>> {
    let prefix = format!("linux-image-{series}.");
    let names = fs::read_dir(cache()?).into_iter().flatten().filter_map(Result::ok);
    Ok(names
        .map(|entry| entry.file_name().to_string_lossy().into_owned())
        .filter(|name| name.starts_with(&prefix))
        .max_by_key(|name| numbers(name)))
}

/// The numbers in a name, to compare by.
fn numbers(name: &str) -> Vec<u64> {
    name.split(|c: char| !c.is_ascii_digit()).filter_map(|part| part.parse().ok()).collect()
}

/// The name of the only thing in a folder.
fn only(dir: &Path) -> Result<String> {
    let names: Vec<_> = fs::read_dir(dir)
        .with_context(|| format!("{} is not there", dir.display()))?
        .filter_map(Result::ok)
        .map(|entry| entry.file_name().to_string_lossy().into_owned())
        .collect();
    match names.as_slice() {
        [name] => Ok(name.clone()),
        _ => bail!("{} should have one folder in it", dir.display()),
    }
}
