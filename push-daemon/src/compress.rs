//! The zlib and brotli forms of a batch, as Bilibili's clients take them (versions 2 and 3).
//!
//! The body of one packet is a whole batch of packets, compressed. It is made once per batch and edge, before the
//! batch goes to the shards, and only in forms that some client takes. A batch that does not become smaller is not
//! kept: clients take a plain one just as well.

use std::io::{self, Write};

use bytes::{BufMut, Bytes};
use flate2::Compression;
use flate2::write::ZlibEncoder;
use wire::goim::{HEADER_BYTES, Header, Packets, op};

use crate::format::Format;

/// Fast: a batch is compressed once, but it waits for it.
const ZLIB_LEVEL: u32 = 3;

/// The same; of 0 to 11.
const BROTLI_QUALITY: i32 = 3;

/// Window of brotli as a power of two: a batch is short.
const BROTLI_WINDOW: i32 = 18;

/// What is shorter does not pay.
const WORTHWHILE_BYTES: usize = 160;

/// The compressed forms of a run of packets, as far as they were made.
#[derive(Debug, Clone, Default)]
pub struct Compressed {
    /// One packet of version 2.
    pub zlib: Option<Bytes>,
    /// One packet of version 3.
    pub brotli: Option<Bytes>,
}

/// Bytes and time of compression, for the metrics.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Saving {
    /// Bytes before.
    pub plain_bytes: u64,
    /// Bytes after.
    pub compressed_bytes: u64,
}

/// `packets` as Bilibili's clients read them: operation 5, version 0.
pub fn put_plain(packets: &[u8], out: &mut impl BufMut) {
    for packet in Packets::new(packets, usize::MAX).flatten() {
        let header = Header { version: 0, operation: op::SEND_MESSAGE_REPLY, ..packet.header };
        header.put_packet(packet.body, out);
    }
}

/// Makes one compressed form of `packets`. `None` when it would not be shorter, or is not a compressed form.
///
/// # Errors
/// The encoder failed, which writing to memory does not do.
pub fn compress(packets: &[u8], format: Format) -> io::Result<Option<(Bytes, Saving)>> {
    if packets.len() < WORTHWHILE_BYTES {
        return Ok(None);
    }
    let mut plain = Vec::with_capacity(packets.len());
    put_plain(packets, &mut plain);
    let space = Vec::with_capacity(HEADER_BYTES + plain.len());
    let (version, body) = match format {
        Format::Goim | Format::Bilibili => return Ok(None),
        Format::Zlib => {
            let mut encoder = ZlibEncoder::new(space, Compression::new(ZLIB_LEVEL));
            encoder.write_all(&plain)?;
            (2, encoder.finish()?)
        }
        Format::Brotli => {
            let params = brotli::enc::BrotliEncoderParams {
                quality: BROTLI_QUALITY,
                lgwin: BROTLI_WINDOW,
                size_hint: plain.len(),
                ..Default::default()
            };
            let mut body = space;
            brotli::BrotliCompress(&mut plain.as_slice(), &mut body, &params)?;
            (3, body)
        }
    };
    if HEADER_BYTES + body.len() >= plain.len() {
        return Ok(None);
    }
    let header = Header { version, operation: op::SEND_MESSAGE_REPLY, sequence: 0 };
    let mut packet = Vec::with_capacity(HEADER_BYTES + body.len());
    header.put_packet(&body, &mut packet);
    let saving = Saving { plain_bytes: plain.len() as u64, compressed_bytes: packet.len() as u64 };
    Ok(Some((packet.into(), saving)))
}

#[cfg(test)]
mod tests {
    use std::io::Read;

    use super::*;

    fn batch(count: u32) -> Vec<u8> {
        let mut packets = Vec::new();
        for number in 0..count {
            let body = format!(r#"{{"cmd":"DANMU_MSG","user":"viewer {number}","text":"hello, everybody"}}"#);
            Header { version: 1, operation: 1000, sequence: 0 }.put_packet(body.as_bytes(), &mut packets);
        }
        packets
    }

    #[test]
    fn what_a_client_unpacks_is_the_plain_form() {
        let packets = batch(40);
        let mut plain = Vec::new();
        put_plain(&packets, &mut plain);
        for (format, version) in [(Format::Zlib, 2), (Format::Brotli, 3)] {
            let (packet, saving) = compress(&packets, format).unwrap().unwrap();
            let packet = wire::goim::parse(&packet, usize::MAX).unwrap().unwrap();
            assert_eq!((packet.header.operation, packet.header.version), (5, version));
            let mut unpacked = Vec::new();
            match format {
                Format::Zlib => flate2::read::ZlibDecoder::new(packet.body).read_to_end(&mut unpacked).unwrap(),
                _ => brotli::Decompressor::new(packet.body, 4096).read_to_end(&mut unpacked).unwrap(),
            };
            assert_eq!(unpacked, plain);
            assert!(saving.compressed_bytes * 4 < saving.plain_bytes, "{saving:?}");
        }
    }

    #[test]
    fn what_does_not_become_shorter_is_not_made() {
        let mut noise = Vec::new();
        let body: Vec<u8> = std::iter::repeat_with(|| fastrand::u8(..)).take(400).collect();
        Header { version: 1, operation: 1000, sequence: 0 }.put_packet(&body, &mut noise);
        for format in [Format::Zlib, Format::Brotli] {
            assert!(compress(&noise, format).unwrap().is_none());
            assert!(compress(&batch(1), format).unwrap().is_none(), "too short to pay");
        }
        assert!(compress(&batch(40), Format::Bilibili).unwrap().is_none());
    }
}
