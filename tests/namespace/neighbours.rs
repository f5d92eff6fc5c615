//! Other programs that change routes and addresses for good reasons, starting and stopping beside the guardian: what
//! is theirs comes and goes as they like, and the scope is whole afterwards.

use std::{
    fs::{self, File},
    process::{Command, Stdio},
    time::Duration,
};

use anyhow::{Context, Result, ensure};
use lab::{Guardian, Lab, Pod, Tethered, tethered, wait_for};

const SOON: Duration = Duration::from_secs(2);
const PATIENCE: Duration = Duration::from_secs(20);

/// A shell in a mount namespace with a `/run` and a `/var/lib` of its own that ends as the program in `text`; `$1`
/// is the lab's folder.
fn shell(lab: &Lab, text: &str) -> Command {
    let setup = "set -e; mount --make-rprivate /; mount -t tmpfs tmpfs /run; mount -t tmpfs tmpfs /var/lib; ";
    let mut command = Command::new("unshare");
    command
        .args(["--mount", "sh", "-c", &format!("{setup}{text}"), "sh"])
        .arg(lab.dir())
        .stdin(Stdio::null());
    command
}

/// The same that goes on running.
pub(crate) fn daemon(lab: &Lab, text: &str) -> Result<Tethered> {
    let log = File::options().create(true).append(true).open(lab.dir().join("neighbour.log"))?;
    Ok(tethered(shell(lab, text).stdout(log.try_clone()?).stderr(log))?)
}

/// The same that ends.
fn once(lab: &Lab, text: &str) -> Result<()> {
    let output = shell(lab, text).output()?;
    ensure!(
        output.status.success(),
        "{text}: {}{}",
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    );
    Ok(())
}

pub(crate) fn log(lab: &Lab) -> String {
    fs::read_to_string(lab.dir().join("neighbour.log")).unwrap_or_default()
}

/// Waits until `ip` shows something, or nothing, for these words.
fn shown(lab: &Lab, words: &str, there: bool) -> Result<()> {
    let what = format!("`ip {words}` to show {}", if there { "something" } else { "nothing" });
    wait_for(&what, PATIENCE, || Ok(lab.shows(words)? == there)).with_context(|| log(lab))
}

/// It held nothing back, and put nothing back.
fn undisturbed(guardian: &Guardian) -> Result<()> {
    let metrics = guardian.metrics()?;
    let of = |name, labels| metrics.sum(name, labels);
    let counts = (of("held_objects", &[]), of("restores_total", &["outcome=\"restored\""]));
    if counts != (Some(0.0), Some(0.0)) {
        let records: Vec<_> = guardian.events()?.iter().map(ToString::to_string).collect();
        anyhow::bail!("held, restored: {counts:?}\n{}\n{}", records.join("\n"), guardian.log());
    }
    Ok(())
}

#[test]
fn bird() -> Result<()> {
    let node = Lab::guarded()?;
    let lab = &node.lab;
    // One by a link that is not guarded, one by a link that is: this is in scope, and yet its own.
    fs::write(
        lab.dir().join("bird.conf"),
        "router id 10.0.0.10;\nprotocol device {}\n\
         protocol kernel { ipv4 { export all; }; }\n\
         protocol static { ipv4; route 192.0.2.0/24 via 10.0.0.11; route 198.51.100.0/24 via 10.244.1.9; }\n",
    )?;
    let before = lab.state()?;
    let guardian = lab.guardian().start()?;
    for _ in 0..2 {
        let mut bird = daemon(lab, "exec bird -f -c \"$1/bird.conf\" -s /run/bird.ctl")?;
        shown(lab, "route show 192.0.2.0/24 proto bird", true)?;
        shown(lab, "route show 198.51.100.0/24 proto bird", true)?;
        bird.stop()?;
        shown(lab, "route show proto bird", false)?;
        lab.whole_within(&before, SOON)?;
    }
    undisturbed(&guardian)
}

#[test]
fn frr() -> Result<()> {
    let node = Lab::guarded()?;
    let lab = &node.lab;
    fs::write(lab.dir().join("zebra.conf"), "")?;
    fs::write(
        lab.dir().join("staticd.conf"),
        "ip route 192.0.2.0/24 10.0.0.11\nip route 198.51.100.0/24 10.244.1.9\n",
    )?;
    // zebra leaves nexthop objects of its own behind when it ends.
    let others = |_: &str, value: &serde_json::Value| value["protocol"] != "zebra";
    let before = lab.state()?;
    let guardian = lab.guardian().start()?;
    // It runs as its own user, which has to get there.
    let status = Command::new("chown").args(["-R", "frr:"]).arg(lab.dir()).status()?;
    ensure!(status.success(), "chown: {status}; `cargo xtask setup --tests` installs what the tests need");
    let program = |name: &str| {
        format!(
            "ulimit -n 1024; exec /usr/lib/frr/{name} -f \"$1/{name}.conf\" -i \"$1/{name}.pid\" \
             --vty_socket \"$1\" -z \"$1/zserv.api\" -P 0 --log stdout"
        )
    };
    for _ in 0..2 {
        let _ = fs::remove_file(lab.dir().join("zserv.api"));
        let mut zebra = daemon(lab, &program("zebra"))?;
        let socket = lab.dir().join("zserv.api");
        wait_for("zebra's socket", PATIENCE, || Ok(socket.exists())).with_context(|| log(lab))?;
        let mut staticd = daemon(lab, &program("staticd"))?;
        shown(lab, "route show 192.0.2.0/24 proto 196", true)?;
        shown(lab, "route show 198.51.100.0/24 proto 196", true)?;
        staticd.stop()?;
        shown(lab, "route show proto 196", false)?;
        zebra.stop()?;
        wait_for("all but zebra's to be as it was", SOON, || Ok(before == lab.state()?.only_like(others)))?;
    }
    undisturbed(&guardian)
}

#[test]
fn keepalived() -> Result<()> {
    let node = Lab::guarded()?;
    let lab = &node.lab;
    // Its virtual addresses, one of them on a guarded link.
    fs::write(
        lab.dir().join("keepalived.conf"),
        "vrrp_instance one {\n state MASTER\n interface eth0\n virtual_router_id 7\n priority 255\n advert_int 1\n\
         virtual_ipaddress {\n 10.0.0.100/32 dev eth0\n 10.96.0.200/32 dev kube-dummy-if\n }\n\
         virtual_routes {\n 192.0.2.0/24 via 10.0.0.11 dev eth0\n }\n}\n",
    )?;
    let before = lab.state()?;
    let guardian = lab.guardian().start()?;
    for _ in 0..2 {
        let mut keepalived = daemon(
            lab,
            "exec keepalived -n -l -D -P -f \"$1/keepalived.conf\" -p \"$1/k.pid\" -r \"$1/v.pid\"",
        )?;
        shown(lab, "addr show to 10.0.0.100", true)?;
        shown(lab, "addr show to 10.96.0.200", true)?;
        shown(lab, "route show 192.0.2.0/24", true)?;
        keepalived.stop()?;
        shown(lab, "addr show to 10.0.0.100", false)?;
        shown(lab, "addr show to 10.96.0.200", false)?;
        lab.whole_within(&before, SOON)?;
    }
    undisturbed(&guardian)
}

/// The scope: all but `eth0`, its peer and what the kernel makes of them.
fn guarded(label: &str, value: &serde_json::Value) -> bool {
    let dev = value["dev"].as_str().unwrap_or_default();
    !label.starts_with("link eth0")
        && !label.starts_with("link peer0")
        && !label.starts_with("address eth0")
        && (value["protocol"] == "17" || !["eth0", "peer0"].contains(&dev))
}

/// The scope is as it was, soon.
fn scope_whole(lab: &Lab, before: &lab::State) -> Result<()> {
    let mut diff = String::new();
    let whole = wait_for("the scope to be whole", SOON, || {
        diff = before.diff(&lab.state()?.only_like(guarded));
        Ok(diff.is_empty())
    });
    whole.with_context(|| format!("it differs:\n{diff}"))
}

/// A lease is given back: the address goes, and with it every route by `eth0`. It is taken again: all is whole.
#[test]
fn dhclient() -> Result<()> {
    let lab = Lab::new()?;
    lab.uplink()?;
    let server = Pod::new()?;
    lab.ip(&format!("link set peer0 netns {}", server.process.pid()))?;
    server.ip("addr add 10.0.0.1/24 dev peer0")?;
    server.ip("link set peer0 up")?;
    server.ip("link set lo up")?;
    let _dnsmasq = tethered(
        Command::new("nsenter")
            .args(["--net", "--target", &server.process.pid().to_string(), "dnsmasq"])
            .args(["--keep-in-foreground", "--conf-file=/dev/null", "--port=0", "--user=root", "--no-ping"])
            .args([
                "--interface=peer0",
                "--dhcp-authoritative",
                "--dhcp-range=10.0.0.10,10.0.0.10,1h",
                "--pid-file=",
            ])
            .arg(format!("--dhcp-leasefile={}", lab.dir().join("leases").display()))
            .stderr(Stdio::null()),
    )?;
    // Nothing is asked for that would have the script write to /etc.
    fs::write(lab.dir().join("dhclient.conf"), "request subnet-mask, broadcast-address;\n")?;
    let dhclient = |options: &str| {
        once(
            &lab,
            &format!(
                "dhclient {options} -cf \"$1/dhclient.conf\" -lf \"$1/dhclient.leases\" -pf \"$1/dhclient.pid\" eth0"
            ),
        )
    };
    // `-1`: once, and an error if it is in vain. It stays in the background until it is told to go.
    dhclient("-1 -4")?;
    lab.ip("addr add fd00:10::10/64 dev eth0")?;
    let _pods = lab.kube_objects()?;
    let before = lab.state()?.only_like(guarded);
    let guardian = lab.guardian().start()?;
    dhclient("-r -4")?;
    assert!(!lab.shows("addr show to 10.0.0.10")?, "the guardian touched what is not its own");
    dhclient("-1 -4")?;
    scope_whole(&lab, &before)?;
    let event = guardian.event("a route that fell with the address", |e| e.key() == "10.244.3.0/24")?;
    assert_eq!(event.text("/actor/confidence"), "exact", "{event}");
    dhclient("-x -4")
}

/// `ifdown` and `ifup` of `eth0`: its address, its link and every route by it.
#[test]
fn ifupdown() -> Result<()> {
    let lab = Lab::new()?;
    lab.uplink()?;
    fs::write(
        lab.dir().join("interfaces"),
        "iface eth0 inet static\n address 10.0.0.10/24\n\
         iface eth0 inet6 static\n address fd00:10::10/64\n dad-attempts 0\n",
    )?;
    // It keeps in /run/network what it has set up.
    let run = |verb: &str| {
        once(
            &lab,
            &format!(
                "mkdir -p \"$1/ifstate\" /run/network; mount --bind \"$1/ifstate\" /run/network; \
                 {verb} --interfaces \"$1/interfaces\" eth0"
            ),
        )
    };
    run("ifup")?;
    let _pods = lab.kube_objects()?;
    let before = lab.state()?.only_like(guarded);
    let guardian = lab.guardian().start()?;
    for _ in 0..2 {
        run("ifdown")?;
        assert!(!lab.shows("addr show to 10.0.0.10")?, "the guardian touched what is not its own");
        run("ifup")?;
        scope_whole(&lab, &before)?;
    }
    let event = guardian.event("a route that fell with the address", |e| e.key() == "10.244.2.0/24")?;
    assert_eq!(event.text("/actor/confidence"), "exact", "{event}");
    Ok(())
}

/// `NetworkManager` with a profile for `eth0`, on a bus of its own. It takes a `/sys` that is read-only for a
/// container, and does not wait for udev.
#[test]
fn network_manager() -> Result<()> {
    let node = Lab::guarded()?;
    let lab = &node.lab;
    let etc = lab.dir().join("nm");
    fs::create_dir_all(etc.join("system-connections"))?;
    fs::write(
        etc.join("NetworkManager.conf"),
        "[main]\nplugins=keyfile\ndns=none\nrc-manager=unmanaged\nno-auto-default=*\n",
    )?;
    let profile = etc.join("system-connections/eth0.nmconnection");
    fs::write(
        &profile,
        "[connection]\nid=eth0\nuuid=8d3f5d5e-0000-4000-8000-000000000001\ntype=ethernet\ninterface-name=eth0\n\
         [ipv4]\nmethod=manual\naddress1=10.0.0.10/24\n[ipv6]\nmethod=manual\naddress1=fd00:10::10/64\naddr-gen-mode=eui64\n",
    )?;
    fs::set_permissions(&profile, std::os::unix::fs::PermissionsExt::from_mode(0o600))?;
    let _bus = lab::bus(&lab.dir().join("run"))?;
    let before = lab.state()?.only_like(guarded);
    let guardian = lab.guardian().start()?;
    let text = "mkdir -p /run/dbus /var/lib/NetworkManager; mount -t sysfs -o ro sysfs /sys
        mount --bind \"$1/run/dbus\" /run/dbus
        mount --bind \"$1/nm\" /etc/NetworkManager
        exec NetworkManager --debug --log-level=INFO";
    for turn in 1..=2 {
        let mut manager = daemon(lab, text)?;
        let started = || Ok(log(lab).matches("(eth0): carrier: link connected").count() == turn);
        wait_for("NetworkManager to see eth0", PATIENCE, started).with_context(|| log(lab))?;
        // Its profile anew: the address goes and comes.
        let pid = manager.pid().to_string();
        let output = Command::new("nsenter")
            .args(["--mount", "--target", &pid, "nmcli", "--wait", "20", "connection", "up", "eth0"])
            .output()?;
        ensure!(output.status.success(), "nmcli: {}{}", String::from_utf8_lossy(&output.stderr), log(lab));
        scope_whole(lab, &before)?;
        manager.stop()?;
        scope_whole(lab, &before)?;
    }
    let metrics = guardian.metrics()?;
    assert_eq!(metrics.sum("events_lost_total", &[]), Some(0.0), "{}", metrics.0);
    Ok(())
}
