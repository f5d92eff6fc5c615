//! Decoding the records of the ring.

use std::net::Ipv4Addr;

use route_guardian_ebpf::{
    CONTEXT_EXITING, CONTEXT_INTERRUPT, CONTEXT_KTHREAD, CONTEXT_SELF, ExitRecord, FallenRecord, FallenRoute,
    Id, KIND_EXIT, KIND_FALLEN, KIND_MESSAGE, KIND_PROCESS, MessageHead, PROCESS_EXE_CUT,
    PROCESS_EXE_DELETED, PROCESS_EXE_TEXT, ProcessRecord, TASK_KNOWN,
};

use super::{Sensed, Task};
use crate::model::{Fallen, Prefix, Process, ProcessId, RouteKey, Stamp};

/// A plain record that may be copied out of any bytes.
///
/// # Safety
/// Every bit pattern must be a value of the type.
unsafe trait Plain: Copy {}
// SAFETY: integers and arrays of them.
unsafe impl Plain for MessageHead {}
// SAFETY: likewise.
unsafe impl Plain for ProcessRecord {}
// SAFETY: likewise.
unsafe impl Plain for ExitRecord {}
// SAFETY: likewise.
unsafe impl Plain for FallenRecord {}

/// Copies a record from the beginning of `bytes`, however they are aligned.
fn take<T: Plain>(bytes: &[u8]) -> Option<T> {
    // SAFETY: the slice is long enough, the read needs no alignment, and `T` takes any bit pattern.
    (bytes.len() >= size_of::<T>()).then(|| unsafe { bytes.as_ptr().cast::<T>().read_unaligned() })
}

/// Decodes one record. `None` for one that is too short or of an unknown kind, which the programs do not write.
pub fn decode(record: &[u8]) -> Option<Sensed<'_>> {
    let kind = u32::from_ne_bytes(record.get(..4)?.try_into().ok()?);
    match kind {
        KIND_MESSAGE => {
            let head: MessageHead = take(record)?;
            let bytes = record.get(size_of::<MessageHead>()..)?.get(..head.kept as usize)?;
            Some(Sensed::Message {
                at: Stamp(head.at),
                task: task(&head),
                bytes,
                whole_len: head.whole as usize,
            })
        }
        KIND_PROCESS => Some(Sensed::Process(process(&take(record)?))),
        KIND_EXIT => Some(Sensed::Exit(process_id(take::<ExitRecord>(record)?.id))),
        KIND_FALLEN => {
            let FallenRecord { head, route } = take(record)?;
            Some(Sensed::Fallen { at: Stamp(head.at), task: task(&head), route: fallen(&route)? })
        }
        _ => None,
    }
}

/// `None` where the prefix is longer than an address.
fn fallen(route: &FallenRoute) -> Option<Fallen> {
    let to = Ipv4Addr::from(route.to.to_ne_bytes());
    let dst = Prefix::new(to.into(), route.len)?;
    let key = RouteKey { table: route.table, dst, src: None, tos: route.tos, metric: route.metric };
    Some(Fallen { key, kind: route.kind, protocol: route.protocol, scope: route.scope })
}

fn task(head: &MessageHead) -> Task {
    let has = |bit| head.bits & bit != 0;
    Task {
        id: process_id(head.id),
        tid: head.tid,
        uid: head.uid,
        cpu: head.cpu,
        comm: padded(head.comm),
        cgroup_id: head.cgroup,
        kthread: has(CONTEXT_KTHREAD),
        exiting: has(CONTEXT_EXITING),
        interrupt: has(CONTEXT_INTERRUPT),
        known: has(TASK_KNOWN),
        own: has(CONTEXT_SELF),
    }
}

pub(super) const fn process_id(id: Id) -> ProcessId {
    ProcessId { tgid: id.tgid, start_ns: id.start }
}

/// What a record says about a process.
pub(super) fn process(record: &ProcessRecord) -> Process {
    let argv = record.argv.get(..record.argv_len as usize).unwrap_or(&record.argv);
    Process {
        id: process_id(record.id),
        parent: (record.parent.tgid != 0).then(|| process_id(record.parent)),
        comm: text(until_nul(&record.comm)),
        exe: path(record),
        exe_deleted: record.flags & PROCESS_EXE_DELETED != 0,
        argv: arguments(argv),
        argv_cut: record.argv_whole > record.argv_len,
        uid: record.uid,
        login_uid: (record.login_uid != u32::MAX).then_some(record.login_uid),
        cgroup_id: record.cgroup,
    }
}

/// The path of the executable. One whose beginning did not fit begins with `…/`, so that it equals no real path.
fn path(record: &ProcessRecord) -> Option<String> {
    let bytes = record.exe.get(..record.exe_len as usize).unwrap_or(&record.exe);
    if bytes.is_empty() {
        return None;
    }
    let mut path = String::with_capacity(bytes.len() + 4);
    if record.flags & PROCESS_EXE_CUT != 0 {
        path.push('…');
    }
    if record.flags & PROCESS_EXE_TEXT != 0 {
        path.push_str(&text(bytes));
        return Some(path);
    }
    let components = bytes.strip_suffix(&[0]).unwrap_or(bytes);
    for component in components.rsplit(|byte| *byte == 0) {
        path.push('/');
        path.push_str(&text(component));
    }
    Some(path)
}

/// Splits arguments at their terminators; one cut short keeps what there is.
pub(super) fn arguments(bytes: &[u8]) -> Vec<String> {
    if bytes.is_empty() {
        return Vec::new();
    }
    bytes.strip_suffix(&[0]).unwrap_or(bytes).split(|byte| *byte == 0).map(text).collect()
}

/// The kernel's words, up to their terminator.
pub(super) fn words(bytes: &[u8]) -> String {
    text(until_nul(bytes))
}

/// With nothing behind its end: kernels leave there what an earlier name had.
fn padded(mut name: [u8; 16]) -> [u8; 16] {
    let len = until_nul(&name).len();
    name[len..].fill(0);
    name
}

fn until_nul(bytes: &[u8]) -> &[u8] {
    bytes.split(|byte| *byte == 0).next().unwrap_or(bytes)
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// The bytes of a record, as the ring carries them.
#[cfg(test)]
fn bytes_of<T: Plain>(record: &T) -> Vec<u8> {
    // SAFETY: the records have no padding (asserted where they are defined).
    unsafe { std::slice::from_raw_parts(std::ptr::from_ref(record).cast(), size_of::<T>()) }.to_vec()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample() -> ProcessRecord {
        let mut record = ProcessRecord::BLANK;
        record.id = Id { tgid: 42, pad: 0, start: 7 };
        record.parent = Id { tgid: 1, pad: 0, start: 3 };
        record.comm[..2].copy_from_slice(b"ip");
        record.exe[..8].copy_from_slice(b"ip\0sbin\0");
        record.exe_len = 8;
        record.argv[..9].copy_from_slice(b"ip\0route\0");
        record.argv_len = 9;
        record.argv_whole = 9;
        record
    }

    #[test]
    fn puts_path_components_in_order() {
        let mut record = sample();
        assert_eq!(process(&record).exe.as_deref(), Some("/sbin/ip"));
        record.flags = PROCESS_EXE_CUT;
        assert_eq!(process(&record).exe.as_deref(), Some("…/sbin/ip"));
        assert!(!process(&record).exe_deleted);
        record.flags = PROCESS_EXE_DELETED;
        assert!(process(&record).exe_deleted);
        record.flags = PROCESS_EXE_TEXT;
        record.exe[..8].copy_from_slice(b"/bin/abc");
        assert_eq!(process(&record).exe.as_deref(), Some("/bin/abc"));
        record.exe_len = 0;
        assert_eq!(process(&record).exe, None);
        record.exe_len = u32::MAX;
        assert!(process(&record).exe.is_some(), "a wrong length reads no further than the record");
    }

    #[test]
    fn keeps_empty_and_cut_arguments() {
        assert_eq!(arguments(b"ip\0\0del\0"), ["ip", "", "del"]);
        assert_eq!(arguments(b"ip\0rou"), ["ip", "rou"]);
        assert_eq!(arguments(b"\0"), [""]);
        assert!(arguments(b"").is_empty());
        let mut record = sample();
        record.argv_whole = 600;
        assert!(process(&record).argv_cut);
    }

    #[test]
    fn a_name_has_nothing_behind_its_end() {
        assert_eq!(padded(*b"ip\0ng-running\0\0\0"), *b"ip\0\0\0\0\0\0\0\0\0\0\0\0\0\0");
        assert_eq!(padded([b'a'; 16]), [b'a'; 16]);
    }

    #[test]
    fn reads_a_message_at_any_alignment() {
        let head = MessageHead {
            kind: KIND_MESSAGE,
            bits: TASK_KNOWN | CONTEXT_KTHREAD,
            at: 99,
            whole: 3,
            kept: 3,
            cpu: 5,
            ..MessageHead::default()
        };
        let mut bytes = vec![0];
        bytes.extend(bytes_of(&head));
        bytes.extend([1, 2, 3, 0, 0]);
        let Some(Sensed::Message { at, task, bytes, whole_len }) = decode(&bytes[1..]) else {
            panic!("not a message")
        };
        assert_eq!((at, bytes, whole_len), (Stamp(99), &[1, 2, 3][..], 3));
        assert!(task.known && task.kthread && !task.interrupt);
        assert_eq!(task.cpu, 5);
    }

    #[test]
    fn reads_a_fallen_route() {
        let head = MessageHead { kind: KIND_FALLEN, at: 7, bits: TASK_KNOWN, ..MessageHead::default() };
        let to = u32::from_ne_bytes([10, 244, 2, 0]);
        let route = FallenRoute {
            to,
            table: 254,
            metric: 5,
            len: 24,
            kind: 1,
            protocol: 17,
            ..FallenRoute::default()
        };
        let record = bytes_of(&FallenRecord { head, route });
        let Some(Sensed::Fallen { at: Stamp(7), route: fallen, .. }) = decode(&record) else { panic!() };
        assert_eq!((fallen.key.dst.to_string(), fallen.key.metric), ("10.244.2.0/24".into(), 5));
        let long = bytes_of(&FallenRecord { head, route: FallenRoute { len: 33, ..route } });
        assert!(decode(&long).is_none());
    }

    #[test]
    fn refuses_what_is_short_or_unknown() {
        for bytes in [
            bytes_of(&FallenRecord {
                head: MessageHead { kind: KIND_FALLEN, ..MessageHead::default() },
                ..FallenRecord::default()
            }),
            bytes_of(&sample()),
            bytes_of(&MessageHead { kind: KIND_MESSAGE, kept: 1, ..MessageHead::default() }),
        ] {
            for len in 0..bytes.len() {
                assert!(decode(&bytes[..len]).is_none());
            }
        }
        assert!(
            decode(&bytes_of(&MessageHead { kind: KIND_MESSAGE, kept: 1, ..MessageHead::default() }))
                .is_none()
        );
        assert!(decode(&[9; 100]).is_none());
        let exit = ExitRecord { kind: KIND_EXIT, pad: 0, id: Id { tgid: 5, pad: 0, start: 6 } };
        assert!(matches!(decode(&bytes_of(&exit)), Some(Sensed::Exit(ProcessId { tgid: 5, start_ns: 6 }))));
    }
}
