//! Running other programs.

use std::{
    ffi::OsStr,
    os::fd::AsRawFd,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use anyhow::{Context, Result, bail, ensure};

/// The top of the repository.
pub fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().map(Path::to_path_buf).unwrap_or_default()
}

/// Says what is done, in one line on standard error.
pub fn say(line: &str) {
    eprintln!("xtask: {line}");
}

/// Whether somebody watches what is written to `to`: it is a terminal, and one with columns. The serial port of a
/// guest has none, and its output may end in a file.
pub fn is_watched(to: &impl AsRawFd) -> bool {
    let mut size = libc::winsize { ws_row: 0, ws_col: 0, ws_xpixel: 0, ws_ypixel: 0 };
    // SAFETY: TIOCGWINSZ fills in the structure that it gets a valid pointer to.
    let asked = unsafe { libc::ioctl(to.as_raw_fd(), libc::TIOCGWINSZ, &raw mut size) };
    asked == 0 && size.ws_col > 0
}

/// The command as one would type it.
pub fn line(command: &Command) -> String {
    let words = std::iter::once(command.get_program()).chain(command.get_args());
    words.map(OsStr::to_string_lossy).collect::<Vec<_>>().join(" ")
}

/// Runs a command with this terminal; an error if it fails.
pub fn run(command: &mut Command) -> Result<()> {
    let status = command.status().with_context(|| format!("cannot run {}", line(command)))?;
    ensure!(status.success(), "`{}` failed ({status})", line(command));
    Ok(())
}

/// Runs a command that says nothing unless it fails: then the end of what it said is in the error.
pub fn quietly(command: &mut Command) -> Result<()> {
    let output =
        command.stdin(Stdio::null()).output().with_context(|| format!("cannot run {}", line(command)))?;
    if output.status.success() {
        return Ok(());
    }
    let said = [output.stdout, output.stderr].map(|s| String::from_utf8_lossy(&s).into_owned()).concat();
    let mut end: Vec<_> = said.lines().rev().take(15).collect();
    end.reverse();
    bail!("`{}` failed ({}):\n{}", line(command), output.status, end.join("\n"));
}

/// What a command prints, trimmed; `None` if it cannot be run or fails.
pub fn answer(command: &mut Command) -> Option<String> {
    let output = command.stdin(Stdio::null()).stderr(Stdio::null()).output().ok()?;
    output.status.success().then(|| String::from_utf8_lossy(&output.stdout).trim().to_owned())
}

/// The file of a program in PATH or where system programs are.
pub fn find(name: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path)
        .chain(["/usr/sbin", "/sbin"].map(PathBuf::from))
        .map(|dir| dir.join(name))
        .find(|file| file.is_file())
}

/// Where what is fetched or built to work with is put.
pub fn tools() -> PathBuf {
    root().join("target/tools")
}

/// Builds a crate's program into the folder `bin` of [`tools`]; `more` says what it needs besides.
pub fn install_crate(name: &str, version: &str, more: impl FnOnce(&mut Command)) -> Result<()> {
    let work = tools().join("build");
    let mut command = cargo();
    command
        .env("CARGO_TARGET_DIR", &work)
        .env_remove("RUSTFLAGS")
        .args(["install", name, "--locked", "--force", "--version", version, "--root"])
        .arg(tools());
    more(&mut command);
    quietly(&mut command).with_context(|| format!("cannot build {name}"))?;
    // Up to half a gigabyte that is of no use any more.
    let _ = std::fs::remove_dir_all(work);
    Ok(())
}

/// Cargo as it was called, without what it has set for this program: for the workspace's own toolchain.
pub fn cargo() -> Command {
    let mut command = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    command.current_dir(root());
    for (name, _) in std::env::vars_os() {
        let text = name.to_string_lossy();
        if text.starts_with("CARGO_PKG_") || text.starts_with("CARGO_MANIFEST_") || text == "CARGO_BIN_NAME" {
            command.env_remove(name);
        }
    }
    command
}

/// Whether this process is root.
pub fn is_root() -> bool {
    // SAFETY: takes nothing and always succeeds.
    unsafe { libc::geteuid() == 0 }
}

/// `sudo -n` in front of a command where this process is not root; an error where that is not allowed.
pub fn as_root(program: impl AsRef<OsStr>, why: &str) -> Result<Command> {
    if is_root() {
        return Ok(Command::new(program));
    }
    ensure!(
        answer(Command::new("sudo").args(["-n", "true"])).is_some(),
        "{why} needs root, and `sudo -n` is not allowed here: run it as root"
    );
    let mut command = Command::new("sudo");
    command.args(["-n", "--preserve-env", "--"]).arg(program);
    Ok(command)
}
