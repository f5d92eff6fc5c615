use std::{fs, path::Path};

use super::*;
use crate::knowledge::{Advice, Level};

fn node(files: &[(&str, &str)]) -> tempfile::TempDir {
    let root = tempfile::tempdir().unwrap();
    for (path, text) in files {
        let path = root.path().join(path.trim_start_matches('/'));
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }
    root
}

fn bridge() -> Interface {
    Interface::new("kube-bridge", "bridge")
}

fn tunnel() -> Interface {
    Interface::new("tun-e443169117a", "ipip")
}

/// What becomes of a link by such files, with the place as it is shown.
fn fate(files: &[(&str, &str)], link: &Interface) -> String {
    match Configuration::read(node(files).path()).unwrap().fate(link) {
        Fate::Left(place) => format!("left {place}"),
        Fate::Managed(None) => "managed".into(),
        Fate::Managed(Some(place)) => format!("managed {place}"),
        Fate::Unclear(place) => format!("unclear {place}"),
    }
}

fn by_list(list: &str, link: &Interface) -> String {
    let said = fate(&[(MAIN, &format!("[keyfile]\nunmanaged-devices={list}\n"))], link);
    said.split(' ').next().unwrap().to_owned()
}

#[test]
fn lists() {
    for (list, bridge_is, tunnel_is) in [
        ("kube-bridge", "left", "managed"),
        ("kube-*", "managed", "managed"),
        ("*", "left", "left"),
        ("interface-name:kube-*", "left", "managed"),
        ("Interface-Name:~kube-?ridge", "left", "managed"),
        ("interface-name:=kube-*", "managed", "managed"),
        ("interface-name:*-*e*", "left", "left"),
        ("interface-name:kube", "managed", "managed"),
        ("interface-name:a , interface-name:tun-*;", "managed", "left"),
        ("interface-name:kube-bridge\\;interface-name:tun-*", "managed", "managed"),
        ("type:bridge", "left", "managed"),
        ("type:iptunnel", "managed", "left"),
        ("except:interface-name:tun-*", "left", "managed"),
        ("*,except:type:bridge", "managed", "left"),
        ("interface-name:kube-*;except:interface-name:kube-bridge", "managed", "managed"),
        ("except:kube-bridge", "left", "left"),
        ("driver:ipip", "unclear", "unclear"),
        ("driver:ipip;interface-name:kube-bridge", "left", "unclear"),
        ("*;except:driver:ipip", "unclear", "unclear"),
        ("interface-name:eth0;except:driver:ipip", "managed", "managed"),
        ("", "managed", "managed"),
    ] {
        let is = (by_list(list, &bridge()), by_list(list, &tunnel()));
        assert_eq!((is.0.as_str(), is.1.as_str()), (bridge_is, tunnel_is), "{list}");
    }
    let known = Interface { mac: Some("02:00:00:00:00:0a".into()), ..bridge() };
    assert_eq!(by_list("mac:02:00:00:00:00:0A", &known), "left");
    assert_eq!(by_list("02:00:00:00:00:0B", &known), "managed");
}

#[test]
fn later_files_set_add_and_take_back() {
    let packaged = ("/usr/lib/NetworkManager/conf.d/90-p.conf", "[keyfile]\nunmanaged-devices=type:bridge\n");
    assert_eq!(
        fate(&[packaged], &bridge()),
        "left /usr/lib/NetworkManager/conf.d/90-p.conf:2 unmanaged-devices=type:bridge"
    );
    // The main file comes later, whatever the names.
    let main = (MAIN, "[main]\nplugins=keyfile\n[keyfile]\nunmanaged-devices=interface-name:tun-*\n");
    assert_eq!(
        fate(&[packaged, main], &bridge()),
        format!("managed {MAIN}:4 unmanaged-devices=interface-name:tun-*")
    );
    let added = ("/etc/NetworkManager/conf.d/10-a.conf", "[keyfile]\nunmanaged-devices+=kube-bridge\n");
    assert!(
        fate(&[packaged, main, added], &bridge()).starts_with("left /etc/NetworkManager/conf.d/10-a.conf:2")
    );
    assert!(fate(&[packaged, main, added], &tunnel()).starts_with(&format!("left {MAIN}:4")));
    let taken = ("/etc/NetworkManager/conf.d/20-b.conf", "[keyfile]\nunmanaged-devices-=kube-bridge\n");
    assert!(
        fate(&[main, added, taken], &bridge()).starts_with("managed /etc/NetworkManager/conf.d/20-b.conf:2")
    );
    // One of the same name hides it, and one that is switched off says nothing.
    let hidden = ("/run/NetworkManager/conf.d/90-p.conf", "");
    assert_eq!(fate(&[packaged, hidden], &bridge()), "managed");
    let off =
        ("/etc/NetworkManager/conf.d/90-q.conf", "[.config]\nenable=no\n[keyfile]\nunmanaged-devices=*\n");
    assert_eq!(fate(&[off], &bridge()), "managed");
}

#[test]
fn sections_of_devices() {
    let sections = "[device]\nmanaged=0\n\
                    [device-a]\nmatch-device=type:bridge\nmanaged=1\n\
                    [device-b]\nmatch-device=interface-name:kube-*\nmanaged=0\n\
                    [device-c]\nmatch-device=interface-name:tun-*\nstop-match=1\n";
    let main = (MAIN, sections);
    assert_eq!(fate(&[main], &bridge()), format!("managed {MAIN}:5 managed=1"), "the first of a file");
    assert_eq!(fate(&[main], &Interface::new("kube-dummy-if", "dummy")), format!("left {MAIN}:8 managed=0"));
    assert_eq!(
        fate(&[main], &Interface::new("eth7", "veth")),
        format!("left {MAIN}:2 managed=0"),
        "[device] last"
    );
    assert_eq!(fate(&[main], &tunnel()), "managed", "nothing after a match that stops");
    let later = ("/etc/NetworkManager/conf.d/1.conf", "[device-z]\nmatch-device=*\nmanaged=0\n");
    assert_eq!(fate(&[main, later], &bridge()), format!("left {}:3 managed=0", later.0), "the last file");
}

#[test]
fn pods_cables_are_left_alone_by_udev() {
    let rules = (UDEV_RULES, "# cables\nENV{ID_NET_DRIVER}==\"veth\", ENV{NM_UNMANAGED}=\"1\"\n");
    let cable = Interface::new("veth01234567", "veth");
    assert!(fate(&[rules], &cable).starts_with(&format!("left {UDEV_RULES}:2 ")));
    assert_eq!(fate(&[rules], &bridge()), "managed");
    assert_eq!(fate(&[rules, (UDEV_HIDDEN, "")], &cable), "managed");
    let main = (MAIN, "[device]\nmanaged=yes\n");
    assert_eq!(fate(&[rules, main], &cable), format!("managed {MAIN}:2 managed=yes"));
}

fn advice(root: &Path) -> Advice {
    let patterns = ["kube-bridge".to_owned(), "tun-*".to_owned(), "x[12]?".to_owned()];
    advise(&Configuration::read(root).unwrap(), root, &[bridge(), tunnel()], &patterns)
}

fn bad(advice: &Advice) -> Vec<&str> {
    advice.findings.iter().filter(|f| f.level == Level::Wrong).map(|f| f.what.as_str()).collect()
}

#[test]
fn what_is_wrong_is_put_right_by_what_is_written() {
    let root = node(&[(
        "/etc/NetworkManager/conf.d/99-unmanaged-devices.conf",
        "[keyfile]\nunmanaged-devices=interface-name:cali*\n",
    )]);
    let before = advice(root.path());
    assert_eq!(
        bad(&before),
        ["it manages guarded links: kube-bridge, tun-e443169117a, by what this line says, or lacks"]
    );
    assert_eq!(before.findings[0].place.as_ref().unwrap().line, 2);
    assert!(before.files[0].text.contains("interface-name:x??\n"), "{}", before.files[0].text);
    assert!(before.files[0].write().unwrap());
    let after = advice(root.path());
    assert_eq!(bad(&after), [""; 0], "{:#?}", after.findings);
    assert!(!after.files[0].write().unwrap());
    // And it stays the guardian's to bring up to date, where another file takes it back.
    fs::write(root.path().join("etc/NetworkManager/conf.d/zzz.conf"), "[keyfile]\nunmanaged-devices=\n")
        .unwrap();
    assert_eq!(bad(&advice(root.path())).len(), 1);
}

#[test]
fn what_leaves_all_alone_is_left_alone() {
    let root = node(&[(MAIN, "[keyfile]\nunmanaged-devices=*\n")]);
    let advice = advice(root.path());
    assert_eq!(bad(&advice), [""; 0]);
    assert!(advice.files.is_empty() && advice.effect.is_none());
}
