//! The path of an executable file, as `d_path` would say it.

use super::read::{
    DENTRY_HASH, DENTRY_NAME, DENTRY_PARENT, FILE_PATH, MM_EXE, MOUNT_PARENT, MOUNT_POINT, MOUNT_VFSMOUNT,
    PATH_DENTRY, PATH_MOUNT, QSTR_NAME, VFSMOUNT_ROOT, at, field, member, opaque, present, string,
};
use route_guardian_ebpf::{
    ARGV_MAX, EXE_MAX, PROCESS_EXE_CUT, PROCESS_EXE_DELETED, PROCESS_EXE_TEXT, ProcessRecord,
};

/// `struct hlist_bl_node { struct hlist_bl_node *next, **pprev; }` of `include/linux/list_bl.h`.
const PPREV: u64 = 8;

/// Path components and mount crossings that are followed upwards. Deeper paths are cut, and say so.
const STEPS: u32 = 40;

// A name may be written over the end of `exe` into `argv`, which is filled afterwards.
const _: () = assert!(ARGV_MAX >= EXE_MAX);

/// Writes the path of the file that `mm` executes into `info.exe`, the last component first.
///
/// The file is the one really executed, whatever symbolic link or relative name led to it
/// (`mm_struct.exe_file`, set in `begin_new_exec`). The walk is that of `prepend_path` in `fs/d_path.c`
/// up to the root of the mount namespace, without its locks: a rename meanwhile may mix old and new
/// components.
///
/// # Safety
/// `info` must point at a whole record in map memory.
#[inline(always)]
pub(super) unsafe fn write(mm: u64, info: *mut ProcessRecord) {
    let mut used: u32 = 0;
    let mut cut = true;
    if mm == 0 || !present(&MM_EXE) {
        cut = false;
    } else {
        let file: u64 = field(mm, &MM_EXE);
        let path = member(file, &FILE_PATH);
        let mut dentry: u64 = field(path, &PATH_DENTRY);
        let vfsmount: u64 = field(path, &PATH_MOUNT);
        let mut root: u64 = field(vfsmount, &VFSMOUNT_ROOT);
        let mut mount = vfsmount.wrapping_sub(u64::from(MOUNT_VFSMOUNT.load()));
        // SAFETY: within the record.
        let exe = unsafe { (&raw mut (*info).exe).cast::<u8>() };
        for _ in 0..STEPS {
            if dentry == 0 {
                cut = false;
                break;
            }
            let parent: u64 = field(dentry, &DENTRY_PARENT);
            if parent == dentry && dentry != root && used == 0 {
                // Of `memfd_create` and its kin: a name of its own in no folder (`simple_dname`).
                let name: u64 = field(member(dentry, &DENTRY_NAME), &QSTR_NAME);
                // SAFETY: `exe` has this room.
                let wrote = unsafe { string(exe, EXE_MAX as u32, name) };
                if wrote > 0 && wrote <= EXE_MAX as i64 {
                    used = wrote as u32;
                }
                cut = false;
                break;
            }
            if dentry == root || parent == dentry {
                let above: u64 = field(mount, &MOUNT_PARENT);
                if dentry != root || above == mount || above == 0 {
                    cut = false;
                    break;
                }
                dentry = field(mount, &MOUNT_POINT);
                root = field(member(above, &MOUNT_VFSMOUNT), &VFSMOUNT_ROOT);
                mount = above;
                continue;
            }
            let name: u64 = field(member(dentry, &DENTRY_NAME), &QSTR_NAME);
            // The mask tells the verifier what the break below tells us.
            let end = opaque(used) & (EXE_MAX as u32 - 1);
            // SAFETY: at most `EXE_MAX` bytes from an offset below `EXE_MAX`: what does not fit into `exe`
            // falls into `argv`, see above.
            let wrote = unsafe { string(exe.add(end as usize), EXE_MAX as u32, name) };
            if wrote <= 0 {
                break;
            }
            let next = end + wrote as u32;
            if next >= EXE_MAX as u32 {
                break;
            }
            used = next;
            dentry = parent;
        }
    }
    // SAFETY: within the record.
    unsafe {
        (*info).exe_len = used;
        (*info).flags &= !(PROCESS_EXE_CUT | PROCESS_EXE_TEXT);
        if cut {
            (*info).flags |= PROCESS_EXE_CUT;
        }
    }
}

/// Notes whether the file that `mm` executes has lost its name, or never had one (`d_unhashed` in
/// `include/linux/dcache.h`, which asks `pprev`; so from 2.6.38 to 6.18). Of a task without memory nothing is said
/// anew.
///
/// # Safety
/// `info` must point at a whole record in map memory.
#[inline(always)]
pub(super) unsafe fn mark_deleted(mm: u64, info: *mut ProcessRecord) {
    if mm == 0 || !present(&DENTRY_HASH) {
        return;
    }
    let file: u64 = field(mm, &MM_EXE);
    let dentry: u64 = field(member(file, &FILE_PATH), &PATH_DENTRY);
    let hashed = at::<u64>(member(dentry, &DENTRY_HASH).wrapping_add(PPREV)) != 0;
    // SAFETY: within the record.
    unsafe {
        (*info).flags &= !PROCESS_EXE_DELETED;
        if dentry != 0 && !hashed {
            (*info).flags |= PROCESS_EXE_DELETED;
        }
    }
}
