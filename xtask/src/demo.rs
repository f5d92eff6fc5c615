//! The main job on real input in one command: real programs take a node's routes apart, and the guardian says
//! who it was and puts them back.

use std::{
    fs,
    io::{self, BufRead, BufReader, Write},
    net::IpAddr,
    path::Path,
    process::{Command, ExitCode, Stdio},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, ensure};
use lab::{Event, Guardian, Lab, Networkd, Tethered, netlink, tethered, wait_for};

use crate::{
    contained, packages,
    program::{is_root, is_watched, say},
    setup,
};

/// Routes that are back are back for good when nothing has been said for this long.
const QUIET: Duration = Duration::from_millis(300);
const PATIENCE: Duration = Duration::from_secs(30);
/// The columns of what the guardian prints.
const WIDTH: usize = 100;

/// Restores in a row that one process may undo before the guardian lets it finish: `damping.burst`.
const BURST: usize = 5;

/// Runs the demo, inside [`contained::run`].
pub fn run() -> Result<()> {
    let lab = Lab::within(Path::new(contained::DIR))?;
    heading("A node that runs kube-router, in a network namespace of its own");
    let mut networkd = Networkd::on_node(&lab)?;
    note("eth0 (managed by systemd-networkd), kube-bridge, kube-dummy-if, a tunnel to another node");
    command("ip route show proto 17");
    let routes = lab.ip("route show proto 17")?;
    for line in routes.lines() {
        println!("{}", line.trim_end());
    }

    heading("The guardian starts");
    command("route-guardian run");
    let begin = Instant::now();
    let guardian = lab.guardian().start()?;
    let guarded = guardian.metrics()?.sum("protected_objects", &[]).unwrap_or_default();
    note(&format!("ready after {} ms; it guards {guarded} objects", begin.elapsed().as_millis()));
    command("route-guardian events -f");
    note("from here on it tells by itself, while others act");
    let follower = Follower::start(&guardian)?;
    let before = lab.routes()?;

    heading("A program without iproute2 deletes a route: a raw netlink request");
    command("xtask netlink-delete 10.244.3.0/24");
    let me = std::env::current_exe()?;
    succeed(Command::new(me).args(["netlink-delete", "10.244.3.0/24"]))?;
    follower.settle(&lab, &before)?;

    heading("A clean-up script flushes kube-router's routes");
    let script = lab.dir().join("cleanup.sh");
    fs::write(&script, "#!/bin/sh\nip route flush proto 17\nexit 0\n")?;
    command("sh cleanup.sh     # its only line: ip route flush proto 17");
    succeed(Command::new("sh").arg("cleanup.sh").current_dir(lab.dir()))?;
    follower.settle(&lab, &before)?;
    let again = deletions(&guardian, "/ip")?.saturating_sub(routes.lines().count());
    if again > 0 {
        note("ip goes on until it finds nothing left: what was back in between, it took again.");
    }
    if again > BURST {
        note("After five times the guardian lets it finish, and restores when it has ended.");
    }

    heading("systemd-networkd restarts, as a package upgrade makes it do");
    command(Networkd::PROGRAM);
    networkd.start()?;
    let program = fs::canonicalize(Networkd::PROGRAM)?;
    let by_networkd = |e: &Event| fs::canonicalize(e.text("/actor/exe")).is_ok_and(|exe| exe == program);
    let last = guardian.event("systemd-networkd's deletions", by_networkd)?;
    follower.settle(&lab, &before)?;
    if guardian.log().contains("lent for") {
        note("It has taken the node's own address away too, which the tunnel and these routes need. It was");
        note("lent it until it had set it again.");
    }
    networkd.stop()?;

    heading("Why did that happen?");
    let id = last.id();
    command(&format!("route-guardian explain {id}"));
    print!("{}", guardian.answer(&format!("explain {id} {}", colour()))?);

    heading("In the end");
    command("route-guardian status");
    // Its exit status says whether all is well; so does its text.
    print!("{}", String::from_utf8_lossy(&guardian.ask(&format!("status {}", colour()))?.stdout));
    let metrics = guardian.metrics()?;
    let count = |name, label| metrics.sum(name, &[label]).unwrap_or_default();
    note(&format!(
        "{} deletions: {} named exactly, {} restored, {} lost on the way. Every route is as it was.",
        count("deletions_total", ""),
        count("attributions_total", "confidence=\"exact\""),
        count("restores_total", "outcome=\"restored\""),
        count("events_lost_total", ""),
    ));
    drop(follower);
    guardian.stop()?;
    note("The guardian has ended; the namespace and all that was in it are gone with this program.");
    println!();
    Ok(())
}

fn heading(text: &str) {
    let rule = "─".repeat(WIDTH.saturating_sub(text.chars().count() + 4));
    let (on, off) = if coloured() { ("\x1b[1m", "\x1b[0m") } else { ("", "") };
    println!("\n{on}── {text} {rule}{off}");
}

fn command(text: &str) {
    println!("$ {text}");
}

fn note(text: &str) {
    println!("# {text}");
}

/// Whether somebody sees colours: <https://no-color.org>.
fn coloured() -> bool {
    is_watched(&io::stdout()) && std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty())
}

/// The option that has the guardian's command line do as this program does.
fn colour() -> &'static str {
    if coloured() { "--color=always" } else { "--color=never" }
}

/// How many events a program has made whose path ends like this.
fn deletions(guardian: &Guardian, program: &str) -> Result<usize> {
    Ok(guardian.events()?.iter().filter(|event| event.text("/actor/exe").ends_with(program)).count())
}

fn succeed(command: &mut Command) -> Result<()> {
    let status = command.stdin(Stdio::null()).status()?;
    ensure!(status.success(), "{} failed: {status}", crate::program::line(command));
    Ok(())
}

/// `route-guardian events -f`, whose lines are printed as they come.
struct Follower {
    _process: Tethered,
    begin: Instant,
    /// When the last line came, in milliseconds since `begin`.
    last: Arc<AtomicU64>,
}

impl Follower {
    fn start(guardian: &Guardian) -> Result<Self> {
        let mut process = tethered(
            Command::new(lab::binary())
                .args(["events", "-f", colour(), "--config"])
                .arg(guardian.config())
                .stdin(Stdio::null())
                .stdout(Stdio::piped()),
        )?;
        let out = process.child().stdout.take().context("no pipe")?;
        let (begin, last) = (Instant::now(), Arc::new(AtomicU64::new(0)));
        let at = Arc::clone(&last);
        thread::spawn(move || {
            for line in BufReader::new(out).lines().map_while(Result::ok) {
                println!("{line}");
                // A closed terminal is noticed by the main thread.
                let _ = io::stdout().flush();
                at.store(begin.elapsed().as_millis() as u64, Ordering::Relaxed);
            }
        });
        Ok(Self { _process: process, begin, last })
    }

    /// Waits until the routes are as they were and all has been said about it.
    fn settle(&self, lab: &Lab, before: &[Vec<u8>]) -> Result<()> {
        let mut since = Instant::now();
        wait_for("the routes to come back", PATIENCE, || {
            if lab.routes()? != before {
                since = Instant::now();
            }
            let last = Duration::from_millis(self.last.load(Ordering::Relaxed));
            let said = self.begin.elapsed().saturating_sub(last);
            Ok(since.elapsed().min(said) > QUIET)
        })
    }
}

/// Deletes one route without iproute2.
pub fn netlink_delete(route: &str) -> Result<()> {
    let (address, len) = route.split_once('/').context("a route is ADDRESS/LENGTH, such as 10.244.2.0/24")?;
    let address: IpAddr = address.parse().with_context(|| format!("{address} is no address"))?;
    let len = len.parse().with_context(|| format!("{len} is no prefix length"))?;
    netlink::Client::open()?
        .delete(netlink::Key::main(address, len))
        .with_context(|| format!("cannot delete {route}"))
}

/// A shell in a lab; it all goes away with the shell.
pub fn shell() -> Result<ExitCode> {
    ensure!(is_root(), "a network namespace needs root: sudo cargo xtask lab");
    setup::programs(packages::DEMO)?;
    contained::private_mounts()?;
    let lab = Lab::within(Path::new(contained::DIR))?;
    lab.links()?;
    lab.kube_routes()?;
    lab.kube_routes6()?;
    say("a network namespace with kube-router-like state; `exit` leaves it, and it is gone");
    let shell = std::env::var_os("SHELL").unwrap_or_else(|| "/bin/sh".into());
    let status = Command::new(shell).env("PS1", "lab# ").current_dir(lab.dir()).status()?;
    Ok(if status.success() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}
