//! A network namespace with two links, the sensors in it, and what they sensed.

#![allow(dead_code, reason = "either test uses a part of it")]

pub mod netlink;

use std::{
    cell::RefCell,
    ffi::CString,
    fs,
    net::Ipv4Addr,
    os::fd::RawFd,
    path::PathBuf,
    process::{Child, Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use route_guardian::{
    model::{Fallen, Process, ProcessId, Stamp},
    sensor::{KernelScope, Options, Sensed, Sensors, Task},
};

pub const ADD: u16 = 24;
pub const DEL: u16 = 25;

/// Whether a thread has exactly this name.
pub fn is_named(task: &Task, name: &str) -> bool {
    task.comm.split(|byte| *byte == 0).next() == Some(name.as_bytes())
}

/// A message with what it takes to look at it later.
#[derive(Debug)]
pub struct Seen {
    pub task: Task,
    pub bytes: Vec<u8>,
    pub whole_len: usize,
    pub delay: Duration,
}

impl Seen {
    pub fn kind(&self) -> u16 {
        u16::from_ne_bytes([self.bytes[4], self.bytes[5]])
    }

    pub fn flags(&self) -> u16 {
        u16::from_ne_bytes([self.bytes[6], self.bytes[7]])
    }

    fn attribute(&self, wanted: u16) -> Option<&[u8]> {
        let mut rest = &self.bytes[28..];
        while rest.len() >= 4 {
            let len = usize::from(u16::from_ne_bytes([rest[0], rest[1]]));
            if u16::from_ne_bytes([rest[2], rest[3]]) & 0x3fff == wanted {
                return Some(&rest[4..len]);
            }
            rest = rest.get(len.next_multiple_of(4)..).unwrap_or_default();
        }
        None
    }

    pub fn destination(&self) -> [u8; 4] {
        self.attribute(1).and_then(|bytes| bytes.get(..4)).map_or([0; 4], |bytes| bytes.try_into().unwrap())
    }

    pub fn route_protocol_or(&self, other: u8) -> u8 {
        if matches!(self.kind(), ADD | DEL) { self.bytes[21] } else { other }
    }

    pub fn legs(&self) -> usize {
        let mut rest = self.attribute(9).unwrap_or_default();
        let mut legs = 0;
        while rest.len() >= 8 {
            legs += 1;
            let len = usize::from(u16::from_ne_bytes([rest[0], rest[1]]));
            rest = rest.get(len.next_multiple_of(4)..).unwrap_or_default();
        }
        legs
    }
}

pub struct Lab {
    pub sensors: Sensors,
    /// Woken as the daemon is.
    sleep: RefCell<(mio::Poll, mio::Events)>,
    pub seen: Vec<Seen>,
    pub processes: Vec<Process>,
    pub exits: Vec<ProcessId>,
    /// Routes that went without a message.
    pub fallen: Vec<(Task, Fallen)>,
}

/// Routes by anybody with the protocols that `ip` and the kernel use.
pub fn everything() -> Options {
    Options { scope: KernelScope { protocols: vec![2, 3, 9, 17], tables: vec![] }, ..Options::default() }
}

impl Lab {
    pub fn open() -> Self {
        Self::open_with(&everything())
    }

    pub fn open_with(options: &Options) -> Self {
        ip("link set lo up");
        ip("link add a0 type veth peer name a1");
        for link in ["a0", "a1"] {
            fs::write(format!("/proc/sys/net/ipv6/conf/{link}/accept_dad"), "0").ok();
            ip(&format!("link set {link} up"));
        }
        ip("addr add 10.9.0.1/24 dev a0");
        ip("addr add fd09::1/64 dev a0 nodad");
        let sensors = Sensors::open(options)
            .unwrap_or_else(|error| panic!("these tests need root and a kernel with BPF: {error}"));
        let sleep = RefCell::new((mio::Poll::new().unwrap(), mio::Events::with_capacity(4)));
        for fd in sensors.descriptors() {
            let source = &mut mio::unix::SourceFd(&fd);
            sleep.borrow().0.registry().register(source, mio::Token(0), mio::Interest::READABLE).unwrap();
        }
        let mut lab = Self { sensors, sleep, seen: vec![], processes: vec![], exits: vec![], fallen: vec![] };
        if !options.scope.protocols.contains(&3) {
            return lab;
        }
        // What the links' coming up brings about.
        lab.settle_for(Duration::from_millis(100));
        lab.seen.clear();
        lab
    }

    /// Whether something is to be read, at the latest after `timeout`.
    pub fn wait(&self, timeout: Duration) -> bool {
        let (poll, events) = &mut *self.sleep.borrow_mut();
        poll.poll(events, Some(timeout)).unwrap();
        !events.is_empty()
    }

    pub fn drain(&mut self) -> usize {
        let Self { sensors, seen, processes, exits, fallen, .. } = self;
        sensors.drain(usize::MAX, &mut |sensed| match sensed {
            Sensed::Message { at, task, bytes, whole_len } => {
                let delay = now().since(at);
                seen.push(Seen { task, bytes: bytes.to_vec(), whole_len, delay });
            }
            Sensed::Fallen { task, route, .. } => fallen.push((task, route)),
            Sensed::Process(process) => processes.push(process),
            Sensed::Exit(id) => exits.push(id),
        })
    }

    /// Reads until nothing has come for a while.
    pub fn settle(&mut self) {
        self.settle_for(Duration::from_millis(50));
    }

    pub fn settle_for(&mut self, quiet: Duration) {
        self.drain();
        while self.wait(quiet) {
            self.drain();
        }
    }

    pub fn message(&self, kind: u16, destination: [u8; 4]) -> &Seen {
        self.seen
            .iter()
            .find(|seen| seen.kind() == kind && seen.destination() == destination)
            .unwrap_or_else(|| panic!("no message {kind} for {destination:?} in {:?}", self.seen))
    }

    pub fn destinations(&self, kind: u16) -> Vec<[u8; 4]> {
        let routes = self.seen.iter().filter(|seen| seen.kind() == kind && seen.bytes[16] == 2);
        routes.map(Seen::destination).filter(|to| to[..2] == [10, 55]).collect()
    }

    /// The newest record of a process.
    pub fn process_of(&self, task: &Task) -> Process {
        self.known(task.id).unwrap_or_else(|| panic!("{task:?} was not told of in {:?}", self.processes))
    }

    fn known(&self, id: ProcessId) -> Option<Process> {
        self.processes.iter().rev().find(|process| process.id == id).cloned()
    }

    pub fn ancestors(&self, process: &Process) -> Vec<Process> {
        std::iter::successors(process.parent.and_then(|id| self.known(id)), |p| {
            p.parent.and_then(|id| self.known(id))
        })
        .collect()
    }
}

pub fn is_readable(descriptor: RawFd) -> bool {
    let mut poll = libc::pollfd { fd: descriptor, events: libc::POLLIN, revents: 0 };
    // SAFETY: one valid entry.
    unsafe { libc::poll(&raw mut poll, 1, 0) > 0 }
}

pub fn now() -> Stamp {
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: `time` is valid.
    unsafe { libc::clock_gettime(libc::CLOCK_MONOTONIC, &raw mut time) };
    Stamp(time.tv_sec as u64 * 1_000_000_000 + time.tv_nsec as u64)
}

/// Moves the calling thread to a new network namespace.
pub fn unshare() {
    // SAFETY: no memory is involved.
    let ret = unsafe { libc::unshare(libc::CLONE_NEWNET) };
    assert_eq!(ret, 0, "these tests need root: {}", std::io::Error::last_os_error());
}

/// Runs a test in a thread and a network namespace of its own.
pub fn in_namespace(test: impl FnOnce() + Send + 'static) {
    let inside = move || {
        unshare();
        test();
    };
    if let Err(panic) = thread::spawn(inside).join() {
        std::panic::resume_unwind(panic);
    }
}

pub fn run(program: &str, args: &[&str]) {
    let output = Command::new(program).args(args).output().unwrap();
    assert!(output.status.success(), "{program} {args:?}: {}", String::from_utf8_lossy(&output.stderr));
}

pub fn ip(words: &str) {
    run("ip", &words.split_whitespace().collect::<Vec<_>>());
}

/// The file that `ip` is.
pub fn real_ip() -> PathBuf {
    let path = std::env::var_os("PATH").unwrap();
    std::env::split_paths(&path).find_map(|dir| dir.join("ip").canonicalize().ok()).expect("ip is installed")
}

/// Whether this kernel has the tracepoint `netlink_extack`.
pub fn says_why_it_refuses() -> bool {
    is_since((5, 12))
}

/// Whether this kernel is of this version or later.
pub fn is_since(version: (u32, u32)) -> bool {
    let release = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap();
    let mut numbers = release.split(['.', '-']).map(|number| number.parse::<u32>().unwrap_or(0));
    (numbers.next().unwrap_or(0), numbers.next().unwrap_or(0)) >= version
}

pub fn ifindex(name: &str) -> u32 {
    let name = CString::new(name).unwrap();
    // SAFETY: a C string.
    unsafe { libc::if_nametoindex(name.as_ptr()) }
}

pub fn wait_for_link(name: &str) {
    let started = Instant::now();
    while ifindex(name) == 0 {
        assert!(started.elapsed() < Duration::from_secs(10), "no link {name}");
        thread::sleep(Duration::from_millis(5));
    }
}

/// Starts this test program as one of its clients.
pub fn start_as(client: &str, argument: &str) -> Child {
    Command::new(std::env::current_exe().unwrap())
        .args([client, "--exact", "--ignored", "--test-threads=2"])
        .env("CLIENT_ARG", argument)
        .stdout(Stdio::null())
        .spawn()
        .unwrap()
}

/// A program that computes, and makes no system call, on each processor.
pub struct Busy(Vec<Child>);

impl Busy {
    pub fn everywhere() -> Self {
        let processors = thread::available_parallelism().unwrap().get();
        Self((0..processors).map(|_| start_as("client_busy", "")).collect())
    }
}

impl Drop for Busy {
    fn drop(&mut self) {
        for child in &mut self.0 {
            child.kill().ok();
            child.wait().ok();
        }
    }
}

/// Runs this test program as one of its clients and returns its pid.
pub fn self_as(client: &str, argument: &str) -> u32 {
    let mut child = start_as(client, argument);
    assert!(child.wait().unwrap().success(), "{client}");
    child.id()
}

/// The address that a client was given.
pub fn client() -> [u8; 4] {
    std::env::var("CLIENT_ARG").unwrap().parse::<Ipv4Addr>().unwrap().octets()
}

/// Runs `what`, which must make system calls only, in a forked process, and waits for it.
pub fn self_forked(what: impl FnOnce()) {
    // SAFETY: the child makes system calls and exits.
    unsafe {
        let child = libc::fork();
        assert!(child >= 0);
        if child == 0 {
            what();
            libc::_exit(0);
        }
        let mut status = 0;
        libc::waitpid(child, &raw mut status, 0);
        assert_eq!(status, 0);
    }
}

/// Sends a router advertisement to `near`, from another namespace over a new pair of links that `near` becomes an end
/// of, and calls `then` while the router is still there.
pub fn advertise(near: &str, far: &str, then: impl FnOnce()) {
    let (to_router, from_test) = std::sync::mpsc::channel::<()>();
    let (to_test, from_router) = std::sync::mpsc::channel();
    let name = far.to_owned();
    let router = thread::spawn(move || {
        unshare();
        // SAFETY: no arguments.
        to_test.send(unsafe { libc::gettid() }).unwrap();
        from_test.recv().unwrap();
        ip(&format!("link set {name} up"));
        ip(&format!("-6 addr add fe80::1/64 dev {name} nodad"));
        thread::sleep(Duration::from_millis(500));
        // Come and go, several times: at times ksoftirqd serves it, and most times whoever is interrupted.
        for lifetime in [1800, 0].repeat(10).into_iter().chain([1800]) {
            netlink::send_advertisement(&name, lifetime);
            thread::sleep(Duration::from_millis(5));
        }
        to_test.send(0).unwrap();
        // The namespace goes with this thread.
        from_test.recv().unwrap();
    });
    let tid = from_router.recv().unwrap();
    ip(&format!("link del {near}"));
    ip(&format!("link add {near} type veth peer name {far}"));
    fs::write(format!("/proc/sys/net/ipv6/conf/{near}/accept_dad"), "0").ok();
    ip(&format!("link set {far} netns {tid}"));
    ip(&format!("link set {near} up"));
    to_router.send(()).unwrap();
    from_router.recv().unwrap();
    then();
    to_router.send(()).unwrap();
    router.join().unwrap();
}
