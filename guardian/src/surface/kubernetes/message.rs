//! The words of an Event: what, by whom, what came of it, and how to stop it for good.

use std::time::Duration;

use crate::{
    knowledge,
    model::{
        ActorClass,
        record::{ActorRecord, Change, EventRecord, ObjectKind, Outcome, Verdict},
    },
    surface::text::{actor_name, change_words, clean, human_duration, object_text, process_name},
};

/// The most bytes of a message: as many as `events.k8s.io/v1` takes of a note.
const MESSAGE_MAX: usize = 1024;

/// Whether a change becomes an Event: not the owner's own, and not what nobody waits for, such as the cable of a pod
/// that has ended.
pub(super) fn is_told(event: &EventRecord) -> bool {
    event.verdict != Verdict::Owner && event.outcome != Outcome::Allowed && !event.let_go
}

/// Whether the object is not back: an Event of type `Warning`, and else of type `Normal`.
pub(super) const fn is_warning(outcome: Outcome) -> bool {
    !matches!(outcome, Outcome::Restored | Outcome::AlreadyPresent)
}

/// What happened, as the API wants it: a word in `CamelCase`, such as `RouteDeleted` or `LinkDown`.
pub(super) fn reason(event: &EventRecord) -> String {
    let kind = match event.object.kind {
        ObjectKind::Link => "Link",
        ObjectKind::Address => "Address",
        ObjectKind::Route => "Route",
        ObjectKind::Rule => "Rule",
        ObjectKind::Nexthop => "Nexthop",
    };
    let change = match event.change {
        Change::Deleted => "Deleted",
        Change::Replaced => "Replaced",
        Change::Changed => "Changed",
        Change::Down => "Down",
    };
    format!("{kind}{change}")
}

/// Who it was, whichever process of it: `systemd-networkd (systemd-networkd.service)`, `ip of tidy.sh (cron.service)`.
/// Not its arguments, which may hold what not everybody is to read who may read Events.
pub(super) fn who(actor: &ActorRecord) -> String {
    if actor.pid.is_none() {
        return actor_name(actor);
    }
    let mut name = process_name(actor.exe.as_deref(), &actor.comm);
    let parent = actor.ancestors.first().filter(|_| actor.class == ActorClass::Iproute2);
    if let Some(parent) = parent {
        name = format!("{name} of {}", process_name(parent.exe.as_deref(), &parent.comm));
    }
    let pod = actor.pod_namespace.as_ref().zip(actor.pod_name.as_ref());
    match (pod, &actor.unit) {
        (Some((namespace, pod)), _) => format!("{name} (pod {}/{})", clean(namespace), clean(pod)),
        (None, Some(unit)) => format!("{name} ({})", clean(unit)),
        (None, None) => name,
    }
}

/// The message of an Event that tells of `count` changes, of which this is the last.
pub(super) fn message(event: &EventRecord, count: u64) -> String {
    let what =
        format!("{} {} by {}", object_text(&event.object), change_words(event.change), who(&event.actor));
    let last = if count > 1 { format!(" (the last of {count})") } else { String::new() };
    let outage = event
        .outage_us
        .map(|us| format!(" after {}", human_duration(Duration::from_micros(us))))
        .unwrap_or_default();
    let why = event.error.as_deref().map(|error| format!(" ({})", clean(error))).unwrap_or_default();
    let result = match event.outcome {
        Outcome::Restored => format!("restored{outage}"),
        Outcome::AlreadyPresent => format!("back{outage}, by somebody else"),
        Outcome::Observed => "not restored: the guardian only observes".into(),
        Outcome::Held => format!("held back{why}"),
        Outcome::Failed | Outcome::Allowed => format!("not restored{why}"),
    };
    // The end is what helps: the middle makes room for it.
    let end = format!(". {}", remedy(event));
    let mut text = format!("{what}{last}: {result}");
    let room = MESSAGE_MAX.saturating_sub(end.len());
    if text.len() > room {
        let cut = (0..=room.saturating_sub('…'.len_utf8())).rev().find(|at| text.is_char_boundary(*at));
        text.truncate(cut.unwrap_or_default());
        text.push('…');
    }
    text + &end
}

fn remedy(event: &EventRecord) -> String {
    let explain = format!("`route-guardian explain {}` on this node", event.id);
    match knowledge::find(&event.actor).filter(|_| event.actor.pid.is_some()) {
        Some(program) if program.class != Some(ActorClass::Iproute2) => {
            format!("What stops {} for good: {explain}", program.name)
        }
        Some(_) => format!("What started it, to stop it for good: {explain}"),
        None => format!("What is known of it: {explain}"),
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::surface::sample;

    #[test]
    fn it_says_what_by_whom_what_came_of_it_and_how_to_stop_it() {
        let event = sample::networkd(1);
        assert_eq!(reason(&event), "RouteDeleted");
        assert_eq!(
            message(&event, 1),
            "10.244.2.0/24 via 10.0.0.11 dev eth0 proto 17 deleted by systemd-networkd (systemd-networkd.service): \
             restored after 71 µs. What stops systemd-networkd for good: `route-guardian explain \
             01JD0000000000000000000001` on this node"
        );
        let held = message(&sample::script(1), 7);
        for part in [
            " deleted by ip of tidy.sh (cron.service) (the last of 7): held back (undone 5 times by the same actor; ",
            ". What started it, to stop it for good: `route-guardian explain 01JD",
        ] {
            assert!(held.contains(part), "{held}");
        }
        assert!(!held.contains("flush"), "arguments are told: {held}");
        assert!(is_warning(Outcome::Held) && !is_warning(Outcome::Restored));
        assert!(message(&sample::nobody(1), 1).contains("What is known of it: "));
    }

    #[test]
    fn nobody_is_told_of_what_the_owner_did_or_nobody_waits_for() {
        let mut event = sample::networkd(1);
        assert!(is_told(&event));
        event.let_go = true;
        assert!(!is_told(&event));
        (event.let_go, event.verdict, event.outcome) = (false, Verdict::Owner, Outcome::Allowed);
        assert!(!is_told(&event));
    }

    #[test]
    fn other_peoples_text_makes_it_neither_too_long_nor_unreadable() {
        let mut event = sample::networkd(1);
        event.object.text = "é".repeat(2000);
        let actor = Arc::make_mut(&mut event.actor);
        actor.exe = Some("/bin/a\nb".into());
        let text = message(&event, 1);
        assert!(text.len() <= MESSAGE_MAX && text.contains('…') && text.ends_with("on this node"), "{text}");
        event.object.text = "10.0.0.0/8".into();
        let text = message(&event, 1);
        assert!(text.contains("a\\u{a}b") && !text.contains('\n'), "{text}");
    }
}
