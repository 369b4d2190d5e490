use super::*;
use crate::confinement::Confinement;
use crate::spec::{IdRange, Root, VERSION};

fn spec() -> Spec {
    let bind = |source: &str, destination: &str, writable| Bind {
        source: source.into(),
        destination: destination.into(),
        writable,
    };
    Spec {
        version: VERSION,
        id: "0123456789a".into(),
        init: None,
        ids: Some(IdRange { host_start: 1 << 20, count: 65_536 }),
        cgroups: vec![Cgroup::V1("/cg/cpu/i".into()), Cgroup::V2("/cg/unified/i".into())],
        root: Root {
            lower: "/image".into(),
            writable: "/depot/a/tmp".into(),
            // A writable system directory is a contradiction that the plan does not follow.
            system: vec![bind("/usr", "/usr", true)],
        },
        binds: vec![bind("/ro", "/inside/ro", false), bind("/rw", "/inside/rw", true)],
        files: vec![InsideFile { path: "/etc/hosts".into(), mode: 0o644, content: "".into() }],
        user: User { name: "vcap".into(), id: 10_000 },
        confinement: Confinement::FULL,
    }
}

fn plan(spec: &Spec) -> Plan {
    Plan::new(spec, Path::new("/depot/a"))
}

fn stage<'a>(plan: &'a Plan, source: &str) -> &'a Stage {
    let stages = plan.outside.iter().filter_map(|step| match step {
        Outside::Stage(stage) => Some(stage),
        _ => None,
    });
    stages.into_iter().find(|stage| stage.source == Path::new(source)).unwrap()
}

fn position(plan: &Plan, wanted: impl Fn(&Inside) -> bool) -> usize {
    plan.inside.iter().position(wanted).unwrap()
}

#[test]
fn cgroups_are_joined_before_anything_is_staged() {
    let plan = plan(&spec());
    let position = |wanted: fn(&Outside) -> bool| plan.outside.iter().position(wanted).unwrap();
    // Of version 2 the builder is born in.
    let joined = position(|step| *step == Outside::JoinCgroup("/cg/cpu/i".into()));
    assert_eq!(plan.outside[0], Outside::MakePrivate);
    assert!(joined < position(|step| matches!(step, Outside::Stage(_))));
}

#[test]
fn what_is_shared_is_read_only_and_mapped_and_what_is_writable_is_neither() {
    let plan = plan(&spec());
    for source in ["/image", "/usr", "/ro"] {
        let stage = stage(&plan, source);
        assert!(stage.mapped && stage.attributes.contains(Attributes::MOUNT_ATTR_RDONLY), "{stage:?}");
        assert!(stage.attributes.contains(Attributes::MOUNT_ATTR_NODEV), "{stage:?}");
    }
    let writable = stage(&plan, "/rw");
    assert!(!writable.mapped);
    assert_eq!(writable.attributes, Attributes::MOUNT_ATTR_NOSUID | Attributes::MOUNT_ATTR_NODEV);
    let layer = stage(&plan, "/depot/a/tmp");
    assert!(!layer.mapped && layer.attributes.is_empty());
}

#[test]
fn nodes_are_made_before_the_devices_controller_forbids_it() {
    let plan = plan(&spec());
    let steps = plan.outside.iter();
    let nodes = steps.clone().filter(|step| matches!(step, Outside::MakeNode { .. })).count();
    assert_eq!(nodes, DEVICES.len());
    let joined = steps.clone().position(|step| matches!(step, Outside::JoinCgroup(_))).unwrap();
    assert!(steps.skip(joined).all(|step| !matches!(step, Outside::MakeNode { .. })));
}

#[test]
fn everything_staged_is_taken_before_the_pivot_and_attached_after_it_in_order() {
    let plan = plan(&spec());
    let pivot = position(&plan, |step| *step == Inside::Pivot);
    let attached: Vec<&str> = plan.inside[pivot..]
        .iter()
        .filter_map(|step| match step {
            Inside::Attach { name, .. } => Some(name.as_str()),
            _ => None,
        })
        .collect();
    assert_eq!(attached[..4], ["proc", "sys", "dev", "pts"]);
    assert_eq!(attached[4..6], [MASK, "system0"]);
    assert_eq!(attached[attached.len() - 2..], ["bind0", "bind1"]);
    let at_hand: Vec<&str> = plan.inside[..pivot]
        .iter()
        .filter_map(|step| match step {
            Inside::Take { name, .. } => Some(name.as_str()),
            Inside::Create(create) => Some(create.name),
            _ => None,
        })
        .collect();
    let (mut attached, mut at_hand) = (attached, at_hand);
    attached.sort_unstable();
    at_hand.sort_unstable();
    assert_eq!(attached, at_hand);
}

#[test]
fn an_images_links_are_followed_for_the_callers_paths_only() {
    for step in plan(&spec()).inside {
        if let Inside::Attach { name, follow, .. } = step {
            assert_eq!(follow, !["proc", "sys", "dev", "pts", MASK].contains(&name.as_str()), "{name}");
        }
    }
}

#[test]
fn files_are_written_before_any_mount_could_take_them() {
    let plan = plan(&spec());
    let written = position(&plan, |step| matches!(step, Inside::WriteFile(_)));
    let user = position(&plan, |step| matches!(step, Inside::MakeUser(_)));
    let linked = position(&plan, |step| matches!(step, Inside::WriteLink(_)));
    let mounted = position(&plan, |step| matches!(step, Inside::Attach { .. }));
    assert!(written < user && user.max(linked) < mounted);
}

#[test]
fn files_are_generated_before_the_layers_are_one_and_again_where_they_were_not() {
    let plan = plan(&spec());
    let Inside::Generate { files, link, user } = &plan.inside[1] else { panic!("{:?}", plan.inside) };
    assert!(matches!(plan.inside[2], Inside::MountRoot { .. }));
    assert!(plan.outside.contains(&Outside::Give { name: "generated", owner: 1 << 20 }));
    let later = plan.inside.iter().filter_map(|step| match step {
        Inside::WriteFile(file) => Some(file),
        _ => None,
    });
    assert_eq!(files.iter().collect::<Vec<_>>(), later.collect::<Vec<_>>());
    assert!(plan.inside.contains(&Inside::WriteLink(*link)));
    assert!(plan.inside.contains(&Inside::MakeUser(user.clone())));
}

#[test]
fn the_root_names_no_path_of_the_host() {
    let mut spec = spec();
    let options = |spec: &Spec| match &plan(spec).inside[2] {
        Inside::MountRoot { options } => options.to_str().unwrap().to_owned(),
        other => panic!("{other:?}"),
    };
    let plain = "lowerdir=generated:lower,upperdir=writable/rootfs,workdir=writable/work,volatile";
    assert_eq!(options(&spec), format!("{plain},userxattr"));
    spec.ids = None;
    assert_eq!(options(&spec), plain);
}

#[test]
fn without_a_map_of_ids_nothing_is_mapped() {
    let mut spec = spec();
    spec.ids = None;
    assert!(plan(&spec).outside.iter().all(|step| !matches!(step, Outside::Stage(stage) if stage.mapped)));
}

#[test]
fn every_step_names_what_it_does_and_to_what() {
    let plan = plan(&spec());
    let outside = plan.outside.iter().map(|step| (step.words(), step.object()));
    let inside = plan.inside.iter().map(|step| (step.words(), step.object()));
    for (words, object) in outside.chain(inside) {
        assert!(!words.is_empty() && !object.0.is_empty(), "{words:?} {object:?}");
    }
}

#[test]
fn system_directories_are_sealed_where_no_user_namespace_locks_them() {
    let seals =
        |spec: &Spec| plan(spec).outside.iter().filter(|step| matches!(step, Outside::Seal(_))).count();
    let mut spec = spec();
    assert_eq!(seals(&spec), 0);
    spec.ids = None;
    assert_eq!(seals(&spec), spec.root.system.len());
}

#[test]
fn what_is_confined_is_covered_last_and_without_a_superblock_of_its_own() {
    let confined = plan(&spec());
    let attached = position(
        &confined,
        |step| matches!(step, Inside::Attach { path, .. } if path == Path::new("/dev/pts")),
    );
    for path in ["/proc/kcore", "/proc/scsi"] {
        let covered = |step: &Inside| matches!(step, Inside::Cover { path: covered, .. } if *covered == path);
        assert!(attached < position(&confined, covered), "{path}");
    }
    assert!(attached < position(&confined, |step| *step == Inside::Protect { path: "/proc/sys" }));
    // A directory of the tmpfs on which everything is staged; read-only before it is copied, which locks it.
    let mask = stage(&confined, "empty");
    assert!(mask.attributes.contains(Attributes::MOUNT_ATTR_RDONLY));

    let loose = Spec { confinement: Confinement::NONE, ..spec() };
    let loose = plan(&loose);
    let restricts = |step: &Inside| matches!(step, Inside::Cover { .. } | Inside::Protect { .. });
    assert!(!loose.inside.iter().any(restricts));
    assert_eq!(loose.inside.len() + 2, confined.inside.iter().filter(|step| !restricts(step)).count());
}

#[test]
fn covers_are_locked_where_root_could_take_them_away_and_another_proc_could_not_be_mounted() {
    let locks = |change: fn(&mut Spec)| {
        let mut spec = spec();
        change(&mut spec);
        plan(&spec).inside.iter().filter(|step| matches!(step, Inside::Lock { .. })).count()
    };
    assert_eq!(locks(|_| {}), 0, "it costs a process");
    assert_eq!(locks(|spec| spec.confinement.capabilities = false), 1);
    assert_eq!(
        locks(|spec| {
            spec.confinement.capabilities = false;
            spec.ids = None;
        }),
        0
    );
    assert_eq!(locks(|spec| spec.confinement = Confinement::NONE), 0, "there is nothing to lock");
    let mut loose = spec();
    loose.confinement.capabilities = false;
    let plan = plan(&loose);
    let lock = position(&plan, |step| matches!(step, Inside::Lock { .. }));
    let covers =
        plan.inside.iter().rposition(|step| matches!(step, Inside::Cover { .. } | Inside::Protect { .. }));
    assert!(covers.unwrap() < lock);
}
