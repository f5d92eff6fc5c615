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
//! networkd does anything: to attach the programs to a hundred ports takes the lock that all restores need.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use super::{
    lending::is_by_networkd,
    machine::{Core, Who},
};
use crate::model::{Cable, Key, Mode, Object, Port, Stamp};

/// For how long networkd may go on after it has taken a port: as long as that counts as the same trouble
/// ([`super::damping::Account::recoil`]).
const READY: Duration = Duration::from_secs(10);

impl Core {
    /// A port was taken: if systemd-networkd took it, it may take others next.
    pub(super) fn port_was_taken(&mut self, who: &Who) {
        if let Some(process) = who.process()
            && self.lends_cables().is_some()
            && is_by_networkd(who)
        {
            self.networkd = Some((who.at, process));
            // One that has been started since is to be ready for.
            self.port_manager = self.port_manager.and(Some(process));
        }
    }

    /// The guarded ports that could be lent a cable, by ifindex; none where none is lent.
    pub fn ports(&self) -> Vec<u32> {
        let ports = self.lends_cables().map(|_| self.guarded_ports().map(|(port, _)| port.link));
        ports.into_iter().flatten().collect()
    }

    /// The cables that are to be lent just now, and those that are to be ready, by the ifindex of their port.
    pub fn cables(&self) -> BTreeMap<u32, Cable> {
        let process = self.networkd.map(|(_, process)| process).or(self.port_manager);
        let (Some(time), Some(process)) = (self.lends_cables(), process) else {
            return BTreeMap::new();
        };
        let ports: Vec<(&Port, Option<Stamp>)> = self.guarded_ports().collect();
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
            let Some(loss) = entry.loss.as_deref() else { return Some((link.port.as_ref()?, None)) };
            let Object::Port(port) = &*loss.object else { return None };
            Some((port, is_by_networkd(&Who::of(loss)).then_some(loss.at)))
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

    /// When the cables are to be put away. While networkd is waited for, something else wakes.
    pub(super) fn cables_deadline(&self) -> Option<Stamp> {
        self.networkd.filter(|_| self.recoiled == 0).map(|(at, _)| at.after(READY))
    }

    /// Puts them away if nobody has needed one for long.
    pub(super) fn put_cables_away(&mut self, now: Stamp) {
        if self.cables_deadline().is_some_and(|at| at <= now) {
            let lends = self.lends_cables().map(|time| move |taken: Stamp| taken.after(time) > now);
            let is_in_use =
                lends.is_some_and(|lends| self.guarded_ports().any(|(_, taken)| taken.is_some_and(lends)));
            self.networkd = self.networkd.filter(|_| is_in_use).map(|(_, process)| (now, process));
        }
    }
}
