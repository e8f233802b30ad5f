//! What clients say in goim's protocol: packets, auth bodies, names of rooms, lists of operations, keys.

use wire::auth::{AuthBody, MAX_ACCEPTS, MAX_KEY_BYTES};
use wire::goim::{HEADER_BYTES, MAX_BODY_BYTES, Packets, parse, parse_operations};
use wire::key::{KEY_CHARS, KeySecret, Place};
use wire::room::{MAX_ROOM_BYTES, RoomId};
use wire::trunk::Dialect;

/// The bytes are a stream of packets.
pub fn goim_packet(data: &[u8]) {
    let mut walk = Packets::new(data, MAX_BODY_BYTES);
    let mut taken = 0;
    let mut failed = false;
    for packet in walk.by_ref() {
        let Ok(packet) = packet else {
            failed = true;
            continue;
        };
        assert!(!failed, "a packet came after an error");
        let mut again = Vec::new();
        packet.header.put_packet(packet.body, &mut again);
        assert_eq!(again, data[taken..taken + packet.wire_bytes()], "a packet is written in one way only");
        taken += packet.wire_bytes();
    }
    if failed {
        assert!(walk.rest().is_empty(), "nothing after an error is trusted");
    } else {
        assert_eq!(walk.rest(), &data[taken..]);
        assert!(walk.rest().len() < HEADER_BYTES + MAX_BODY_BYTES, "an incomplete packet is within the limit");
    }

    // Whatever a part of the bytes came to is what the whole comes to.
    let whole = parse(data, MAX_BODY_BYTES);
    for length in 0..data.len().min(HEADER_BYTES + 2) {
        match parse(&data[..length], MAX_BODY_BYTES) {
            Ok(None) => {}
            decided => assert_eq!(decided, whole, "{length} bytes decided otherwise"),
        }
    }
    if let Ok(Some(packet)) = whole {
        assert_eq!(parse(&data[..packet.wire_bytes() - 1], MAX_BODY_BYTES), Ok(None));
    }
}

/// The bytes are the body of an auth packet.
pub fn auth_body(data: &[u8]) {
    let Ok(body) = AuthBody::parse(data, "live") else { return };
    assert!(body.accepts.len() <= MAX_ACCEPTS);
    assert!(body.key.len() <= MAX_KEY_BYTES);
    if let Some(room) = &body.room {
        assert_eq!(RoomId::parse(room.as_str()).as_ref(), Ok(room));
        assert_eq!(RoomId::new(room.kind(), room.id()).as_ref(), Ok(room));
    }
    let again = match body.dialect {
        Dialect::Goim => serde_json::json!({
            "mid": body.mid,
            "key": body.key,
            "room_id": body.room.as_ref().map(RoomId::as_str),
            "platform": body.platform,
            "accepts": body.accepts,
            "token": body.token,
        }),
        Dialect::Bilibili => serde_json::json!({
            "uid": body.mid,
            "roomid": body.room.as_ref().map(RoomId::id),
            "platform": body.platform,
            "key": body.token,
            "protover": body.protover,
        }),
    };
    let again = AuthBody::parse(again.to_string().as_bytes(), "live").expect("what was read can be written");
    assert_eq!(again, body);
}

/// The bytes are the body of a packet that changes the room.
pub fn room(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    let Ok(room) = RoomId::parse(text) else {
        // No two parts make what is no name as a whole.
        for (at, separator) in text.match_indices("://") {
            assert!(RoomId::new(&text[..at], &text[at + separator.len()..]).is_err(), "{text:?}, cut at {at}");
        }
        return;
    };
    assert_eq!(room.as_str(), text);
    assert!(text.len() <= MAX_ROOM_BYTES && !text.contains(char::is_control));
    assert!(!room.kind().is_empty() && !room.id().is_empty() && !room.kind().contains("://"));
    assert_eq!(RoomId::new(room.kind(), room.id()), Ok(room));
}

/// The bytes are the body of a subscribe packet.
pub fn operations(data: &[u8]) {
    const MAX: usize = 64;
    let Some(list) = parse_operations(data, MAX) else { return };
    assert!(list.len() <= MAX);
    let text = list.iter().map(i32::to_string).collect::<Vec<_>>().join(",");
    assert_eq!(parse_operations(text.as_bytes(), MAX).as_ref(), Some(&list));
    assert_eq!(parse_operations(data, list.len()).as_ref(), Some(&list));
    if let Some(fewer) = list.len().checked_sub(1) {
        assert_eq!(parse_operations(data, fewer), None, "the limit holds");
    }
}

/// The bytes are a secret (16), and then a key as text, or a place.
pub fn key(data: &[u8]) {
    let Some((secret, rest)) = data.split_first_chunk::<16>() else { return };
    let secret = KeySecret::new(u128::from_be_bytes(*secret));
    if let Ok(text) = std::str::from_utf8(rest)
        && let Some(place) = Place::from_key(text, &secret)
    {
        assert_eq!(place.to_key(&secret), text, "a key has one text");
    }

    let Some((place, rest)) = rest.split_first_chunk::<12>() else { return };
    let [node, shard, slot, generation] = [&place[0..2], &place[2..4], &place[4..8], &place[8..12]]
        .map(|bytes| bytes.iter().fold(0, |number: u32, byte| number << 8 | u32::from(*byte)));
    let place = Place { node: node as u16, shard: shard as u16, slot, generation };
    let text = place.to_key(&secret);
    assert_eq!(text.len(), KEY_CHARS);
    assert_eq!(Place::from_key(&text, &secret), Some(place));
    if let [at, digit, ..] = *rest {
        let at = usize::from(at) % KEY_CHARS;
        let mut altered = text.clone().into_bytes();
        altered[at] = digit & 0x7f;
        let altered = String::from_utf8(altered).expect("both are ASCII");
        assert_eq!(Place::from_key(&altered, &secret).is_some(), altered == text, "an altered key names nothing");
    }
}
