//! A node with everything that is guarded, of kinds that rtnetlink makes: they can be taken away and made again.

use std::{fs::File, os::fd::AsRawFd, process::Command};

use anyhow::{Context, Result};

use crate::{Lab, NODE, PEER, TUNNEL, Tethered, tethered};

/// The service addresses of [`Lab::guarded`].
pub const VIPS: [&str; 2] = ["10.96.0.1", "10.96.0.10"];
/// Its IPv6 service address.
pub const VIP6: &str = "fd00:96::1";
/// The host ends of its pods' veth pairs, ports of `kube-bridge`.
pub const PORTS: [&str; 2] = ["veth0000a", "veth0000b"];

/// A pod: a network namespace that lives as long as its process.
#[derive(Debug)]
pub struct Pod {
    /// Its only process.
    pub process: Tethered,
}

impl Pod {
    /// A pod without links other than `lo`.
    pub fn new() -> Result<Self> {
        let mut process = tethered(
            Command::new("unshare")
                .args(["--net", "sh", "-c", "echo; exec sleep infinity"])
                .stdout(std::process::Stdio::piped()),
        )?;
        // The empty line says that it is in its own namespace.
        let stdout = process.child().stdout.as_mut().context("no output")?;
        std::io::Read::read_exact(stdout, &mut [0])?;
        Ok(Self { process })
    }

    /// Runs `ip` inside.
    pub fn ip(&self, words: &str) -> Result<()> {
        let status = Command::new("nsenter")
            .args(["--net", "--target", &self.process.pid().to_string(), "ip"])
            .args(words.split_whitespace())
            .status()?;
        anyhow::ensure!(status.success(), "ip {words} in a pod: {status}");
        Ok(())
    }

    /// Does something in its network namespace, on a thread of its own.
    pub fn inside<T: Send>(&self, what: impl FnOnce() -> Result<T> + Send) -> Result<T> {
        let namespace = File::open(format!("/proc/{}/ns/net", self.process.pid()))?;
        std::thread::scope(|scope| {
            let thread = scope.spawn(move || {
                // SAFETY: an open namespace descriptor; only this thread moves.
                if unsafe { libc::setns(namespace.as_raw_fd(), libc::CLONE_NEWNET) } != 0 {
                    return Err(std::io::Error::last_os_error()).context("cannot enter the pod");
                }
                what()
            });
            thread.join().map_err(|_| anyhow::anyhow!("it broke off"))?
        })
    }

    /// Ends it, and its namespace with it, by SIGKILL.
    pub fn kill(mut self) -> Result<()> {
        self.process.signal(libc::SIGKILL)?;
        self.process.wait(std::time::Duration::from_secs(5))?;
        Ok(())
    }
}

/// A node with pods.
#[derive(Debug)]
pub struct Node {
    /// Its namespace.
    pub lab: Lab,
    /// What is at the other end of [`PORTS`], in this order.
    pub pods: Vec<Pod>,
}

impl Lab {
    /// A node that has every kind of object that is guarded: `kube-bridge` with two pods in hairpin mode,
    /// `kube-dummy-if` with service addresses and their local routes, the tunnel (a vxlan, which this kernel
    /// makes by rtnetlink as others make ipip), routes in all tables, rules, nexthop objects with routes.
    pub fn guarded() -> Result<Node> {
        let lab = Self::new()?;
        lab.uplink()?;
        lab.batch(&format!("addr add {NODE}/24 dev eth0\naddr add fd00:10::10/64 dev eth0\n"))?;
        let pods = lab.kube_objects()?;
        Ok(Node { lab, pods })
    }

    /// The same on a node whose `eth0` has its addresses.
    pub fn kube_objects(&self) -> Result<Vec<Pod>> {
        self.kube_links_with_vxlan()?;
        self.kube_routes()?;
        self.kube_routes6()?;
        self.batch(&format!(
            "addr add {}/32 dev kube-dummy-if scope link\n\
             addr add {VIP6}/128 dev kube-dummy-if\n\
             addr add fd00:244:1::1/64 dev kube-bridge\n\
             route replace local {}/32 dev kube-dummy-if table local proto kernel scope host src {NODE}\n\
             nexthop add id 17 dev {TUNNEL} proto 17\n\
             nexthop add id 18 via {PEER} dev eth0 proto 17\n\
             nexthop add id 19 group 17,2/18,3 proto 17\n\
             route add 10.244.7.0/24 nhid 17 proto 17\n\
             route add 10.244.8.0/24 nhid 18 proto 17\n\
             route add 10.244.9.0/24 nhid 19 proto 17\n",
            VIPS[1], VIPS[1],
        ))?;
        self.ip("-6 rule add from fd00:244:1::/64 lookup 77")?;
        self.ip("-6 rule add prio 32764 fwmark 0x1234 lookup 78")?;
        let pods = PORTS.iter().map(|port| self.pod(port)).collect::<Result<_>>()?;
        self.settle()?;
        Ok(pods)
    }

    /// As [`Self::kube_links`], with a vxlan for the tunnel.
    pub fn kube_links_with_vxlan(&self) -> Result<()> {
        self.batch(&format!(
            "link add kube-bridge address 02:00:0a:f4:01:01 type bridge\n\
             link set kube-bridge up\n\
             addr add 10.244.1.1/24 dev kube-bridge\n\
             link add kube-dummy-if type bridge\n\
             link set kube-dummy-if up\n\
             addr add 10.96.0.1/32 dev kube-dummy-if scope link\n\
             link add {TUNNEL} type vxlan id 77 local {NODE} remote 10.1.0.12 dstport 4789\n\
             link set {TUNNEL} mtu 1480 up\n"
        ))
    }

    /// A pod whose host end, named `port`, is a port of `kube-bridge`.
    pub fn pod(&self, port: &str) -> Result<Pod> {
        let pod = Pod::new()?;
        self.batch(&format!(
            "link add {port} type veth peer name eth0 netns {}\n\
             link set {port} master kube-bridge\n\
             link set {port} type bridge_slave hairpin on\n\
             link set {port} up\n",
            pod.process.pid()
        ))?;
        pod.ip("link set eth0 up")?;
        Ok(pod)
    }

    /// A tun link that lives as long as the process that holds it.
    pub fn held_tun(&self, name: &str) -> Result<Tethered> {
        let file = File::options().read(true).write(true).open("/dev/net/tun")?;
        let mut request = [0_u8; 40];
        request[..name.len()].copy_from_slice(name.as_bytes());
        // IFF_TUN | IFF_NO_PI.
        request[16..18].copy_from_slice(&0x1001_u16.to_ne_bytes());
        // SAFETY: `struct ifreq` is 40 bytes on 64-bit machines; TUNSETIFF reads and writes within it.
        if unsafe { libc::ioctl(file.as_raw_fd(), 0x4004_54ca, request.as_mut_ptr()) } != 0 {
            return Err(std::io::Error::last_os_error()).context("TUNSETIFF");
        }
        // The standard input of the child is the only thing that holds it.
        let holder = tethered(Command::new("sleep").arg("infinity").stdin(file))?;
        self.ip(&format!("link set {name} up"))?;
        Ok(holder)
    }
}
