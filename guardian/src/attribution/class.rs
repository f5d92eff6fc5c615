//! Which of the dozen kinds of actors that metrics tell apart somebody is.
//!
//! A label for people, taken from the name of the executable, and never a reason to obey: anyone can install
//! a program under such a name. Whose a change is, is decided by [`super::OwnerRule`].

use super::cgroup::Placement;
use crate::{
    model::{Actor, ActorClass, Process},
    procfs::without_deleted,
};

/// How a kind of actor is recognised.
enum Sign {
    /// The executable's file name.
    Name(&'static str),
    /// A folder on the executable's path.
    Folder(&'static str),
    /// An interpreter or multi-call program (the start of its file name) that runs this script or applet. The
    /// executable does not say which, so this believes the arguments.
    Runs(&'static str, &'static str),
    /// The systemd unit, where the executable is not known.
    Unit(&'static str),
}

use ActorClass::{
    Bird, CloudInit, Cni, Container, Dhcp, Frr, Iproute2, KubeRouter, NetworkManager, Networkd, Other,
    Unknown,
};
use Sign::{Folder, Name, Runs, Unit};

/// The first that applies wins: `/opt/cni/bin/bridge` is no iproute2.
const SIGNS: &[(ActorClass, &[Sign])] = &[
    (Cni, &[Folder("/cni/bin/"), Name("cilium-cni"), Name("calico-ipam")]),
    (KubeRouter, &[Name("kube-router")]),
    (Networkd, &[Name("systemd-networkd"), Unit("systemd-networkd.service")]),
    (
        NetworkManager,
        &[
            Name("NetworkManager"),
            Name("nm-dispatcher"),
            Name("nm-dhcp-helper"),
            Name("nm-initrd-generator"),
            Unit("NetworkManager.service"),
        ],
    ),
    (
        Iproute2,
        &[
            Name("ip"),
            Name("tc"),
            Name("bridge"),
            Name("ip.iproute2"),
            Runs("busybox", "ip"),
            Runs("busybox", "iproute"),
            Runs("busybox", "iplink"),
            Runs("busybox", "ipaddr"),
            Runs("busybox", "iprule"),
        ],
    ),
    (
        Frr,
        &[
            Folder("/frr/"),
            Name("zebra"),
            Name("staticd"),
            Name("mgmtd"),
            Name("watchfrr"),
            Name("vtysh"),
            Unit("frr.service"),
        ],
    ),
    (Bird, &[Name("bird"), Name("bird6"), Unit("bird.service"), Unit("bird6.service")]),
    (
        Dhcp,
        &[
            Name("dhclient"),
            Name("dhclient-script"),
            Name("dhcpcd"),
            Name("dhcpcd-run-hooks"),
            Name("udhcpc"),
            Name("udhcpc6"),
            Runs("busybox", "udhcpc"),
            Runs("busybox", "udhcpc6"),
            Unit("dhcpcd.service"),
        ],
    ),
    (
        CloudInit,
        &[
            Name("cloud-init"),
            Runs("python", "cloud-init"),
            Unit("cloud-init.service"),
            Unit("cloud-init-local.service"),
            Unit("cloud-init-main.service"),
            Unit("cloud-init-network.service"),
            Unit("cloud-config.service"),
            Unit("cloud-final.service"),
        ],
    ),
    (
        Container,
        &[
            Name("docker"),
            Name("dockerd"),
            Name("docker-proxy"),
            Name("cri-dockerd"),
            Name("containerd"),
            Name("containerd-shim"),
            Name("containerd-shim-runc-v1"),
            Name("containerd-shim-runc-v2"),
            Name("nerdctl"),
            Name("runc"),
            Name("crun"),
            Name("crio"),
            Name("conmon"),
            Name("podman"),
            Name("netavark"),
            Unit("docker.service"),
            Unit("containerd.service"),
            Unit("crio.service"),
        ],
    ),
];

/// The kind of an actor; [`ActorClass::Unknown`] also for a process whose executable nobody knows.
pub fn class_of(actor: &Actor) -> ActorClass {
    match actor {
        Actor::Process { process, cgroup, .. } => process_class(process, cgroup.as_deref()),
        Actor::Kernel { .. } => ActorClass::Kernel,
        Actor::Unknown => Unknown,
    }
}

fn process_class(process: &Process, cgroup: Option<&str>) -> ActorClass {
    let exe = process.exe.as_deref().map(without_deleted);
    let unit = if exe.is_none() { cgroup.and_then(|path| Placement::of(path).unit) } else { None };
    let name = exe.map(file_name);
    let shows = |sign: &Sign| match *sign {
        Name(wanted) => name == Some(wanted),
        Folder(folder) => exe.is_some_and(|exe| exe.contains(folder)),
        Runs(program, script) => {
            name.is_some_and(|name| name.starts_with(program)) && runs_script(&process.argv, script)
        }
        Unit(wanted) => unit == Some(wanted),
    };
    let found = SIGNS.iter().find(|(_, signs)| signs.iter().any(shows));
    found.map_or(if exe.is_some() { Other } else { Unknown }, |&(class, _)| class)
}

/// Whether `argv` is `SCRIPT …` or `PROGRAM [-option…] SCRIPT …`.
fn runs_script(argv: &[String], script: &str) -> bool {
    let called = argv.first().map(String::as_str);
    let first = argv.iter().skip(1).map(String::as_str).find(|word| !word.starts_with('-'));
    called.into_iter().chain(first).any(|word| file_name(word) == script)
}

fn file_name(path: &str) -> &str {
    path.rsplit_once('/').map_or(path, |(_, name)| name)
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::{
        attribution::tests::process,
        model::{Actor, Confidence},
    };

    fn class(exe: Option<&str>, argv: &[&str], cgroup: Option<&str>) -> ActorClass {
        let mut process = process(7, 1);
        process.comm = "kube-router".to_owned();
        process.exe = exe.map(str::to_owned);
        process.argv = argv.iter().map(|&word| word.to_owned()).collect();
        class_of(&Actor::Process {
            thread: None,
            process: Arc::new(process),
            ancestors: Vec::new(),
            cgroup: cgroup.map(Arc::from),
            confidence: Confidence::Exact,
        })
    }

    #[test]
    fn programs_are_known_by_their_executable() {
        for (exe, expected) in [
            ("/usr/lib/systemd/systemd-networkd", Networkd),
            ("/usr/lib/systemd/systemd-networkd (deleted)", Networkd),
            ("/usr/sbin/NetworkManager", NetworkManager),
            ("/sbin/ip", Iproute2),
            ("/bin/ip", Iproute2),
            ("/usr/sbin/tc", Iproute2),
            ("/sbin/bridge", Iproute2),
            ("/opt/cni/bin/bridge", Cni),
            ("/var/lib/rancher/k3s/data/cni/bin/host-local", Cni),
            ("/usr/local/bin/kube-router", KubeRouter),
            ("/usr/lib/frr/bgpd", Frr),
            ("/usr/sbin/bird", Bird),
            ("/sbin/dhclient", Dhcp),
            ("/usr/bin/dockerd", Container),
            ("/usr/bin/python3.11", Other),
            ("/usr/bin/birdc", Other),
            ("/home/ip/tool", Other),
        ] {
            assert_eq!(class(Some(exe), &["kube-router"], None), expected, "{exe}");
        }
    }

    #[test]
    fn interpreters_are_known_by_what_they_run() {
        let python = Some("/usr/bin/python3.11");
        assert_eq!(class(python, &["/usr/bin/python3", "/usr/bin/cloud-init", "init"], None), CloudInit);
        assert_eq!(class(python, &["python3", "-u", "/usr/bin/cloud-init"], None), CloudInit);
        assert_eq!(class(python, &["python3", "/tmp/x.py", "cloud-init"], None), Other);
        assert_eq!(class(Some("/usr/bin/perl"), &["perl", "cloud-init"], None), Other);
        let busybox = Some("/bin/busybox");
        assert_eq!(class(busybox, &["ip", "route", "flush"], None), Iproute2);
        assert_eq!(class(busybox, &["busybox", "ip", "route"], None), Iproute2);
        assert_eq!(class(busybox, &["udhcpc", "-i", "eth0"], None), Dhcp);
        assert_eq!(class(busybox, &["sh", "-c", "ip route"], None), Other);
        assert_eq!(class(busybox, &[], None), Other);
    }

    #[test]
    fn a_name_alone_is_nothing_and_a_unit_speaks_only_for_the_nameless() {
        let networkd = Some("/system.slice/systemd-networkd.service");
        assert_eq!(class(None, &["/usr/local/bin/kube-router"], None), Unknown);
        assert_eq!(class(None, &[], networkd), Networkd);
        assert_eq!(class(Some("/usr/bin/vi"), &[], networkd), Other);
    }

    #[test]
    fn the_kernel_and_nobody() {
        assert_eq!(class_of(&Actor::Kernel { what: "kworker/0:1".into() }), ActorClass::Kernel);
        assert_eq!(class_of(&Actor::Unknown), Unknown);
    }
}
