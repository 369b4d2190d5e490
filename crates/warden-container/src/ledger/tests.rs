//! Every prefix of every plan: after a crash at any step the next daemon finds the machine clean or the container whole, as
//! whoever got an answer was promised.

use std::collections::BTreeSet;

use super::model::{End, Kernel, Model};
use super::*;

/// More steps than any plan has: a run that never ends would end here.
const MANY: usize = 200;

fn id(number: u32) -> Id {
    Id::parse(format!("{number:011}").as_bytes()).unwrap()
}

/// A machine with one container that nothing shall happen to.
fn with_neighbour() -> Kernel {
    let model = Model::new(Kernel::default(), None, End::Crash);
    model.create(id(1)).unwrap();
    model.net_in(id(1), 1_001).unwrap();
    model.into_kernel()
}

/// The same with a second one that has all that a container can have.
fn with_container() -> Kernel {
    let model = Model::new(with_neighbour(), None, End::Crash);
    model.start().unwrap();
    model.create(id(2)).unwrap();
    model.limit(id(2), 7).unwrap();
    model.net_in(id(2), 1_002).unwrap();
    model.into_kernel()
}

/// Starts the next daemon; gives the machine as it is then, and who is taken over.
fn recovered(kernel: Kernel) -> (Kernel, Vec<Id>) {
    let model = Model::new(kernel, None, End::Crash);
    let survivors = model.start().unwrap();
    (model.into_kernel(), survivors)
}

/// The machine after a start that was itself killed at each of its steps, one after the other.
fn recovered_in_spite_of_crashes(mut kernel: Kernel) -> (Kernel, Vec<Id>) {
    for steps in 0..MANY {
        let model = Model::new(kernel, Some(steps), End::Crash);
        let started = model.start();
        if !model.crashed() {
            return (model.into_kernel(), started.unwrap());
        }
        kernel = model.into_kernel();
    }
    panic!("a start never ends");
}

/// Runs a plan that crashes after each number of steps until one is done; tells each outcome and what recovery, whole or
/// interrupted, makes of it.
fn each_crash<T>(
    before: &Kernel,
    plan: impl Fn(&Model) -> T,
    check: impl Fn(&Kernel, &[Id], Option<T>),
) -> usize {
    for steps in 0..MANY {
        let run = || {
            let model = Model::new(before.clone(), None, End::Crash);
            model.start().unwrap();
            let model = model.then(steps, End::Crash);
            let outcome = plan(&model);
            let crashed = model.crashed();
            (model.into_kernel(), (!crashed).then_some(outcome))
        };
        let (kernel, outcome) = run();
        let done = outcome.is_some();
        let (after, survivors) = recovered(kernel);
        check(&after, &survivors, outcome);
        let (kernel, outcome) = run();
        let (after, survivors) = recovered_in_spite_of_crashes(kernel);
        check(&after, &survivors, outcome);
        if done {
            return steps;
        }
    }
    panic!("a plan never ends");
}

#[test]
fn a_creation_that_is_killed_leaves_nothing_or_a_whole_container() {
    let clean = with_neighbour();
    let model = Model::new(clean.clone(), None, End::Crash);
    model.start().unwrap();
    model.create(id(2)).unwrap();
    let whole = model.into_kernel();
    let steps = each_crash(
        &clean,
        |model| model.create(id(2)).is_ok(),
        |kernel, survivors, answered| match survivors {
            [one] => {
                assert_eq!((*one, kernel), (id(1), &clean));
                assert!(answered.is_none(), "a client was told of it");
            }
            both => assert_eq!((both, kernel), (&[id(1), id(2)][..], &whole)),
        },
    );
    assert!(steps > 12, "{steps} steps");
}

#[test]
fn a_destruction_that_is_killed_is_finished_or_was_never_begun() {
    let (clean, whole) = (with_neighbour(), with_container());
    each_crash(
        &whole,
        |model| destroy(model, id(2), &Object::ALL).is_ok(),
        |kernel, survivors, answered| match survivors {
            [one] => assert_eq!((*one, kernel), (id(1), &clean)),
            both => {
                assert_eq!((both, kernel), (&[id(1), id(2)][..], &whole));
                assert!(answered.is_none(), "a client was told that it is gone");
            }
        },
    );
}

#[test]
fn a_destruction_that_is_answered_early_is_as_final() {
    let (clean, whole) = (with_neighbour(), with_container());
    each_crash(
        &whole,
        |model| model.end_early(id(2)).is_ok(),
        |kernel, survivors, answered| match survivors {
            [one] => assert_eq!((*one, kernel), (id(1), &clean)),
            both => {
                assert_eq!((both, kernel), (&[id(1), id(2)][..], &whole));
                assert!(answered.is_none(), "a client was told that it is gone");
            }
        },
    );
    each_crash(
        &whole,
        |model| model.end_early(id(2)).and_then(|()| destroy(model, id(2), &Object::ALL)).is_ok(),
        |kernel, survivors, answered| {
            assert!(answered.is_none() || survivors == [id(1)]);
            assert!(*kernel == clean && survivors == [id(1)] || *kernel == whole);
        },
    );
}

#[test]
fn a_port_is_forwarded_whole_or_not_and_always_when_a_client_was_told() {
    let whole = with_container();
    each_crash(
        &whole,
        |model| model.net_in(id(2), 1_003).is_ok(),
        |kernel, survivors, answered| {
            assert_eq!(survivors, [id(1), id(2)]);
            let snapshot = kernel.directories[&id(2)].snapshot.clone().unwrap();
            assert_eq!(kernel.rules[&id(2)], snapshot.ports);
            assert_eq!(kernel.rules[&id(1)], BTreeSet::from([1_001]));
            assert!(snapshot.ports.contains(&1_002));
            assert!(snapshot.ports.contains(&1_003) || answered.is_none());
        },
    );
}

#[test]
fn a_limit_is_set_whole_or_is_as_before_and_always_when_a_client_was_told() {
    let whole = with_container();
    each_crash(
        &whole,
        |model| model.limit(id(2), 9).is_ok(),
        |kernel, survivors, answered| {
            assert_eq!(survivors, [id(1), id(2)]);
            let limit = kernel.directories[&id(2)].snapshot.clone().unwrap().limit;
            assert!(limit == Some(9) || limit == Some(7) && answered.is_none(), "{limit:?}");
            let of_groups: BTreeSet<_> =
                kernel.cgroups.iter().filter(|((of, _), _)| *of == id(2)).map(|(_, limit)| *limit).collect();
            assert_eq!(of_groups, BTreeSet::from([limit]));
        },
    );
}

#[test]
fn a_change_whose_snapshot_cannot_be_written_is_undone() {
    let whole = with_container();
    type Change = fn(&Model) -> Result<(), Error>;
    // The steps of the kernel's part; behind them the snapshot is written in two.
    let changes: [(usize, Change); 2] =
        [(1, |model| model.net_in(id(2), 1_003)), (5, |model| model.limit(id(2), 9))];
    for (steps, change) in changes {
        for refused in [steps, steps + 1] {
            let model = Model::new(whole.clone(), None, End::Refusal);
            model.start().unwrap();
            let model = model.then(refused, End::Refusal);
            assert_eq!(change(&model).unwrap_err().to_string(), "a step: refused");
            model.tidy(id(2));
            assert_eq!(lock_kernel(&model), whole, "{refused}");
            // What memory has is as it was, too.
            model.save(id(2), false).unwrap();
            assert_eq!(model.into_kernel(), whole, "{refused}");
        }
        let model = Model::new(whole.clone(), None, End::Refusal);
        model.start().unwrap();
        change(&model.then(steps + 2, End::Refusal)).unwrap();
    }
}

#[test]
fn what_cannot_be_undone_either_is_told_with_the_failure() {
    let failed =
        |text: &str| Err(Error::Failed { action: text.to_owned(), source: std::io::ErrorKind::Other.into() });
    let told = change(|| Ok(()), || failed("writing"), |()| failed("undoing")).unwrap_err().to_string();
    assert!(told.starts_with("2 failures: writing: ") && told.contains("undoing: "), "{told}");
}

#[test]
fn a_container_that_died_while_no_daemon_ran_is_removed_whatever_interrupts_it() {
    let (clean, mut dead) = (with_neighbour(), with_container());
    dead.inside.remove(&id(2));
    dead.links.remove(&(id(2), 0));
    assert_eq!(recovered_in_spite_of_crashes(dead.clone()), (clean.clone(), vec![id(1)]));
    assert_eq!(recovered(dead), (clean, vec![id(1)]));
}

#[test]
fn a_creation_of_which_a_step_is_refused_is_undone() {
    let clean = with_neighbour();
    for steps in 0..MANY {
        let model = Model::new(clean.clone(), None, End::Refusal);
        model.start().unwrap();
        let model = model.then(steps, End::Refusal);
        let Err(failure) = model.create(id(2)) else {
            assert!(steps > 12, "{steps} steps");
            return;
        };
        model.settle();
        assert!(failure.left.is_none(), "{failure:?}");
        assert!(!model.holds(id(2)) && model.holds(id(1)));
        assert_eq!(model.into_kernel(), clean, "refused after {steps} steps");
    }
    panic!("a creation never ends");
}

#[test]
fn a_destruction_of_which_a_step_is_refused_keeps_what_is_needed_and_can_be_repeated() {
    let (clean, whole) = (with_neighbour(), with_container());
    for steps in 0..MANY {
        let model = Model::new(whole.clone(), None, End::Refusal);
        model.start().unwrap();
        let model = model.then(steps, End::Refusal);
        let refused = destroy(&model, id(2), &Object::ALL).is_err();
        let left = lock_kernel(&model);
        // By its directory it is found; who is in it keeps address and ids.
        assert!(left.directories.contains_key(&id(2)) || !has(&left, id(2)), "{steps}: {left:?}");
        assert!(model.holds(id(2)) || !has(&left, id(2)));
        destroy(&model, id(2), &Object::ALL).unwrap();
        model.settle();
        assert!(!model.holds(id(2)));
        assert_eq!(model.into_kernel(), clean, "refused after {steps} steps");
        if !refused {
            return;
        }
    }
    panic!("a destruction never ends");
}

#[test]
fn what_does_not_die_keeps_what_it_uses_over_restarts_until_it_does() {
    let (clean, mut undying) = (with_neighbour(), with_container());
    undying.undying.insert(id(2));
    let model = Model::new(undying, None, End::Crash);
    model.start().unwrap();
    let refused = destroy(&model, id(2), &Object::ALL).unwrap_err().to_string();
    assert_eq!(refused, "killing 00000000002: not done after 10 s");
    assert!(model.holds(id(2)));
    let mut kernel = model.into_kernel();
    for _ in 0..3 {
        let model = Model::new(kernel, None, End::Crash);
        assert!(model.start().is_err());
        assert!(model.holds(id(2)), "its address is nobody else's");
        model.create(id(3)).unwrap();
        destroy(&model, id(3), &Object::ALL).unwrap();
        assert_eq!(lock_kernel(&model).rules.len(), 1, "what was to be destroyed reaches nothing");
        kernel = model.into_kernel();
    }
    kernel.undying.clear();
    assert_eq!(recovered(kernel), (clean, vec![id(1)]));
}

#[test]
fn every_object_comes_after_what_needs_it_to_be_gone() {
    for (position, object) in Object::ALL.iter().enumerate() {
        for needed in object.needs() {
            assert!(Object::ALL[position..].contains(needed), "{object:?} needs {needed:?} to be gone");
        }
    }
}

/// Whether anything but its directory is left of a container.
fn has(kernel: &Kernel, id: Id) -> bool {
    kernel.inside.contains(&id)
        || kernel.rules.contains_key(&id)
        || kernel.cgroups.keys().any(|(of, _)| *of == id)
}

fn lock_kernel(model: &Model) -> Kernel {
    crate::pool::lock(&model.kernel).clone()
}
