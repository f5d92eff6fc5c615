use std::os::unix::fs::PermissionsExt as _;

use super::*;

fn here() -> Origin {
    Origin {
        boot_id: "3f1c9f5e-0c9a-4b5e-9f5d-1f2e3d4c5b6a".into(),
        netns: 4_026_531_840,
        profile: "kube-router".into(),
        time: "2026-11-22T03:02:11.204518Z".into(),
    }
}

fn lines() -> Vec<Line> {
    vec![
        ("10.244.2.0/24 via 10.0.0.11 dev eth0 proto 17".into(), vec![0x1c, 0, 0, 0, 0xff]),
        ("32765:\tfrom \"all\"".into(), b"rule".to_vec()),
    ]
}

#[allow(clippy::unnecessary_wraps, reason = "it stands for what may refuse a message")]
fn same(message: &[u8]) -> Result<Vec<u8>, String> {
    Ok(message.to_vec())
}

fn messages() -> Vec<Vec<u8>> {
    lines().into_iter().map(|(_, message)| message).collect()
}

#[test]
fn what_was_written_is_read() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path().join("state");
    assert!(matches!(read(&dir, &here(), same), Err(NotUsable::Nothing(_))));
    write(&dir, &here(), lines()).unwrap();
    let saved = read(&dir, &here(), same).unwrap();
    assert_eq!(saved, Saved { objects: messages(), time: here().time, damaged: vec![] });
    assert_eq!(fs::metadata(dir.join(NAME)).unwrap().permissions().mode() & 0o777, 0o600);
    assert!(!dir.join(NEW).exists());
    let text = fs::read_to_string(dir.join(NAME)).unwrap();
    assert!(text.starts_with(r#"{"version":1,"boot_id":"3f1c9f5e-"#), "{text}");
    assert!(text.contains(
        "\n{\"text\":\"10.244.2.0/24 via 10.0.0.11 dev eth0 proto 17\",\"message\":\"1c000000ff\"}\n"
    ));

    write(&dir, &here(), []).unwrap();
    assert_eq!(read(&dir, &here(), same).unwrap().objects.len(), 0);
}

#[test]
fn another_boot_or_namespace_is_not_this_one_and_no_trouble() {
    let dir = tempfile::tempdir().unwrap();
    write(dir.path(), &here(), lines()).unwrap();
    for (other, part) in [
        (
            Origin { boot_id: "another".into(), ..here() },
            "is of an earlier boot, saved at 2026-11-22T03:02:11",
        ),
        (Origin { netns: 7, ..here() }, "is of another network namespace"),
    ] {
        let error = read(dir.path(), &other, same).unwrap_err();
        assert!(!error.is_trouble() && error.to_string().contains(part), "{error}");
    }
    // Another profile has another scope: what it does not cover is not desired, and the caller sees to that.
    let other = Origin { profile: "flannel".into(), time: String::new(), ..here() };
    assert!(read(dir.path(), &other, same).is_ok());
    // Where the kernel does not tell the boot, nothing is of it.
    let unknown = Origin { boot_id: String::new(), ..here() };
    write(dir.path(), &unknown, lines()).unwrap();
    assert!(read(dir.path(), &unknown, same).is_err());
}

#[test]
fn a_damaged_line_costs_itself_and_says_where_it_is() {
    let dir = tempfile::tempdir().unwrap();
    write(dir.path(), &here(), lines()).unwrap();
    let path = dir.path().join(NAME);
    let mut text = fs::read_to_string(&path).unwrap();
    text += "{\"text\":\"\",\"message\":\"0g\"}\n{\"text\":\"\",\"message\":\"abc\"}\n\n";
    text += &["{\"text\":\"", &"x".repeat(LINE_MAX as usize), "\",\"message\":\"00\"}\n"].concat();
    text += "{\"text\":\"last\",\"message\":\"00\"}\n{\"text\":\"cut";
    fs::write(&path, text).unwrap();
    let decode = |message: &[u8]| match message {
        [0] => Err("too short".to_owned()),
        other => same(other),
    };
    let saved = read(dir.path(), &here(), decode).unwrap();
    assert_eq!(saved.objects, messages());
    let at = |line: usize| format!("{}:{line}: ", path.display());
    let expected = [
        "the message is not",
        "the message is not",
        "EOF",
        "it has more than 262144",
        "too short",
        "it ends in",
    ];
    assert_eq!(saved.damaged.len(), expected.len());
    for ((n, damaged), expected) in saved.damaged.iter().enumerate().zip(expected) {
        assert!(damaged.starts_with(&(at(n + 4) + expected)), "{damaged}");
    }
}

#[test]
fn a_damaged_header_or_another_form_is_told() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join(NAME);
    for (text, part) in [
        ("", "desired.jsonl:1: the header is damaged: the file is empty; nothing of it is used"),
        ("{\"version\":1", "the header is damaged: it ends in the middle"),
        ("\0\0\0\n", "the header is damaged: expected value at line 1"),
        ("{\"version\":1,\"boot_id\":3}\n", "the header is damaged: invalid type"),
        (
            "{\"version\":2,\"boot_id\":\"\",\"netns\":1,\"profile\":\"\",\"time\":\"\"}\n",
            "has the form 2, and this guardian reads 1",
        ),
    ] {
        fs::write(&path, text).unwrap();
        let error = read(dir.path(), &here(), same).unwrap_err();
        assert!(error.is_trouble() && error.to_string().contains(part), "{error}");
    }
}

#[test]
fn a_write_that_fails_leaves_the_old_state_and_says_where() {
    let dir = tempfile::tempdir().unwrap();
    write(dir.path(), &here(), lines()).unwrap();
    // In the way, and not a file.
    fs::create_dir_all(dir.path().join(NEW).join("full")).unwrap();
    let error = write(dir.path(), &here(), []).unwrap_err().to_string();
    assert!(error.contains("desired.jsonl.new: "), "{error}");
    assert_eq!(read(dir.path(), &here(), same).unwrap().objects, messages());
    fs::remove_dir_all(dir.path().join(NEW)).unwrap();

    // A link that somebody has left there is not followed.
    let precious = dir.path().join("precious");
    fs::write(&precious, "precious").unwrap();
    std::os::unix::fs::symlink(&precious, dir.path().join(NEW)).unwrap();
    write(dir.path(), &here(), []).unwrap();
    assert_eq!(fs::read_to_string(&precious).unwrap(), "precious");
    assert_eq!(read(dir.path(), &here(), same).unwrap().objects.len(), 0);
}

#[test]
fn this_boot_has_an_id() {
    assert_eq!(boot_id().len(), 36);
}

#[test]
fn a_burst_is_saved_once_and_an_endless_one_every_so_often() {
    let second = |n: u64| Stamp(n * 1_000_000_000);
    let mut debounce = Debounce::default();
    assert!(debounce.deadline().is_none() && !debounce.due(second(9)) && !debounce.is_pending());
    debounce.touch(second(10));
    assert_eq!(debounce.deadline(), Some(second(11)));
    debounce.touch(Stamp(10_900_000_000));
    assert!(debounce.is_pending() && !debounce.due(second(11)));
    assert!(debounce.due(Stamp(11_900_000_000)) && !debounce.is_pending());
    assert!(!debounce.due(second(12)));

    let saved = (200..400)
        .filter(|tenth| {
            debounce.touch(Stamp(tenth * 100_000_000));
            debounce.due(Stamp(tenth * 100_000_000))
        })
        .count();
    assert_eq!(saved, 3, "in 20 s: after 5, 10.1 and 15.2");
}
