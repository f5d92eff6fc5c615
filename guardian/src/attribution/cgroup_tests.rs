use std::os::unix::fs::MetadataExt;

use super::*;

const ID: &str = "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef";
const POD: &str = "8dbc5577-d0e2-4706-8787-57d52c03ddf2";

fn placement(path: &str) -> (Option<String>, Option<String>, Option<String>) {
    let placement = Placement::of(path);
    let container = placement.container.map(|container| {
        assert_eq!(container.id, ID, "{path}");
        container.runtime.unwrap_or("?").to_owned()
    });
    (placement.unit.map(str::to_owned), container, placement.pod)
}

#[test]
fn units_and_slices() {
    for (path, slice, unit) in [
        ("/", None, None),
        ("/init.scope", None, Some("init.scope")),
        ("/system.slice/systemd-networkd.service", Some("system.slice"), Some("systemd-networkd.service")),
        ("/system.slice/cron.service/sub", Some("system.slice"), Some("cron.service")),
        ("/user.slice/user-1000.slice/session-3.scope", Some("user-1000.slice"), Some("session-3.scope")),
        (
            "/user.slice/user-1000.slice/user@1000.service/app.slice/foo.service",
            Some("user-1000.slice"),
            Some("user@1000.service"),
        ),
        (
            r"/system.slice/system-serial\x2dgetty.slice/serial-getty@ttyS0.service",
            Some(r"system-serial\x2dgetty.slice"),
            Some("serial-getty@ttyS0.service"),
        ),
        ("/system.slice/_cgroup.thing.service", Some("system.slice"), Some("cgroup.thing.service")),
        ("/user.slice", Some("user.slice"), None),
        ("/docker/abc", None, None),
        ("/.service", None, None),
        ("/../../kubelet", None, None),
        ("", None, None),
    ] {
        let placement = Placement::of(path);
        assert_eq!((placement.slice, placement.unit), (slice, unit), "{path}");
        assert_eq!((placement.container, placement.pod), (None, None), "{path}");
    }
}

#[test]
fn containers_and_pods_of_every_runtime_and_driver() {
    let escaped = POD.replace('-', "_");
    let burstable = format!("/kubepods.slice/kubepods-burstable.slice/kubepods-burstable-pod{escaped}.slice");
    let pod = || Some(POD.to_owned());
    for (path, runtime, pod) in [
        (format!("{burstable}/cri-containerd-{ID}.scope"), "containerd", pod()),
        (format!("{burstable}/crio-{ID}.scope"), "cri-o", pod()),
        (format!("{burstable}/crio-{ID}.scope/container"), "cri-o", pod()),
        (format!("{burstable}/docker-{ID}.scope"), "docker", pod()),
        (
            format!("/kubepods.slice/kubepods-pod{escaped}.slice/cri-containerd-{ID}.scope"),
            "containerd",
            pod(),
        ),
        (format!("/kubepods/burstable/pod{POD}/{ID}"), "?", pod()),
        (format!("/kubepods/pod{POD}/{ID}"), "?", pod()),
        (format!("/kubepods/besteffort/pod{POD}/crio-{ID}"), "cri-o", pod()),
        (
            format!(
                "/system.slice/containerd.service/kubepods-besteffort-pod{escaped}.slice:cri-containerd:{ID}"
            ),
            "containerd",
            None,
        ),
        (format!("/system.slice/docker-{ID}.scope"), "docker", None),
        (format!("/docker/{ID}"), "docker", None),
        (format!("/docker/{ID}/kubelet.slice/kubelet-kubepods-pod{escaped}.slice"), "docker", pod()),
        (format!("/machine.slice/libpod-{ID}.scope/container"), "podman", None),
        (format!("/machine.slice/libpod-payload-{ID}"), "podman", None),
        (format!("/system.slice/nerdctl-{ID}.scope"), "containerd", None),
    ] {
        let found = placement(&path);
        assert_eq!(found.1.as_deref(), Some(runtime), "{path}");
        if !path.contains(':') {
            assert_eq!(found.2, pod, "{path}");
        }
    }
    let odd = format!("/kubepods-besteffort-pod{escaped}.slice:cri-containerd:{ID}");
    assert_eq!(placement(&odd).2, pod());
}

#[test]
fn static_pods_have_a_hash_and_inner_containers_win() {
    let hash = "0123456789abcdef0123456789abcdef";
    assert_eq!(Placement::of(&format!("/kubepods/burstable/pod{hash}")).pod.as_deref(), Some(hash));
    let outer = "f".repeat(64);
    assert_eq!(placement(&format!("/docker/{outer}/kubepods/pod{POD}/{ID}")).1.as_deref(), Some("?"));
}

#[test]
fn what_only_looks_like_one_is_not() {
    for path in [
        format!("/machine.slice/libpod-conmon-{ID}.scope"),
        format!("/system.slice/crio-conmon-{ID}.scope"),
        format!("/docker/{}", ID.get(..63).unwrap()),
        format!("/docker/{}", ID.to_uppercase()),
        "/kubepods/podium".to_owned(),
        "/kubepods/pod8dbc5577-d0e2-4706-8787".to_owned(),
        format!("/kubepods.slice/x-pod{}.slice", "é".repeat(18)),
        format!("/system.slice/my-pod{}.slice", POD.replace('-', "_")),
    ] {
        let found = Placement::of(&path);
        assert_eq!((found.container, found.pod), (None, None), "{path}");
    }
}

#[test]
fn the_line_that_says_most_wins() {
    assert_eq!(parse_membership("0::/system.slice/a.service\n"), Some("/system.slice/a.service"));
    assert_eq!(parse_membership("1:name=systemd:/a\n0::/b\n"), Some("/b"));
    assert_eq!(parse_membership("4:memory:/x\n1:name=systemd:/a\n0::/\n"), Some("/a"));
    assert_eq!(parse_membership("9:name=systemd:/\n4:memory:/m\n0::/\n"), Some("/m"));
    assert_eq!(parse_membership("2:cpu,cpuacct:/\n0::/\n"), Some("/"));
    assert_eq!(parse_membership("0::/with:colon\n"), Some("/with:colon"));
    let docker = format!("/docker/{ID}");
    assert_eq!(
        parse_membership(&format!("3:cpu:{docker}\n0::/system.slice/d.service\n")),
        Some(docker.as_str())
    );
    assert_eq!(parse_membership("garbage\n"), None);
}

/// As Linux 6.18 shows it to a process in a cgroup namespace two levels down.
#[test]
fn from_within_a_cgroup_namespace_all_is_as_from_without() {
    assert_eq!(parse_membership("0::/../../system.slice/a.service\n"), Some("/system.slice/a.service"));
    assert_eq!(parse_membership("0::/../..\n"), Some("/"));
    assert_eq!(parse_membership("0::/..a/b\n"), Some("/..a/b"));
    let line = |root: &str, point: &str| {
        parse_mount(&format!("64 44 0:38 {root} {point} rw - cgroup2 none rw")).unwrap()
    };
    let own = || line("/", "/sys/fs/cgroup");
    let host = || line("/../..", "/host/cgroup");
    assert_eq!(most(&[own(), host()]), Some(&host()));
    assert_eq!(most(&[line("/a", "/x"), own()]), Some(&own()));
    assert_eq!(most(&[]), None);
    assert_eq!(from_top(&host().root), "/", "what is in it is named from the top");
}

#[test]
fn mounts_are_told_apart() {
    let line = |tail: &str| {
        parse_mount(&format!("30 24 0:26 /a /sys/fs/cgroup rw,nosuid shared:4 master:1 - {tail}"))
    };
    let point = PathBuf::from("/sys/fs/cgroup");
    let expected = |unified| Some(MountLine { unified, root: "/a".to_owned(), point: point.clone() });
    assert_eq!(line("cgroup2 cgroup2 rw"), expected(true));
    assert_eq!(line("cgroup cgroup rw,cpu"), expected(false));
    assert_eq!(line("tmpfs cgroup2 rw"), None);
    assert_eq!(parse_mount("nothing"), None);
}

#[test]
fn names_become_paths_of_the_hierarchy() {
    let mount = |root: &str| Mount {
        open: File::open("/").unwrap(),
        point: "/sys/fs/cgroup".into(),
        root: root.to_owned(),
    };
    for (root, name, path) in [
        ("/", "/sys/fs/cgroup", "/"),
        ("/", "/sys/fs/cgroup/a/b.service", "/a/b.service"),
        ("/a", "/sys/fs/cgroup", "/a"),
        ("/a", "/sys/fs/cgroup/b", "/a/b"),
        ("/a", "/system.slice/x.service", "/system.slice/x.service"),
        ("/", "/sys/fs/cgroup2/b", "/sys/fs/cgroup2/b"),
    ] {
        assert_eq!(mount(root).within(Path::new(name)).as_deref(), Some(path));
    }
    assert_eq!(mount("/a").within(Path::new("/")), None, "it is not the root that is meant");
}

#[test]
fn one_that_is_removed_keeps_its_name() {
    assert_eq!(&*named("/system.slice/culprit.service (deleted)".into()), "/system.slice/culprit.service");
    assert_eq!(&*named("/system.slice/culprit.service".into()), "/system.slice/culprit.service");
}

/// On the real cgroup filesystem, where there is one and we may make a cgroup in it.
#[test]
fn a_real_cgroup_is_found_by_its_id() {
    let mut cgroups = Cgroups::discover();
    let Some(point) = cgroups.mount.as_ref().map(|mount| mount.point.clone()) else { return };
    let name = format!("route-guardian-test-{}", std::process::id());
    let folder = point.join(&name);
    if fs::create_dir(&folder).is_err() {
        return;
    }
    let id = fs::metadata(&folder).map(|metadata| metadata.ino());
    let found = id.map(|id| (id, cgroups.by_id(id)));
    fs::remove_dir(&folder).unwrap();
    let (id, path) = found.unwrap();
    let root = cgroups.mount.as_ref().unwrap().root.trim_end_matches('/').to_owned();
    assert_eq!(path.as_deref(), Some(format!("{root}/{name}").as_str()));
    // It is remembered when it is gone, and one that never was is not made up.
    assert_eq!(cgroups.by_id(id), path);
    assert_eq!(cgroups.by_id(u64::MAX), None);
    assert_eq!(cgroups.by_id(0), None);
}

#[test]
fn our_own_cgroup_is_known() {
    let own = procfs::read(std::process::id()).unwrap();
    let path = Cgroups::discover().path(0, own.id).unwrap();
    assert!(path.starts_with('/'), "{path}");
}
