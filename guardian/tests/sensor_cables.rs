//! Ports that are out of their bridge, and reach it nevertheless.
//!
//! As the other tests of sensors they need root and `ip`.

mod sensor_lab;

use std::{
    io,
    net::UdpSocket,
    process::{Command, Stdio},
    sync::mpsc::{Sender, channel},
    thread,
    time::Duration,
};

use route_guardian::{
    model::{Cable, ProcessId, Stamp},
    sensor::{Cables, Sensors},
};
use sensor_lab::{ifindex, in_namespace, ip, now};

const NODE: &str = "10.8.0.1";
const PODS: [(&str, &str); 2] = [("p0", "10.8.0.2"), ("p1", "10.8.0.3")];
const ADDRESS: [u8; 6] = [2, 0, 10, 8, 0, 1];

/// Longer than an answer takes, and shorter than it takes to ask for a neighbour again.
const PATIENCE: Duration = Duration::from_millis(300);

const LONG: Duration = Duration::from_secs(60);

/// Somebody on the network. A socket stays in the network namespace that it was made in.
struct End {
    socket: UdpSocket,
    address: &'static str,
}

impl End {
    fn new(address: &'static str) -> Self {
        let socket = UdpSocket::bind((address, 53)).unwrap();
        socket.set_read_timeout(Some(PATIENCE)).unwrap();
        Self { socket, address }
    }

    /// Whether something of mine reaches the other.
    fn reaches(&self, other: &Self) -> bool {
        static NUMBER: std::sync::atomic::AtomicU32 = std::sync::atomic::AtomicU32::new(0);
        let number = NUMBER.fetch_add(1, std::sync::atomic::Ordering::Relaxed).to_ne_bytes();
        self.socket.send_to(&number, (other.address, 53)).unwrap();
        let mut buffer = [0; 4];
        loop {
            match other.socket.recv(&mut buffer) {
                Ok(_) if buffer == number => return true,
                // Something that came late.
                Ok(_) => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return false,
                Err(error) => panic!("{error}"),
            }
        }
    }
}

/// A pod on the bridge. Its namespace goes when this does.
struct Pod {
    end: End,
    tid: i32,
    _stop: Sender<()>,
}

impl Pod {
    fn new(port: &'static str, address: &'static str) -> Self {
        let (stop, until) = channel::<()>();
        let (to_test, from_pod) = channel();
        let (to_pod, from_test) = channel();
        thread::spawn(move || {
            sensor_lab::unshare();
            // SAFETY: no arguments.
            to_test.send(Err(unsafe { libc::gettid() })).unwrap();
            from_test.recv().unwrap();
            ip("link set eth0 up");
            ip(&format!("addr add {address}/24 dev eth0"));
            to_test.send(Ok(End::new(address))).unwrap();
            until.recv().unwrap_err();
        });
        let Ok(Err(tid)) = from_pod.recv() else { panic!("no pod") };
        ip(&format!("link add {port} type veth peer name eth0 netns {tid}"));
        ip(&format!("link set {port} master br0"));
        ip(&format!("link set {port} up"));
        to_pod.send(()).unwrap();
        let Ok(Ok(end)) = from_pod.recv() else { panic!("no pod") };
        Self { end, tid, _stop: stop }
    }

    /// It has to ask who is who.
    fn forget_neighbours(&self) {
        let namespace = format!("--net=/proc/{}/ns/net", self.tid);
        sensor_lab::run("nsenter", &[&namespace, "ip", "neigh", "flush", "dev", "eth0"]);
    }
}

/// A node with pods, of which all reach each other.
struct Node {
    sensors: Sensors,
    end: End,
    pods: Vec<Pod>,
}

impl Node {
    fn new() -> Self {
        ip("link add br0 address 02:00:0a:08:00:01 type bridge");
        ip("link set br0 up");
        ip(&format!("addr add {NODE}/24 dev br0"));
        forward(true);
        let pods: Vec<Pod> = PODS.iter().map(|(port, address)| Pod::new(port, address)).collect();
        let sensors = Sensors::open(&sensor_lab::everything()).unwrap();
        let node = Self { sensors, end: End::new(NODE), pods };
        for (one, other) in node.pairs() {
            // A port that has just come up may not forward yet.
            assert!((0..10).any(|_| one.reaches(other)), "{} to {}", one.address, other.address);
        }
        node
    }

    fn pairs(&self) -> impl Iterator<Item = (&End, &End)> {
        let ends = || self.pods.iter().map(|pod| &pod.end).chain([&self.end]);
        ends()
            .flat_map(move |one| ends().map(move |other| (one, other)))
            .filter(|(one, other)| one.address != other.address)
    }

    /// Everybody reaches everybody, also who has to ask first who that is.
    fn is_whole(&self, when: &str) {
        for pod in &self.pods {
            pod.forget_neighbours();
        }
        ip("neigh flush dev br0");
        for (one, other) in self.pairs() {
            assert!((0..3).any(|_| one.reaches(other)), "{when}: {} to {}", one.address, other.address);
        }
    }

    fn cables(&self) -> &Cables {
        self.sensors.cables().expect("this kernel does not take the programs")
    }

    /// Lends a cable to these ports for so long; the other ones are ready.
    fn lend(&self, ports: &[&str], time: Duration) {
        let until = |port| ports.contains(&port).then(|| now().after(time));
        self.order(PODS.iter().map(|(port, _)| (*port, until(*port))), 0, time);
    }

    /// Takes all back.
    fn take_back(&self) {
        self.order([].into_iter(), 0, LONG);
    }

    fn order<'a>(&self, ports: impl Iterator<Item = (&'a str, Option<Stamp>)>, by: u32, time: Duration) {
        let cables =
            ports.map(|(port, until)| (ifindex(port), cable(port, ("br0", ifindex("br0")), by, time, until)));
        assert!(self.cables().order(cables.collect()), "nobody else works here");
        self.cables().lend();
    }
}

/// Whether the node passes on what is for others.
fn forward(on: bool) {
    std::fs::write("/proc/sys/net/ipv4/ip_forward", if on { "1" } else { "0" }).unwrap();
}

fn cable(
    port: &str,
    (bridge_name, bridge): (&str, u32),
    by: u32,
    time: Duration,
    until: Option<Stamp>,
) -> Cable {
    Cable {
        port: port.to_owned(),
        bridge,
        bridge_name: bridge_name.to_owned(),
        bridge_gone: 0,
        address: ADDRESS,
        by: ProcessId { tgid: by, start_ns: 0 },
        time,
        until,
    }
}

#[test]
fn a_port_out_of_its_bridge_reaches_the_node_and_the_node_reaches_it() {
    in_namespace(|| {
        let node = Node::new();
        let pod = &node.pods[0].end;
        ip("link set p0 nomaster");
        assert!(!pod.reaches(&node.end) && !node.end.reaches(pod), "it is not out");
        node.lend(&["p0"], LONG);
        assert!(node.end.reaches(pod), "where it is nobody has heard yet");
        node.is_whole("one is out");
        assert!(PODS.iter().all(|(port, _)| node.cables().is_attached(ifindex(port))));
        ip("link set p1 nomaster");
        node.lend(&["p0", "p1"], LONG);
        node.is_whole("both are out");
        // Back, and nothing is in the way; nor is there anything afterwards.
        ip("link set p0 master br0");
        node.lend(&["p1"], LONG);
        node.is_whole("one is back, and is ready");
        ip("link set p1 master br0");
        node.take_back();
        node.is_whole("both are back");
        for (link, way) in [("p0", "ingress"), ("p1", "ingress"), ("br0", "egress")] {
            let left = Command::new("tc").args(["filter", "show", "dev", link, way]).output().unwrap();
            assert!(left.status.success() && left.stdout.is_empty(), "{link}: {left:?}");
        }
        ip("link set p0 nomaster");
        assert!(!pod.reaches(&node.end) && !node.end.reaches(pod), "it was taken back");
    });
}

/// The process that it is ready for switches it on by what it does, without anybody else's help; and whoever puts the port
/// back switches it off.
#[test]
fn a_cable_that_is_ready_carries_from_the_moment_in_which_the_port_leaves() {
    in_namespace(|| {
        let node = Node::new();
        let (pod, other) = (&node.pods[0].end, &node.pods[1].end);
        // It becomes `ip` when it is told to.
        let mut taker = Command::new("sh")
            .args(["-c", "read go; exec ip link set p0 nomaster"])
            .stdin(Stdio::piped())
            .spawn()
            .unwrap();
        node.order(PODS.iter().map(|(port, _)| (*port, None)), taker.id(), LONG);
        for (one, other) in node.pairs() {
            assert!(one.reaches(other), "{} to {}", one.address, other.address);
        }
        ip("link set p0 nomaster");
        assert!(!pod.reaches(&node.end) && !node.end.reaches(pod), "by somebody else");
        ip("link set p0 master br0");

        drop(taker.stdin.take());
        assert!(taker.wait().unwrap().success());
        assert!(node.end.reaches(pod), "it was heard before");
        assert!(pod.reaches(&node.end));
        ip("link set p0 master br0");
        assert!(node.end.reaches(pod) && pod.reaches(&node.end), "it is back");
        // What goes by a cable to another pod goes by the node, which passes nothing on now; and a moment longer.
        forward(false);
        assert!(!pod.reaches(other), "it is off already");
        thread::sleep(Duration::from_secs(1));
        assert!((0..3).any(|_| pod.reaches(other)) && other.reaches(pod), "it is on still");
    });
}

/// systemd-networkd may have been started again since, and take a port first of all; by the file that it is, whatever name
/// somebody gives himself.
#[test]
fn a_later_run_of_networkd_switches_it_on() {
    in_namespace(|| {
        let node = Node::new();
        let pod = &node.pods[0].end;
        let folder = tempfile::tempdir().unwrap();
        node.order(PODS.iter().map(|(port, _)| (*port, None)), 1, LONG);
        for (one, other) in node.pairs() {
            assert!(one.reaches(other), "{} to {}", one.address, other.address);
        }
        for (name, is_one) in
            [("systemd-network", false), ("systemd-networkd2", false), ("systemd-networkd", true)]
        {
            let program = folder.path().join(name);
            sensor_lab::run("sh", &["-c", &format!("cp \"$(command -v ip)\" {}", program.display())]);
            let status = Command::new(&program).args(["link", "set", "p0", "nomaster"]).status().unwrap();
            assert!(status.success());
            assert_eq!(node.end.reaches(pod) && pod.reaches(&node.end), is_one, "{name}");
            ip("link set p0 master br0");
        }
    });
}

/// A bridge that is put back has its number again, and nothing of what was attached to it.
#[test]
fn a_bridge_that_was_away_is_attached_to_again() {
    in_namespace(|| {
        let node = Node::new();
        let pod = &node.pods[0].end;
        node.lend(&["p0"], LONG);
        let bridge = ifindex("br0");
        ip("link del br0");
        ip(&format!("link add br0 index {bridge} address 02:00:0a:08:00:01 type bridge"));
        ip("link set br0 up");
        ip(&format!("addr add {NODE}/24 dev br0"));
        assert!(!node.end.reaches(pod), "there is no way");
        let mut back = cable("p0", ("br0", bridge), 0, LONG, Some(Stamp(u64::MAX)));
        back.bridge_gone = 1;
        assert!(node.cables().order([(ifindex("p0"), back)].into()));
        node.cables().lend();
        assert!((0..3).any(|_| node.end.reaches(pod)) && pod.reaches(&node.end));
    });
}

/// Whatever becomes of the daemon; and it is in nobody's way.
#[test]
fn a_cable_ends_when_its_time_is_up() {
    in_namespace(|| {
        let node = Node::new();
        let pod = &node.pods[0].end;
        ip("link set p0 nomaster");
        node.lend(&["p0"], Duration::from_secs(2));
        assert!(pod.reaches(&node.end) && node.end.reaches(pod));
        thread::sleep(Duration::from_millis(2100));
        assert!(!pod.reaches(&node.end) && !node.end.reaches(pod));

        // A link that is gone, one that never was, more than there is room for: the others are lent theirs.
        let until = Some(Stamp(u64::MAX));
        let bridge = ("br0", ifindex("br0"));
        let here = (ifindex("p0"), cable("p0", bridge, 0, LONG, until));
        let gone =
            [(700, cable("p7", bridge, 0, LONG, until)), (701, cable("p8", ("br9", 999), 0, LONG, until))];
        let many = (1000..1400).map(|port| (port, cable("p9", ("br9", 999), 0, LONG, until)));
        assert!(node.cables().order(many.chain(gone).chain([here]).collect()));
        node.cables().lend();
        assert!(pod.reaches(&node.end) && node.end.reaches(pod));
        assert!(!node.cables().is_attached(700));
        ip("link del p0");
        node.take_back();
    });
}
