//! `cargo xtask VERB`: everything there is to do with this repository, with nothing set up by hand.

mod bench;
mod build;
mod contained;
mod demo;
mod kubernetes_tools;
mod linker;
mod namespaces;
mod package;
mod packages;
mod profile;
mod program;
mod sbom;
mod setup;
mod standalone;
mod toolchain;
mod verify;
mod vm;

use std::process::{Command, ExitCode};

use anyhow::Result;
use clap::{Parser, Subcommand};

use build::Kind;

#[derive(Parser)]
#[command(name = "cargo xtask", bin_name = "cargo xtask", about, max_term_width = 100)]
struct Cli {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Subcommand)]
enum Verb {
    /// Find or install what the build needs
    Setup {
        /// Also what the namespace tests, the demo and the benchmark need
        #[arg(long)]
        tests: bool,
    },
    /// Build target/release/route-guardian, with the BPF programs inside it
    Build {
        /// Build target/debug/route-guardian instead
        #[arg(long)]
        debug: bool,
        /// Build target/static/route-guardian instead: it needs no library, and is what the image has
        #[arg(long = "static", conflicts_with = "debug")]
        standalone: bool,
    },
    /// Measure which way the guardian goes while it restores, for the compiler: what is built for release from then on takes
    /// less time for it
    Train {
        /// For `build --static`
        #[arg(long = "static")]
        standalone: bool,
    },
    /// Write target/static/route-guardian.cdx.json: what is in the binary, for who looks for vulnerabilities
    Sbom,
    /// Build, then run the unit, property and namespace tests (the last as root)
    Test {
        /// Only tests whose name contains this
        filter: Option<String>,
    },
    /// Build, then pack target/package/route-guardian_*.deb and .rpm
    Package {
        /// How often this version was packaged, counted from 1
        #[arg(long, default_value_t = 1)]
        release: u32,
    },
    /// Check formatting and lints, of the BPF programs too
    Check {
        /// Also whether all compiles for 64-bit ARM
        #[arg(long)]
        arm64: bool,
    },
    /// See it work: real programs take a node's routes apart, the guardian names them and restores
    Demo,
    /// Measure against other programs, side by side in one run
    Bench {
        #[command(subcommand)]
        what: bench::What,
    },
    /// Open a shell in a network namespace with kube-router-like state
    Lab,
    /// Run the tests that need a kernel and the scenarios of a whole node, or a command, in virtual machines with
    /// Debian's own kernels
    Vm {
        /// The kernel's series, such as 6.1; may be given several times. Without it: 6.12 and 6.1
        #[arg(long)]
        kernel: Vec<String>,
        /// The release of Debian whose systemd the guest has, such as trixie. Without it: this machine's
        #[arg(long)]
        systemd: Option<String>,
        /// A line for the guest's shell, in place of the tests; target/release/route-guardian is there
        #[arg(long, conflicts_with = "filter")]
        run: Option<String>,
        /// Run the scenarios of a whole node, with systemd as its first process, and not the other tests
        #[arg(long)]
        node: bool,
        /// Only tests whose name contains this
        filter: Option<String>,
    },
    /// Load and try the sensors on every kernel that Debian has, and write docs/kernels.md
    Kernels {
        /// Only these series, and write nothing
        #[arg(long)]
        kernel: Vec<String>,
    },
    /// Delete one route with a raw netlink request (the demo's client without iproute2)
    #[command(hide = true)]
    NetlinkDelete {
        /// The route, such as 10.244.2.0/24, in the main table
        route: String,
    },
    /// Take away one of each kind of object that is guarded, again and again (what `train` measures)
    #[command(hide = true)]
    Exercise,
    /// Re-add every IPv4 route of protocol 17 that is deleted (the benchmark's floor)
    #[command(hide = true)]
    Floor,
}

fn main() -> ExitCode {
    match act(Cli::parse().verb) {
        Ok(code) => code,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn act(verb: Verb) -> Result<ExitCode> {
    match verb {
        Verb::Setup { tests } => {
            let tools = setup::tools()?;
            println!("BPF compiler: {}", tools.compiler);
            println!("bpf-linker:   {}", tools.linker.display());
            if tests {
                setup::programs(packages::TESTS)?;
                kubernetes_tools::install()?;
                println!("The programs that tests, demo and benchmark use are there.");
            }
        }
        Verb::Build { standalone: true, .. } => {
            profile::miss(Kind::Static);
            println!("{}", standalone::build()?.display());
        }
        Verb::Build { debug, .. } => println!("{}", build::all(debug)?.display()),
        Verb::Train { standalone } => {
            let kind = if standalone { Kind::Static } else { Kind::Dynamic };
            let code = contained::run(
                || {
                    setup::programs(&[packages::DEMO, packages::BENCH].concat())
                        .and_then(|()| profile::counting(kind))
                },
                profile::train,
            )?;
            // By who has the compiler, and not by root in that one's place.
            if code == ExitCode::SUCCESS && contained::is_outermost() {
                profile::keep(kind)?;
            }
            return Ok(code);
        }
        Verb::Sbom => println!("{}", sbom::write()?.display()),
        Verb::Test { filter } => verify::test(filter.as_deref())?,
        Verb::Package { release } => {
            profile::miss(Kind::Dynamic);
            for package in package::all(release)? {
                println!("{}", package.display());
            }
        }
        Verb::Check { arm64 } => verify::check(arm64)?,
        Verb::Demo | Verb::Bench { .. } if elsewhere() => {
            verify::verb_in_guest(&std::env::args().skip(1).collect::<Vec<_>>())?;
        }
        Verb::Demo => {
            return contained::run(
                || setup::programs(packages::DEMO).and_then(|()| build::all(false)),
                demo::run,
            );
        }
        Verb::Bench { what } => {
            return contained::run(
                || {
                    setup::programs(packages::BENCH)?;
                    // Measured is what is to be released.
                    if !profile::is_there(Kind::Dynamic) {
                        program::run(Command::new(std::env::current_exe()?).arg("train"))?;
                    }
                    build::all(false)
                },
                || bench::run(&what),
            );
        }
        Verb::Lab => return demo::shell(),
        Verb::Vm { kernel, systemd, run, node, filter } => {
            let guests = verify::Guests { series: kernel, release: systemd };
            let filter = filter.as_deref().unwrap_or_default();
            if let Some(line) = run.as_deref() {
                verify::in_guests(&guests, verify::Inside::Command(line))?;
                return Ok(ExitCode::SUCCESS);
            }
            let mut all = Vec::new();
            if !node {
                all.push(verify::Inside::Tests(filter));
            }
            if node || filter.is_empty() {
                all.push(verify::Inside::Node(filter));
            }
            // What fails in the ones says nothing of the others.
            let ended: Vec<_> = all.into_iter().map(|what| verify::in_guests(&guests, what)).collect();
            ended.into_iter().collect::<Result<Vec<_>>>()?;
        }
        Verb::Kernels { kernel } => verify::kernels(&kernel)?,
        Verb::NetlinkDelete { route } => demo::netlink_delete(&route)?,
        Verb::Exercise => return contained::run(|| Ok(()), profile::exercise),
        Verb::Floor => bench::floor()?,
    }
    Ok(ExitCode::SUCCESS)
}

/// Whether a verb that takes a namespace of this machine has to do without, and is run in a guest instead.
fn elsewhere() -> bool {
    if !contained::is_outermost() {
        return false;
    }
    let why = namespaces::unusable();
    if let Some(why) = &why {
        program::say(&format!("{why}: going on in a virtual machine, where times mean little"));
    }
    why.is_some()
}
