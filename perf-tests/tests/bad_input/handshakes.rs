//! HTTP requests on the WebSocket port that open nothing: each gets its status, and then the end.

use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::net::TcpStream;

use perf_tests::websocket;

use crate::edge_rig::{Rig, SOON};
use crate::rows::Witnesses;

/// Sends `request` and gives the status of the answer, having read it to the end of the connection.
pub(crate) fn status_of(rig: &Rig, request: &[u8]) -> String {
    let mut socket = TcpStream::connect(rig.stack.addresses().websocket).unwrap();
    socket.set_read_timeout(Some(SOON)).unwrap();
    socket.write_all(request).unwrap();
    let mut answer = Vec::new();
    socket.read_to_end(&mut answer).unwrap();
    let answer = String::from_utf8_lossy(&answer).into_owned();
    let (head, body) = answer.split_once("\r\n\r\n").unwrap_or_else(|| panic!("no HTTP answer: {answer:?}"));
    let head = head.to_ascii_lowercase();
    assert!(head.contains("connection: ") && head.contains("close"), "{head}");
    assert!(head.contains(&format!("content-length: {}", body.len())), "{head} for {body:?}");
    answer.split(' ').nth(1).unwrap_or_default().to_owned()
}

#[test]
fn a_request_that_opens_nothing_is_answered_with_its_status_and_closed() {
    let rig = Rig::start("", "");
    let mut witnesses = Witnesses::join(&rig);
    let good = |extra: &str| websocket::request("edge", "/sub", &websocket::key([7; 16]), extra);
    let changed = |from: &str, to: &str| {
        let request = good("");
        assert!(request.contains(from), "{from}");
        request.replace(from, to).into_bytes()
    };
    let bad = "bad_handshake";
    let rows: [(&str, Vec<u8>, &str, &str); 23] = [
        ("another path", changed("/sub", "/"), "404", "unknown_path"),
        ("a longer path", changed("/sub", "/sub/x"), "404", "unknown_path"),
        ("a path in capitals", changed("/sub", "/SUB"), "404", "unknown_path"),
        ("TLS", b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n".to_vec(), "400", bad),
        ("a goim packet", crate::rows::request(7, b"{}"), "400", bad),
        ("no words", b"hello\r\n\r\n".to_vec(), "400", bad),
        ("HTTP/1.0", changed("HTTP/1.1", "HTTP/1.0"), "400", bad),
        ("HTTP/2", b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_vec(), "400", bad),
        ("no host", changed("Host: edge\r\n", ""), "400", bad),
        ("two hosts", good("Host: other\r\n").into_bytes(), "400", bad),
        ("no key", changed("Sec-WebSocket-Key", "X-Key"), "400", bad),
        ("a short key", changed(&websocket::key([7; 16]), "c2hvcnQ="), "400", bad),
        ("two keys", good("Sec-WebSocket-Key: c2hvcnQ=\r\n").into_bytes(), "400", bad),
        ("a NUL in a header", good("X-Nul: a\0b\r\n").into_bytes(), "400", bad),
        ("POST", changed("GET", "POST"), "405", bad),
        ("CONNECT", changed("GET", "CONNECT"), "405", bad),
        ("no upgrade", changed("Upgrade: websocket", "Upgrade: h2c"), "426", bad),
        ("a browser's visit", b"GET /sub HTTP/1.1\r\nHost: edge\r\n\r\n".to_vec(), "426", bad),
        ("version 8", changed("Version: 13", "Version: 8"), "426", bad),
        ("no version", changed("Sec-WebSocket-Version", "X-Version"), "426", bad),
        ("a cookie of 9000 bytes", good(&format!("Cookie: a={}\r\n", "x".repeat(9_000))).into_bytes(), "431", bad),
        ("headers without an end", [good("").trim_end().as_bytes(), &[b'x'; 20_000]].concat(), "431", bad),
        ("a hundred headers", good(&"X-One-More: x\r\n".repeat(100)).into_bytes(), "431", bad),
    ];
    let mut expected = BTreeMap::<&str, u64>::new();
    for (name, request, status, reason) in rows {
        assert_eq!(status_of(&rig, &request), status, "{name}");
        *expected.entry(reason).or_default() += 1;
        assert_eq!(rig.closed(reason), expected[reason], "{name}");
        witnesses.testify(&rig, name);
    }
    assert_eq!(rig.stats()["closed_by_reason"], serde_json::to_value(expected).unwrap());
}

#[test]
fn a_head_just_below_the_limit_opens_a_websocket() {
    let rig = Rig::start("", "");
    let options = perf_tests::probe::ConnectOptions {
        extra_headers: format!("Cookie: a={}\r\n", "x".repeat(7_900)),
        path: "/sub?room=1&token=x".to_owned(),
        ..Default::default()
    };
    let path = crate::edge_rig::EVERY_PATH[1];
    let mut client = crate::edge_rig::Client::connect_with(&rig.stack, path.over, &options);
    client.auth(&path.request(0, 1)).unwrap();
}
