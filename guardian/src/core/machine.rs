//! The state machine: what a notification means for what is desired, observed and missing.

use std::{
    collections::{BTreeSet, HashMap, HashSet, VecDeque},
    sync::Arc,
    time::Duration,
};

use super::{
    alternatives::{Alternatives, Removal},
    damping::Damping,
    flow::{Effect, Input, Reason},
    incident::Incidents,
    losses::Insistence,
    plan::Action,
    rib::{Phase, Rib},
    scope::Scope,
    suspicion::{Subject, Suspicion},
};
use crate::model::{
    Actor, Links, Mode, Notice, ProcessId, Route, RouteKey, Stamp,
    record::{Cause, Change, Outcome, Verdict},
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
}

impl Default for Settings {
    fn default() -> Self {
        Self { mode: Mode::Restore, settle: Duration::from_secs(2), damping: Damping::default() }
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
    pub(super) ready: VecDeque<RouteKey>,
    pub(super) timers: BTreeSet<(Stamp, RouteKey)>,
    pub(super) waiting: BTreeSet<RouteKey>,
    pub(super) insisting: HashMap<ProcessId, Insistence>,
    /// How many restores in a row processes have undone at once, and when the last.
    pub(super) undone: HashMap<ProcessId, (u32, Stamp)>,
    pub(super) suspicions: Vec<Suspicion>,
    pub(super) withdrawn: HashSet<RouteKey>,
    pub(super) in_flight: Vec<(RouteKey, Action)>,
    pub(super) effects: Vec<Effect>,
    pub(super) synced: bool,
    pub(super) incidents: Incidents,
    pub(super) seq: u64,
}

impl Core {
    /// A core that knows nothing yet: its first [`Input::Dump`] is adopted as desired.
    pub fn new(settings: Settings, scope: Scope) -> Self {
        Self {
            settings,
            scope,
            links: Links::default(),
            link_told: HashMap::new(),
            outside_links: BTreeSet::new(),
            rib: Rib::default(),
            ready: VecDeque::new(),
            timers: BTreeSet::new(),
            waiting: BTreeSet::new(),
            insisting: HashMap::new(),
            undone: HashMap::new(),
            suspicions: Vec::new(),
            withdrawn: HashSet::new(),
            in_flight: Vec::new(),
            effects: Vec::new(),
            synced: false,
            incidents: Incidents::default(),
            seq: 0,
        }
    }

    /// Takes in what happened; what is to be done about it is in [`Core::effects`] and [`Core::plan`].
    pub fn step(&mut self, now: Stamp, input: Input) {
        match input {
            Input::Notice { at, notice, port, actor, verdict } => {
                self.notice(now, notice, &Who { at, port, actor, verdict });
            }
            Input::Gone(process) => self.finished(now, process, true),
            Input::Dump(dump) => self.dump(now, dump),
        }
    }

    /// What is to be done, in order; empties the list.
    pub fn effects(&mut self) -> std::vec::Drain<'_, Effect> {
        self.effects.drain(..)
    }

    fn notice(&mut self, now: Stamp, notice: Notice, who: &Who) {
        match notice {
            Notice::RouteSet { route, replaced, appended } => {
                let key = route.key;
                self.route_set(now, Arc::new(route), replaced, appended, who);
                self.rib.recount(&key);
            }
            Notice::RouteGone { route } => {
                self.route_gone(now, &route, who);
                self.rib.recount(&route.key);
            }
            Notice::LinkSet { link } => self.link_set(link, who),
            Notice::LinkGone { link } => self.link_gone(link.index, who),
            Notice::AddressSet { address } => self.help(|route| {
                route.prefsrc() == Some(address.addr) || route.oifs().any(|oif| oif == address.link)
            }),
            Notice::AddressGone { address } => {
                self.suspect(Subject::Address(address), Cause::AddressRemoved, who);
            }
            Notice::NexthopSet { id } => self.help(|route| route.nexthop_id() == Some(id)),
            Notice::NexthopGone { id } => self.suspect(Subject::Nexthop(id), Cause::NexthopRemoved, who),
        }
    }

    fn route_set(&mut self, now: Stamp, route: Arc<Route>, replaced: bool, appended: bool, who: &Who) {
        let key = route.key;
        let covered = self.scope.covers(&route, &self.links);
        if !covered && self.rib.get(&key).is_none() {
            return;
        }
        let entry = self.rib.entry(key);
        if entry.wrote.is_some_and(|wrote| who.at < wrote.sent) {
            // It happened before our own write, which the kernel accepted: that it is there no longer is
            // known. What the owner wanted counts all the same.
            if who.verdict == Verdict::Owner {
                entry.desired = if covered { [route].into_iter().collect() } else { Alternatives::default() };
                entry.surplus = None;
                self.withdrawn.remove(&key);
                self.settle_accounts(key);
            }
            return;
        }
        entry.observed.set(Arc::clone(&route), replaced, appended);
        entry.told = who.at;
        let doubt = who.verdict == Verdict::Owner && entry.wrote.is_some_and(|wrote| wrote.is_around(who.at));
        entry.doubt |= doubt;
        entry.surplus = None;

        let own = who.process().is_some() && entry.adder == who.process();
        if who.verdict == Verdict::Owner || (own && !entry.is_whole()) {
            let before = entry.desired.first_missing_in(&entry.observed).cloned();
            if doubt {
                entry.desired = Alternatives::default();
                entry.observed = [Arc::clone(&route)].into_iter().collect();
            }
            if covered {
                entry.desired.set(route, replaced, appended);
            }
            let observed = &entry.observed;
            entry.desired.retain(|r| observed.contains(r));
            if who.verdict == Verdict::Owner {
                entry.adder = None;
                self.withdrawn.remove(&key);
            }
            let was_lost = self.resolve(key, Outcome::AlreadyPresent, who.at);
            if let Some(before) = before.filter(|_| !was_lost) {
                self.tell_allowed(now, &before, Change::Replaced, Cause::Replace, who);
            }
        } else if entry.desired.is_empty() {
            if covered && !self.withdrawn.contains(&key) {
                entry.desired.set(route, false, false);
                entry.adder = who.process();
            }
        } else if entry.is_whole() {
            self.resolve(key, Outcome::AlreadyPresent, who.at);
        } else if replaced && who.verdict == Verdict::Unknown {
            // Nobody knows whether this was the owner: undoing it could fight kube-router.
            let before = entry.desired.first_missing_in(&entry.observed).cloned();
            entry.desired = entry.observed.clone();
            if let Some(before) = before {
                self.tell(now, &before, Change::Replaced, Cause::Replace, who, Outcome::Observed);
            }
        } else if let Some(loss) = entry.loss.as_mut() {
            loss.change = Change::Replaced;
        } else if let Some(missing) = entry.desired.first_missing_in(&entry.observed).cloned() {
            self.lose(now, key, missing, Change::Replaced, Cause::Replace, who);
        }
        if doubt {
            self.reread(Reason::Mismatch);
        }
        self.settle_accounts(key);
    }

    fn route_gone(&mut self, now: Stamp, route: &Route, who: &Who) {
        let key = route.key;
        let Some(entry) = self.rib.get_mut(&key) else { return };
        if entry.wrote.is_some_and(|wrote| who.at < wrote.sent) {
            if who.verdict == Verdict::Owner {
                entry.desired = Alternatives::default();
                // To be taken away again, once it is certain that this was its last word.
                entry.doubt = true;
                self.withdraw(key);
                self.forget_loss(key);
                self.reread(Reason::Mismatch);
            }
            self.settle_accounts(key);
            return;
        }
        let before = match entry.observed.remove(route) {
            Removal::Removed(before) => before,
            Removal::Unknown if who.verdict != Verdict::Owner => return,
            Removal::Unknown | Removal::Mismatch => {
                // What was known is wrong; a dump will tell.
                entry.observed = Alternatives::default();
                entry.told = who.at;
                entry.doubt = true;
                if who.verdict == Verdict::Owner {
                    // Whatever it was that the owner removed, it wants nothing there.
                    entry.desired = Alternatives::default();
                    self.forget_loss(key);
                    self.withdraw(key);
                }
                self.suspicions.push(Suspicion::new(Subject::Key(key), Cause::Request, who));
                self.reread(Reason::Mismatch);
                return;
            }
        };
        entry.told = who.at;
        let own = who.process().is_some() && entry.adder == who.process();
        if who.verdict == Verdict::Owner || own {
            if entry.wrote.is_some_and(|wrote| wrote.is_around(who.at)) {
                entry.doubt = true;
                self.reread(Reason::Mismatch);
            }
            let Some(entry) = self.rib.get_mut(&key) else { return };
            if !matches!(entry.desired.remove(route), Removal::Removed(_)) && entry.observed.is_empty() {
                entry.desired = Alternatives::default();
            }
            let gone = entry.desired.is_empty();
            if gone && who.verdict == Verdict::Owner {
                self.withdraw(key);
            }
            self.tell_allowed(now, &before, Change::Deleted, who.cause(), who);
            if gone {
                self.forget_loss(key);
            }
        } else if entry.desired.contains(&before) {
            let change = if entry.observed.iter().any(|r| shares_a_leg(r, &before)) {
                Change::Changed
            } else {
                Change::Deleted
            };
            self.lose(now, key, before, change, who.cause(), who);
        } else if self.settings.mode == Mode::Restore
            && entry.loss.as_deref().is_some_and(|loss| loss.phase == Phase::Left)
        {
            // What the kernel had made of our request is gone: another try.
            self.admit(now, key);
        }
        self.settle_accounts(key);
    }

    /// Remembers that the owner wants nothing there: what a foreigner adds there is not adopted.
    pub(super) fn withdraw(&mut self, key: RouteKey) {
        if self.withdrawn.len() >= WITHDRAWN {
            self.withdrawn.clear();
        }
        self.withdrawn.insert(key);
    }

    /// After a change to what is desired: queue the write that our own earlier one made necessary, and
    /// forget keys that matter no longer.
    pub(super) fn settle_accounts(&mut self, key: RouteKey) {
        self.rib.recount(&key);
        let Some(entry) = self.rib.get(&key) else { return };
        if entry.is_idle() {
            self.rib.remove(&key);
        } else if entry.loss.is_none()
            && !entry.doubt
            && entry.wrote.is_some()
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
    pub verdict: Verdict,
}

impl Who {
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

/// Whether `now` is what is left of the multipath route `before`.
fn shares_a_leg(now: &Route, before: &Route) -> bool {
    before.legs.len() > 1 && now.legs.iter().any(|leg| before.legs.contains(leg))
}
