//! Limits of bandwidth: what a client asks for, what the kernel is given for it, and what it holds.
//!
//! Towards the container packets wait in a bucket before the host's interface `w-<id>-0`. What the container sends is
//! redirected to an ifb, `w-<id>-2`, and waits before that; it is made when the first limit asks for it.

use warden_linux::netlink::qdisc::{self, Bucket};
use warden_linux::netlink::{Refusal, Requests, Socket, route};

use super::interfaces::Names;
use crate::error::Error;
use crate::info::BandwidthStat;
use crate::request::Bandwidth;

/// How long a packet may wait, as a part of a second: 25 ms.
const WAITS: u64 = 40;
/// The highest rate: the kernel's tools count bits in a number of 64.
const HIGHEST_RATE: u64 = u64::MAX / 8;
/// What info tells where there is no limit, and what lifts one.
const UNLIMITED: u64 = u32::MAX as u64;
/// Length of the header of an Ethernet frame.
const FRAME_HEADER: u32 = 14;

/// Checks a limit and says what the kernel is given for it; `None` stands for no limit.
pub(super) fn read(asked: Bandwidth, mtu: u16) -> Result<Option<Bucket>, Error> {
    let refused = |what, value, reason: &str| Err(Error::BadLimit { what, value, reason: reason.to_owned() });
    match asked {
        Bandwidth { rate: UNLIMITED, burst: UNLIMITED } => return Ok(None),
        Bandwidth { rate: 0, .. } => return refused("bandwidth rate", 0, "nothing could be sent"),
        Bandwidth { rate: HIGHEST_RATE.., .. } => {
            return refused("bandwidth rate", asked.rate, "above 2305843009213693950 bytes per second");
        }
        Bandwidth { burst: 0, .. } => return refused("bandwidth burst", 0, "nothing could be sent"),
        _ => {}
    }
    let Ok(burst) = u32::try_from(asked.burst) else {
        return refused(
            "bandwidth burst",
            asked.burst,
            "above 4294967295 bytes, the longest that the kernel keeps",
        );
    };
    // A bucket that is smaller than a packet would never let one out.
    let burst = burst.max(u32::from(mtu) + FRAME_HEADER);
    let queue = u32::try_from(asked.rate / WAITS + u64::from(burst)).unwrap_or(u32::MAX);
    Ok(Some(Bucket { rate: asked.rate, burst, queue }))
}

/// Limits both directions, or lifts the limits; where one step is refused, all is as `before` again.
pub(super) fn apply(
    socket: &mut Socket,
    names: &Names,
    (mtu, group): (u16, u32),
    before: Option<Bucket>,
    bucket: Option<Bucket>,
) -> Result<(), Refusal> {
    let host = route::link_index(socket, &names.host)?;
    let outward = match (find(socket, &names.outward)?, bucket) {
        (Some(outward), _) => outward,
        (None, None) => return Ok(()),
        (None, Some(_)) => make(socket, &names.outward, mtu, group)?,
    };
    let Some(bucket) = bucket else { return lift(socket, host, outward) };
    socket.execute(limiting(host, outward, bucket)).inspect_err(|_| {
        // What is refused here too is no worse than it was.
        let _ = match before {
            Some(before) => socket.execute(limiting(host, outward, before)),
            None => lift(socket, host, outward),
        };
    })
}

/// Tells the limits of a container as the kernel holds them; `asked` are those that were set last.
pub(super) fn stat(
    socket: &mut Socket,
    names: &Names,
    mtu: u16,
    asked: Bandwidth,
) -> Result<BandwidthStat, Refusal> {
    let set = read(asked, mtu).ok().flatten();
    let mut held = |name: &str| match find(socket, name)? {
        Some(index) => qdisc::bucket(socket, index),
        None => Ok(None),
    };
    let (inward, outward) = (told(held(&names.host)?, set, asked), told(held(&names.outward)?, set, asked));
    Ok(BandwidthStat {
        in_rate: inward.rate,
        in_burst: inward.burst,
        out_rate: outward.rate,
        out_burst: outward.burst,
    })
}

/// What a bucket is to clients: the numbers that they have asked for, as long as the kernel holds what was made of them.
fn told(held: Option<Bucket>, set: Option<Bucket>, asked: Bandwidth) -> Bandwidth {
    match (held, set) {
        (None, _) => Bandwidth { rate: UNLIMITED, burst: UNLIMITED },
        (Some(held), Some(set)) if (held.rate, held.queue) == (set.rate, set.queue) => asked,
        (Some(held), _) => Bandwidth { rate: held.rate, burst: held.burst.into() },
    }
}

/// The way round is taken last: by then all that it leads through is limited.
fn limiting(host: u32, outward: u32, bucket: Bucket) -> Requests {
    let mut requests = Requests::default();
    qdisc::set_bucket(&mut requests, outward, bucket);
    qdisc::set_bucket(&mut requests, host, bucket);
    qdisc::redirect(&mut requests, host, outward);
    requests
}

/// The ifb stays, idle, as long as the container: deleting it now would take the kernel long.
fn lift(socket: &mut Socket, host: u32, outward: u32) -> Result<(), Refusal> {
    type Removal = fn(&mut Requests, u32);
    let steps: [(Removal, u32); 3] =
        [(qdisc::remove_redirect, host), (qdisc::remove_bucket, host), (qdisc::remove_bucket, outward)];
    let mut outcome = Ok(());
    for (remove, index) in steps {
        let mut requests = Requests::default();
        remove(&mut requests, index);
        match socket.execute(requests) {
            Err(refusal) if !refusal.is_absence() => outcome = outcome.and(Err(refusal)),
            _ => {}
        }
    }
    outcome
}

fn find(socket: &mut Socket, name: &str) -> Result<Option<u32>, Refusal> {
    match route::link_index(socket, name) {
        Ok(index) => Ok(Some(index)),
        Err(refusal) if refusal.is_absence() => Ok(None),
        Err(refusal) => Err(refusal),
    }
}

fn make(socket: &mut Socket, name: &str, mtu: u16, group: u32) -> Result<u32, Refusal> {
    let mut requests = Requests::default();
    route::add_ifb(&mut requests, name, mtu.into(), group);
    socket.execute(requests)?;
    let index = route::link_index(socket, name)?;
    let mut requests = Requests::default();
    route::set_up(&mut requests, index);
    socket.execute(requests)?;
    Ok(index)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bandwidth(rate: u64, burst: u64) -> Bandwidth {
        Bandwidth { rate, burst }
    }

    fn refusal(rate: u64, burst: u64) -> String {
        read(bandwidth(rate, burst), 1500).unwrap_err().to_string()
    }

    #[test]
    fn a_limit_becomes_a_bucket_whose_queue_holds_25_milliseconds_and_a_burst() {
        let made = read(bandwidth(1_000_000, 200_000), 1500).unwrap().unwrap();
        assert_eq!(made, Bucket { rate: 1_000_000, burst: 200_000, queue: 225_000 });
        let wide = read(bandwidth(1 << 60, 1 << 20), 1500).unwrap().unwrap();
        assert_eq!(wide, Bucket { rate: 1 << 60, burst: 1 << 20, queue: u32::MAX });
    }

    #[test]
    fn a_packet_always_fits_into_the_bucket() {
        for (mtu, burst) in [(1500, 1514), (9000, 9014)] {
            assert_eq!(read(bandwidth(1, 1), mtu).unwrap().unwrap().burst, burst);
        }
    }

    #[test]
    fn a_limit_that_cannot_be_is_named() {
        assert_eq!(refusal(0, 1), "Failed setting bandwidth rate: 0: nothing could be sent");
        assert_eq!(refusal(1, 0), "Failed setting bandwidth burst: 0: nothing could be sent");
        for rate in [u64::MAX, u64::MAX / 8] {
            assert!(refusal(rate, 1).starts_with(&format!("Failed setting bandwidth rate: {rate}: above ")));
        }
        for burst in [u64::MAX, 1 << 32] {
            assert!(
                refusal(1, burst).starts_with(&format!("Failed setting bandwidth burst: {burst}: above "))
            );
        }
        assert!(read(bandwidth(u64::MAX / 8 - 1, UNLIMITED), 1500).unwrap().is_some());
        assert_eq!(read(bandwidth(UNLIMITED, UNLIMITED), 1500).unwrap(), None);
    }

    #[test]
    fn clients_are_told_what_they_asked_for_while_the_kernel_holds_it() {
        let asked = bandwidth(1_000, 1);
        let set = read(asked, 1500).unwrap();
        let held = set.map(|bucket| Bucket { burst: bucket.burst - 1, ..bucket });
        assert_eq!(told(held, set, asked), asked);
        let other = Bucket { rate: 7, burst: 8, queue: 9 };
        assert_eq!(told(Some(other), set, asked), bandwidth(7, 8));
        assert_eq!(told(None, set, asked), bandwidth(UNLIMITED, UNLIMITED));
    }
}
