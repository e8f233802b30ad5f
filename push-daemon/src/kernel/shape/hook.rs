//! Where the program meets packets: a pinned link where the kernel has them for traffic control (6.6 and later), else a filter of
//! a `clsact` queue, which is found again by its numbers.

use std::{
    io,
    os::fd::{AsFd as _, AsRawFd as _},
};

use aya::{
    programs::{
        LinkOrder, SchedClassifier, TcAttachType,
        links::{FdLink, PinnedLink},
        tc::{SchedClassifierLink, TcAttachOptions},
    },
    util::KernelVersion,
};

use super::message::{
    CREATE, DELETE_FILTER, DELETE_QUEUE, EXCLUSIVE, GET_FILTER, NEW_FILTER, NEW_QUEUE, OPTIONS, Place, REPLACE, Request,
};
use crate::kernel::{
    attach::Interface,
    error::KernelError,
    netlink::{find, u32_at},
    pin::{self, PinDir},
    sys::{self, LinkInfo},
};

const CLSACT: u32 = 0xffff_fff1;
const CLSACT_HANDLE: u32 = 0xffff_0000;
const CLSACT_EGRESS: u32 = 0xffff_fff3;

/// Our place among the filters of an interface, by which we find ours again.
const PRIORITY: u32 = abi::shaping::HANDLE;
const HANDLE: u32 = 1;
/// `ETH_P_ALL` in network byte order: the filter sees every packet.
const EVERY_PROTOCOL: u16 = 3_u16.to_be();

const BPF_DESCRIPTOR: u16 = 6;
const BPF_NAME: u16 = 7;
const BPF_FLAGS: u16 = 8;
const BPF_ID: u16 = 11;
/// The program's answer is the verdict.
const DIRECT_ACTION: u32 = 1;

/// Whether the kernel has links for traffic control.
fn has_links() -> bool {
    KernelVersion::current().is_ok_and(|version| version >= KernelVersion::new(6, 6, 0))
}

/// What runs at the interface's egress of ours: the program's id.
pub(super) fn attached(interface_index: u32, pins: &PinDir) -> io::Result<Option<u32>> {
    match sys::open_pinned(&pins.shape_link()) {
        Ok(link) => {
            let LinkInfo { program_id, interface_index: at } = sys::link_info(link, sys::LinkKind::Tcx)?;
            return Ok((at == interface_index).then_some(program_id));
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        Err(error) => return Err(error),
    }
    filter(interface_index)
}

/// Attaches `program`, or puts it in the place of the one that runs there, in one step. Says whether a `clsact` was made for it.
pub(super) fn attach(
    program: &mut SchedClassifier,
    interface: &Interface,
    pins: &PinDir,
    runs: bool,
) -> Result<bool, KernelError> {
    if has_links() {
        attach_link(program, interface, pins, runs).map(|()| false)
    } else {
        attach_filter(program, interface)
    }
}

fn attach_link(
    program: &mut SchedClassifier,
    interface: &Interface,
    pins: &PinDir,
    runs: bool,
) -> Result<(), KernelError> {
    let pin = pins.shape_link();
    let doing = || format!("attach the shaper to {}", interface.name);
    if runs {
        let broken = |error| KernelError::system(doing(), io::Error::other(error));
        let link = FdLink::from(PinnedLink::from_pin(&pin).map_err(broken)?);
        let link = SchedClassifierLink::try_from(link).map_err(broken)?;
        return program.attach_to_link(link).map(drop).map_err(|error| KernelError::program(doing(), error));
    }
    // One that is at no interface any more, or at another one.
    pin::detach(&pin)?;
    let order = TcAttachOptions::TcxOrder(LinkOrder::default());
    let id = program
        .attach_with_options(&interface.name, TcAttachType::Egress, order)
        .map_err(|error| KernelError::program(doing(), error))?;
    let link = program.take_link(id).map_err(|error| KernelError::program(doing(), error))?;
    let link: FdLink = link.try_into().map_err(|error| KernelError::system(doing(), io::Error::other(error)))?;
    link.pin(&pin).map(drop).map_err(|error| KernelError::pin(format!("pin the link at {}", pin.display()), error))
}

/// aya's own filter would be taken down when its handle is dropped.
fn attach_filter(program: &mut SchedClassifier, interface: &Interface) -> Result<bool, KernelError> {
    let doing = || format!("attach the shaper to {}", interface.name);
    let failed = |error| KernelError::system(doing(), error);
    let queue = Place { interface_index: interface.index, handle: CLSACT_HANDLE, parent: CLSACT, info: 0 };
    let made = match Request::new(NEW_QUEUE, CREATE | EXCLUSIVE, queue).kind("clsact").carry_out() {
        Ok(()) => true,
        Err(error) if error.raw_os_error() == Some(libc::EEXIST) => false,
        Err(error) => return Err(failed(error)),
    };
    let descriptor = program.fd().map_err(|error| KernelError::program(doing(), error))?.as_fd().as_raw_fd();
    let request = Request::new(NEW_FILTER, CREATE | REPLACE, filter_place(interface.index)).kind("bpf");
    let request = request.nest(OPTIONS, |options| {
        let name = [abi::maps::SHAPE.as_bytes(), &[0]].concat();
        let options = options.attribute(BPF_DESCRIPTOR, &descriptor.to_ne_bytes()).attribute(BPF_NAME, &name);
        options.attribute(BPF_FLAGS, &DIRECT_ACTION.to_ne_bytes())
    });
    request.carry_out().map_err(failed)?;
    Ok(made)
}

/// Takes the program away from the interface, and the `clsact` when it is ours and nobody else uses it by now.
pub(super) fn detach(interface_index: u32, pins: &PinDir, clsact_is_ours: bool) -> Result<(), KernelError> {
    pin::detach(&pins.shape_link())?;
    let failed = |error| KernelError::system("take the shaper away", error);
    if filter(interface_index).map_err(failed)?.is_some() {
        Request::new(DELETE_FILTER, 0, filter_place(interface_index)).kind("bpf").carry_out().map_err(failed)?;
    }
    if clsact_is_ours && !has_filters(interface_index).map_err(failed)? {
        let queue = Place { interface_index, handle: CLSACT_HANDLE, parent: CLSACT, info: 0 };
        Request::new(DELETE_QUEUE, 0, queue).carry_out().map_err(failed)?;
    }
    Ok(())
}

fn filter_place(interface_index: u32) -> Place {
    let info = (PRIORITY << 16) | u32::from(EVERY_PROTOCOL);
    Place { interface_index, handle: HANDLE, parent: CLSACT_EGRESS, info }
}

/// Id of the program that our filter runs.
fn filter(interface_index: u32) -> io::Result<Option<u32>> {
    let place = filter_place(interface_index);
    let filters = list_filters(interface_index, CLSACT_EGRESS)?;
    let ours = filters.iter().find(|filter| filter.place.info == place.info && filter.place.handle == HANDLE);
    Ok(ours.and_then(|filter| u32_at(find(find(&filter.attributes, OPTIONS)?, BPF_ID)?, 0)))
}

fn has_filters(interface_index: u32) -> io::Result<bool> {
    const CLSACT_INGRESS: u32 = 0xffff_fff2;
    for parent in [CLSACT_EGRESS, CLSACT_INGRESS] {
        if !list_filters(interface_index, parent)?.is_empty() {
            return Ok(true);
        }
    }
    Ok(false)
}

fn list_filters(interface_index: u32, parent: u32) -> io::Result<Vec<super::message::Listed>> {
    match Request::new(GET_FILTER, 0, Place { interface_index, parent, ..Place::default() }).list() {
        // No such interface, or nothing there that could hold filters.
        Err(error) if matches!(error.raw_os_error(), Some(libc::ENODEV | libc::EINVAL | libc::ENOENT)) => {
            Ok(Vec::new())
        }
        listed => listed,
    }
}
