//! Programs that ask for it.

use std::process::Command;

use anyhow::Result;

use super::{ADDRESS, KEY, Truth, by_shell, lost, program, shell, taken, watched};

by_shell! {
    a_shell: format!("ip route del {KEY}; :") => Truth::ip()?;
    a_shell_that_executes_it: format!("exec ip route del {KEY}") => Truth::ip()?;
    bash: format!("bash -c 'ip route del {KEY}; :'") => Truth::ip()?;
    a_pipeline: format!("echo route del {KEY} | ip -batch -")
        => Truth::new(program("ip")?, &["ip", "-batch", "-"]);
    a_background_job: format!("ip route del {KEY} & wait") => Truth::ip()?;
    a_subshell: format!("(ip route del {KEY}; :); :") => Truth::ip()?;
    xargs: format!("echo {KEY} | xargs ip route del") => Truth::ip()?;
    timeout: format!("timeout 9 ip route del {KEY}") => Truth::ip()?;
    perl: format!("perl -e 'system qw(ip route del {KEY})'") => Truth::ip()?;
    perl_that_executes_it: format!("perl -e 'exec qw(ip route del {KEY})'") => Truth::ip()?;
    python: format!("/usr/bin/python3 -c 'import subprocess; subprocess.run(\"ip route del {KEY}\".split())'")
        => Truth::ip()?;
    busybox: format!("busybox ip route del {KEY}")
        => Truth::new(program("busybox")?, &["busybox", "ip", "route", "del", KEY]);
    /// The shell alone is one more: eleven programs in one process.
    a_chain_of_ten: format!("exec env env env env env env env env env env ip route del {KEY}") => Truth::ip()?;
    route_of_net_tools: format!("route del -net {ADDRESS} netmask 255.255.255.0")
        => Truth::new(program("route")?, &["route", "del", "-net", ADDRESS, "netmask", "255.255.255.0"]);
    ifconfig_of_net_tools: "ifconfig eth0 down"
        => Truth::new(program("ifconfig")?, &["ifconfig", "eth0", "down"]);
    a_shell_without_programs: "echo 0 >/proc/self/oom_score_adj; exec $TAKER plain 10.244.2.0"
        => Truth::new(super::taker(), &[&super::taker().to_string_lossy(), "plain", ADDRESS]);
    a_user_with_a_capability:
        format!("setpriv --reuid 1000 --clear-groups --inh-caps +net_admin --ambient-caps +net_admin ip route del {KEY}")
        => Truth::ip()?.uid(1000);
}

#[test]
fn a_raw_ioctl() -> Result<()> {
    let (truth, event, _) = taken("ioctl")?;
    truth.check(&event);
    Ok(())
}

/// No `ip` in between: the interpreter speaks netlink itself, and the script is among its arguments.
#[test]
fn a_python_script_that_speaks_netlink() -> Result<()> {
    let (lab, guardian) = watched()?;
    let script = lab.dir().join("takes");
    // struct nlmsghdr and rtmsg of RTM_DELROUTE (25) with NLM_F_REQUEST | NLM_F_ACK, and RTA_DST.
    let text = "import socket, struct, sys\n\
        dst = struct.pack('=HH4s', 8, 1, socket.inet_aton(sys.argv[1]))\n\
        body = struct.pack('=BBBBBBBBI', 2, 24, 0, 0, 254, 0, 255, 0, 0) + dst\n\
        s = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, 0)\n\
        s.sendall(struct.pack('=IHHII', 16 + len(body), 25, 5, 1, 0) + body)\n\
        sys.exit(-struct.unpack_from('=i', s.recv(4096), 16)[0])\n";
    std::fs::write(&script, text)?;
    let path = script.to_string_lossy();
    let (pid, _) = super::run(Command::new("/usr/bin/python3").args([&*path, ADDRESS]))?;
    let python = std::fs::canonicalize("/usr/bin/python3")?;
    Truth::new(python, &["/usr/bin/python3", &path, ADDRESS]).pid(pid).check(&lost(&guardian)?);
    Ok(())
}

#[test]
fn a_login_user() -> Result<()> {
    let (lab, guardian) = watched()?;
    shell(&lab, &format!("echo 1000 >/proc/self/loginuid && ip route del {KEY}"))?;
    let event = lost(&guardian)?;
    Truth::ip()?.check(&event);
    assert_eq!(event.number("/actor/login_uid"), Some(1000), "{event}");
    Ok(())
}

/// The working directory is told of whoever still runs.
#[test]
fn a_working_directory() -> Result<()> {
    let (lab, guardian) = watched()?;
    let mut command = Command::new("sh");
    command.args(["-c", &format!("echo route del {KEY}; sleep 2")]).stdout(std::process::Stdio::piped());
    let mut feeder = command.spawn()?;
    let lines = feeder.stdout.take().ok_or_else(|| anyhow::anyhow!("no output"))?;
    let mut ip = Command::new("ip").args(["-batch", "-"]).current_dir(lab.dir()).stdin(lines).spawn()?;
    let event = lost(&guardian)?;
    ip.wait()?;
    feeder.wait()?;
    assert_eq!(event.text("/actor/cwd"), lab.dir().to_string_lossy(), "{event}");
    Ok(())
}

#[test]
fn a_setuid_program() -> Result<()> {
    let (lab, guardian) = watched()?;
    let ip = lab.copy("ip", "ip")?;
    let text = ip.to_string_lossy();
    shell(
        &lab,
        &format!("chmod 4755 {text} && exec setpriv --reuid 1000 --clear-groups {text} route del {KEY}"),
    )?;
    Truth::new(&ip, &[&text, "route", "del", KEY]).uid(1000).check(&lost(&guardian)?);
    Ok(())
}
