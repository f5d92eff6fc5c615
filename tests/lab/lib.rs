//! The lab: private network namespaces with kube-router-like state, the guardian in them, and the real
//! programs that take such state apart.
//!
//! A lab is the network namespace of the thread that made it. Threads and processes started from there are
//! born into it, and it goes away with the last of them: there is nothing to clean up.

mod actor;
mod browser;
mod cpu;
mod event;
mod guardian;
mod namespace;
mod networkd;
mod node;
mod process;
mod state;

pub mod dns;
pub mod http;
pub mod icmp6;
pub mod netlink;

pub use actor::Actor;
pub use browser::Browser;
pub use cpu::{cpus, may_run_on};
pub use event::Event;
pub use guardian::{Guardian, Launch, Metrics, binary, binary_in_pod};
pub use namespace::{Lab, NODE, PEER, TUNNEL, program};
pub use networkd::{Networkd, Settings, bus};
pub use node::{Node, PORTS, Pod, VIP6, VIPS};
pub use process::{Tethered, tethered};
pub use state::State;

use std::{
    thread,
    time::{Duration, Instant},
};

use anyhow::{Result, bail};

/// Asks again and again, every 2 ms, until the answer is yes; an error that says `what` did not happen after
/// `limit`.
pub fn wait_for(what: &str, limit: Duration, mut done: impl FnMut() -> Result<bool>) -> Result<()> {
    let begin = Instant::now();
    loop {
        if done()? {
            return Ok(());
        }
        if begin.elapsed() > limit * slowness() {
            bail!("waited {limit:?} in vain: {what}");
        }
        thread::sleep(Duration::from_millis(2));
    }
}

/// How many times slower than another this machine is said to be (`ROUTE_GUARDIAN_SLOWNESS`): one that is emulated needs
/// more time, and gets less to do.
pub fn slowness() -> u32 {
    let said = std::env::var("ROUTE_GUARDIAN_SLOWNESS").ok();
    said.and_then(|text| text.parse().ok()).unwrap_or(1).max(1)
}
