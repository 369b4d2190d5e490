//! What a client was told of a container, and whether what is seen of it keeps that: pure, so that each check is itself
//! checked.

use std::collections::BTreeSet;

/// The event of a container whose init died.
pub(crate) const INIT_DIED: &str = "init died";

/// Values of which one holds: several where an answer was lost.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct OneOf<T>(Vec<T>);

impl<T: PartialEq> OneOf<T> {
    /// One that was told.
    pub(crate) fn told(value: T) -> Self {
        Self(vec![value])
    }

    /// Notes one that was asked for, without an answer.
    pub(crate) fn ask(&mut self, value: T) {
        self.0.push(value);
    }

    fn allows(&self, value: &T) -> bool {
        self.0.contains(value)
    }
}

/// A port of the host that leads to a container, and the container's own.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Port {
    pub(crate) host: u16,
    pub(crate) inside: u16,
}

/// The limits of a container: memory, shares of the processors, its network's.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Limits<N, B> {
    pub(crate) memory: N,
    pub(crate) shares: N,
    pub(crate) bandwidth: B,
}

/// Rate and burst.
pub(crate) type Bandwidth = (u64, u64);
type ToldLimits = Limits<OneOf<u64>, OneOf<Bandwidth>>;

/// What a client was told of one container.
#[derive(Clone, Debug, Default)]
pub(crate) struct Told {
    /// It was told that the container is there; nothing else counts without.
    pub(crate) created: bool,
    /// It has asked to destroy it, without an answer.
    pub(crate) doomed: bool,
    /// It was told that it is destroyed.
    pub(crate) destroyed: bool,
    /// It has asked to stop it; and was told that it is stopped.
    pub(crate) stop_asked: bool,
    pub(crate) stopped: bool,
    /// Its init was killed before it was looked at; or at any time until then.
    pub(crate) init_killed: bool,
    pub(crate) init_maybe_killed: bool,
    /// The host's and its own.
    pub(crate) addresses: Option<(String, String)>,
    pub(crate) limits: Option<ToldLimits>,
    pub(crate) ports: BTreeSet<Port>,
    /// How many more it has asked for, without an answer.
    pub(crate) ports_asked: usize,
    /// Networks that it was told it may reach; and some that it may.
    pub(crate) networks: BTreeSet<String>,
    pub(crate) networks_asked: BTreeSet<String>,
}

/// What is seen of it.
#[derive(Clone, Debug)]
pub(crate) enum Seen {
    /// It is not known; and whether a daemon has said that it removed it because its init was dead.
    Absent {
        buried: bool,
    },
    There(Sight),
}

/// What the daemon tells of a container, and the kernel.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Sight {
    pub(crate) state: String,
    pub(crate) events: Vec<String>,
    pub(crate) addresses: (String, String),
    /// With the bandwidth into it, and out of it.
    pub(crate) limits: Limits<u64, [Bandwidth; 2]>,
    pub(crate) ports: BTreeSet<Port>,
    pub(crate) networks: BTreeSet<String>,
}

/// Every promise that is not kept.
pub(crate) fn broken(told: &Told, seen: &Seen) -> Vec<String> {
    let sight = match seen {
        Seen::Absent { buried } => return lost(told, *buried).map(str::to_owned).into_iter().collect(),
        Seen::There(_) if told.destroyed => return vec!["it was destroyed, and is there".to_owned()],
        Seen::There(sight) => sight,
    };
    let mut broken = Vec::new();
    broken.extend(state(told, &sight.state, &sight.events));
    let mut compare = |what: &str, kept: bool, told: &dyn std::fmt::Debug, seen: &dyn std::fmt::Debug| {
        if !kept {
            broken.push(format!("{what}: told {told:?}, seen {seen:?}"));
        }
    };
    if let Some(addresses) = &told.addresses {
        compare("addresses", *addresses == sight.addresses, addresses, &sight.addresses);
    }
    if let Some(Limits { memory, shares, bandwidth }) = &told.limits {
        let seen = &sight.limits;
        compare("limit of memory", memory.allows(&seen.memory), memory, &seen.memory);
        compare("shares", shares.allows(&seen.shares), shares, &seen.shares);
        // An interface goes with the namespaces of its init, and its limits with it.
        let kept = told.init_maybe_killed || seen.bandwidth.iter().all(|seen| bandwidth.allows(seen));
        compare("bandwidth", kept, bandwidth, &seen.bandwidth);
    }
    // What is being destroyed is off the network first.
    if !told.doomed {
        let more = sight.ports.difference(&told.ports).count();
        let kept = sight.ports.is_superset(&told.ports) && more <= told.ports_asked;
        compare("ports", kept, &told.ports, &sight.ports);
        let allowed: BTreeSet<_> = told.networks.union(&told.networks_asked).cloned().collect();
        let kept = sight.networks.is_superset(&told.networks) && sight.networks.is_subset(&allowed);
        compare("networks", kept, &told.networks, &sight.networks);
    }
    broken
}

/// Whether a container that is not there has to be.
fn lost(told: &Told, buried: bool) -> Option<&'static str> {
    if !told.created || told.doomed || told.destroyed || told.init_maybe_killed && buried {
        return None;
    }
    Some(if told.init_maybe_killed {
        "it is gone, its init was killed, and no daemon says so"
    } else {
        "it is gone, and nobody has asked for that"
    })
}

fn state(told: &Told, state: &str, events: &[String]) -> Option<String> {
    let died = events.iter().any(|event| event == INIT_DIED);
    if let Some(event) = events.iter().find(|event| *event != INIT_DIED) {
        return Some(format!("an event that nobody has caused: {event}"));
    }
    if died && !told.init_maybe_killed {
        return Some("its init has died by itself".to_owned());
    }
    match state {
        "active" if told.stopped => Some("it was stopped, and is active".to_owned()),
        "active" if told.init_killed => Some("its init was killed, and it is active".to_owned()),
        // What is being destroyed is not told why it stopped.
        "stopped" if told.init_killed && !died && !told.doomed => {
            Some("its init was killed, and no event says so".to_owned())
        }
        "stopped" if !died && !told.stop_asked && !told.doomed => {
            Some("it is stopped, and nobody has asked for that".to_owned())
        }
        "active" | "stopped" => None,
        other => Some(format!("state {other}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const CREATED: fn() -> Told = || Told {
        created: true,
        addresses: Some(("10.0.0.1".to_owned(), "10.0.0.2".to_owned())),
        limits: Some(Limits {
            memory: OneOf::told(1 << 26),
            shares: OneOf::told(512),
            bandwidth: OneOf::told((1_000, 2_000)),
        }),
        ports: BTreeSet::from([port(61_001, 80)]),
        networks: BTreeSet::from(["192.0.2.7".to_owned()]),
        ..Told::default()
    };

    fn port(host: u16, inside: u16) -> Port {
        Port { host, inside }
    }

    fn sight() -> Sight {
        Sight {
            state: "active".to_owned(),
            events: Vec::new(),
            addresses: ("10.0.0.1".to_owned(), "10.0.0.2".to_owned()),
            limits: Limits { memory: 1 << 26, shares: 512, bandwidth: [(1_000, 2_000); 2] },
            ports: BTreeSet::from([port(61_001, 80)]),
            networks: BTreeSet::from(["192.0.2.7".to_owned()]),
        }
    }

    /// What is broken when one thing is otherwise than was told.
    fn with(change: impl FnOnce(&mut Sight)) -> Vec<String> {
        let mut seen = sight();
        change(&mut seen);
        broken(&CREATED(), &Seen::There(seen))
    }

    fn one(broken: &[String], part: &str) {
        assert!(matches!(broken, [text] if text.contains(part)), "{broken:?} instead of {part}");
    }

    #[test]
    fn what_is_as_it_was_told_breaks_nothing() {
        assert_eq!(with(|_| {}), Vec::<String>::new());
    }

    #[test]
    fn each_thing_that_is_otherwise_is_found() {
        one(&with(|seen| seen.addresses.0.push('1')), "addresses");
        one(&with(|seen| seen.addresses.1.push('1')), "addresses");
        one(&with(|seen| seen.limits.memory += 1), "limit of memory");
        one(&with(|seen| seen.limits.shares += 1), "shares");
        one(&with(|seen| seen.limits.bandwidth[0].1 += 1), "bandwidth");
        one(&with(|seen| seen.limits.bandwidth[1].0 += 1), "bandwidth");
        one(&with(|seen| seen.ports.clear()), "ports");
        one(&with(|seen| seen.ports.extend([port(61_002, 80)])), "ports");
        one(&with(|seen| seen.ports = BTreeSet::from([port(61_001, 81)])), "ports");
        one(&with(|seen| seen.networks.clear()), "networks");
        one(&with(|seen| seen.networks.extend(["10.0.0.0/8".to_owned()])), "networks");
        one(&with(|seen| seen.state = "destroyed".to_owned()), "state destroyed");
        one(&with(|seen| seen.state = "stopped".to_owned()), "nobody has asked");
        one(&with(|seen| seen.events.push("out of memory".to_owned())), "nobody has caused");
        one(&with(|seen| seen.events.push(INIT_DIED.to_owned())), "by itself");
    }

    #[test]
    fn a_container_may_be_gone_for_a_reason_only() {
        let gone = |told: &Told, buried| broken(told, &Seen::Absent { buried });
        one(&gone(&CREATED(), false), "nobody has asked");
        one(&gone(&CREATED(), true), "nobody has asked");
        let killed = Told { init_maybe_killed: true, ..CREATED() };
        one(&gone(&killed, false), "no daemon says so");
        assert!(gone(&killed, true).is_empty());
        assert!(gone(&Told { doomed: true, ..CREATED() }, false).is_empty());
        assert!(gone(&Told { destroyed: true, ..CREATED() }, false).is_empty());
        assert!(gone(&Told::default(), false).is_empty(), "nobody was told of it");
        one(&broken(&Told { destroyed: true, ..CREATED() }, &Seen::There(sight())), "and is there");
    }

    #[test]
    fn a_container_whose_init_was_killed_is_stopped_with_the_event() {
        let killed = Told { init_killed: true, init_maybe_killed: true, ..CREATED() };
        let seen = |state: &str, events: &[&str]| {
            let events = events.iter().map(|&event| event.to_owned()).collect();
            Seen::There(Sight { state: state.to_owned(), events, ..sight() })
        };
        one(&broken(&killed, &seen("active", &[])), "it is active");
        one(&broken(&killed, &seen("stopped", &[])), "no event says so");
        one(&broken(&killed, &seen("stopped", &["supervisor died"])), "nobody has caused");
        assert!(broken(&killed, &seen("stopped", &[INIT_DIED])).is_empty());
        let perhaps = Told { init_killed: false, ..killed };
        assert!(broken(&perhaps, &seen("active", &[])).is_empty(), "it was killed after it was looked at");
    }

    #[test]
    fn what_was_stopped_stays_stopped() {
        let stopped = Told { stop_asked: true, stopped: true, ..CREATED() };
        one(&broken(&stopped, &Seen::There(sight())), "is active");
        let asked = Told { stopped: false, ..stopped };
        for state in ["active", "stopped"] {
            assert!(broken(&asked, &Seen::There(Sight { state: state.to_owned(), ..sight() })).is_empty());
        }
    }

    #[test]
    fn of_what_was_asked_without_an_answer_each_outcome_keeps_the_promise_and_no_other_does() {
        let mut told = CREATED();
        told.limits.as_mut().unwrap().memory.ask(7);
        told.ports_asked = 1;
        told.networks_asked.insert("192.0.2.8".to_owned());
        let seen = |memory, ports: &[Port], network: Option<&str>| {
            let mut seen = sight();
            seen.limits.memory = memory;
            seen.ports.extend(ports.iter().cloned());
            seen.networks.extend(network.map(str::to_owned));
            broken(&told, &Seen::There(seen))
        };
        let [first, second] = [port(61_002, 80), port(61_003, 80)];
        assert!(seen(1 << 26, &[], None).is_empty());
        assert!(seen(7, std::slice::from_ref(&first), Some("192.0.2.8")).is_empty());
        one(&seen(8, &[], None), "limit of memory");
        one(&seen(7, &[first, second], None), "ports");
        one(&seen(7, &[], Some("192.0.2.9")), "networks");
    }
}
