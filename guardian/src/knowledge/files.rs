//! Files that a remedy writes: what is there, what would change, and the writing.

use std::{
    fs::{self, File},
    io::{self, Write as _},
    os::unix::fs::OpenOptionsExt as _,
    path::{Path, PathBuf},
};

use serde::Serialize;

/// The first line of every file that is written here. One without it is somebody else's.
const MARK: &str =
    "# Written by route-guardian doctor --fix. While this line is here, it may write this file again.";

/// What is in a file's place.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum FileState {
    /// Nothing.
    Absent,
    /// What belongs there.
    Right,
    /// What an earlier version of the guardian has written.
    Outdated,
    /// Somebody else's file.
    Foreign,
}

/// Why a file was not written.
#[derive(Debug, thiserror::Error)]
pub enum WriteError {
    /// It is somebody else's.
    #[error("{0} is there and was not written by the guardian: add the lines to it by hand")]
    Foreign(PathBuf),
    /// The kernel refused.
    #[error("cannot write {path}: {error}")]
    Io {
        /// The file.
        path: PathBuf,
        /// What the kernel said.
        error: io::Error,
    },
}

/// A file that belongs to a remedy.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct FileFix {
    /// Its path as the program that reads it names it.
    pub path: PathBuf,
    /// What it is for.
    pub purpose: String,
    /// Its whole text.
    pub text: String,
    /// What is in its place.
    pub state: FileState,
    /// As a unified diff.
    pub diff: String,
    #[serde(skip)]
    on_disk: PathBuf,
}

impl FileFix {
    /// A file of these lines; `root` is where the node's root folder is.
    pub fn new(root: &Path, path: impl Into<PathBuf>, purpose: impl Into<String>, lines: &[String]) -> Self {
        let path = path.into();
        let on_disk = root.join(path.strip_prefix("/").unwrap_or(&path));
        let text = format!("{MARK}\n{}\n", lines.join("\n"));
        let there = fs::read(&on_disk).map(|bytes| String::from_utf8_lossy(&bytes).into_owned());
        let state = match &there {
            // What cannot be read is somebody's.
            Err(error) if error.kind() != io::ErrorKind::NotFound => FileState::Foreign,
            Err(_) if fs::symlink_metadata(&on_disk).is_ok() => FileState::Foreign,
            Err(_) => FileState::Absent,
            Ok(there) if *there == text => FileState::Right,
            Ok(there) if there.lines().next() == Some(MARK) => FileState::Outdated,
            Ok(_) => FileState::Foreign,
        };
        let diff = diff(&path, there.as_deref().unwrap_or_default(), &text, state);
        Self { path, purpose: purpose.into(), text, state, diff, on_disk }
    }

    /// Writes it, whole or not at all, and its folder where that is absent; whether anything was to be written.
    ///
    /// # Errors
    /// Where somebody else's file is in its place, and those of the kernel.
    pub fn write(&self) -> Result<bool, WriteError> {
        match self.state {
            FileState::Right => Ok(false),
            FileState::Foreign => Err(WriteError::Foreign(self.path.clone())),
            FileState::Absent | FileState::Outdated => {
                self.replace().map_err(|error| WriteError::Io { path: self.path.clone(), error })?;
                Ok(true)
            }
        }
    }

    fn replace(&self) -> io::Result<()> {
        let folder = self.on_disk.parent().ok_or(io::ErrorKind::InvalidInput)?;
        fs::create_dir_all(folder)?;
        // No reader takes a name that ends so for configuration.
        let beside = self.on_disk.with_extension(format!("route-guardian-{}~", std::process::id()));
        let mut file = File::options().write(true).create_new(true).mode(0o644).open(&beside)?;
        let written = file.write_all(self.text.as_bytes()).and_then(|()| file.sync_all());
        let placed = written.and_then(|()| match self.state {
            // Never over a file that has come meanwhile.
            FileState::Absent => {
                fs::hard_link(&beside, &self.on_disk).and_then(|()| fs::remove_file(&beside))
            }
            _ => fs::rename(&beside, &self.on_disk),
        });
        if let Err(error) = placed {
            // The first error is the news.
            let _ = fs::remove_file(&beside);
            return Err(error);
        }
        File::open(folder)?.sync_all()
    }
}

fn diff(path: &Path, there: &str, text: &str, state: FileState) -> String {
    if state == FileState::Right {
        return String::new();
    }
    let from = if state == FileState::Absent { "/dev/null".to_owned() } else { path.display().to_string() };
    similar::TextDiff::from_lines(there, text)
        .unified_diff()
        .header(&from, &path.display().to_string())
        .to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fix(root: &Path, line: &str) -> FileFix {
        FileFix::new(root, "/etc/x.d/10-x.conf", "a test", &[line.to_owned()])
    }

    #[test]
    fn a_file_is_written_and_brought_up_to_date() {
        let root = tempfile::tempdir().unwrap();
        let first = fix(root.path(), "a=1");
        assert_eq!(first.state, FileState::Absent);
        assert!(
            first.diff.contains("--- /dev/null\n+++ /etc/x.d/10-x.conf\n") && first.diff.contains("+a=1\n")
        );
        assert!(first.write().unwrap());
        let again = fix(root.path(), "a=1");
        assert_eq!((again.state, again.diff.as_str()), (FileState::Right, ""));
        assert!(!again.write().unwrap());
        let other = fix(root.path(), "a=2");
        assert_eq!(other.state, FileState::Outdated);
        assert!(other.diff.contains("-a=1\n+a=2\n"), "{}", other.diff);
        assert!(other.write().unwrap());
        let names: Vec<_> =
            fs::read_dir(root.path().join("etc/x.d")).unwrap().map(|f| f.unwrap().file_name()).collect();
        assert_eq!(names, ["10-x.conf"], "nothing is left beside it");
        assert_eq!(fs::read_to_string(root.path().join("etc/x.d/10-x.conf")).unwrap(), other.text);
    }

    #[test]
    fn nobody_elses_file_is_touched() {
        let root = tempfile::tempdir().unwrap();
        let path = root.path().join("etc/x.d/10-x.conf");
        // It may come between the look and the writing.
        let early = fix(root.path(), "a=1");
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&path, "mine=1\n").unwrap();
        early.write().unwrap_err();
        let fix = fix(root.path(), "a=1");
        assert_eq!(fix.state, FileState::Foreign);
        assert!(matches!(fix.write(), Err(WriteError::Foreign(_))));
        assert_eq!(fs::read_to_string(&path).unwrap(), "mine=1\n");
    }
}
