//! IPv4 routes that fall without a message, told one by one: hooks on the kernel's own functions.
//!
//! What they alone know is found another way too, by reading the tables again: a kernel that does not take them costs
//! some milliseconds.

use aya::{
    Btf, Ebpf,
    programs::{Program, ProgramError},
};

use super::{SensorStatus, load::chain, offsets::Offsets};

/// A kernel function, and the programs for a trampoline and for a breakpoint on it.
struct Hook {
    function: &'static str,
    trampoline: &'static str,
    probe: &'static str,
}

/// In this order: the last one switches the others on.
const HOOKS: [Hook; 3] = [
    Hook { function: "fib_table_flush", trampoline: "flush_ends", probe: "flush_ends_probe" },
    Hook { function: "fib_notify_alias_delete", trampoline: "route_falls", probe: "route_falls_probe" },
    Hook { function: "fib_table_flush", trampoline: "flush_begins", probe: "flush_begins_probe" },
];

/// Attaches the hooks as this kernel takes them: found by trying.
pub fn attach(ebpf: &mut Ebpf, offsets: Option<&Offsets>, with_trampolines: bool) -> SensorStatus {
    let refused = |why: String| SensorStatus { name: "fib", attached: false, why: Some(why) };
    // Of these two a kernel has one.
    let tos = |offsets: &Offsets| offsets.lack(&["dscp"]).filter(|_| offsets.missing("tos").is_some());
    let lack = offsets.and_then(|offsets| offsets.lack(&["netns", "fib"]).or_else(|| tos(offsets)));
    if let Some(lack) = lack {
        return refused(lack);
    }
    let tried = if with_trampolines { trampolines(ebpf) } else { Err("fentry not tried".into()) };
    let trampolines = match tried {
        Ok(()) => return SensorStatus { name: "fib", attached: true, why: Some("by fentry".into()) },
        Err(error) => error,
    };
    match probes(ebpf) {
        Ok(()) => {
            SensorStatus { name: "fib", attached: true, why: Some(format!("by kprobe ({trampolines})")) }
        }
        Err(error) => refused(format!("{trampolines}; {error}")),
    }
}

/// All or none.
fn trampolines(ebpf: &mut Ebpf) -> Result<(), String> {
    // Takes tens of megabytes while it lives.
    let btf = Btf::from_sys_fs().map_err(|error| format!("fentry: {}", chain(&error)))?;
    for Hook { function, trampoline, .. } in &HOOKS {
        let attached = match ebpf.program_mut(trampoline) {
            Some(Program::FEntry(program)) => {
                program.load(function, &btf).and_then(|()| program.attach().map(drop))
            }
            Some(Program::FExit(program)) => {
                program.load(function, &btf).and_then(|()| program.attach().map(drop))
            }
            _ => Err(ProgramError::NotLoaded),
        };
        if let Err(error) = attached {
            for hook in &HOOKS {
                // What was not loaded has nothing to give back.
                let _ = match ebpf.program_mut(hook.trampoline) {
                    Some(Program::FEntry(program)) => program.unload(),
                    Some(Program::FExit(program)) => program.unload(),
                    _ => Ok(()),
                };
            }
            return Err(format!("fentry on {function}: {}", chain(&error)));
        }
    }
    Ok(())
}

/// Without the last one the others tell nothing.
fn probes(ebpf: &mut Ebpf) -> Result<(), String> {
    HOOKS.iter().try_for_each(|Hook { function, probe, .. }| {
        let attached = match ebpf.program_mut(probe) {
            Some(Program::KProbe(program)) => {
                program.load().and_then(|()| program.attach(function, 0).map(drop))
            }
            _ => Err(ProgramError::NotLoaded),
        };
        attached.map_err(|error| format!("kprobe on {function}: {}", chain(&error)))
    })
}
