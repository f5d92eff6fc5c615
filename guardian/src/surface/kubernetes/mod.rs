//! What Kubernetes is told: Events of the Node, and, where that is wanted, a condition of it.
//!
//! On a thread of its own with a runtime of its own, which is fed by a bounded queue and waits for an API server that
//! hangs as long as that likes: restores and journal know nothing of it. What is to be told is decided without I/O
//! ([`outbox`], [`condition`]), and how often the API server is asked ([`bucket`], [`backoff`]).

mod api;
mod backoff;
mod bucket;
mod condition;
mod message;
mod outbox;

use std::{
    env,
    hash::{BuildHasher as _, RandomState},
    io,
    pin::Pin,
    sync::Arc,
    thread,
    time::{Duration, Instant},
};

use jiff::Timestamp;
use tokio::{sync::mpsc, time::sleep};

use self::{
    api::Server,
    backoff::Backoff,
    condition::{Condition, Health, Known},
    outbox::{Outbox, Trouble},
};
use crate::{
    config,
    model::{Stamp, record::EventRecord},
    surface::{
        ask::{Ask, Asker},
        metrics::Metrics,
    },
};

/// Records on their way to the thread. It takes them in at once, whatever the API server does.
const QUEUE: usize = 1024;

/// How often it is looked how the guard is, for the condition.
const LOOK: Duration = Duration::from_secs(10);

/// How long the guard may take to say.
const PATIENCE: Duration = Duration::from_secs(4);

/// The variable in which the downward API puts the Node's name (`spec.nodeName`).
const NODE_NAME: &str = "NODE_NAME";

/// The thread, from outside. It ends when this is dropped.
#[derive(Debug)]
pub struct Kubernetes {
    queue: mpsc::Sender<Arc<EventRecord>>,
    events: bool,
    metrics: Metrics,
}

impl Kubernetes {
    /// Starts the thread, if Kubernetes is to be told anything. Without a name for the Node that is said, and no
    /// obstacle: to guard comes first.
    ///
    /// # Errors
    /// The kernel's, where it gives no thread.
    pub fn start(config: &config::Kubernetes, metrics: Metrics, guard: Asker) -> io::Result<Option<Self>> {
        if !config.is_wanted() {
            return Ok(None);
        }
        let named = Some(config.node.clone()).filter(|node| !node.is_empty());
        let Some(node) = named.or_else(|| env::var(NODE_NAME).ok()).filter(|node| !node.is_empty()) else {
            log::error!(
                "Kubernetes is told nothing: neither kubernetes.node nor {NODE_NAME} says the name of this Node"
            );
            return Ok(None);
        };
        let (queue, told) = mpsc::channel(QUEUE);
        let teller = Teller {
            server: Server::new(config.server.map(|address| format!("https://{address}")), node),
            outbox: Outbox::new(),
            condition: config.node_condition.then(Condition::default),
            health: None,
            look: Stamp(0),
            patience: [Backoff::new(spread()), Backoff::new(spread())],
            failing: [false; 2],
            guard,
            metrics: metrics.clone(),
            started: Instant::now(),
        };
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        thread::Builder::new()
            .name("kubernetes".into())
            .spawn(move || runtime.block_on(teller.serve(told)))?;
        Ok(Some(Self { queue, events: config.events, metrics }))
    }

    /// Takes in a record, if Events are wanted, and it is for one. Never waits; what does not fit is counted.
    pub fn tell(&self, event: &Arc<EventRecord>) {
        if self.events && message::is_told(event) && self.queue.try_send(event.clone()).is_err() {
            self.metrics.add_kube_events("dropped", 1);
        }
    }
}

/// Something between 0 and 1, another in each process.
fn spread() -> f64 {
    RandomState::new().hash_one(0) as f64 / u64::MAX as f64
}

/// What of the API fails by itself: another right is needed for each.
#[derive(Clone, Copy)]
enum Part {
    Events,
    Condition,
}

impl Part {
    const fn name(self) -> &'static str {
        match self {
            Self::Events => "Events",
            Self::Condition => "the Node's condition",
        }
    }
}

/// What is waited for, beside the queue: one thing at a time.
type Flight = Pin<Box<dyn Future<Output = Landed>>>;

/// What came of it.
enum Landed {
    Event(Result<(), Trouble>),
    Health(Option<Health>),
    Known(Result<Known, Trouble>),
    Condition(Health, Result<(), Trouble>),
}

/// The thread.
struct Teller {
    server: Server,
    outbox: Outbox,
    /// `None` where it is not wanted.
    condition: Option<Condition>,
    health: Option<Health>,
    /// When it is looked how the guard is.
    look: Stamp,
    /// Of each [`Part`].
    patience: [Backoff; 2],
    failing: [bool; 2],
    guard: Asker,
    metrics: Metrics,
    started: Instant,
}

impl Teller {
    async fn serve(mut self, mut told: mpsc::Receiver<Arc<EventRecord>>) {
        let mut flight: Option<Flight> = None;
        // What is there at the start is no news.
        self.look = self.now().after(LOOK);
        loop {
            let now = self.now();
            flight = flight.or_else(|| self.next(now));
            let due = if flight.is_none() { self.deadline(now) } else { None };
            let landing = async {
                match flight.as_mut() {
                    Some(flight) => flight.await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                event = told.recv() => match event {
                    Some(event) => self.outbox.take(self.now(), event),
                    None => return,
                },
                landed = landing => {
                    flight = None;
                    self.landed(landed);
                }
                () = sleep(due.unwrap_or(now).since(now)), if due.is_some() => {}
            }
            for (what, count) in self.outbox.became_of() {
                self.metrics.add_kube_events(what, count);
            }
        }
    }

    /// Since the thread began.
    fn now(&self) -> Stamp {
        Stamp(0).after(self.started.elapsed())
    }

    /// The next thing to wait for.
    fn next(&mut self, now: Stamp) -> Option<Flight> {
        self.next_event(now).or_else(|| self.next_of_condition(now)).or_else(|| self.next_look(now))
    }

    fn next_event(&mut self, now: Stamp) -> Option<Flight> {
        if !self.patience[Part::Events as usize].is_ready(now) {
            return None;
        }
        let write = self.outbox.next(now)?;
        if let Err(trouble) = self.server.connect() {
            return Some(Box::pin(async { Landed::Event(Err(trouble)) }));
        }
        let server = self.server.clone();
        Some(Box::pin(async { Landed::Event(server.write(write).await) }))
    }

    fn next_of_condition(&mut self, now: Stamp) -> Option<Flight> {
        let condition = self.condition.as_ref()?;
        let health = self.health.clone().filter(|health| condition.is_due(now, health))?;
        if !self.patience[Part::Condition as usize].is_ready(now) {
            return None;
        }
        if let Err(trouble) = self.server.connect() {
            return Some(Box::pin(async { Landed::Known(Err(trouble)) }));
        }
        let server = self.server.clone();
        if condition.known == Known::Unasked {
            return Some(Box::pin(async { Landed::Known(server.condition().await) }));
        }
        let patch = condition.patch(Timestamp::now(), &health);
        Some(Box::pin(async { Landed::Condition(health, server.patch_status(patch).await) }))
    }

    fn next_look(&mut self, now: Stamp) -> Option<Flight> {
        if self.condition.is_none() || now < self.look {
            return None;
        }
        self.look = now.after(LOOK);
        let guard = self.guard.clone();
        Some(Box::pin(async move { Landed::Health(Health::of(&guard.ask(PATIENCE, Ask::Status).await)) }))
    }

    /// When there may be something to wait for, though nothing happens.
    fn deadline(&self, now: Stamp) -> Option<Stamp> {
        let patience = self.patience[Part::Events as usize].until().unwrap_or(now);
        let event = self.outbox.deadline(now).map(|at| at.max(patience));
        // Of the condition it is seen at the next look, whatever it is that it waits for.
        event.into_iter().chain(self.condition.is_some().then_some(self.look)).min()
    }

    fn landed(&mut self, landed: Landed) {
        let now = self.now();
        match landed {
            Landed::Health(health) => self.health = health.or_else(|| self.health.take()),
            Landed::Event(result) => {
                self.outbox.done(now, &result);
                self.mind(now, Part::Events, &result);
            }
            Landed::Known(result) => {
                self.mind(now, Part::Condition, &result);
                if let (Some(condition), Ok(known)) = (&mut self.condition, result) {
                    condition.known = known;
                }
            }
            Landed::Condition(health, result) => {
                self.mind(now, Part::Condition, &result);
                if let (Some(condition), Ok(())) = (&mut self.condition, result) {
                    condition.wrote(now, &health);
                }
            }
        }
    }

    /// Sees to it that one that does not answer is left alone for a while, and says so once.
    fn mind<T>(&mut self, now: Stamp, part: Part, result: &Result<T, Trouble>) {
        let (patience, failing) = (&mut self.patience[part as usize], &mut self.failing[part as usize]);
        match (result, part) {
            // What comes after a refusal is another Event: the budget bounds how often that is tried.
            (Ok(_), _) | (Err(Trouble::Gone(_) | Trouble::Refused(_)), Part::Events) => patience.succeeded(),
            (Err(_), _) => patience.failed(now),
        }
        let name = part.name();
        match result {
            Err(Trouble::Gone(_)) if matches!(part, Part::Events) => {}
            Err(trouble) if !*failing => {
                log::warn!("Kubernetes cannot be told of {name}: {trouble}");
                *failing = true;
            }
            Ok(_) if *failing => {
                log::info!("Kubernetes is told of {name} again");
                *failing = false;
            }
            _ => {}
        }
    }
}
