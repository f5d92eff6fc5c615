//! What systemd-networkd says of a link while it runs.

use crate::{
    model::ProcessId,
    procfs::{Folder, Version},
};

/// How systemd-networkd stands to its links: what it has saved of each last, and nothing of those that it has forgotten
/// (`link_save` and `link_drop` of `src/network`, systemd 246 to 257). It is no interface that anybody promises: who relies
/// on it must do without, too.
pub struct SavedLinks(Folder);

impl SavedLinks {
    /// Those of this process; `None` where it saves nothing.
    pub fn of(process: ProcessId) -> Option<Self> {
        Folder::open(process, "/run/systemd/netif/links").map(Self)
    }

    /// What it has saved of a link, another version each time; `None` where it has forgotten the link.
    pub fn version(&self, link: u32) -> Option<Version> {
        self.0.version(&link.to_string())
    }

    /// Whether it has met a link, and not begun to configure it.
    pub fn is_new(&self, link: u32) -> bool {
        self.0.text(&link.to_string()).is_some_and(|text| is_new(&text))
    }
}

/// `ADMIN_STATE=` is one of `link_state_table` (`src/network/networkd-link.c`).
fn is_new(text: &str) -> bool {
    let state = text.lines().find_map(|line| line.strip_prefix("ADMIN_STATE="));
    matches!(state, Some("pending" | "initialized"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_link_is_new_until_it_is_configured() {
        let text = |state: &str| {
            format!("# This is private data. Do not parse.\nADMIN_STATE={state}\nOPER_STATE=degraded\n")
        };
        for (state, expected) in [
            ("pending", true),
            ("initialized", true),
            ("configuring", false),
            ("configured", false),
            ("unmanaged", false),
            ("failed", false),
            ("linger", false),
            ("", false),
        ] {
            assert_eq!(is_new(&text(state)), expected, "{state}");
        }
        assert!(!is_new(""));
    }
}
