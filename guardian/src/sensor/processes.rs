//! Processes that are older than the sensors, as the programs keep them.

use route_guardian_ebpf::{
    ARGV_MAX, EXE_MAX, Id, PROCESS_COARSE, PROCESS_EXE_CUT, PROCESS_EXE_DELETED, PROCESS_EXE_TEXT,
    PROCESS_READY, ProcessRecord,
};

use crate::{
    model::{Process, ProcessId},
    procfs,
};

/// Processes that are read at most: as many as the map holds.
const MAX_PROCESSES: usize = 8192;
/// Its children, and it itself, are kernel threads (`kthreadd_task` in `init/main.c`).
const KTHREADD: u32 = 2;

/// All user processes, with start times in ticks of 10 ms.
pub fn all() -> impl Iterator<Item = ProcessRecord> {
    procfs::all().filter(|process| !is_kernel_thread(process)).take(MAX_PROCESSES).map(|p| record(&p))
}

fn is_kernel_thread(process: &Process) -> bool {
    process.id.tgid == KTHREADD || process.parent.is_some_and(|parent| parent.tgid == KTHREADD)
}

fn record(process: &Process) -> ProcessRecord {
    let id = |id: ProcessId| Id { tgid: id.tgid, pad: 0, start: id.start_ns };
    let mut record = ProcessRecord {
        flags: PROCESS_READY | PROCESS_COARSE | PROCESS_EXE_TEXT,
        id: id(process.id),
        uid: process.uid,
        login_uid: process.login_uid.unwrap_or(u32::MAX),
        cgroup: process.cgroup_id,
        ..ProcessRecord::BLANK
    };
    if let Some(parent) = process.parent.filter(|parent| parent.tgid != 0) {
        record.parent = id(parent);
    }
    copy_into(&mut record.comm[..15], process.comm.as_bytes());
    let exe = process.exe.as_deref().unwrap_or_default().as_bytes();
    if process.exe_deleted {
        record.flags |= PROCESS_EXE_DELETED;
    }
    if exe.len() > EXE_MAX {
        record.flags |= PROCESS_EXE_CUT;
    }
    // Of a path that is too long the end is kept, as the programs do.
    record.exe_len = copy_into(&mut record.exe, &exe[exe.len().saturating_sub(EXE_MAX)..]);
    let argv: Vec<u8> = process.argv.iter().flat_map(|word| word.bytes().chain([0])).collect();
    record.argv_len = copy_into(&mut record.argv, &argv);
    record.argv_whole = if process.argv_cut { ARGV_MAX as u32 + 1 } else { record.argv_len };
    record
}

fn copy_into(to: &mut [u8], from: &[u8]) -> u32 {
    let len = to.len().min(from.len());
    to[..len].copy_from_slice(&from[..len]);
    len as u32
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sensor::ring;

    #[test]
    fn this_process_is_among_them_and_comes_back_as_it_went() {
        let own = all().find(|record| record.id.tgid == std::process::id()).unwrap();
        let process = ring::process(&own);
        assert_eq!(process.exe.as_deref(), std::env::current_exe().unwrap().to_str());
        assert_eq!(process.argv.first(), std::env::args().next().as_ref());
        assert!(process.parent.is_some() && !process.argv_cut);
        assert!(all().all(|record| record.id.tgid != KTHREADD));
    }
}
