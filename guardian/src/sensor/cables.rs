//! Cables for ports that have to stay out of their bridge for a while ([`crate::model::Cable`]).
//!
//! The programs are on the path of packets. They are loaded with the others, so that what is wrong with them shows
//! at the start, and attached only to ports that may need one, and to their bridges.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Arc, Mutex},
};

use aya::{
    Ebpf,
    maps::{Array, HashMap, MapData},
    programs::{
        ProgramError, SchedClassifier, TcAttachType,
        tc::{
            NlOptions, SchedClassifierLink, TcAttachOptions, TcHandle, qdisc_add_clsact, qdisc_detach_program,
        },
    },
};
use log::Level;
use route_guardian_ebpf::{CABLES_MAX, address_word};

use super::{SensorError, load, lock};
use crate::model::Cable;

/// What is lent, by port.
const CABLES: &str = "CABLES";
/// What the kernel's own word has switched on.
const SWITCHED: &str = "SWITCHED";
/// The ports.
const PORTS: &str = "PORTS";

/// Where a program stands on a link, so that it is known again; numbers that nobody else is likely to choose.
const PRIORITY: u16 = 3;
const HANDLE: TcHandle = TcHandle::new(0, 0x6763);

/// The program of a port, and the way that its frames go.
const IN: (&str, TcAttachType) = ("cable_in", TcAttachType::Ingress);
/// And of a bridge.
const OUT: (&str, TcAttachType) = ("cable_out", TcAttachType::Egress);

/// A [`route_guardian_ebpf::Cable`] as a map's value.
#[derive(Clone, Copy)]
#[repr(transparent)]
struct Entry(route_guardian_ebpf::Cable);
// SAFETY: integers, without padding.
unsafe impl aya::Pod for Entry {}

impl From<&Cable> for Entry {
    fn from(cable: &Cable) -> Self {
        Self(route_guardian_ebpf::Cable {
            until: cable.until.map_or(0, |until| until.0),
            address: address_word(cable.address),
            time: u64::try_from(cable.time.as_nanos()).unwrap_or(u64::MAX),
            bridge: cable.bridge,
            by: cable.by.tgid,
        })
    }
}

/// The cables that are lent.
#[derive(Clone)]
pub struct Cables {
    ebpf: Arc<Mutex<Ebpf>>,
    order: Arc<Mutex<Order>>,
    lent: Arc<Mutex<Lent>>,
}

/// What is wanted, whether somebody sees to it, and what has come of it.
#[derive(Default)]
struct Order {
    cables: Option<BTreeMap<u32, Cable>>,
    /// Ports and bridges, by name, of which others may have been left.
    sweep: Option<[Vec<String>; 2]>,
    has_worker: bool,
    attached: BTreeSet<u32>,
}

/// What there is.
struct Lent {
    cables: BTreeMap<u32, Cable>,
    /// By ifindex; `None` where the kernel has refused.
    ports: BTreeMap<u32, Option<SchedClassifierLink>>,
    /// By [`bridge`], likewise.
    bridges: BTreeMap<(u32, u32), Option<SchedClassifierLink>>,
    entries: HashMap<MapData, u32, Entry>,
    switched: HashMap<MapData, u32, u64>,
    slots: Array<MapData, u32>,
    /// Whether it was told that something does not work.
    complained: bool,
}

impl Cables {
    pub(super) fn new(ebpf: Arc<Mutex<Ebpf>>) -> Result<Self, SensorError> {
        let take = |map| lock(&ebpf).take_map(map).ok_or(SensorError::Object(map));
        let broken = |map| move |source| SensorError::Map { map, source };
        let entries = HashMap::try_from(take(CABLES)?).map_err(broken(CABLES))?;
        let switched = HashMap::try_from(take(SWITCHED)?).map_err(broken(SWITCHED))?;
        let slots = Array::try_from(take(PORTS)?).map_err(broken(PORTS))?;
        let (cables, ports, bridges) = Default::default();
        let lent = Lent { cables, ports, bridges, entries, switched, slots, complained: false };
        Ok(Self { ebpf, order: Arc::default(), lent: Arc::new(Mutex::new(lent)) })
    }

    /// Orders these cables and no others, by the ifindex of their port. Whether somebody has to be found who calls
    /// [`Cables::lend`].
    pub fn order(&self, cables: BTreeMap<u32, Cable>) -> bool {
        let mut order = lock(&self.order);
        order.cables = Some(cables);
        !std::mem::replace(&mut order.has_worker, true)
    }

    /// Orders that what a guardian has left that did not come to its end is taken away from these ports and bridges, by
    /// name. Whether somebody has to be found, likewise. Takes some 100 µs for each.
    pub fn sweep(&self, ports: Vec<String>, bridges: Vec<String>) -> bool {
        let mut order = lock(&self.order);
        order.sweep = Some([ports, bridges]);
        !std::mem::replace(&mut order.has_worker, true)
    }

    /// Lends what was ordered last, and takes back what was not. To be done beside the guard loop: each takes a lock that
    /// all changes of links and routes take, too.
    pub fn lend(&self) {
        loop {
            let (sweep, wanted) = {
                let mut order = lock(&self.order);
                let work = (order.sweep.take(), order.cables.take());
                order.has_worker = work.0.is_some() || work.1.is_some();
                work
            };
            for (links, what) in sweep.iter().flatten().zip([IN, OUT]) {
                for link in links {
                    detach(link, what);
                }
            }
            if let Some(wanted) = wanted {
                let attached = lock(&self.lent).become_as(within_bounds(wanted), &self.ebpf);
                lock(&self.order).attached = attached;
            } else if sweep.is_none() {
                return;
            }
        }
    }

    /// Takes all back, before others take their places: on each link there is one for all.
    pub fn end(&self) {
        lock(&self.order).cables = None;
        lock(&self.lent).become_as(BTreeMap::new(), &self.ebpf);
    }

    /// Whether a port has one, lent or ready.
    pub fn is_attached(&self, port: u32) -> bool {
        lock(&self.order).attached.contains(&port)
    }
}

/// As many as there is room for, those first that carry.
fn within_bounds(mut cables: BTreeMap<u32, Cable>) -> BTreeMap<u32, Cable> {
    let surplus = cables.len().saturating_sub(CABLES_MAX as usize);
    if surplus > 0 {
        let mut ports: Vec<u32> = cables.keys().rev().copied().collect();
        ports.sort_by_key(|port| cables.get(port).is_some_and(|cable| cable.until.is_some()));
        for port in ports.into_iter().take(surplus) {
            cables.remove(&port);
        }
        log::debug!("{surplus} ports are not carried while they wait: there is room for {CABLES_MAX}");
    }
    cables
}

impl Lent {
    /// Which ports have a cable then.
    fn become_as(&mut self, wanted: BTreeMap<u32, Cable>, ebpf: &Mutex<Ebpf>) -> BTreeSet<u32> {
        // First what takes no time: what is attached already carries from now on.
        for port in self.cables.keys().filter(|port| !wanted.contains_key(port)) {
            // What is gone is gone.
            let _ = self.entries.remove(port);
            let _ = self.switched.remove(port);
        }
        for (port, cable) in &wanted {
            if self.cables.get(port) != Some(cable) {
                let entered = self.entries.insert(port, Entry::from(cable), 0);
                self.complain(&cable.port, entered);
            }
        }
        let same_ports = wanted.keys().eq(self.cables.keys());
        if !same_ports {
            self.fill_slots(&wanted);
        }
        // What was refused is tried again now and then.
        let stays = |link: &Option<SchedClassifierLink>| same_ports || link.is_some();
        let bridges: BTreeSet<_> = wanted.values().map(bridge).collect();
        self.ports.retain(|port, link| wanted.contains_key(port) && stays(link));
        self.bridges.retain(|bridge, link| bridges.contains(bridge) && stays(link));
        for (port, cable) in &wanted {
            if !self.bridges.contains_key(&bridge(cable)) {
                let link = self.complain(&cable.bridge_name, attach(ebpf, OUT, &cable.bridge_name));
                self.bridges.insert(bridge(cable), link);
            }
            if !self.ports.contains_key(port) {
                let link = self.complain(&cable.port, attach(ebpf, IN, &cable.port));
                self.ports.insert(*port, link);
            }
        }
        self.complained &= !wanted.is_empty();
        self.cables = wanted;
        self.ports.iter().filter(|(_, link)| link.is_some()).map(|(port, _)| *port).collect()
    }

    /// One after the other from the first on, and zeros behind them.
    fn fill_slots(&mut self, wanted: &BTreeMap<u32, Cable>) {
        let used = self.cables.len().max(wanted.len());
        let ports = wanted.keys().copied().chain(std::iter::repeat(0));
        for (slot, port) in (0..CABLES_MAX).zip(ports).take(used) {
            let filled = self.slots.set(slot, port, 0);
            self.complain("what is for all", filled);
        }
    }

    /// What did not work is told once for all: there may be a hundred ports.
    fn complain<T>(&mut self, what: &str, result: Result<T, impl std::error::Error>) -> Option<T> {
        let error = match result {
            Ok(value) => return Some(value),
            Err(error) => load::chain(&error),
        };
        let level = if std::mem::replace(&mut self.complained, true) { Level::Debug } else { Level::Warn };
        log::log!(level, "{what} is not carried while it waits: {error}");
        None
    }
}

/// Which bridge a cable is of: one that was away and is back is another one, to which nothing is attached.
const fn bridge(cable: &Cable) -> (u32, u32) {
    (cable.bridge, cable.bridge_gone)
}

/// Attaches a program to a link, by a queueing discipline of the link's own (`clsact`), which stays there and does nothing.
///
/// TCX, which there is since 6.6, would not do: the kernel waits there for all who may still run the programs of before
/// (`tcx_entry_sync` of `include/net/tcx.h`), for 15 to 30 ms, and keeps everybody from changing links and routes so long.
fn attach(
    ebpf: &Mutex<Ebpf>,
    (name, way): (&'static str, TcAttachType),
    link: &str,
) -> Result<SchedClassifierLink, ProgramError> {
    let mut ebpf = lock(ebpf);
    let program = program(&mut ebpf, name)?;
    // It may be there, or not be to be had: then this is told next.
    let _ = qdisc_add_clsact(link);
    let place =
        || TcAttachOptions::Netlink(NlOptions { priority: PRIORITY, handle: HANDLE, ..NlOptions::default() });
    let attached = program.attach_with_options(link, way, place()).or_else(|error| {
        // One that did not come to its end has left its own there.
        detach(link, (name, way));
        program.attach_with_options(link, way, place()).map_err(|_| error)
    })?;
    program.take_link(attached)
}

/// Takes away what a guardian has left there that did not come to its end.
fn detach(link: &str, (name, way): (&'static str, TcAttachType)) {
    // Most times there is nothing.
    if qdisc_detach_program(link, way, name).is_ok() {
        log::info!("{link}: what an earlier guardian carried it with is taken away");
    }
}

fn program<'a>(ebpf: &'a mut Ebpf, name: &'static str) -> Result<&'a mut SchedClassifier, ProgramError> {
    let Some(program) = ebpf.program_mut(name) else { return Err(ProgramError::NotLoaded) };
    program.try_into()
}

/// Loads the programs.
///
/// # Errors
/// What the kernel has against it.
pub(super) fn load(ebpf: &mut Ebpf) -> Result<(), ProgramError> {
    [IN, OUT].iter().try_for_each(|(name, _)| program(ebpf, name)?.load())
}
