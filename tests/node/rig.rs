//! The node and what is around it.

use std::{
    fs::{self, File},
    io::{Read as _, Write as _},
    os::unix::fs::OpenOptionsExt as _,
    path::Path,
    process::Command,
    sync::OnceLock,
    thread,
    time::Duration,
};

use anyhow::{Context, Result, bail, ensure};
use lab::{Event, Pod, TUNNEL, Tethered, dns, wait_for};

/// The node's address, which it gets from the other node or has been given.
pub const NODE: &str = "192.168.77.10";
/// The other node's.
pub const OTHER: &str = "192.168.77.2";
/// The DNS server, a pod's address on the other node.
const SERVER: &str = "10.244.2.53";
/// The other node's pods, behind the tunnel.
pub const PODS: &str = "10.244.2.0/24";
/// The service address by which it is asked.
pub const SERVICE: &str = "10.96.0.10";

/// The network cards, by address.
const CARDS: [&str; 2] = ["52:54:00:00:00:01", "52:54:00:00:00:02"];

/// Where the guardian's state is, as its unit has a user of its own (`DynamicUser=`).
const STATE: &str = "/var/lib/private/route-guardian";

/// kube-router's place: an `ip` there is obeyed.
const OWNER: &str = "/usr/local/bin/kube-router";

const FOLDER: &str = "/etc/systemd/network";

/// How long the node may take for anything, were it not emulated (`lab::slowness`).
pub const SLOW: Duration = Duration::from_secs(6);

/// How the administrator has set up systemd-networkd.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Setup {
    /// `eth0` by DHCP, nothing else.
    Dhcp,
    /// `eth0` with a fixed address.
    Static,
    /// By DHCP what looks like a card, by the file that Flatcar Container Linux comes with. To systemd a dummy does.
    Cards,
    /// By DHCP whatever link there is, as on Container Linux.
    CatchAll,
    /// As [`Setup::Dhcp`], but it has not been started yet: somebody else has set the address.
    Late,
}

impl Setup {
    /// Whether networkd takes apart what kube-router is just making, so that the guardian has to be there first.
    fn takes_what_is_new(self) -> bool {
        matches!(self, Self::Cards | Self::CatchAll)
    }

    const fn files(self) -> (&'static str, &'static str) {
        match self {
            Self::Dhcp | Self::Late => ("10-eth0.network", "[Match]\nName=eth0\n[Network]\nDHCP=ipv4\n"),
            Self::Static => ("10-eth0.network", "[Match]\nName=eth0\n[Network]\nAddress=192.168.77.10/24\n"),
            Self::Cards => (
                "zz-default.network",
                "[Match]\nName=*\nType=!loopback dummy bridge tunnel vxlan wireguard\nDriver=!veth\n\
                 [Network]\nDHCP=ipv4\nKeepConfiguration=dhcp-on-stop\n",
            ),
            Self::CatchAll => ("zz-default.network", "[Match]\nName=*\n[Network]\nDHCP=ipv4\n"),
        }
    }
}

/// A node with kube-router's state, another node on its cable, and a pod on either.
pub struct Rig {
    /// The pod on this node.
    pub pod: Pod,
    /// The other node, a namespace with the second card.
    other: Pod,
    _dnsmasq: Tethered,
    setup: Setup,
}

impl Rig {
    /// Sets it up anew: systemd-networkd has configured `eth0`, and then kube-router has come.
    pub fn new(setup: Setup) -> Result<Self> {
        let first = fs::read_to_string("/proc/1/comm")?;
        ensure!(
            first.trim() == "systemd" && Path::new("/job").exists(),
            "this takes its machine apart, and is for a guest: `cargo xtask vm --node`"
        );
        clean()?;
        // Cards may be getting their names still.
        run("udevadm", "settle")?;
        let other = Pod::new()?;
        let (here, there) = (card(CARDS[0])?, card(CARDS[1])?);
        if here != "eth0" {
            ip(&format!("link set {here} down"))?;
            ip(&format!("link set {here} name eth0"))?;
        }
        ip(&format!("link set {there} down"))?;
        ip(&format!("link set {there} netns {}", other.process.pid()))?;
        if there != "eth0" {
            other.ip(&format!("link set {there} name eth0"))?;
        }
        for words in [
            "link set lo up",
            "link set eth0 up",
            "addr add 192.168.77.2/24 dev eth0",
            "addr add 10.244.2.53/32 dev lo",
            "link add tun-node type ipip local 192.168.77.2 remote 192.168.77.10",
            "link set tun-node up",
            "route add 10.244.1.0/24 dev tun-node",
        ] {
            other.ip(words)?;
        }
        let dnsmasq = dnsmasq(&other)?;
        fs::create_dir_all(FOLDER)?;
        let (file, text) = setup.files();
        fs::write(Path::new(FOLDER).join(file), text)?;
        if setup == Setup::Late {
            ip(&format!("addr add {NODE}/24 dev eth0"))?;
            ip("link set eth0 up")?;
        } else {
            systemctl("restart systemd-networkd")?;
        }
        wait_for("eth0's address", SLOW, || Ok(show("-4 addr show dev eth0")?.contains(NODE)))?;
        if setup.takes_what_is_new() {
            guardian()?;
        }
        let pod = Pod::new()?;
        kube_router(&pod)?;
        let rig = Self { pod, other, _dnsmasq: dnsmasq, setup };
        if let Err(error) = wait_for("the pod's queries", SLOW, || rig.answers()) {
            let here = [show("-4 route show table all")?, show("-s -o link")?, rig.counters()?];
            bail!("{error}\n{}", here.join("\n"));
        }
        // networkd may not have finished with what is new, nor the guardian with networkd.
        let mut last = String::new();
        wait_for("a node at rest", SLOW, || {
            thread::sleep(Duration::from_secs(3));
            let now = state()?;
            let rests = now == last && now.contains("master kube-bridge");
            last = now;
            Ok(rests)
        })?;
        Ok(rig)
    }

    /// Whether the pod's queries are answered at once.
    pub fn answers(&self) -> Result<bool> {
        let stream = dns::Stream::start(&self.pod, SERVICE)?;
        thread::sleep(Duration::from_millis(300));
        let tally = stream.stop()?;
        Ok(tally.asked > 0 && tally.late + tally.lost + tally.open == 0)
    }

    /// What IPVS and the other node have counted, for when nothing comes through.
    fn counters(&self) -> Result<String> {
        let ipvs = Command::new("ipvsadm").args(["-L", "-n", "--stats"]).output()?;
        let mut other = Command::new("nsenter");
        other.args(["--net", "--target", &self.other.process.pid().to_string(), "ip", "-s", "-o", "link"]);
        let texts = [ipvs.stdout, ipvs.stderr, other.output()?.stdout];
        Ok(texts.map(|text| String::from_utf8_lossy(&text).into_owned()).join("\n"))
    }

    /// A change of the file that is none in what it says, so that networkd takes it for another.
    pub fn touch(&self) -> Result<()> {
        let (file, text) = self.setup.files();
        let path = Path::new(FOLDER).join(file);
        let old = fs::read_to_string(&path)?;
        let mark = "[Link]\nRequiredForOnline=no\n";
        fs::write(path, if old.contains(mark) { text.to_owned() } else { format!("{text}{mark}") })?;
        Ok(())
    }
}

/// Nothing of an earlier test is left.
fn clean() -> Result<()> {
    // With its socket, which starts it again at the next change.
    systemctl("stop route-guardian systemd-networkd.socket systemd-networkd")?;
    let _ = systemctl("reset-failed");
    for folder in [FOLDER, "/etc/systemd/networkd.conf.d", "/run/systemd/netif", STATE] {
        if Path::new(folder).exists() {
            fs::remove_dir_all(folder)?;
        }
    }
    for link in ["veth0000a", "kube-bridge", "kube-dummy-if", TUNNEL, "tun-fou"] {
        // What is not there need not go.
        let _ = ip(&format!("link del {link}"));
    }
    let _ = Command::new("ipvsadm").arg("-C").status();
    for table in ["77", "78", "79"] {
        // The kernel's own rules stay: networkd would take others for foreign.
        while ip(&format!("rule del lookup {table}")).is_ok() {}
        let _ = ip(&format!("route flush table {table}"));
    }
    let _ = ip("route flush proto 17");
    if let Ok(card) = card(CARDS[0]) {
        ip(&format!("addr flush dev {card}"))?;
    }
    // The second card comes back when the namespace that has it goes.
    wait_for("the second card", SLOW, || Ok(card(CARDS[1]).is_ok()))
}

/// The name of the card with this address.
fn card(mac: &str) -> Result<String> {
    for entry in fs::read_dir("/sys/class/net")?.filter_map(Result::ok) {
        if fs::read_to_string(entry.path().join("address")).is_ok_and(|address| address.trim() == mac) {
            return Ok(entry.file_name().to_string_lossy().into_owned());
        }
    }
    bail!("no network card has the address {mac}")
}

/// Gives the node its address, and answers queries. The router that it tells of knows nothing of pods, and is not there.
fn dnsmasq(other: &Pod) -> Result<Tethered> {
    let lease = format!("--dhcp-host={},{NODE}", CARDS[0]);
    let range = "--dhcp-range=192.168.77.10,192.168.77.10,5m";
    let router = "--dhcp-option=option:router,192.168.77.1";
    dns::serve(other, &["--leasefile-ro", range, &lease, router, "--dhcp-authoritative", "--no-ping"])
}

/// What kube-router makes of the node, of the kinds that it makes it of.
fn kube_router(pod: &Pod) -> Result<()> {
    fs::create_dir_all("/usr/local/bin")?;
    fs::write("/proc/sys/net/ipv4/ip_forward", "1")?;
    // It stays when a test ends.
    let _ = ip("fou add port 5556 ipproto 4");
    let lines = format!(
        "link add {TUNNEL} type ipip local {NODE} remote {OTHER}\n\
         link set {TUNNEL} mtu 1480 up\n\
         link add tun-fou type ipip local {NODE} remote 192.168.77.3 encap fou encap-sport auto encap-dport 5556\n\
         link set tun-fou up\n\
         link add kube-bridge address 02:00:0a:f4:01:01 type bridge\n\
         link set kube-bridge up\n\
         addr add 10.244.1.1/24 dev kube-bridge\n\
         link add kube-dummy-if type dummy\n\
         link set kube-dummy-if up\n\
         addr add 10.96.0.1/32 dev kube-dummy-if scope link\n\
         addr add {SERVICE}/32 dev kube-dummy-if scope link\n\
         route replace local {SERVICE}/32 dev kube-dummy-if table local proto kernel scope host src {NODE}\n\
         route add 192.168.77.4 dev {TUNNEL} table 77\n\
         route add local default dev lo table 78\n\
         route add 10.97.0.0/24 dev kube-bridge table 79\n\
         link add veth0000a type veth peer name eth0 netns {}\n\
         link set veth0000a master kube-bridge\n\
         link set veth0000a up\n",
        pod.process.pid()
    );
    fs::copy(fs::canonicalize("/usr/sbin/ip").or_else(|_| fs::canonicalize("/usr/bin/ip"))?, OWNER)?;
    for line in lines.lines() {
        run(OWNER, line)?;
    }
    routes("add")?;
    for rule in [
        "from 10.244.1.0/24 lookup 79",
        "prio 32764 fwmark 0x1234 lookup 78",
        "prio 32765 from all lookup 77",
    ] {
        run(OWNER, &format!("rule add {rule}"))?;
    }
    for words in [
        "link set lo up",
        "link set eth0 up",
        "addr add 10.244.1.5/24 dev eth0",
        "route add default via 10.244.1.1",
    ] {
        pod.ip(words)?;
    }
    run("ipvsadm", &format!("-A -u {SERVICE}:53 -s rr"))?;
    run("ipvsadm", &format!("-a -u {SERVICE}:53 -r {SERVER}:53 -m"))
}

/// The routes to the other nodes' pods, as kube-router makes them (`add`), or when it next looks (`replace`).
pub fn routes(how: &str) -> Result<()> {
    for line in [
        format!("{PODS} dev {TUNNEL} src {NODE}"),
        format!("10.244.3.0/24 via {OTHER} dev eth0"),
        format!("10.244.4.0/24 dev tun-fou src {NODE}"),
    ] {
        run(OWNER, &format!("route {how} {line} proto 17"))?;
    }
    Ok(())
}

/// The guardian, as the installed unit.
pub fn guardian() -> Result<()> {
    systemctl("start route-guardian")?;
    guards()
}

/// Waits until it guards.
pub fn guards() -> Result<()> {
    wait_for("the guardian", SLOW, || Ok(ask("status")?.contains("Protected:")))
}

/// What a command of the guardian prints, whatever its exit status.
pub fn ask(words: &str) -> Result<String> {
    let output = Command::new("route-guardian").args(words.split_whitespace()).output()?;
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

/// Its records since the beginning, each in its last state.
pub fn events() -> Result<Vec<Event>> {
    let mut events: Vec<Event> = Vec::new();
    for line in ask("events -o json")?.lines().filter(|line| !line.trim().is_empty()) {
        let event = Event(serde_json::from_str(line).with_context(|| format!("not a record: {line}"))?);
        match events.iter_mut().find(|known| known.id() == event.id()) {
            Some(known) => *known = event,
            None => events.push(event),
        }
    }
    Ok(events)
}

/// What there is of kube-router's, in lines that can be compared.
pub fn state() -> Result<String> {
    let mut lines = Vec::new();
    for what in ["-4 route show table all", "-4 rule", "-6 rule", "-o -4 addr", "-o link"] {
        let text = show(what)?;
        let of_kube = |line: &&str| {
            ["proto 17", "kube-", "tun-", "table 7", "lookup 7", "veth0000a"]
                .iter()
                .any(|word| line.contains(word))
        };
        lines.extend(text.lines().filter(of_kube).map(|line| settled(what, line)));
    }
    lines.sort();
    Ok(lines.join("\n"))
}

/// Without what the kernel counts or finds out, and without indices in the order of links.
fn settled(what: &str, line: &str) -> String {
    let line = line.replace(" linkdown", "").replace(" dead", "");
    match what {
        "-o link" => {
            let words: Vec<&str> = line.split_whitespace().collect();
            let after =
                |key| words.iter().skip_while(|word| **word != key).nth(1).copied().unwrap_or_default();
            let up = line.contains("UP");
            format!(
                "link {} mtu {} master {} up {up}",
                words.get(1).unwrap_or(&""),
                after("mtu"),
                after("master")
            )
        }
        _ => line.split_whitespace().collect::<Vec<_>>().join(" "),
    }
}

/// Where QEMU listens, in its machine protocol (QMP): for a terminal it would draw each line anew with each character of
/// it, which keeps an emulated guest busy for seconds.
const PORT: &str = "/dev/ttyS2";

/// That line. It stays open, as what is set of it is forgotten when it is closed: an echo of what QEMU says would be taken
/// for commands.
fn machine() -> Result<&'static File> {
    static LINE: OnceLock<File> = OnceLock::new();
    if let Some(line) = LINE.get() {
        return Ok(line);
    }
    let mut options = fs::OpenOptions::new();
    options.read(true).write(true).custom_flags(libc::O_NONBLOCK | libc::O_NOCTTY);
    let line = options.open(PORT).context(PORT)?;
    run("stty", &format!("-F {PORT} raw -echo"))?;
    Ok(LINE.get_or_init(|| line))
}

/// Tells QEMU, over the third serial port, that the card's cable is in or out.
pub fn cable(on: bool) -> Result<()> {
    let mut line = machine()?;
    // The first byte makes QEMU forget what it has of an order that it does not understand: what it said before the echo
    // was off came back to it, and was cut in two when that was done.
    let orders = format!(
        "{}\r\n{}\r\n",
        serde_json::json!({"execute": "qmp_capabilities"}),
        serde_json::json!({"execute": "set_link", "arguments": {"name": "n0", "up": on}})
    );
    line.write_all(b"\xff\r\n")?;
    line.write_all(orders.as_bytes())?;
    let carrier = || {
        let carrier = fs::read_to_string("/sys/class/net/eth0/carrier").unwrap_or_default();
        Ok(carrier.trim() == if on { "1" } else { "0" })
    };
    let come = wait_for(&format!("the cable, in: {on}"), Duration::from_secs(10), carrier);
    // Also so that it does not pile up.
    let mut said = vec![0; 4096];
    let len = line.read(&mut said).unwrap_or_default();
    said.truncate(len);
    come.map_err(|error| error.context(format!("QEMU said: {:?}", String::from_utf8_lossy(&said))))
}

/// Runs `ip`.
pub fn ip(words: &str) -> Result<()> {
    run("ip", words)
}

/// What `ip` shows.
pub fn show(words: &str) -> Result<String> {
    let output = Command::new("ip").args(words.split_whitespace()).output()?;
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

/// Runs `systemctl`.
pub fn systemctl(words: &str) -> Result<()> {
    run("systemctl", words)
}

/// Runs a program that has to succeed.
pub fn run(program: &str, words: &str) -> Result<()> {
    let output = Command::new(program).args(words.split_whitespace()).output()?;
    let said = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "{program} {words}: {}: {said}", output.status);
    Ok(())
}
