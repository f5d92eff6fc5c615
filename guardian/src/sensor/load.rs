//! Loading the programs: the best way of naming tasks that this kernel takes, found by trying.

use std::{collections::BTreeSet, io, os::unix::fs::MetadataExt as _, path::Path};

use aya::{
    Ebpf, EbpfLoader, VerifierLogLevel,
    maps::{Array, HashMap, MapData},
    programs::{ProgramError, RawTracePoint, SocketFilter, SocketFilterError},
};
use aya_log::EbpfLogger;
use route_guardian_ebpf::{
    COARSE_NS, CONTEXT_EXITING, CONTEXT_INTERRUPT, CONTEXT_KTHREAD, Identity, PADDING_UNKNOWN, ProcessRecord,
    TASK_KNOWN, Whoami, Words,
};

use crate::{causes, footprint, procfs};

use super::{
    Options, SensorError, SensorStatus, cables, fib, lookups,
    offsets::{Offsets, VMLINUX},
    processes,
    tap::{INTRODUCTION, TapSocket, introduce},
};

/// The programs, as `cargo xtask build` made them.
static OBJECT: &[u8] = aya::include_bytes_aligned!(env!("ROUTE_GUARDIAN_BPF_OBJECT"));

/// `BPF_NOEXIST` of `bpf_map_update_elem`.
const NOEXIST: u64 = 1;

/// `net.core.optmem_max` in bytes as kernels before 6.8 have it by default (since then it is 131072): the programs fit.
const OPTMEM: u32 = 20_480;

/// What takes a thread's stack is a power of two between these, in bytes.
const STACK_SIZES: std::ops::RangeInclusive<u32> = 4096..=262_144;

/// `TOP_OF_KERNEL_STACK_PADDING` of x86-64 in bytes, without and with `CONFIG_X86_FRED` (since 6.9):
/// `arch/x86/include/asm/thread_info.h`.
const PADDINGS: [u32; 2] = [0, 16];

pub type Logger = EbpfLogger<&'static dyn log::Log>;

/// A [`ProcessRecord`] as a map's value.
#[derive(Clone, Copy)]
#[repr(transparent)]
pub struct Record(pub ProcessRecord);
// SAFETY: integers and arrays of them, without padding.
unsafe impl aya::Pod for Record {}

/// The kernel's [`Words`] as a map's value.
#[derive(Clone, Copy)]
#[repr(transparent)]
pub struct LastWords(pub Words);
// SAFETY: integers and arrays of them, without padding.
unsafe impl aya::Pod for LastWords {}

/// A [`Whoami`] as a map's value.
#[derive(Clone, Copy)]
#[repr(transparent)]
struct Own(Whoami);
// SAFETY: likewise.
unsafe impl aya::Pod for Own {}

/// Programs that are loaded and attached.
pub struct Loaded {
    pub ebpf: Ebpf,
    pub socket: TapSocket,
    pub status: Vec<SensorStatus>,
}

/// Loads the programs with the best identity that works here.
pub fn load(options: &Options) -> Result<Loaded, SensorError> {
    let (offsets, mut why) = match Offsets::read(Path::new(VMLINUX)) {
        Ok(offsets) => match offsets.task_missing() {
            None => (Some(offsets), Vec::new()),
            Some(member) => (None, vec![format!("the kernel's type information lacks {member}")]),
        },
        Err(error) => (None, vec![error.to_string()]),
    };
    let mut last = None;
    for identity in [Identity::Task, Identity::Helpers, Identity::None] {
        if identity == Identity::Task && offsets.is_none() {
            continue;
        }
        match attempt(options, identity, offsets.as_ref()) {
            Ok(mut loaded) => {
                loaded.status.insert(1, identity_status(identity, &why, offsets.as_ref()));
                footprint::trim_heap();
                return Ok(loaded);
            }
            Err(error) => {
                why.push(format!("{}: {error}", describe(identity)));
                last = Some(error);
            }
        }
    }
    footprint::trim_heap();
    Err(last.unwrap_or(SensorError::Object("programs")))
}

const fn describe(identity: Identity) -> &'static str {
    match identity {
        Identity::Task => "reading the task",
        Identity::Helpers => "asking by helper functions",
        Identity::None => "naming nobody",
    }
}

fn identity_status(identity: Identity, why: &[String], offsets: Option<&Offsets>) -> SensorStatus {
    let mut notes = why.to_vec();
    match identity {
        Identity::Task => notes.extend(
            offsets
                .map(Offsets::optional_missing)
                .unwrap_or_default()
                .iter()
                .map(|member| format!("the kernel has no {member}")),
        ),
        Identity::Helpers => notes.push("process names and numbers only".to_owned()),
        Identity::None => notes.push("nobody can be named".to_owned()),
    }
    SensorStatus {
        name: "identity",
        attached: identity != Identity::None,
        why: (!notes.is_empty()).then(|| notes.join("; ")),
    }
}

/// Loads and attaches everything with one kind of identity.
fn attempt(options: &Options, identity: Identity, offsets: Option<&Offsets>) -> Result<Loaded, SensorError> {
    let identity_word = identity as u32;
    let debug = u32::from(options.debug);
    let log_level = if options.debug { u8::MAX } else { 0 };
    let ring_bytes = options.ring_bytes.clamp(4096, 1 << 30).next_power_of_two();
    let netns = std::fs::metadata("/proc/thread-self/ns/net").map_or(0, |meta| meta.ino() as u32);
    let protocols = protocol_words(&options.scope.protocols);
    let [first, second, third, fourth] = &protocols;
    let mut loader = EbpfLoader::new();
    loader
        // Nothing here is relocated by type information, and the parsed form takes tens of megabytes.
        .btf(None)
        .verifier_log_level(if options.debug {
            VerifierLogLevel::default()
        } else {
            VerifierLogLevel::DISABLE
        })
        .map_max_entries("EVENTS", ring_bytes)
        .override_global("IDENTITY", &identity_word, true)
        .override_global("DEBUG", &debug, true)
        .override_global("NETNS", &netns, true)
        .override_global("AYA_LOG_LEVEL", &log_level, false)
        .override_global("PROTOCOLS_0", first, true)
        .override_global("PROTOCOLS_1", second, true)
        .override_global("PROTOCOLS_2", third, true)
        .override_global("PROTOCOLS_3", fourth, true);
    for offset in offsets.map(Offsets::all).unwrap_or_default() {
        loader.override_global(offset.name, &offset.bytes, true);
    }
    let mut ebpf = loader.load(OBJECT).map_err(|error| SensorError::Load(chain(&error)))?;
    set_tables(&mut ebpf, &options.scope.tables)?;

    let own = meet(&mut ebpf, identity)?;
    let mut status = vec![SensorStatus { name: "tap", attached: true, why: None }];
    if identity == Identity::Task {
        status.push(interrupts(&mut ebpf, own, offsets)?);
        for (name, program, tracepoint) in [
            ("fork", "process_fork", "sched_process_fork"),
            ("exec", "process_exec", "sched_process_exec"),
            ("exit", "process_exit", "sched_process_exit"),
            ("extack", "extack", "netlink_extack"),
        ] {
            let why = trace(&mut ebpf, program, tracepoint).err().map(|error| chain(&error));
            status.push(SensorStatus { name, attached: why.is_none(), why });
        }
        let why = seed(&mut ebpf, own).err();
        status.push(SensorStatus { name: "processes", attached: why.is_none(), why });
        status.push(lookups_status(&mut ebpf, offsets));
        status.push(cable_status(&mut ebpf));
        status.push(fib::attach(&mut ebpf, offsets, options.trampolines));
    } else {
        for name in ["interrupt", "fork", "exec", "exit", "extack", "processes", "lookups", "cable", "fib"] {
            let why = Some("the task cannot be read on this kernel, see identity".to_owned());
            status.push(SensorStatus { name, attached: false, why });
        }
    }

    let mut socket = TapSocket::new()?;
    let tap = filter(&mut ebpf, "tap")?;
    tap.load().map_err(|error| SensorError::Load(chain(&error)))?;
    tap.attach(&socket).map_err(|error| SensorError::Load(not_attached(&error)))?;
    socket.listen()?;
    Ok(Loaded { ebpf, socket, status })
}

/// Why a socket does not take a filter, and what would be right.
fn not_attached(error: &ProgramError) -> String {
    let why = chain(error);
    match error {
        // `sk_filter_charge()` of `net/core/filter.c`: what is attached to a socket has a bound.
        ProgramError::SocketFilterError(SocketFilterError::SetsockoptError { io_error, .. })
            if io_error.raw_os_error() == Some(libc::ENOMEM) =>
        {
            format!("{why}; is net.core.optmem_max lower than {OPTMEM}, which is enough?")
        }
        _ => why,
    }
}

/// Bit `n % 64` of word `n / 64` for each protocol `n`.
fn protocol_words(protocols: &[u8]) -> [u64; 4] {
    let mut words = [0; 4];
    for protocol in protocols {
        if let Some(word) = words.get_mut(usize::from(protocol / 64)) {
            *word |= 1_u64 << (protocol % 64);
        }
    }
    words
}

fn set_tables(ebpf: &mut Ebpf, tables: &[u32]) -> Result<(), SensorError> {
    const MAP: &str = "SCOPE_TABLES";
    let failed = |source| SensorError::Map { map: MAP, source };
    let map = ebpf.map_mut(MAP).ok_or(SensorError::Object(MAP))?;
    let mut map = HashMap::<_, u32, u8>::try_from(map).map_err(failed)?;
    for table in tables.iter().collect::<BTreeSet<_>>() {
        map.insert(table, 1, 0).map_err(failed)?;
    }
    Ok(())
}

fn filter<'a>(ebpf: &'a mut Ebpf, name: &'static str) -> Result<&'a mut SocketFilter, SensorError> {
    let program = ebpf.program_mut(name).ok_or(SensorError::Object(name))?;
    program.try_into().map_err(|_| SensorError::Object(name))
}

/// Lets the programs see this process, so that they leave its changes out, and checks what they saw: offsets
/// that are wrong would show here.
fn meet(ebpf: &mut Ebpf, identity: Identity) -> Result<Whoami, SensorError> {
    filter(ebpf, "whoami")?.load().map_err(|error| SensorError::Load(chain(&error)))?;
    let own = ask(ebpf)?;
    if identity == Identity::None {
        return Ok(own);
    }
    let expected = std::fs::read("/proc/thread-self/comm").unwrap_or_default();
    let name = own.comm.split(|byte| *byte == 0).next().unwrap_or_default();
    let start = procfs::read(std::process::id()).map(|process| process.id.start_ns);
    let same_start = start == Some(own.id.start - own.id.start % COARSE_NS) || identity == Identity::Helpers;
    let context = own.bits & (CONTEXT_KTHREAD | CONTEXT_EXITING | CONTEXT_INTERRUPT);
    let right = own.bits & TASK_KNOWN != 0 && own.id.tgid != 0 && context == 0 && same_start;
    if right && expected.strip_suffix(b"\n") == Some(name) {
        Ok(own)
    } else {
        Err(SensorError::Load(format!("the programs took this process for another: {own:?}")))
    }
}

/// What the programs see of this very thread, in the system call [`INTRODUCTION`].
fn ask(ebpf: &mut Ebpf) -> Result<Whoami, SensorError> {
    let whoami = filter(ebpf, "whoami")?;
    introduce(|socket| whoami.attach(socket).map_err(|error| SensorError::Load(not_attached(&error))))?;
    let Own(own) = own_map(ebpf)?.get(&0, 0).map_err(|source| SensorError::Map { map: "SELF", source })?;
    Ok(own)
}

fn set_own(ebpf: &mut Ebpf, own: Whoami) -> Result<(), SensorError> {
    own_map(ebpf)?.set(0, Own(own), 0).map_err(|source| SensorError::Map { map: "SELF", source })
}

fn own_map(ebpf: &mut Ebpf) -> Result<Array<&mut MapData, Own>, SensorError> {
    let map = ebpf.map_mut("SELF").ok_or(SensorError::Object("SELF"))?;
    Array::try_from(map).map_err(|source| SensorError::Map { map: "SELF", source })
}

/// Switches on the tests for interrupts: whether what they do can be told from what the task does that they interrupt.
fn interrupts(ebpf: &mut Ebpf, own: Whoami, offsets: Option<&Offsets>) -> Result<SensorStatus, SensorError> {
    let status = |why: Option<String>| SensorStatus { name: "interrupt", attached: why.is_none(), why };
    let Some(stack_size) = stack_size(own.stack_offset) else {
        return Ok(status(Some(format!(
            "the programs run {} bytes from the task's stack",
            own.stack_offset
        ))));
    };
    let own = Whoami { stack_size, stack_padding: PADDING_UNKNOWN, ..own };
    let lack = offsets.map_or_else(
        || Some("the kernel does not tell of its types".to_owned()),
        |offsets| offsets.lack(&["regs"]),
    );
    if lack.is_none() {
        for padding in PADDINGS {
            set_own(ebpf, Whoami { stack_padding: padding, ..own })?;
            let seen = ask(ebpf)?;
            if seen.call == INTRODUCTION && seen.bits & CONTEXT_INTERRUPT == 0 {
                return Ok(status(None));
            }
        }
    }
    set_own(ebpf, own)?;
    // Other architectures keep the count of what interrupts where it can be read.
    let elsewhere = || Some("the number of a system call is not where it was looked for".into());
    Ok(status(if cfg!(target_arch = "x86_64") { lack.or_else(elsewhere) } else { None }))
}

/// `THREAD_SIZE` in bytes, from how far up the stack a system call ran the programs. The stack grows down from its high
/// end, a system call that does nothing takes far less than half of it, and its size is a power of two on every
/// architecture.
fn stack_size(offset: u32) -> Option<u32> {
    offset.checked_next_power_of_two().filter(|size| STACK_SIZES.contains(size))
}

/// Whether lookups can be counted, when there is something to count.
fn lookups_status(ebpf: &mut Ebpf, offsets: Option<&Offsets>) -> SensorStatus {
    let lack = offsets.and_then(|offsets| offsets.lack(&["netns", "lookup"]));
    let why = match lack {
        Some(lack) => Some(lack),
        None => lookups::load(ebpf).err().map(|error| chain(&error)),
    };
    let attached = why.is_none();
    // The programs are on the path of packets.
    let why = why.or_else(|| Some("counting only while something is missing".into()));
    SensorStatus { name: "lookups", attached, why }
}

/// Whether ports can be carried, when there are any to carry.
fn cable_status(ebpf: &mut Ebpf) -> SensorStatus {
    let lack = cables::load(ebpf).err().map(|error| chain(&error));
    let attached = lack.is_none();
    let why = lack.or_else(|| Some("carrying only while a port waits".into()));
    SensorStatus { name: "cable", attached, why }
}

/// A program of the object for a raw tracepoint.
pub(super) fn raw_tracepoint<'a>(
    ebpf: &'a mut Ebpf,
    name: &'static str,
) -> Result<&'a mut RawTracePoint, ProgramError> {
    let Some(program) = ebpf.program_mut(name) else { return Err(ProgramError::NotLoaded) };
    program.try_into()
}

fn trace(ebpf: &mut Ebpf, name: &'static str, tracepoint: &str) -> Result<(), ProgramError> {
    let program = raw_tracepoint(ebpf, name)?;
    program.load()?;
    program.attach(tracepoint)?;
    Ok(())
}

/// Tells the programs about the processes that are older than they. What a tracepoint has told meanwhile is newer
/// and stays.
fn seed(ebpf: &mut Ebpf, own: Whoami) -> Result<(), String> {
    if own.id.tgid != std::process::id() {
        return Err(
            "not in the initial pid namespace: older processes are known when they act, not before".into()
        );
    }
    let map = ebpf.map_mut("PROCESSES").ok_or("the BPF object has no PROCESSES")?;
    let mut map = HashMap::<_, u32, Record>::try_from(map).map_err(|error| chain(&error))?;
    for record in processes::all() {
        match map.insert(record.id.tgid, Record(record), NOEXIST) {
            Err(aya::maps::MapError::SyscallError(error))
                if error.io_error.kind() == io::ErrorKind::AlreadyExists => {}
            other => other.map_err(|error| chain(&error))?,
        }
    }
    Ok(())
}

/// Connects the programs' own diagnostics to the crate `log`.
pub fn logger(ebpf: &mut Ebpf) -> Option<Logger> {
    EbpfLogger::init(ebpf).inspect_err(|error| log::warn!("no diagnostics of the BPF programs: {error}")).ok()
}

/// An error with all its causes in one line.
pub(super) fn chain(error: &dyn std::error::Error) -> String {
    let text = causes::chain(error);
    // What a verifier that was never asked has said, and the same error once more.
    match text.split_once(". Verifier output: : ") {
        Some((said, _)) => said.to_owned(),
        None => text,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn protocols_are_bits() {
        assert_eq!(protocol_words(&[17, 17, 64, 255]), [1 << 17, 1, 0, 1 << 63]);
        assert_eq!(protocol_words(&[]), [0; 4]);
    }
}
