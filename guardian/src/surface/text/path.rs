//! By which path the kernel lost an object, in words.

use crate::model::record::{Cause, Change, ObjectKind};

/// By which path the kernel lost the object, or changed it.
pub(super) fn lost_by(kind: ObjectKind, change: Change, cause: Cause) -> String {
    let (what, many) = match kind {
        ObjectKind::Link => ("link", "links"),
        ObjectKind::Address => ("address", "addresses"),
        ObjectKind::Route => ("route", "routes"),
        ObjectKind::Rule => ("rule", "rules"),
        ObjectKind::Nexthop => ("nexthop object", "nexthop objects"),
    };
    match cause {
        Cause::Request => match change {
            Change::Deleted => "It was deleted on request.".into(),
            Change::Replaced => format!("Another {what} was put in its place, on request."),
            Change::Changed => "It was changed on request.".into(),
            Change::Down => "It was taken down on request.".into(),
        },
        Cause::Replace => format!("Another {what} was put in its place, on request."),
        Cause::LinkDown if kind == ObjectKind::Route => {
            "Its link went down, and the kernel drops the IPv4 routes of such a link without a word on each.".into()
        }
        Cause::LinkDown if kind == ObjectKind::Address => {
            "Its link went down, and the kernel drops the IPv6 addresses of such a link, unless keep_addr_on_down is \
             set."
                .into()
        }
        Cause::LinkDown if kind == ObjectKind::Link => "The link that it depends on went down.".into(),
        Cause::LinkRemoved if kind == ObjectKind::Link => {
            "The link below it, or the bridge that it was a port of, was deleted, and the kernel took it along.".into()
        }
        Cause::LinkDown => format!("Its link went down, and the kernel drops the {many} of such a link."),
        Cause::LinkRemoved => format!("Its link was deleted, and the kernel drops the {many} of such a link."),
        Cause::AddressRemoved if kind == ObjectKind::Address => {
            "It was secondary to an address that was removed, and the kernel drops such addresses with it, unless \
             promote_secondaries is set."
                .into()
        }
        Cause::AddressRemoved => format!(
            "An address that it depends on was removed: its preferred source, or the last one of its link; the \
             kernel drops such {many} with it."
        ),
        Cause::NexthopRemoved => {
            "The nexthop object that it refers to was removed, and the kernel drops it with it.".into()
        }
        Cause::Kernel => "The kernel did it by itself: no program asked.".into(),
        Cause::Unknown if matches!(change, Change::Deleted) => {
            "Nobody saw it go: it was found missing when the state was read again.".into()
        }
        Cause::Unknown => "Nobody saw it change: it was found so when the state was read again.".into(),
    }
}
