//! One message of the bus: whom it is for, what it says, who sent it; and the partition that it belongs to.
//!
//! It does not know how records are stored or ordered: that is `store`.

use std::hash::Hasher;

use bytes::Bytes;
use prost::Message;
use siphasher::sip::SipHasher24;
use wire::room::RoomId;
use wire::trunk::batch::Target as WireTarget;
use wire::trunk::{All, Keys, Mids};

/// Where everything that is not for a room goes. One partition for all of it, so that what reaches a key by its name,
/// by its mid or with everybody else keeps one order, whatever the targets of each message are.
pub const DIRECT_PARTITION: u32 = 0;

/// Whom a message is for.
///
/// This is the trunk's own type: a record goes to the edges with the target that it was stored with.
pub type Target = WireTarget;

/// Who sent a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Origin {
    /// A publisher, by the HTTP API.
    Publisher,
    /// A client, by its connection.
    Client {
        /// Its user id; 0 is an anonymous one.
        mid: i64,
    },
}

/// A message as it is published.
#[derive(Debug, Clone, PartialEq)]
pub struct Record {
    /// Whom it is for.
    pub target: Target,
    /// The operation of its packet.
    pub operation: i32,
    /// The body of its packet.
    pub body: Bytes,
    /// Who sent it.
    pub origin: Origin,
}

impl Record {
    /// A message for everybody in `room`.
    #[must_use]
    pub fn room(room: &RoomId, operation: i32, body: Bytes, origin: Origin) -> Self {
        Self { target: Target::Room(room.as_str().to_owned()), operation, body, origin }
    }

    /// A message for the connections that `keys` name.
    #[must_use]
    pub fn keys(keys: Vec<String>, operation: i32, body: Bytes) -> Self {
        Self { target: Target::Keys(Keys { keys }), operation, body, origin: Origin::Publisher }
    }

    /// A message for every connection of the users `mids`.
    #[must_use]
    pub fn mids(mids: Vec<i64>, operation: i32, body: Bytes) -> Self {
        Self { target: Target::Mids(Mids { mids }), operation, body, origin: Origin::Publisher }
    }

    /// A message for every connection that accepts it, `speed` of them a second on each edge; 0 is at once.
    #[must_use]
    pub fn all(speed: u32, operation: i32, body: Bytes) -> Self {
        Self { target: Target::All(All { speed }), operation, body, origin: Origin::Publisher }
    }

    /// The partition of this record among `partitions`: the room's, or [`DIRECT_PARTITION`].
    #[must_use]
    pub fn partition(&self, partitions: u32) -> u32 {
        match &self.target {
            Target::Room(room) => room_partition(room, partitions),
            Target::Keys(_) | Target::Mids(_) | Target::All(_) => DIRECT_PARTITION,
        }
    }

    /// Memory that the record takes while it waits, roughly and never too little by more than an allocator's rounding.
    #[must_use]
    pub fn weight_bytes(&self) -> usize {
        /// The struct, its channel and its answer.
        const FIXED_BYTES: usize = 256;
        let target = match &self.target {
            Target::Room(room) => room.len(),
            Target::Keys(keys) => keys.keys.iter().map(|key| size_of::<String>() + key.len()).sum(),
            Target::Mids(mids) => mids.mids.len() * size_of::<i64>(),
            Target::All(_) => 0,
        };
        FIXED_BYTES + target + self.body.len()
    }
}

/// The partition of `room`. The keys of the hash are fixed: a room stays where it is over restarts and versions.
#[must_use]
pub fn room_partition(room: &str, partitions: u32) -> u32 {
    let mut hasher = SipHasher24::new_with_keys(0x7075_7368_2062_7573, 0x726f_6f6d_2068_6173);
    hasher.write(room.as_bytes());
    // Less than `partitions`, so it fits.
    (hasher.finish() % u64::from(partitions.max(1))) as u32
}

/// A record as it lies in the store: when it was appended (8 bytes, milliseconds since 1970), then Protobuf. The time
/// stands apart so that trimming need not decode what it drops.
pub(super) mod stored {
    use super::{Bytes, Message, Origin, Record, WireTarget};

    const TIME_BYTES: usize = 8;

    /// The fields 1 to 4 are those of the trunk's `Batch.target`.
    #[derive(Clone, PartialEq, Message)]
    struct Body {
        #[prost(oneof = "WireTarget", tags = "1, 2, 3, 4")]
        target: Option<WireTarget>,
        #[prost(int32, tag = "5")]
        operation: i32,
        #[prost(bytes = "bytes", tag = "6")]
        body: Bytes,
        /// The mid of the client that sent it; absent for a publisher.
        #[prost(int64, optional, tag = "7")]
        client_mid: Option<i64>,
    }

    pub(in super::super) fn encode(record: &Record, appended_ms: u64) -> Vec<u8> {
        let body = Body {
            target: Some(record.target.clone()),
            operation: record.operation,
            body: record.body.clone(),
            client_mid: match record.origin {
                Origin::Publisher => None,
                Origin::Client { mid } => Some(mid),
            },
        };
        let mut out = Vec::with_capacity(TIME_BYTES + body.encoded_len());
        out.extend_from_slice(&appended_ms.to_be_bytes());
        body.encode_raw(&mut out);
        out
    }

    pub(in super::super) fn appended_ms(bytes: &[u8]) -> Option<u64> {
        Some(u64::from_be_bytes(bytes.get(..TIME_BYTES)?.try_into().ok()?))
    }

    /// `None` when the bytes are damaged, or of a version that knows other targets.
    pub(in super::super) fn decode(bytes: &[u8]) -> Option<Record> {
        let body = Body::decode(bytes.get(TIME_BYTES..)?).ok()?;
        Some(Record {
            target: body.target?,
            operation: body.operation,
            body: body.body,
            origin: body.client_mid.map_or(Origin::Publisher, |mid| Origin::Client { mid }),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_room_stays_in_its_partition_for_ever() {
        // Figures of the first version: a change here orphans the order of every existing bus.
        let rooms = ["live://1000", "live://1001", "live://1002", "chat://a", "chat://b"];
        assert_eq!(rooms.map(|room| room_partition(room, 4)), [3, 2, 2, 1, 1]);
        assert_eq!(rooms.map(|room| room_partition(room, 1)), [0; 5]);
    }

    #[test]
    fn a_record_survives_its_stored_form() {
        let body = Bytes::from_static(b"{}");
        let room = RoomId::parse("live://1").expect("a valid room");
        for record in [
            Record::room(&room, 1000, body.clone(), Origin::Client { mid: -7 }),
            Record::room(&room, 1000, Bytes::new(), Origin::Publisher),
            Record::keys(vec!["a".into(), "b".into()], 1001, body.clone()),
            Record::mids(vec![1, -2], i32::MAX, body.clone()),
            Record::all(0, 5, body),
        ] {
            let bytes = stored::encode(&record, 9);
            assert_eq!(stored::appended_ms(&bytes), Some(9));
            assert_eq!(stored::decode(&bytes), Some(record));
        }
    }
}
