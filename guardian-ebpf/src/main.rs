//! The BPF programs. Built for the BPF target only, with the feature `programs`.
//!
//! Every read of a kernel structure goes through `bpf_probe_read_kernel` at an offset that the daemon took
//! from the running kernel's BTF; every loop is bounded; whatever cannot be delivered is counted.
#![no_std]
#![no_main]
#![feature(asm_experimental_arch)]

mod programs;

#[panic_handler]
fn panic(_: &core::panic::PanicInfo<'_>) -> ! {
    // Nothing here panics. If something came to, the verifier would refuse this loop.
    loop {}
}

#[unsafe(no_mangle)]
#[unsafe(link_section = "license")]
static LICENSE: [u8; 13] = *b"Dual MIT/GPL\0";
