//! Bytes that are no HTTP, and bodies that are too long, too slow, or never end.

use std::io::{Read, Write};
use std::net::{Shutdown, TcpStream};
use std::time::Duration;

use crate::edge_rig::{Client, EVERY_PATH, Rig, SOON};

const PUSH_ROOM: &str = "POST /goim/push/room?operation=1000&type=live&room=1 HTTP/1.1\r\nHost: tier\r\n";

fn connect(rig: &Rig) -> TcpStream {
    let socket = TcpStream::connect(rig.stack.addresses().http).unwrap();
    socket.set_read_timeout(Some(SOON)).unwrap();
    socket
}

/// Sends `request`, and reads to the end of the connection or of one answer with a length.
fn answer_to(rig: &Rig, request: &[u8]) -> String {
    let mut socket = connect(rig);
    // The tier may refuse before it has all of it.
    let _refused = socket.write_all(request);
    read_answer(&mut socket)
}

fn read_answer(socket: &mut TcpStream) -> String {
    let mut answer = Vec::new();
    let mut buffer = [0; 4096];
    loop {
        match socket.read(&mut buffer) {
            Ok(0) => break,
            Ok(count) => answer.extend_from_slice(&buffer[..count]),
            Err(error) if error.kind() == std::io::ErrorKind::ConnectionReset && !answer.is_empty() => break,
            Err(error) => panic!("{error} after {:?}", String::from_utf8_lossy(&answer)),
        }
        if is_whole(&answer) {
            break;
        }
    }
    String::from_utf8_lossy(&answer).into_owned()
}

fn is_whole(answer: &[u8]) -> bool {
    let text = String::from_utf8_lossy(answer).to_ascii_lowercase();
    let Some((head, body)) = text.split_once("\r\n\r\n") else { return false };
    let length = head.split("content-length: ").nth(1).and_then(|rest| rest.lines().next()?.trim().parse().ok());
    length.is_some_and(|length: usize| body.len() >= length)
}

fn status_of(answer: &str) -> &str {
    answer.split(' ').nth(1).unwrap_or_default()
}

#[test]
fn what_is_no_http_is_answered_with_400_or_just_closed() {
    let rig = Rig::start("", "");
    let mut listener = Client::in_room(&rig.stack, EVERY_PATH[0], 1);
    let length = |value: &str| format!("{PUSH_ROOM}Content-Length: {value}\r\n\r\nhello").into_bytes();
    let rows: [(&str, Vec<u8>, &[&str]); 11] = [
        ("TLS", b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03".to_vec(), &["400"]),
        ("a goim packet", crate::edge_rig::packet(1, 7, 1, b"{}"), &["400"]),
        ("words", b"hello\r\n\r\n".to_vec(), &["400"]),
        ("a bad version", b"POST /goim/push/all HTTP/9.9\r\n\r\n".to_vec(), &["400"]),
        ("a NUL in a header", format!("{PUSH_ROOM}X: a\0b\r\n\r\n").into_bytes(), &["400"]),
        ("a length that is none", length("five"), &["400"]),
        ("a negative length", length("-5"), &["400"]),
        ("two lengths", length("5\r\nContent-Length: 6"), &["400"]),
        ("a length above 64 bits", length("99999999999999999999999"), &["400"]),
        ("a bad chunk", format!("{PUSH_ROOM}Transfer-Encoding: chunked\r\n\r\nzz\r\n").into_bytes(), &["400", "408"]),
        ("a head of 2 MB", format!("{PUSH_ROOM}X: {}\r\n\r\n", "x".repeat(2_000_000)).into_bytes(), &["431"]),
    ];
    for (name, request, statuses) in rows {
        let answer = answer_to(&rig, &request);
        assert!(statuses.contains(&status_of(&answer)), "{name}: {answer:?}");
        rig.push("1", name);
        assert_eq!(listener.hears(), name, "the push after it arrives, the bad one never");
    }
}

#[test]
fn a_message_over_the_limit_is_answered_with_413_and_one_at_the_limit_is_taken() {
    const LIMIT: usize = 10_000;
    let rig = Rig::start("", &format!("http.max_body_bytes = {LIMIT}"));
    let mut listener = Client::in_room(&rig.stack, EVERY_PATH[0], 1);
    let with_length =
        |length: usize, body: &[u8]| [format!("{PUSH_ROOM}Content-Length: {length}\r\n\r\n").as_bytes(), body].concat();
    let chunk = [format!("{:x}\r\n", LIMIT / 2).as_bytes(), &[b'x'; LIMIT / 2], b"\r\n"].concat();
    let chunked =
        [format!("{PUSH_ROOM}Transfer-Encoding: chunked\r\n\r\n").as_bytes(), &chunk.repeat(3), b"0\r\n\r\n"].concat();
    let rows = [
        ("far more announced than sent", with_length(usize::MAX >> 1, &[b'x'; 2 << 20])),
        ("one byte too many", with_length(LIMIT + 1, &[b'x'; LIMIT + 1])),
        ("twice the limit", with_length(2 * LIMIT, &[b'x'; 2 * LIMIT])),
        ("in chunks", chunked),
    ];
    for (number, (name, request)) in rows.into_iter().enumerate() {
        let answer = answer_to(&rig, &request);
        assert_eq!(status_of(&answer), "413", "{name}: {answer}");
        assert!(answer.contains("\"code\":-400") && answer.contains("more than 10000 bytes"), "{name}: {answer}");
        let counted = rig.tier_metric("logic_requests_refused_total{reason=\"too_large\"}");
        assert_eq!(counted, number as u64 + 1, "{name}");
        let answer = rig.publisher.push_room(1000, "live", "1", &[b'y'; LIMIT]).unwrap();
        assert!(answer.is_accepted(), "{answer:?}");
        assert_eq!(listener.push().body, [b'y'; LIMIT]);
    }
    // An ordinary client, which sends all of it before it listens.
    let answer = rig.publisher.push_room(1000, "live", "1", &[b'x'; 50 * LIMIT]).unwrap();
    assert_eq!((answer.status, answer.code), (413, Some(-400)));
}

#[test]
fn a_request_that_does_not_end_in_time_is_cut_off() {
    let rig = Rig::start("", "http.request_timeout_ms = 500");
    let mut listener = Client::in_room(&rig.stack, EVERY_PATH[0], 1);
    let slow = |sent: &str| {
        let mut socket = connect(&rig);
        socket.write_all(sent.as_bytes()).unwrap();
        socket
    };
    let body = format!("{PUSH_ROOM}Content-Length: 1000\r\n\r\n");
    // Half a body, and then nothing; and a byte now and then, which buys no time.
    let mut half = slow(&format!("{body}half"));
    let answer = read_answer(&mut half);
    assert!(status_of(&answer) == "408" && answer.contains("\"code\":-400"), "{answer}");
    let mut dripping = slow(&body);
    dripping.set_read_timeout(Some(Duration::from_millis(50))).unwrap();
    let mut drops = 0;
    let answer = loop {
        // Once the tier has closed, writing fails and the answer is there to be read.
        let _closed = dripping.write_all(b"x");
        let mut buffer = [0; 4096];
        match dripping.read(&mut buffer) {
            Ok(count) => break String::from_utf8_lossy(&buffer[..count]).into_owned(),
            Err(_not_yet) => drops += 1,
        }
        assert!(drops < 600, "the tier put up with {drops} drops");
    };
    assert_eq!(status_of(&answer), "408", "{answer}");
    // A body whose sender ends in the middle of it.
    let mut cut = slow(&format!("{body}half"));
    cut.shutdown(Shutdown::Write).unwrap();
    let mut rest = Vec::new();
    let _reset_or_end = cut.read_to_end(&mut rest);
    // A head that never ends, and a connection on which nothing is ever said.
    for sent in ["", "POST /goim/push/room?op"] {
        let mut socket = slow(sent);
        let mut answer = String::new();
        socket.read_to_string(&mut answer).unwrap();
        assert!(answer.is_empty() || status_of(&answer) == "408", "{sent:?}: {answer}");
    }
    assert_eq!(rig.tier_metric("logic_requests_refused_total{reason=\"incomplete\"}"), 3);
    rig.push("1", "after");
    assert_eq!(listener.hears(), "after", "nothing of the unfinished ones");
}

#[test]
fn many_who_never_finish_do_not_keep_a_good_publisher_out() {
    let rig = Rig::start("", "http.max_connections = 50\nhttp.request_timeout_ms = 500");
    let mut listener = Client::in_room(&rig.stack, EVERY_PATH[0], 1);
    let held: Vec<TcpStream> = (0..200)
        .map(|number| {
            let mut socket = connect(&rig);
            // Ended by the tier while it was written: as good as sent.
            let _ended = socket.write_all(if number % 2 == 0 { b"POST /goim" } else { PUSH_ROOM.as_bytes() });
            socket
        })
        .collect();
    rig.push("1", "in spite of them");
    assert_eq!(listener.hears(), "in spite of them");
    drop(held);
}
