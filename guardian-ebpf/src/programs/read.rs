//! Reading kernel memory at offsets that are known at load only.

use aya_ebpf::{
    Global,
    helpers::generated::{bpf_probe_read_kernel, bpf_probe_read_kernel_str},
};
use core::{arch::asm, mem::MaybeUninit};

macro_rules! declare {
    ($($name:ident: $structure:literal, $member:literal, $group:ident;)*) => {$(
        #[doc = concat!("The offset of `", $structure, ".", $member, "` in bytes.")]
        #[unsafe(no_mangle)]
        pub(super) static $name: Global<u32> = Global::new(u32::MAX);
    )*};
}
route_guardian_ebpf::for_each_offset!(declare);

/// Whether the running kernel has the member.
#[inline(always)]
pub(super) fn present(offset: &Global<u32>) -> bool {
    offset.load() != u32::MAX
}

/// The address of a member of the structure at `base`.
#[inline(always)]
pub(super) fn member(base: u64, offset: &Global<u32>) -> u64 {
    base.wrapping_add(u64::from(offset.load()))
}

/// What is at `address`, all zero where that cannot be read: the helper zeroes what it cannot fill.
#[inline(always)]
pub(super) fn at<T: Copy>(address: u64) -> T {
    let mut value = MaybeUninit::<T>::uninit();
    // SAFETY: the helper checks the address and writes at most the given size; `T` is a plain integer or
    // array of them here, for which every bit pattern is a value.
    unsafe {
        bpf_probe_read_kernel(value.as_mut_ptr().cast(), size_of::<T>() as u32, address as *const _);
        value.assume_init()
    }
}

/// A member of the structure at `base`.
#[inline(always)]
pub(super) fn field<T: Copy>(base: u64, offset: &Global<u32>) -> T {
    at(member(base, offset))
}

/// Copies the C string at `address` to `to`, at most `room` bytes with its terminator, and returns how many.
///
/// # Safety
/// `to` must have room for `room` bytes.
#[inline(always)]
pub(super) unsafe fn string(to: *mut u8, room: u32, address: u64) -> i64 {
    // SAFETY: the caller vouches for `to`; the helper checks the address.
    unsafe { bpf_probe_read_kernel_str(to.cast(), room, address as *const _) }
}

/// The same number, of which the compiler knows nothing: a mask applied to it stays, and tells old verifiers
/// (before 6.2) the bounds that they do not learn from comparisons.
#[inline(always)]
pub(super) fn opaque(value: u32) -> u32 {
    let mut wide = u64::from(value);
    // SAFETY: moves a register to itself. (With no instruction at all, two source lines would share one place, which
    // the kernel refuses in the line information.)
    unsafe { asm!("{0} = {0}", inout(reg) wide, options(pure, nomem, nostack)) };
    wide as u32
}
