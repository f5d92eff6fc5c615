//! Other mount, pid and network namespaces.

use std::{os::fd::AsRawFd as _, process::Command, time::Duration};

use anyhow::{Result, ensure};
use lab::{Lab, tethered, wait_for};

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

/// Root of a user namespace may change routes only in network namespaces that belong to it, as rootless containers have
/// them: the guardian, who is root of all, guards such a one.
#[test]
fn root_of_a_user_namespace() -> Result<()> {
    let lab = Lab::new()?;
    let own = std::fs::read_link("/proc/self/ns/user")?;
    let holder =
        tethered(Command::new("unshare").args(["--user", "--map-root-user", "--net", "sleep", "100"]))?;
    let namespace = |name: &str| format!("/proc/{}/ns/{name}", holder.pid());
    wait_for("the namespaces", Duration::from_secs(5), || Ok(std::fs::read_link(namespace("user"))? != own))?;
    wait_for("sleep", Duration::from_secs(5), || {
        Ok(std::fs::read_to_string(format!("/proc/{}/comm", holder.pid()))?.trim() == "sleep")
    })?;
    let net = std::fs::File::open(namespace("net"))?;
    // SAFETY: a namespace descriptor that is open; only this thread moves.
    let moved = unsafe { libc::setns(net.as_raw_fd(), libc::CLONE_NEWNET) };
    ensure!(moved == 0, "{}", std::io::Error::last_os_error());
    lab.ip("link set lo up")?;
    lab.links()?;
    lab.kube_routes()?;
    let guardian = lab.guardian().args("--mode observe").start()?;
    let enter = format!("nsenter --user={} --net={}", namespace("user"), namespace("net"));
    shell(&lab, &format!("exec {enter} ip route del {KEY}"))?;
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
