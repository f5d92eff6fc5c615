//! The journal: event records as JSON lines in the state folder, rotated by size.
//!
//! `events.jsonl` is written; `events.1.jsonl` is the newest of the full ones. A line is one
//! [`EventRecord`]; a later line with the same id supersedes an earlier one. A write that fails (the disk is
//! full) is never fatal: the lines wait in a bounded queue, and what falls out of it is counted.

use std::{
    collections::VecDeque,
    fs::{self, DirBuilder, File, OpenOptions},
    io::{self, Seek as _, SeekFrom, Write as _},
    os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _},
    path::{Path, PathBuf},
};

use crate::model::record::EventRecord;

/// The files that a journal consists of, the written one included.
const SEGMENTS: u32 = 4;

/// The most lines that wait while the disk refuses them.
const WAITING_MAX: usize = 4096;

/// Why the state folder cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum StateError {
    /// It cannot be made.
    #[error(
        "cannot make the state folder {dir}: {error}; set [state] dir or --state-dir to a folder that can be written"
    )]
    Make {
        /// The folder.
        dir: PathBuf,
        /// What the kernel said.
        error: io::Error,
    },
    /// It cannot be written.
    #[error(
        "cannot write to the state folder {dir}: {error}; set [state] dir or --state-dir to a folder that can be written"
    )]
    Write {
        /// The folder.
        dir: PathBuf,
        /// What the kernel said.
        error: io::Error,
    },
}

/// Makes the state folder (mode 0750, its parents as the umask has it) and checks that it can be written.
pub fn prepare(dir: &Path) -> Result<(), StateError> {
    let make = |error| StateError::Make { dir: dir.to_owned(), error };
    if let Some(parent) = dir.parent() {
        fs::create_dir_all(parent).map_err(make)?;
    }
    match DirBuilder::new().mode(0o750).create(dir) {
        Ok(()) => {}
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists && dir.is_dir() => {}
        Err(error) => return Err(make(error)),
    }
    // Permissions alone do not say it: the file system may be read-only or full.
    let probe = dir.join(format!(".probe-{}", std::process::id()));
    let written = fs::write(&probe, b"ok\n");
    let removed = fs::remove_file(&probe);
    written.and(removed).map_err(|error| StateError::Write { dir: dir.to_owned(), error })
}

/// The path of a segment: 0 is the one that is written, higher ones are older.
fn segment(dir: &Path, number: u32) -> PathBuf {
    match number {
        0 => dir.join("events.jsonl"),
        n => dir.join(format!("events.{n}.jsonl")),
    }
}

/// The journal's files that exist, the oldest first.
pub fn segments(dir: &Path) -> Vec<PathBuf> {
    (0..SEGMENTS).rev().map(|n| segment(dir, n)).filter(|path| path.exists()).collect()
}

/// Whether all files are in use: then older records may have been thrown away.
pub(super) fn is_full(dir: &Path) -> bool {
    segment(dir, SEGMENTS - 1).exists()
}

/// The writing end.
#[derive(Debug)]
pub struct Journal {
    dir: PathBuf,
    /// The most bytes of one segment.
    segment_max: u64,
    file: Option<File>,
    /// The bytes of whole lines in the open file.
    length: u64,
    waiting: VecDeque<String>,
    lost: u64,
    failure: Option<String>,
}

impl Journal {
    /// Opens the journal in `dir`, which is made where it is absent; it will take at most `max` bytes.
    pub fn open(dir: &Path, max: u64) -> Result<Self, StateError> {
        prepare(dir)?;
        let mut journal = Self {
            dir: dir.to_owned(),
            segment_max: max / u64::from(SEGMENTS),
            file: None,
            length: 0,
            waiting: VecDeque::new(),
            lost: 0,
            failure: None,
        };
        journal.reopen().map_err(|error| StateError::Write { dir: dir.to_owned(), error })?;
        Ok(journal)
    }

    /// Changes the most bytes that the journal takes; from the next rotation on.
    pub fn set_max(&mut self, max: u64) {
        self.segment_max = max / u64::from(SEGMENTS);
    }

    /// Appends a record. Returns how many records were lost by it: 0 also where the disk refuses it for now
    /// and it waits for the next [`Journal::append`] or [`Journal::flush`].
    pub fn append(&mut self, record: &EventRecord) -> u64 {
        let before = self.lost;
        match serde_json::to_string(record) {
            Ok(mut line) => {
                line.push('\n');
                self.waiting.push_back(line);
            }
            Err(_) => self.lost += 1,
        }
        self.flush();
        if self.waiting.len() > WAITING_MAX {
            self.waiting.pop_front();
            self.lost += 1;
        }
        self.lost - before
    }

    /// Writes what waits, as far as the disk takes it.
    pub fn flush(&mut self) {
        while let Some(line) = self.waiting.front() {
            let bytes = line.len() as u64;
            if let Err(error) = self.write(bytes) {
                self.failure = Some(error.to_string());
                // A torn line is cut off when the file is opened again.
                self.file = None;
                return;
            }
            self.length += bytes;
            self.waiting.pop_front();
        }
        self.failure = None;
    }

    /// Why the last write failed; `None` if it did not.
    pub fn failure(&self) -> Option<&str> {
        self.failure.as_deref()
    }

    /// The records that wait for the disk.
    pub fn waiting(&self) -> usize {
        self.waiting.len()
    }

    /// The records lost so far.
    pub fn lost(&self) -> u64 {
        self.lost
    }

    /// Writes the line at the head of the queue.
    fn write(&mut self, bytes: u64) -> io::Result<()> {
        if self.file.is_none() {
            self.reopen()?;
        }
        if self.length > 0 && self.length + bytes > self.segment_max {
            self.rotate()?;
        }
        match (&mut self.file, self.waiting.front()) {
            (Some(file), Some(line)) => file.write_all(line.as_bytes()),
            _ => Ok(()),
        }
    }

    /// Opens the written segment and cuts off a line that a crash or a full disk left torn.
    fn reopen(&mut self) -> io::Result<()> {
        let path = segment(&self.dir, 0);
        let mut file = OpenOptions::new().create(true).read(true).append(true).mode(0o640).open(&path)?;
        let end = whole_lines(&mut file)?;
        if end < file.metadata()?.len() {
            file.set_len(end)?;
        }
        self.length = end;
        self.file = Some(file);
        Ok(())
    }

    fn rotate(&mut self) -> io::Result<()> {
        self.file = None;
        for n in (0..SEGMENTS - 1).rev() {
            match fs::rename(segment(&self.dir, n), segment(&self.dir, n + 1)) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
                _ => {}
            }
        }
        self.reopen()
    }
}

/// The length of the file up to its last newline, in bytes.
fn whole_lines(file: &mut File) -> io::Result<u64> {
    use io::Read as _;
    let mut end = file.seek(SeekFrom::End(0))?;
    let mut block = [0; 4096];
    while end > 0 {
        let start = end.saturating_sub(block.len() as u64);
        file.seek(SeekFrom::Start(start))?;
        let part = block.get_mut(..(end - start) as usize).unwrap_or_default();
        file.read_exact(part)?;
        if let Some(newline) = part.iter().rposition(|&b| b == b'\n') {
            return Ok(start + newline as u64 + 1);
        }
        end = start;
    }
    Ok(0)
}

#[cfg(test)]
#[path = "journal_tests.rs"]
mod tests;
