//! A DNS server, and a stream of queries to it: 200 a second, each asked again where no answer comes, as resolvers do.

use std::{
    collections::{HashMap, VecDeque},
    fmt, io,
    net::UdpSocket,
    process::{Command, Stdio},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use anyhow::{Context, Result, anyhow};
use rustix::{
    event::{PollFd, PollFlags, Timespec, poll},
    io::Errno,
};

use crate::{Pod, Tethered, tethered};

/// Starts dnsmasq in a pod: it answers, and does what these arguments say besides.
pub fn serve(pod: &Pod, more: &[&str]) -> Result<Tethered> {
    let mut command = Command::new("nsenter");
    command
        .args(["--net", "--target", &pod.process.pid().to_string(), "dnsmasq", "--keep-in-foreground"])
        .args(["--conf-file=/dev/null", "--no-resolv", "--no-hosts", "--user=root", "--pid-file="])
        .arg("--address=/kube.test/10.1.2.3")
        .args(more)
        .stdout(Stdio::null())
        .stderr(Stdio::null());
    tethered(&mut command).context("cannot start dnsmasq")
}

/// Between two queries.
const EVERY: Duration = Duration::from_millis(5);
/// After this a query is asked again: what musl takes for lost (its `timeout` of 5 s divided by its two `attempts`), and
/// half of what glibc waits.
const AGAIN: Duration = Duration::from_millis(2500);
/// How often it is asked before it counts as lost: for ten seconds, as long as glibc waits (`timeout` and `attempts` of
/// resolv.conf(5)).
const TRIES: u32 = 4;

/// How long the asking may stand still: other programs run, too, on a guest's one CPU.
const STALLED: Duration = Duration::from_millis(50);

/// How many answers are heard before more is asked: all that come in a moment in which the asking was not let run.
const HEARD: u32 = 1024;

/// How queries fared.
#[must_use]
#[derive(Clone, Copy, Debug, Default)]
pub struct Tally {
    /// How many were asked.
    pub asked: u32,
    /// For how long.
    pub time: Duration,
    /// Answered, but only when asked again.
    pub late: u32,
    /// Not answered however often they were asked.
    pub lost: u32,
    /// Not answered yet when it ended, and not asked often enough to be lost.
    pub open: u32,
    /// The longest time between two answers while it was asked.
    pub silence: Duration,
    /// The slowest answer to what was asked once only.
    pub slowest: Duration,
    /// The longest time that the asking itself was not let run: what is late for that says nothing of the network.
    pub stalled: Duration,
}

impl fmt::Display for Tally {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { asked, time, late, lost, open, silence, slowest, stalled } = self;
        let [time, silence, slowest, stalled] = [time, silence, slowest, stalled].map(Duration::as_millis);
        write!(
            f,
            "{asked} asked in {time} ms, {late} late, {lost} lost, {open} open, slowest {slowest} ms, silent for \
             {silence} ms, stalled for {stalled} ms"
        )
    }
}

impl Tally {
    /// Whether it was asked as often as it should be, all the time; or little that is late would mean nothing.
    pub fn is_steady(&self) -> bool {
        EVERY * self.asked >= self.time.mul_f32(0.9) && self.stalled < STALLED
    }
}

/// Asks until it is stopped.
pub struct Stream {
    stop: Arc<AtomicBool>,
    thread: JoinHandle<Result<Tally>>,
}

impl Stream {
    /// Asks `server` from a pod.
    pub fn start(pod: &Pod, server: &'static str) -> Result<Self> {
        let socket = pod.inside(|| {
            let socket = UdpSocket::bind("0.0.0.0:0")?;
            socket.set_nonblocking(true)?;
            Ok(socket)
        })?;
        let stop = Arc::new(AtomicBool::new(false));
        let flag = Arc::clone(&stop);
        let thread = thread::spawn(move || ask(&socket, server, &flag));
        Ok(Self { stop, thread })
    }

    /// Asks no more; what is open then is waited for as long as it would be asked again.
    pub fn stop(self) -> Result<Tally> {
        self.stop.store(true, Ordering::Relaxed);
        self.thread.join().map_err(|_| anyhow!("the stream of queries broke off"))?
    }
}

/// It waits for what comes next, and looks at nothing but that: in an emulated guest the asking must not take the time of
/// the answering.
fn ask(socket: &UdpSocket, server: &str, stop: &AtomicBool) -> Result<Tally> {
    let server = (server, 53);
    let mut tally = Tally::default();
    // When each that is not answered was asked first, and how often; and when it is asked again, the next first.
    let mut waiting: HashMap<u16, (Instant, u32)> = HashMap::new();
    let mut again: VecDeque<(Instant, u16)> = VecDeque::new();
    let began = Instant::now();
    let (mut next, mut answered) = (began, began);
    let mut stopped: Option<Instant> = None;
    let mut looked = next;
    loop {
        let due = again.front().map(|(at, _)| *at).into_iter().chain(stopped.is_none().then_some(next)).min();
        let left = due.map_or(EVERY, |due| due.saturating_duration_since(Instant::now()));
        // What has come is heard first, also where the asking is behind its time: it is not asked for again.
        wait(socket, left.min(EVERY))?;
        for _ in 0..HEARD {
            let mut answer = [0; 512];
            // An ICMP error of an earlier query is no answer.
            let Ok(len) = socket.recv(&mut answer) else { break };
            let query = (len >= 12).then(|| u16::from_be_bytes([answer[0], answer[1]]));
            if let Some((asked, tries)) = query.and_then(|id| waiting.remove(&id)) {
                let now = Instant::now();
                if tries > 1 {
                    tally.late += 1;
                } else {
                    tally.slowest = tally.slowest.max(now - asked);
                }
                if stopped.is_none() {
                    tally.silence = tally.silence.max(now - answered);
                    answered = now;
                }
            }
        }
        let now = Instant::now();
        tally.stalled = tally.stalled.max(now - looked);
        looked = now;
        if stopped.is_none() && stop.load(Ordering::Relaxed) {
            stopped = Some(now);
            tally.time = now - began;
            tally.silence = tally.silence.max(now - answered);
        }
        if stopped.is_some_and(|at| waiting.is_empty() || now > at + AGAIN * TRIES) {
            break;
        }
        if stopped.is_none() && now >= next {
            next += EVERY;
            let id = tally.asked as u16;
            tally.asked += 1;
            waiting.insert(id, (now, 1));
            again.push_back((now + AGAIN, id));
            send(socket, id, server)?;
        }
        while again.front().is_some_and(|(at, _)| *at <= now) {
            let Some((_, id)) = again.pop_front() else { break };
            match waiting.get_mut(&id) {
                Some((_, tries)) if *tries < TRIES => {
                    *tries += 1;
                    again.push_back((now + AGAIN, id));
                    send(socket, id, server)?;
                }
                Some(_) => {
                    waiting.remove(&id);
                    tally.lost += 1;
                }
                // It has been answered.
                None => {}
            }
        }
    }
    tally.open = waiting.len() as u32;
    Ok(tally)
}

/// Waits for something to hear. A socket's own timeout is as coarse as the kernel's ticks, which may be further apart than
/// two queries.
fn wait(socket: &UdpSocket, at_most: Duration) -> Result<()> {
    let at_most = Timespec { tv_sec: 0, tv_nsec: at_most.subsec_nanos().into() };
    match poll(&mut [PollFd::new(socket, PollFlags::IN)], Some(&at_most)) {
        Ok(_) | Err(Errno::INTR) => Ok(()),
        Err(error) => Err(error).context("cannot wait for an answer"),
    }
}

/// One query for an address; without a route it is as if it was lost on the way.
fn send(socket: &UdpSocket, id: u16, server: (&str, u16)) -> Result<()> {
    let mut query = id.to_be_bytes().to_vec();
    query.extend([1, 0, 0, 1, 0, 0, 0, 0, 0, 0]);
    query.extend(b"\x04kube\x04test\x00\x00\x01\x00\x01");
    match socket.send_to(&query, server) {
        Ok(_) => Ok(()),
        Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(()),
        Err(error) => match error.raw_os_error() {
            Some(
                libc::ENETUNREACH | libc::EHOSTUNREACH | libc::ENETDOWN | libc::ECONNREFUSED | libc::EPERM,
            ) => Ok(()),
            _ => Err(error).context("cannot send a query"),
        },
    }
}
