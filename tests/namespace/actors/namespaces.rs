//! Other mount, pid and network namespaces.

use std::process::Command;

use anyhow::Result;

use super::{KEY, Truth, by_shell, lost, run, shell, watched};

by_shell! {
    a_pid_namespace: format!("unshare --pid --fork ip route del {KEY}") => Truth::ip()?;
    a_pid_namespace_with_its_own_proc: format!("unshare --pid --fork --mount-proc ip route del {KEY}") => Truth::ip()?;
    the_shell_of_a_pid_namespace: format!("unshare --pid --fork sh -c 'ip route del {KEY}; :'") => Truth::ip()?;
    other_names_and_messages: format!("unshare --uts --ipc ip route del {KEY}") => Truth::ip()?;
    a_cgroup_namespace: format!("unshare --cgroup ip route del {KEY}") => Truth::ip()?;
}

/// The path is the one that the actor itself would give.
#[test]
fn a_program_in_another_mount_namespace() -> Result<()> {
    let (lab, guardian) = watched()?;
    lab.copy("ip", "hidden/ip")?;
    shell(
        &lab,
        &format!(
            "exec unshare --mount sh -c 'mount --bind $DIR/hidden /mnt && exec /mnt/ip route del {KEY}'"
        ),
    )?;
    let event = lost(&guardian)?;
    Truth::new("/mnt/ip", &["/mnt/ip", "route", "del", KEY]).check(&event);
    Ok(())
}

/// A root of another filesystem, as containers have it.
#[test]
fn a_program_below_another_root() -> Result<()> {
    let (lab, guardian) = watched()?;
    let script = format!(
        "mount -t tmpfs none $DIR && cd $DIR && mkdir -p old usr etc && mount --rbind /usr usr && \
         for name in bin sbin lib lib64; do ln -s usr/$name $name; done && \
         pivot_root . old && exec /usr/bin/env PATH=/usr/sbin:/usr/bin:/sbin:/bin ip route del {KEY}"
    );
    run(Command::new("unshare").args(["--mount", "sh", "-c", &script]).env("DIR", lab.dir()))?;
    Truth::ip()?.check(&lost(&guardian)?);
    Ok(())
}

#[test]
fn one_who_enters_from_outside() -> Result<()> {
    let (lab, guardian) = watched()?;
    // SAFETY: takes nothing and always succeeds.
    let thread = unsafe { libc::gettid() };
    // The first thread of the tests has made no namespace.
    let outside = std::process::id();
    let inside = format!("/proc/{outside}/task/{thread}/ns/net");
    shell(
        &lab,
        &format!("exec nsenter --net=/proc/{outside}/ns/net nsenter --net={inside} ip route del {KEY}"),
    )?;
    Truth::ip()?.check(&lost(&guardian)?);
    Ok(())
}
