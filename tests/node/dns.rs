//! A stream of DNS queries: 200 a second, each asked again after a second, as resolvers do.

use std::{
    collections::HashMap,
    fmt, io,
    net::UdpSocket,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use anyhow::{Context, Result, anyhow};
use lab::Pod;

/// Between two queries.
const EVERY: Duration = Duration::from_millis(5);
/// After this a query is asked again.
const AGAIN: Duration = Duration::from_secs(1);
/// How often it is asked before it counts as lost: for ten seconds, as long as glibc waits (`timeout` and `attempts` of
/// resolv.conf(5)).
const TRIES: u32 = 10;

/// How queries fared.
#[derive(Clone, Copy, Debug, Default)]
pub struct Tally {
    /// How many were asked.
    pub asked: u32,
    /// Answered, but only when asked again.
    pub late: u32,
    /// Not answered however often they were asked.
    pub lost: u32,
    /// Not answered yet when it ended, and not asked often enough to be lost.
    pub open: u32,
    /// The longest time between two answers.
    pub silence: Duration,
}

impl fmt::Display for Tally {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { asked, late, lost, open, silence } = self;
        write!(
            f,
            "{asked} asked, {late} late, {lost} lost, {open} open, silent for {} ms",
            silence.as_millis()
        )
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

/// A query that is not answered.
struct Open {
    last: Instant,
    tries: u32,
}

fn ask(socket: &UdpSocket, server: &str, stop: &AtomicBool) -> Result<Tally> {
    let server = (server, 53);
    let mut tally = Tally::default();
    let mut open: HashMap<u16, Open> = HashMap::new();
    let (mut next, mut answered) = (Instant::now(), Instant::now());
    let mut stopped: Option<Instant> = None;
    loop {
        let now = Instant::now();
        if stopped.is_none() && stop.load(Ordering::Relaxed) {
            stopped = Some(now);
        }
        if stopped.is_some_and(|at| open.is_empty() || now > at + AGAIN * TRIES) {
            break;
        }
        if stopped.is_none() && now >= next {
            next += EVERY;
            let id = tally.asked as u16;
            tally.asked += 1;
            open.insert(id, Open { last: now, tries: 1 });
            send(socket, id, server)?;
        }
        for (id, query) in open.iter_mut().filter(|(_, query)| now > query.last + AGAIN) {
            (query.last, query.tries) = (now, query.tries + 1);
            if query.tries <= TRIES {
                send(socket, *id, server)?;
            }
        }
        open.retain(|_, query| {
            let lost = query.tries > TRIES;
            tally.lost += u32::from(lost);
            !lost
        });
        let mut answer = [0; 512];
        match socket.recv(&mut answer) {
            Ok(len) if len >= 12 => {
                let id = u16::from_be_bytes([answer[0], answer[1]]);
                if let Some(query) = open.remove(&id) {
                    tally.late += u32::from(query.tries > 1);
                    tally.silence = tally.silence.max(answered.elapsed());
                    answered = Instant::now();
                }
            }
            // An ICMP error of an earlier query is no answer.
            Ok(_) | Err(_) => thread::sleep(Duration::from_micros(500)),
        }
    }
    tally.open = open.len() as u32;
    tally.silence = tally.silence.max(answered.elapsed().min(tally.silence.max(AGAIN)));
    Ok(tally)
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
