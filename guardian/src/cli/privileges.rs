//! What the daemon may do, checked before it touches anything.

use std::fs;

use crate::config::Mode;

/// Capability numbers of `include/uapi/linux/capability.h`.
const DAC_READ_SEARCH: u32 = 2;
const NET_ADMIN: u32 = 12;
const SYS_PTRACE: u32 = 19;
const SYS_ADMIN: u32 = 21;
const PERFMON: u32 = 38;
const BPF: u32 = 39;

/// A set of capabilities: bit n is capability n.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Capabilities(u64);

impl Capabilities {
    /// The effective ones of this process (`CapEff` of /proc/self/status); `None` where that cannot be read.
    pub fn effective() -> Option<Self> {
        parse(&fs::read_to_string("/proc/self/status").ok()?)
    }

    const fn has(self, number: u32) -> bool {
        self.0 >> number & 1 == 1
    }
}

fn parse(status: &str) -> Option<Capabilities> {
    let line = status.lines().find_map(|line| line.strip_prefix("CapEff:"))?;
    u64::from_str_radix(line.trim(), 16).ok().map(Capabilities)
}

/// What is missing that the daemon cannot do without.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("missing {}; run it as root, or grant what is missing (systemd: AmbientCapabilities=){instead}", .what.join("; "))]
pub struct Missing {
    /// Capabilities, each with its use.
    what: Vec<String>,
    /// What would do without.
    instead: &'static str,
}

/// Checks what the daemon needs. Returns warnings about what it only would be better with.
pub fn check(held: Capabilities, mode: Mode, no_bpf: bool) -> Result<Vec<String>, Missing> {
    let mut missing = Vec::new();
    let mut warnings = Vec::new();
    let mut instead = "";
    if !held.has(NET_ADMIN) {
        if mode == Mode::Restore {
            missing.push("CAP_NET_ADMIN (to write routes, and to raise the receive buffer)".to_owned());
        } else {
            warnings.push(
                "without CAP_NET_ADMIN the receive buffer cannot be raised: a burst of changes may be lost"
                    .to_owned(),
            );
        }
    }
    if !no_bpf && !held.has(SYS_ADMIN) {
        let lacking: Vec<&str> = [(BPF, "CAP_BPF"), (PERFMON, "CAP_PERFMON")]
            .into_iter()
            .filter(|(number, _)| !held.has(*number))
            .map(|(_, name)| name)
            .collect();
        if !lacking.is_empty() {
            missing.push(format!(
                "{} (to load the BPF programs that see who changes a route; before Linux 5.8: CAP_SYS_ADMIN)",
                lacking.join(" and ")
            ));
            instead = "; --no-bpf does without BPF, and then nobody can be named";
        }
    }
    if !missing.is_empty() {
        return Err(Missing { what: missing, instead });
    }
    if !no_bpf && !held.has(SYS_PTRACE) {
        warnings.push(
            "without CAP_SYS_PTRACE the executables of processes that are older than the guardian stay unknown"
                .to_owned(),
        );
    }
    if !no_bpf && !held.has(DAC_READ_SEARCH) && !held.has(SYS_PTRACE) {
        warnings.push(
            "without CAP_DAC_READ_SEARCH the arguments of other users' processes may stay unknown".to_owned(),
        );
    }
    Ok(warnings)
}

#[cfg(test)]
mod tests {
    use super::*;

    const ALL: Capabilities = Capabilities(u64::MAX);

    fn without(numbers: &[u32]) -> Capabilities {
        Capabilities(numbers.iter().fold(u64::MAX, |set, number| set & !(1 << number)))
    }

    fn error(held: Capabilities, no_bpf: bool) -> String {
        check(held, Mode::Restore, no_bpf).unwrap_err().to_string()
    }

    #[test]
    fn everything_is_enough() {
        assert_eq!(check(ALL, Mode::Restore, false), Ok(vec![]));
        assert_eq!(
            check(without(&[BPF, PERFMON]), Mode::Restore, false),
            Ok(vec![]),
            "CAP_SYS_ADMIN stands for both"
        );
    }

    #[test]
    fn what_is_missing_is_named_with_its_use() {
        assert_eq!(
            error(without(&[NET_ADMIN]), false),
            "missing CAP_NET_ADMIN (to write routes, and to raise the receive buffer); run it as root, or grant what \
             is missing (systemd: AmbientCapabilities=)"
        );
        assert_eq!(
            error(without(&[PERFMON, SYS_ADMIN]), false),
            "missing CAP_PERFMON (to load the BPF programs that see who changes a route; before Linux 5.8: \
             CAP_SYS_ADMIN); run it as root, or grant what is missing (systemd: AmbientCapabilities=); --no-bpf does without BPF, \
             and then nobody can be named"
        );
        let none = error(Capabilities(0), false);
        assert!(none.contains("CAP_NET_ADMIN") && none.contains("CAP_BPF and CAP_PERFMON"));
        assert!(!error(Capabilities(0), true).contains("BPF"));
    }

    #[test]
    fn observing_needs_less() {
        let warnings = check(without(&[NET_ADMIN, SYS_PTRACE]), Mode::Observe, false).unwrap();
        assert_eq!(warnings.len(), 2);
        assert_eq!(check(Capabilities(0), Mode::Observe, true).unwrap().len(), 1);
    }

    #[test]
    fn reads_what_the_kernel_prints() {
        assert_eq!(parse("Name:\tx\nCapEff:\t000001ffffffffff\n"), Some(Capabilities(0x1ff_ffff_ffff)));
        assert_eq!(parse("Name:\tx\n"), None);
        assert!(Capabilities::effective().is_some());
    }
}
