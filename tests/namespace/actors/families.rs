//! Threads, children and orphans.

use anyhow::Result;

use super::{KEY, Truth, by_shell, taken};

by_shell! {
    /// As cron runs a script: two shells above it.
    a_script_of_a_script: format!("sh -c \"sh -c 'ip route del {KEY}; :'; :\"; :") => Truth::ip()?;
    an_orphan_of_a_shell: format!("(sleep 0.2; exec ip route del {KEY}) >/dev/null 2>&1 & exit 0") => Truth::ip()?;
    another_session: format!("setsid --wait ip route del {KEY}") => Truth::ip()?;
    a_nice_one: format!("nice -n 5 ip route del {KEY}") => Truth::ip()?;
}

#[test]
fn a_thread() -> Result<()> {
    let (truth, event, pid) = taken("thread")?;
    truth.check(&event);
    assert!(event.number("/actor/tid").is_some_and(|tid| tid > pid.into()), "{event}");
    Ok(())
}

#[test]
fn a_thread_whose_leader_is_gone() -> Result<()> {
    let (truth, event, pid) = taken("orphaned-thread")?;
    truth.check(&event);
    assert!(event.number("/actor/tid").is_some_and(|tid| tid != u64::from(pid)), "{event}");
    Ok(())
}

/// The child or grandchild did it, not the process that was started.
macro_rules! by_child {
    ($($name:ident: $how:literal;)*) => {$(
        #[test]
        fn $name() -> Result<()> {
            let (truth, event, pid) = taken($how)?;
            truth.check(&event);
            assert_ne!(event.number("/actor/pid"), Some(pid.into()), "{event}");
            assert!(event.ancestors().contains(&pid.into()), "{event}");
            assert_eq!(event.number("/actor/tid"), None, "{event}");
            Ok(())
        }
    )*};
}

by_child! {
    a_fork: "fork";
    a_child_that_shares_memory: "vfork";
    a_daemon_forked_twice: "daemon";
    a_socket_passed_to_another: "passed";
    a_socket_inherited: "inherited";
}

#[test]
fn one_that_is_killed_when_it_has_sent() -> Result<()> {
    let (truth, event, pid) = taken("killed")?;
    truth.pid(pid).check(&event);
    Ok(())
}
