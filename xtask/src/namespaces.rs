//! Whether this machine's kernel can be worked with.

use std::{
    fs,
    process::{Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use crate::program::as_root;

/// `TAINT_DIE` of `include/linux/panic.h`: the kernel has had an oops. Whatever lock its task held is held for
/// ever, the lock on network configuration for example.
const TAINT_DIE: u64 = 1 << 7;

/// How long the making of a namespace may take.
const PATIENCE: Duration = Duration::from_secs(10);

/// Why no network namespaces can be made here, if that is so.
pub fn unusable() -> Option<String> {
    let tainted = fs::read_to_string("/proc/sys/kernel/tainted").unwrap_or_default();
    if tainted.trim().parse::<u64>().is_ok_and(|flags| flags & TAINT_DIE != 0) {
        return Some("this machine's kernel has had an oops and cannot be relied on".into());
    }
    let mut unshare = match as_root("unshare", "making network namespaces") {
        Ok(command) => command,
        Err(error) => return Some(error.to_string()),
    };
    if ends_well(unshare.args(["--net", "true"])) {
        None
    } else {
        Some("this machine's kernel makes no network namespaces (`unshare --net true` fails)".into())
    }
}

/// Whether a command ends well in time. One that hangs in the kernel cannot be ended, and is left.
fn ends_well(command: &mut Command) -> bool {
    let Ok(mut child) = command.stdin(Stdio::null()).stderr(Stdio::null()).spawn() else { return false };
    let begin = Instant::now();
    while begin.elapsed() < PATIENCE {
        if let Ok(Some(status)) = child.try_wait() {
            return status.success();
        }
        thread::sleep(Duration::from_millis(10));
    }
    false
}
