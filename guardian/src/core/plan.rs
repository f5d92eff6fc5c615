//! What is to be written to the kernel, and what came of it.

use crate::model::Object;

/// One write to the kernel. Pure data: the executor interprets it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Action {
    /// Put a missing object back: `NLM_F_CREATE | NLM_F_EXCL`, so that what somebody has put there
    /// meanwhile wins. A link comes back with its ifindex, a port to its master.
    Add(Object),
    /// Put a missing route back beside others of the same key: `NLM_F_CREATE | NLM_F_APPEND`.
    Append(Object),
    /// Put a missing IPv4 route back before others of the same key, where it was: `NLM_F_CREATE` alone.
    Prepend(Object),
    /// Undo a change: `NLM_F_REPLACE` alone, so that what the owner has withdrawn meanwhile is not
    /// created again. Of a link only what differs is set.
    Replace(Object),
    /// Take away what the guardian itself wrote after its owner had withdrawn it, or what stands in the way of
    /// the right order (a secondary address that was promoted).
    Remove(Object),
}

impl Action {
    /// The object it is about.
    pub const fn object(&self) -> &Object {
        match self {
            Self::Add(object)
            | Self::Append(object)
            | Self::Prepend(object)
            | Self::Replace(object)
            | Self::Remove(object) => object,
        }
    }

    /// The word for people: `add`, `append`, `prepend`, `replace`, `remove`.
    pub const fn verb(&self) -> &'static str {
        match self {
            Self::Add(_) => "add",
            Self::Append(_) => "append",
            Self::Prepend(_) => "prepend",
            Self::Replace(_) => "replace",
            Self::Remove(_) => "remove",
        }
    }
}

/// What came of an action.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Applied {
    /// The kernel did it, and what it says it holds now (its echo of the request) is what was asked.
    Verified,
    /// The kernel did it, but holds something else than what was asked, or did not say what.
    Differs(Option<Object>),
    /// `EEXIST`: somebody else has put an object of this key there.
    Exists,
    /// `ESRCH` to a removal, `ENOENT` or `ENODEV` to a replace: there is nothing of this key.
    Gone,
    /// The kernel refused.
    Refused {
        /// The error number, positive.
        errno: i32,
        /// The kernel's own words (`NLMSGERR_ATTR_MSG`), where it had any.
        message: Option<String>,
    },
}
