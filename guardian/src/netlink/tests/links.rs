//! Every kind of link comes back as it was, with its ifindex and its place in a bridge.

use std::time::Duration;

use serde_json::Value;

use super::{comes, in_netns, ip, try_ip};
use crate::{
    core::plan::{Action, Applied},
    model::{Attribute, Link, Links, Notice, Object, link::iff},
    netlink::{Executor, Listener, Received, decode, dump, frames, listener::RECEIVE_BUFFER},
};

/// `ip` commands, separated by `;`, that make a link `x0` (and `x1`, if it has another end) on `eth0`.
const LINKS: &[&str] = &[
    "link add x0 type bridge",
    "link add x0 index 77 mtu 1400 txqueuelen 123 address 02:00:00:00:00:77 type bridge",
    "link add x0 type bridge forward_delay 400 hello_time 300 max_age 1500 ageing_time 12345 stp_state 1 \
     priority 4096 group_fwd_mask 0x8 mcast_snooping 0 mcast_router 2 mcast_query_use_ifaddr 1 mcast_querier 1 \
     mcast_hash_max 1024 mcast_last_member_count 5 mcast_startup_query_count 6 mcast_last_member_interval 200 \
     mcast_membership_interval 20000 mcast_querier_interval 30000 mcast_query_interval 10000 \
     mcast_query_response_interval 900 mcast_startup_query_interval 3000 mcast_stats_enabled 1 \
     mcast_igmp_version 3 mcast_mld_version 2 nf_call_iptables 1 nf_call_ip6tables 1 nf_call_arptables 1 \
     no_linklocal_learn 1; link set x0 up",
    "link add x0 type bridge forward_delay 0 ageing_time 0 group_address 01:80:c2:00:00:05; link set x0 up",
    "link add x0 type bridge vlan_filtering 1 vlan_default_pvid 7 vlan_protocol 802.1ad vlan_stats_enabled 1",
    "link add x0 type bridge; link set x0 alias some_words group 17 addrgenmode none promisc on; \
     link property add dev x0 altname another altname a_name_that_is_longer_than_fifteen_bytes; link set x0 up",
    "link add x0 type bridge; link set x0 arp off multicast off allmulticast on addrgenmode random",
    "link add x0 type veth peer name x1",
    "link add x0 mtu 1300 address 02:00:00:00:00:01 numtxqueues 3 numrxqueues 2 type veth \
     peer name x1 mtu 1350 address 02:00:00:00:00:02 numtxqueues 4; link set x1 up addrgenmode none; \
     link set x0 up group 5 alias here; link set x1 alias there gso_max_size 32000 gso_max_segs 77",
    "link add x0 index 91 type veth peer name x1 index 90",
    "link add link eth0 name x0 type macvlan mode bridge; link set x0 up addrgenmode eui64",
    "link add link eth0 name x0 address 02:00:00:00:00:03 type macvlan mode private bcqueuelen 2000",
    "link add link eth1 name x0 type macvlan mode passthru nopromisc; link set x0 up",
    "link add link eth0 name x0 type macvlan mode vepa; link set x0 mtu 1280",
    "link add link eth0 name x0 type macvlan mode source; \
     link set x0 type macvlan macaddr set 02:00:00:00:00:08 02:00:00:00:00:09",
    "link add link eth0 name x0 type macvtap mode bridge",
    "link add x0 type vxlan id 42 dstport 4789",
    "link add x0 type vxlan id 43 dev eth0 local 10.0.0.1 dstport 8472 nolearning ttl 9 tos 16 ageing 600 \
     maxaddress 50 srcport 1000 2000 noudpcsum; link set x0 up mtu 1370",
    "link add x0 type vxlan id 44 dev eth0 group 239.1.1.1 dstport 4789 proxy rsc l2miss l3miss gbp df set",
    "link add x0 type vxlan id 45 dev eth0 local fd00::1 remote fd00::9 dstport 4789 udp6zerocsumtx \
     udp6zerocsumrx flowlabel 77 ttl inherit",
    "link add x0 type vxlan external dstport 4790 gpe",
    "link add x0 type vxlan external vnifilter dstport 4791",
    "link add x0 numtxqueues 3 type ifb; link set x0 up",
    "link add link eth0 name x0 type vlan id 5 protocol 802.1ad reorder_hdr off ingress-qos-map 1:2 egress-qos-map 3:4",
    "link add x0 type dummy; link set x0 up",
    "link add x0 type vrf table 55; link set x0 up",
    "link add x0 type bond mode 802.3ad miimon 100 lacp_rate fast",
    "link add x0 type gretap remote 10.0.0.9 local 10.0.0.1 key 7 ttl 5",
    "link add x0 type ipip remote 10.0.0.9 local 10.0.0.1 ttl 5",
    "fou add port 5556 ipproto 4; link add x0 type ipip remote 10.0.0.9 local 10.0.0.1 mode any ttl 64 \
     encap fou encap-sport auto encap-dport 5556; link set x0 up",
    "link add x0 type ip6tnl remote fd00::9 local fd00::1 mode any encap gue encap-sport 7000 encap-dport 5557 \
     encap-udp6-csum; link set x0 up",
    "link add x0 type geneve id 5 remote 10.0.0.9",
    "link add x0 type gre remote 10.0.0.9 local 10.0.0.1 ikey 7 okey 9 csum seq",
    "link add x0 type sit remote 10.0.0.9 local 10.0.0.1 ttl 5",
    "link add x0 type ip6tnl remote fd00::9 local fd00::1 hoplimit 5",
    "link add x0 type ip6gretap remote fd00::9 local fd00::1",
    "link add x0 type vti remote 10.0.0.9 local 10.0.0.1 key 7",
    "link add link eth0 name x0 type ipvlan mode l3s",
    "link add x0 type geneve external",
    "link add x0 type bond mode active-backup miimon 100 primary_reselect failure; link set x0 up",
];

fn links() -> Links {
    dump().unwrap().links()
}

/// What `ip -d -j link show` prints, without what the kernel counts and finds out by itself.
fn shown() -> Vec<String> {
    const FOUND_OUT: [&str; 23] = [
        "permaddr",
        "operstate",
        "carrier",
        "bridge_id",
        "root_id",
        "root_port",
        "root_path_cost",
        "topology_change",
        "topology_change_detected",
        "hello_timer",
        "tcn_timer",
        "topology_change_timer",
        "gc_timer",
        "hold_timer",
        "message_age_timer",
        "forward_delay_timer",
        "state",
        "designated_port",
        "designated_cost",
        "id",
        "no",
        "topology_change_ack",
        "config_pending",
    ];
    fn strip(value: &mut Value) {
        match value {
            Value::Object(fields) => {
                // The id of a VXLAN is no state.
                let vxlan = fields.contains_key("udp_csum");
                fields.retain(|name, _| !FOUND_OUT.contains(&name.as_str()) || (vxlan && name == "id"));
                for value in fields.values_mut() {
                    strip(value);
                }
            }
            Value::Array(values) => {
                // Whether a queue has been run yet.
                values.retain(|value| !matches!(value.as_str(), Some("LOWER_UP" | "NO-CARRIER")));
                values.iter_mut().for_each(strip);
            }
            _ => {}
        }
    }
    let mut shown: Value = serde_json::from_str(&ip("-d -j link show")).unwrap();
    strip(&mut shown);
    let mut lines = Vec::new();
    for link in shown.as_array().unwrap() {
        let name = link["ifname"].as_str().unwrap();
        // A bridge that loses its last port loses its address.
        if name == "other" {
            continue;
        }
        let pretty = format!("{link:#}");
        lines.extend(pretty.lines().map(|line| format!("{name}: {}", line.trim())));
    }
    lines.sort();
    lines
}

/// The lines in which two descriptions differ.
fn difference(before: &[String], now: &[String]) -> Vec<String> {
    let gone = before.iter().filter(|line| !now.contains(line)).map(|line| format!("- {line}"));
    gone.chain(now.iter().filter(|line| !before.contains(line)).map(|line| format!("+ {line}"))).collect()
}

#[track_caller]
fn unchanged(before: &[String], what: &str) {
    let different = difference(before, &shown());
    assert!(different.is_empty(), "{what}:\n{}", different.join("\n"));
}

fn apply(executor: &mut Executor, actions: &[Action], what: &str) {
    for (action, applied) in actions.iter().zip(executor.apply(actions)) {
        let differs = match (&applied, action.object()) {
            (Applied::Differs(Some(Object::Link(held))), Object::Link(asked)) => (
                format!(
                    "{:?} {:?}",
                    Link { data: vec![], ..asked.clone() },
                    Link { data: vec![], ..held.clone() }
                ),
                asked.data.iter().filter(|a| !held.data.contains(a)).cloned().collect(),
                held.data.iter().filter(|a| !asked.data.contains(a)).cloned().collect(),
            ),
            _ => (String::new(), vec![], Vec::<Attribute>::new()),
        };
        assert_eq!(applied, Applied::Verified, "{what}: {differs:?}");
    }
}

#[test]
fn every_kind_of_link_comes_back() {
    in_netns(|| {
        let mut executor = Executor::open().unwrap();
        let mut tested = 0;
        for shape in LINKS {
            if let Some(error) = shape.split(';').find_map(|command| try_ip(command).err()) {
                eprintln!("not tested, this kernel or ip refuses `{shape}`: {}", error.trim());
                let _ = try_ip("link del x0");
                continue;
            }
            let before = shown();
            let mut made: Vec<Link> =
                links().iter().filter(|link| ["x0", "x1"].contains(&link.name.as_str())).cloned().collect();
            made.sort_by_key(|link| link.index);
            ip("link del x0");
            let adds: Vec<_> = made.iter().cloned().map(|link| Action::Add(Object::Link(link))).collect();
            apply(&mut executor, &adds, shape);
            unchanged(&before, shape);
            for link in &made {
                let held = links();
                let held = held.get(link.index).unwrap();
                assert_eq!(held.attributes, link.attributes, "{shape}");
                assert_eq!(held.data, link.data, "{shape}");
            }
            let again = executor.apply(&adds[..1]);
            // A veth that is as it was is verified: nobody else makes one with these two indices.
            let expected = if made.len() == 2 { Applied::Verified } else { Applied::Exists };
            assert_eq!(again, [expected], "{shape}");
            let gone = Action::Remove(Object::Link(made[0].clone()));
            assert_eq!(executor.apply(&[gone.clone(), gone]), [Applied::Verified, Applied::Gone], "{shape}");
            tested += 1;
        }
        eprintln!("{tested} of {} links", LINKS.len());
        assert!(tested >= 18, "too many links were refused");
    });
}

#[test]
fn a_veth_whose_other_end_is_not_asked_for_gets_one() {
    in_netns(|| {
        let mut executor = Executor::open().unwrap();
        ip("link add x0 type veth peer name x1");
        let before = shown();
        let held = links();
        let (x0, x1) = (held.named("x0").cloned().unwrap(), held.named("x1").cloned().unwrap());
        ip("link del x0");
        apply(&mut executor, &[Action::Add(Object::Link(x0))], "one end");
        assert!(links().get(x1.index).is_some());
        apply(&mut executor, &[Action::Add(Object::Link(x1))], "the other end, later");
        unchanged(&before, "both ends");
    });
}

#[test]
fn what_no_request_makes_is_refused_with_a_reason() {
    in_netns(|| {
        let mut executor = Executor::open().unwrap();
        if try_ip("tuntap add t0 mode tap").is_ok() {
            let tap = links().named("t0").cloned().unwrap();
            ip("link del t0");
            let applied = executor.apply(&[Action::Add(Object::Link(tap))]);
            let [Applied::Refused { errno: libc::EOPNOTSUPP, message: Some(message) }] = applied.as_slice()
            else {
                panic!("{applied:?}");
            };
            assert!(message.contains("/dev/net/tun"), "{message}");
        }
        let device = Link { index: 4000, name: "nic".into(), ..Link::default() };
        let applied = executor.apply(&[Action::Add(Object::Link(device))]);
        assert!(matches!(applied[0], Applied::Refused { errno: libc::EOPNOTSUPP, .. }), "{applied:?}");
        // A name that somebody else has taken.
        let mut eth0 = links().named("eth0").cloned().unwrap();
        (eth0.index, eth0.kind) = (4001, Some("bridge".into()));
        assert_eq!(executor.apply(&[Action::Add(Object::Link(eth0))]), [Applied::Exists]);
    });
}

#[test]
fn a_link_that_was_changed_is_changed_back() {
    in_netns(|| {
        let mut executor = Executor::open().unwrap();
        ip("link add x0 mtu 1400 type bridge stp_state 0 ageing_time 3000");
        ip("link set x0 addrgenmode none");
        ip("link set x0 up");
        let before = shown();
        let link = links().named("x0").cloned().unwrap();
        for spoil in [
            "link set x0 mtu 1350",
            "link set x0 down",
            // Older kernels rename only what is down.
            "link set x0 down; link set x0 name x9; link set x9 up",
            "link set x0 type bridge ageing_time 999 mcast_snooping 0",
            "link set x0 addrgenmode eui64",
            "link set x0 promisc on arp off",
            "link set x0 mtu 1300 down; link set x0 name x9",
        ] {
            spoil.split(';').for_each(|command| drop(ip(command)));
            assert_ne!(shown(), before, "{spoil}");
            apply(&mut executor, &[Action::Replace(Object::Link(link.clone()))], spoil);
            unchanged(&before, spoil);
        }
        ip("link del x0");
        assert_eq!(executor.apply(&[Action::Replace(Object::Link(link))]), [Applied::Gone]);
    });
}

#[test]
fn a_port_comes_back_with_its_options() {
    in_netns(|| {
        let mut executor = Executor::open().unwrap();
        ip("link add br0 type bridge");
        ip("link add other type bridge");
        ip("link set br0 up");
        ip("link set peer0 master br0");
        ip(
            "link set peer0 type bridge_slave hairpin on cost 33 priority 5 guard on root_block on fastleave on \
            learning off flood off proxy_arp on mcast_flood off bcast_flood off mcast_to_unicast on \
            neigh_suppress on isolated on mcast_router 2 group_fwd_mask 0x8 locked on",
        );
        let before = shown();
        let bridge = links().named("br0").cloned().unwrap();
        let port = links().named("peer0").and_then(|link| link.port.clone()).unwrap();
        let add = Action::Add(Object::Port(port.clone()));
        let replace = Action::Replace(Object::Port(port.clone()));

        ip("link set peer0 nomaster");
        assert_eq!(executor.apply(std::slice::from_ref(&replace)), [Applied::Verified]);
        unchanged(&before, "replaced");
        assert_eq!(executor.apply(std::slice::from_ref(&add)), [Applied::Exists]);

        ip("link set peer0 nomaster");
        ip("link set peer0 master other");
        assert_eq!(executor.apply(std::slice::from_ref(&add)), [Applied::Exists]);
        assert_eq!(executor.apply(std::slice::from_ref(&replace)), [Applied::Verified]);
        unchanged(&before, "taken from another bridge");

        ip("link set peer0 type bridge_slave hairpin off");
        assert_eq!(executor.apply(std::slice::from_ref(&replace)), [Applied::Verified]);
        unchanged(&before, "options alone");

        // The bridge with its port, in one go.
        ip("link del br0");
        apply(&mut executor, &[Action::Add(Object::Link(bridge)), add], "bridge and port");
        unchanged(&before, "with its bridge");

        let remove = Action::Remove(Object::Port(port.clone()));
        assert_eq!(executor.apply(&[remove]), [Applied::Verified]);
        assert_eq!(links().named("peer0").unwrap().port, None);
        ip("link del eth0");
        assert_eq!(executor.apply(&[replace]), [Applied::Gone]);
    });
}

/// What counts as somebody's doing must not change because a port comes or goes.
#[test]
fn a_bridge_is_the_same_whatever_ports_it_has() {
    in_netns(|| {
        ip("link add br0 type bridge");
        ip("link set br0 up");
        let settled = |link: &Link| (link.data.clone(), link.flags & iff::SETTABLE, link.addr_gen_mode);
        let before = links().named("br0").cloned().unwrap();
        ip("link set peer0 mtu 1400");
        for port in ["peer0", "peer1"] {
            ip(&format!("link set {port} master br0"));
            let now = links().named("br0").cloned().unwrap();
            assert_eq!(settled(&now), settled(&before), "{port}");
        }
        let mtu = |links: &Links| links.named("br0").map(|link| link.mtu);
        assert_eq!(mtu(&links()), Some(1400), "the kernel takes the smallest MTU of the ports");
        let others = |link: &Link| -> Vec<Attribute> {
            link.attributes.iter().filter(|a| ![1, 40, 41].contains(&a.number())).cloned().collect()
        };
        let now = links().named("br0").cloned().unwrap();
        assert_eq!(others(&now), others(&before));
    });
}

/// Whoever reads one and hears of the other must not see a change.
#[test]
fn a_notification_tells_what_a_dump_does() {
    in_netns(|| {
        ip("link add br0 type bridge");
        let mut listener = Listener::open(RECEIVE_BUFFER).unwrap();
        ip("link set peer0 master br0");
        ip("link property add dev peer0 altname another");
        ip("link set peer0 alias some_words group 9");
        ip("link set peer0 type bridge_slave hairpin on");
        ip("link set br0 type bridge ageing_time 999");
        ip("link set br0 up addrgenmode none");
        let held = links();
        let mut told = Links::default();
        let mut longest = 0;
        while comes(&listener, Duration::from_millis(300)) {
            let Some(Received::Datagram(datagram)) = listener.recv().unwrap() else { panic!("overrun") };
            for frame in frames(datagram).map(Result::unwrap) {
                if let Some(Notice::Set { object: Object::Link(link), .. }) = decode(&frame).unwrap() {
                    longest = longest.max(frame.payload.len() + 16);
                    told.set(link);
                }
            }
        }
        eprintln!("link messages of up to {longest} bytes");
        for name in ["br0", "peer0"] {
            let without_carrier = |link: &Link| Link { flags: link.flags & iff::SETTABLE, ..link.clone() };
            assert_eq!(
                told.named(name).map(without_carrier),
                held.named(name).map(without_carrier),
                "{name}"
            );
        }
    });
}
