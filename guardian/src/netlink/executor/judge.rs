//! What the kernel's answer means for an action.

use crate::{
    core::plan::{Action, Applied},
    model::{Family, Notice, Object, Route},
    netlink::wire::Answer,
};

/// `lost` tells why there is no answer where there is none.
pub(super) fn judge(action: &Action, answer: Answer, lost: &str) -> Applied {
    let removal = matches!(action, Action::Remove(_));
    let replacement = matches!(action, Action::Replace(_));
    match answer.ack {
        None => Applied::Refused { errno: libc::ENOBUFS, message: Some(lost.to_owned()) },
        Some((0, _)) if removal => removed(action.object(), answer.echoes),
        Some((0, _)) => written(action, answer.echoes),
        Some((libc::EEXIST, _)) if !removal => Applied::Exists,
        Some((libc::ESRCH | libc::ENOENT | libc::EADDRNOTAVAIL | libc::ENODEV, _)) if removal => {
            Applied::Gone
        }
        // Of a route ENODEV says that its link is not there.
        Some((libc::ENOENT, _)) if replacement => Applied::Gone,
        Some((errno, message)) => Applied::Refused { errno, message },
    }
}

/// Compares what the kernel says it holds with what was asked.
fn written(action: &Action, echoes: Vec<Notice>) -> Applied {
    let asked = action.object();
    let held = echoes.into_iter().rev().find_map(|echo| match echo {
        Notice::Set { object, .. } if answers(asked, &object) => Some(object),
        _ => None,
    });
    let Some(held) = held else { return Applied::Differs(None) };
    let joined = match (action, &held) {
        (Action::Append(Object::Route(asked)), Object::Route(held)) => joined(asked, held),
        _ => false,
    };
    if joined || asked.same(&held) { Applied::Verified } else { Applied::Differs(Some(held)) }
}

/// Whether an object of the kernel's answer is the one that was asked for, as it now is. A request brings the
/// notifications of its side effects along: addresses that follow another, groups that lose a member.
fn answers(asked: &Object, object: &Object) -> bool {
    match (asked, object) {
        (Object::Route(_), Object::Route(_)) | (Object::Rule(_), Object::Rule(_)) => true,
        _ => asked.key() == object.key(),
    }
}

/// Whether an IPv6 route has got the legs that were appended: it comes back with all that it now has.
fn joined(asked: &Route, held: &Route) -> bool {
    asked.family() == Family::Inet6
        && asked.legs.iter().all(|leg| held.legs.contains(leg))
        && asked.same(&Route { legs: asked.legs.clone(), ..held.clone() })
}

/// Compares what the kernel says it removed with what was asked.
fn removed(asked: &Object, echoes: Vec<Notice>) -> Applied {
    let mut gone = echoes.into_iter().filter_map(|echo| match echo {
        Notice::Gone { object } if answers(asked, &object) => Some(object),
        _ => None,
    });
    match asked {
        Object::Route(asked) => route_removed(asked, gone),
        // Not echoed, and looked up by all that makes it up.
        Object::Address(address) if address.key.family() == Family::Inet6 => Applied::Verified,
        // Looked up by its key alone: what else it was does not matter.
        Object::Address(_) | Object::Nexthop(_) => match gone.next_back() {
            Some(_) => Applied::Verified,
            None => Applied::Differs(None),
        },
        _ => match gone.next_back() {
            Some(gone) if asked.same(&gone) => Applied::Verified,
            gone => Applied::Differs(gone),
        },
    }
}

/// A removed route is echoed whole, or one IPv6 leg at a time.
fn route_removed(asked: &Route, echoes: impl Iterator<Item = Object>) -> Applied {
    let mut gone: Option<Route> = None;
    for object in echoes {
        let Object::Route(route) = object else { continue };
        match &mut gone {
            None => gone = Some(route),
            Some(gone) => {
                gone.legs.extend(route.legs);
                gone.legs.sort();
            }
        }
    }
    match gone {
        Some(gone) if unweighted(asked).same(&unweighted(&gone)) => Applied::Verified,
        gone => Applied::Differs(gone.map(Object::Route)),
    }
}

/// An IPv6 route as the echo of its removal shows it: leg by leg, each like a route of its own, where
/// `rtm_flags` stand for the leg's flags and a weight has no place.
fn unweighted(route: &Route) -> Route {
    let mut route = route.clone();
    if route.family() == Family::Inet6 {
        route.flags = 0;
        for leg in &mut route.legs {
            (leg.hops, leg.flags) = (0, 0);
        }
        route.legs.sort();
    }
    route
}
