//! The log: lines on standard error, with the priorities that systemd understands where it reads them.

use std::{env, fs, io::Write as _, os::unix::fs::MetadataExt as _};

use log::{Level, LevelFilter, Log, Metadata, Record};

struct Logger {
    journal: bool,
}

/// Starts the log. `quiet` and `verbose` are how often -q and -v were given; `usual` is the level with neither.
pub fn start(usual: LevelFilter, quiet: u8, verbose: u8) {
    let journal = env::var("JOURNAL_STREAM").is_ok_and(|stream| is_stderr(&stream));
    // A second start would only be that of a test.
    if log::set_boxed_logger(Box::new(Logger { journal })).is_ok() {
        log::set_max_level(level(usual, quiet, verbose));
    }
}

fn level(usual: LevelFilter, quiet: u8, verbose: u8) -> LevelFilter {
    let levels = LevelFilter::iter().collect::<Vec<_>>();
    let usual = levels.iter().position(|level| *level == usual).unwrap_or_default();
    // Errors are always told.
    let wanted = (usual + usize::from(verbose)).saturating_sub(usize::from(quiet)).max(1);
    levels.get(wanted).copied().unwrap_or(LevelFilter::Trace)
}

/// `JOURNAL_STREAM` is device:inode of what systemd connected; it is inherited also where standard error has been
/// redirected since (systemd.exec(5)).
fn is_stderr(stream: &str) -> bool {
    fs::metadata("/proc/self/fd/2").is_ok_and(|file| stream == format!("{}:{}", file.dev(), file.ino()))
}

/// The line of a record; the prefixes are those of sd-daemon(3).
fn line(journal: bool, level: Level, text: &str) -> String {
    match (journal, level) {
        (true, Level::Error) => format!("<3>{text}\n"),
        (true, Level::Warn) => format!("<4>{text}\n"),
        (true, Level::Info) => format!("<6>{text}\n"),
        (true, Level::Debug | Level::Trace) => format!("<7>{text}\n"),
        (false, Level::Error) => format!("route-guardian: error: {text}\n"),
        (false, Level::Warn) => format!("route-guardian: warning: {text}\n"),
        (false, Level::Info) => format!("route-guardian: {text}\n"),
        (false, Level::Debug | Level::Trace) => {
            format!("route-guardian: {}: {text}\n", level.as_str().to_lowercase())
        }
    }
}

impl Log for Logger {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        // The libraries' own details are of use only to who asked for everything.
        metadata.target().starts_with("route_guardian")
            || metadata.level() <= Level::Warn
            || log::max_level() == LevelFilter::Trace
    }

    fn log(&self, record: &Record<'_>) {
        if self.enabled(record.metadata()) {
            // One write a line; a standard error that is gone is nobody's fault.
            let text = record.args().to_string().replace('\n', " | ");
            let _ = std::io::stderr().write_all(line(self.journal, record.level(), &text).as_bytes());
        }
    }

    fn flush(&self) {}
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn levels_go_up_and_down() {
        assert_eq!(level(LevelFilter::Info, 0, 0), LevelFilter::Info);
        assert_eq!(level(LevelFilter::Info, 0, 1), LevelFilter::Debug);
        assert_eq!(level(LevelFilter::Info, 0, 9), LevelFilter::Trace);
        assert_eq!(level(LevelFilter::Info, 1, 0), LevelFilter::Warn);
        assert_eq!(level(LevelFilter::Info, 9, 0), LevelFilter::Error);
    }

    #[test]
    fn systemd_gets_priorities() {
        assert_eq!(line(true, Level::Warn, "x"), "<4>x\n");
        assert_eq!(line(false, Level::Warn, "x"), "route-guardian: warning: x\n");
        assert!(!is_stderr("0:0"));
    }
}
