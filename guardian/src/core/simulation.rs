//! The core against a model of the kernel: owner, foreigner and guardian take turns in any order.

use std::{collections::BTreeMap, sync::Arc};

use proptest::prelude::*;

use super::{
    flow::{Dump, Effect, Input},
    machine::{Core, Settings},
    plan::{Action, Applied},
    scope::Scope,
    testing::{gone, link, route, set},
};
use crate::model::{
    Actor, Confidence, Family, Links, Mode, Notice, Object, Process, ProcessId, Route, RouteKey, Stamp,
    record::{ObjectKind, Verdict},
};

pub(super) const TUN: u32 = 2;
pub(super) const ETH: u32 = 1;
/// The link that only the foreigner's routes leave by.
const FOREIGN: u32 = 4;

pub(super) fn scope() -> Scope {
    Scope { links: vec![glob::Pattern::new("tun-*").unwrap()], protocols: [17].into(), ..Scope::default() }
}

fn links() -> Vec<crate::model::Link> {
    vec![link(ETH, "eth0"), link(TUN, "tun-a"), link(3, "tun-b"), link(FOREIGN, "tun-c")]
}

pub(super) fn someone(pid: u32, exe: &str) -> Arc<Actor> {
    calling(pid, exe, &[])
}

/// Somebody, with arguments.
pub(super) fn calling(pid: u32, exe: &str, argv: &[&str]) -> Arc<Actor> {
    let process = Process {
        exe_deleted: false,
        id: ProcessId { tgid: pid, start_ns: u64::from(pid) },
        parent: None,
        comm: "x".into(),
        exe: Some(exe.into()),
        argv: argv.iter().map(|&word| word.to_owned()).collect(),
        argv_cut: false,
        uid: 0,
        login_uid: None,
        cgroup_id: 0,
    };
    Arc::new(Actor::Process {
        thread: None,
        process: Arc::new(process),
        ancestors: vec![],
        cgroup: None,
        confidence: Confidence::Exact,
    })
}

/// What a party may ask of the model kernel.
#[derive(Clone, Debug)]
pub(super) enum Ask {
    Add,
    Replace(u32),
    Delete,
}

/// The kernel, reduced to one route a key, with its announcements.
#[derive(Default)]
pub(super) struct Kernel {
    pub clock: u64,
    pub held: BTreeMap<RouteKey, Route>,
    pub announced: Vec<(Stamp, Notice, Verdict, Arc<Actor>)>,
}

impl Kernel {
    pub fn tick(&mut self) -> Stamp {
        self.clock += 1000;
        Stamp(self.clock)
    }

    /// A request by somebody else; announced, and `true`, where it changes anything. The kernel keeps silent
    /// about a request for what is there already (`fib_table_insert`), so nobody can know of it.
    pub fn ask(&mut self, route: Route, ask: &Ask, verdict: Verdict, actor: &Arc<Actor>) -> bool {
        let at = self.tick();
        let key = route.key;
        let notice = match ask {
            Ask::Add if self.held.contains_key(&key) => return false,
            Ask::Add => set(route.clone()),
            Ask::Replace(_) => {
                let before = self.held.get(&key);
                if before.is_some_and(|r| r.same(&route)) {
                    return false;
                }
                Notice::Set { object: route.clone().into(), replaced: before.is_some(), appended: false }
            }
            Ask::Delete => match self.held.remove(&key) {
                Some(route) => gone(route),
                None => return false,
            },
        };
        if !matches!(ask, Ask::Delete) {
            self.held.insert(key, route);
        }
        self.announced.push((at, notice, verdict, Arc::clone(actor)));
        true
    }

    /// What a dump reads.
    pub fn objects(&self) -> Vec<Object> {
        let routes = self.held.values().cloned().map(Object::Route);
        links().into_iter().map(Object::Link).chain(routes).collect()
    }

    /// The guardian's own write; not announced to it.
    fn apply(&mut self, action: &Action) -> Applied {
        let Object::Route(route) = action.object().clone() else { return Applied::Exists };
        let held = self.held.contains_key(&route.key);
        match action {
            Action::Add(_) if held => Applied::Exists,
            Action::Replace(_) if !held => Applied::Gone,
            // A removal names the route with all its attributes, and hits no other.
            Action::Remove(_) if !self.held.get(&route.key).is_some_and(|r| r.same(&route)) => Applied::Gone,
            Action::Remove(_) => {
                self.held.remove(&route.key);
                Applied::Verified
            }
            _ => {
                self.held.insert(route.key, route);
                Applied::Verified
            }
        }
    }
}

/// Core and kernel side by side.
pub(super) struct World {
    pub kernel: Kernel,
    pub core: Core,
    delivered: usize,
    twice: bool,
    /// What the owner's last word makes of each key.
    wanted: BTreeMap<RouteKey, Route>,
    owner: Arc<Actor>,
    pub actions: Vec<Action>,
    pub reports: Vec<super::Report>,
    rereads: u32,
}

impl World {
    pub fn new(settings: Settings, initial: &[Route], twice: bool) -> Self {
        let mut kernel = Kernel::default();
        for r in initial {
            kernel.held.insert(r.key, r.clone());
        }
        let covered: Links = links().into_iter().collect();
        let wanted = kernel
            .held
            .iter()
            .filter(|(_, r)| scope().covers(&Object::Route((*r).clone()), &covered))
            .map(|(k, r)| (*k, r.clone()))
            .collect();
        let mut world = Self {
            kernel,
            core: Core::new(settings, scope()),
            delivered: 0,
            twice,
            wanted,
            owner: someone(1, "/usr/local/bin/kube-router"),
            actions: vec![],
            reports: vec![],
            rereads: 0,
        };
        world.reread();
        world
    }

    pub fn owner(&mut self, route: Route, ask: &Ask) {
        let owner = Arc::clone(&self.owner);
        if self.kernel.ask(route.clone(), ask, Verdict::Owner, &owner) {
            match ask {
                Ask::Delete => self.wanted.remove(&route.key),
                _ => self.wanted.insert(route.key, route),
            };
        }
    }

    pub fn foreigner(&mut self, route: Route, ask: &Ask, who: &Arc<Actor>) {
        self.kernel.ask(route, ask, Verdict::Foreign, who);
    }

    pub fn deliver(&mut self, count: usize) {
        let until = (self.delivered + count).min(self.kernel.announced.len());
        for index in self.delivered..until {
            let (at, notice, verdict, actor) = self.kernel.announced[index].clone();
            for _ in 0..if self.twice { 2 } else { 1 } {
                let input =
                    Input::Notice { at, notice: notice.clone(), port: 7, actor: Arc::clone(&actor), verdict };
                self.core.step(Stamp(self.kernel.clock), input);
            }
        }
        self.delivered = until;
        self.check_counts();
        self.effects();
    }

    pub fn effects(&mut self) {
        let effects: Vec<Effect> = self.core.effects().collect();
        let mut reread = false;
        for effect in effects {
            match effect {
                Effect::Report(report) => self.reports.push(*report),
                Effect::Reread(_) => reread = true,
                Effect::Link { .. } | Effect::Damped(_) => {}
            }
        }
        if reread {
            self.rereads += 1;
            self.reread();
        }
    }

    /// Subscribe, dump, replay: what was announced before the dump's end is fed before it.
    pub fn reread(&mut self) {
        let started = self.kernel.tick();
        let objects = self.kernel.objects();
        let ended = self.kernel.tick();
        self.deliver_quietly();
        let dump = Dump { started, ended, objects };
        self.core.step(ended, Input::Dump(dump));
        self.effects();
    }

    fn deliver_quietly(&mut self) {
        while self.delivered < self.kernel.announced.len() {
            let (at, notice, verdict, actor) = self.kernel.announced[self.delivered].clone();
            self.delivered += 1;
            self.core.step(Stamp(self.kernel.clock), Input::Notice { at, notice, port: 7, actor, verdict });
        }
    }

    /// One round of the executor; `meanwhile` happens between request and answer.
    pub fn write(&mut self, max: usize, before: &mut dyn FnMut(&mut Self), after: &mut dyn FnMut(&mut Self)) {
        let actions = self.core.plan(Stamp(self.kernel.clock), max);
        if actions.is_empty() {
            return;
        }
        let sent = self.kernel.tick();
        before(self);
        let results = actions.iter().map(|a| self.kernel.apply(a)).collect();
        after(self);
        let done = self.kernel.tick();
        self.actions.extend(actions);
        self.core.applied(results, sent, done);
        self.effects();
    }

    /// The guarded routes.
    pub fn routes(&self) -> Vec<Route> {
        self.core.desired().iter().filter_map(|object| object.route().cloned()).collect()
    }

    /// The counts that are kept are those that a look at everything gives.
    fn check_counts(&self) {
        for family in Family::ALL {
            let (mut protected, mut missing) = (0, 0);
            let routes = self.core.rib.iter().filter(|(key, _)| key.is_route());
            for (_, entry) in routes.filter(|(key, _)| key.family() == Some(family)) {
                protected += entry.desired.len();
                missing += entry.desired.iter().filter(|route| !entry.observed.contains(route)).count();
            }
            let counts = self.core.counts(ObjectKind::Route, Some(family));
            assert_eq!((counts.protected, counts.missing), (protected, missing), "{family}");
        }
    }

    /// Everything delivered, every timer run out.
    pub fn finish(&mut self) {
        for _ in 0..10_000 {
            self.deliver(usize::MAX / 2);
            if self.core.has_work() {
                self.write(64, &mut |_| {}, &mut |_| {});
            } else if let Some(at) = self.core.deadline() {
                self.kernel.clock = self.kernel.clock.max(at.0);
                self.write(64, &mut |_| {}, &mut |_| {});
            } else if self.delivered == self.kernel.announced.len() {
                return;
            }
        }
        panic!("does not come to rest");
    }
}

pub(super) const DESTINATIONS: [&str; 4] = ["10.1.0.0/16", "10.2.0.0/16", "10.3.0.0/16", "fd00:1::/64"];

#[derive(Clone, Debug)]
enum Move {
    Owner(usize, Ask),
    Foreigner(usize, Ask),
    Outside(usize, Ask),
    Deliver(usize),
    Write { before: Option<(bool, usize, Ask)>, after: Option<(bool, usize, Ask)> },
}

fn ask() -> impl Strategy<Value = Ask> {
    prop_oneof![Just(Ask::Add), (2u32..4).prop_map(Ask::Replace), Just(Ask::Delete), Just(Ask::Delete)]
}

/// The foreigner's additions would be adopted, which the oracle does not model: it deletes and replaces.
fn foreign_ask() -> impl Strategy<Value = Ask> {
    prop_oneof![Just(Ask::Replace(FOREIGN)), Just(Ask::Delete), Just(Ask::Delete)]
}

fn movement() -> impl Strategy<Value = Move> {
    let during = || {
        prop::option::of(
            prop_oneof![(Just(true), 0..4usize, ask()), (Just(false), 0..4usize, foreign_ask()),],
        )
    };
    prop_oneof![
        3 => (0..4usize, ask()).prop_map(|(i, a)| Move::Owner(i, a)),
        4 => (0..4usize, foreign_ask()).prop_map(|(i, a)| Move::Foreigner(i, a)),
        1 => (0..4usize, ask()).prop_map(|(i, a)| Move::Outside(i, a)),
        4 => (1..4usize).prop_map(Move::Deliver),
        4 => (during(), during()).prop_map(|(before, after)| Move::Write { before, after }),
    ]
}

fn inside(index: usize, ask: &Ask) -> Route {
    let oif = if let Ask::Replace(oif) = ask { *oif } else { TUN };
    route(DESTINATIONS[index], oif)
}

fn outside(index: usize) -> Route {
    let mut r = route(["192.0.2.0/24", "198.51.100.0/24", "203.0.113.0/24", "fd00:9::/64"][index], ETH);
    r.protocol = 3;
    r
}

pub(super) fn patient() -> Settings {
    // The oracle knows nothing of damping.
    Settings { damping: super::Damping { burst: 10_000, ..Default::default() }, ..Default::default() }
}

fn play(world: &mut World, moves: &[Move], foreigner: &Arc<Actor>) {
    for m in moves {
        match m {
            Move::Owner(i, a) => world.owner(inside(*i, a), a),
            Move::Foreigner(i, a) => {
                // Only what is there can be replaced; see `foreign_ask`.
                let there = world.kernel.held.contains_key(&inside(*i, a).key);
                if there {
                    world.foreigner(inside(*i, a), a, foreigner);
                }
            }
            Move::Outside(i, a) => world.foreigner(outside(*i), a, foreigner),
            Move::Deliver(n) => world.deliver(*n),
            Move::Write { before, after } => {
                let act = |what: &Option<(bool, usize, Ask)>, world: &mut World| {
                    let Some((owner, i, a)) = what else { return };
                    let there = world.kernel.held.contains_key(&inside(*i, a).key);
                    if *owner {
                        world.owner(inside(*i, a), a);
                    } else if there && !matches!(a, Ask::Add) {
                        world.foreigner(inside(*i, a), a, foreigner);
                    }
                };
                world.write(64, &mut |w| act(before, w), &mut |w| act(after, w));
            }
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 1000, ..ProptestConfig::default() })]

    /// Whatever order things happen in, the kernel ends with the owner's last word.
    #[test]
    fn the_owners_last_word_stands(
        moves in prop::collection::vec(movement(), 0..40),
        initial in 0..4usize,
        twice in any::<bool>(),
    ) {
        let mut start: Vec<Route> = (0..initial).map(|i| route(DESTINATIONS[i], TUN)).collect();
        start.push(outside(0));
        let mut world = World::new(patient(), &start, twice);
        play(&mut world, &moves, &someone(99, "/usr/sbin/ip"));
        world.finish();
        for destination in DESTINATIONS {
            let key = route(destination, TUN).key;
            let (held, wanted) = (world.kernel.held.get(&key), world.wanted.get(&key));
            // A foreigner may replace what we had put back in the instant in which its owner withdrew it:
            // the foreigner's route is left alone.
            let foreign = held.is_some_and(|r| r.oifs().eq([FOREIGN]));
            prop_assert!(held == wanted || (wanted.is_none() && foreign), "{held:?} but {wanted:?} is wanted");
        }
        for action in &world.actions {
            prop_assert!(DESTINATIONS.contains(&&*action.object().name(&Links::default())), "touched {:?}", action);
        }
        prop_assert!(world.core.missing().is_empty());
        world.check_counts();
    }

    /// In observe mode nothing is ever written.
    #[test]
    fn observing_touches_nothing(moves in prop::collection::vec(movement(), 0..40)) {
        let start: Vec<Route> = (0..4).map(|i| route(DESTINATIONS[i], TUN)).collect();
        let mut world = World::new(Settings { mode: Mode::Observe, ..patient() }, &start, false);
        play(&mut world, &moves, &someone(99, "/usr/sbin/ip"));
        world.finish();
        prop_assert!(world.actions.is_empty());
    }

    /// An adversary gets no more restores out of us than the budget, whatever its rhythm.
    #[test]
    fn an_adversary_cannot_exceed_the_budget(
        pauses in prop::collection::vec(0u64..400_000_000, 1..400),
        new_process_each_time in any::<bool>(),
    ) {
        let settings = Settings::default();
        let r = route(DESTINATIONS[0], TUN);
        let mut world = World::new(settings, std::slice::from_ref(&r), false);
        let began = world.kernel.clock;
        for (n, pause) in pauses.iter().enumerate() {
            let pid = if new_process_each_time { 100 + n as u32 } else { 100 };
            world.foreigner(r.clone(), &Ask::Delete, &someone(pid, "/usr/sbin/ip"));
            world.deliver(10);
            world.write(64, &mut |_| {}, &mut |_| {});
            world.kernel.clock += pause;
            if new_process_each_time {
                world.core.step(Stamp(world.kernel.clock), Input::Gone(ProcessId { tgid: pid, start_ns: pid.into() }));
            }
            world.write(64, &mut |_| {}, &mut |_| {});
        }
        let elapsed = std::time::Duration::from_nanos(world.kernel.clock - began);
        // A restore a hold, and one when a process that insisted has ended.
        let budget = f64::from(settings.damping.burst) + 2.0
            + elapsed.as_secs_f64() / settings.damping.initial.as_secs_f64() * 2.2;
        prop_assert!((world.actions.len() as f64) <= budget, "{} restores in {elapsed:?}", world.actions.len());
        world.finish();
        prop_assert_eq!(world.kernel.held.get(&r.key), Some(&r));
    }
}
