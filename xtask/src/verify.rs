//! Tests and lints.

use std::{fs, path::PathBuf};

use anyhow::{Context, Result, ensure};

use crate::{
    build, contained, kubernetes_tools, namespaces, package, packages,
    program::{self, answer, as_root, cargo, run, say},
    setup, vm,
};

/// The guardian with all that it can have, as the image has it. The packages have less.
const ALL: &str = "route-guardian/kubernetes";

/// Builds, then runs unit and property tests, then those that need a kernel, as root: in network namespaces
/// of this machine, or in guests where it can make none. In continuous integration the lints come first, where
/// the toolchain has them, and the tests of the sensors on the kernels of [`vm::SERIES`] last.
pub fn test(filter: Option<&str>) -> Result<()> {
    setup::programs(packages::TESTS)?;
    kubernetes_tools::install()?;
    if packages::is_ci() && has_lints() {
        check(true)?;
    }
    // The binary, and the packages that it goes into.
    package::all(1)?;
    if let Some(why) = namespaces::unusable() {
        say(&format!("{why}: what needs a kernel is tested in virtual machines"));
        run(cargo().args(["test", "--package", "xtask", "--package", "route-guardian-ebpf"]).args(filter))?;
        run(cargo().args(["test", "--package", "route-guardian", "--test", "documentation"]).args(filter))?;
        if filter.is_none() {
            // No matter of the kernel, and guests do not have the programs.
            let manifests = ["test", "--package", "route-guardian-tests", "--test", "deploy", "kubernetes"];
            run(cargo().args(manifests).args(["--", "--skip", "told::"]))?;
        }
        return in_guests(&Guests::default(), Inside::Tests(filter.unwrap_or_default())).map(drop);
    }
    let mut tests = cargo();
    tests.args(["test", "--workspace", "--features", ALL, "--no-fail-fast"]).args(filter);
    if !program::is_root() {
        // Cargo builds as who we are, and starts the test binaries through this.
        as_root("true", "making network namespaces for the tests")?;
        let host = build::host()?;
        let variable = format!("CARGO_TARGET_{}_RUNNER", host.to_uppercase().replace('-', "_"));
        tests.env(variable, "sudo -n --preserve-env --");
    }
    run(&mut tests)?;
    // What this machine's kernel takes another may refuse.
    if packages::is_ci() && filter.is_none() {
        in_guests(&Guests::default(), Inside::Sensors)?;
    }
    Ok(())
}

/// What is run in guests.
#[derive(Clone, Copy, Debug)]
pub enum Inside<'a> {
    /// A line for the guest's shell.
    Command(&'a str),
    /// The tests that need a kernel, whose name contains this.
    Tests(&'a str),
    /// Those of a whole node with systemd, likewise.
    Node(&'a str),
    /// Those of the sensors.
    Sensors,
    /// Of these the ones that say what a kernel gives.
    Kernel,
}

/// Which guests.
#[derive(Clone, Debug, Default)]
pub struct Guests {
    /// The kernels' series; without any, [`vm::SERIES`].
    pub series: Vec<String>,
    /// The release of Debian whose systemd they have; without one, this machine's.
    pub release: Option<String>,
}

/// Runs this in a guest of each series.
///
/// # Errors
/// Where it fails in one of them, when all have ended.
pub fn in_guests(guests: &Guests, what: Inside<'_>) -> Result<Vec<String>> {
    let mut files = vec![build::all(false)?];
    let (which, filter): (&[&str], _) = match what {
        Inside::Command(line) => return in_each(guests, line, &files, vm::Init::Script),
        Inside::Tests(filter) => (&[], filter),
        Inside::Node(filter) => (NODE, filter),
        Inside::Sensors => (SENSORS, ""),
        Inside::Kernel => (KERNEL, "--nocapture"),
    };
    // How the node's queries fared is worth reading also where all is well.
    let (init, show) = match what {
        Inside::Node(_) => (vm::Init::Systemd, "--show-output"),
        _ => (vm::Init::Script, ""),
    };
    let (tests, programs) = kernel_tests(which)?;
    files.extend(programs);
    let lines = tests.iter().map(|Test { folder, program, unit }| {
        // One after the other: emulated, each takes the time that all together may take elsewhere.
        let (folder, program) = (folder.display(), program.display());
        let filter = if *unit && filter.is_empty() { WITH_KERNEL } else { filter };
        format!("(cd {folder} && {program} --test-threads=1 {show} --skip page:: {filter}) || failed=1\n")
    });
    let slowness = vm::slowness();
    let command = format!(
        "export ROUTE_GUARDIAN_SLOWNESS={slowness}\nfailed=0\n{}exit $failed",
        lines.collect::<String>()
    );
    files.extend(tests.into_iter().flat_map(|test| [test.folder.join("Cargo.toml"), test.program]));
    in_each(guests, &command, &files, init)
}

fn in_each(guests: &Guests, command: &str, files: &[PathBuf], init: vm::Init) -> Result<Vec<String>> {
    let (mut printed, mut failed) = (Vec::new(), Vec::new());
    let default = vm::SERIES.map(str::to_owned);
    let series = if guests.series.is_empty() { &default[..] } else { &guests.series };
    let job = |series: &String| vm::Job {
        series: series.clone(),
        command: command.to_owned(),
        files: files.to_vec(),
        init,
        release: guests.release.clone(),
    };
    let jobs: Vec<_> = series.iter().map(job).collect();
    for (series, outcome) in series.iter().zip(vm::run_all(&jobs)) {
        match outcome {
            Ok(outcome) => {
                if !outcome.succeeded {
                    failed.push(series.as_str());
                }
                printed.extend(outcome.lines);
            }
            Err(error) => {
                say(&format!("Linux {series}: {error:#}"));
                failed.push(series.as_str());
            }
        }
    }
    ensure!(failed.is_empty(), "it failed on Linux {}", failed.join(" and "));
    Ok(printed)
}

/// Loads and tries the sensors on every kernel that Debian has, and writes the table of what each gives.
pub fn kernels(series: &[String]) -> Result<()> {
    let all = vm::ALL_SERIES.map(str::to_owned).to_vec();
    let tried = if series.is_empty() { all } else { series.to_vec() };
    let printed = in_guests(&Guests { series: tried, release: None }, Inside::Kernel)?;
    let rows: Vec<&str> = printed.iter().filter_map(|line| line.strip_prefix("kernel: ")).collect();
    ensure!(!rows.is_empty(), "no guest has said what its kernel gives");
    let table = rows.iter().map(|row| format!("| {row} |\n")).collect::<Vec<_>>().concat();
    if series.is_empty() {
        let file = program::root().join(KERNELS);
        let text = fs::read_to_string(&file).with_context(|| format!("cannot read {KERNELS}"))?;
        let (head, _) = text.split_once(MARK).with_context(|| format!("{KERNELS} has no line {MARK:?}"))?;
        let (_, tail) = text.split_once(END).with_context(|| format!("{KERNELS} has no line {END:?}"))?;
        fs::write(&file, format!("{head}{MARK}{table}{END}{tail}"))?;
    }
    print!("{table}");
    Ok(())
}

/// The table of kernels, and what its rows are between.
const KERNELS: &str = "docs/kernels.md";
const MARK: &str = "|---|---|---|---|---|---|---|\n";
const END: &str = "<!-- by cargo xtask kernels -->\n";

/// Runs a verb of this program in a guest.
pub fn verb_in_guest(verb: &[String]) -> Result<()> {
    let me = std::env::current_exe()?;
    let command = format!("{}=1 exec {} {}", contained::PREPARED, me.display(), verb.join(" "));
    let files = vec![build::all(false)?, me];
    let series = vm::SERIES[0].to_owned();
    let job = vm::Job { series, command, files, init: vm::Init::Script, release: None };
    ensure!(vm::run(&job)?, "it failed in the guest");
    Ok(())
}

/// What cargo is told besides for the tests of a whole node, and of the sensors.
const NODE: &[&str] = &["--package", "route-guardian-tests", "--features", "node", "--test", "node"];
const KERNEL: &[&str] =
    &["--package", "route-guardian", "--test", "sensor_cables", "--test", "sensor_kernel"];
/// With the features of [`test`], so that they are compiled once.
const SENSORS: &[&str] = &[
    "--package",
    "route-guardian",
    "--features",
    "kubernetes",
    "--test",
    "sensor",
    "--test",
    "sensor_cables",
    "--test",
    "sensor_kernel",
];

/// Which of the unit tests touch a kernel.
const WITH_KERNEL: &str = "netlink::";

/// A test binary.
struct Test {
    /// The folder that it runs in.
    folder: PathBuf,
    program: PathBuf,
    /// Whether it has the unit tests of a crate.
    unit: bool,
}

/// The compiled tests that touch a kernel, and the programs that they run.
fn kernel_tests(which: &[&str]) -> Result<(Vec<Test>, Vec<PathBuf>)> {
    let mut build = cargo();
    build.args(["test", "--no-run"]);
    if which.is_empty() {
        build.args(["--package", "route-guardian-tests", "--package", "route-guardian", "--tests"]);
    }
    build.args(which);
    build.arg("--message-format=json-render-diagnostics");
    let text = answer(&mut build).context("the tests do not build: `cargo test --no-run` says why")?;
    let (mut tests, mut programs) = (Vec::new(), Vec::new());
    for line in text.lines() {
        let Ok(message) = serde_json::from_str::<serde_json::Value>(line) else { continue };
        let path = |key: &str| message[key].as_str().map(PathBuf::from);
        let (Some(manifest), Some(executable)) = (path("manifest_path"), path("executable")) else {
            continue;
        };
        let Some(folder) = manifest.parent() else { continue };
        // Prometheus and the like are no matter of the kernel, and would double the size of the guest; documents are
        // not there.
        if message["target"]["name"] == "deploy" {
            say("what is in deploy/ is not tested in guests, nor is the page in a browser");
            continue;
        }
        if message["target"]["name"] == "documentation" {
            continue;
        }
        if message["profile"]["test"] == true {
            let kinds = message["target"]["kind"].as_array().map(Vec::as_slice).unwrap_or_default();
            let unit = kinds.iter().any(|kind| kind == "lib" || kind == "bin");
            tests.push(Test { folder: folder.to_owned(), program: executable, unit });
        } else if folder.ends_with("tests") {
            programs.push(executable);
        }
    }
    ensure!(!tests.is_empty(), "cargo does not say where the tests are");
    Ok((tests, programs))
}

/// Formatting, and lints as errors, for the workspace and for the BPF programs; whether it compiles for 64-bit ARM.
pub fn check(arm64: bool) -> Result<()> {
    let tools = setup::tools()?;
    build::object(&tools)?;
    if arm64 {
        build::check_arm64(&tools)?;
    }
    run(cargo().args(["fmt", "--all", "--check"]))?;
    let clippy =
        |what: &[&str]| run(cargo().arg("clippy").args(what).args(["--all-targets", "--", "-D", "warnings"]));
    clippy(&["--workspace", "--features", &format!("{ALL},route-guardian-tests/node")])?;
    // As it is packaged.
    clippy(&["--package", "route-guardian"])?;
    // The programs are linted for the host: clippy comes with the workspace's toolchain, and `core` for the
    // BPF target does not. The release profile aborts on panic, as a program without `std` has to. There is
    // no call that the verifier likes as much as none: all is inlined.
    run(cargo()
        .env("RUSTC_BOOTSTRAP", "1")
        .env("CARGO_TARGET_DIR", program::root().join("target/bpf"))
        .args(["clippy", "--release", "--package", "route-guardian-ebpf", "--features", "programs"])
        .args(["--bin", "route-guardian-bpf", "--", "-D", "warnings", "-A", "clippy::inline_always"]))
}

fn has_lints() -> bool {
    ["fmt", "clippy"].iter().all(|lint| answer(cargo().args([lint, "--version"])).is_some())
}
