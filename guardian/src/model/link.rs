//! Network interfaces, as far as routes need them.

use std::collections::HashMap;

/// `IFF_UP` of `include/uapi/linux/if.h`.
const IFF_UP: u32 = 1;

/// A network interface of the guarded namespace.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Link {
    /// The kernel's `ifindex`, always above zero.
    pub index: u32,
    /// The name, at most 15 bytes; bytes that are not UTF-8 are replaced.
    pub name: String,
    /// `ifi_flags`: `IFF_UP` and the others.
    pub flags: u32,
}

impl Link {
    /// Whether it is administratively up.
    pub const fn is_up(&self) -> bool {
        self.flags & IFF_UP != 0
    }
}

/// Names of removed links that are remembered, so that their routes can still be told by name.
const GONE: usize = 1024;

/// The interfaces of the namespace by ifindex.
#[derive(Clone, Debug, Default)]
pub struct Links {
    present: HashMap<u32, Link>,
    gone: HashMap<u32, String>,
}

impl Links {
    /// The link with this ifindex.
    pub fn get(&self, index: u32) -> Option<&Link> {
        self.present.get(&index)
    }

    /// The name of the link with this ifindex, also of one that is gone, or `if<index>`, the form that `ip`
    /// uses for links it cannot name.
    pub fn name(&self, index: u32) -> String {
        let name = self.get(index).map(|link| &link.name).or_else(|| self.gone.get(&index));
        name.cloned().unwrap_or_else(|| format!("if{index}"))
    }

    /// Records a link as it is now; returns what was known of it.
    pub fn set(&mut self, link: Link) -> Option<Link> {
        self.gone.remove(&link.index);
        self.present.insert(link.index, link)
    }

    /// Forgets a link; returns what was known of it.
    pub fn remove(&mut self, index: u32) -> Option<Link> {
        let link = self.present.remove(&index)?;
        if self.gone.len() >= GONE {
            self.gone.clear();
        }
        self.gone.insert(index, link.name.clone());
        Some(link)
    }

    /// All links, in no particular order.
    pub fn iter(&self) -> impl Iterator<Item = &Link> {
        self.present.values()
    }
}

impl FromIterator<Link> for Links {
    fn from_iter<I: IntoIterator<Item = Link>>(links: I) -> Self {
        let present = links.into_iter().map(|link| (link.index, link)).collect();
        Self { present, gone: HashMap::new() }
    }
}
