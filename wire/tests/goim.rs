//! Packets survive any cut of the stream, and the small formats any value.

use proptest::collection::vec;
use proptest::prelude::*;
use wire::auth::{AuthBody, AuthBodyError, MAX_ACCEPTS, MAX_KEY_BYTES};
use wire::goim::{HEADER_BYTES, Header, MAX_BODY_BYTES, PacketError, Packets, parse, parse_operations};
use wire::key::{KEY_CHARS, KeySecret, Place};
use wire::room::{MAX_ROOM_BYTES, RoomError, RoomId};
use wire::trunk::Dialect;

fn header() -> impl Strategy<Value = Header> {
    (any::<i16>(), any::<i32>(), any::<i32>()).prop_map(|(version, operation, sequence)| Header {
        version,
        operation,
        sequence,
    })
}

fn place() -> impl Strategy<Value = Place> {
    any::<(u16, u16, u32, u32)>().prop_map(|(node, shard, slot, generation)| Place { node, shard, slot, generation })
}

/// One or more characters that a room's name may hold, `:` and `/` often among them.
const NAME: &str = "[a-z0-9:/\u{5f39}]{1,12}";

proptest! {
    /// Whatever pieces a stream of packets comes in, the same packets come out.
    #[test]
    fn a_stream_of_packets_survives_any_cut(
        packets in vec((header(), vec(any::<u8>(), 0..80)), 0..8),
        pieces in vec(1_usize..50, 1..40),
    ) {
        let mut stream = Vec::new();
        for (header, body) in &packets {
            header.put_packet(body, &mut stream);
        }

        let (mut held, mut read, mut sent) = (Vec::new(), Vec::new(), 0);
        for piece in pieces.iter().cycle() {
            let end = (sent + piece).min(stream.len());
            held.extend_from_slice(&stream[sent..end]);
            sent = end;
            let mut walk = Packets::new(&held, MAX_BODY_BYTES);
            for packet in walk.by_ref() {
                let packet = packet.unwrap();
                read.push((packet.header, packet.body.to_vec()));
            }
            held = walk.rest().to_vec();
            if sent == stream.len() {
                break;
            }
        }
        prop_assert!(held.is_empty());
        prop_assert_eq!(read, packets);
    }

    /// The limit is a limit: a body of that length passes, one byte more does not, before any of it has come.
    #[test]
    fn the_limit_of_a_body_holds(header in header(), body_bytes in 0_usize..5000, limit in 0_usize..5000) {
        let head = header.encode(body_bytes);
        let result = parse(&head, limit);
        if body_bytes > limit {
            prop_assert_eq!(result, Err(PacketError::BodyTooLarge { body_bytes, limit_bytes: limit }));
        } else if body_bytes == 0 {
            prop_assert_eq!(result.unwrap().unwrap().wire_bytes(), HEADER_BYTES);
        } else {
            prop_assert_eq!(result, Ok(None));
        }
    }

    #[test]
    fn a_list_of_operations_is_read_as_written(list in vec(any::<i32>(), 0..20), max in 0_usize..20) {
        let text = list.iter().map(i32::to_string).collect::<Vec<_>>().join(",");
        prop_assert_eq!(parse_operations(text.as_bytes(), max), (list.len() <= max).then_some(list));
    }

    #[test]
    fn a_goim_auth_body_is_read_as_written(
        mid in any::<i64>(),
        key in ".{0,32}",
        room in proptest::option::of((NAME, NAME)),
        platform in any::<String>(),
        accepts in vec(any::<i32>(), 0..=MAX_ACCEPTS),
        token in any::<String>(),
    ) {
        let room = room.and_then(|(kind, id)| RoomId::new(&kind, &id).ok());
        let body = serde_json::json!({
            "mid": mid, "key": key, "room_id": room.as_ref().map(RoomId::as_str), "platform": platform,
            "accepts": accepts, "token": token, "a field of tomorrow": [{}],
        });
        let read = AuthBody::parse(body.to_string().as_bytes(), "live").unwrap();
        prop_assert_eq!(read, AuthBody { dialect: Dialect::Goim, mid, key, room, platform, accepts, token, protover: 0 });
    }

    #[test]
    fn a_bilibili_auth_body_is_read_as_written(
        mid in any::<i64>(),
        number in any::<u64>(),
        as_text in any::<bool>(),
        platform in any::<String>(),
        token in any::<String>(),
        protover in any::<u8>(),
    ) {
        let room = if as_text { serde_json::json!(number.to_string()) } else { serde_json::json!(number) };
        let body = serde_json::json!({
            "uid": mid, "roomid": room, "protover": protover, "platform": platform, "type": 2, "key": token,
        });
        let read = AuthBody::parse(body.to_string().as_bytes(), "live").unwrap();
        prop_assert_eq!(read.dialect, Dialect::Bilibili);
        prop_assert_eq!(read.room, RoomId::new("live", &number.to_string()).ok());
        prop_assert_eq!((read.mid, read.platform, read.token, read.protover), (mid, platform, token, protover));
        prop_assert_eq!(read.key, "");
    }

    /// What a session keeps is bounded, whoever asks.
    #[test]
    fn too_much_in_an_auth_body_is_refused(accepts in 0_usize..200, key_bytes in 0_usize..300) {
        let body = serde_json::json!({ "mid": 1, "accepts": vec![1; accepts], "key": "k".repeat(key_bytes) });
        match AuthBody::parse(body.to_string().as_bytes(), "live") {
            Ok(_) => prop_assert!(accepts <= MAX_ACCEPTS && key_bytes <= MAX_KEY_BYTES),
            Err(AuthBodyError::TooManyAccepts(count)) => prop_assert!(count == accepts && count > MAX_ACCEPTS),
            Err(AuthBodyError::KeyTooLong(bytes)) => prop_assert!(bytes == key_bytes && bytes > MAX_KEY_BYTES),
            Err(error) => prop_assert!(false, "{error}"),
        }
    }

    /// Two parts make a name whose two parts they are.
    #[test]
    fn a_room_is_taken_apart_as_it_was_put_together(kind in NAME, id in NAME) {
        match RoomId::new(&kind, &id) {
            Ok(room) => {
                prop_assert_eq!((room.kind(), room.id()), (&*kind, &*id));
                prop_assert_eq!(RoomId::parse(&format!("{kind}://{id}")), Ok(room));
            }
            Err(error) => prop_assert!(error == RoomError::Form && kind.contains("://"), "{kind} {id}: {error}"),
        }
    }

    #[test]
    fn what_is_called_a_room_keeps_the_rules(text in any::<String>()) {
        if let Ok(room) = RoomId::parse(&text) {
            prop_assert!(text.len() <= MAX_ROOM_BYTES && !text.chars().any(char::is_control));
            prop_assert_eq!(format!("{}://{}", room.kind(), room.id()), text);
        }
    }

    #[test]
    fn a_key_names_its_place_to_its_own_secret_only(place in place(), secret in any::<u128>(), other in any::<u128>()) {
        let key = place.to_key(&KeySecret::new(secret));
        prop_assert_eq!(Place::from_key(&key, &KeySecret::new(secret)), Some(place));
        prop_assume!(secret != other);
        // Two secrets agree on a check once in 2^32 places; the cases here are a few hundred.
        prop_assert_eq!(Place::from_key(&key, &KeySecret::new(other)), None);
    }

    #[test]
    fn a_key_with_one_digit_altered_names_nothing(place in place(), secret in any::<u128>(), at in 0..KEY_CHARS) {
        let secret = KeySecret::new(secret);
        let key = place.to_key(&secret);
        for digit in "0123456789abcdefABCDEFg\u{0}".chars().filter(|digit| !key[at..].starts_with(*digit)) {
            let mut altered = key.clone();
            altered.replace_range(at..=at, digit.encode_utf8(&mut [0; 4]));
            prop_assert_eq!(Place::from_key(&altered, &secret), None, "{} for {}", altered, key);
        }
    }
}
