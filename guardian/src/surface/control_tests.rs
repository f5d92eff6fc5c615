use tokio::sync::mpsc;

use super::*;
use crate::surface::{
    client::{self, ClientError},
    journal::Journal,
    report::{DiffReport, Snapshot},
    sample,
};

/// A daemon of edges only: a guard that answers from constants, and the control socket.
struct Edges {
    dir: tempfile::TempDir,
    events: Events,
    metrics: Metrics,
    handle: tokio::runtime::Handle,
    _end: tokio::sync::oneshot::Sender<()>,
}

fn edges() -> Edges {
    let dir = tempfile::tempdir().unwrap();
    let (guard, questions) = Asker::channel();
    let events = events();
    let metrics = Metrics::new("0", "0").unwrap();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let sources =
        Sources { guard, events: events.clone(), metrics: metrics.clone(), state_dir: dir.path().to_owned() };
    let control = Control::bind(&dir.path().join("s")).unwrap();
    runtime.spawn(control.serve(sources));
    runtime.spawn(guard_of_constants(questions));
    // Its clients block, so it needs a thread of its own, which ends with the channel.
    let (end, ended) = tokio::sync::oneshot::channel::<()>();
    let handle = runtime.handle().clone();
    std::thread::spawn(move || runtime.block_on(ended));
    Edges { dir, events, metrics, handle, _end: end }
}

async fn guard_of_constants(mut questions: mpsc::Receiver<Ask>) {
    while let Some(question) = questions.recv().await {
        match question {
            Ask::Snapshot { observed, reply } => {
                let objects = vec![sample::networkd(1).object];
                let snapshot = Snapshot { netns: 7, observed, objects, ..Snapshot::default() };
                let _ = reply.send(snapshot);
            }
            Ask::Diff { desired, reply } => {
                let desired = desired.unwrap_or_default().objects;
                let _ = reply.send(Ok(DiffReport::between(&desired, &[])));
            }
            Ask::Restore { reply, .. } => {
                let _ = reply.send(Err("observe mode touches nothing".into()));
            }
            Ask::Release { key, reply } => {
                let _ = reply.send(if key.is_some() { 1 } else { 3 });
            }
            Ask::Heartbeat(reply) => {
                let _ = reply.send(());
            }
            // Everything else is dropped unanswered.
            _ => {}
        }
    }
}

impl Edges {
    fn socket(&self) -> PathBuf {
        self.dir.path().join("s")
    }

    fn ask(&self, request: &Request) -> Result<Reply, ClientError> {
        client::ask(&self.socket(), request)?.one()
    }
}

#[test]
fn questions_are_answered() {
    let edges = edges();
    assert_eq!(fs::metadata(edges.socket()).unwrap().permissions().mode() & 0o777, 0o660);
    let Ok(Reply::Snapshot(snapshot)) = edges.ask(&Request::Snapshot { observed: false }) else {
        panic!("no snapshot")
    };
    assert!(snapshot.netns == 7 && !snapshot.observed);
    let observed = edges.ask(&Request::Snapshot { observed: true });
    assert!(matches!(observed, Ok(Reply::Snapshot(Snapshot { observed: true, .. }))));
    // As written by a client that knows of no observed state.
    assert_eq!(
        serde_json::from_str::<Request>("{\"request\":\"snapshot\"}").unwrap(),
        Request::Snapshot { observed: false }
    );
    assert_eq!(edges.ask(&Request::Release { key: None }).unwrap(), Reply::Released(3));
    let desired = Some(snapshot);
    let Ok(Reply::Diff(diff)) = edges.ask(&Request::Diff { desired }) else { panic!("no diff") };
    assert_eq!(diff.missing.len(), 1);
    assert_eq!(edges.ask(&Request::Heartbeat).unwrap(), Reply::Done);
    let error = edges.ask(&Request::Restore { dry_run: false }).unwrap_err().to_string();
    assert_eq!(error, "observe mode touches nothing");
    let error = edges.ask(&Request::Status).unwrap_err().to_string();
    assert_eq!(error, "the guard loop has ended");
}

#[test]
fn nonsense_is_told_what_would_be_right() {
    use std::io::{BufRead as _, Write as _};
    let edges = edges();
    let mut stream = BlockingStream::connect(edges.socket()).unwrap();
    stream.write_all(b"GET / HTTP/1.1\n").unwrap();
    let mut line = String::new();
    io::BufReader::new(stream).read_line(&mut line).unwrap();
    assert!(line.contains("not a request") && line.contains("status"), "{line}");
}

#[test]
fn a_follower_gets_the_journal_and_then_what_comes() {
    let edges = edges();
    let mut journal = Journal::open(edges.dir.path(), 1 << 20).unwrap();
    journal.append(&sample::networkd(1));
    journal.append(&sample::script(2));
    let query = Query { actor: Some("networkd".into()), ..Query::default() };
    let mut replies = client::ask(&edges.socket(), &Request::Events { query, follow: true }).unwrap();
    assert_eq!(replies.next_reply().unwrap(), Some(Reply::Event(Box::new(sample::networkd(1)))));
    assert_eq!(replies.next_reply().unwrap(), Some(Reply::End { torn: 0, left_out: 0 }));
    // What was sent from the journal does not come twice; what is not wanted does not come at all.
    for event in [sample::networkd(1), sample::script(3), sample::networkd(4)] {
        edges.events.send(Arc::new(event)).unwrap();
    }
    assert_eq!(replies.next_reply().unwrap(), Some(Reply::Event(Box::new(sample::networkd(4)))));
}

#[test]
fn a_slow_follower_is_dropped_and_counted() {
    let edges = edges();
    let request = Request::Events { query: Query::default(), follow: true };
    let mut replies = client::ask(&edges.socket(), &request).unwrap();
    assert!(matches!(replies.next_reply().unwrap(), Some(Reply::End { .. })));
    // More than the queue and the socket's buffers hold, without ever yielding to the follower's task.
    let events = edges.events.clone();
    edges.handle.spawn(async move {
        for n in 0..FOLLOW_QUEUE as u32 * 2 {
            let _ = events.send(Arc::new(sample::networkd(n)));
        }
    });
    let error = loop {
        match replies.next_reply() {
            Ok(Some(_)) => {}
            other => break other.unwrap_err().to_string(),
        }
    };
    assert!(error.contains("too slow"), "{error}");
    assert!(edges.metrics.lost()["follower"] > 0);
    assert_eq!(edges.ask(&Request::Heartbeat).unwrap(), Reply::Done);
}

#[test]
fn a_live_socket_is_refused_and_a_stale_one_replaced() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("run/s");
    let first = Control::bind(&path).unwrap();
    assert!(matches!(Control::bind(&path), Err(ControlError::InUse(_))));
    // A child that another test starts has the socket, too, until it executes its program.
    let not_running = |path: &Path| {
        (0..500).any(|_| {
            let refused = matches!(client::ask(path, &Request::Status), Err(ClientError::NotRunning(_)));
            if !refused {
                std::thread::sleep(Duration::from_millis(10));
            }
            refused
        })
    };
    drop(first);
    assert!(!path.exists() && not_running(&path));

    drop(std::os::unix::net::UnixListener::bind(&path).unwrap());
    assert!(path.exists() && not_running(&path));
    drop(Control::bind(&path).unwrap());

    fs::write(&path, "precious").unwrap();
    assert!(matches!(Control::bind(&path), Err(ControlError::NotASocket(_))));
    assert_eq!(fs::read_to_string(&path).unwrap(), "precious");
}
