use std::{fs, path::Path};

use super::*;
use crate::knowledge::{Advice, FileState, Level};

fn node(files: &[(&str, &str)]) -> tempfile::TempDir {
    let root = tempfile::tempdir().unwrap();
    for (path, text) in files {
        let path = root.path().join(path.trim_start_matches('/'));
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        match text.strip_prefix("-> ") {
            Some(target) => std::os::unix::fs::symlink(target, path).unwrap(),
            None => fs::write(path, text).unwrap(),
        }
    }
    root
}

fn of(root: &Path, link: &Interface) -> Option<String> {
    let configuration = Configuration::read(root).unwrap();
    configuration.of(link).first().map(|(network, _)| network.path.display().to_string())
}

fn eth0() -> Interface {
    Interface {
        name: "eth0".into(),
        kind: None,
        mac: Some("02:00:00:00:00:0a".into()),
        point_to_point: false,
    }
}

#[test]
fn the_first_file_by_name_wins_and_the_first_folder_of_a_name() {
    let root = node(&[
        ("/usr/lib/systemd/network/zz-default.network", "[Match]\nName=*\n"),
        ("/usr/lib/systemd/network/10-eth.network", "[Match]\nName=eth*\n[Network]\nDHCP=no\n"),
        ("/etc/systemd/network/10-eth.network", "[Match]\nName=eth*\n[Network]\nDHCP=yes\n"),
        ("/run/systemd/network/05-other.network", "[Match]\nName=ens*\n"),
    ]);
    assert_eq!(of(root.path(), &eth0()).as_deref(), Some("/etc/systemd/network/10-eth.network"));
    let tunnel = Interface::new("tun-e443169117a", "ipip");
    assert_eq!(of(root.path(), &tunnel).as_deref(), Some("/usr/lib/systemd/network/zz-default.network"));
}

#[test]
fn masked_and_empty_files_are_none_and_one_without_conditions_matches_nothing() {
    let root = node(&[
        ("/usr/lib/systemd/network/zz-default.network", "[Match]\nName=*\n"),
        ("/etc/systemd/network/zz-default.network", "-> /dev/null"),
        ("/usr/lib/systemd/network/80-a.network", "[Match]\nName=*\n"),
        ("/run/systemd/network/80-a.network", ""),
        ("/etc/systemd/network/90-b.network", "[Network]\nDHCP=yes\n"),
        ("/etc/systemd/network/91-c.network", "[Match]\nName=eth0\nName=\n[Network]\nDHCP=yes\n"),
    ]);
    assert_eq!(of(root.path(), &eth0()), None);
}

#[test]
fn lists_types_and_kinds() {
    let flatcar =
        "[Match]\nType=!bridge tunnel vxlan wireguard\nDriver=!veth dummy\nName=*\n[Network]\nDHCP=yes\n";
    let root = node(&[("/usr/lib/systemd/network/zz-default.network", flatcar)]);
    assert_eq!(of(root.path(), &Interface::new("kube-bridge", "bridge")), None);
    assert_eq!(of(root.path(), &Interface::new("tun-e443169117a", "ipip")), None);
    let configuration = Configuration::read(root.path()).unwrap();
    let veth = Interface::new("veth01234567", "veth");
    let (_, open) = configuration.of(&veth).remove(0);
    assert_eq!(open[0].to_string(), "/usr/lib/systemd/network/zz-default.network:3 Driver=!veth dummy");
    let root = node(&[
        ("/etc/systemd/network/10-a.network", "[Match]\nKind=bridge dummy\n"),
        ("/etc/systemd/network/20-b.network", "[Match]\nMACAddress=02:00:00:00:00:0A\nName=en* eth*\n"),
        ("/etc/systemd/network/30-c.network", "[Match]\nName=!eth0 lo\n"),
    ]);
    let name = |link: &Interface| of(root.path(), link).map(|path| path[21..23].to_owned());
    assert_eq!(name(&Interface::new("kube-dummy-if", "dummy")).as_deref(), Some("10"));
    assert_eq!(name(&eth0()).as_deref(), Some("20"));
    assert_eq!(name(&Interface::new("veth1", "veth")).as_deref(), Some("30"));
}

#[test]
fn drop_ins_of_all_folders_count_and_the_last_word_is_said_with_its_place() {
    let root = node(&[
        (
            "/run/systemd/network/10-netplan-eth0.network",
            "[Match]\nName=eth0\n[Network]\nKeepConfiguration=no\n",
        ),
        (
            "/usr/lib/systemd/network/10-netplan-eth0.network.d/20-a.conf",
            "[Network]\nKeepConfiguration=static\n",
        ),
        ("/etc/systemd/network/10-netplan-eth0.network.d/50-b.conf", "[Network]\nKeepConfiguration=yes\n"),
        ("/etc/systemd/networkd.conf", "[Network]\nManageForeignRoutes=no\n"),
        ("/usr/lib/systemd/networkd.conf.d/50-c.conf", "[Network]\n\nManageForeignRoutes=yes\n"),
    ]);
    let configuration = Configuration::read(root.path()).unwrap();
    let (network, _) = configuration.of(&eth0()).remove(0);
    let said = network.setting("Network", "KeepConfiguration").unwrap();
    assert_eq!(said.value, "yes");
    assert_eq!(said.place.unwrap().line, 2);
    let said = configuration.switch("ManageForeignRoutes", true);
    assert!(said.value);
    assert_eq!(
        said.place.unwrap().to_string(),
        "/usr/lib/systemd/networkd.conf.d/50-c.conf:3 ManageForeignRoutes=yes"
    );
    assert_eq!(
        configuration.switch("ManageForeignRoutingPolicyRules", true),
        Said { value: true, place: None }
    );
}

fn advice(root: &Path, version: u32) -> Advice {
    let guarded = [Interface::new("kube-bridge", "bridge"), Interface::new("tun-0", "ipip")];
    let patterns = ["kube-bridge".to_owned(), "tun-*".to_owned()];
    advise(&Configuration::read(root).unwrap(), root, version, &[eth0()], &guarded, &patterns)
}

fn bad(advice: &Advice) -> Vec<&str> {
    advice.findings.iter().filter(|f| f.level == Level::Wrong).map(|f| f.what.as_str()).collect()
}

#[test]
fn what_is_wrong_is_put_right_by_what_is_written() {
    let root = node(&[("/etc/systemd/network/zz.network", "[Match]\nName=*\n[Network]\nDHCP=yes\n")]);
    let before = advice(root.path(), 252);
    assert_eq!(
        bad(&before),
        [
            "it configures guarded links: kube-bridge, tun-0",
            "eth0 does not keep its addresses over a restart",
            "eth0 is set up anew when its carrier was lost",
            "ManageForeignRoutes is on, as nobody says otherwise",
            "ManageForeignRoutingPolicyRules is on, as nobody says otherwise",
        ]
    );
    assert_eq!(
        before.findings[0].place.as_ref().unwrap().to_string(),
        "/etc/systemd/network/zz.network:2 Name=*"
    );
    for file in &before.files {
        assert!(file.write().unwrap(), "{}", file.path.display());
    }
    let after = advice(root.path(), 252);
    assert_eq!(bad(&after), [""; 0], "{:#?}", after.findings);
    assert!(after.files.iter().all(|file| !file.write().unwrap()));
    assert!(!after.files.iter().any(|file| file.text.contains("NextHops")), "252 does not know it");
    assert!(advice(root.path(), 257).files.iter().any(|file| file.text.contains("ManageForeignNextHops=no")));
}

#[test]
fn a_node_that_it_does_not_manage_is_fine() {
    let root = node(&[("/usr/lib/systemd/network/80-x.network", "[Match]\nName=wl*\n[Network]\nDHCP=yes\n")]);
    let advice = advice(root.path(), 252);
    assert_eq!(bad(&advice), [""; 0]);
    assert!(advice.files.is_empty());
}

#[test]
fn a_condition_that_cannot_be_evaluated_hides_nothing() {
    let root = node(&[
        ("/etc/systemd/network/00-x.network", "[Match]\nDriver=foo\n[Link]\nUnmanaged=yes\n"),
        ("/etc/systemd/network/99-all.network", "[Match]\nName=*\n[Network]\nDHCP=yes\n"),
    ]);
    let advice = advice(root.path(), 252);
    assert!(
        bad(&advice).contains(&"it configures guarded links: kube-bridge, tun-0"),
        "{:#?}",
        advice.findings
    );
    assert!(
        bad(&advice).contains(&"eth0 does not keep its addresses over a restart"),
        "{:#?}",
        advice.findings
    );
}

#[test]
fn what_goes_before_the_remedy_is_named() {
    let root = node(&[
        ("/etc/systemd/network/00-all.network", "[Match]\nName=*\n[Network]\nDHCP=yes\n"),
        ("/etc/systemd/networkd.conf.d/zzz.conf", "[Network]\nManageForeignRoutes=yes\n"),
    ]);
    for file in &advice(root.path(), 252).files {
        file.write().unwrap();
    }
    let after = advice(root.path(), 252);
    assert!(after.files.iter().all(|file| file.state == FileState::Right));
    let last = after.findings.last().unwrap();
    assert_eq!(last.level, Level::Wrong);
    assert!(last.what.contains("the files of the remedy are there"), "{last:#?}");
}

#[test]
fn what_systemd_skips_is_skipped() {
    let root = node(&[
        ("/etc/systemd/network/00-gone.network", "-> /nowhere/at-all"),
        ("/etc/systemd/network/10-folder.network/x", ""),
        ("/etc/systemd/network/20-eth.network", "[Match]\nName=eth0\n"),
    ]);
    assert_eq!(of(root.path(), &eth0()).as_deref(), Some("/etc/systemd/network/20-eth.network"));
}

/// The words that systemd takes for the same thing are the same thing.
#[test]
fn settings_that_hold_by_other_words() {
    let wrong = |network: &str| {
        let text = format!("[Match]\nName=eth0\n[Network]\n{network}");
        let root = node(&[("/etc/systemd/network/10-eth.network", &text)]);
        let configuration = Configuration::read(root.path()).unwrap();
        let advice = advise(&configuration, root.path(), 252, &[eth0()], &[], &[]);
        let of_link = advice.findings.iter().filter(|finding| finding.what.starts_with("eth0"));
        of_link.filter(|finding| finding.level == Level::Wrong).count()
    };
    for right in [
        "DHCP=yes\nKeepConfiguration=true\nIgnoreCarrierLoss=1\n",
        "KeepConfiguration=on\nConfigureWithoutCarrier=yes\n",
        "DHCP=none\nKeepConfiguration=static\nIgnoreCarrierLoss=10s\n",
        "DHCP=\nKeepConfiguration=static\nConfigureWithoutCarrier=yes\nIgnoreCarrierLoss=\n",
    ] {
        assert_eq!(wrong(right), 0, "{right}");
    }
    for bad in [
        "DHCP=ipv4\nKeepConfiguration=static\n",
        "DHCP=yes\n",
        // What does not parse leaves what was said before (`config_parse_dhcp`).
        "DHCP=yes\nDHCP=\nKeepConfiguration=static\n",
        "DHCP=ipv6\nDHCP=perhaps\nKeepConfiguration=static\n",
        "KeepConfiguration=no\nConfigureWithoutCarrier=yes\nIgnoreCarrierLoss=no\n",
    ] {
        assert_eq!(wrong(bad), 2, "{bad}");
    }
}
