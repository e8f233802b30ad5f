//! Room counts as frames.

use std::sync::Arc;

use bytes::Bytes;
use wire::trunk::{self, RoomCount, RoomCounts, TierFrame, tier_frame};

/// Rooms of one frame: with names as long as they may be it stays below half of what a frame may hold.
const ROOMS: usize = 10_000;

const _: () = assert!(ROOMS * (wire::room::MAX_ROOM_BYTES + 16) < trunk::MAX_FRAME_BYTES / 2);

/// `counts` in as many frames as they need.
pub(super) fn frames(mut counts: Vec<RoomCount>) -> Arc<[Bytes]> {
    let mut frames = Vec::with_capacity(counts.len().div_ceil(ROOMS));
    while !counts.is_empty() {
        let rooms = counts.split_off(counts.len().saturating_sub(ROOMS));
        let body = tier_frame::Body::Counts(RoomCounts { rooms });
        frames.push(trunk::encode(&TierFrame { body: Some(body) }));
    }
    frames.into()
}

#[cfg(test)]
mod tests {
    use super::*;
    use bytes::BytesMut;

    #[test]
    fn no_count_is_left_out_however_many_there_are() {
        let counts = (0..2 * ROOMS + 1).map(|n| RoomCount { room: format!("live://{n}"), online: n as u32 });
        let mut seen = 0;
        for frame in &*frames(counts.collect()) {
            let frame: TierFrame = trunk::decode(&mut BytesMut::from(&frame[..])).unwrap().unwrap();
            let Some(tier_frame::Body::Counts(counts)) = frame.body else { panic!("not counts: {frame:?}") };
            assert!(counts.rooms.len() <= ROOMS);
            seen += counts.rooms.len();
        }
        assert_eq!(seen, 2 * ROOMS + 1);
    }
}
