//! What clients say: a message goes upstream, is answered, and comes back through the bus to the whole room.

use wire::goim::op;

use crate::edge_rig::{Client, EVERY_PATH, PUSH, Path, Rig};

#[test]
fn a_message_is_answered_and_comes_back_to_the_whole_room_its_sender_included() {
    let rig = Rig::start("", "");
    let mut members: Vec<(Path, Client)> =
        EVERY_PATH.into_iter().map(|path| (path, Client::in_room(&rig.stack, path, 1))).collect();
    let mut elsewhere = Client::in_room(&rig.stack, EVERY_PATH[0], 2);
    for sender in 0..members.len() {
        let (path, client) = &mut members[sender];
        let text = format!("said in {path}");
        // The verb waits for operation 5 with the sequence of its request.
        let reply = client.send_message(text.as_bytes()).unwrap();
        if path.is_bilibili() {
            let body: serde_json::Value = serde_json::from_slice(&reply.body).unwrap();
            assert_eq!(
                (reply.version, &body["code"]),
                (0, &0.into()),
                "a Bilibili client reads every 5 as JSON: {body}"
            );
            assert!(body["cmd"].is_string(), "{body}");
        } else {
            assert_eq!((reply.version, reply.body.len()), (1, 0), "{path}");
        }
        for (path, member) in &mut members {
            let push = member.push();
            assert_eq!((push.operation, push.version), path.heard_as(PUSH), "{path}");
            assert_eq!((push.sequence, push.text()), (0, text.clone()), "{path}");
        }
    }
    rig.push("2", "marker");
    assert_eq!(elsewhere.hears(), "marker");
    assert_eq!(rig.edge_metric("push_messages_accepted_total"), 4);
    assert_eq!(rig.tier_metric("logic_chats_total{outcome=\"ok\"}"), 4);
}

#[test]
fn a_message_from_no_room_is_refused_and_reaches_nobody() {
    let rig = Rig::start("", "");
    for path in EVERY_PATH {
        let mut client = Client::in_room(&rig.stack, path, 1);
        client.change_room("").unwrap();
        let refusal = client.send_message(b"hello?").unwrap_err();
        assert!(refusal.is_refused_with(-400), "{path}: {refusal}");
        client.change_room("live://1").unwrap();
        client.send_message(b"hello").unwrap();
        assert_eq!(client.hears(), "hello", "{path}");
    }
}

#[test]
fn a_message_over_the_tiers_limit_is_refused_by_the_tier_and_counted() {
    let rig = Rig::start("", "chat.max_body_bytes = 100");
    for path in EVERY_PATH {
        let mut client = Client::in_room(&rig.stack, path, 1);
        let refusal = client.send_message(&[b'x'; 101]).unwrap_err();
        assert!(refusal.is_refused_with(-400), "{path}: {refusal}");
        client.send_message(&[b'x'; 100]).unwrap();
        assert_eq!(client.push().body.len(), 100, "{path}");
    }
    assert_eq!(rig.edge_metric("push_messages_refused_total"), 4);
    assert_eq!(rig.tier_metric("logic_chats_total{outcome=\"too_large\"}"), 4);
}

#[test]
fn messages_of_one_client_keep_their_order_and_their_sequences() {
    const MESSAGES: i32 = 200;
    let rig = Rig::start("", "");
    for path in EVERY_PATH {
        let mut client = Client::in_room(&rig.stack, path, 1);
        for number in 0..MESSAGES {
            let message = crate::edge_rig::packet(1, op::SEND_MESSAGE, 1000 + number, number.to_string().as_bytes());
            assert!(client.send_in_message(&message));
        }
        let (mut replies, mut heard) = (Vec::new(), Vec::new());
        while replies.len() + heard.len() < 2 * MESSAGES as usize {
            for packet in client.next_packets() {
                match packet.sequence {
                    0 => heard.push(packet.text().parse::<i32>().unwrap()),
                    sequence => replies.push(sequence),
                }
            }
        }
        assert_eq!(replies, (1000..1000 + MESSAGES).collect::<Vec<_>>(), "{path}");
        assert_eq!(heard, (0..MESSAGES).collect::<Vec<_>>(), "{path}");
    }
}
