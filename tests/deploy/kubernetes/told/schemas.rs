//! The API's schemas, for one object after the other.

use std::{
    io::{BufRead as _, BufReader, Write as _},
    process::{Child, ChildStdin, ChildStdout, Stdio},
};

use anyhow::{Context, Result, ensure};
use serde_json::Value;

use crate::kubernetes::schema::{OLDEST, newest, validator};

/// The validator of manifests, which is started once: it takes an object a line, and says what is wrong.
#[derive(Debug)]
pub struct Schemas {
    child: Child,
    objects: ChildStdin,
    words: BufReader<ChildStdout>,
    newest: u32,
}

/// Reads `VERSION OBJECT` a line, and writes a line for each: empty, or what is wrong.
const VALIDATE: &str = "
import json, sys, kubernetes_validate
for line in sys.stdin:
    version, text = line.split(' ', 1)
    wrong = ''
    try:
        kubernetes_validate.validate(json.loads(text), version, strict=True)
    except Exception as error:
        wrong = ' '.join(str(error).split())[:400] or 'invalid'
    print(wrong, flush=True)
";

impl Schemas {
    /// Starts it.
    pub fn start() -> Result<Self> {
        let mut python = validator("python")?;
        let mut child = python.args(["-c", VALIDATE]).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn()?;
        let objects = child.stdin.take().context("no way to the validator")?;
        let words = BufReader::new(child.stdout.take().context("no way from the validator")?);
        Ok(Self { child, objects, words, newest: newest()? })
    }

    /// Whether the oldest and the newest release take it.
    pub fn check(&mut self, object: &Value) -> Result<()> {
        for version in [OLDEST, self.newest] {
            writeln!(self.objects, "1.{version} {object}")?;
            let mut wrong = String::new();
            self.words.read_line(&mut wrong)?;
            ensure!(wrong.ends_with('\n'), "the validator has ended");
            ensure!(wrong.trim().is_empty(), "Kubernetes 1.{version}: {}", wrong.trim());
        }
        Ok(())
    }
}

impl Drop for Schemas {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
