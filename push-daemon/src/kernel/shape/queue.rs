//! The queues of an interface: which there are, and those that shaping sets up.
//!
//! Queues that the kernel chose by itself have no handle; whatever has one, somebody set up, and it is left alone. Ours bear
//! `abi::shaping::HANDLE`.
//!
//! HTB needs no class for what is not shaped: what names no class of its goes unhindered through its direct queue.

use std::{collections::BTreeMap, io};

use abi::{
    isps::{Isp, MAX_ISPS},
    shaping::{HANDLE, class_of},
};

use super::message::{
    CREATE, DELETE_CLASS, DELETE_QUEUE, GET_CLASS, GET_QUEUE, KIND, Listed, NEW_CLASS, NEW_QUEUE, OPTIONS, Place,
    REPLACE, Request,
};
use crate::kernel::netlink::{self, find, u32_at};

/// Parent of what stands at the root.
const ROOT: u32 = u32::MAX;
const OURS: u32 = HANDLE << 16;

const FQ_LIMIT: u16 = 1;
/// Packets that fq may hold. With the kernel's 10,000 it would refuse what the horizon still allows from about a gigabit per second on.
const FQ_PACKETS: u32 = 100_000;

const HTB_PARAMETERS: u16 = 1;
const HTB_INIT: u16 = 2;
const HTB_RATE64: u16 = 6;
const HTB_CEIL64: u16 = 7;
const HTB_VERSION: u32 = 3;
/// Where nothing is said of a class's quantum, the kernel derives one, and complains of it in its log.
const HTB_QUANTUM: u32 = 60_000;
const HTB_OPTION_BYTES: usize = 44;
/// The kernel counts HTB's bursts in units of 64 ns.
const TICK_SHIFT: u32 = 6;
const ETHERNET: u8 = 1;
/// An aggregate of the largest size fits into the shortest queue.
const LEAST_QUEUE_BYTES: u64 = 128 * 1024;

/// What stands at the root of an interface.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Root {
    /// The kernel's choice; `true`: one queue for each of the hardware's.
    Default(bool),
    /// Something that observes departure times.
    Fq {
        /// We set it up.
        ours: bool,
    },
    /// Our HTB.
    Htb,
    /// Somebody set up something else, of this name.
    Other(String),
}

/// What stands at the root of `interface_index` in this thread's network namespace.
pub(super) fn root(interface_index: u32) -> io::Result<Root> {
    let mut queues = Request::new(GET_QUEUE, 0, Place { interface_index, ..Place::default() }).list()?;
    queues.retain(|queue| queue.place.interface_index == interface_index);
    let Some(root) = queues.iter().find(|queue| queue.place.parent == ROOT) else { return Ok(Root::Default(false)) };
    let ours = root.place.handle == OURS;
    let is_fq = match kind(root).as_str() {
        "fq" => true,
        "mq" => {
            let mut leaves =
                queues.iter().filter(|queue| queue.place.parent >> 16 == root.place.handle >> 16).peekable();
            leaves.peek().is_some() && leaves.all(|leaf| kind(leaf) == "fq")
        }
        _ => false,
    };
    Ok(match kind(root) {
        _ if is_fq => Root::Fq { ours },
        kind if kind == "htb" && ours => Root::Htb,
        // One of ours that is half made counts as none: it is made anew.
        kind if root.place.handle == 0 || ours => Root::Default(kind == "mq"),
        kind => Root::Other(kind),
    })
}

/// Sets up fq, one for each of the hardware's queues where there are several. Fails where the kernel has none.
pub(super) fn make_fq(interface_index: u32, several: bool) -> io::Result<()> {
    let fq = |place| {
        let request = Request::new(NEW_QUEUE, CREATE | REPLACE, place).kind("fq");
        request.nest(OPTIONS, |options| options.attribute(FQ_LIMIT, &FQ_PACKETS.to_ne_bytes())).carry_out()
    };
    let at_root = Place { interface_index, handle: OURS, parent: ROOT, info: 0 };
    if !several {
        return fq(at_root);
    }
    Request::new(NEW_QUEUE, CREATE | REPLACE, at_root).kind("mq").carry_out()?;
    for number in 1..=netlink::send_queues(interface_index)? {
        if let Err(error) = fq(Place { interface_index, parent: OURS | number, ..Place::default() }) {
            // The kernel's choice comes back.
            remove(interface_index)?;
            return Err(error);
        }
    }
    Ok(())
}

/// Sets up HTB without classes.
pub(super) fn make_htb(interface_index: u32) -> io::Result<()> {
    let at_root = Place { interface_index, handle: OURS, parent: ROOT, info: 0 };
    let request = Request::new(NEW_QUEUE, CREATE | REPLACE, at_root).kind("htb");
    // Version, a divisor that no class of ours needs, no default class, two that only the kernel writes.
    let init = [HTB_VERSION, 10, 0, 0, 0].map(u32::to_ne_bytes).concat();
    request.nest(OPTIONS, |options| options.attribute(HTB_INIT, &init)).carry_out()
}

/// Removes the root queue that is ours, and with it all below.
pub(super) fn remove(interface_index: u32) -> io::Result<()> {
    Request::new(DELETE_QUEUE, 0, Place { interface_index, handle: OURS, parent: ROOT, info: 0 }).carry_out()
}

/// What a class of HTB holds its traffic to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct ClassRate {
    bytes_per_s: u64,
    burst_ticks: u32,
}

impl ClassRate {
    fn of(isp: &Isp) -> Option<Self> {
        let burst_ticks = u32::try_from(isp.egress.credit_ns >> TICK_SHIFT).unwrap_or(u32::MAX).max(1);
        (isp.egress.bytes_per_s != 0).then_some(Self { bytes_per_s: isp.egress.bytes_per_s, burst_ticks })
    }

    fn parse(class: &Listed) -> Option<Self> {
        let options = find(&class.attributes, OPTIONS)?;
        let parameters = find(options, HTB_PARAMETERS)?;
        let bytes_per_s = match find(options, HTB_RATE64) {
            Some(rate) => u64::from_ne_bytes(rate.try_into().ok()?),
            None => u64::from(u32_at(parameters, 8)?),
        };
        Some(Self { bytes_per_s, burst_ticks: u32_at(parameters, 24)? })
    }

    /// `struct tc_htb_opt`: the rate twice (what it may borrow up to is the same), and what may go at once.
    fn parameters(&self) -> [u8; HTB_OPTION_BYTES] {
        let mut bytes = [0; HTB_OPTION_BYTES];
        let rate = u32::try_from(self.bytes_per_s).unwrap_or(u32::MAX);
        for start in [0, 12] {
            bytes[start + 1] = ETHERNET;
            bytes[start + 8..start + 12].copy_from_slice(&rate.to_ne_bytes());
        }
        for (start, number) in [(24, self.burst_ticks), (28, self.burst_ticks), (32, HTB_QUANTUM)] {
            bytes[start..start + 4].copy_from_slice(&number.to_ne_bytes());
        }
        bytes
    }
}

/// Makes the classes of our HTB those of `isps`: one for each that has an egress rate. Says how many were changed.
pub(super) fn follow(interface_index: u32, isps: &[Isp], horizon_ns: u64) -> io::Result<usize> {
    let mut there = BTreeMap::new();
    for class in Request::new(GET_CLASS, 0, Place { interface_index, ..Place::default() }).list()? {
        if class.place.handle >> 16 == HANDLE && class.place.interface_index == interface_index {
            there.insert(class.place.handle, ClassRate::parse(&class));
        }
    }
    let mut changed = 0;
    for (number, isp) in (1..MAX_ISPS).zip(isps.iter().skip(1)) {
        let handle = class_of(number);
        let is = there.remove(&handle);
        match ClassRate::of(isp) {
            Some(wanted) if is != Some(Some(wanted)) => put_class(interface_index, handle, wanted, horizon_ns)?,
            None if is.is_some() => {
                let place = Place { interface_index, handle, ..Place::default() };
                Request::new(DELETE_CLASS, 0, place).carry_out()?;
            }
            _ => continue,
        }
        changed += 1;
    }
    Ok(changed)
}

/// A class, and below it a queue as long as the horizon. When it is full it refuses, of which TCP is told at once; queues that
/// drop what they took already (CoDel) would be losses.
fn put_class(interface_index: u32, handle: u32, rate: ClassRate, horizon_ns: u64) -> io::Result<()> {
    let place = Place { interface_index, handle, parent: OURS, info: 0 };
    let wide = rate.bytes_per_s.to_ne_bytes();
    let class = Request::new(NEW_CLASS, CREATE | REPLACE, place).kind("htb").nest(OPTIONS, |options| {
        let options = options.attribute(HTB_PARAMETERS, &rate.parameters());
        if rate.bytes_per_s <= u64::from(u32::MAX) {
            return options;
        }
        options.attribute(HTB_RATE64, &wide).attribute(HTB_CEIL64, &wide)
    });
    class.carry_out()?;
    let bytes = u128::from(rate.bytes_per_s) * u128::from(horizon_ns) / 1_000_000_000;
    let bytes = u32::try_from(bytes.max(LEAST_QUEUE_BYTES.into())).unwrap_or(u32::MAX);
    let below = Place { interface_index, parent: handle, ..Place::default() };
    let queue = Request::new(NEW_QUEUE, CREATE | REPLACE, below).kind("bfifo");
    queue.attribute(OPTIONS, &bytes.to_ne_bytes()).carry_out()
}

fn kind(listed: &Listed) -> String {
    let name = find(&listed.attributes, KIND).unwrap_or_default();
    String::from_utf8_lossy(name.strip_suffix(&[0]).unwrap_or(name)).into_owned()
}
