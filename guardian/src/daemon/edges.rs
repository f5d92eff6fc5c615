//! The edges thread: journal, metrics, HTTP, control socket.

use std::{
    collections::HashMap,
    io,
    path::PathBuf,
    sync::Arc,
    thread::{self, JoinHandle},
    time::Duration,
};

use tokio::sync::{Semaphore, mpsc, oneshot};

use crate::{
    model::record::{EventRecord, Outcome, Verdict},
    surface::{
        ask::Asker,
        control::{self, Control, Events},
        http::{self, Http, Pulse},
        journal::Journal,
        kubernetes::Kubernetes,
        metrics::Metrics,
        text,
    },
};

/// Records on their way from the guard to the journal; what does not fit waits with the guard.
pub const QUEUE: usize = 16_384;

/// When a journal that could not be written is tried again.
const RETRY: Duration = Duration::from_secs(5);

/// Log lines of one incident; the rest is in the journal.
const LINES: u32 = 5;

/// What the guard tells.
#[derive(Debug)]
pub struct Told {
    /// The record.
    pub record: EventRecord,
    /// Whether it was told before, with another outcome.
    pub again: bool,
}

/// What the thread is made of.
#[derive(Debug)]
pub struct Edges {
    pub journal: Journal,
    pub control: Control,
    pub http: Option<Http>,
    pub kubernetes: Option<Kubernetes>,
    pub metrics: Metrics,
    pub guard: Asker,
}

/// The running thread.
#[derive(Debug)]
pub struct Running(JoinHandle<()>);

impl Running {
    /// Waits until it has written what it was told. The sending ends must be gone.
    pub fn finish(self) {
        if self.0.join().is_err() {
            log::error!("the edges thread ended badly");
        }
    }
}

impl Edges {
    /// Starts the thread.
    pub fn start(self, state_dir: PathBuf) -> io::Result<(mpsc::Sender<Told>, Running)> {
        let (sender, receiver) = mpsc::channel(QUEUE);
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let thread = thread::Builder::new().name("edges".into()).spawn(move || {
            runtime.block_on(self.serve(state_dir, receiver));
        })?;
        Ok((sender, Running(thread)))
    }

    async fn serve(self, state_dir: PathBuf, told: mpsc::Receiver<Told>) {
        let Self { journal, control, http, kubernetes, metrics, guard } = self;
        let events = control::events();
        let (pulse, pulses) = mpsc::channel(4);
        let journal_dir = state_dir.clone();
        let sources = control::Sources {
            guard: guard.clone(),
            events: events.clone(),
            metrics: metrics.clone(),
            state_dir,
        };
        tokio::spawn(async move {
            if let Err(error) = control.serve(sources).await {
                log::error!("the control socket ended: {error}");
            }
        });
        if let Some(http) = http {
            let pulses = vec![Pulse { name: "journal", ask: pulse }];
            let sources = http::Sources {
                guard,
                pulses,
                metrics: metrics.clone(),
                state_dir: journal_dir,
                reading: Arc::new(Semaphore::new(1)),
            };
            tokio::spawn(async move {
                if let Err(error) = http.serve(sources).await {
                    log::error!("the HTTP surface ended: {error}");
                }
            });
        }
        write(journal, told, pulses, &metrics, &events, kubernetes.as_ref()).await;
    }
}

/// The journal loop; ends when the guard is gone and all is written.
async fn write(
    mut journal: Journal,
    mut told: mpsc::Receiver<Told>,
    mut pulses: mpsc::Receiver<oneshot::Sender<()>>,
    metrics: &Metrics,
    events: &Events,
    kubernetes: Option<&Kubernetes>,
) {
    let mut failing = false;
    let mut log = Log::default();
    loop {
        let retry = tokio::time::sleep(RETRY);
        tokio::select! {
            next = told.recv() => match next {
                Some(Told { record, again }) => {
                    if again { metrics.record_again(&record) } else { metrics.record(&record) }
                    metrics.add_lost("journal", journal.append(&record));
                    log.line(&record);
                    let record = Arc::new(record);
                    if let Some(kubernetes) = kubernetes {
                        kubernetes.tell(&record);
                    }
                    // An error means that nobody follows.
                    let _ = events.send(record);
                }
                None => break,
            },
            Some(reply) = pulses.recv() => {
                let _ = reply.send(());
            }
            () = retry, if journal.waiting() > 0 => journal.flush(),
        }
        match journal.failure() {
            Some(why) if !failing => log::error!("the journal cannot be written: {why}; it is tried again"),
            None if failing => log::info!("the journal is written again"),
            _ => {}
        }
        failing = journal.failure().is_some();
    }
    journal.flush();
}

/// One line a change for the log, a few an incident.
#[derive(Default)]
struct Log {
    lines: HashMap<String, u32>,
}

impl Log {
    fn line(&mut self, record: &EventRecord) {
        if record.verdict == Verdict::Owner {
            return;
        }
        if self.lines.len() > 64 {
            self.lines.clear();
        }
        let lines = self.lines.entry(record.incident.clone()).or_default();
        *lines = lines.saturating_add(1);
        match *lines {
            1..=LINES => {}
            n if n == LINES + 1 => {
                log::info!("and more of incident {}: see `route-guardian events`", record.incident);
                return;
            }
            _ => return,
        }
        let who = text::actor_name(&record.actor);
        let outage = record
            .outage_us
            .map(|micros| format!(" after {}", text::human_duration(Duration::from_micros(micros))))
            .unwrap_or_default();
        let why = record.error.as_deref().map(|error| format!(" ({error})")).unwrap_or_default();
        let line = format!(
            "{} {} by {who}: {}{outage}{why}",
            text::object_text(&record.object),
            text::change_words(record.change),
            record.outcome
        );
        if matches!(record.outcome, Outcome::Restored | Outcome::AlreadyPresent) {
            log::info!("{line}");
        } else {
            log::warn!("{line}");
        }
    }
}
