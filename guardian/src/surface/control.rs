//! The control socket: the daemon's side.

use std::{
    collections::BTreeMap,
    fs,
    io::{self, ErrorKind},
    os::unix::{
        fs::{FileTypeExt as _, PermissionsExt as _},
        net::UnixStream as BlockingStream,
    },
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use tokio::{
    io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader},
    net::{UnixListener, UnixStream},
    sync::{Semaphore, broadcast},
    task::spawn_blocking,
    time::timeout,
};

use super::{
    ask::{Ask, AskError, Asker},
    incidents,
    metrics::Metrics,
    protocol::{REQUEST_MAX, Reply, Request},
    query::{self, Query},
};
use crate::model::record::{EventRecord, Outcome};

/// The most clients at a time; others wait in the listen queue.
const CLIENTS_MAX: usize = 32;

/// The most clients that follow at a time; the rest of the places stays free for questions.
const FOLLOWERS_MAX: usize = 16;

/// The events that a follower may be behind before it is dropped.
pub const FOLLOW_QUEUE: usize = 1024;

/// How long a client may take over a request or a reply.
const CLIENT_PATIENCE: Duration = Duration::from_secs(5);

/// How long the guard loop may take over an answer; reading 10,000 routes is well within it.
const GUARD_PATIENCE: Duration = Duration::from_secs(10);

/// Why the control socket cannot be opened.
#[derive(Debug, thiserror::Error)]
pub enum ControlError {
    /// A daemon answers on it.
    #[error("another guardian is listening on {0}; stop it, or set [control] socket or --socket")]
    InUse(PathBuf),
    /// Something else is in its place.
    #[error("{0} is there and is not a socket; remove it, or set [control] socket or --socket")]
    NotASocket(PathBuf),
    /// The kernel refused.
    #[error(
        "cannot open the control socket {path}: {error}; set [control] socket or --socket to another path"
    )]
    Open {
        /// The path.
        path: PathBuf,
        /// What the kernel said.
        error: io::Error,
    },
}

/// The events of the guardian, for everybody who follows.
pub type Events = broadcast::Sender<Arc<EventRecord>>;

/// The channel of [`Events`].
pub fn events() -> Events {
    broadcast::channel(FOLLOW_QUEUE).0
}

/// The bound socket. Its file goes away with it.
#[derive(Debug)]
pub struct Control {
    listener: std::os::unix::net::UnixListener,
    path: PathBuf,
}

/// What the control socket's clients are answered from.
#[derive(Clone, Debug)]
pub struct Sources {
    /// The guard thread.
    pub guard: Asker,
    /// The events as they come.
    pub events: Events,
    /// The metrics, which know what was lost.
    pub metrics: Metrics,
    /// The state folder, which has the journal.
    pub state_dir: PathBuf,
}

impl Control {
    /// Makes the socket with mode 0660, and its folder with 0755 where it is absent. A file left over by a
    /// daemon that is gone is replaced.
    pub fn bind(path: &Path) -> Result<Self, ControlError> {
        let open = |error| ControlError::Open { path: path.to_owned(), error };
        if let Some(folder) = path.parent() {
            fs::create_dir_all(folder).map_err(open)?;
        }
        if let Ok(there) = fs::symlink_metadata(path) {
            if !there.file_type().is_socket() {
                return Err(ControlError::NotASocket(path.to_owned()));
            }
            match BlockingStream::connect(path) {
                Ok(_) => return Err(ControlError::InUse(path.to_owned())),
                Err(error) if error.kind() == ErrorKind::ConnectionRefused => {
                    fs::remove_file(path).map_err(open)?;
                }
                Err(error) => return Err(open(error)),
            }
        }
        let listener = std::os::unix::net::UnixListener::bind(path).map_err(open)?;
        let control = Self { listener, path: path.to_owned() };
        fs::set_permissions(path, fs::Permissions::from_mode(0o660)).map_err(open)?;
        control.listener.set_nonblocking(true).map_err(open)?;
        Ok(control)
    }

    /// Serves for ever. To be called in the edges' runtime.
    ///
    /// # Errors
    /// If the runtime cannot take the socket.
    pub async fn serve(self, sources: Sources) -> io::Result<()> {
        let listener = UnixListener::from_std(self.listener.try_clone()?)?;
        let clients = Arc::new(Semaphore::new(CLIENTS_MAX));
        let followers = Arc::new(Semaphore::new(FOLLOWERS_MAX));
        loop {
            let Ok(permit) = clients.clone().acquire_owned().await else { return Ok(()) };
            match listener.accept().await {
                Ok((stream, _)) => {
                    let (sources, followers) = (sources.clone(), followers.clone());
                    tokio::spawn(async move {
                        // A client that went away is its own affair.
                        let _ = serve_client(stream, &sources, &followers).await;
                        drop(permit);
                    });
                }
                Err(error) => {
                    log::warn!("control socket: cannot accept: {error}");
                    tokio::time::sleep(Duration::from_secs(1)).await;
                }
            }
        }
    }
}

impl Drop for Control {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.path);
    }
}

async fn serve_client(stream: UnixStream, sources: &Sources, followers: &Semaphore) -> io::Result<()> {
    let uid = stream.peer_cred()?.uid();
    let (read, mut write) = stream.into_split();
    let mut line = Vec::new();
    let mut read = BufReader::new(read.take(REQUEST_MAX));
    match timeout(CLIENT_PATIENCE, read.read_until(b'\n', &mut line)).await {
        Ok(Ok(0)) | Err(_) => return Ok(()),
        Ok(read) => read?,
    };
    let request: Request = match serde_json::from_slice(&line) {
        Ok(request) => request,
        Err(error) => {
            let wrong = format!("not a request: {error}; write one such as {{\"request\":\"status\"}}");
            return send(&mut write, &Reply::Error(wrong)).await;
        }
    };
    drop(line);
    // SAFETY: geteuid has no preconditions and cannot fail.
    if request.changes_something() && uid != 0 && uid != unsafe { libc::geteuid() } {
        let wrong = "only root may ask for this: it changes something".to_owned();
        return send(&mut write, &Reply::Error(wrong)).await;
    }
    if let Request::Events { query, follow } = request {
        let _place = match (follow, followers.try_acquire()) {
            (true, Err(_)) => {
                let wrong = format!("{FOLLOWERS_MAX} clients follow already; end one of them");
                return send(&mut write, &Reply::Error(wrong)).await;
            }
            (_, place) => place,
        };
        // Subscribe before the journal is read, so that nothing falls between.
        let coming = follow.then(|| sources.events.subscribe());
        let seen = send_journal(&mut write, sources, query.clone()).await?;
        return match coming {
            Some(coming) => send_coming(&mut write, &mut read, sources, coming, &query, seen).await,
            None => Ok(()),
        };
    }
    if let Request::Incidents { query } = request {
        return send_incidents(&mut write, sources, query).await;
    }
    let reply = answer(request, sources).await.unwrap_or_else(|error| Reply::Error(error.to_string()));
    send(&mut write, &reply).await
}

/// Everything but events.
async fn answer(request: Request, sources: &Sources) -> Result<Reply, AskError> {
    let guard = &sources.guard;
    let or_error = |reply: Result<Reply, String>| reply.unwrap_or_else(Reply::Error);
    Ok(match request {
        Request::Status => {
            let mut status = guard.ask(GUARD_PATIENCE, Ask::Status).await?;
            // The metrics count the losses of the edges too.
            merge(&mut status.lost, sources.metrics.lost());
            merge(&mut status.resyncs, sources.metrics.resyncs());
            Reply::Status(Box::new(status))
        }
        Request::Snapshot { observed } => {
            let snapshot = guard.ask(GUARD_PATIENCE, |reply| Ask::Snapshot { observed, reply }).await?;
            Reply::Snapshot(snapshot)
        }
        Request::Diff { desired } => {
            let diff = guard.ask(GUARD_PATIENCE, |reply| Ask::Diff { desired, reply }).await?;
            or_error(diff.map(Reply::Diff))
        }
        Request::Restore { dry_run } => {
            let plan = guard.ask(GUARD_PATIENCE, |reply| Ask::Restore { dry_run, reply }).await?;
            or_error(plan.map(Reply::Restore))
        }
        Request::Release { key } => {
            Reply::Released(guard.ask(GUARD_PATIENCE, |reply| Ask::Release { key, reply }).await?)
        }
        Request::Heartbeat => {
            guard.ask(GUARD_PATIENCE, Ask::Heartbeat).await?;
            Reply::Done
        }
        Request::Reload => or_error(guard.ask(GUARD_PATIENCE, Ask::Reload).await?.map(|()| Reply::Done)),
        Request::Events { .. } | Request::Incidents { .. } => Reply::Error("events are streamed".into()),
    })
}

fn merge(to: &mut BTreeMap<String, u64>, from: BTreeMap<String, u64>) {
    for (key, count) in from {
        let there = to.entry(key).or_default();
        *there = (*there).max(count);
    }
}

/// What tells one word on an event from a later one.
type Word = (String, Outcome);

/// Sends the events of the journal; returns the last ones, which may come again.
async fn send_journal(
    write: &mut (impl tokio::io::AsyncWrite + Unpin),
    sources: &Sources,
    query: Query,
) -> io::Result<Vec<Word>> {
    let dir = sources.state_dir.clone();
    let found =
        spawn_blocking(move || query::read(&dir, &query, Query::SERVED)).await.map_err(io::Error::other)?;
    let found = match found {
        Ok(found) => found,
        Err(error) => {
            send(write, &Reply::Error(format!("cannot read the journal: {error}"))).await?;
            return Ok(Vec::new());
        }
    };
    for event in &found.events {
        send(write, &Reply::Event(Box::new(event.clone()))).await?;
    }
    send(write, &Reply::End { torn: found.torn, left_out: found.left_out }).await?;
    let recent = found.events.len().saturating_sub(FOLLOW_QUEUE);
    Ok(found.events.into_iter().skip(recent).map(|event| (event.id, event.outcome)).collect())
}

/// Sends the incidents of the journal.
async fn send_incidents(
    write: &mut (impl tokio::io::AsyncWrite + Unpin),
    sources: &Sources,
    query: Query,
) -> io::Result<()> {
    let dir = sources.state_dir.clone();
    let found = spawn_blocking(move || incidents::read(&dir, &query, incidents::SERVED))
        .await
        .map_err(io::Error::other)?;
    match found {
        Ok(found) => {
            for incident in found.incidents {
                send(write, &Reply::Incident(Box::new(incident))).await?;
            }
            send(write, &Reply::End { torn: found.torn, left_out: found.left_out }).await
        }
        Err(error) => send(write, &Reply::Error(format!("cannot read the journal: {error}"))).await,
    }
}

/// Sends events as they come, until the client goes away or falls behind.
async fn send_coming(
    write: &mut (impl tokio::io::AsyncWrite + Unpin),
    read: &mut (impl tokio::io::AsyncRead + Unpin),
    sources: &Sources,
    mut coming: broadcast::Receiver<Arc<EventRecord>>,
    query: &Query,
    seen: Vec<Word>,
) -> io::Result<()> {
    let mut rest = [0; 64];
    loop {
        let event = tokio::select! {
            event = coming.recv() => event,
            // A client says no more; when it hangs up, this returns.
            got = read.read(&mut rest) => match got? {
                0 => return Ok(()),
                _ => continue,
            },
        };
        match event {
            Ok(event) => {
                let again = || seen.iter().any(|(id, outcome)| *id == event.id && *outcome == event.outcome);
                if query.matches(&event) && !again() {
                    send(write, &Reply::Event(Box::new((*event).clone()))).await.inspect_err(|error| {
                        if error.kind() == ErrorKind::TimedOut {
                            sources.metrics.add_lost("follower", coming.len() as u64 + 1);
                        }
                    })?;
                }
            }
            Err(broadcast::error::RecvError::Lagged(missed)) => {
                sources.metrics.add_lost("follower", missed);
                let wrong = format!("you were too slow and missed {missed} events; they are in the journal");
                return send(write, &Reply::Error(wrong)).await;
            }
            Err(broadcast::error::RecvError::Closed) => return Ok(()),
        }
    }
}

async fn send(write: &mut (impl tokio::io::AsyncWrite + Unpin), reply: &Reply) -> io::Result<()> {
    let mut line = serde_json::to_vec(reply)?;
    line.push(b'\n');
    timeout(CLIENT_PATIENCE, write.write_all(&line))
        .await
        .map_err(|_| io::Error::from(ErrorKind::TimedOut))?
}

#[cfg(test)]
#[path = "control_tests.rs"]
mod tests;
