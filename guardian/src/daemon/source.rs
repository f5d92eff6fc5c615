//! Where changes come from: the tap, or plain netlink without BPF.

use std::{
    collections::BTreeSet,
    os::fd::{AsRawFd, RawFd},
};

use super::clock;
use crate::{
    attribution::{Comm, KernelWork, TaskFacts},
    core::plan::Applied,
    model::{Fallen, Family, Notice, Object, Process, ProcessId, Stamp, route::rt},
    netlink::{DecodeError, Listener, Received, decode, frames},
    sensor::{Cables, Lookups, Lost, Sensed, SensorError, SensorStatus, Sensors, Task},
};

/// Records taken in at once, between two looks at what is to be written.
const BATCH: usize = 256;

/// The kernel's announcements.
pub enum Source {
    /// The socket filter, which knows who.
    Tap {
        /// The sensors.
        sensors: Box<Sensors>,
        /// Whether it can tell interrupts from the tasks that they interrupt.
        sees_interrupts: bool,
    },
    /// A plain multicast socket, which does not.
    Plain(Listener),
}

/// Something that came.
#[derive(Debug)]
pub enum Taken {
    /// A change.
    Notice { at: Stamp, notice: Notice, port: u32, task: TaskFacts },
    /// A change that a write of our own has brought about.
    Own { at: Stamp, notice: Notice },
    /// A route that went without a message.
    Fallen { at: Stamp, route: Fallen, task: TaskFacts, own: bool },
    /// Who a process is.
    Process(Process),
    /// A process is gone.
    Exit(ProcessId),
    /// A message that was cut or that cannot be read: state is to be read again.
    Unreadable(Option<DecodeError>),
    /// Messages were lost.
    Overrun,
}

impl Source {
    /// The tap as a source.
    pub fn tap(sensors: Sensors) -> Self {
        let sees_interrupts = sensors.status().iter().any(|s| s.name == "interrupt" && s.attached);
        Self::Tap { sensors: Box::new(sensors), sees_interrupts }
    }

    /// Takes what is there, at most a batch; whether there may be more.
    pub fn take(&mut self, own_port: u32, into: &mut Vec<Taken>) -> bool {
        match self {
            Self::Tap { sensors, sees_interrupts } => {
                let sees_interrupts = *sees_interrupts;
                sensors.drain(BATCH, &mut |sensed| tapped(sensed, sees_interrupts, own_port, into)) == BATCH
            }
            Self::Plain(listener) => (0..BATCH).all(|_| hear(listener, own_port, into)),
        }
    }

    /// What wakes when something comes to a source of which everything has been taken.
    pub fn descriptors(&self) -> Vec<RawFd> {
        match self {
            Self::Tap { sensors, .. } => sensors.descriptors().to_vec(),
            Self::Plain(listener) => vec![listener.as_raw_fd()],
        }
    }

    /// The counters of lookups, where they can be had.
    pub fn lookups(&mut self) -> Option<&mut Lookups> {
        match self {
            Self::Tap { sensors, .. } => sensors.lookups(),
            Self::Plain(_) => None,
        }
    }

    /// What carries ports, where it can be had.
    pub fn cables(&self) -> Option<&Cables> {
        match self {
            Self::Tap { sensors, .. } => sensors.cables(),
            Self::Plain(_) => None,
        }
    }

    /// Gives a refusal that came without the kernel's words those that the sensor has heard since the requests were
    /// sent; where there were several requests it is not known whose they are.
    pub fn complete(&self, results: &mut [Applied], since: Stamp) {
        let Self::Tap { sensors, .. } = self else { return };
        if let [Applied::Refused { message: message @ None, .. }] = results {
            *message = sensors.words(since);
        }
    }

    /// Who a process is, by the sensor's own memory.
    pub fn process(&self, tgid: u32) -> Option<Process> {
        match self {
            Self::Tap { sensors, .. } => sensors.process(tgid),
            Self::Plain(_) => None,
        }
    }

    /// What the kernel side had to drop since the start.
    pub fn lost(&self) -> Lost {
        match self {
            Self::Tap { sensors, .. } => sensors.lost(),
            Self::Plain(_) => Lost::default(),
        }
    }

    /// Tells a new tap which links are known to be out of scope.
    pub fn set_links(&mut self, outside: &BTreeSet<u32>) {
        self.rule_out(|sensors| sensors.set_links(outside));
    }

    /// Tells the tap that a link is known to be out of scope, or is so no longer.
    pub fn set_link(&mut self, index: u32, outside: bool) {
        self.rule_out(|sensors| sensors.set_link(index, outside));
    }

    fn rule_out(&mut self, what: impl FnOnce(&mut Sensors) -> Result<(), SensorError>) {
        if let Self::Tap { sensors, .. } = self
            && let Err(error) = what(sensors)
        {
            log::warn!("the tap may miss routes of a link that came into scope: {error}");
        }
    }

    /// Every sensor that was tried. `why` is why there is no tap, where there is none.
    pub fn status(&self, why: Option<&str>) -> Vec<SensorStatus> {
        match self {
            Self::Tap { sensors, .. } => {
                let mut status = sensors.status();
                status.push(SensorStatus { name: "netlink", attached: true, why: None });
                status
            }
            Self::Plain(_) => vec![
                SensorStatus { name: "tap", attached: false, why: why.map(str::to_owned) },
                SensorStatus {
                    name: "netlink",
                    attached: true,
                    why: Some("without BPF: nobody is named".into()),
                },
            ],
        }
    }
}

fn tapped(sensed: Sensed<'_>, sees_interrupts: bool, own_port: u32, into: &mut Vec<Taken>) {
    match sensed {
        Sensed::Fallen { at, task, route } => {
            let own = task.own;
            into.push(Taken::Fallen { at, route, task: facts(&task, 0, None), own });
        }
        Sensed::Process(process) => into.push(Taken::Process(process)),
        Sensed::Exit(process) => into.push(Taken::Exit(process)),
        Sensed::Message { bytes, whole_len, .. } if bytes.len() < whole_len => {
            into.push(Taken::Unreadable(None));
        }
        Sensed::Message { at, task, bytes, .. } => {
            for frame in frames(bytes) {
                match frame.and_then(|frame| Ok(decode(&frame)?.map(|notice| (notice, frame.header.port)))) {
                    // Where the tap cannot tell who we are it lets our own pass.
                    Ok(Some((_, port))) if port == own_port => {}
                    Ok(Some((notice, _))) if task.own => into.push(Taken::Own { at, notice }),
                    Ok(Some((mut notice, port))) => {
                        if port == 0 && in_softirq(&task) {
                            mark_expired(&mut notice);
                        }
                        let made = kernel_made(&task, &notice, port, sees_interrupts);
                        let task = facts(&task, port, made);
                        into.push(Taken::Notice { at, notice, port, task });
                    }
                    Ok(None) => {}
                    Err(error) => into.push(Taken::Unreadable(Some(error))),
                }
            }
        }
    }
}

/// Takes one datagram; whether there was one.
fn hear(listener: &mut Listener, own_port: u32, into: &mut Vec<Taken>) -> bool {
    match listener.recv() {
        Ok(Some(Received::Datagram(bytes))) => plain(bytes, own_port, into),
        Ok(Some(Received::Overrun)) => into.push(Taken::Overrun),
        Ok(None) => return false,
        // What was there is not known.
        Err(error) => {
            log::error!("cannot read what the kernel announces: {error}");
            into.push(Taken::Overrun);
            return false;
        }
    }
    true
}

fn plain(datagram: &[u8], own_port: u32, into: &mut Vec<Taken>) {
    let at = clock::now();
    for frame in frames(datagram) {
        match frame.and_then(|frame| Ok(decode(&frame)?.map(|notice| (notice, frame.header.port)))) {
            Ok(Some((_, port))) if port == own_port => {}
            Ok(Some((notice, port))) => into.push(Taken::Notice { at, notice, port, task: nobody() }),
            Ok(None) => {}
            Err(error) => into.push(Taken::Unreadable(Some(error))),
        }
    }
}

fn nobody() -> TaskFacts {
    TaskFacts {
        id: ProcessId { tgid: 0, start_ns: 0 },
        tid: 0,
        uid: 0,
        cpu: None,
        comm: Comm::default(),
        cgroup_id: 0,
        kthread: false,
        interrupt: false,
        known: false,
        // Nobody is named without BPF: by the time that such a message is read its sender is usually gone.
        port: 0,
        kernel_made: None,
    }
}

fn facts(task: &Task, port: u32, kernel_made: Option<KernelWork>) -> TaskFacts {
    TaskFacts {
        id: task.id,
        tid: task.tid,
        uid: task.uid,
        cpu: Some(task.cpu),
        comm: task.comm,
        cgroup_id: task.cgroup_id,
        kthread: task.kthread,
        interrupt: task.interrupt,
        known: task.known,
        port,
        kernel_made,
    }
}

/// Whether a softirq made a change: as it came, or later in the kernel thread that makes up for it (`kernel/softirq.c`;
/// `ktimers` of a real-time kernel since 6.1).
fn in_softirq(task: &Task) -> bool {
    let served = |thread: &[u8]| task.kthread && task.comm.starts_with(thread);
    task.interrupt || served(b"ksoftirqd/") || served(b"ktimers/")
}

/// A softirq takes away no route but IPv6 ones that have run out (`fib6_run_gc` of `net/ipv6/ip6_fib.c`) or that a router
/// wants no longer. The message need not say so: Linux 6.18 announces the end of a route without the lifetime that it had.
const fn mark_expired(notice: &mut Notice) {
    if let Notice::Gone { object: Object::Route(route) } = notice {
        route.expires |= matches!(route.family(), Family::Inet6);
    }
}

/// The message says what kind of work it was; that it was the kernel's the context says, where it can.
fn kernel_made(task: &Task, notice: &Notice, port: u32, sees_interrupts: bool) -> Option<KernelWork> {
    if port != 0 || (sees_interrupts && !task.interrupt) {
        return None;
    }
    match notice {
        Notice::Set { object, .. } | Notice::Gone { object } => match object {
            Object::Route(r) if r.protocol == rt::PROT_RA => Some(KernelWork::RouterAdvertisement),
            Object::Route(r) if r.expires => Some(KernelWork::Expiry),
            Object::Address(a) if a.expires => Some(KernelWork::Expiry),
            _ => None,
        },
    }
}
