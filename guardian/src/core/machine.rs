//! The state machine: what a notification means for what is desired, observed and missing.

use std::{
    collections::{BTreeSet, VecDeque},
    sync::Arc,
    time::Duration,
};

use foldhash::{HashMap, HashSet};

use super::{
    cables::Readiness,
    damping::Damping,
    flow::{Effect, Input},
    incident::Incidents,
    loan::Loans,
    losses::Insistence,
    origin::Origins,
    plan::Action,
    rib::{Loss, Rib},
    scope::Scope,
    suspicion::Suspicion,
};
use crate::model::{
    Actor, Key, Links, Mode, Notice, ProcessId, Stamp,
    record::{Cause, ObjectKind, Verdict},
};

/// Withdrawn destinations that are remembered.
const WITHDRAWN: usize = 16_384;

/// What an operator can set.
#[derive(Clone, Copy, Debug)]
pub struct Settings {
    /// Whether the guardian acts.
    pub mode: Mode,
    /// How long a change of unknown origin is left alone.
    pub settle: Duration,
    /// How restores are held back.
    pub damping: Damping,
    /// With no owner running for this long, restores are held; `None`: never.
    pub absent_after: Option<Duration>,
    /// For how long systemd-networkd is lent an address of the node that it has taken away; `None`: never.
    pub lend: Option<Duration>,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            mode: Mode::Restore,
            settle: Duration::from_secs(2),
            damping: Damping::default(),
            absent_after: None,
            lend: Some(Duration::from_secs(30)),
        }
    }
}

/// The guardian's mind. See the module's documentation.
#[derive(Debug)]
pub struct Core {
    pub(super) settings: Settings,
    pub(super) scope: Scope,
    pub(super) links: Links,
    /// When the kernel last told about a link, since the last dump began.
    pub(super) link_told: HashMap<u32, Stamp>,
    /// Links that are known and not guarded, by ifindex.
    pub(super) outside_links: BTreeSet<u32>,
    pub(super) rib: Rib,
    pub(super) ready: VecDeque<Key>,
    pub(super) timers: BTreeSet<(Stamp, Key)>,
    pub(super) waiting: BTreeSet<Key>,
    pub(super) insisting: HashMap<ProcessId, Insistence>,
    /// How many restores of a kind in a row processes have undone at once, or taken where they sweep, and when the last.
    pub(super) undone: HashMap<(ProcessId, ObjectKind), (u32, Stamp)>,
    pub(super) readiness: Readiness,
    pub(super) suspicions: Vec<Suspicion>,
    pub(super) withdrawn: HashSet<Key>,
    pub(super) loans: Loans,
    pub(super) in_flight: Vec<(Key, Action)>,
    pub(super) effects: Vec<Effect>,
    pub(super) synced: bool,
    /// Since when no owner has been running, if none is.
    pub(super) owner_gone: Option<Stamp>,
    /// Losses that are held for want of an owner.
    pub(super) orphans: usize,
    /// Losses that are held so that a process can finish which recoils from restores.
    pub(super) recoiled: usize,
    /// The actor of what our own writes bring about.
    myself: Arc<Actor>,
    pub(super) incidents: Incidents,
    origins: Origins,
    pub(super) seq: u64,
}

impl Core {
    /// A core that knows nothing yet: its first [`Input::Dump`] is adopted as desired.
    pub fn new(settings: Settings, scope: Scope) -> Self {
        Self {
            settings,
            scope,
            links: Links::default(),
            link_told: HashMap::default(),
            outside_links: BTreeSet::new(),
            rib: Rib::default(),
            ready: VecDeque::new(),
            timers: BTreeSet::new(),
            waiting: BTreeSet::new(),
            insisting: HashMap::default(),
            undone: HashMap::default(),
            readiness: Readiness::default(),
            suspicions: Vec::new(),
            withdrawn: HashSet::default(),
            loans: Loans::default(),
            in_flight: Vec::new(),
            effects: Vec::new(),
            synced: false,
            owner_gone: None,
            orphans: 0,
            recoiled: 0,
            myself: Arc::new(Actor::Kernel { what: "a consequence of a restore".into() }),
            incidents: Incidents::default(),
            origins: Origins::default(),
            seq: 0,
        }
    }

    /// Takes in what happened; what is to be done about it is in [`Core::effects`] and [`Core::plan`].
    pub fn step(&mut self, now: Stamp, input: Input) {
        match input {
            Input::Notice { at, notice, port, actor, verdict } => {
                let origin = self.origins.of(at, &notice, &actor, verdict, &self.links);
                self.notice(now, notice, &Who { at, port, actor, origin, verdict, own: false });
            }
            Input::Own { at, notice } => {
                let who = self.behind(at, &notice);
                self.notice(now, notice, &who);
            }
            Input::Fallen { at, route, actor, verdict, own } => {
                if let Some(object) = self.fallen(&route) {
                    let notice = Notice::Gone { object };
                    self.step(
                        now,
                        if own {
                            Input::Own { at, notice }
                        } else {
                            Input::Notice { at, notice, port: 0, actor, verdict }
                        },
                    );
                }
            }
            Input::Owner { alive, since } => self.owner_is(now, alive, since),
            Input::Gone(process) => self.finished(now, process, true),
            Input::Rests(process) => self.rests(process),
            Input::Met(link) => self.met(link),
            Input::Manages(process) => self.is_managed_by(process),
            Input::Dump(dump) => self.dump(now, dump),
        }
    }

    /// Who is behind what our own writes bring about.
    pub(super) fn consequence(&self, at: Stamp) -> Who {
        let actor = Arc::clone(&self.myself);
        Who { at, port: 0, actor, origin: None, verdict: Verdict::Kernel, own: true }
    }

    /// What is to be done, in order; empties the list.
    pub fn effects(&mut self) -> std::vec::Drain<'_, Effect> {
        self.effects.drain(..)
    }

    /// Remembers that the owner wants nothing there: what a foreigner adds there is not adopted.
    pub(super) fn withdraw(&mut self, key: Key) {
        if self.withdrawn.len() >= WITHDRAWN {
            self.withdrawn.clear();
        }
        self.withdrawn.insert(key);
    }

    /// After a change to what is desired: queue the write that our own earlier one made necessary, and
    /// forget keys that matter no longer.
    pub(super) fn settle_accounts(&mut self, key: Key) {
        self.rib.recount(&key);
        let Some(entry) = self.rib.get(&key) else { return };
        if entry.is_idle() {
            self.rib.forget(&key);
        } else if entry.loss.is_none()
            && !entry.doubt
            && (entry.wrote.is_some() || entry.surplus.is_some() || entry.again)
            && entry.next_action().is_some()
        {
            self.ready.push_back(key);
        }
    }
}

/// Who made a change, and when.
#[derive(Clone, Debug)]
pub(super) struct Who {
    pub at: Stamp,
    pub port: u32,
    pub actor: Arc<Actor>,
    /// Whose earlier request likely led to what the kernel did.
    pub origin: Option<Arc<Actor>>,
    pub verdict: Verdict,
    /// Whether our own writes have brought it about.
    pub own: bool,
}

impl Who {
    /// Who is behind a loss.
    pub fn of(loss: &Loss) -> Self {
        let (actor, origin) = (Arc::clone(&loss.actor), loss.origin.clone());
        Self { at: loss.at, port: 0, actor, origin, verdict: loss.verdict, own: false }
    }

    /// The process of a change that is neither the owner's nor unknown.
    pub fn process(&self) -> Option<ProcessId> {
        self.actor.process().map(|process| process.id)
    }

    pub fn cause(&self) -> Cause {
        match self.verdict {
            Verdict::Kernel => Cause::Kernel,
            _ => Cause::Request,
        }
    }
}
