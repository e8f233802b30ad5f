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
//! Clients of the Bilibili dialect read other headers (operation 5, version 0), or a batch compressed, so their formats
//! are buffers of their own, each made only when a member asked for it. Their memory is used again (`buffers`) when the last
//! connection that still owes the block has sent it.
//!
//! It does not decide what belongs together, nor send.

use std::cell::RefCell;

use bytes::{BufMut, Bytes, BytesMut};
use wire::goim::{HEADER_BYTES, Header, op};
use wire::websocket::Opcode;
use wire::websocket::frame::{MAX_SERVER_HEADER_BYTES, encode_header};

use crate::buffers::Buffers;
use crate::compress::{Compressed, put_plain};
use crate::format::{Format, Formats};

/// To so many receivers, a block is soon sent whole.
const A_FEW: usize = 16;

/// Space before the packets.
const PREFIX_BYTES: usize = MAX_SERVER_HEADER_BYTES + HEADER_BYTES;

/// What a connection is sent of a block.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct View {
    /// How packets are headed and packed.
    pub format: Format,
    /// As one WebSocket message.
    pub websocket: bool,
}

/// A run of encoded packets, as the trunk brought it.
#[derive(Debug, Clone)]
pub struct Run {
    /// Whole goim packets, one after another.
    pub packets: Bytes,
    /// How many there are.
    pub count: u32,
    /// The same, compressed, in the forms that some client of the edge takes.
    pub compressed: Compressed,
}

/// Whom a block is for.
#[derive(Debug, Clone, Copy)]
pub struct Audience {
    /// What they take.
    pub formats: Formats,
    /// How many they are.
    pub receivers: usize,
}

/// Where blocks get their memory. One per shard: it stays on its thread.
pub struct BlockPool {
    /// Borrowed for the time that one format of a block is put together, which asks for no other.
    buffers: RefCell<Buffers>,
}

/// An immutable batch of packets in all the formats that were asked for.
#[derive(Debug, Clone)]
pub struct Block {
    /// By the number of the format.
    formats: [Option<Framed>; Format::ALL.len()],
    count: u32,
    /// It shares its memory with other blocks.
    for_a_few: bool,
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
        Self { buffers: RefCell::new(Buffers::new()) }
    }

    /// Puts `runs` together, in order, in the formats that somebody needs.
    #[must_use]
    pub fn build<'a>(&self, runs: impl Iterator<Item = &'a Run> + Clone, audience: Audience) -> Block {
        let for_a_few = audience.receivers <= A_FEW;
        let count = runs.clone().map(|run| run.count).sum();
        // No format is longer: headers are of one length, and a compressed form that is not shorter is not made.
        let most_bytes = runs.clone().map(|run| run.packets.len()).sum();
        let formats = Format::ALL.map(|format| {
            audience.formats.has(format).then(|| {
                // Bilibili's clients loop over the packets of a message themselves; there is no raw header.
                let raw_header = format == Format::Goim && count > 1;
                let fill = |buffer: &mut BytesMut| runs.clone().for_each(|run| put(run, format, buffer));
                self.framed(most_bytes, for_a_few, raw_header, fill)
            })
        });
        Block { formats, count, for_a_few }
    }

    fn framed(&self, most_bytes: usize, for_a_few: bool, raw_header: bool, fill: impl FnOnce(&mut BytesMut)) -> Framed {
        let mut websocket_at = PREFIX_BYTES;
        let frame = |buffer: &mut BytesMut| {
            buffer.put_bytes(0, PREFIX_BYTES);
            fill(buffer);
            let packets_bytes = buffer.len() - PREFIX_BYTES;
            let mut at = PREFIX_BYTES;
            if raw_header {
                at -= HEADER_BYTES;
                let header = Header { version: 1, operation: op::RAW, sequence: 0 };
                buffer[at..PREFIX_BYTES].copy_from_slice(&header.encode(packets_bytes));
            }
            let mut frame_header = [0; MAX_SERVER_HEADER_BYTES];
            let length = encode_header(Opcode::Binary, buffer.len() - at, &mut frame_header);
            websocket_at = at - length;
            buffer[websocket_at..at].copy_from_slice(&frame_header[..length]);
        };
        let mut buffers = self.buffers.borrow_mut();
        let bytes = PREFIX_BYTES + most_bytes;
        let buffer = if for_a_few { buffers.lend_part(bytes, frame) } else { buffers.lend(bytes, frame) };
        Framed { buffer, websocket_at }
    }
}

/// Appends `run` in one format. What was not compressed, because it was not worth it or because the first client that
/// takes it has just come, goes plain: every client takes that.
fn put(run: &Run, format: Format, buffer: &mut BytesMut) {
    let compressed = match format {
        Format::Goim => return buffer.extend_from_slice(&run.packets),
        Format::Bilibili => &None,
        Format::Zlib => &run.compressed.zlib,
        Format::Brotli => &run.compressed.brotli,
    };
    match compressed {
        Some(packet) => buffer.extend_from_slice(packet),
        None => put_plain(&run.packets, buffer),
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

    /// The bytes of one view; a format that was not made is `None`.
    #[must_use]
    pub fn view(&self, view: View) -> Option<&[u8]> {
        let (framed, at) = self.locate(view)?;
        Some(&framed.buffer[at..])
    }

    /// The rest of a view, from `sent` on: a handle that keeps the block alive, or a copy if that would keep others too.
    #[must_use]
    pub fn rest(&self, view: View, sent: usize) -> Option<Bytes> {
        let (framed, at) = self.locate(view)?;
        let rest = at + sent..;
        Some(if self.for_a_few { Bytes::copy_from_slice(&framed.buffer[rest]) } else { framed.buffer.slice(rest) })
    }

    fn locate(&self, view: View) -> Option<(&Framed, usize)> {
        let framed = self.formats[view.format as usize].as_ref()?;
        Some((framed, if view.websocket { framed.websocket_at } else { PREFIX_BYTES }))
    }
}

#[cfg(test)]
mod tests {
    use wire::goim::Packets;

    use super::*;

    fn run(operation: i32, bodies: &[&str]) -> Run {
        let mut packets = Vec::new();
        for body in bodies {
            Header { version: 1, operation, sequence: 0 }.put_packet(body.as_bytes(), &mut packets);
        }
        Run { packets: packets.into(), count: bodies.len() as u32, compressed: Compressed::default() }
    }

    const GOIM: View = View { format: Format::Goim, websocket: false };
    const GOIM_WEBSOCKET: View = View { format: Format::Goim, websocket: true };
    const BILIBILI: View = View { format: Format::Bilibili, websocket: false };
    const BILIBILI_WEBSOCKET: View = View { format: Format::Bilibili, websocket: true };

    fn many(formats: &[Format]) -> Audience {
        Audience { formats: formats.iter().copied().collect(), receivers: 1_000 }
    }

    fn bodies(bytes: &[u8]) -> Vec<(i32, i16, String)> {
        Packets::new(bytes, usize::MAX)
            .map(Result::unwrap)
            .map(|p| (p.header.operation, p.header.version, String::from_utf8(p.body.to_vec()).unwrap()))
            .collect()
    }

    #[test]
    fn one_packet_goes_to_a_websocket_without_a_raw_header() {
        let block = BlockPool::new().build([run(1000, &["hello"])].iter(), many(&[Format::Goim]));
        assert_eq!(block.view(GOIM_WEBSOCKET).unwrap()[..2], [0x82, 21]);
        assert_eq!(bodies(&block.view(GOIM_WEBSOCKET).unwrap()[2..]), [(1000, 1, "hello".to_owned())]);
        assert_eq!(bodies(block.view(GOIM).unwrap()), [(1000, 1, "hello".to_owned())]);
        assert!(block.view(BILIBILI).is_none());
    }

    #[test]
    fn several_packets_go_to_a_websocket_behind_a_raw_header_and_to_tcp_without() {
        let runs = [run(1000, &["a", "b"]), run(1001, &["c"])];
        let block = BlockPool::new().build(runs.iter(), many(&[Format::Goim, Format::Bilibili]));
        assert_eq!(block.count(), 3);
        let all = [(1000, 1, "a".to_owned()), (1000, 1, "b".to_owned()), (1001, 1, "c".to_owned())];
        assert_eq!(bodies(block.view(GOIM).unwrap()), all);
        let websocket = block.view(GOIM_WEBSOCKET).unwrap();
        assert_eq!(websocket[..2], [0x82, 16 + 3 * 17]);
        let outer = wire::goim::parse(&websocket[2..], usize::MAX).unwrap().unwrap();
        assert_eq!(outer.header.operation, op::RAW);
        assert_eq!(bodies(outer.body), all);
        let bilibili = [(5, 0, "a".to_owned()), (5, 0, "b".to_owned()), (5, 0, "c".to_owned())];
        assert_eq!(bodies(block.view(BILIBILI).unwrap()), bilibili);
        assert_eq!(bodies(&block.view(BILIBILI_WEBSOCKET).unwrap()[2..]), bilibili);
    }

    #[test]
    fn compressed_runs_stand_one_after_another_and_what_is_not_compressed_goes_plain() {
        let mut first = run(1000, &["a"]);
        first.compressed.zlib = Some(Bytes::from_static(b"zlib"));
        let runs = [first, run(1000, &["b"])];
        let block = BlockPool::new().build(runs.iter(), many(&[Format::Zlib]));
        let view = block.view(View { format: Format::Zlib, websocket: false }).unwrap();
        assert_eq!(&view[..4], b"zlib");
        assert_eq!(bodies(&view[4..]), [(5, 0, "b".to_owned())]);
        assert!(block.view(GOIM).is_none(), "nobody asked for it");
    }

    #[test]
    fn a_rest_outlives_the_block() {
        let pool = BlockPool::new();
        let block = pool.build([run(1000, &["hello"])].iter(), many(&[Format::Goim]));
        let rest = block.rest(GOIM, 18).unwrap();
        assert!(block.view(GOIM).unwrap().as_ptr_range().contains(&rest.as_ptr()), "a handle, not a copy");
        drop((block, pool));
        assert_eq!(&rest[..], b"llo");
    }

    #[test]
    fn what_one_of_a_few_is_owed_keeps_no_other_block() {
        let pool = BlockPool::new();
        let few = Audience { receivers: 2, ..many(&[Format::Goim]) };
        let block = pool.build([run(1000, &["hello"])].iter(), few);
        let rest = block.rest(GOIM, 18).unwrap();
        assert!(!block.view(GOIM).unwrap().as_ptr_range().contains(&rest.as_ptr()));
        assert_eq!(&rest[..], b"llo");
        let next = pool.build([run(1000, &["again"])].iter(), few);
        assert_eq!(block.view(GOIM).unwrap()[16..], *b"hello", "beside it in memory, not over it");
        assert_eq!(next.view(GOIM_WEBSOCKET).map(<[u8]>::len), block.view(GOIM_WEBSOCKET).map(<[u8]>::len));
    }
}
