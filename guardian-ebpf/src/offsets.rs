//! The members of kernel structures that the programs read: one list for both sides.

/// Calls the macro `$callback` with every kernel structure member that the programs read, as
/// `NAME: "struct", "member", group;`. In the programs `NAME` is a read-only global that holds the byte
/// offset of the member in the running kernel, `u32::MAX` where it has none. The daemon takes the
/// offsets from the kernel's BTF and sets the globals; where one of a group is missing, the whole
/// group is absent. Without the group `task` nobody can be named; every other one costs only what it
/// gives.
///
/// Present with these names from Linux 5.8 to 6.18, but for the groups `tos` (up to 5.17) and `dscp` (since), `regs`
/// (x86-64 only) and `preempt` (not on x86-64).
#[macro_export]
macro_rules! for_each_offset {
    ($callback:ident) => {
        $callback! {
            TASK_FLAGS: "task_struct", "flags", task;
            TASK_TGID: "task_struct", "tgid", task;
            TASK_PID: "task_struct", "pid", task;
            TASK_COMM: "task_struct", "comm", task;
            TASK_LEADER: "task_struct", "group_leader", task;
            TASK_START: "task_struct", "start_boottime", task;
            TASK_PARENT: "task_struct", "real_parent", task;
            TASK_MM: "task_struct", "mm", task;
            TASK_CRED: "task_struct", "cred", task;
            CRED_UID: "cred", "uid", task;
            TASK_STACK: "task_struct", "stack", stack;
            REGS_CALL: "pt_regs", "orig_ax", regs;
            REGS_LAST: "pt_regs", "ss", regs;
            TASK_THREAD_INFO: "task_struct", "thread_info", preempt;
            THREAD_INFO_PREEMPT: "thread_info", "preempt_count", preempt;
            TASK_LOGIN_UID: "task_struct", "loginuid", audit;
            TASK_CGROUPS: "task_struct", "cgroups", cgroup;
            CSS_SET_CGROUP: "css_set", "dfl_cgrp", cgroup;
            CGROUP_NODE: "cgroup", "kn", cgroup;
            KERNFS_ID: "kernfs_node", "id", cgroup;
            TASK_SIGNAL: "task_struct", "signal", signal;
            SIGNAL_LIVE: "signal_struct", "live", signal;
            MM_ARG_START: "mm_struct", "arg_start", argv;
            MM_ARG_END: "mm_struct", "arg_end", argv;
            MM_EXE: "mm_struct", "exe_file", exe;
            FILE_PATH: "file", "f_path", exe;
            PATH_MOUNT: "path", "mnt", exe;
            PATH_DENTRY: "path", "dentry", exe;
            DENTRY_PARENT: "dentry", "d_parent", exe;
            DENTRY_NAME: "dentry", "d_name", exe;
            DENTRY_HASH: "dentry", "d_hash", exe;
            QSTR_NAME: "qstr", "name", exe;
            VFSMOUNT_ROOT: "vfsmount", "mnt_root", exe;
            MOUNT_VFSMOUNT: "mount", "mnt", exe;
            MOUNT_PARENT: "mount", "mnt_parent", exe;
            MOUNT_POINT: "mount", "mnt_mountpoint", exe;
            NET_NS: "net", "ns", netns;
            NS_INUM: "ns_common", "inum", netns;
            FLOW4_TO: "flowi4", "daddr", lookup;
            LEG_LINK: "fib_nh_common", "nhc_dev", lookup;
            LINK_NET: "net_device", "nd_net", lookup;
            FLOW6_TO: "flowi6", "daddr", lookup;
            FLOW6_FROM: "flowi6", "saddr", lookup;
            TABLE6_ID: "fib6_table", "tb6_id", lookup;
            FOUND6_FLAGS: "fib6_result", "fib6_flags", lookup;
            FIB_INFO: "fib_alias", "fa_info", fib;
            FIB_SUFFIX: "fib_alias", "fa_slen", fib;
            FIB_TABLE: "fib_alias", "tb_id", fib;
            FIB_TYPE: "fib_alias", "fa_type", fib;
            FIB_PROTOCOL: "fib_info", "fib_protocol", fib;
            FIB_SCOPE: "fib_info", "fib_scope", fib;
            FIB_METRIC: "fib_info", "fib_priority", fib;
            FIB_NEXTHOP: "fib_info", "nh", fib;
            FIB_LEGS: "fib_info", "fib_nhs", fib;
            FIB_LEG: "fib_info", "fib_nh", fib;
            LEG_OIF: "fib_nh_common", "nhc_oif", fib;
            FIB_TOS: "fib_alias", "fa_tos", tos;
            FIB_DSCP: "fib_alias", "fa_dscp", dscp;
        }
    };
}
