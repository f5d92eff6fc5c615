//! Holding back when an actor keeps undoing our restores.
//!
//! Per actor and object a bucket of `burst` restores, refilled slowly; when it is empty the object is held
//! for `initial`, then twice as long each time, up to `max`. In any window of length *t* an actor gets at
//! most `burst + 1 + t / initial` restores of an object out of us, whatever it does.

use std::{
    hash::{DefaultHasher, Hash, Hasher},
    time::Duration,
};

use crate::model::{Actor, ProcessId, Stamp};

/// The `[damping]` section.
#[derive(Clone, Copy, Debug)]
pub struct Damping {
    /// Restores per actor and object before backing off; at least 1.
    pub burst: u32,
    /// The first hold.
    pub initial: Duration,
    /// The longest hold.
    pub max: Duration,
}

impl Default for Damping {
    fn default() -> Self {
        Self { burst: 5, initial: Duration::from_secs(1), max: Duration::from_secs(300) }
    }
}

impl Damping {
    /// One restore is earned back per ten first holds without a change.
    fn refill(&self) -> Duration {
        self.initial.saturating_mul(10).max(Duration::from_millis(1))
    }

    /// The hold of a level, with up to a tenth more by `salt`, so that a thousand held routes do not all
    /// come back in the same instant.
    fn hold(&self, level: u8, salt: u64) -> Duration {
        let plain =
            self.initial.saturating_mul(1u32.checked_shl(level.into()).unwrap_or(u32::MAX)).min(self.max);
        plain + plain.mul_f64((salt % 1000) as f64 / 10_000.0)
    }
}

/// Who is damped: all runs of one program count as one actor, else a script that starts a new process
/// each time would never be held.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Culprit {
    /// A program, by its executable, or by what it calls itself where that is unknown.
    Program(Box<str>),
    /// The kernel itself.
    Kernel,
    /// Nobody that is known.
    Unknown,
}

impl From<&Actor> for Culprit {
    fn from(actor: &Actor) -> Self {
        match actor {
            Actor::Process { process, .. } => {
                Self::Program(process.exe.as_deref().unwrap_or(&process.comm).into())
            }
            Actor::Kernel { .. } => Self::Kernel,
            Actor::Unknown => Self::Unknown,
        }
    }
}

/// The account of one culprit with one object.
#[derive(Clone, Debug)]
pub struct Account {
    culprit: Culprit,
    /// Restores left, in thousandths.
    left: u64,
    /// Up to when the refill is reckoned.
    reckoned: Stamp,
    /// How many holds in a row.
    level: u8,
    /// The last restore.
    last: Option<Restored>,
    /// How many times in a row the same process has recoiled from the restore, and how fast at its fastest.
    recoils: Option<(u8, Duration)>,
}

/// A restore.
#[derive(Clone, Copy, Debug)]
struct Restored {
    /// Before the request: with others it may have been done long before the answer to the last of them.
    sent: Stamp,
    /// After the answer.
    done: Stamp,
    /// Whose change it undid.
    by: Option<ProcessId>,
}

/// A process that undoes a restore within this time may do so because of it.
const RECOIL: Duration = Duration::from_secs(10);

/// The shortest pause then.
const RECOIL_PAUSE: Duration = Duration::from_millis(100);

/// The longest: who has not finished by then is waited for no longer.
const RECOIL_PAUSE_MAX: Duration = Duration::from_secs(30);

impl Account {
    /// A new account, full.
    pub fn new(culprit: Culprit, settings: &Damping, now: Stamp) -> Self {
        let burst = if culprit == Culprit::Unknown { 1 } else { settings.burst.max(1) };
        Self { culprit, left: u64::from(burst) * 1000, reckoned: now, level: 0, last: None, recoils: None }
    }

    /// Whose it is.
    pub const fn culprit(&self) -> &Culprit {
        &self.culprit
    }

    /// When it was last drawn on.
    pub fn last_use(&self) -> Stamp {
        self.last.map_or(self.reckoned, |last| last.done)
    }

    /// Takes one restore out; else until when to hold.
    pub fn draw(&mut self, settings: &Damping, now: Stamp, salt: &impl Hash) -> Result<(), Stamp> {
        let burst = if self.culprit == Culprit::Unknown { 1 } else { settings.burst.max(1) };
        let earned = now.since(self.reckoned).as_nanos() * 1000 / settings.refill().as_nanos();
        if earned > 0 {
            self.left = self
                .left
                .saturating_add(u64::try_from(earned).unwrap_or(u64::MAX))
                .min(u64::from(burst) * 1000);
            self.reckoned = now;
        }
        if self.left >= u64::from(burst) * 1000 {
            self.level = 0;
        }
        if self.left >= 1000 {
            self.left -= 1000;
            return Ok(());
        }
        let mut hasher = DefaultHasher::new();
        (salt, self.level).hash(&mut hasher);
        let until = now.after(settings.hold(self.level, hasher.finish()));
        self.level = self.level.saturating_add(1);
        // Nothing is earned while held.
        self.reckoned = until;
        Err(until)
    }

    /// Whether the hold that was refused last is the first since the account was full.
    pub const fn is_first_hold(&self) -> bool {
        self.level <= 1
    }

    /// When that hold ends.
    pub const fn held_until(&self) -> Stamp {
        self.reckoned
    }

    /// Remembers a restore after a change by the process `by`, requested after `sent` and answered before `done`.
    pub const fn restored(&mut self, sent: Stamp, done: Stamp, by: Option<ProcessId>) {
        self.last = Some(Restored { sent, done, by });
    }

    /// How long to wait where the same run of the same process undid our last restore, if it may be the restore that
    /// made it do so.
    ///
    /// systemd-networkd forgets a link that leaves a bridge (the kernel says `RTM_DELLINK` of `AF_BRIDGE`, `br_del_if`),
    /// meets it anew when it is in the bridge again, goes through it from the beginning, and takes it out again, without
    /// end. It is content once it has gone through it outside. How long it takes for that it shows when it does so again:
    /// it is waited for half as long again, and twice as long each further time, at most half a minute and `max`. It goes
    /// through all links in turn: with 110 pods that was seen to take 3 s.
    ///
    /// Once is no sign of it: an administrator who restarts networkd and has it read its files again a few seconds later
    /// has it take links twice, and it would be waited for in vain for as long as that was apart.
    pub fn recoil(&mut self, settings: &Damping, at: Stamp, process: ProcessId) -> Option<Duration> {
        let restored = self.last.filter(|last| last.by == Some(process) && last.sent <= at);
        let Some(took) = restored.map(|last| at.since(last.sent)).filter(|&took| took < RECOIL) else {
            self.recoils = None;
            return None;
        };
        let (times, fastest) = self.recoils.unwrap_or((0, took));
        let took = took.min(fastest);
        self.recoils = Some((times.saturating_add(1), took));
        let longer = 1u32.checked_shl(times.checked_sub(1)?.into()).unwrap_or(u32::MAX);
        let pause = (took * 3 / 2).saturating_mul(longer);
        Some(pause.clamp(RECOIL_PAUSE, RECOIL_PAUSE_MAX).min(settings.max))
    }

    /// Whether the pause that [`Account::recoil`] said last is the first.
    pub const fn is_first_recoil(&self) -> bool {
        matches!(self.recoils, Some((2, _)))
    }

    /// Whether the same run of the same process undid our last restore within `window`: it insists.
    pub fn insists(&self, at: Stamp, process: ProcessId, window: Duration) -> bool {
        self.last.is_some_and(|last| last.by == Some(process) && at.since(last.done) < window)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_burst_then_growing_holds() {
        let settings = Damping::default();
        let mut now = Stamp(1);
        let mut account = Account::new(Culprit::Kernel, &settings, now);
        for _ in 0..5 {
            assert!(account.draw(&settings, now, &0).is_ok());
        }
        let mut holds = vec![];
        for _ in 0..12 {
            let until = account.draw(&settings, now, &0).unwrap_err();
            holds.push(until.since(now));
            now = until;
        }
        assert!(holds[0] >= settings.initial && holds[0] < settings.initial.mul_f64(1.11));
        assert!(holds.windows(2).all(|w| w[1] >= w[0].mul_f64(1.7) || w[1] >= settings.max));
        assert!(holds[11] <= settings.max.mul_f64(1.11));
    }

    #[test]
    fn a_quiet_time_forgives() {
        let settings = Damping::default();
        let mut account = Account::new(Culprit::Kernel, &settings, Stamp(0));
        for _ in 0..5 {
            account.draw(&settings, Stamp(0), &0).unwrap();
        }
        assert!(account.draw(&settings, Stamp(0), &0).is_err());
        let later = Stamp(0).after(Duration::from_secs(120));
        for _ in 0..5 {
            assert!(account.draw(&settings, later, &0).is_ok());
        }
    }

    #[test]
    fn who_recoils_is_let_finish() {
        let settings = Damping::default();
        let mut account = Account::new(Culprit::Kernel, &settings, Stamp(0));
        let process = ProcessId { tgid: 7, start_ns: 1 };
        let ms = |ms| Stamp(0).after(Duration::from_millis(ms));
        assert_eq!(account.recoil(&settings, ms(0), process), None, "nothing was restored before");
        let mut now = 1;
        let mut again = |account: &mut Account, settings: &Damping, after: u64| {
            account.restored(ms(now), ms(now), Some(process));
            now += after;
            account.recoil(settings, ms(now), process).map(|pause| pause.as_millis())
        };
        assert_eq!(again(&mut account, &settings, 200), None, "once is no sign of it");
        assert_eq!(again(&mut account, &settings, 200), Some(300));
        assert_eq!(again(&mut account, &settings, 200), Some(600));
        assert_eq!(
            again(&mut account, &settings, 6000),
            Some(1200),
            "for another reason: it is not that slow"
        );
        assert_eq!(again(&mut account, &settings, 18_000), None, "much later");
        assert_eq!(again(&mut account, &settings, 9000), None);
        let short = Damping { max: Duration::from_secs(2), ..settings };
        assert_eq!(again(&mut account, &short, 9000), Some(2000), "and no longer");
        for _ in 0..9 {
            let pause = again(&mut account, &settings, 9000);
            assert!(pause.is_some_and(|pause| pause <= RECOIL_PAUSE_MAX.as_millis()), "{pause:?}");
        }
        let other = ProcessId { tgid: 8, start_ns: 1 };
        account.restored(ms(200_000), ms(200_000), Some(process));
        assert_eq!(account.recoil(&settings, ms(200_001), other), None, "somebody else");
        // With many others: undone before the last of them was there.
        account.restored(ms(300_000), ms(300_400), Some(process));
        assert_eq!(account.recoil(&settings, ms(300_300), process), None);
        account.restored(ms(301_000), ms(301_400), Some(process));
        assert_eq!(account.recoil(&settings, ms(301_300), process), Some(Duration::from_millis(450)));
        account.restored(ms(320_000), ms(320_000), Some(process));
        assert_eq!(account.recoil(&settings, ms(330_000), process), None);
        account.restored(ms(330_000), ms(330_000), Some(process));
        assert_eq!(account.recoil(&settings, ms(330_001), process), None);
        account.restored(ms(330_001), ms(330_001), Some(process));
        assert_eq!(account.recoil(&settings, ms(330_002), process), Some(RECOIL_PAUSE));
    }

    #[test]
    fn the_unknown_get_one() {
        let settings = Damping::default();
        let mut account = Account::new(Culprit::Unknown, &settings, Stamp(0));
        assert!(account.draw(&settings, Stamp(0), &0).is_ok());
        assert!(account.draw(&settings, Stamp(0), &0).is_err());
    }
}
