//! How fast packets leave an interface: token buckets, and the way round for packets that come in.
//!
//! A bucket delays what leaves. What comes in cannot wait; it is sent to an interface of its own (an ifb), leaves that
//! through a bucket, and goes on from there as if it had just come in.

use super::{Attributes, Refusal, Requests, Socket, attribute, flag, read_u32};

const NEW_QDISC: u16 = 36;
const DELETE_QDISC: u16 = 37;
const GET_QDISC: u16 = 38;
const NEW_FILTER: u16 = 44;

const ROOT: u32 = 0xffff_ffff;
const INGRESS: u32 = 0xffff_fff1;
/// The bucket's own number. With the same one it is changed in place: no packet passes unlimited meanwhile.
const BUCKET: u32 = 1 << 16;
/// The number that every ingress queue has.
const INGRESS_QUEUE: u32 = 0xffff << 16;
/// The redirecting filter's number: the first node of the first table.
const FILTER: u32 = 0x8000_0800;
/// Order of the filter among others, and what it looks at: frames of all protocols.
const FILTER_INFO: u32 = (1 << 16) | (libc::ETH_P_ALL as u16).to_be() as u32;

const KIND: u16 = 1;
const OPTIONS: u16 = 2;
const TBF_PARAMETERS: u16 = 1;
const TBF_RATE64: u16 = 4;
const TBF_BURST: u16 = 6;
const U32_SELECTOR: u16 = 5;
const U32_ACTION: u16 = 7;
const ACTION_KIND: u16 = 1;
const ACTION_OPTIONS: u16 = 2;
const MIRRED_PARAMETERS: u16 = 2;
/// What a mirrored packet is to the interface that it came from: gone.
const STOLEN: u32 = 4;
const REDIRECT: u32 = 1;
const ETHERNET: u8 = 1;
/// Nanoseconds of one tick, in which the kernel tells how long filling a bucket takes.
const TICK: u64 = 64;

/// What may leave an interface.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Bucket {
    /// Bytes per second.
    pub rate: u64,
    /// Bytes that may leave at once after a pause; a longer packet never leaves.
    pub burst: u32,
    /// Bytes that may wait; what comes then is dropped.
    pub queue: u32,
}

/// Puts a bucket before an interface, or changes the one that is there.
pub fn set_bucket(requests: &mut Requests, index: u32, bucket: Bucket) {
    let action = format!("limiting interface {index} to {} bytes per second", bucket.rate);
    let fixed = header(index, BUCKET, ROOT, 0);
    requests.push(action, NEW_QDISC, flag::CREATE | flag::REPLACE, &fixed, |attributes| {
        attributes.text(KIND, "tbf").nested(OPTIONS, |options| {
            options
                .bytes(TBF_PARAMETERS, &parameters(bucket))
                .bytes(TBF_RATE64, &bucket.rate.to_ne_bytes())
                .number(TBF_BURST, bucket.burst);
        });
    });
}

/// Lets an interface send as fast as it can; a queue of another kind is refused.
pub fn remove_bucket(requests: &mut Requests, index: u32) {
    let action = format!("removing the limit of interface {index}");
    requests.push(action, DELETE_QDISC, 0, &header(index, BUCKET, ROOT, 0), |attributes| {
        attributes.text(KIND, "tbf");
    });
}

/// Tells what bucket is before an interface; its burst is what the kernel's rounding has left of it.
pub fn bucket(socket: &mut Socket, index: u32) -> Result<Option<Bucket>, Refusal> {
    let mut request = Requests::default();
    let action = format!("looking for the limit of interface {index}");
    // Older kernels answer who asks only when told to echo, and nobody where there is no queue.
    request.push(action, GET_QDISC, flag::ECHO, &header(index, 0, ROOT, 0), |_| {});
    request.acknowledge_last();
    let mut found = None;
    match socket.ask(request, |body| found = found.or(body.get(20..).and_then(read))) {
        Err(refusal) if !refusal.is_absence() => Err(refusal),
        _ => Ok(found),
    }
}

/// Sends what comes in at one interface out of another.
pub fn redirect(requests: &mut Requests, from: u32, to: u32) {
    let action = format!("adding the ingress queue of interface {from}");
    requests.push(action, NEW_QDISC, flag::CREATE, &header(from, INGRESS_QUEUE, INGRESS, 0), |attributes| {
        attributes.text(KIND, "ingress");
    });
    let action = format!("sending what comes in at interface {from} through interface {to}");
    let fixed = header(from, FILTER, INGRESS_QUEUE, FILTER_INFO);
    requests.push(action, NEW_FILTER, flag::CREATE | flag::REPLACE, &fixed, |attributes| {
        attributes.text(KIND, "u32").nested(OPTIONS, |options| {
            options.bytes(U32_SELECTOR, &match_all()).nested(U32_ACTION, |actions| {
                actions.nested(1, |first| redirect_action(first, to));
            });
        });
    });
}

/// Lets what comes in at an interface go on directly.
pub fn remove_redirect(requests: &mut Requests, index: u32) {
    let action = format!("removing the ingress queue of interface {index}");
    requests.push(action, DELETE_QDISC, 0, &header(index, INGRESS_QUEUE, INGRESS, 0), |_| {});
}

fn redirect_action(action: &mut Attributes<'_>, to: u32) {
    // A struct tc_mirred: number, capabilities, what becomes of the packet, two counts, what is done, where to.
    let mirred: Vec<u8> =
        [0, 0, STOLEN, 0, 0, REDIRECT, to].iter().flat_map(|number| number.to_ne_bytes()).collect();
    action.text(ACTION_KIND, "mirred").nested(ACTION_OPTIONS, |options| {
        options.bytes(MIRRED_PARAMETERS, &mirred);
    });
}

/// A struct tc_u32_sel with one key, whose mask lets every packet match.
fn match_all() -> [u8; 32] {
    const TERMINAL: u8 = 1;
    let mut selector = [0; 32];
    selector[0] = TERMINAL;
    selector[2] = 1;
    selector
}

/// A struct tc_tbf_qopt; what does not fit in it is in attributes of its own.
fn parameters(bucket: Bucket) -> [u8; 36] {
    let mut bytes = [0; 36];
    bytes[1] = ETHERNET;
    bytes[8..12].copy_from_slice(&u32::try_from(bucket.rate).unwrap_or(u32::MAX).to_ne_bytes());
    bytes[24..28].copy_from_slice(&bucket.queue.to_ne_bytes());
    bytes
}

/// Reads the attributes of a queue; none if it is no bucket.
fn read(attributes: &[u8]) -> Option<Bucket> {
    let kind = attribute(attributes, KIND).map(super::text)?;
    let options = attribute(attributes, OPTIONS).filter(|_| kind == "tbf")?;
    let parameters = attribute(options, TBF_PARAMETERS)?;
    let number = |offset| parameters.get(offset..).and_then(read_u32);
    let wide = attribute(options, TBF_RATE64).and_then(|value| value.first_chunk().copied());
    let rate = wide.map_or_else(|| number(8).map(u64::from), |bytes| Some(u64::from_ne_bytes(bytes)))?;
    let filled = u128::from(u64::from(number(28)?) * TICK) * u128::from(rate) / 1_000_000_000;
    Some(Bucket { rate, burst: u32::try_from(filled).unwrap_or(u32::MAX), queue: number(24)? })
}

/// A struct tcmsg.
fn header(index: u32, handle: u32, parent: u32, info: u32) -> [u8; 20] {
    let mut fixed = [0; 20];
    for (place, number) in fixed[4..].chunks_exact_mut(4).zip([index, handle, parent, info]) {
        place.copy_from_slice(&number.to_ne_bytes());
    }
    fixed
}
