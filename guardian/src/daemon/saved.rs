//! The desired state on disk, for a start in the same boot with `on_start = "restore"`.
//!
//! A file of lines: a header that says of which boot and network namespace it is, then one JSON object for each
//! desired object: what `ip` would print, for people, and the netlink message that makes it, in hexadecimal
//! digits, for the guardian. How messages are made and read is left to the caller.

use std::{
    fs::{self, File, OpenOptions},
    io::{self, BufRead as _, BufReader, BufWriter, Read as _, Write as _},
    os::unix::fs::OpenOptionsExt as _,
    path::{Path, PathBuf},
    time::Duration,
};

use serde::{Deserialize, Serialize};

use crate::model::Stamp;

/// The file in the state folder.
const NAME: &str = "desired.jsonl";

/// What is written first, and takes the file's place when it is whole.
const NEW: &str = "desired.jsonl.new";

/// The form of the file. One of another form is not read.
const VERSION: u32 = 1;

/// The longest line that is read: a message of 64 KiB, in digits, with its text.
const LINE_MAX: u64 = 256 << 10;

/// Of which run of the kernel, and of which part of it, a state is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Origin {
    /// `/proc/sys/kernel/random/boot_id`.
    pub boot_id: String,
    /// The inode of the network namespace.
    pub netns: u64,
    /// The profile in use; told, and not compared.
    pub profile: String,
    /// When: RFC 3339 in UTC; told, and not compared.
    pub time: String,
}

/// An object to be saved: what `ip` would print of it, and its `RTM_NEW*` message.
pub type Line = (String, Vec<u8>);

/// What was read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Saved<T> {
    /// The objects, in the order in which they were saved.
    pub objects: Vec<T>,
    /// When they were saved.
    pub time: String,
    /// Which lines could not be read, and why; each with the file and the number of the line.
    pub damaged: Vec<String>,
}

/// Why there is no saved state to be used. Not a failure: the guardian goes on with what is there.
#[derive(Debug, thiserror::Error)]
pub enum NotUsable {
    /// Nothing has been saved.
    #[error("nothing was saved in {0}")]
    Nothing(PathBuf),
    /// It is of an earlier boot, or of another network namespace: links and their indices were others then.
    #[error("{path} is of {what}, saved at {time}")]
    Elsewhere {
        /// The file.
        path: PathBuf,
        /// `an earlier boot` or `another network namespace`.
        what: &'static str,
        /// When.
        time: String,
    },
    /// Its first line cannot be read.
    #[error("{path}:1: the header is damaged: {why}; nothing of it is used")]
    Damaged {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        why: String,
    },
    /// It is of another version of the guardian.
    #[error("{path} has the form {found}, and this guardian reads {VERSION}")]
    Version {
        /// The file.
        path: PathBuf,
        /// Its form.
        found: u32,
    },
    /// The kernel refused.
    #[error("cannot read {path}: {error}")]
    Read {
        /// The file.
        path: PathBuf,
        /// What the kernel said.
        error: io::Error,
    },
}

impl NotUsable {
    /// Whether an operator should hear of it: what was to be expected is not worth a warning.
    pub const fn is_trouble(&self) -> bool {
        !matches!(self, Self::Nothing(_) | Self::Elsewhere { .. })
    }
}

#[derive(Serialize, Deserialize)]
struct Header {
    version: u32,
    boot_id: String,
    netns: u64,
    profile: String,
    time: String,
}

#[derive(Serialize, Deserialize)]
struct Entry<'a> {
    #[serde(borrow)]
    text: std::borrow::Cow<'a, str>,
    #[serde(borrow)]
    message: std::borrow::Cow<'a, str>,
}

/// The id of this boot; empty where the kernel does not tell, which no saved state matches.
pub fn boot_id() -> String {
    fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default().trim().to_owned()
}

/// Saves objects in `dir`, readable for nobody else, whole or not at all. To be called where one may block.
///
/// # Errors
/// The kernel's, with the path. What was saved before is still there then.
pub fn write(dir: &Path, origin: &Origin, objects: impl IntoIterator<Item = Line>) -> io::Result<()> {
    let (path, new) = (dir.join(NAME), dir.join(NEW));
    let told = |error: io::Error| io::Error::new(error.kind(), format!("{}: {error}", new.display()));
    fs::create_dir_all(dir).map_err(told)?;
    // Left over by a crash, or put there by somebody: not written through.
    match fs::remove_file(&new) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(told(error)),
        _ => {}
    }
    let open = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&new);
    let mut out = BufWriter::new(open.map_err(told)?);
    let result = write_lines(&mut out, origin, objects)
        .and_then(|()| out.flush())
        .and_then(|()| out.get_ref().sync_all())
        .and_then(|()| fs::rename(&new, &path))
        // The name is safe when the folder is.
        .and_then(|()| File::open(dir)?.sync_all());
    result.map_err(|error| {
        let _ = fs::remove_file(&new);
        told(error)
    })
}

fn write_lines(
    out: &mut impl io::Write,
    origin: &Origin,
    objects: impl IntoIterator<Item = Line>,
) -> io::Result<()> {
    let Origin { boot_id, netns, profile, time } = origin.clone();
    serde_json::to_writer(&mut *out, &Header { version: VERSION, boot_id, netns, profile, time })?;
    for (text, message) in objects {
        out.write_all(b"\n")?;
        let message = to_hex(&message);
        serde_json::to_writer(&mut *out, &Entry { text: text.into(), message: message.into() })?;
    }
    out.write_all(b"\n")
}

/// Reads what was saved in `dir`, if it is of the boot and the network namespace of `here`. `decode` turns a
/// message into an object, or says why it cannot. To be called where one may block.
pub fn read<T>(
    dir: &Path,
    here: &Origin,
    decode: impl Fn(&[u8]) -> Result<T, String>,
) -> Result<Saved<T>, NotUsable> {
    let path = dir.join(NAME);
    let trouble = |error| NotUsable::Read { path: path.clone(), error };
    let file = match File::open(&path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Err(NotUsable::Nothing(dir.into())),
        Err(error) => return Err(trouble(error)),
    };
    let mut lines = Lines { file: BufReader::new(file), number: 0 };
    let header = match lines.next().map_err(trouble)? {
        Some(line) => {
            line.and_then(|line| serde_json::from_slice::<Header>(&line).map_err(|error| error.to_string()))
        }
        None => Err("the file is empty".to_owned()),
    };
    let header = header.map_err(|why| NotUsable::Damaged { path: path.clone(), why })?;
    if header.version != VERSION {
        return Err(NotUsable::Version { path, found: header.version });
    }
    let elsewhere = |what| NotUsable::Elsewhere { path: path.clone(), what, time: header.time.clone() };
    if header.boot_id.is_empty() || header.boot_id != here.boot_id {
        return Err(elsewhere("an earlier boot"));
    }
    if header.netns != here.netns {
        return Err(elsewhere("another network namespace"));
    }
    let mut saved = Saved { objects: Vec::new(), time: header.time, damaged: Vec::new() };
    while let Some(line) = lines.next().map_err(trouble)? {
        let object = line.and_then(|line| {
            let entry: Entry<'_> = serde_json::from_slice(&line).map_err(|error| error.to_string())?;
            let message = from_hex(&entry.message).ok_or("the message is not in hexadecimal digits")?;
            decode(&message)
        });
        match object {
            Ok(object) => saved.objects.push(object),
            Err(why) => saved.damaged.push(format!("{}:{}: {why}", path.display(), lines.number)),
        }
    }
    Ok(saved)
}

/// The lines of a file, none of which is read further than [`LINE_MAX`].
struct Lines {
    file: BufReader<File>,
    number: usize,
}

impl Lines {
    /// The next line, or what is wrong with it; `None` at the end.
    fn next(&mut self) -> io::Result<Option<Result<Vec<u8>, String>>> {
        let mut line = Vec::new();
        if self.file.by_ref().take(LINE_MAX).read_until(b'\n', &mut line)? == 0 {
            return Ok(None);
        }
        self.number += 1;
        if line.last() == Some(&b'\n') {
            return Ok(Some(Ok(line)));
        }
        if (line.len() as u64) < LINE_MAX {
            return Ok(Some(Err("it ends in the middle".to_owned())));
        }
        self.file.skip_until(b'\n')?;
        Ok(Some(Err(format!("it has more than {LINE_MAX} bytes"))))
    }
}

fn to_hex(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    let digit = |nibble: u8| char::from(DIGITS[usize::from(nibble & 0xf)]);
    bytes.iter().flat_map(|byte| [digit(byte >> 4), digit(*byte)]).collect()
}

fn from_hex(text: &str) -> Option<Vec<u8>> {
    let digit = |c: u8| char::from(c).to_digit(16).and_then(|digit| u8::try_from(digit).ok());
    let (pairs, []) = text.as_bytes().as_chunks::<2>() else { return None };
    pairs.iter().map(|[high, low]| Some(digit(*high)? << 4 | digit(*low)?)).collect()
}

/// When to save: a while after the last change, so that a burst is one file, and not too long after the first.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Debounce {
    /// The first and the last change that has not been saved.
    changed: Option<(Stamp, Stamp)>,
}

impl Debounce {
    /// How long it must have been quiet.
    pub const QUIET: Duration = Duration::from_secs(1);

    /// The longest that a change waits.
    pub const LONGEST: Duration = Duration::from_secs(5);

    /// The desired state has changed.
    pub fn touch(&mut self, now: Stamp) {
        let first = self.changed.map_or(now, |(first, _)| first);
        self.changed = Some((first, now));
    }

    /// When to save; `None` if everything is.
    pub fn deadline(&self) -> Option<Stamp> {
        let (first, last) = self.changed?;
        Some(last.after(Self::QUIET).min(first.after(Self::LONGEST)))
    }

    /// Whether to save now; if so, everything up to now counts as saved.
    pub fn due(&mut self, now: Stamp) -> bool {
        let due = self.deadline().is_some_and(|at| at <= now);
        if due {
            self.changed = None;
        }
        due
    }

    /// Whether anything is to be saved at the end.
    pub const fn is_pending(&self) -> bool {
        self.changed.is_some()
    }
}

#[cfg(test)]
#[path = "saved_tests.rs"]
mod tests;
