//! The offsets of kernel structure members, as the BPF programs want them.

use std::{collections::BTreeMap, path::Path};

use super::btf::{Btf, BtfError};

/// What the programs take for a member that the kernel does not have.
const ABSENT: u32 = u32::MAX;

/// The type information that the kernel gives of itself.
pub const VMLINUX: &str = "/sys/kernel/btf/vmlinux";

/// One global of the programs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Offset {
    /// The name of the global.
    pub name: &'static str,
    /// In bytes; `u32::MAX` where the kernel has no such member.
    pub bytes: u32,
}

/// The offsets in the running kernel.
#[derive(Clone, Debug)]
pub struct Offsets {
    all: Vec<Offset>,
    /// The groups in which something is missing, with the first thing missing.
    missing: BTreeMap<&'static str, String>,
}

impl Offsets {
    /// Takes the offsets from a file of type information.
    pub fn read(path: &Path) -> Result<Self, BtfError> {
        let btf = Btf::read(path)?;
        Ok(Self::collect(|structure, member| btf.offset_of(structure, member)))
    }

    fn collect(lookup: impl Fn(&str, &str) -> Option<u32>) -> Self {
        let mut all = Vec::new();
        let mut groups = Vec::new();
        let mut missing = BTreeMap::new();
        macro_rules! take {
            ($($name:ident: $structure:literal, $member:literal, $group:ident;)*) => {$(
                let bytes = lookup($structure, $member);
                if bytes.is_none() {
                    missing.entry(stringify!($group)).or_insert_with(|| concat!($structure, ".", $member).to_owned());
                }
                all.push(Offset { name: stringify!($name), bytes: bytes.unwrap_or(ABSENT) });
                groups.push(stringify!($group));
            )*};
        }
        route_guardian_ebpf::for_each_offset!(take);
        for (offset, group) in all.iter_mut().zip(groups) {
            if missing.contains_key(group) {
                offset.bytes = ABSENT;
            }
        }
        Self { all, missing }
    }

    /// All globals with their values.
    pub fn all(&self) -> &[Offset] {
        &self.all
    }

    /// The structure member for whose absence tasks cannot be read at all.
    pub fn task_missing(&self) -> Option<&str> {
        self.missing("task")
    }

    /// The first member that is missing of a group.
    pub fn missing(&self, group: &str) -> Option<&str> {
        self.missing.get(group).map(String::as_str)
    }

    /// Why a sensor that needs all of these groups cannot work; `None` where it can.
    pub fn lack(&self, groups: &[&str]) -> Option<String> {
        let member = groups.iter().find_map(|group| self.missing(group))?;
        Some(format!("the kernel has no {member}"))
    }

    /// What else of a task the kernel does not have, in words. Interrupts are told apart by other members on each
    /// architecture, and sensors tell of their own.
    pub fn optional_missing(&self) -> Vec<String> {
        let others = ["preempt", "regs", "netns", "lookup", "fib", "tos", "dscp"];
        self.missing
            .iter()
            .filter(|(group, _)| !others.contains(*group))
            .map(|(_, what)| what.clone())
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_missing_member_makes_its_group_absent() {
        let offsets = Offsets::collect(|structure, _| if structure == "cgroup" { None } else { Some(8) });
        let value = |name| offsets.all().iter().find(|o| o.name == name).map(|o| o.bytes);
        assert_eq!(value("TASK_TGID"), Some(8));
        assert_eq!(value("TASK_CGROUPS"), Some(ABSENT));
        assert_eq!(value("KERNFS_ID"), Some(ABSENT));
        assert_eq!(offsets.task_missing(), None);
        assert_eq!(offsets.optional_missing(), ["cgroup.kn"]);
    }

    /// What tells network namespaces apart is not lost with what only lookups need: the FIB hooks need it too.
    #[test]
    fn one_sensor_does_not_suffer_from_what_another_lacks() {
        let offsets = Offsets::collect(|structure, _| if structure == "flowi4" { None } else { Some(8) });
        let value = |name| offsets.all().iter().find(|o| o.name == name).map(|o| o.bytes);
        assert_eq!(value("NS_INUM"), Some(8));
        assert_eq!(offsets.lack(&["netns", "fib"]), None);
        assert_eq!(offsets.lack(&["netns", "lookup"]).as_deref(), Some("the kernel has no flowi4.daddr"));
        assert_eq!(offsets.optional_missing(), Vec::<String>::new());
    }

    #[test]
    fn without_the_task_nothing_can_be_named() {
        let offsets = Offsets::collect(|_, member| if member == "tgid" { None } else { Some(0) });
        assert_eq!(offsets.task_missing(), Some("task_struct.tgid"));
    }
}
