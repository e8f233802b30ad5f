//! A shard's place among those that connections are steered to.

use std::{
    io,
    net::{IpAddr, SocketAddr},
    os::fd::{AsFd, RawFd},
    sync::Arc,
};

use abi::steer::{MAX_PLACES, Place, ShardState, ShardWord, slot};

use super::{
    Claim,
    sys::{self, Words},
};

/// What a shard needs to be steered to: where its listeners go, and where it says how it is.
///
/// The descriptors are those of `Steering`, by number. A shard with a descriptor table of its own keeps these numbers in it,
/// where nothing closes them before the thread ends; whoever shares `Steering`'s table keeps that as long as this.
#[derive(Clone, Debug)]
pub struct Seat {
    pub(super) shard: u16,
    pub(super) program: RawFd,
    pub(super) sockets: RawFd,
    pub(super) places: RawFd,
    pub(super) bell: RawFd,
    pub(super) words: Arc<Words>,
    pub(super) claim: Arc<Claim>,
}

impl Seat {
    /// What a descriptor table of the shard's own has to keep.
    #[must_use]
    pub fn descriptors(&self) -> [RawFd; 4] {
        [self.program, self.sockets, self.places, self.bell]
    }

    /// Has connections to `address` steered, and `listener`, which listens there, among those that get them. `number` is the
    /// address's own, the same in every shard.
    ///
    /// # Errors
    /// The kernel refused, or `number` is beyond [`MAX_PLACES`]. The listener then gets what the kernel's hash gives it.
    pub fn enlist(&self, number: usize, address: SocketAddr, listener: impl AsFd) -> io::Result<()> {
        let number = u32::try_from(number).ok().filter(|number| *number < MAX_PLACES);
        let number = number.ok_or_else(|| io::Error::other(format!("more than {MAX_PLACES} listening addresses")))?;
        sys::put_place(self.places, &place_of(address), number)?;
        sys::put_socket(self.sockets, slot(number, u32::from(self.shard)), &listener)?;
        // A shard that listens again must not take a successor's connections back.
        if self.claim.is_superseded() { Ok(()) } else { sys::attach(&listener, self.program) }
    }

    /// Says how the shard is, from the next connection on.
    pub fn set_state(&self, state: ShardState) {
        let load = self.words.get(usize::from(self.shard)).load;
        self.words.set(usize::from(self.shard), ShardWord { state: state as u32, load });
    }

    /// Says how many connections the shard has. Written only when it differs: shards share cache lines here.
    pub fn set_load(&self, connections: u32) {
        let word = self.words.get(usize::from(self.shard));
        if word.load != connections {
            self.words.set(usize::from(self.shard), ShardWord { load: connections, ..word });
        }
    }

    /// Descriptor that becomes readable, by an edge each time, when a listener went away and its connections moved on.
    #[must_use]
    pub fn bell(&self) -> RawFd {
        self.bell
    }

    /// Has all shards look at their listeners: the kernel moves what waits in the queue of one that closes to another's, and
    /// not every version of it wakes who waits there.
    ///
    /// # Errors
    /// The bell is not in this thread's descriptor table.
    pub fn ring(&self) -> io::Result<()> {
        sys::ring(self.bell)
    }
}

/// An address as the kernel program sees it.
fn place_of(address: SocketAddr) -> Place {
    let mut words = [0; 4];
    let family = match address.ip() {
        IpAddr::V4(ip) => {
            words[0] = u32::from_ne_bytes(ip.octets());
            libc::AF_INET
        }
        IpAddr::V6(ip) => {
            for (word, bytes) in words.iter_mut().zip(ip.octets().as_chunks::<4>().0) {
                *word = u32::from_ne_bytes(*bytes);
            }
            libc::AF_INET6
        }
    };
    Place { address: words, port: u32::from(address.port()), family: family.unsigned_abs() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_stands_as_in_a_packet_and_a_port_as_a_number() {
        let v4 = place_of("10.1.2.3:3101".parse().unwrap());
        assert_eq!((v4.address[0].to_ne_bytes(), &v4.address[1..]), ([10, 1, 2, 3], &[0; 3][..]));
        assert_eq!((v4.port, v4.family), (3101, 2));
        let v6 = place_of("[fd00::1]:3102".parse().unwrap());
        assert_eq!((v6.address[0].to_ne_bytes(), v6.address[3].to_ne_bytes()), ([0xfd, 0, 0, 0], [0, 0, 0, 1]));
        assert_eq!((v6.port, v6.family), (3102, 10));
    }
}
