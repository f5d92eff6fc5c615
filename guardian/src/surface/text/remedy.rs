//! Why known programs undo routes, and what stops them: a table, and honest where it does not know.
//!
//! What it says of systemd-networkd was measured with systemd 252 and 254 on Linux 6.1 and 6.12; what it says of
//! others is from their documentation, and says so.

use crate::model::{
    ActorClass,
    record::{Cause, Change, ObjectKind},
};

/// Lines for one file.
#[derive(Clone, Copy, Debug)]
pub(super) struct FileLines {
    /// The path of the file, or which file it is.
    pub file: &'static str,
    /// What belongs into it.
    pub lines: &'static [&'static str],
}

/// What is known of a kind of actors.
#[derive(Clone, Copy, Debug)]
pub(super) struct Remedy {
    pub class: ActorClass,
    /// Why such a program does it.
    pub why: &'static str,
    /// What to do, in a sentence.
    pub how: &'static str,
    /// What to write into which files.
    pub files: &'static [FileLines],
    /// How far that goes, and how it is known.
    pub note: &'static str,
}

/// What is known of this kind of actors.
pub(super) fn find(class: ActorClass) -> Option<&'static Remedy> {
    TABLE.iter().find(|remedy| remedy.class == class)
}

/// By which path the kernel lost the object, or changed it.
pub(super) fn path(kind: ObjectKind, change: Change, cause: Cause) -> String {
    let (what, many) = match kind {
        ObjectKind::Link => ("link", "links"),
        ObjectKind::Address => ("address", "addresses"),
        ObjectKind::Route => ("route", "routes"),
        ObjectKind::Rule => ("rule", "rules"),
        ObjectKind::Nexthop => ("nexthop object", "nexthop objects"),
    };
    match cause {
        Cause::Request => match change {
            Change::Deleted => "It was deleted on request.".into(),
            Change::Replaced => format!("Another {what} was put in its place, on request."),
            Change::Changed => "It was changed on request.".into(),
            Change::Down => "It was taken down on request.".into(),
        },
        Cause::Replace => format!("Another {what} was put in its place, on request."),
        Cause::LinkDown if kind == ObjectKind::Route => {
            "Its link went down, and the kernel drops the IPv4 routes of such a link without a word on each.".into()
        }
        Cause::LinkDown if kind == ObjectKind::Address => {
            "Its link went down, and the kernel drops the IPv6 addresses of such a link, unless keep_addr_on_down is \
             set."
                .into()
        }
        Cause::LinkDown if kind == ObjectKind::Link => "The link that it depends on went down.".into(),
        Cause::LinkRemoved if kind == ObjectKind::Link => {
            "The link below it, or the bridge that it was a port of, was deleted, and the kernel took it along.".into()
        }
        Cause::LinkDown => format!("Its link went down, and the kernel drops the {many} of such a link."),
        Cause::LinkRemoved => format!("Its link was deleted, and the kernel drops the {many} of such a link."),
        Cause::AddressRemoved if kind == ObjectKind::Address => {
            "It was secondary to an address that was removed, and the kernel drops such addresses with it, unless \
             promote_secondaries is set."
                .into()
        }
        Cause::AddressRemoved => format!(
            "An address that it depends on was removed: its preferred source, or the last one of its link; the \
             kernel drops such {many} with it."
        ),
        Cause::NexthopRemoved => {
            "The nexthop object that it refers to was removed, and the kernel drops it with it.".into()
        }
        Cause::Kernel => "The kernel did it by itself: no program asked.".into(),
        Cause::Unknown if matches!(change, Change::Deleted) => {
            "Nobody saw it go: it was found missing when the state was read again.".into()
        }
        Cause::Unknown => "Nobody saw it change: it was found so when the state was read again.".into(),
    }
}

const TABLE: [Remedy; 8] = [
    Remedy {
        class: ActorClass::Networkd,
        why: "systemd-networkd takes every route and address that it did not make itself off each link that it \
              configures, and removes every foreign policy rule: when it restarts, when `networkctl reload` finds a changed file, \
              at `networkctl reconfigure`, and when the carrier comes back.",
        how: "Let it keep what is foreign, keep its own addresses meanwhile, and leave kube-router's links alone:",
        files: &[
            FileLines {
                file: "/etc/systemd/networkd.conf.d/10-kube-router.conf",
                lines: &[
                    "[Network]",
                    "ManageForeignRoutes=no",
                    "ManageForeignRoutingPolicyRules=no",
                    "ManageForeignNextHops=no",
                ],
            },
            FileLines {
                file: "/etc/systemd/network/05-kube-router.network",
                lines: &["[Match]", "Name=kube-bridge kube-dummy-if tun-* veth*", "[Link]", "Unmanaged=yes"],
            },
            FileLines {
                file: "a drop-in for the .network file of the node's own interface",
                lines: &["[Network]", "KeepConfiguration=yes", "IgnoreCarrierLoss=yes"],
            },
        ],
        note: "Unmanaged=yes alone does not suffice: routes by the node's own interface and all policy rules \
               still go. Nor do the ManageForeign settings alone: up to systemd 254 a restart removes the \
               node's address for a moment, and the kernel drops the routes that depend on it. All three together \
               held in tests with systemd 252 against restart, stop, kill and loss of carrier; not against \
               `networkctl reconfigure` of that interface or a reload after its file was changed. \
               ManageForeignNextHops is known to systemd 256 and later; it is from the documentation, and what is \
               older ignores it with a warning.",
    },
    Remedy {
        class: ActorClass::NetworkManager,
        why: "NetworkManager sets the routes, rules and addresses of the devices that it manages to what their \
              connections say, and removes others when it activates or reapplies one.",
        how: "Tell it to leave kube-router's links alone:",
        files: &[FileLines {
            file: "/etc/NetworkManager/conf.d/10-kube-router.conf",
            lines: &[
                "[keyfile]",
                "unmanaged-devices=interface-name:kube-bridge;interface-name:kube-dummy-if;interface-name:tun-*;\
                 interface-name:veth*",
            ],
        }],
        note: "From its documentation; not tested by this project. Routes by the node's own interface are not \
               covered by it.",
    },
    Remedy {
        class: ActorClass::Iproute2,
        why: "Somebody ran this command.",
        how: "Change or remove it where it was started: the tree above names the script or unit. A flush can be \
              kept to what it is meant for: one of routes by naming the protocol, table or device, one of addresses \
              by the device, one of rules by the protocol or table.",
        files: &[],
        note: "",
    },
    Remedy {
        class: ActorClass::Dhcp,
        why: "A DHCP client takes the address off the interface, or runs hooks that flush its routes, when a lease \
              ends or changes.",
        how: "Look at its hooks (for dhclient: /etc/dhcp/dhclient-enter-hooks.d and dhclient-exit-hooks.d) and at why \
              the lease changed.",
        files: &[],
        note: "Not tested by this project.",
    },
    Remedy {
        class: ActorClass::CloudInit,
        why: "cloud-init writes the network configuration anew and applies it, at boot or when an interface is \
              plugged in.",
        how: "Where the network is configured otherwise, switch that off:",
        files: &[FileLines {
            file: "/etc/cloud/cloud.cfg.d/99-disable-network-config.cfg",
            lines: &["network: {config: disabled}"],
        }],
        note: "From its documentation; not tested by this project.",
    },
    Remedy {
        class: ActorClass::Frr,
        why: "FRR's zebra changes the routes that it takes for its own, and sweeps old ones of its protocol \
              numbers when it starts.",
        how: "See which of its protocols has this prefix: vtysh -c 'show ip route PREFIX'. Two routing daemons must \
              not share prefixes and protocol numbers.",
        files: &[],
        note: "Not tested by this project.",
    },
    Remedy {
        class: ActorClass::Bird,
        why: "BIRD's kernel protocol sets its routing table to what BIRD knows; kube-router's routes are not \
              among that.",
        how: "Give BIRD a kernel table of its own (`kernel table` in its kernel protocol), or filter these prefixes \
              out there.",
        files: &[],
        note: "Not tested by this project.",
    },
    Remedy {
        class: ActorClass::KubeRouter,
        why: "This looks like kube-router, but is not the owner that the configuration names: neither its \
              executable nor its cgroup matches.",
        how: "If it is yours, add its executable or cgroup (shown above) to the guardian's configuration:",
        files: &[FileLines {
            file: "/etc/route-guardian/config.toml",
            lines: &["[owner]", "exe = [\"/usr/local/bin/kube-router\"]   # and the one shown above"],
        }],
        note: "A name alone never makes an owner: anyone can call a process kube-router.",
    },
];
