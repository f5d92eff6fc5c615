//! A private network namespace with what kube-router makes of a node.

use std::{
    ffi::OsStr,
    fs::{self, File},
    io::{self, Write},
    os::fd::AsRawFd,
    path::{Path, PathBuf},
    process::{Command, Output, Stdio},
};

use anyhow::{Context, Result, bail, ensure};
use serde_json::Value;

use crate::{Pod, guardian::Launch, netlink::Client, process::Reaper};

/// The node's own address on `eth0`.
pub const NODE: &str = "10.0.0.10";
/// A neighbour of the node, another node of the cluster.
pub const PEER: &str = "10.0.0.11";
/// kube-router's name for the tunnel to 10.1.0.12: `tun-` and eleven digits of the SHA-256 of the address
/// without its dots.
pub const TUNNEL: &str = "tun-ab704e21df6";

/// The network namespace of this thread.
const NAMESPACE: &str = "/proc/thread-self/ns/net";

/// A network namespace with a folder for its files.
#[derive(Debug)]
pub struct Lab {
    namespace: File,
    /// Before the folder goes, what is at work in it has to.
    _reaper: Reaper,
    dir: tempfile::TempDir,
}

impl Lab {
    /// Makes a network namespace, and moves this thread into it; `lo` is up, IPv6 is quiet (no link-local
    /// addresses, no duplicate address detection, whose routes come and go by themselves).
    pub fn new() -> Result<Self> {
        Self::within(&std::env::temp_dir())
    }

    /// As [`Self::new`], with its files in a new folder below `parent`.
    pub fn within(parent: &Path) -> Result<Self> {
        // SAFETY: takes nothing and always succeeds.
        let root = unsafe { libc::geteuid() } == 0;
        ensure!(root, "network namespaces need root; `cargo xtask test` sees to it");
        let outside = fs::read_link(NAMESPACE)?;
        // SAFETY: changes only which network namespace this thread is in.
        if unsafe { libc::unshare(libc::CLONE_NEWNET) } != 0 {
            return Err(io::Error::last_os_error()).context("cannot make a network namespace");
        }
        let inside = fs::read_link(NAMESPACE)?;
        ensure!(inside != outside, "this is still the network namespace {}", outside.display());
        let dir = tempfile::Builder::new().prefix("route-guardian-").tempdir_in(parent)?;
        let lab = Self {
            namespace: File::open(NAMESPACE)?,
            _reaper: Reaper::new(&inside.to_string_lossy(), dir.path())?,
            dir,
        };
        lab.sysctl("net/ipv6/conf/default/addr_gen_mode", "1")?;
        lab.sysctl("net/ipv6/conf/default/accept_dad", "0")?;
        lab.ip("link set lo up")?;
        Ok(lab)
    }

    /// Moves this thread into this namespace again, for one that has made another since.
    pub fn enter(&self) -> Result<()> {
        // SAFETY: a namespace descriptor that `self` keeps open.
        if unsafe { libc::setns(self.namespace.as_raw_fd(), libc::CLONE_NEWNET) } != 0 {
            return Err(io::Error::last_os_error()).context("cannot enter the network namespace");
        }
        Ok(())
    }

    /// Its folder, which goes away with it.
    pub fn dir(&self) -> &Path {
        self.dir.path()
    }

    /// A guardian for this namespace, to be started.
    pub fn guardian(&self) -> Launch<'_> {
        Launch::new(self)
    }

    /// What the guardians that have been started here have logged, for whom it concerns.
    pub fn logs(&self) -> String {
        let folders = fs::read_dir(self.dir()).into_iter().flatten().flatten();
        folders.map(|folder| folder.path().join("log")).fold(String::new(), |text, log| {
            match fs::read_to_string(&log) {
                Ok(said) => format!("{text}--- {} ---\n{said}--- end of it ---\n", log.display()),
                Err(_) => text,
            }
        })
    }

    /// Sets `/proc/sys/KEY` of this namespace.
    pub fn sysctl(&self, key: &str, value: &str) -> Result<()> {
        fs::write(Path::new("/proc/sys").join(key), value)
            .with_context(|| format!("cannot set {key} = {value}"))
    }

    /// Runs `ip` with words split at spaces; what it says. An error if it fails.
    pub fn ip(&self, words: &str) -> Result<String> {
        succeeded(words, &Command::new("ip").args(words.split_whitespace()).output()?)
    }

    /// Runs `ip -j` and parses what it says.
    pub fn ip_json(&self, words: &str) -> Result<Value> {
        let text = self.ip(&format!("-j {words}"))?;
        if text.trim().is_empty() {
            return Ok(Value::Array(Vec::new()));
        }
        serde_json::from_str(&text).with_context(|| format!("ip -j {words} said {text}"))
    }

    /// Runs `ip -batch` on these lines.
    pub fn batch(&self, lines: &str) -> Result<()> {
        let mut child =
            Command::new("ip").args(["-batch", "-"]).stdin(Stdio::piped()).stderr(Stdio::piped()).spawn()?;
        if let Some(mut stdin) = child.stdin.take() {
            stdin.write_all(lines.as_bytes())?;
        }
        succeeded("-batch", &child.wait_with_output()?).map(drop)
    }

    /// A copy of a program under a name of its own in the lab's folder, as in `copy("ip", "kube-router")`.
    pub fn copy(&self, program: &str, name: &str) -> Result<PathBuf> {
        let to = self.dir().join(name);
        if let Some(folder) = to.parent() {
            fs::create_dir_all(folder)?;
        }
        // By another process: were the copy open for writing in this one, a thread that forks just then would take
        // that along for a moment, and to run it would fail: "Text file busy".
        let status = Command::new("cp").arg(self::program(program)?).arg(&to).status()?;
        ensure!(status.success(), "cannot copy {program} to {}: {status}", to.display());
        Ok(to)
    }

    /// Links and addresses of a node that runs kube-router, without its routes. Stand-ins where a link type
    /// may be missing from the kernel: a bridge for the dummy, a tun for the ipip tunnel.
    pub fn links(&self) -> Result<()> {
        self.uplink()?;
        self.ip(&format!("addr add {NODE}/24 dev eth0"))?;
        self.ip("addr add fd00:10::10/64 dev eth0")?;
        self.kube_links()
    }

    /// `eth0`, up, without an address.
    pub fn uplink(&self) -> Result<()> {
        self.batch("link add eth0 type veth peer name peer0\nlink set peer0 up\nlink set eth0 up\n")
    }

    /// The same on a cable to another node, whose end has the address [`PEER`], and which has 10.244.2.0/24.
    pub fn uplink_to(&self, other: &Pod) -> Result<()> {
        self.batch(&format!(
            "link add eth0 type veth peer name eth0 netns {}\nlink set eth0 up\n",
            other.process.pid()
        ))?;
        for words in [
            "link set lo up",
            "link set eth0 up",
            &format!("addr add {PEER}/24 dev eth0"),
            "addr add 10.244.2.53/24 dev lo",
            &format!("route add 10.244.1.0/24 via {NODE}"),
        ] {
            other.ip(words)?;
        }
        Ok(())
    }

    /// The links that kube-router and the bridge plugin make.
    pub fn kube_links(&self) -> Result<()> {
        self.batch(&format!(
            "link add kube-bridge address 02:00:0a:f4:01:01 type bridge\n\
             link set kube-bridge up\n\
             addr add 10.244.1.1/24 dev kube-bridge\n\
             link add kube-dummy-if type bridge\n\
             link set kube-dummy-if up\n\
             addr add 10.96.0.1/32 dev kube-dummy-if scope link\n\
             tuntap add dev {TUNNEL} mode tun\n\
             link set {TUNNEL} up\n"
        ))
    }

    /// The routes and rules that kube-router makes: pod networks in the same subnet and by a tunnel, the
    /// tunnel's peer in table 77, services in table 78 and `local`, the rules to 77, 78 and 79.
    pub fn kube_routes(&self) -> Result<()> {
        self.batch(&format!(
            "route add 10.244.2.0/24 via {PEER} proto 17\n\
             route add 10.244.3.0/24 dev {TUNNEL} src {NODE} proto 17 scope global\n\
             route add 10.1.0.12/32 dev {TUNNEL} table 77 scope global\n\
             route add local default dev lo table 78 scope host\n\
             route replace local 10.96.0.1/32 dev kube-dummy-if table local proto kernel scope host src {NODE}\n\
             rule add from 10.244.1.0/24 lookup 77\n\
             rule add prio 32764 fwmark 0x1234 lookup 78\n\
             rule add prio 32765 from all lookup 79\n"
        ))
    }

    /// The same for IPv6, on a node whose `eth0` has an address.
    pub fn kube_routes6(&self) -> Result<()> {
        self.batch(&format!(
            "route add fd00:244:2::/64 via fd00:10::11 proto 17\n\
             route add fd00:244:3::/64 dev {TUNNEL} proto 17\n\
             route add fd00:1::12/128 dev {TUNNEL} table 77\n"
        ))
    }

    /// All of it: a node with its links, addresses, routes and rules.
    pub fn node() -> Result<Self> {
        let lab = Self::new()?;
        lab.links()?;
        lab.kube_routes()?;
        lab.kube_routes6()?;
        lab.settle()?;
        Ok(lab)
    }

    /// Every route in every table, IPv4 and IPv6, in the kernel's bytes, sorted.
    pub fn routes(&self) -> Result<Vec<Vec<u8>>> {
        let mut client = Client::open()?;
        let mut routes = client.routes(libc::AF_INET)?;
        routes.extend(client.routes(libc::AF_INET6)?);
        Ok(routes)
    }

    /// The same for people, by iproute2; without the mark of links without a carrier, as in [`Self::routes`].
    pub fn routes_text(&self) -> Result<String> {
        let text = self.ip("-d -4 route show table all")? + &self.ip("-d -6 route show table all")?;
        Ok(text.replace("linkdown ", ""))
    }

    /// Whether `ip` shows a route for these words, such as `-6 route show fd00::/64`.
    pub fn shows(&self, words: &str) -> Result<bool> {
        Ok(!self.ip(words)?.trim().is_empty())
    }
}

/// The file of a program in PATH or where system programs are, links resolved; an error that says how to install it
/// where it is not there.
pub fn program(name: &str) -> Result<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let system = [PathBuf::from("/usr/sbin"), PathBuf::from("/sbin")];
    let found = std::env::split_paths(&path).chain(system).map(|dir| dir.join(name)).find(|p| p.is_file());
    match found {
        Some(file) => Ok(fs::canonicalize(file)?),
        None => bail!("{name} is not installed; `cargo xtask setup --tests` installs what the tests need"),
    }
}

fn succeeded(words: impl AsRef<OsStr>, output: &Output) -> Result<String> {
    ensure!(
        output.status.success(),
        "ip {}: {}",
        words.as_ref().display(),
        String::from_utf8_lossy(&output.stderr).trim()
    );
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}
