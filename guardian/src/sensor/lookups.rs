//! What a missing route costs: the lookups that would have taken it.
//!
//! The programs are on the path of packets. They are loaded with the others, so that what is wrong with them shows
//! at the start, and attached only while something is missing.

use std::{
    net::IpAddr,
    sync::{Arc, Mutex},
};

use aya::{
    Ebpf,
    maps::{
        MapData,
        lpm_trie::{Key, LpmTrie},
    },
    programs::{ProgramError, RawTracePoint, raw_trace_point::RawTracePointLink},
};
use route_guardian_ebpf::{LOOKUP_HEAD_BITS, LOOKUP_KEY, lookup_key};

use super::{SensorError, load, lock};
use crate::model::{Prefix, route::RouteKey};

/// The map of routes that are missing.
const WATCHED: &str = "WATCHED";

/// Programs and their tracepoints.
const PROGRAMS: [(&str, &str); 2] = [("lookup4", "fib_table_lookup"), ("lookup6", "fib6_table_lookup")];

type RawKey = [u32; LOOKUP_KEY / 4];

/// The destination and table by which lookups are counted: routes that differ in metric or TOS only share them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Lookup {
    table: u32,
    to: Prefix,
}

impl From<&RouteKey> for Lookup {
    fn from(key: &RouteKey) -> Self {
        Self { table: key.table, to: key.dst }
    }
}

impl Lookup {
    fn key(&self) -> Key<RawKey> {
        let mut address = [0; 4];
        let bytes = match self.to.addr() {
            IpAddr::V4(to) => to.octets().to_vec(),
            IpAddr::V6(to) => to.octets().to_vec(),
        };
        for (word, bytes) in address.iter_mut().zip(bytes.chunks_exact(4)) {
            // In the order of the wire, as the kernel has them.
            *word = bytes.try_into().map_or(0, u32::from_ne_bytes);
        }
        let family = u32::from(self.to.family().number());
        Key::new(LOOKUP_HEAD_BITS + u32::from(self.to.len()), lookup_key(family, self.table, address))
    }
}

/// The routes whose lookups are counted.
pub struct Lookups {
    watched: LpmTrie<MapData, RawKey, u64>,
    switch: Switch,
}

impl Lookups {
    pub(super) fn new(ebpf: Arc<Mutex<Ebpf>>) -> Result<Self, SensorError> {
        let map = lock(&ebpf).take_map(WATCHED);
        let map = map.ok_or(SensorError::Object(WATCHED))?;
        let watched = LpmTrie::try_from(map).map_err(|source| SensorError::Map { map: WATCHED, source })?;
        Ok(Self { watched, switch: Switch { ebpf, links: Arc::default() } })
    }

    /// Counts from now on; whether there is room, and nobody else counts for the same.
    pub fn watch(&mut self, lookup: &Lookup) -> bool {
        /// `BPF_NOEXIST`.
        const NOEXIST: u64 = 1;
        self.watched.insert(&lookup.key(), 0, NOEXIST).is_ok()
    }

    /// How many there were so far.
    pub fn count(&self, lookup: &Lookup) -> u64 {
        self.watched.get(&lookup.key(), 0).unwrap_or(0)
    }

    /// Counts no more.
    pub fn end(&mut self, lookup: &Lookup) {
        // What is gone is gone.
        let _ = self.watched.remove(&lookup.key());
    }

    /// Attaches and detaches the programs.
    pub fn switch(&self) -> Switch {
        self.switch.clone()
    }
}

/// Attaches the programs and detaches them, which takes up to some milliseconds: the kernel patches its own code. To be
/// done beside the guard loop.
#[derive(Clone)]
pub struct Switch {
    ebpf: Arc<Mutex<Ebpf>>,
    links: Arc<Mutex<Vec<RawTracePointLink>>>,
}

impl Switch {
    /// Attaches both.
    ///
    /// # Errors
    /// The kernel's, of the first that it refuses.
    pub fn on(&self) -> Result<(), String> {
        let mut ebpf = lock(&self.ebpf);
        let mut links = lock(&self.links);
        for (name, tracepoint) in PROGRAMS {
            let attach = |program: &mut RawTracePoint| {
                let link = program.attach(tracepoint)?;
                program.take_link(link)
            };
            let link = load::raw_tracepoint(&mut ebpf, name).and_then(attach);
            links.push(link.map_err(|error| format!("{tracepoint}: {}", load::chain(&error)))?);
        }
        Ok(())
    }

    /// Detaches them.
    pub fn off(&self) {
        lock(&self.links).clear();
    }
}

/// Loads the programs.
///
/// # Errors
/// What the kernel has against it.
pub(super) fn load(ebpf: &mut Ebpf) -> Result<(), ProgramError> {
    PROGRAMS.iter().try_for_each(|(name, _)| load::raw_tracepoint(ebpf, name)?.load())
}
