//! What the kernel announces: one decoded rtnetlink notification.

use super::object::Object;

/// One notification of the groups that the guardian listens to. A link's message tells of its membership in a
/// bridge as well ([`Link::port`](super::Link::port)).
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Notice {
    /// `RTM_NEW*`.
    Set {
        /// The object as it is now; an IPv6 route with all its legs.
        object: Object,
        /// `NLM_F_REPLACE`: it took the place of what was looked up by the same key.
        replaced: bool,
        /// `NLM_F_APPEND`: it stands beside others of the same key.
        appended: bool,
    },
    /// `RTM_DEL*`. For one leg of an IPv6 multipath route it names that leg only.
    Gone {
        /// What was removed.
        object: Object,
    },
}
