//! The wire format between the BPF programs and the daemon.
//!
//! Plain `repr(C)` records without padding, in the byte order of the machine: both sides always run on
//! the same one. Every record in the ring begins with its `kind`.
#![no_std]

mod offsets;

/// [`MessageHead::kind`]: a netlink message and the task that caused it.
pub const KIND_MESSAGE: u32 = 1;
/// [`ProcessRecord::kind`]: who a process is; precedes the first message of the process.
pub const KIND_PROCESS: u32 = 2;
/// [`ExitRecord::kind`]: a process that was told about is gone.
pub const KIND_EXIT: u32 = 3;
/// [`MessageHead::kind`] of a [`FallenRecord`].
pub const KIND_FALLEN: u32 = 4;

/// Context: a kernel thread (`PF_KTHREAD`): nobody asked for the change.
pub const CONTEXT_KTHREAD: u32 = 1;
/// Context: the task is dying (`PF_EXITING`): the change is a consequence of its end.
pub const CONTEXT_EXITING: u32 = 1 << 1;
/// Context: a softirq or a hard interrupt: the task named is whoever was interrupted.
pub const CONTEXT_INTERRUPT: u32 = 1 << 2;
/// The message is longer than the bytes that follow the head.
pub const MESSAGE_TRUNCATED: u32 = 1 << 3;
/// The task could be read: the fields of [`MessageHead`] about it have meaning.
pub const TASK_KNOWN: u32 = 1 << 4;

/// Context: the daemon itself, whose own write has brought this about.
pub const CONTEXT_SELF: u32 = 1 << 5;

/// The sizes in which room for a message is reserved, ascending powers of two, in bytes. An IPv4 route
/// takes about 64, an IPv6 route 136, a link 1,300, a route with 64 legs 2,000.
pub const MESSAGE_CLASSES: [u32; 6] = [128, 256, 512, 2048, 8192, 32768];
/// How many bytes are kept of a message that is longer than the largest class.
pub const MESSAGE_CUT: u32 = 512;

/// One run of one process.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct Id {
    /// The thread group id in the initial pid namespace.
    pub tgid: u32,
    /// Always 0.
    pub pad: u32,
    /// `task_struct.start_boottime` of the group leader, in nanoseconds.
    pub start: u64,
}

/// What precedes the bytes of a netlink message.
#[derive(Clone, Copy, Debug, Default)]
#[repr(C)]
pub struct MessageHead {
    /// [`KIND_MESSAGE`].
    pub kind: u32,
    /// `CONTEXT_*`, [`MESSAGE_TRUNCATED`] and [`TASK_KNOWN`].
    pub bits: u32,
    /// `bpf_ktime_get_ns` when the program began: nanoseconds of `CLOCK_MONOTONIC`.
    pub at: u64,
    /// The process of the task.
    pub id: Id,
    /// The thread id in the initial pid namespace.
    pub tid: u32,
    /// The real user id.
    pub uid: u32,
    /// The id of the task's cgroup in the unified hierarchy, 0 where unknown.
    pub cgroup: u64,
    /// The thread's name, which anyone can set; NUL-terminated.
    pub comm: [u8; 16],
    /// The true length of the message, in bytes.
    pub whole: u32,
    /// How many bytes of it follow.
    pub kept: u32,
    /// The CPU that the program ran on.
    pub cpu: u32,
    /// Always 0.
    pub pad: u32,
}

/// An IPv4 route that the kernel has flushed without a message, as far as its table knows it.
#[derive(Clone, Copy, Debug, Default)]
#[repr(C)]
pub struct FallenRoute {
    /// The destination, in the order of the wire.
    pub to: u32,
    /// The table.
    pub table: u32,
    /// The metric (`RTA_PRIORITY`).
    pub metric: u32,
    /// The prefix length, in bits.
    pub len: u8,
    /// `rtm_tos`.
    pub tos: u8,
    /// `rtm_type`.
    pub kind: u8,
    /// `rtm_protocol`.
    pub protocol: u8,
    /// `rtm_scope`.
    pub scope: u8,
    /// Always 0.
    pub pad: [u8; 7],
}

/// A route that has fallen, and the task in which it did.
#[derive(Clone, Copy, Debug, Default)]
#[repr(C)]
pub struct FallenRecord {
    /// Of the kind [`KIND_FALLEN`]; `whole` and `kept` are the size of `route`.
    pub head: MessageHead,
    /// The route.
    pub route: FallenRoute,
}

/// [`ProcessRecord::flags`]: its record was sent since it last executed a program.
pub const PROCESS_ANNOUNCED: u32 = 1;
/// [`ProcessRecord::flags`]: its record was sent at any time: its end will be told.
pub const PROCESS_TOLD: u32 = 1 << 1;
/// [`ProcessRecord::flags`]: it has ended.
pub const PROCESS_EXITED: u32 = 1 << 2;
/// [`ProcessRecord::flags`]: `id.start` comes from /proc and is rounded down to [`COARSE_NS`].
pub const PROCESS_COARSE: u32 = 1 << 3;
/// [`ProcessRecord::flags`]: the path of the executable is longer than there is room for; what is
/// kept is its end.
pub const PROCESS_EXE_CUT: u32 = 1 << 4;
/// [`ProcessRecord::flags`]: all fields are written.
pub const PROCESS_READY: u32 = 1 << 5;
/// [`ProcessRecord::flags`]: `exe` is a text, front to back; otherwise path components, the last one
/// first, each NUL-terminated.
pub const PROCESS_EXE_TEXT: u32 = 1 << 6;
/// [`ProcessRecord::flags`]: the executable has no name in a filesystem any more, or never had one.
pub const PROCESS_EXE_DELETED: u32 = 1 << 7;

/// The resolution of start times in /proc, in nanoseconds: `USER_HZ` is 100 everywhere.
pub const COARSE_NS: u64 = 10_000_000;

/// The most bytes kept of an executable's path.
pub const EXE_MAX: usize = 256;
/// The most bytes kept of the arguments.
pub const ARGV_MAX: usize = 512;

/// A process: the value of the map `PROCESSES` and a record of the ring.
#[derive(Clone, Copy, Debug)]
#[repr(C)]
pub struct ProcessRecord {
    /// [`KIND_PROCESS`].
    pub kind: u32,
    /// `PROCESS_*`.
    pub flags: u32,
    /// Who it is.
    pub id: Id,
    /// Who started it; all zero where unknown.
    pub parent: Id,
    /// The id of its cgroup in the unified hierarchy, 0 where unknown.
    pub cgroup: u64,
    /// The real user id.
    pub uid: u32,
    /// The audit login uid, `u32::MAX` where none.
    pub login_uid: u32,
    /// The name of the thread that executed the program; NUL-terminated.
    pub comm: [u8; 16],
    /// How many bytes of `exe` are used.
    pub exe_len: u32,
    /// How many bytes of `argv` are used.
    pub argv_len: u32,
    /// How many bytes the arguments really take, terminators included.
    pub argv_whole: u32,
    /// Always 0.
    pub pad: u32,
    /// The path of the executable file in its mount namespace, see [`PROCESS_EXE_TEXT`].
    pub exe: [u8; EXE_MAX],
    /// The arguments, each NUL-terminated.
    pub argv: [u8; ARGV_MAX],
}

impl ProcessRecord {
    /// A record that says nothing.
    pub const BLANK: Self = Self {
        kind: KIND_PROCESS,
        flags: 0,
        id: Id { tgid: 0, pad: 0, start: 0 },
        parent: Id { tgid: 0, pad: 0, start: 0 },
        cgroup: 0,
        uid: 0,
        login_uid: u32::MAX,
        comm: [0; 16],
        exe_len: 0,
        argv_len: 0,
        argv_whole: 0,
        pad: 0,
        exe: [0; EXE_MAX],
        argv: [0; ARGV_MAX],
    };
}

/// The end of a process.
#[derive(Clone, Copy, Debug, Default)]
#[repr(C)]
pub struct ExitRecord {
    /// [`KIND_EXIT`].
    pub kind: u32,
    /// Always 0.
    pub pad: u32,
    /// Which process.
    pub id: Id,
}

/// What the program `whoami` found out about the task that sent to its socket: the daemon itself.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct Whoami {
    /// The daemon's process. Its changes are not reported.
    pub id: Id,
    /// The sending thread.
    pub tid: u32,
    /// `CONTEXT_*` and [`TASK_KNOWN`].
    pub bits: u32,
    /// How far above `task_struct.stack` the program ran, in bytes; 0 where unknown.
    pub stack_offset: u32,
    /// `THREAD_SIZE`, written by the daemon; 0 switches off the test for interrupts by the stack.
    pub stack_size: u32,
    /// `TOP_OF_KERNEL_STACK_PADDING`: how many bytes the kernel leaves free between the registers of the program that it
    /// serves and the high end of the task's stack; written by the daemon, [`PADDING_UNKNOWN`] where it does not know.
    pub stack_padding: u32,
    /// Always 0.
    pub pad: u32,
    /// The number of the system call that the daemon sent with, as it was found there.
    pub call: u64,
    /// The thread's name.
    pub comm: [u8; 16],
}

/// No place where the number of the system call is found. See [`Whoami::stack_padding`].
pub const PADDING_UNKNOWN: u32 = u32::MAX;

/// The most routes whose lookups are counted at a time.
pub const WATCHED_ROUTES: u32 = 4096;

/// The bytes of a key of the map `WATCHED`: family, table and address, which a prefix of bits can be taken of.
pub const LOOKUP_KEY: usize = 24;

/// The bits of [`lookup_key`] before the address.
pub const LOOKUP_HEAD_BITS: u32 = 64;

/// A key of the map `WATCHED`: a family (`AF_INET`, `AF_INET6`) and a table, each as 32 bits, and an address, of which
/// IPv4 takes the first four bytes.
#[inline]
pub const fn lookup_key(family: u32, table: u32, address: [u32; 4]) -> [u32; LOOKUP_KEY / 4] {
    [family, table, address[0], address[1], address[2], address[3]]
}

/// The most ports that have a cable at a time; a kubelet takes 110 pods where it is not told to take more.
pub const CABLES_MAX: u32 = 256;

/// What a port is lent that has to stay out of its bridge: a value of the map `CABLES`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct Cable {
    /// Until when: `CLOCK_MONOTONIC`, in nanoseconds; 0 where it is ready, and not lent unless switched on.
    pub until: u64,
    /// The hardware address of the bridge, in the first six bytes as they are in memory; zeros follow.
    pub address: u64,
    /// For how long it is lent when `by` takes the port, or a later run of systemd-networkd, in nanoseconds.
    pub time: u64,
    /// The ifindex of the bridge.
    pub bridge: u32,
    /// The thread group id of who is expected to take it, in the initial pid namespace.
    pub by: u32,
}

/// Where a hardware address is: a value of the map `BEHIND`, whose keys are as [`Cable::address`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct Behind {
    /// When a frame for it went to all ports: `CLOCK_MONOTONIC`, in nanoseconds.
    pub flooded: u64,
    /// The ifindex of the port that it was heard on; 0 where it was not.
    pub port: u32,
    /// Always 0.
    pub pad: u32,
}

/// A hardware address as [`Cable::address`].
#[inline]
pub const fn address_word(bytes: [u8; 6]) -> u64 {
    u64::from_ne_bytes([bytes[0], bytes[1], bytes[2], bytes[3], bytes[4], bytes[5], 0, 0])
}

/// And back.
#[inline]
pub const fn address_bytes(word: u64) -> [u8; 6] {
    let bytes = word.to_ne_bytes();
    [bytes[0], bytes[1], bytes[2], bytes[3], bytes[4], bytes[5]]
}

/// The bytes of the kernel's words for a refusal that are kept, with the terminator; its longest constant is shorter.
pub const WORDS_MAX: usize = 160;

/// The kernel's last words for refusing a netlink request of the daemon; the map `WORDS`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(C)]
pub struct Words {
    /// When they were said: `CLOCK_MONOTONIC`, in nanoseconds; 0 where never.
    pub at: u64,
    /// The words, ended by a zero byte.
    pub text: [u8; WORDS_MAX],
}

/// How the tap learns who `current` is; the global `IDENTITY`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub enum Identity {
    /// Not at all.
    None = 0,
    /// From `bpf_get_current_pid_tgid` and its kin: no start time, no context, no family.
    Helpers = 1,
    /// From `task_struct`, at the offsets of the running kernel.
    Task = 2,
}

/// Index into the map `LOST`: messages for which the ring had no room.
pub const LOST_MESSAGES: u32 = 0;
/// Index into the map `LOST`: process records for which the ring or the map had no room.
pub const LOST_PROCESSES: u32 = 1;
/// Index into the map `LOST`: exit records for which the ring had no room.
pub const LOST_EXITS: u32 = 2;
/// Index into the map `LOST`: messages that were delivered cut.
pub const LOST_TRUNCATED: u32 = 3;
/// The number of counters in the map `LOST`.
pub const LOST_KINDS: u32 = 4;

// No padding: what user space reads is what the programs wrote.
const _: () = assert!(size_of::<MessageHead>() == 80);
const _: () = assert!(size_of::<FallenRecord>() == 80 + 24);
const _: () = assert!(size_of::<ProcessRecord>() == 88 + EXE_MAX + ARGV_MAX);
const _: () = assert!(size_of::<ExitRecord>() == 24);
const _: () = assert!(size_of::<Whoami>() == 64);
const _: () = assert!(size_of::<Cable>() == 32);
const _: () = assert!(size_of::<Behind>() == 16);
