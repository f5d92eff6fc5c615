use std::{
    future::poll_fn,
    path::PathBuf,
    process::{Child, Command, Stdio},
    sync::Arc,
};

use tokio::time::timeout;

use super::*;
use crate::model::Confidence;

/// Longer than any of this takes on a busy machine.
const PATIENCE: Duration = Duration::from_secs(20);

/// A program of its own path, and processes of it.
struct Program {
    path: PathBuf,
    _folder: tempfile::TempDir,
}

impl Program {
    fn new(original: &str) -> Self {
        Self::named(original, "kube-router")
    }

    fn named(original: &str, name: &str) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().canonicalize().unwrap().join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        // By another process: a descriptor open for writing here could leak into a child of another test.
        assert!(Command::new("cp").arg(original).arg(&path).status().unwrap().success());
        Self { path, _folder: folder }
    }

    fn start(&self, arguments: &[&str]) -> Running {
        let running = Running(
            Command::new(&self.path)
                .args(arguments)
                .stdin(Stdio::piped())
                .stdout(Stdio::null())
                .spawn()
                .unwrap(),
        );
        // The kernel lets a parent go on before its child has the new program (`exec_mmap` in `fs/exec.c`).
        let exe = format!("/proc/{}/exe", running.0.id());
        while fs::read_link(&exe).unwrap() != self.path {
            std::thread::sleep(Duration::from_millis(1));
        }
        running
    }

    fn rule(&self) -> OwnerRule {
        OwnerRule::new(&[self.path.to_str().unwrap().to_owned()], &[], true).unwrap()
    }
}

/// A process that is ended with the test.
struct Running(Child);

impl Running {
    fn process(&self) -> Process {
        procfs::read(self.0.id()).unwrap()
    }

    fn end(mut self) {
        self.kill();
    }

    fn kill(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.kill();
    }
}

fn run(test: impl Future<Output = ()>) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async { timeout(PATIENCE, test).await.expect("it never changed") });
}

/// Whether nothing changes for a moment.
async fn changed(watch: &mut OwnerWatch) {
    poll_fn(|cx| watch.poll_changed(cx)).await;
}

async fn stays(watch: &mut OwnerWatch) -> bool {
    timeout(Duration::from_millis(200), changed(watch)).await.is_err()
}

fn long_ago(watch: &mut OwnerWatch) {
    watch.looked = Stamp(0);
}

#[test]
fn an_owner_that_runs_already_is_found_and_its_end_told() {
    run(async {
        let program = Program::new("/bin/sleep");
        let owner = program.start(&["600"]);
        // Replaced on disk: its path says so, and it is the owner all the same.
        fs::remove_file(&program.path).unwrap();
        let mut watch = OwnerWatch::new(program.rule());
        assert!(watch.alive() && watch.gone_since().is_none());
        assert!(stays(&mut watch).await);
        let before = clock::now();
        owner.end();
        changed(&mut watch).await;
        assert!(!watch.alive() && watch.gone_since() >= Some(before));
        assert!(stays(&mut watch).await);
    });
}

#[test]
fn without_an_owner_it_is_gone_since_the_start_until_one_is_found() {
    run(async {
        let program = Program::new("/bin/sleep");
        let before = clock::now();
        let mut watch = OwnerWatch::new(program.rule());
        let since = watch.gone_since().unwrap();
        assert!(since >= before && since <= clock::now());
        let owner = program.start(&["600"]);
        // The first look was less than a second ago.
        watch.look_again(clock::now());
        assert!(watch.looking.is_none() && stays(&mut watch).await && !watch.alive());
        long_ago(&mut watch);
        watch.look_again(clock::now());
        changed(&mut watch).await;
        assert!(watch.alive());
        // What was found is looked at once more, and that is all.
        while watch.looking.is_some() {
            assert!(stays(&mut watch).await);
        }
        long_ago(&mut watch);
        watch.look_again(clock::now());
        assert!(watch.looking.is_none(), "one is known: there is nothing to look for");
        owner.end();
        changed(&mut watch).await;
        assert!(!watch.alive());
    });
}

#[test]
fn the_last_of_several_counts() {
    run(async {
        let program = Program::new("/bin/sleep");
        let first = program.start(&["600"]);
        let mut watch = OwnerWatch::new(program.rule());
        // One more that nobody has told of.
        let second = program.start(&["600"]);
        first.end();
        assert!(stays(&mut watch).await && watch.alive());
        long_ago(&mut watch);
        second.end();
        changed(&mut watch).await;
        assert!(!watch.alive());
    });
}

#[test]
fn what_an_owner_has_started_is_none_itself() {
    run(async {
        let program = Program::new("/bin/sh");
        // The child ends with our end of the pipe, and outlives its parent until then.
        let mut owner = program.start(&["-c", "exec 3<&0; cat <&3 & wait"]);
        let pipe = owner.0.stdin.take();
        let mut watch = OwnerWatch::new(program.rule());
        assert!(watch.alive());
        owner.kill();
        changed(&mut watch).await;
        assert!(!watch.alive());
        drop(pipe);
    });
}

#[test]
fn one_that_becomes_another_program_is_none_any_more() {
    run(async {
        let program = Program::new("/bin/sh");
        let mut process = program.start(&["-c", "read line; exec cat"]);
        let mut watch = OwnerWatch::new(program.rule());
        assert!(watch.alive());
        let mut pipe = process.0.stdin.take().unwrap();
        io::Write::write_all(&mut pipe, b"\n").unwrap();
        // It must not be looked at before: nothing runs here meanwhile.
        while program.rule().names_exe(&process.process().exe.unwrap_or_default()) {
            std::thread::sleep(Duration::from_millis(5));
        }
        changed(&mut watch).await;
        assert!(!watch.alive() && process.0.try_wait().unwrap().is_none());
    });
}

#[test]
fn a_cni_plugin_is_no_sign_of_life() {
    run(async {
        let program = Program::named("/bin/sleep", "opt/cni/bin/bridge");
        let plugin = program.start(&["600"]);
        let mut watch = OwnerWatch::new(program.rule());
        watch.started(&plugin.process());
        assert!(!watch.alive());
    });
}

#[test]
fn one_that_is_told_of_is_held_at_once() {
    run(async {
        let program = Program::new("/bin/sleep");
        let other = Program::new("/bin/sleep");
        let mut watch = OwnerWatch::new(program.rule());
        let foreigner = other.start(&["600"]);
        watch.started(&foreigner.process());
        assert!(!watch.alive());
        let owner = program.start(&["600"]);
        watch.started(&owner.process());
        assert!(watch.alive());
        changed(&mut watch).await;
        let process = owner.process();
        owner.end();
        changed(&mut watch).await;
        assert!(!watch.alive());
        // Told of too late.
        watch.started(&process);
        assert!(!watch.alive());
    });
}

#[test]
fn a_change_by_a_child_shows_the_owner_and_not_the_child() {
    run(async {
        let program = Program::new("/bin/sleep");
        let mut watch = OwnerWatch::new(program.rule());
        let owner = program.start(&["600"]);
        let child = Program::new("/bin/sleep").start(&["600"]).process();
        watch.seen(&Actor::Process {
            thread: None,
            process: Arc::new(child),
            ancestors: vec![Arc::new(owner.process())],
            cgroup: None,
            confidence: Confidence::Exact,
        });
        assert!(watch.alive());
        assert_eq!(watch.owners.iter().map(|owner| owner.process.tgid).collect::<Vec<_>>(), [owner.0.id()]);
    });
}

#[test]
fn a_kernel_without_pidfds_is_looked_at_lazily_and_believes_the_exit_sensor() {
    run(async {
        let program = Program::new("/bin/sleep");
        let owner = program.start(&["600"]);
        let process = owner.process().id;
        let mut watch = OwnerWatch::new(program.rule());
        watch.owners[0].pidfd = None;
        owner.end();
        assert!(stays(&mut watch).await && watch.alive(), "nobody has said so");
        long_ago(&mut watch);
        watch.look_again(clock::now());
        changed(&mut watch).await;
        assert!(!watch.alive());

        let owner = program.start(&["600"]);
        watch.started(&owner.process());
        changed(&mut watch).await;
        watch.owners[0].pidfd = None;
        let again = owner.process().id;
        owner.end();
        watch.ended(process);
        assert!(watch.looking.is_none(), "that was another");
        watch.ended(again);
        changed(&mut watch).await;
        assert!(!watch.alive());
    });
}

#[test]
fn a_cgroup_makes_owners_and_a_new_rule_is_followed() {
    run(async {
        let program = Program::new("/bin/sleep");
        let mut watch = OwnerWatch::new(program.rule());
        assert!(!watch.alive());
        // This process, and any other.
        watch.set_rule(OwnerRule::new(&[], &["*".to_owned()], true).unwrap());
        changed(&mut watch).await;
        assert!(watch.alive() && (1..=OWNERS_MAX).contains(&watch.owners.len()));
        watch.set_rule(program.rule());
        assert!(watch.alive(), "until it is known better");
        changed(&mut watch).await;
        assert!(!watch.alive());
        watch.set_rule(OwnerRule::default());
        assert!(stays(&mut watch).await && !watch.alive());
    });
}
