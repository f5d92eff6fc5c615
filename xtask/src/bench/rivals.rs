//! The programs that are compared, each in a network namespace of its own with the same route.

use std::{
    env, fs,
    os::unix::fs::chown,
    path::Path,
    process::{Command, Stdio},
    time::Duration,
};

use anyhow::{Context, Result, ensure};
use lab::{Guardian, Lab, Tethered, netlink, tethered, wait_for};

use crate::contained;

/// What is running, so that it runs as long as this lives.
enum Running {
    Guardian(Guardian),
    Programs(#[allow(dead_code, reason = "held for its drop")] Vec<Tethered>),
}

/// One program that restores a route, and the route.
pub struct Rival {
    /// What it is.
    pub name: &'static str,
    /// A client in its namespace.
    pub client: netlink::Client,
    /// The route that it restores.
    pub key: netlink::Key,
    running: Running,
    _lab: Lab,
}

const KEY: netlink::Key =
    netlink::Key::main(std::net::IpAddr::V4(std::net::Ipv4Addr::new(10, 244, 2, 0)), 24);

impl Rival {
    /// Makes a namespace, moves this thread into it, starts the program there, and sees to it that it works.
    fn new(name: &'static str, start: impl FnOnce(&Lab) -> Result<Running>) -> Result<Self> {
        let lab = Lab::within(Path::new(contained::DIR))?;
        lab.links()?;
        let running = start(&lab).with_context(|| format!("cannot start {name}"))?;
        let mut client = netlink::Client::open()?;
        let limit = Duration::from_secs(20);
        wait_for(&format!("the route of {name}"), limit, || Ok(client.answers(KEY)?))?;
        // The first time is for everybody to warm up, and shows that it restores at all. A loop may not be
        // listening yet: then the route is put there and deleted again.
        wait_for(&format!("{name} to restore"), limit, || {
            client.delete(KEY)?;
            let back = wait_for("", Duration::from_secs(1), || Ok(client.answers(KEY)?)).is_ok();
            if !back {
                lab.ip(&route())?;
            }
            Ok(back)
        })?;
        Ok(Self { name, client, key: KEY, running, _lab: lab })
    }

    /// The outages that the program itself has recorded, if it does: the guardian's are from the kernel's stamp of the
    /// deletion to the verified restore.
    pub fn recorded(&self) -> Result<Vec<Duration>> {
        let Running::Guardian(guardian) = &self.running else { return Ok(vec![]) };
        let outages = guardian.events()?.into_iter().filter_map(|event| event.0["outage_us"].as_u64());
        Ok(outages.map(Duration::from_micros).collect())
    }

    /// Ends it: the guardian as a service manager does, which is an error if it does not end by that.
    pub fn stop(self) -> Result<()> {
        match self.running {
            Running::Guardian(guardian) => guardian.stop().map(drop),
            Running::Programs(_) => Ok(()),
        }
    }

    /// The guardian, with no limit to how often it restores: one deletion after the other is what is measured.
    pub fn guardian() -> Result<Self> {
        Self::new("route-guardian", |lab| {
            lab.ip(&route())?;
            lab.guardian().set("damping.burst", "1000000").start().map(Running::Guardian)
        })
    }

    /// What people write: `ip monitor` and a loop.
    pub fn shell() -> Result<Self> {
        Self::new("ip monitor | ip route replace", |lab| {
            lab.ip(&route())?;
            let mut monitor = tethered(
                Command::new("ip").args(["monitor", "route"]).stdin(Stdio::null()).stdout(Stdio::piped()),
            )?;
            let events = monitor.child().stdout.take().context("no pipe")?;
            let script =
                r#"while read -r word route; do [ "$word" = Deleted ] && ip route replace $route; done"#;
            let shell = tethered(Command::new("bash").args(["-c", script]).stdin(events))?;
            Ok(Running::Programs(vec![monitor, shell]))
        })
    }

    /// FRR: zebra, which re-adds a route of its own that somebody else deletes, and staticd, whose route it is.
    pub fn frr() -> Result<Self> {
        Self::new("FRR (zebra)", |lab| {
            let dir = lab.dir().join("frr");
            fs::create_dir_all(&dir)?;
            fs::write(dir.join("zebra.conf"), "")?;
            fs::write(dir.join("staticd.conf"), format!("ip route 10.244.2.0/24 {}\n", lab::PEER))?;
            chown(&dir, user("frr").ok(), None)?;
            // It runs as its own user, which has to get there.
            chown(lab.dir(), user("frr").ok(), None)?;
            let daemon = |name: &str| {
                let at = |file: &str| dir.join(file);
                tethered(
                    Command::new(Path::new("/usr/lib/frr").join(name))
                        .arg("--config_file")
                        .arg(at(&format!("{name}.conf")))
                        .arg("--pid_file")
                        .arg(at(&format!("{name}.pid")))
                        .arg("--socket")
                        .arg(at("zserv.api"))
                        .arg("--vty_socket")
                        .arg(&dir)
                        .args(["--vty_port", "0", "--log", "stdout"])
                        .stdin(Stdio::null())
                        .stdout(fs::File::create(at(&format!("{name}.log")))?)
                        .stderr(Stdio::null()),
                )
            };
            let zebra = daemon("zebra")?;
            wait_for("zebra's socket", Duration::from_secs(10), || Ok(dir.join("zserv.api").exists()))?;
            Ok(Running::Programs(vec![zebra, daemon("staticd")?]))
        })
    }

    /// The least that any program can do: it hears of the deletion and sends the same bytes back.
    pub fn floor() -> Result<Self> {
        Self::new("floor: only re-adds", |lab| {
            lab.ip(&route())?;
            let floor = tethered(Command::new(env::current_exe()?).arg("floor").stdin(Stdio::null()))?;
            Ok(Running::Programs(vec![floor]))
        })
    }
}

fn route() -> String {
    format!("route replace 10.244.2.0/24 via {} proto 17", lab::PEER)
}

fn user(name: &str) -> Result<u32> {
    let passwd = fs::read_to_string("/etc/passwd")?;
    let entry = passwd.lines().find(|line| line.split(':').next() == Some(name));
    let uid = entry.and_then(|line| line.split(':').nth(2)?.parse().ok());
    uid.with_context(|| format!("there is no user {name}"))
}

/// Re-adds every IPv4 route of protocol 17 that is deleted, and does nothing else.
pub fn floor() -> Result<()> {
    const DELETED: [u8; 2] = libc::RTM_DELROUTE.to_ne_bytes();
    let added = libc::RTM_NEWROUTE.to_ne_bytes();
    let flags = (libc::NLM_F_REQUEST | libc::NLM_F_CREATE | libc::NLM_F_EXCL) as u16;
    let mut events = netlink::Client::subscribe(netlink::GROUP_IPV4_ROUTE)?;
    let requests = netlink::Client::open()?;
    loop {
        let mut message = events.receive()?.to_vec();
        ensure!(message.len() >= netlink::HEADER + netlink::RTMSG, "a message of {} bytes", message.len());
        // nlmsg_type, and rtm_protocol in the header after it.
        if message[4..6] == DELETED && message[netlink::HEADER + 5] == 17 {
            message[4..6].copy_from_slice(&added);
            message[6..8].copy_from_slice(&flags.to_ne_bytes());
            requests.send_raw(&message)?;
        }
    }
}
