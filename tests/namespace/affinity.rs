//! Where the guard sleeps: on the CPU of whoever has made a restore necessary last.

use std::{fs, net::Ipv4Addr, process::Command, thread, time::Duration};

use anyhow::{Context as _, Result, ensure};
use lab::{Guardian, Lab, cpus, may_run_on, netlink, wait_for};

const ROUTE: &str = "10.244.2.0/24";

/// The CPU that the guard has run on last: the 39th field of `proc_pid_stat(5)`.
fn runs_on(guardian: &Guardian) -> Result<u32> {
    let stat = fs::read_to_string(format!("/proc/{}/stat", guardian.pid()))?;
    let (_, fields) = stat.rsplit_once(") ").context("no name")?;
    Ok(fields.split(' ').nth(36).context("no CPU")?.parse()?)
}

/// Runs `ip` on one CPU.
fn ip_on(cpu: u32, words: &str) -> Result<()> {
    let done =
        Command::new("taskset").args(["-c", &cpu.to_string(), "ip"]).args(words.split(' ')).status()?;
    ensure!(done.success(), "ip {words}: {done}");
    Ok(())
}

/// Deletes the route from a CPU until the guard sleeps there. It may take more than once: guardians of other tests run at
/// the same priority, and the kernel puts the one that wakes elsewhere while another runs.
fn draw_to(cpu: u32, lab: &Lab, guardian: &Guardian) -> Result<()> {
    wait_for(&format!("the guard to sleep on CPU {cpu}"), Duration::from_secs(10), || {
        ip_on(cpu, &format!("route del {ROUTE}"))?;
        wait_for("the route", Duration::from_secs(5), || lab.shows(&format!("route show {ROUTE}")))?;
        Ok(wait_for("", Duration::from_millis(100), || Ok(runs_on(guardian)? == cpu)).is_ok())
    })
}

#[test]
fn it_sleeps_where_the_last_loss_was_made() -> Result<()> {
    let lab = Lab::node()?;
    let guardian = lab.guardian().set("damping.burst", "1000").start()?;
    let allowed = may_run_on(guardian.pid())?;
    let [first, last] = cpus()?;
    for cpu in [first, last, first, last] {
        draw_to(cpu, &lab, &guardian)?;
    }
    assert_eq!(may_run_on(guardian.pid())?, allowed, "it may run wherever it could before");
    Ok(())
}

/// Who takes a route where it sleeps goes on when the route is back: it goes before everybody else there.
#[test]
fn what_is_taken_where_it_sleeps_is_back_before_the_taker_goes_on() -> Result<()> {
    const ROUNDS: usize = 40;
    let lab = Lab::node()?;
    let guardian = lab.guardian().set("damping.burst", "1000").start()?;
    let [cpu, _] = cpus()?;
    let thread = fs::read_link("/proc/thread-self")?;
    let thread = thread.file_name().and_then(|name| name.to_str()).context("no thread")?;
    ensure!(Command::new("taskset").args(["-pc", &cpu.to_string(), thread]).output()?.status.success());

    let mut client = netlink::Client::open()?;
    let key = netlink::Key::main(Ipv4Addr::new(10, 244, 2, 0).into(), 24);
    draw_to(cpu, &lab, &guardian)?;
    let mut back = 0;
    for _ in 0..ROUNDS {
        wait_for("the route", Duration::from_secs(5), || Ok(client.answers(key)?))?;
        // It sleeps again.
        thread::sleep(Duration::from_millis(50));
        client.delete(key)?;
        back += usize::from(client.answers(key)?);
    }
    // All of them, where nobody else on this machine is of its priority.
    assert!(back * 2 > ROUNDS, "{back} of {ROUNDS}");
    Ok(())
}

/// Who is not to run on a CPU does not.
#[test]
fn it_keeps_to_the_cpus_that_it_may_run_on() -> Result<()> {
    let lab = Lab::node()?;
    let [first, last] = cpus()?;
    let guardian = lab.guardian().through(&format!("taskset -c {first}")).start()?;
    ip_on(last, &format!("route del {ROUTE}"))?;
    guardian.event("the restore", |event| event.key() == ROUTE && event.outcome() == "restored")?;
    thread::sleep(Duration::from_millis(200));
    assert_eq!((runs_on(&guardian)?, may_run_on(guardian.pid())?), (first, first.to_string()));
    Ok(())
}
