//! Cgroups: from the id that the kernel gives to the path, and from the path to unit, container and pod.

use std::{
    collections::HashMap,
    fs::{self, File},
    io::{BufRead, BufReader},
    os::fd::{AsRawFd, FromRawFd, OwnedFd},
    path::{Path, PathBuf},
    sync::Arc,
};

use crate::{model::ProcessId, procfs};

/// Turns cgroup ids into paths, and remembers them.
pub struct Cgroups {
    /// Where the unified hierarchy is mounted.
    mount: Option<Mount>,
    /// Version 1 hierarchies are mounted too: the unified one may say little about a process.
    hybrid: bool,
    paths: HashMap<u64, Arc<str>>,
}

struct Mount {
    open: File,
    point: PathBuf,
    /// The part of the hierarchy that is mounted, "/" for all of it.
    root: String,
}

impl Cgroups {
    /// How many paths are remembered. When it is full, all are forgotten: to ask again costs microseconds.
    const PATHS: usize = 1024;

    /// Finds the hierarchies in `/proc/self/mountinfo`. Without any, paths come from `/proc/PID/cgroup`
    /// alone.
    pub fn discover() -> Self {
        let mounts = File::open("/proc/self/mountinfo").map_or_else(
            |_| Vec::new(),
            |file| {
                let lines = BufReader::new(file).lines().map_while(Result::ok);
                lines.filter_map(|line| parse_mount(&line)).collect()
            },
        );
        let hybrid = mounts.iter().any(|mount| !mount.unified);
        let mount = most(&mounts).and_then(|mount| {
            let open = File::open(&mount.point).ok()?;
            Some(Mount { open, point: mount.point.clone(), root: from_top(&mount.root).to_owned() })
        });
        Self { mount, hybrid, paths: HashMap::new() }
    }

    /// The path of a cgroup in its hierarchy, `None` where nobody can tell any more: the cgroup was removed
    /// and the process is gone.
    ///
    /// By the id, which also works when the process is gone, or else from `/proc/PID/cgroup`. On hybrid
    /// hosts the other way round, because there a container may have a place in the version 1 hierarchies
    /// only.
    pub fn path(&mut self, cgroup_id: u64, process: ProcessId) -> Option<Arc<str>> {
        let from_process = || parse_membership(&procfs::cgroup(process)?).map(Arc::from);
        let found = if self.hybrid {
            from_process().or_else(|| self.by_id(cgroup_id))
        } else {
            self.by_id(cgroup_id).or_else(from_process)
        };
        found.map(named)
    }

    /// Looks a path up by the id for the time when the cgroup has been removed.
    pub fn remember(&mut self, cgroup_id: u64) {
        self.by_id(cgroup_id);
    }

    fn by_id(&mut self, cgroup_id: u64) -> Option<Arc<str>> {
        if cgroup_id == 0 {
            return None;
        }
        if let Some(path) = self.paths.get(&cgroup_id) {
            return Some(Arc::clone(path));
        }
        let path: Arc<str> = self.mount.as_ref()?.path(cgroup_id)?.into();
        if self.paths.len() >= Self::PATHS {
            self.paths.clear();
        }
        self.paths.insert(cgroup_id, Arc::clone(&path));
        Some(path)
    }
}

/// Without what the kernel adds of a cgroup that has been removed meanwhile, as systemd does when a unit has ended
/// (`proc_cgroup_show` in `kernel/cgroup/cgroup.c`, `d_path` in `fs/d_path.c`): the name is still whose it was.
fn named(path: Arc<str>) -> Arc<str> {
    path.strip_suffix(" (deleted)").map(Arc::from).unwrap_or(path)
}

/// `struct file_handle` with the handle of a kernfs node: its 64-bit id (`kernfs_fh_to_dentry`).
#[repr(C)]
struct KernfsHandle {
    bytes: u32,
    kind: i32,
    id: u64,
}

/// `FILEID_KERNFS` of `include/linux/exportfs.h`; since Linux 5.5.
const FILEID_KERNFS: i32 = 0xfe;

impl Mount {
    /// Opens the cgroup by its id (needs `CAP_DAC_READ_SEARCH`) and asks what the open file is called.
    fn path(&self, cgroup_id: u64) -> Option<String> {
        let handle = KernfsHandle { bytes: 8, kind: FILEID_KERNFS, id: cgroup_id };
        // SAFETY: the handle lives across the call and is as long as it says (8 bytes after the two header
        // words), and the mount point is an open file.
        let fd = unsafe {
            libc::syscall(
                libc::SYS_open_by_handle_at,
                self.open.as_raw_fd(),
                &raw const handle,
                libc::O_PATH | libc::O_CLOEXEC,
            )
        };
        let fd = i32::try_from(fd).ok().filter(|&fd| fd >= 0)?;
        // SAFETY: the kernel has just returned this descriptor to us and to nobody else.
        let fd = unsafe { OwnedFd::from_raw_fd(fd) };
        let name = fs::read_link(format!("/proc/self/fd/{}", fd.as_raw_fd())).ok()?;
        self.within(&name)
    }

    /// The path in the hierarchy of a path in the filesystem. One outside of the mount point is one that our mount does
    /// not show; the kernel then gives it from the root of the hierarchy, or, newer ones, says no more than "/".
    fn within(&self, name: &Path) -> Option<String> {
        match name.strip_prefix(&self.point) {
            Ok(rest) => {
                let path = format!("{}/{}", self.root.trim_end_matches('/'), rest.to_string_lossy());
                Some(if path.len() > 1 { path.trim_end_matches('/').to_owned() } else { path })
            }
            Err(_) if name == Path::new("/") => None,
            Err(_) => Some(name.to_string_lossy().into_owned()),
        }
    }
}

/// One cgroup mount.
#[derive(Debug, PartialEq, Eq)]
struct MountLine {
    unified: bool,
    root: String,
    point: PathBuf,
}

/// The mount of the unified hierarchy that shows the most of it: one of a cgroup above our cgroup namespace's, as a
/// container gets it from the host, then one of the root that we see.
fn most(mounts: &[MountLine]) -> Option<&MountLine> {
    let unified = || mounts.iter().filter(|mount| mount.unified);
    let above = unified().find(|mount| mount.root.starts_with("/.."));
    above.or_else(|| unified().find(|mount| mount.root == "/")).or_else(|| unified().next())
}

/// A path without the `/..` with which the kernel leads out of a cgroup namespace (`cgroup_namespaces(7)`), as a
/// container has one: the rest is the way down from a cgroup above, for what is not in a pod from the top.
fn from_top(path: &str) -> &str {
    let mut rest = path;
    while let Some(above) =
        rest.strip_prefix("/..").filter(|above| above.is_empty() || above.starts_with('/'))
    {
        rest = above;
    }
    if rest.is_empty() { "/" } else { rest }
}

/// A line of `/proc/self/mountinfo` (proc(5)), if it is a mount of cgroups.
fn parse_mount(line: &str) -> Option<MountLine> {
    let (head, tail) = line.split_once(" - ")?;
    let unified = match tail.split(' ').next()? {
        "cgroup2" => true,
        "cgroup" => false,
        _ => return None,
    };
    let mut fields = head.split(' ').skip(3);
    Some(MountLine { unified, root: fields.next()?.to_owned(), point: fields.next()?.into() })
}

/// The line of `/proc/PID/cgroup` (cgroups(7)) that says most: one that names a container, then one that is
/// not the root, then the unified hierarchy, then systemd's.
pub fn parse_membership(text: &str) -> Option<&str> {
    let lines = text.lines().filter_map(|line| {
        let mut fields = line.splitn(3, ':');
        Some((fields.next()?, fields.next()?, from_top(fields.next()?)))
    });
    lines
        .max_by_key(|&(id, controllers, path)| {
            let container = Placement::of(path).container.is_some();
            (container, path != "/", id == "0", controllers == "name=systemd")
        })
        .map(|(_, _, path)| path)
}

/// Who a cgroup path belongs to.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Placement<'a> {
    /// The systemd unit, in the escaped form that `systemctl` takes.
    pub unit: Option<&'a str>,
    /// The innermost slice that the unit is in.
    pub slice: Option<&'a str>,
    /// The innermost container.
    pub container: Option<Container<'a>>,
    /// The uid of the Kubernetes pod.
    pub pod: Option<String>,
}

/// A container.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Container<'a> {
    /// 64 hexadecimal digits.
    pub id: &'a str,
    /// Which runtime made it, where the path says so: containerd, cri-o, docker, podman.
    pub runtime: Option<&'static str>,
}

/// What the runtimes put before the id, the longer of two first. The monitors of a container are not in it.
const RUNTIMES: &[(&str, &str)] = &[
    ("cri-containerd-", "containerd"),
    ("nerdctl-", "containerd"),
    ("crio-", "cri-o"),
    ("docker-", "docker"),
    ("libpod-payload-", "podman"),
    ("libpod-", "podman"),
];

impl<'a> Placement<'a> {
    /// Reads a path as systemd (`cg_path_get_unit`), the kubelet and the container runtimes write them.
    pub fn of(path: &'a str) -> Self {
        let mut placement = Self::default();
        let mut parts = path.split('/').filter(|part| !part.is_empty()).map(unescape).peekable();
        while let Some(slice) = parts.next_if(|part| is(part, "slice")) {
            placement.slice = Some(slice);
        }
        let unit = parts.peek().copied();
        placement.unit = unit
            .filter(|unit| ["service", "scope", "socket", "mount", "swap"].iter().any(|kind| is(unit, kind)));

        let mut above = "";
        for part in path.split('/') {
            if let Some(container) = container(part, above) {
                placement.container = Some(container);
            }
            if let Some(pod) = pod_uid(part) {
                placement.pod = Some(pod);
            }
            above = part;
        }
        placement
    }
}

/// Undoes systemd's `cg_escape`: a name that could be mistaken for a control file has an underscore put
/// before it. (`\x2d` and the like belong to the unit's name.)
fn unescape(part: &str) -> &str {
    part.strip_prefix('_').unwrap_or(part)
}

fn is(part: &str, kind: &str) -> bool {
    part.strip_suffix(kind).and_then(|name| name.strip_suffix('.')).is_some_and(|name| !name.is_empty())
}

fn is_hex(text: &str, digits: usize) -> bool {
    text.len() == digits && text.bytes().all(|byte| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte))
}

fn container<'a>(part: &'a str, above: &str) -> Option<Container<'a>> {
    // containerd with its systemd driver on a host without systemd: "kubepods-….slice:cri-containerd:ID".
    if let Some((rest, id)) = part.rsplit_once(':')
        && is_hex(id, 64)
    {
        return Some(Container { id, runtime: rest.ends_with(":cri-containerd").then_some("containerd") });
    }
    let name = part.strip_suffix(".scope").unwrap_or(part);
    for &(prefix, runtime) in RUNTIMES {
        if let Some(id) = name.strip_prefix(prefix).filter(|id| is_hex(id, 64)) {
            return Some(Container { id, runtime: Some(runtime) });
        }
    }
    is_hex(part, 64).then(|| Container { id: part, runtime: (above == "docker").then_some("docker") })
}

/// The uid in `pod<uid>` (cgroupfs driver) or `kubepods[-class]-pod<uid>.slice` (systemd driver, which writes
/// an underscore for each dash). A static pod has 32 hexadecimal digits instead of a UUID.
fn pod_uid(part: &str) -> Option<String> {
    let part = part.split(':').next()?;
    let uid = match part.strip_suffix(".slice") {
        Some(slice) if slice.starts_with("kubepods") || slice.contains("-kubepods") => {
            slice.rsplit_once("-pod")?.1
        }
        Some(_) => return None,
        None => part.strip_prefix("pod")?,
    };
    let uid = uid.replace('_', "-");
    let uuid = uid.len() == 36
        && uid.split('-').map(str::len).eq([8, 4, 4, 4, 12])
        && is_hex(&uid.replace('-', ""), 32);
    (uuid || is_hex(&uid, 32)).then_some(uid)
}

#[cfg(test)]
#[path = "cgroup_tests.rs"]
mod tests;
