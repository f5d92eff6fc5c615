//! systemd of another release of Debian in the guest, in place of this machine's.
//!
//! What it needs of the C library and others comes with it: newer ones serve this machine's programs too.

use std::{
    fs,
    path::{Path, PathBuf},
};

use anyhow::{Context, Result};

use super::{archive::Archive, kernel};
use crate::program::say;

/// What is taken of the release: systemd, and the libraries that it is linked with or opens.
const PACKAGES: &[&str] = &[
    "systemd",
    "systemd-sysv",
    "udev",
    "libsystemd0",
    "libsystemd-shared",
    "libudev1",
    "libc6",
    "libgcc-s1",
    "libacl1",
    "libapparmor1",
    "libaudit1",
    "libblkid1",
    "libcap2",
    "libcap-ng0",
    "libcrypt1",
    "libkmod2",
    "liblz4-1",
    "liblzma5",
    "libmount1",
    "libpam0g",
    "libpcre2-8-0",
    "libseccomp2",
    "libselinux1",
    "libssl3t64",
    "libuuid1",
    "libzstd1",
    "zlib1g",
];

/// Of these packages, what no guest reads.
pub(super) const LEFT_OUT: &[&str] =
    &["/usr/share/doc", "/usr/share/man", "/usr/share/locale", "/usr/share/bash-completion"];

/// The packages' files as they lie in the guest, each with where it is found here; fetched once.
///
/// # Errors
/// Where apt cannot fetch one of them: there is no such release, or it has no such package.
pub fn files(release: &str) -> Result<Vec<(PathBuf, PathBuf)>> {
    let dir = kernel::cache()?.join("releases").join(release);
    if !dir.join("complete").exists() {
        fs::create_dir_all(&dir)?;
        let archive = Archive::others(&kernel::cache()?.join("lists"))?;
        say(&format!("fetching systemd of {release}"));
        for package in PACKAGES {
            archive
                .unpack(&format!("{package}/{release}"), &dir)
                .with_context(|| format!("Debian's {release} has no {package}, or it cannot be fetched"))?;
        }
        fs::write(dir.join("complete"), "")?;
    }
    let mut files = Vec::new();
    collect(&dir.join("root"), Path::new("/"), &mut files)?;
    Ok(files)
}

/// Everything below `from` but folders, as it lies below `to`.
fn collect(from: &Path, to: &Path, files: &mut Vec<(PathBuf, PathBuf)>) -> Result<()> {
    let entries = fs::read_dir(from).with_context(|| format!("{} is not there", from.display()))?;
    for entry in entries {
        let entry = entry?;
        let to = to.join(entry.file_name());
        if LEFT_OUT.iter().any(|folder| to.starts_with(folder)) {
            continue;
        }
        if entry.file_type()?.is_dir() {
            collect(&entry.path(), &to, files)?;
        } else {
            files.push((entry.path(), merged(&to)));
        }
    }
    Ok(())
}

/// Where a file is with a merged /usr.
fn merged(path: &Path) -> PathBuf {
    let inside = path.strip_prefix("/").unwrap_or(path);
    let below_usr = ["bin", "sbin", "lib", "lib64"].iter().any(|folder| inside.starts_with(folder));
    if below_usr { Path::new("/usr").join(inside) } else { path.to_owned() }
}
