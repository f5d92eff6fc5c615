//! Debian's kernels, unpacked and not installed.

use std::{
    env, fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context, Result, bail, ensure};

use crate::program::{answer, quietly, say};

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
    let package = newest(series)?;
    let dir = cache()?.join(&package);
    if !dir.join("complete").exists() {
        fs::create_dir_all(&dir)?;
        say(&format!("fetching {package}"));
        let deb = fetch(&package, &dir)?;
        quietly(Command::new("dpkg-deb").arg("-x").arg(&deb).arg(dir.join("root")))?;
        fs::remove_file(deb)?;
        let release = only(&dir.join("root/lib/modules"))?;
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
fn cache() -> Result<PathBuf> {
    let home = || env::var_os("HOME").map(|home| Path::new(&home).join(".cache"));
    let base = env::var_os("XDG_CACHE_HOME").map(PathBuf::from).or_else(home);
    Ok(base.context("neither XDG_CACHE_HOME nor HOME is set")?.join("route-guardian/kernels"))
}

fn newest(series: &str) -> Result<String> {
    let pattern = format!("^linux-image-{}\\..*-cloud-amd64$", series.replace('.', "\\."));
    let found =
        answer(Command::new("apt-cache").args(["search", "--names-only", &pattern])).unwrap_or_default();
    let mut names: Vec<&str> = found.lines().filter_map(|line| line.split(' ').next()).collect();
    names.sort_by_key(|name| numbers(name));
    match names.last() {
        Some(name) => Ok((*name).to_owned()),
        // What was fetched once serves where the lists are not there.
        None => fetched(series)?.with_context(|| {
            format!("apt knows no cloud kernel of the series {series}: try 6.1 or 6.12, after apt-get update")
        }),
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

/// Fetches a package without installing it, by the address and the checksum that apt has of it.
fn fetch(package: &str, dir: &Path) -> Result<PathBuf> {
    let line = answer(Command::new("apt-get").args(["download", "--print-uris", package]))
        .with_context(|| format!("apt does not know where {package} is"))?;
    let mut words = line.split_whitespace();
    let (Some(uri), Some(_), Some(_), Some(sum)) = (words.next(), words.next(), words.next(), words.next())
    else {
        bail!("apt says of {package} only: {line}");
    };
    let deb = dir.join("package.deb");
    quietly(
        Command::new("curl").args(["-sSfL", "--retry", "3", "-o"]).arg(&deb).arg(uri.trim_matches('\'')),
    )?;
    if let Some(wanted) = sum.strip_prefix("SHA256:") {
        let sums = answer(Command::new("sha256sum").arg(&deb)).context("cannot check what was fetched")?;
        ensure!(sums.starts_with(wanted), "{package} came with a wrong checksum");
    }
    Ok(deb)
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
