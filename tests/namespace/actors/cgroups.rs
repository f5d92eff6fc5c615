//! Units, containers and pods, by the cgroups that systemd and the runtimes make.

use std::{fs, path::PathBuf, process::id, thread, time::Duration};

use anyhow::{Context, Result};
use lab::Event;

use super::{KEY, Truth, lost, shell, watched};

const ID: &str = "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef";
const POD: &str = "8dbc5577-d0e2-4706-8787-57d52c03ddf2";
const POD_: &str = "8dbc5577_d0e2_4706_8787_57d52c03ddf2";

/// Where the unified hierarchy is mounted.
fn hierarchy() -> Result<PathBuf> {
    let mounts = fs::read_to_string("/proc/self/mounts")?;
    let line = mounts.lines().find(|line| line.split(' ').nth(2) == Some("cgroup2"));
    Ok(line.and_then(|line| line.split(' ').nth(1)).context("no cgroup2 is mounted")?.into())
}

/// A cgroup below one of this test's own, all removed at the end.
struct Cgroup {
    top: PathBuf,
    path: PathBuf,
}

impl Cgroup {
    fn new(name: &str, path: &str) -> Result<Self> {
        let top = hierarchy()?.join(format!("actors-{}-{name}.slice", id()));
        let path = top.join(path.trim_start_matches('/'));
        fs::create_dir_all(&path)?;
        Ok(Self { top, path })
    }

    fn remove(&self) {
        for folder in self.path.ancestors().take_while(|folder| folder.starts_with(&self.top)) {
            let _ = fs::remove_dir(folder);
        }
    }
}

impl Drop for Cgroup {
    fn drop(&mut self) {
        self.remove();
    }
}

/// Who takes the route away in this cgroup, and stays until it is told, or is gone with its cgroup.
fn within(name: &str, path: &str, gone: bool) -> Result<Event> {
    let cgroup = Cgroup::new(name, path)?;
    let (lab, guardian) = watched()?;
    let procs = cgroup.path.join("cgroup.procs");
    shell(&lab, &format!("echo $$ >'{}' && exec ip route del {KEY}", procs.display()))?;
    if gone {
        // As long as a service manager takes to hear of it, and less than a record waits to be made.
        thread::sleep(Duration::from_millis(2));
        cgroup.remove();
    }
    let event = lost(&guardian)?;
    Truth::ip()?.check(&event);
    if !gone {
        assert!(event.text("/actor/cgroup").ends_with(path), "{event}");
    }
    Ok(event)
}

macro_rules! containers {
    ($($name:ident: $path:expr, $runtime:literal, $pod:expr;)*) => {$(
        #[test]
        fn $name() -> Result<()> {
            let event = within(stringify!($name), &$path, false)?;
            assert_eq!(event.text("/actor/container"), ID, "{event}");
            assert_eq!(event.text("/actor/runtime"), $runtime, "{event}");
            assert_eq!(event.text("/actor/pod"), $pod, "{event}");
            Ok(())
        }
    )*};
}

containers! {
    containerd_by_systemd: format!("/kubepods.slice/kubepods-burstable.slice/kubepods-burstable-pod{POD_}.slice/cri-containerd-{ID}.scope"), "containerd", POD;
    cri_o_by_systemd: format!("/kubepods.slice/kubepods-besteffort.slice/kubepods-besteffort-pod{POD_}.slice/crio-{ID}.scope"), "cri-o", POD;
    docker_by_systemd: format!("/system.slice/docker-{ID}.scope"), "docker", "";
    podman_by_systemd: format!("/machine.slice/libpod-{ID}.scope/container"), "podman", "";
    // What the path does not say of the runtime, nothing on this machine does.
    a_pod_by_cgroupfs: format!("/kubepods/burstable/pod{POD}/{ID}"), "", POD;
    cri_o_by_cgroupfs: format!("/kubepods/besteffort/pod{POD}/crio-{ID}"), "cri-o", POD;
    docker_by_cgroupfs: format!("/docker/{ID}"), "docker", "";
    podman_by_cgroupfs: format!("/libpod_parent/libpod-{ID}"), "podman", "";
}

macro_rules! units {
    ($($name:ident: $path:literal, $unit:literal;)*) => {$(
        #[test]
        fn $name() -> Result<()> {
            let event = within(stringify!($name), $path, false)?;
            assert_eq!(event.text("/actor/unit"), $unit, "{event}");
            assert!(event.text("/actor/slice").ends_with(".slice"), "{event}");
            Ok(())
        }
    )*};
}

units! {
    a_service: "/system.slice/cron.service", "cron.service";
    a_template: r"/system.slice/system-serial\x2dgetty.slice/serial-getty@ttyS0.service", "serial-getty@ttyS0.service";
    a_session: "/user.slice/user-1000.slice/session-3.scope", "session-3.scope";
}

/// The actor is as certain when its cgroup is gone, and so is the unit: it is looked up before anything waits.
#[test]
fn a_cgroup_that_is_removed_at_once() -> Result<()> {
    let mut event = within("removed", "/system.slice/short.service", true)?;
    // On a busy machine the guardian may come too late once: without the look before it sleeps it does each time.
    for again in 1..3 {
        if event.text("/actor/unit").is_empty() {
            event = within(&format!("removed-{again}"), "/system.slice/short.service", true)?;
        }
    }
    assert_eq!(event.text("/actor/unit"), "short.service", "{event}");
    Ok(())
}
