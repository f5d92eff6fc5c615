//! Processes that are older than the sensors: from /proc.

use std::{
    collections::HashMap,
    fs, io,
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
};

use route_guardian_ebpf::{
    ARGV_MAX, COARSE_NS, EXE_MAX, Id, PROCESS_COARSE, PROCESS_EXE_CUT, PROCESS_EXE_TEXT, PROCESS_READY,
    ProcessRecord,
};

use super::ring;
use crate::model::Process;

/// Processes that are read at most: as many as the map holds.
const MAX_PROCESSES: usize = 8192;
/// `include/linux/sched.h`.
const PF_KTHREAD: u64 = 0x0020_0000;

/// Reads processes from /proc, resolving each cgroup path once.
#[derive(Debug, Default)]
pub struct ProcReader {
    cgroup_root: Option<PathBuf>,
    cgroup_ids: HashMap<String, u64>,
}

/// What /proc/PID/stat says.
struct Stat {
    comm: String,
    parent: u32,
    flags: u64,
    start_ns: u64,
}

impl ProcReader {
    /// A reader that knows where the unified cgroup hierarchy is mounted.
    pub fn new() -> Self {
        let mounts = fs::read_to_string("/proc/self/mounts").unwrap_or_default();
        Self { cgroup_root: unified_root(&mounts), cgroup_ids: HashMap::new() }
    }

    /// All user processes, with start times in ticks of 10 ms.
    pub fn all(&mut self) -> io::Result<Vec<ProcessRecord>> {
        let mut records = Vec::new();
        for entry in fs::read_dir("/proc")? {
            let Some(tgid) = entry?.file_name().to_str().and_then(|name| name.parse().ok()) else { continue };
            if records.len() == MAX_PROCESSES {
                break;
            }
            records.extend(self.record(tgid));
        }
        Ok(records)
    }

    /// One user process; `None` for one that is gone, and for a kernel thread. Its start time and its parent's
    /// are in ticks of 10 ms.
    pub fn process(&mut self, tgid: u32) -> Option<Process> {
        self.record(tgid).as_ref().map(ring::process)
    }

    fn record(&mut self, tgid: u32) -> Option<ProcessRecord> {
        let stat = stat(tgid)?;
        if stat.flags & PF_KTHREAD != 0 {
            return None;
        }
        let dir = PathBuf::from(format!("/proc/{tgid}"));
        let mut record = ProcessRecord {
            flags: PROCESS_READY | PROCESS_COARSE | PROCESS_EXE_TEXT,
            id: Id { tgid, pad: 0, start: stat.start_ns },
            uid: fs::metadata(&dir).map_or(0, |meta| meta.uid()),
            login_uid: read(&dir, "loginuid").and_then(|text| text.trim().parse().ok()).unwrap_or(u32::MAX),
            cgroup: read(&dir, "cgroup").map_or(0, |text| self.cgroup_id(&text)),
            ..ProcessRecord::BLANK
        };
        if let Some(status) = read(&dir, "status") {
            record.uid = real_uid(&status).unwrap_or(record.uid);
        }
        if let Some(parent) = (stat.parent != 0).then(|| self::stat(stat.parent)).flatten() {
            record.parent = Id { tgid: stat.parent, pad: 0, start: parent.start_ns };
        }
        copy_into(&mut record.comm[..15], stat.comm.as_bytes());
        if let Ok(exe) = fs::read_link(dir.join("exe")) {
            let exe = exe.as_os_str().as_encoded_bytes();
            let exe = exe.strip_suffix(b" (deleted)").unwrap_or(exe);
            if exe.len() > EXE_MAX {
                record.flags |= PROCESS_EXE_CUT;
            }
            // Of a path that is too long the end is kept, as the programs do.
            let tail = &exe[exe.len().saturating_sub(EXE_MAX)..];
            record.exe_len = copy_into(&mut record.exe, tail);
        }
        if let Ok(argv) = fs::read(dir.join("cmdline")) {
            record.argv_whole = u32::try_from(argv.len()).unwrap_or(u32::MAX);
            record.argv_len = copy_into(&mut record.argv, &argv[..argv.len().min(ARGV_MAX)]);
        }
        // The process read last has to be the one read first.
        (self::stat(tgid)?.start_ns == stat.start_ns).then_some(record)
    }

    /// The id of a cgroup in the unified hierarchy is the inode number of its directory (`kernfs_node.id`, on
    /// 64-bit machines); 0 where it cannot be found.
    fn cgroup_id(&mut self, memberships: &str) -> u64 {
        let Some(path) = memberships.lines().find_map(|line| line.strip_prefix("0::/")) else { return 0 };
        let Some(root) = &self.cgroup_root else { return 0 };
        if let Some(id) = self.cgroup_ids.get(path) {
            return *id;
        }
        let id = fs::metadata(root.join(path)).map_or(0, |meta| meta.ino());
        self.cgroup_ids.insert(path.to_owned(), id);
        id
    }
}

fn read(dir: &Path, name: &str) -> Option<String> {
    fs::read_to_string(dir.join(name)).ok()
}

fn copy_into(to: &mut [u8], from: &[u8]) -> u32 {
    let len = to.len().min(from.len());
    to[..len].copy_from_slice(&from[..len]);
    len as u32
}

/// Where the unified hierarchy is mounted, from the text of /proc/self/mounts.
fn unified_root(mounts: &str) -> Option<PathBuf> {
    mounts.lines().find_map(|line| {
        let mut words = line.split(' ').skip(1);
        let (dir, kind) = (words.next()?, words.next()?);
        (kind == "cgroup2").then(|| PathBuf::from(dir))
    })
}

fn stat(tgid: u32) -> Option<Stat> {
    let bytes = fs::read(format!("/proc/{tgid}/stat")).ok()?;
    parse_stat(&String::from_utf8_lossy(&bytes))
}

/// `proc_pid_stat(5)`. The name in parentheses may itself hold parentheses and spaces.
fn parse_stat(text: &str) -> Option<Stat> {
    let (before, after) = text.rsplit_once(')')?;
    let (_, comm) = before.split_once('(')?;
    // Field 3 (state) comes first here.
    let fields: Vec<&str> = after.split_ascii_whitespace().collect();
    let number = |field: usize| fields.get(field - 3)?.parse::<u64>().ok();
    Some(Stat {
        comm: comm.to_owned(),
        parent: u32::try_from(number(4)?).ok()?,
        flags: number(9)?,
        start_ns: number(22)?.checked_mul(COARSE_NS)?,
    })
}

/// The first number of the line `Uid:` of /proc/PID/status.
fn real_uid(status: &str) -> Option<u32> {
    let line = status.lines().find_map(|line| line.strip_prefix("Uid:"))?;
    line.split_ascii_whitespace().next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_names_with_parentheses() {
        let text = "7 (a) (b c) S 3 7 7 0 -1 4194560 1 2 3 4 5 6 7 8 20 0 1 0 1234 1 1";
        let stat = parse_stat(text).unwrap();
        assert_eq!(stat.comm, "a) (b c");
        assert_eq!((stat.parent, stat.flags, stat.start_ns), (3, 4_194_560, 12_340_000_000));
        assert!(parse_stat("7 (a) S 3").is_none());
        assert!(parse_stat("").is_none());
    }

    #[test]
    fn finds_the_unified_hierarchy_beside_the_old_ones() {
        let mounts =
            "cgroup /sys/fs/cgroup/cpu cgroup rw,cpu 0 0\ncgroup2 /sys/fs/cgroup/unified cgroup2 rw 0 0\n";
        assert_eq!(unified_root(mounts), Some(PathBuf::from("/sys/fs/cgroup/unified")));
        assert_eq!(unified_root("proc /proc proc rw 0 0\n"), None);
    }

    #[test]
    fn reads_this_process() {
        let own = ProcReader::new().process(std::process::id()).unwrap();
        assert_eq!(own.exe.as_deref(), std::env::current_exe().unwrap().to_str());
        assert_eq!(own.argv.first(), std::env::args().next().as_ref());
        assert!(own.parent.is_some());
        assert!(ProcReader::new().process(u32::MAX).is_none());
    }
}
