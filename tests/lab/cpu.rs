//! CPUs that programs run on.

use std::fs;

use anyhow::{Context as _, Result};

/// The CPUs that a process may run on, as the kernel lists them: `Cpus_allowed_list` of `proc_pid_status(5)`.
pub fn may_run_on(pid: u32) -> Result<String> {
    let status = fs::read_to_string(format!("/proc/{pid}/status"))?;
    let list = status.lines().find_map(|line| line.strip_prefix("Cpus_allowed_list:"));
    Ok(list.context("no list of CPUs")?.trim().to_owned())
}

/// The first and the last of the CPUs that this process may run on: the same where there is but one.
pub fn cpus() -> Result<[u32; 2]> {
    let list = may_run_on(std::process::id())?;
    let mut numbers = list.split([',', '-']).map(str::parse);
    let first = numbers.next().context("no CPU")??;
    Ok([first, numbers.next_back().transpose()?.unwrap_or(first)])
}
