//! The guard thread goes before others: what it does is bounded, and on a busy node the wait for a turn would
//! be many times as long as the work.

use std::{io, mem::zeroed};

/// Makes the calling thread a real-time one of the lowest priority (`sched(7)`), or, where that is not
/// allowed, asks for the best place among the ordinary ones. Threads that it starts are ordinary again.
///
/// # Errors
/// The kernel's for the second, which `CAP_SYS_NICE` would allow.
pub fn raise() -> io::Result<()> {
    // SAFETY: all-zero is a valid sched_param, on every libc.
    let mut param: libc::sched_param = unsafe { zeroed() };
    param.sched_priority = 1;
    // SAFETY: 0 is the calling thread; the pointer is to a local that outlives the call.
    let real_time =
        unsafe { libc::sched_setscheduler(0, libc::SCHED_RR | libc::SCHED_RESET_ON_FORK, &raw const param) };
    if real_time == 0 {
        return Ok(());
    }
    // SAFETY: takes numbers; 0 is the calling thread.
    match unsafe { libc::setpriority(libc::PRIO_PROCESS, 0, -20) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}
