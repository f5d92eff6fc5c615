//! The guard loop: take in, write, tell, wait.

use std::{
    collections::BTreeSet,
    future::Future as _,
    io,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use anyhow::Context as _;
use tokio::{
    runtime::Handle,
    signal::unix::{Signal, SignalKind, signal},
    sync::mpsc,
    task::JoinHandle,
};

use super::{
    RunOptions,
    affinity::Affinity,
    afterwards::Later,
    cables::Ordered,
    clock,
    cost::Cost,
    edges::Told,
    managed::Managed,
    meetings::Meetings,
    owner_watch::OwnerWatch,
    patience::Patience,
    reactor::{Reactor, Woken},
    record::Ids,
    reload::open_source,
    restart::Restart,
    resync,
    service::Service,
    settings,
    source::{Source, Taken},
};
use crate::{
    attribution::{Attribution, OwnerRule, TaskFacts},
    config::Config,
    core::{Core, Effect, Input, Reason, Scope},
    model::{
        Actor, Stamp,
        record::{EventRecord, Verdict},
    },
    netlink::{DumpError, Executor, State},
    sensor::Lost,
    surface::{ask::Ask, metrics::Metrics},
};

/// Turns in a row before anybody else is attended to.
const TURNS: usize = 8;

/// The shortest sleep.
const SLEEP_MIN: Duration = Duration::from_millis(1);

/// How often it is looked for an owner while something is held for want of one.
const OWNER_LOOK: Duration = Duration::from_secs(1);

/// The signals that the daemon answers to.
pub struct Signals {
    terminate: Signal,
    interrupt: Signal,
    hangup: Signal,
}

impl Signals {
    /// Answers to them from now on, also while the sensors are still being attached.
    pub fn new() -> io::Result<Self> {
        Ok(Self {
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
            hangup: signal(SignalKind::hangup())?,
        })
    }
}

/// Who was attended to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Attended {
    /// Nobody had anything.
    Nobody,
    /// Somebody, who may have more.
    Somebody,
    /// Whoever wants it to end.
    End,
}

/// What the guard is made from.
pub struct Start {
    pub config: Config,
    pub options: RunOptions,
    pub scope: Scope,
    pub owner: OwnerRule,
    pub metrics: Metrics,
    pub told: mpsc::Sender<Told>,
    pub asks: mpsc::Receiver<Ask>,
}

/// The guard thread's state.
pub struct Guard {
    pub(super) config: Config,
    /// What it was started with, which some keys keep.
    pub(super) at_start: Config,
    /// Why the file is not what is in use, where the last reload failed.
    pub(super) rejected: Option<String>,
    pub(super) options: RunOptions,
    pub(super) core: Core,
    pub(super) source: Source,
    pub(super) reactor: Reactor,
    /// Why there is no tap, where there is none.
    pub(super) without_tap: Option<String>,
    pub(super) executor: Executor,
    pub(super) attribution: Attribution,
    pub(super) owner: OwnerRule,
    pub(super) owner_watch: OwnerWatch,
    /// Since when it matters whether an owner is running, where none is known.
    look_for_owner: Option<Stamp>,
    pub(super) restart: Restart,
    pub(super) metrics: Metrics,
    pub(super) started: Stamp,
    pub(super) last: Option<EventRecord>,
    pub(super) told: mpsc::Sender<Told>,
    asks: mpsc::Receiver<Ask>,
    pub(super) ids: Ids,
    pub(super) taken: Vec<Taken>,
    pub(super) affinity: Affinity,
    pub(super) later: Later,
    pub(super) cost: Cost,
    pub(super) ordered: Ordered,
    pub(super) managed: Managed,
    pub(super) lost: Lost,
    pub(super) service: Service,
    pub(super) patience: Patience,
    /// What a process that is let finish says of links.
    pub(super) meetings: Option<Meetings>,
    /// Whether the bell has rung while it stood aside.
    pub(super) rung: bool,
    /// Why state is to be read again; one dump serves all reasons.
    pub(super) wanted: BTreeSet<Reason>,
    pub(super) dumping: Option<JoinHandle<Result<(Stamp, State), DumpError>>>,
    pub(super) dump_not_before: Option<Stamp>,
    pub(super) dump_retry: Duration,
}

impl Guard {
    /// Attaches the sensors and opens the executor. To be called within the runtime.
    pub fn new(start: Start) -> anyhow::Result<Self> {
        let Start { config, options, scope, owner, metrics, told, asks } = start;
        let executor = Executor::open().context("cannot open the netlink socket that writes routes")?;
        let (source, without_tap) = open_source(&config, &options)?;
        let reactor = Reactor::new().context("cannot wait for anything")?;
        reactor.watch(&source.descriptors()).context("cannot wait for the sensors")?;
        let mut attribution = Attribution::new(Attribution::PROCESSES);
        attribution.look_up_cgroups_at_once(owner.needs_cgroups());
        let service = Service::new().context("cannot start the thread that tells the service manager")?;
        let (restart, preset) = Restart::new(&config, &scope);
        let mut core = Core::new(settings::settings(&config), scope);
        core.preset(preset);
        let mut guard = Self {
            core,
            owner_watch: OwnerWatch::new(owner.clone()),
            look_for_owner: None,
            restart,
            at_start: config.clone(),
            config,
            rejected: None,
            options,
            source,
            reactor,
            without_tap,
            executor,
            attribution,
            owner,
            metrics,
            started: clock::now(),
            last: None,
            told,
            asks,
            ids: Ids::new(),
            taken: Vec::new(),
            affinity: Affinity::default(),
            later: Later::default(),
            cost: Cost::default(),
            ordered: Ordered::default(),
            managed: Managed::default(),
            lost: Lost::default(),
            service,
            patience: Patience::default(),
            meetings: None,
            rung: false,
            wanted: BTreeSet::from([Reason::Start]),
            dumping: None,
            dump_not_before: None,
            dump_retry: resync::RETRY,
        };
        guard.later.touch(guard.started);
        guard.show_sensors();
        guard.metrics.set_mode(guard.config.mode);
        guard.owner_changed();
        Ok(guard)
    }

    /// Runs until SIGTERM or SIGINT. Routes are left as they are.
    pub fn run(mut self, mut signals: Signals) -> anyhow::Result<()> {
        log::info!(
            "guarding this network namespace: profile {}, mode {}",
            self.config.profile,
            self.config.mode
        );
        // At first nobody knows the bell.
        let mut woken = Woken::Bell;
        loop {
            if woken == Woken::Loss {
                self.count_losses();
            }
            // A flood must not keep the others waiting for ever.
            let flooded = (0..TURNS).all(|_| self.turn());
            if flooded {
                self.service.turned(clock::now());
            }
            // What can wait does, until the last is written.
            let due =
                !flooded && (woken == Woken::Time || self.deadline().is_some_and(|at| at <= clock::now()));
            if due {
                self.due();
            }
            // What has begun meanwhile does not know the bell yet: soon something is due (`Later::touch`).
            let heed = std::mem::take(&mut self.rung)
                || flooded
                || due
                || matches!(woken, Woken::Bell | Woken::Loss)
                || !self.wanted.is_empty();
            woken = match if heed { self.attend(&mut signals)? } else { Attended::Nobody } {
                Attended::End => {
                    self.finish();
                    return Ok(());
                }
                Attended::Somebody => Woken::Bell,
                Attended::Nobody if flooded => Woken::Source,
                Attended::Nobody => {
                    self.attribution.look_up_cgroups();
                    self.sleep()?
                }
            };
        }
    }

    /// The last that is done: what happened is told and saved.
    fn finish(mut self) {
        self.service.stopping();
        self.tell_all();
        log::info!("ending; everything is left as it is");
        let (desired, links) = (self.core.desired(), self.core.links().clone());
        if self.core.is_synced() {
            Handle::current().block_on(self.restart.finish(&desired, &links));
        }
    }

    /// Takes in what is there and writes what is to be written; whether there may be more of either.
    pub(super) fn turn(&mut self) -> bool {
        // What comes of ports that are taken from now on is not heard yet.
        let mut met = Vec::new();
        let more_to_hear = self.meetings.as_mut().is_some_and(|meetings| meetings.hear(&mut met));
        for link in met {
            self.core.step(clock::now(), Input::Met(link));
        }
        let more = more_to_hear | self.source.take(self.executor.port(), &mut self.taken);
        self.take_in();
        let wrote = self.write(!more);
        if let Some(at) = self.look_for_owner.take() {
            self.owner_watch.look_again(at);
        }
        self.effects();
        if self.core.take_cables_changed() {
            self.lend_cables();
            self.heed_ports();
        }
        if self.core.take_changed() {
            self.restart.touch(clock::now());
        }
        if self.later.is_full() {
            self.tell();
        }
        more || wrote || self.core.has_work()
    }

    /// Feeds what was taken to the core.
    pub(super) fn take_in(&mut self) {
        let mut taken = std::mem::take(&mut self.taken);
        if !taken.is_empty() {
            self.later.touch(clock::now());
        }
        for item in taken.drain(..) {
            match item {
                Taken::Notice { at, notice, port, task } => {
                    let (actor, verdict) = self.whose(at, &task);
                    self.core.step(clock::now(), Input::Notice { at, notice, port, actor, verdict });
                }
                Taken::Fallen { at, route, task, own } => {
                    let (actor, verdict) = self.whose(at, &task);
                    self.core.step(clock::now(), Input::Fallen { at, route, actor, verdict, own });
                }
                Taken::Own { at, notice } => {
                    self.core.step(clock::now(), Input::Own { at, notice });
                }
                Taken::Process(process) => {
                    self.owner_watch.started(&process);
                    self.attribution.learn(process);
                }
                Taken::Exit(process) => {
                    self.attribution.exited(process);
                    self.owner_watch.ended(process);
                    self.core.step(clock::now(), Input::Gone(process));
                }
                Taken::Unreadable(why) => {
                    if let Some(why) = why {
                        log::warn!("a message of the kernel cannot be read: {why}");
                    }
                    self.want(Reason::Truncated);
                }
                Taken::Overrun => {
                    self.metrics.add_lost("netlink", 1);
                    self.want(Reason::Lost);
                }
            }
        }
        self.taken = taken;
    }

    /// Who made a change, and whose it counts as.
    fn whose(&mut self, at: Stamp, task: &TaskFacts) -> (Arc<Actor>, Verdict) {
        let source = &self.source;
        let actor = self.attribution.actor_of(task, &|tgid| source.process(tgid));
        let verdict = verdict(&actor, &self.owner);
        if verdict == Verdict::Foreign {
            self.affinity.heard(at, task.cpu);
        }
        if verdict == Verdict::Owner {
            self.owner_watch.seen(&actor);
        } else if !self.owner_watch.alive() {
            // It has a thread be woken, which the restore need not wait for.
            self.look_for_owner = Some(at);
        }
        (actor, verdict)
    }

    /// Does what the core asks for.
    pub(super) fn effects(&mut self) {
        for effect in self.core.effects().collect::<Vec<_>>() {
            match effect {
                Effect::Report(mut report) => {
                    self.tell_of_cable(&mut report);
                    let failed_lookups = self.failed_lookups(&report);
                    self.later.report(clock::now(), *report, failed_lookups);
                }
                Effect::Reread(reason) => self.want(reason),
                Effect::Link { index, outside } => self.source.set_link(index, outside),
                Effect::Damped(held) => self.metrics.add_damping(held),
            }
        }
    }

    /// When there is something to do though nothing happens.
    fn deadline(&self) -> Option<Stamp> {
        let restart = self.restart.deadline();
        let service = self.service.deadline();
        let rest = self.core.waited_for().map(|waited| self.patience.deadline(waited.process));
        let look = self.managed.deadline();
        [self.core.deadline(), self.later.deadline(), self.dump_not_before, restart, service, rest, look]
            .into_iter()
            .flatten()
            .min()
    }

    /// Sleeps until the kernel announces something, the bell rings, or something is due.
    fn sleep(&mut self) -> anyhow::Result<Woken> {
        // An owner that starts and does nothing yet makes itself known to nobody.
        let look = self.core.has_orphans().then(|| clock::now().after(OWNER_LOOK));
        let deadline = self.deadline().into_iter().chain(look).min().map(|at| at.since(clock::now()));
        // What is due and cannot be done yet, while a thread is at it, must not keep this one from sleeping.
        let deadline = deadline.map(|limit| limit.max(SLEEP_MIN));
        self.reactor.sleep(deadline).context("cannot wait for what the kernel announces")
    }

    /// Attends to one of each who is not the kernel; those who have nothing ring the bell when they have.
    fn attend(&mut self, signals: &mut Signals) -> anyhow::Result<Attended> {
        self.start_dump();
        let bell = self.reactor.bell();
        let cx = &mut Context::from_waker(&bell);
        let mut attended = Attended::Nobody;
        if signals.terminate.poll_recv(cx).is_ready() || signals.interrupt.poll_recv(cx).is_ready() {
            return Ok(Attended::End);
        }
        if let Some(Poll::Ready(result)) = self.dumping.as_mut().map(|dump| Pin::new(dump).poll(cx)) {
            self.dumping = None;
            self.dumped(result.context("the dump broke off")?);
            attended = Attended::Somebody;
        }
        if let Some(Poll::Ready(fd)) = self.meetings.as_mut().map(|meetings| meetings.poll_open(cx)) {
            self.reactor.watch(&[fd]).context("cannot wait for what systemd-networkd saves")?;
            attended = Attended::Somebody;
        }
        if self.has_looked(cx) {
            attended = Attended::Somebody;
        }
        if self.owner_watch.poll_changed(cx).is_ready() {
            self.owner_changed();
            attended = Attended::Somebody;
        }
        if let Poll::Ready(Some(ask)) = self.asks.poll_recv(cx) {
            self.answer(ask);
            attended = Attended::Somebody;
        }
        if signals.hangup.poll_recv(cx).is_ready() {
            // Why it was not taken is in the log.
            let _ = self.reload();
            attended = Attended::Somebody;
        }
        Ok(attended)
    }

    /// Whether an owner is running has changed.
    fn owner_changed(&mut self) {
        let since = self.owner_watch.gone_since();
        let input = Input::Owner { alive: since.is_none(), since: since.unwrap_or_else(clock::now) };
        match since {
            None => log::info!("an owner is running"),
            Some(_) => log::info!("no owner is running"),
        }
        self.core.step(clock::now(), input);
        self.later.touch(clock::now());
    }
}

/// Whose change it counts as.
fn verdict(actor: &Arc<Actor>, owner: &OwnerRule) -> Verdict {
    match &**actor {
        actor if owner.is_owner(actor) => Verdict::Owner,
        // Whose program it runs is not known: it may be the owner.
        Actor::Process { process, .. } if process.exe.is_none() => Verdict::Unknown,
        Actor::Process { .. } => Verdict::Foreign,
        Actor::Kernel { .. } => Verdict::Kernel,
        Actor::Unknown => Verdict::Unknown,
    }
}
