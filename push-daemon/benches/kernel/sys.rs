//! The socket that sends whole frames, and what the kernel knows of a connection.
#![allow(unsafe_code)] // An address of its kind has no safe constructor, and one of its options no safe setter.

use std::{io, net::TcpStream, os::fd::AsRawFd as _};

use socket2::{Domain, SockAddr, Socket, Type};

/// A socket that sends frames out of an interface of this thread's network namespace, past its queueing discipline, and
/// receives none.
pub(crate) fn frame_socket(interface_index: u32) -> io::Result<Socket> {
    let socket = Socket::new(Domain::PACKET, Type::RAW, None)?;
    // SAFETY: the storage is larger than a `sockaddr_ll` and as strictly aligned, and all zero is a valid value of either.
    let (_, address) = unsafe {
        SockAddr::try_init(|storage, length| {
            let address = storage.cast::<libc::sockaddr_ll>();
            (*address).sll_family = libc::AF_PACKET as libc::sa_family_t;
            (*address).sll_ifindex = interface_index as libc::c_int;
            *length = size_of::<libc::sockaddr_ll>() as libc::socklen_t;
            Ok(())
        })
    }?;
    socket.bind(&address)?;
    let on: libc::c_int = 1;
    // SAFETY: the option takes an int; pointer and length are those of one that outlives the call.
    let result = unsafe {
        libc::setsockopt(
            socket.as_raw_fd(),
            libc::SOL_PACKET,
            libc::PACKET_QDISC_BYPASS,
            (&raw const on).cast(),
            size_of::<libc::c_int>() as libc::socklen_t,
        )
    };
    if result == 0 { Ok(socket) } else { Err(io::Error::last_os_error()) }
}

/// Which options this end of a connection uses, and both window scales: the bytes of `struct tcp_info` that say so.
pub(crate) fn options_and_scales(connection: &TcpStream) -> io::Result<[u8; 2]> {
    // Behind state, congestion state, and three counts.
    const OPTIONS: usize = 5;
    const SCALES: usize = 6;
    let mut info = [0_u8; 8];
    let mut length = info.len() as libc::socklen_t;
    // SAFETY: the kernel writes at most `length` bytes of what it knows, which are there; both outlive the call.
    let result = unsafe {
        libc::getsockopt(
            connection.as_raw_fd(),
            libc::IPPROTO_TCP,
            libc::TCP_INFO,
            info.as_mut_ptr().cast(),
            &raw mut length,
        )
    };
    if result == 0 { Ok([info[OPTIONS], info[SCALES]]) } else { Err(io::Error::last_os_error()) }
}
