//! Cables, lent to ports that systemd-networkd takes out of their bridge and would take out again at once.
//!
//! Such a port is put back for good when networkd has met it anew ([`Core::met`]): some 15 ms later, and seconds later where
//! it has a hundred others to go through. Until then the pod at its other end would hear of nobody. So its frames are carried
//! to the bridge's link and from it, past what networkd looks at: it finds the port outside, as it wants to, and no packet
//! notices.
//!
//! All are ready as long as networkd manages any of them, and as soon as it takes a port, since it takes the others next, and
//! that one again: the kernel's own word that a port leaves its bridge switches a cable on, long before that has gone all its
//! way (`del_nbp` of `net/bridge/br_if.c` says so first, and then waits for all who may still use the port). Not merely because
//! networkd does anything: to attach the programs to a hundred ports takes the lock that all restores need. Nor before a pod
//! has had time to be set up.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use super::{
    lending::is_by_networkd,
    machine::{Core, Who},
};
use crate::model::{Cable, Key, Link, Mode, Object, Port, ProcessId, Stamp};

/// For how long networkd may go on after it has taken a port: as long as that counts as the same trouble
/// ([`super::damping::Account::recoil`]).
const READY: Duration = Duration::from_secs(10);

/// For how long a port that is new is left alone. Plugins that come after the bridge plugin may want a queueing discipline of
/// their own there: `bandwidth` fails where it finds one.
const YOUNG: Duration = Duration::from_secs(10);

/// Bridges that are known to have gone; more than a node has.
const REMADE: usize = 64;

/// What decides which cables are ready.
#[derive(Debug, Default)]
pub(super) struct Readiness {
    /// When systemd-networkd has taken a port last, and in which run.
    taken: Option<(Stamp, ProcessId)>,
    /// The run of systemd-networkd that manages guarded ports, where one does.
    manager: Option<ProcessId>,
    /// The ports that are new, and since when.
    young: BTreeMap<u32, Stamp>,
    /// How often a bridge of this ifindex has gone.
    remade: BTreeMap<u32, u32>,
    /// Whether anything has changed since this was last asked.
    changed: bool,
}

impl Core {
    /// A port was taken: if systemd-networkd took it, it may take others next.
    pub(super) fn port_was_taken(&mut self, who: &Who) {
        if let Some(process) = who.process()
            && self.lends_cables().is_some()
            && is_by_networkd(who)
        {
            self.readiness.taken = Some((who.at, process));
            // One that has been started since is to be ready for.
            self.readiness.manager = self.readiness.manager.and(Some(process));
        }
    }

    /// A link has become a port; one that is guarded already was one before.
    pub(super) fn port_came(&mut self, now: Stamp, port: u32) {
        if self.rib.get(&Key::Port(port)).is_none() {
            self.readiness.young.insert(port, now);
        }
    }

    /// Something about a link or the settings is different now.
    pub(super) const fn cables_change(&mut self) {
        self.readiness.changed = true;
    }

    /// A link is gone, and with it what was attached to it.
    pub(super) fn cables_go(&mut self, link: &Link) {
        self.readiness.young.remove(&link.index);
        if link.is_bridge() && !self.outside_links.contains(&link.index) {
            let remade = &mut self.readiness.remade;
            *remade.entry(link.index).or_default() += 1;
            if remade.len() > REMADE {
                remade.pop_first();
            }
        }
        self.cables_change();
    }

    /// Which run of systemd-networkd manages guarded ports.
    pub(super) fn is_managed_by(&mut self, process: Option<ProcessId>) {
        self.readiness.manager = process;
        self.cables_change();
    }

    /// Whether [`Core::cables`] and [`Core::ports`] may say anything else than before this was last asked.
    pub const fn take_cables_changed(&mut self) -> bool {
        let ports = self.rib.take_ports_changed();
        std::mem::replace(&mut self.readiness.changed, false) || ports
    }

    /// The guarded ports that could be lent a cable, by ifindex and in its order; none where none is lent.
    pub fn ports(&self) -> Vec<u32> {
        let ports = self.lends_cables().map(|_| self.guarded_ports().map(|(port, _)| port.link));
        let mut ports: Vec<u32> = ports.into_iter().flatten().collect();
        ports.sort_unstable();
        ports
    }

    /// Whom cables are ready for, and for how long they are lent at most.
    fn ready_for(&self) -> Option<(ProcessId, Duration)> {
        let process = self.readiness.taken.map(|(_, process)| process).or(self.readiness.manager)?;
        Some((process, self.lends_cables()?))
    }

    /// The cables that are to be lent just now, and those that are to be ready, by the ifindex of their port.
    pub fn cables(&self) -> BTreeMap<u32, Cable> {
        let Some((process, time)) = self.ready_for() else { return BTreeMap::new() };
        let is_old = |(port, _): &(&Port, _)| !self.readiness.young.contains_key(&port.link);
        let ports: Vec<(&Port, Option<Stamp>)> = self.guarded_ports().filter(is_old).collect();
        let bridges: BTreeSet<u32> = ports.iter().map(|(port, _)| port.master).collect();
        let addresses: BTreeMap<u32, [u8; 6]> = bridges
            .into_iter()
            .filter_map(|bridge| Some((bridge, self.own_address(bridge, &ports)?)))
            .collect();
        let cable = |(port, taken): &(&Port, Option<Stamp>)| {
            let cable = Cable {
                port: self.links.get(port.link)?.name.clone(),
                bridge: port.master,
                bridge_name: self.links.get(port.master)?.name.clone(),
                bridge_gone: self.readiness.remade.get(&port.master).copied().unwrap_or(0),
                address: *addresses.get(&port.master)?,
                by: process,
                time,
                until: taken.map(|at| at.after(time)),
            };
            Some((port.link, cable))
        };
        ports.iter().filter_map(cable).collect()
    }

    /// For how long at most, where at all.
    fn lends_cables(&self) -> Option<Duration> {
        self.settings.lend.filter(|_| self.settings.mode == Mode::Restore)
    }

    /// The guarded ports of bridges, as they are or should be, and since when networkd has them out.
    fn guarded_ports(&self) -> impl Iterator<Item = (&Port, Option<Stamp>)> {
        let ports = self.links.iter().filter_map(|link| {
            let entry = self.rib.get(&Key::Port(link.index))?;
            // What has just been written is there, though the link itself has not said so yet.
            let loss = entry.loss.as_deref();
            let object = loss.map(|loss| &loss.object).or_else(|| entry.desired.iter().next())?;
            let Object::Port(port) = &**object else { return None };
            Some((port, loss.filter(|loss| is_by_networkd(&Who::of(loss))).map(|loss| loss.at)))
        });
        ports.filter(|(port, _)| port.is_of_bridge() && !port.is_isolated())
    }

    /// The hardware address of a bridge, if it is its own, and the bridge does nothing with frames but to pass them on.
    ///
    /// Of others it changes with each port that goes (`br_stp_recalculate_bridge_id` of `net/bridge/br_stp_if.c`), and who
    /// hears of it would go on sending to one that has gone. The bridge plugin gives its bridge an address of its own.
    fn own_address(&self, bridge: u32, ports: &[(&Port, Option<Stamp>)]) -> Option<[u8; 6]> {
        let link = self.links.get(bridge).filter(|link| !link.tells_vlans_apart())?;
        let address = link.hardware_address().filter(|address| *address != [0; 6])?;
        let guarded = ports.iter().filter_map(|(port, _)| self.links.get(port.link));
        let mut links = self.links.iter().filter(|link| link.master() == Some(bridge)).chain(guarded);
        (!links.any(|link| link.hardware_address() == Some(address))).then_some(address)
    }

    /// When the cables are to be put away, or a port is new no longer. While networkd is waited for, something else wakes.
    pub(super) fn cables_deadline(&self) -> Option<Stamp> {
        let grown = self.readiness.young.values().min().filter(|_| self.ready_for().is_some());
        self.put_away_at().into_iter().chain(grown.map(|since| since.after(YOUNG))).min()
    }

    fn put_away_at(&self) -> Option<Stamp> {
        self.readiness.taken.filter(|_| self.recoiled == 0).map(|(at, _)| at.after(READY))
    }

    /// Puts them away if nobody has needed one for long, and has them for ports that are new no longer.
    pub(super) fn cables_due(&mut self, now: Stamp) {
        let young = self.readiness.young.len();
        self.readiness.young.retain(|_, since| since.after(YOUNG) > now);
        self.readiness.changed |= self.readiness.young.len() != young;
        if self.put_away_at().is_some_and(|at| at <= now) {
            let lends = self.lends_cables().map(|time| move |taken: Stamp| taken.after(time) > now);
            let is_in_use =
                lends.is_some_and(|lends| self.guarded_ports().any(|(_, taken)| taken.is_some_and(lends)));
            let taken = self.readiness.taken.filter(|_| is_in_use).map(|(_, process)| (now, process));
            self.readiness.taken = taken;
            self.readiness.changed = true;
        }
    }
}
