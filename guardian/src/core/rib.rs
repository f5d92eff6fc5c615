//! The RIB of what is guarded: desired and observed objects side by side.

use std::{
    collections::{BTreeMap, hash_map},
    sync::Arc,
};

use foldhash::HashMap;

use super::{
    alternatives::{Alternatives, is_multipath_capable, stands_on_another_link},
    damping::{Account, Culprit, Damping},
    plan::Action,
    view::Counts,
};
use crate::model::{
    Actor, Family, Key, Object, ProcessId, Stamp,
    record::{Cause, Change, ObjectKind, Verdict},
    route::rt,
};

/// Accounts kept per object; the one unused for longest gives way.
const ACCOUNTS: usize = 4;

/// Routes of one key on links out of scope that are remembered, such as `fe80::/64` of every pod's cable: that there are
/// any is enough to know.
pub const BYSTANDERS: usize = 4;

/// Forgotten keys that are remembered between two dumps.
const FORGOTTEN: usize = 16_384;

/// When the guardian itself last wrote a key, around the request.
#[derive(Clone, Copy, Debug)]
pub struct Wrote {
    pub sent: Stamp,
    pub done: Stamp,
}

impl Wrote {
    /// Whether it cannot be told if something of this time came before or after the write.
    pub fn is_around(self, at: Stamp) -> bool {
        self.sent <= at && at <= self.done
    }
}

/// Where a loss stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Phase {
    /// In the queue for the executor.
    Ready,
    /// Attribution was lost: restored at this time if still missing.
    Settling(Stamp),
    /// Held by damping until then.
    Held(Stamp),
    /// Held until this process, which insists, is gone or lets a moment pass.
    Insisted(ProcessId),
    /// Held so that a process has finished which undoes it whenever it is restored.
    Recoiled {
        /// Until then, or until it is gone.
        until: Stamp,
        /// The process.
        by: ProcessId,
        /// It is waited for the first time: until it rests, too ([`super::Input::Rests`]).
        first: bool,
    },
    /// The kernel refused: retried at this time, or when something appears that could help.
    Waiting { retry: Stamp },
    /// Nobody who owns it has been running for long: held until somebody does.
    Orphaned,
    /// Somebody else was first: a dump will tell what is there.
    Contested,
    /// Nothing is done about it: observe mode, or the kernel holds something else than it was asked for.
    Left,
}

impl Phase {
    /// When the core wants to be woken for it.
    pub const fn deadline(self) -> Option<Stamp> {
        match self {
            Self::Settling(at)
            | Self::Held(at)
            | Self::Recoiled { until: at, .. }
            | Self::Waiting { retry: at } => Some(at),
            Self::Ready | Self::Insisted(_) | Self::Orphaned | Self::Contested | Self::Left => None,
        }
    }

    /// Whether it is held back, or waits for what it needs.
    pub const fn is_held(self) -> bool {
        matches!(
            self,
            Self::Held(_) | Self::Insisted(_) | Self::Recoiled { .. } | Self::Waiting { .. } | Self::Orphaned
        )
    }
}

/// A change that is not made good yet.
#[derive(Clone, Debug)]
#[allow(clippy::struct_excessive_bools, reason = "independent facts about a loss")]
pub struct Loss {
    /// What was in its place after the change.
    pub now: Option<Arc<Object>>,
    pub seq: u64,
    pub incident: u64,
    pub at: Stamp,
    pub detected: Stamp,
    pub object: Arc<Object>,
    pub change: Change,
    pub cause: Cause,
    pub actor: Arc<Actor>,
    /// Whose earlier request likely led to what the kernel did.
    pub origin: Option<Arc<Actor>>,
    pub verdict: Verdict,
    pub phase: Phase,
    /// Whether the message carried no netlink port: ioctl, sysctl, or a consequence of something else.
    pub silent: bool,
    /// How often the kernel has refused it.
    pub attempts: u8,
    /// How often somebody else was first.
    pub contested: u8,
    /// Whether its account has refused it.
    pub refused: bool,
    /// Whether a report of it has gone out.
    pub reported: bool,
    /// Nobody waits for it any more: another loss has taken its place.
    pub let_go: bool,
    pub error: Option<String>,
}

/// All about one key.
#[derive(Debug, Default)]
pub struct Entry {
    /// What should be there: what the owner last made of it.
    pub desired: Alternatives,
    /// What is there. Of routes that the kernel has made for links out of scope, [`BYSTANDERS`] at most.
    pub observed: Alternatives,
    /// What nobody guards and what stood beside what is desired when all that was there.
    pub beside: Vec<Arc<Object>>,
    /// When the kernel last told about it.
    pub told: Stamp,
    /// When we last wrote it.
    pub wrote: Option<Wrote>,
    /// What we last put back.
    pub ours: Option<Arc<Object>>,
    /// What we put back after its owner had withdrawn it, or what the kernel made besides when we put something
    /// else back: to be taken away again.
    pub surplus: Option<Arc<Object>>,
    /// A rule's place among those of its priority: the kernel looks at them in the order in which they came.
    pub place: u64,
    /// Whether it is to be taken away and written again, behind what has come back.
    pub again: bool,
    /// Whether the owner's last word and our last write cannot be told apart in time: a dump decides.
    pub doubt: bool,
    /// When it was taken for what should be there, if not on its owner's word; 0 where it is known that it is to stay.
    pub adopted: Stamp,
    /// Who added it, if that was not its owner: what somebody adds they may take away.
    pub adder: Option<ProcessId>,
    /// Its program, where the object's protocol number says that it is a routing daemon's: the next run of that may
    /// take it away too.
    pub adder_program: Option<Culprit>,
    /// What is missing, if anything.
    pub loss: Option<Box<Loss>>,
    accounts: Vec<Account>,
    counted: Counts,
    print: usize,
}

impl Entry {
    /// What is desired after somebody has set `object`: what is there of what was, and that, if it is `adopted`.
    pub fn desired_with(&self, object: &Object, adopted: bool) -> Alternatives {
        let stays = |o: &&Arc<Object>| self.desired.contains(o) || (adopted && o.same(object));
        self.observed.iter().filter(stays).cloned().collect()
    }

    /// Whether an object is a kernel's route of a link of which nothing is desired here.
    pub fn is_apart(&self, object: &Object) -> bool {
        self.desired.iter().all(|desired| stands_on_another_link(desired, object))
    }

    /// Notes what stands there besides, all that is desired being there.
    pub fn note_bystanders(&mut self) {
        let desired = &self.desired;
        self.beside = self.observed.iter().filter(|object| !desired.contains(object)).cloned().collect();
    }

    /// Whether all that should be there is there.
    pub fn is_whole(&self) -> bool {
        self.desired.first_missing_in(&self.observed).is_none()
    }

    /// Whether the link that is there has the name of the one that should be.
    pub fn is_namesake(&self) -> bool {
        let name = |objects: &Alternatives| match objects.iter().next().map(|o| &**o) {
            Some(Object::Link(link)) => Some(link.name.clone()),
            _ => None,
        };
        name(&self.desired) == name(&self.observed)
    }

    /// The one write that brings the kernel closer to what is desired, if any is needed.
    pub fn next_action(&self) -> Option<Action> {
        let Some(missing) = self.desired.first_missing_in(&self.observed) else {
            // What the kernel made besides, when we put something else back; or what we had put back and its owner
            // had withdrawn before our write; or what is to be written again behind another.
            let is_surplus =
                |surplus: &&Arc<Object>| self.observed.contains(surplus) && !self.desired.contains(surplus);
            let surplus = self.surplus.as_ref().filter(is_surplus);
            let is_ours = |object: &&Arc<Object>| {
                self.ours.as_deref().is_some_and(|ours| ours.same(object) || shares_a_link(ours, object))
            };
            let withdrawn = || self.observed.iter().find(is_ours).filter(|_| self.desired.is_empty());
            let again = || self.observed.iter().next().filter(|_| self.again);
            let object = surplus.or_else(withdrawn).or_else(again)?;
            return Some(Action::Remove(Object::clone(object)));
        };
        let object = Object::clone(missing);
        let Some(there) = self.observed.iter().next() else { return Some(Action::Add(object)) };
        let Object::Route(route) = &object else {
            return Some(match (&object, &**there) {
                (Object::Address(wanted), Object::Address(held)) if !held.can_become(wanted) => {
                    Action::Remove(Object::clone(there))
                }
                _ => Action::Replace(object),
            });
        };
        let replaced = self.loss.as_ref().is_none_or(|loss| loss.change != Change::Deleted);
        let usurper = self.usurper(&object).filter(|_| replaced);
        let others_stand = self.desired.iter().any(|r| self.observed.contains(r));
        let same_group = route.family() == Family::Inet6
            && is_multipath_capable(&object)
            && self.observed.iter().any(|r| is_multipath_capable(r));
        let was_first = self.desired.iter().next().is_some_and(|first| first.same(&object));
        let gives_way = |usurper| self.observed.replaced_by(&object) == Some(usurper);
        Some(match usurper {
            // A multipath route that lost legs is written whole; what stands beside others goes beside them.
            _ if same_group => Action::Replace(object),
            Some(usurper) if (was_first || !others_stand) && gives_way(usurper) => Action::Replace(object),
            // A replace would take another route, or put this one in a place that was not its own.
            Some(usurper) => Action::Remove(Object::clone(usurper)),
            None if was_first && route.family() == Family::Inet => Action::Prepend(object),
            None => Action::Append(object),
        })
    }

    /// What was put in the place of `missing` and stands there: by somebody, or by an earlier write of our own that the
    /// owner has overtaken. Never what stood beside it before.
    fn usurper(&self, missing: &Object) -> Option<&Arc<Object>> {
        let is_rival = |object: &&Arc<Object>| self.is_rival(object, missing);
        if let Some(loss) = self.loss.as_deref() {
            let rival = loss.now.as_ref()?;
            return self.observed.iter().find(|object| object.same(rival)).filter(is_rival);
        }
        let stood = |object: &Arc<Object>| self.beside.iter().any(|beside| beside.same(object));
        self.observed.iter().filter(|object| !stood(object)).find(is_rival)
    }

    /// Whether an object is neither desired nor a kernel's route of another link than that of `missing`.
    pub fn is_rival(&self, object: &Object, missing: &Object) -> bool {
        !self.desired.contains(object) && !stands_on_another_link(object, missing)
    }

    /// Whether what is there was added by this process, or by another run of its program.
    pub fn is_added_by(&self, actor: &Actor) -> bool {
        let process = actor.process().map(|process| process.id);
        (process.is_some() && self.adder == process)
            || self.adder_program.as_ref().is_some_and(|program| *program == Culprit::from(actor))
    }

    /// Notes who has added what is there.
    pub fn added_by(&mut self, actor: &Actor, object: &Object) {
        self.adder = actor.process().map(|process| process.id);
        let daemons = object.protocol().is_some_and(|protocol| protocol > rt::PROT_STATIC);
        self.adder_program = (daemons && self.adder.is_some()).then(|| Culprit::from(actor));
    }

    /// The account of `culprit`, opened if need be.
    pub fn account(&mut self, culprit: &Culprit, settings: &Damping, now: Stamp) -> &mut Account {
        let found = self.accounts.iter().position(|a| a.culprit() == culprit);
        let index = found.unwrap_or_else(|| {
            if self.accounts.len() >= ACCOUNTS
                && let Some(oldest) = (0..self.accounts.len()).min_by_key(|&i| self.accounts[i].last_use())
            {
                self.accounts.swap_remove(oldest);
            }
            self.accounts.push(Account::new(culprit.clone(), settings, now));
            self.accounts.len() - 1
        });
        &mut self.accounts[index]
    }

    fn count(&self) -> Counts {
        let phase = self.loss.as_deref().map(|loss| loss.phase);
        Counts {
            protected: self.desired.len(),
            missing: self.desired.iter().filter(|object| !self.observed.contains(object)).count(),
            held: usize::from(phase.is_some_and(Phase::is_held)),
        }
    }

    /// Forgets what anybody did to it.
    pub fn forgive(&mut self) {
        self.accounts.clear();
    }

    /// Whether nothing is worth remembering of it.
    pub fn is_idle(&self) -> bool {
        self.desired.is_empty() && self.loss.is_none() && self.surplus.is_none() && !self.doubt
    }
}

/// Whether they lead to the same link; of all but routes there is one of a key at most.
fn shares_a_link(one: &Object, other: &Object) -> bool {
    match (one.route(), other.route()) {
        (Some(one), Some(other)) => one.oifs().any(|link| other.oifs().any(|other| other == link)),
        _ => true,
    }
}

/// All guarded keys, and how many objects of each kind and family that makes.
#[derive(Debug, Default)]
pub struct Rib {
    /// By foldhash: `SipHash` over a key as long as a route's takes a quarter of a restore's instructions.
    entries: HashMap<Key, Entry>,
    totals: BTreeMap<(ObjectKind, Option<Family>), Counts>,
    places: u64,
    /// Whether what is desired has changed since this was last asked for.
    changed: bool,
    /// Whether anything about a port has.
    ports_changed: bool,
    /// What is known no longer, and when the kernel last told of it, since the last dump began.
    forgotten: HashMap<Key, Stamp>,
}

impl Rib {
    /// The counts of a kind and a family, as of the last [`Rib::recount`] of each key.
    pub fn counts(&self, kind: ObjectKind, family: Option<Family>) -> Counts {
        self.totals.get(&(kind, family)).copied().unwrap_or_default()
    }

    /// To be called after every change to a key: a look at all of them would take milliseconds.
    pub fn recount(&mut self, key: &Key) {
        let Some(entry) = self.entries.get_mut(key) else { return };
        let now = entry.count();
        let before = std::mem::replace(&mut entry.counted, now);
        let print = entry.desired.print();
        self.changed |= std::mem::replace(&mut entry.print, print) != print;
        self.ports_changed |= matches!(key, Key::Port(_));
        self.adjust(key, before, now);
    }

    /// Whether what is desired has changed since this was last asked.
    pub const fn take_changed(&mut self) -> bool {
        std::mem::replace(&mut self.changed, false)
    }

    /// Whether anything about a port has changed since this was last asked, what is desired or what is missing.
    pub const fn take_ports_changed(&mut self) -> bool {
        std::mem::replace(&mut self.ports_changed, false)
    }

    fn adjust(&mut self, key: &Key, before: Counts, now: Counts) {
        if before == now {
            return;
        }
        let total = self.totals.entry((key.kind(), key.family())).or_default();
        total.protected = (total.protected + now.protected).saturating_sub(before.protected);
        total.missing = (total.missing + now.missing).saturating_sub(before.missing);
        total.held = (total.held + now.held).saturating_sub(before.held);
    }

    pub fn get(&self, key: &Key) -> Option<&Entry> {
        self.entries.get(key)
    }

    pub fn get_mut(&mut self, key: &Key) -> Option<&mut Entry> {
        self.entries.get_mut(key)
    }

    pub fn entry(&mut self, key: Key) -> &mut Entry {
        self.entries.entry(key).or_insert_with(|| {
            self.places += 1;
            Entry { place: if matches!(key, Key::Rule(_)) { self.places } else { 0 }, ..Entry::default() }
        })
    }

    pub fn remove(&mut self, key: &Key) {
        if let Some(entry) = self.entries.remove(key) {
            self.changed |= entry.print != 0;
            self.ports_changed |= matches!(key, Key::Port(_));
            self.adjust(key, entry.counted, Counts::default());
        }
    }

    /// Removes a key of which nothing is left. A dump that began before the kernel last told of it may still have it.
    pub fn forget(&mut self, key: &Key) {
        let Some(told) = self.get(key).map(|entry| entry.told) else { return };
        if self.forgotten.len() >= FORGOTTEN {
            self.forgotten.clear();
        }
        self.forgotten.insert(*key, told);
        self.remove(key);
    }

    /// Whether the kernel has told of a key since a dump began, though nothing is known of it any more.
    pub fn was_forgotten_since(&self, key: &Key, started: Stamp) -> bool {
        self.forgotten.get(key).is_some_and(|told| *told >= started)
    }

    /// A dump that began then has been taken in: those that come began later.
    pub fn dumped(&mut self, started: Stamp) {
        self.forgotten.retain(|_, told| *told >= started);
    }

    pub fn iter(&self) -> hash_map::Iter<'_, Key, Entry> {
        self.entries.iter()
    }

    pub fn iter_mut(&mut self) -> hash_map::ValuesMut<'_, Key, Entry> {
        self.entries.values_mut()
    }

    pub fn keys(&self) -> Vec<Key> {
        self.entries.keys().copied().collect()
    }
}
