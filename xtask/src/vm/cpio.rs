//! The initramfs format, `newc` (`Documentation/driver-api/early-userspace/buffer-format.rst`).

use std::{
    collections::BTreeSet,
    fs,
    io::{self, Write},
    os::unix::fs::{MetadataExt, PermissionsExt},
    path::{Path, PathBuf},
};

use anyhow::{Context, Result};

const FOLDER: u32 = 0o040_000;
const FILE: u32 = 0o100_000;
const LINK: u32 = 0o120_000;
const CHARACTER: u32 = 0o020_000;

/// An archive that is being written.
pub struct Archive<W: Write> {
    out: W,
    position: u64,
    inode: u32,
    there: BTreeSet<PathBuf>,
}

impl<W: Write> Archive<W> {
    pub fn new(out: W) -> Self {
        Self { out, position: 0, inode: 0, there: BTreeSet::new() }
    }

    /// A folder, with those it lies in.
    pub fn folder(&mut self, path: &Path) -> Result<()> {
        let ancestors: Vec<&Path> = path.ancestors().filter(|a| a.parent().is_some()).collect();
        for folder in ancestors.into_iter().rev() {
            if self.there.insert(folder.to_owned()) {
                self.entry(folder, FOLDER | 0o755, (0, 0), b"")?;
            }
        }
        Ok(())
    }

    /// A file with this content.
    pub fn file(&mut self, path: &Path, mode: u32, content: &[u8]) -> Result<()> {
        self.place(path)?;
        if self.there.insert(path.to_owned()) {
            self.entry(path, FILE | mode, (0, 0), content)?;
        }
        Ok(())
    }

    /// A character device.
    pub fn device(&mut self, path: &Path, major: u32, minor: u32) -> Result<()> {
        self.place(path)?;
        self.entry(path, CHARACTER | 0o600, (major, minor), b"")
    }

    /// A symbolic link.
    pub fn link(&mut self, path: &Path, target: &Path) -> Result<()> {
        self.place(path)?;
        if self.there.insert(path.to_owned()) {
            self.entry(path, LINK | 0o777, (0, 0), target.as_os_str().as_encoded_bytes())?;
        }
        Ok(())
    }

    /// A file, link or folder of this machine at the same path, links followed to what they point to, folders
    /// with all that is in them.
    pub fn copy(&mut self, path: &Path) -> Result<()> {
        // Through merged /usr the same file has many paths: links are kept as links.
        for ancestor in path.ancestors().collect::<Vec<_>>().into_iter().rev().skip(1) {
            if ancestor != path && fs::symlink_metadata(ancestor).is_ok_and(|meta| meta.is_symlink()) {
                let target = fs::read_link(ancestor)?;
                self.link(ancestor, &target)?;
                let resolved = ancestor.parent().unwrap_or(ancestor).join(target);
                return self.copy(&resolved.join(path.strip_prefix(ancestor)?));
            }
        }
        self.copy_as(path, path)
    }

    /// What is at `from` on this machine, at `to` in the guest.
    pub fn copy_as(&mut self, from: &Path, to: &Path) -> Result<()> {
        let meta = fs::symlink_metadata(from).with_context(|| format!("{} is not there", from.display()))?;
        // A folder may be there for the sake of one file.
        if !meta.is_dir() && self.there.contains(to) {
            return Ok(());
        }
        if meta.is_symlink() {
            let target = fs::read_link(from)?;
            self.link(to, &target)?;
            let parent = from.parent().unwrap_or(Path::new("/"));
            return self.copy(&parent.join(target));
        }
        if meta.is_dir() {
            self.folder(to)?;
            let mut inside: Vec<_> = fs::read_dir(from)?.collect::<io::Result<_>>()?;
            inside.sort_by_key(fs::DirEntry::file_name);
            for entry in inside {
                self.copy_as(&entry.path(), &to.join(entry.file_name()))?;
            }
            return Ok(());
        }
        let content = fs::read(from).with_context(|| format!("cannot read {}", from.display()))?;
        self.file(to, meta.permissions().mode() & 0o7777, &content)?;
        debug_assert_eq!(meta.size(), content.len() as u64);
        Ok(())
    }

    /// What is at `from` on this machine, at `to` in the guest; a link as it is, whatever it points to.
    pub fn exactly(&mut self, from: &Path, to: &Path) -> Result<()> {
        match fs::read_link(from) {
            Ok(target) => self.link(to, &target),
            Err(_) => self.copy_as(from, to),
        }
    }

    /// Ends the archive.
    pub fn finish(mut self) -> Result<W> {
        self.entry(Path::new("/TRAILER!!!"), 0, (0, 0), b"")?;
        Ok(self.out)
    }

    fn place(&mut self, path: &Path) -> Result<()> {
        path.parent().map_or(Ok(()), |parent| self.folder(parent))
    }

    fn entry(&mut self, path: &Path, mode: u32, device: (u32, u32), content: &[u8]) -> Result<()> {
        let name = path.strip_prefix("/").unwrap_or(path).as_os_str().as_encoded_bytes();
        self.inode += 1;
        let fields = [
            self.inode,
            mode,
            0,
            0,
            1,
            0,
            u32::try_from(content.len()).context("a file is too large for an initramfs")?,
            0,
            0,
            device.0,
            device.1,
            u32::try_from(name.len() + 1)?,
            0,
        ];
        let mut head = b"070701".to_vec();
        for field in fields {
            write!(head, "{field:08x}")?;
        }
        head.extend(name);
        head.push(0);
        self.bytes(&head)?;
        self.bytes(content)
    }

    /// Writes, and fills up to four bytes.
    fn bytes(&mut self, bytes: &[u8]) -> Result<()> {
        self.out.write_all(bytes)?;
        self.position += bytes.len() as u64;
        let fill = self.position.next_multiple_of(4) - self.position;
        self.out.write_all(&[0; 4][..usize::try_from(fill)?])?;
        self.position += fill;
        Ok(())
    }
}
