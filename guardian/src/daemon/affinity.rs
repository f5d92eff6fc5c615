//! Which CPU the guard thread sleeps on: that of whoever has last made a restore necessary.
//!
//! A real-time thread wakes where it has run last (`select_task_rq_rt` of `kernel/sched/rt.c`). Where that is another CPU
//! than the one that a change is made on it is idle as a rule, has to be called out of its halt, and has nothing of the
//! route in its caches; on the same one the guard's turn comes when the system call that made the change ends. Whoever
//! takes routes does so more than once as a rule, and the kernel leaves programs where they are.
//!
//! Who takes many at once does so faster than they are put back, and is not followed meanwhile: on two CPUs both get on.

use std::time::Duration;

use rustix::{
    io,
    thread::{CpuSet, sched_getaffinity, sched_getcpu, sched_setaffinity},
};

use crate::model::Stamp;

/// Who has made no change for so long is not in the middle of more.
const QUIET: Duration = Duration::from_millis(5);

/// Where the guard thread should sleep.
#[derive(Debug, Default)]
pub struct Affinity {
    /// When somebody made the last change.
    last: Option<Stamp>,
    /// Where that was, if it may have to be undone.
    heard: Option<u32>,
    /// Where a change was made that was undone.
    undone: Option<u32>,
}

impl Affinity {
    /// Somebody has made a change, on that CPU.
    pub const fn heard(&mut self, at: Stamp, cpu: Option<u32>) {
        self.last = Some(at);
        self.heard = cpu;
    }

    /// What was heard of is being undone.
    pub const fn undoes(&mut self) {
        if self.heard.is_some() {
            self.undone = self.heard.take();
        }
    }

    /// Whether there is somewhere to move to, but not yet.
    pub fn waits(&self, now: Stamp) -> bool {
        self.undone.is_some() && self.last.is_some_and(|last| now.since(last) < QUIET)
    }

    /// Moves nowhere.
    pub const fn stay(&mut self) {
        self.heard = None;
        self.undone = None;
    }

    /// Moves the calling thread to where the last change was made that was undone, to be woken there. It may run wherever
    /// it could before: what its service manager, its container or an operator has given it.
    ///
    /// # Errors
    /// The kernel's: where a CPU has gone since, or is no longer the container's. The thread stays where it is then.
    pub fn settle(&mut self) -> io::Result<()> {
        let undone = self.undone;
        self.stay();
        let Some(cpu) = undone else { return Ok(()) };
        let allowed = sched_getaffinity(None)?;
        if let Some(there) = only(cpu, sched_getcpu(), &allowed) {
            sched_setaffinity(None, &there)?;
            // It is there, and stays until there is a reason to go: this alone moves nobody.
            sched_setaffinity(None, &allowed)?;
        }
        Ok(())
    }
}

/// That CPU alone, where it is another one and allowed.
fn only(cpu: u32, here: usize, allowed: &CpuSet) -> Option<CpuSet> {
    let cpu = usize::try_from(cpu).ok().filter(|cpu| *cpu < CpuSet::MAX_CPU)?;
    (cpu != here && allowed.is_set(cpu)).then(|| {
        let mut set = CpuSet::new();
        set.set(cpu);
        set
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn set(cpus: &[usize]) -> CpuSet {
        let mut set = CpuSet::new();
        for cpu in cpus {
            set.set(*cpu);
        }
        set
    }

    /// Where the thread is afterwards: an ordinary thread may be moved at any time, so that it may take more than one try.
    fn goes(cpu: usize) -> bool {
        let mut affinity = Affinity::default();
        (0..100).any(|_| {
            affinity.heard(Stamp(0), Some(cpu as u32));
            affinity.undoes();
            affinity.settle().unwrap();
            sched_getcpu() == cpu
        })
    }

    #[test]
    fn it_goes_to_every_cpu_and_may_run_on_all_of_them_then() {
        let allowed = sched_getaffinity(None).unwrap();
        for cpu in (0..CpuSet::MAX_CPU).filter(|cpu| allowed.is_set(*cpu)) {
            assert!(goes(cpu), "{cpu} of {allowed:?}");
            assert_eq!(sched_getaffinity(None).unwrap(), allowed);
        }
    }

    #[test]
    fn it_goes_nowhere_that_it_may_not_run_or_that_there_is_not() {
        assert_eq!(only(3, 1, &set(&[1, 3])), Some(set(&[3])));
        assert_eq!(only(3, 3, &set(&[1, 3])), None, "it is there");
        assert_eq!(only(2, 1, &set(&[1, 3])), None, "not allowed");
        for cpu in [u32::MAX, CpuSet::MAX_CPU as u32] {
            assert_eq!(only(cpu, 1, &set(&[1, 3])), None);
        }
    }

    #[test]
    fn what_is_not_undone_moves_nobody() {
        let mut affinity = Affinity::default();
        affinity.heard(Stamp(0), Some(0));
        affinity.settle().unwrap();
        affinity.undoes();
        assert_eq!(affinity.undone, None);
        affinity.heard(Stamp(1), Some(1));
        affinity.undoes();
        affinity.heard(Stamp(2), Some(2));
        affinity.undoes();
        // A restore that nobody was heard for.
        affinity.undoes();
        assert_eq!(affinity.undone, Some(2), "the last");
    }

    #[test]
    fn who_is_at_it_is_not_followed_yet() {
        let mut affinity = Affinity::default();
        let at = Stamp(1_000_000_000);
        affinity.heard(at, Some(1));
        assert!(!affinity.waits(at), "nothing is undone");
        affinity.undoes();
        assert!(affinity.waits(at) && affinity.waits(at.after(QUIET / 2)));
        affinity.heard(at.after(QUIET), None);
        assert!(affinity.waits(at.after(QUIET)), "the next change");
        assert!(!affinity.waits(at.after(QUIET * 2)));
        affinity.stay();
        assert!(!affinity.waits(at.after(QUIET)));
    }
}
