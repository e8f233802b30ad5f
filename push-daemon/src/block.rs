//! Blocks: one piece of memory that every connection of a room is sent from.
//!
//! A block holds the packets of a batch once, and before them the few bytes that a WebSocket client needs:
//!
//! ```text
//!            | frame header <= 10 | raw header 16 | packet | packet | ... |
//! TCP                                             [-----------------------]
//! WebSocket, several packets   [--------------------------------------------]
//! WebSocket, one packet                [header][--]          (no raw header)
//! ```
//!
//! Clients of the Bilibili dialect read other headers (operation 5, version 0), so their view is a second
//! buffer, made only when a member asked for it. Buffers come from a pool and go back to it when the last
//! connection that still owes the block has sent it.
//!
//! It does not decide what belongs together, nor send.

use std::sync::Arc;

use bytes::{BufMut, Bytes};
use lockfree_object_pool::{LinearObjectPool, LinearOwnedReusable};
use wire::goim::{HEADER_BYTES, Header, Packets, op};
use wire::websocket::Opcode;
use wire::websocket::frame::{MAX_SERVER_HEADER_BYTES, encode_header};

/// Buffers that grew beyond this are not kept when they come back.
const KEPT_BUFFER_BYTES: usize = 256 * 1024;

/// Space before the packets.
const PREFIX_BYTES: usize = MAX_SERVER_HEADER_BYTES + HEADER_BYTES;

/// What a connection is sent of a block.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum View {
    /// Plain goim packets.
    Goim,
    /// Goim packets as one WebSocket message.
    GoimWebSocket,
    /// Packets headed for Bilibili's clients.
    Bilibili,
    /// The same as one WebSocket message.
    BilibiliWebSocket,
}

/// A run of encoded packets, as the trunk brought it.
#[derive(Debug, Clone)]
pub struct Run {
    /// Whole goim packets, one after another.
    pub packets: Bytes,
    /// How many there are.
    pub count: u32,
}

/// Where blocks get their memory. One per shard: no two threads compete for it.
pub struct BlockPool {
    buffers: Arc<LinearObjectPool<Vec<u8>>>,
}

struct Held(LinearOwnedReusable<Vec<u8>>);

impl AsRef<[u8]> for Held {
    fn as_ref(&self) -> &[u8] {
        &self.0
    }
}

/// An immutable batch of packets in all the views that were asked for.
#[derive(Debug, Clone)]
pub struct Block {
    goim: Framed,
    bilibili: Option<Framed>,
    count: u32,
}

/// Packets behind a WebSocket prefix.
#[derive(Debug, Clone)]
struct Framed {
    buffer: Bytes,
    /// Where the WebSocket view begins; the packets begin at [`PREFIX_BYTES`].
    websocket_at: usize,
}

impl BlockPool {
    /// An empty pool.
    #[must_use]
    pub fn new() -> Self {
        let reset = |buffer: &mut Vec<u8>| {
            buffer.clear();
            buffer.shrink_to(KEPT_BUFFER_BYTES);
        };
        Self { buffers: Arc::new(LinearObjectPool::new(Vec::new, reset)) }
    }

    /// Puts `runs` together, in order. The Bilibili views are made when `bilibili` says that somebody needs them.
    #[must_use]
    pub fn build<'a>(&self, runs: impl Iterator<Item = &'a Run> + Clone, bilibili: bool) -> Block {
        let count = runs.clone().map(|run| run.count).sum();
        let goim = self.framed(count > 1, |buffer| {
            for run in runs.clone() {
                buffer.extend_from_slice(&run.packets);
            }
        });
        let bilibili = bilibili.then(|| {
            // Its clients loop over the packets of a message themselves; there is no raw header.
            self.framed(false, |buffer| {
                for packet in runs.flat_map(|run| Packets::new(&run.packets, usize::MAX)).flatten() {
                    let header = Header { version: 0, operation: op::SEND_MESSAGE_REPLY, ..packet.header };
                    header.put_packet(packet.body, buffer);
                }
            })
        });
        Block { goim, bilibili, count }
    }

    fn framed(&self, raw_header: bool, fill: impl FnOnce(&mut Vec<u8>)) -> Framed {
        let mut buffer = self.buffers.pull_owned();
        buffer.put_bytes(0, PREFIX_BYTES);
        fill(&mut buffer);
        let packets_bytes = buffer.len() - PREFIX_BYTES;
        let mut at = PREFIX_BYTES;
        if raw_header {
            at -= HEADER_BYTES;
            let header = Header { version: 1, operation: op::RAW, sequence: 0 };
            buffer[at..PREFIX_BYTES].copy_from_slice(&header.encode(packets_bytes));
        }
        let mut frame_header = [0; MAX_SERVER_HEADER_BYTES];
        let length = encode_header(Opcode::Binary, buffer.len() - at, &mut frame_header);
        buffer[at - length..at].copy_from_slice(&frame_header[..length]);
        Framed { buffer: Bytes::from_owner(Held(buffer)), websocket_at: at - length }
    }
}

impl Default for BlockPool {
    fn default() -> Self {
        Self::new()
    }
}

impl Block {
    /// Packets in it.
    #[must_use]
    pub fn count(&self) -> u32 {
        self.count
    }

    /// Whether the Bilibili views were made.
    #[must_use]
    pub fn has_bilibili(&self) -> bool {
        self.bilibili.is_some()
    }

    /// The bytes of one view; a Bilibili view that was not made is `None`.
    #[must_use]
    pub fn view(&self, view: View) -> Option<&[u8]> {
        let (framed, at) = self.locate(view)?;
        Some(&framed.buffer[at..])
    }

    /// A handle on the rest of a view, from `sent` on, that keeps the block alive.
    #[must_use]
    pub fn rest(&self, view: View, sent: usize) -> Option<Bytes> {
        let (framed, at) = self.locate(view)?;
        Some(framed.buffer.slice(at + sent..))
    }

    fn locate(&self, view: View) -> Option<(&Framed, usize)> {
        match view {
            View::Goim => Some((&self.goim, PREFIX_BYTES)),
            View::GoimWebSocket => Some((&self.goim, self.goim.websocket_at)),
            View::Bilibili => self.bilibili.as_ref().map(|framed| (framed, PREFIX_BYTES)),
            View::BilibiliWebSocket => self.bilibili.as_ref().map(|framed| (framed, framed.websocket_at)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run(operation: i32, bodies: &[&str]) -> Run {
        let mut packets = Vec::new();
        for body in bodies {
            Header { version: 1, operation, sequence: 0 }.put_packet(body.as_bytes(), &mut packets);
        }
        Run { packets: packets.into(), count: bodies.len() as u32 }
    }

    fn bodies(bytes: &[u8]) -> Vec<(i32, i16, String)> {
        Packets::new(bytes, usize::MAX)
            .map(Result::unwrap)
            .map(|p| (p.header.operation, p.header.version, String::from_utf8(p.body.to_vec()).unwrap()))
            .collect()
    }

    #[test]
    fn one_packet_goes_to_a_websocket_without_a_raw_header() {
        let block = BlockPool::new().build([run(1000, &["hello"])].iter(), false);
        assert_eq!(block.view(View::GoimWebSocket).unwrap()[..2], [0x82, 21]);
        assert_eq!(bodies(&block.view(View::GoimWebSocket).unwrap()[2..]), [(1000, 1, "hello".to_owned())]);
        assert_eq!(bodies(block.view(View::Goim).unwrap()), [(1000, 1, "hello".to_owned())]);
        assert!(block.view(View::Bilibili).is_none());
    }

    #[test]
    fn several_packets_go_to_a_websocket_behind_a_raw_header_and_to_tcp_without() {
        let runs = [run(1000, &["a", "b"]), run(1001, &["c"])];
        let block = BlockPool::new().build(runs.iter(), true);
        assert_eq!(block.count(), 3);
        let all = [(1000, 1, "a".to_owned()), (1000, 1, "b".to_owned()), (1001, 1, "c".to_owned())];
        assert_eq!(bodies(block.view(View::Goim).unwrap()), all);
        let websocket = block.view(View::GoimWebSocket).unwrap();
        assert_eq!(websocket[..2], [0x82, 16 + 3 * 17]);
        let outer = wire::goim::parse(&websocket[2..], usize::MAX).unwrap().unwrap();
        assert_eq!(outer.header.operation, op::RAW);
        assert_eq!(bodies(outer.body), all);
        let bilibili = [(5, 0, "a".to_owned()), (5, 0, "b".to_owned()), (5, 0, "c".to_owned())];
        assert_eq!(bodies(block.view(View::Bilibili).unwrap()), bilibili);
        assert_eq!(bodies(&block.view(View::BilibiliWebSocket).unwrap()[2..]), bilibili);
    }

    #[test]
    fn a_rest_outlives_the_block() {
        let pool = BlockPool::new();
        let block = pool.build([run(1000, &["hello"])].iter(), false);
        let rest = block.rest(View::Goim, 18).unwrap();
        drop((block, pool));
        assert_eq!(&rest[..], b"llo");
    }
}
