//! What outlives a restart of the guardian: the desired state, saved and compared.

use std::{path::PathBuf, sync::Arc};

use tokio::task::{JoinHandle, spawn_blocking};

use super::{
    answer::netns,
    clock,
    saved::{self, Debounce, Line, Origin},
};
use crate::{
    config::{Config, OnStart},
    core::Scope,
    model::{Link, Links, Notice, Object, Stamp, record::difference},
    netlink::{decode, frames, message},
};

/// Differences that are told one by one.
const TOLD: usize = 20;

/// Saves the desired state, and knows what was saved before.
pub struct Restart {
    dir: PathBuf,
    profile: String,
    debounce: Debounce,
    writing: Option<JoinHandle<()>>,
    /// What the last run desired, to be compared with the first dump; empty where it is put back.
    before: Vec<Object>,
}

impl Restart {
    /// Reads what the last run has saved, as the configuration wants it: the second part is to be put back.
    pub fn new(config: &Config, scope: &Scope) -> (Self, Vec<Object>) {
        let here = origin(config.profile.clone());
        let read = saved::read(&config.state.dir, &here, object);
        let mut objects = Vec::new();
        match read {
            Ok(read) => {
                for line in &read.damaged {
                    log::warn!("{line}; it is left out");
                }
                objects.extend(read.objects.into_iter().filter_map(|object| as_guarded(object, scope)));
            }
            Err(error) if error.is_trouble() => log::warn!("{error}"),
            Err(error) => log::debug!("{error}"),
        }
        let (before, preset) = match config.restore.on_start {
            OnStart::Adopt => (objects, Vec::new()),
            OnStart::Restore => (Vec::new(), objects),
        };
        let (dir, profile) = (config.state.dir.clone(), config.profile.clone());
        (Self { dir, profile, debounce: Debounce::default(), writing: None, before }, preset)
    }

    /// Tells, after the first dump, what was desired before the restart and is not there now. It is not guarded any
    /// longer: that its owner took it away meanwhile is as likely as that somebody else did.
    pub fn compare(&mut self, now: &[Arc<Object>], links: &Links) {
        let before = std::mem::take(&mut self.before);
        let lost: Vec<&Object> =
            before.iter().filter(|object| !now.iter().any(|held| held.key() == object.key())).collect();
        tell_different(&before, now, links);
        if lost.is_empty() {
            return;
        }
        log::warn!(
            "{} objects that were guarded before the restart are gone, and are not put back (restore.on_start \
             = \"adopt\"):",
            lost.len()
        );
        for object in lost.iter().take(TOLD) {
            log::warn!("  {} {}", object.key().kind(), object.text(links));
        }
        if lost.len() > TOLD {
            log::warn!("  and {} more", lost.len() - TOLD);
        }
    }

    /// The desired state has changed.
    pub fn touch(&mut self, now: Stamp) {
        self.debounce.touch(now);
    }

    /// When it is to be saved.
    pub fn deadline(&self) -> Option<Stamp> {
        self.debounce.deadline()
    }

    /// Saves it if it is time, beside the guard loop.
    pub fn save(&mut self, now: Stamp, state: impl FnOnce() -> (Vec<Arc<Object>>, Links)) {
        if self.writing.as_ref().is_some_and(|writing| !writing.is_finished()) || !self.debounce.due(now) {
            return;
        }
        let (objects, links) = state();
        let (dir, origin) = (self.dir.clone(), origin(self.profile.clone()));
        self.writing = Some(spawn_blocking(move || write(&dir, &origin, &objects, &links)));
    }

    /// Saves it at the end, if it has changed.
    pub async fn finish(self, objects: &[Arc<Object>], links: &Links) {
        if let Some(writing) = self.writing {
            // It broke off or it is done.
            let _ = writing.await;
        }
        if !self.debounce.is_pending() {
            return;
        }
        write(&self.dir, &origin(self.profile), objects, links);
    }
}

/// Tells what is there under the same key, but is not what it was.
fn tell_different(before: &[Object], now: &[Arc<Object>], links: &Links) {
    let different: Vec<String> = before
        .iter()
        .filter_map(|object| {
            let held: Vec<_> = now.iter().filter(|held| held.key() == object.key()).collect();
            let first = held.first().filter(|_| !held.iter().any(|held| held.same(object)))?;
            let text = object.text(links);
            let change = difference(&text, &first.text(links))?;
            Some(format!("{} {text}: {change}", object.key().kind()))
        })
        .collect();
    if different.is_empty() {
        return;
    }
    log::warn!(
        "{} objects that were guarded before the restart are different, and are guarded as they are now \
         (restore.on_start = \"adopt\"):",
        different.len()
    );
    for line in different.iter().take(TOLD) {
        log::warn!("  {line}");
    }
    if different.len() > TOLD {
        log::warn!("  and {} more", different.len() - TOLD);
    }
}

fn origin(profile: String) -> Origin {
    let time = clock::rfc3339(clock::wall(clock::now()));
    Origin { boot_id: saved::boot_id(), netns: netns(), profile, time }
}

fn write(dir: &std::path::Path, origin: &Origin, objects: &[Arc<Object>], links: &Links) {
    let lines = objects.iter().filter_map(|object| line(object, links));
    if let Err(error) = saved::write(dir, origin, lines) {
        log::warn!("the desired state is not saved: {error}");
    }
}

/// A membership in a bridge is part of its link's message.
fn line(object: &Object, links: &Links) -> Option<Line> {
    let text = object.text(links);
    let message = match object {
        Object::Port(port) => message(&Object::Link(links.get(port.link)?.clone())),
        object => message(object),
    };
    message.map_err(|error| log::warn!("{text} cannot be saved: {error}")).ok().map(|message| (text, message))
}

fn object(bytes: &[u8]) -> Result<Object, String> {
    let frame = frames(bytes).next().ok_or("there is no message")?.map_err(|error| error.to_string())?;
    match decode(&frame).map_err(|error| error.to_string())? {
        Some(Notice::Set { object, .. }) => Ok(object),
        _ => Err("the message does not tell of an object".into()),
    }
}

/// A link that is not guarded itself was saved for its membership in a bridge.
fn as_guarded(object: Object, scope: &Scope) -> Option<Object> {
    match object {
        Object::Link(Link { name, port, .. }) if !scope.covers_link(&name) => port.map(Object::Port),
        object => Some(object),
    }
}
