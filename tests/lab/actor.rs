//! Somebody who changes things, one line at a time: `ip -batch` at the end of a pipe.

use std::{
    fs::{self, File},
    io::{self, Write as _},
    path::{Path, PathBuf},
    process::{ChildStdin, Command, Stdio},
};

use anyhow::{Context, Result};

use crate::{Lab, Tethered, tethered};

/// A running `ip -force -batch -`, or a copy of it under a path of its own, such as the owner's.
#[derive(Debug)]
pub struct Actor {
    process: Tethered,
    stdin: Option<ChildStdin>,
    errors: PathBuf,
}

impl Lab {
    /// Starts `program`, which is `ip` or a copy of it, to do what it is told.
    pub fn actor(&self, program: &Path) -> Result<Actor> {
        let errors = tempfile::NamedTempFile::new_in(self.dir())?.into_temp_path().keep()?;
        let mut process = tethered(
            Command::new(program)
                .args(["-force", "-batch", "-"])
                .stdin(Stdio::piped())
                .stdout(Stdio::null())
                .stderr(File::create(&errors)?),
        )?;
        let stdin = process.child().stdin.take();
        Ok(Actor { process, stdin, errors })
    }
}

impl Actor {
    /// Its process id.
    pub fn pid(&self) -> u32 {
        self.process.pid()
    }

    /// Gives it lines, which it acts on one by one; returns before it has.
    pub fn say(&mut self, lines: &str) -> io::Result<()> {
        let mut stdin = self.stdin.as_ref().ok_or(io::ErrorKind::BrokenPipe)?;
        stdin.write_all(format!("{lines}\n").as_bytes())
    }

    /// What has failed so far, in the words of `ip`.
    pub fn errors(&self) -> String {
        fs::read_to_string(&self.errors).unwrap_or_default()
    }

    /// Lets it finish what it has been given, and end.
    pub fn finish(mut self) -> Result<()> {
        self.stdin = None;
        self.process.wait(std::time::Duration::from_secs(60)).context("ip -batch")?;
        Ok(())
    }
}
