//! An actor as the event record shows it.

use super::{cgroup::Placement, class_of};
use crate::model::{
    Actor, Process,
    record::{ActorRecord, AncestorRecord},
};

/// Everything that is known about an actor, in the words of the outer interface. Of the pod, the uid:
/// its name is asked for by [`super::pods`].
pub fn actor_record(actor: &Actor) -> ActorRecord {
    let record =
        ActorRecord { class: class_of(actor), confidence: actor.confidence(), ..ActorRecord::default() };
    match actor {
        Actor::Process { process, thread, ancestors, cgroup, .. } => {
            let placement = cgroup.as_deref().map(Placement::of).unwrap_or_default();
            ActorRecord {
                pid: Some(process.id.tgid),
                start_ns: Some(process.id.start_ns).filter(|&start_ns| start_ns != 0),
                tid: *thread,
                comm: process.comm.clone(),
                exe: process.exe.clone(),
                exe_deleted: process.exe_deleted,
                argv: process.argv.clone(),
                argv_cut: process.argv_cut,
                uid: Some(process.uid),
                login_uid: process.login_uid,
                unit: placement.unit.map(str::to_owned),
                slice: placement.slice.map(str::to_owned),
                runtime: placement.container.and_then(|container| container.runtime).map(str::to_owned),
                container: placement.container.map(|container| container.id.to_owned()),
                pod: placement.pod,
                cgroup: cgroup.as_deref().map(str::to_owned),
                ancestors: ancestors.iter().map(|ancestor| ancestor_record(ancestor)).collect(),
                ..record
            }
        }
        Actor::Kernel { what } => ActorRecord { comm: what.as_ref().to_owned(), ..record },
        Actor::Unknown => record,
    }
}

fn ancestor_record(process: &Process) -> AncestorRecord {
    AncestorRecord {
        pid: process.id.tgid,
        start_ns: Some(process.id.start_ns).filter(|&start_ns| start_ns != 0),
        uid: Some(process.uid),
        comm: process.comm.clone(),
        exe: process.exe.clone(),
        exe_deleted: process.exe_deleted,
        argv: process.argv.clone(),
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::{
        attribution::tests::process,
        model::{ActorClass, Confidence},
    };

    #[test]
    fn a_pod_is_recorded_with_its_family() {
        let id = "0123456789abcdef".repeat(4);
        let path = format!(
            "/kubepods.slice/kubepods-pod11111111_2222_3333_4444_555555555555.slice/cri-containerd-{id}.scope"
        );
        let actor = Actor::Process {
            process: Arc::new(process(7, 6)),
            thread: Some(8),
            ancestors: vec![Arc::new(process(6, 1)), Arc::new(process(1, 0))],
            cgroup: Some(path.as_str().into()),
            confidence: Confidence::Exact,
        };
        let record = actor_record(&actor);
        assert_eq!(record.class, ActorClass::Other);
        assert_eq!((record.pid, record.uid), (Some(7), Some(0)));
        assert_eq!(record.start_ns, Some(process(7, 6).id.start_ns));
        assert_eq!(record.container, Some(id.clone()));
        assert_eq!(record.pod.as_deref(), Some("11111111-2222-3333-4444-555555555555"));
        assert_eq!((record.tid, record.runtime.as_deref()), (Some(8), Some("containerd")));
        assert_eq!(record.ancestors[0].uid, Some(0));
        assert_eq!(record.ancestors[0].start_ns, Some(process(6, 1).id.start_ns));
        assert_eq!(record.unit, Some(format!("cri-containerd-{id}.scope")));
        assert_eq!(record.cgroup, Some(path));
        assert_eq!(record.ancestors.iter().map(|ancestor| ancestor.pid).collect::<Vec<_>>(), [6, 1]);
        assert_eq!(record.confidence, Confidence::Exact);
    }

    #[test]
    fn the_kernel_has_a_reason_and_no_pid() {
        let record = actor_record(&Actor::Kernel { what: "softirq".into() });
        assert_eq!((record.class, record.pid, record.comm.as_str()), (ActorClass::Kernel, None, "softirq"));
        assert_eq!(record.confidence, Confidence::Exact);
        assert_eq!(actor_record(&Actor::Unknown), ActorRecord::default());
    }
}
