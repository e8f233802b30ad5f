//! The probe's verbs against the tiny server, on both transports.
#![allow(clippy::unwrap_used)] // In a test, a panic is the report.

mod tiny_goim;

use std::net::{IpAddr, Ipv4Addr};
use std::time::Duration;

use perf_tests::probe::publisher::Publisher;
use perf_tests::probe::{AuthRequest, Closed, ConnectOptions, Event, Probe, ProbeError, TcpProbe, Transport, WsProbe};
use perf_tests::websocket::ResponseError;
use tiny_goim::{Act, TinyGoim, UNWELCOME_MID};

const SOON: Duration = Duration::from_secs(5);
const SOURCE: IpAddr = IpAddr::V4(Ipv4Addr::new(127, 0, 0, 77));

fn verbs<T: Transport>(server: &TinyGoim, mut probe: Probe<T>) {
    assert_eq!(probe.local_address().ip(), SOURCE);
    probe.auth(&AuthRequest::goim(1, "live://1000")).unwrap();
    assert_eq!(probe.heartbeat().unwrap(), 7);
    probe.change_room("live://2000").unwrap();
    probe.subscribe(&[1000, 1001]).unwrap();
    probe.unsubscribe(&[1001]).unwrap();

    // The push came before the reply; it is kept.
    probe.send_message(b"hello").unwrap();
    let push = probe.recv_push(SOON).unwrap();
    assert_eq!((push.operation, push.sequence, push.text().as_str()), (1000, 0, "hello"));
    assert!(probe.send_message(b"forbidden").unwrap_err().is_refused_with(-403));

    let publisher = Publisher::new(server.http);
    for text in ["one", "two", "three"] {
        assert!(publisher.push_room(1001, "live", "1000", text.as_bytes()).unwrap().is_accepted());
    }
    for text in ["one", "two", "three"] {
        assert_eq!(probe.recv_push(SOON).unwrap().text(), text);
    }
    assert!(matches!(probe.recv(Duration::from_millis(20)), Err(ProbeError::Timeout { .. })));
    probe.expect_no_push(Duration::from_millis(20)).unwrap();
    assert_eq!(publisher.push_room(1001, "live", "1000", b"four").unwrap().code, Some(0));
    assert!(probe.expect_no_push(SOON).is_err());

    // An operation that no server knows ends the connection.
    probe.send_packet(999, b"").unwrap();
    probe.recv_close(SOON).unwrap();
}

#[test]
fn every_verb_on_tcp() {
    let server = TinyGoim::start(|_, count| if count == 1 { Act::Torn } else { Act::Send });
    verbs(&server, TcpProbe::connect_from(server.tcp, SOURCE).unwrap());
}

#[test]
fn every_verb_on_websocket_with_batches() {
    let server = TinyGoim::start(|_, count| if count == 1 { Act::Batch } else { Act::Send });
    verbs(&server, WsProbe::connect_from(server.websocket, SOURCE).unwrap());
}

#[test]
fn a_refusal_has_its_code_and_reason() {
    let server = TinyGoim::start(|_, _| Act::Send);
    for request in [AuthRequest::goim(UNWELCOME_MID, "live://1"), AuthRequest::bilibili(UNWELCOME_MID, 1)] {
        let mut probe = TcpProbe::connect(server.tcp).unwrap();
        match probe.auth(&request).unwrap_err() {
            ProbeError::Refused { code, reason } => assert_eq!((code, reason.as_str()), (-101, "bad token")),
            other => panic!("{other}"),
        }
    }
}

#[test]
fn the_bilibili_dialect_hears_operation_5() {
    let server = TinyGoim::start(|_, _| Act::Send);
    let mut probe = WsProbe::connect(server.websocket).unwrap();
    probe.auth(&AuthRequest::bilibili(1, 1000)).unwrap();
    assert_eq!(probe.heartbeat().unwrap(), 7);
    Publisher::new(server.http).push_room(5, "live", "1000", b"{}").unwrap();
    assert_eq!(probe.recv_push(SOON).unwrap().operation, 5);
}

#[test]
fn an_upgrade_on_another_path_opens_nothing() {
    let server = TinyGoim::start(|_, _| Act::Send);
    let options = ConnectOptions { path: "/other".to_owned(), ..ConnectOptions::default() };
    let error = WsProbe::connect_with(server.websocket, &options).unwrap_err();
    assert!(matches!(error, ProbeError::Upgrade(ResponseError::Status(_))), "{error}");
}

#[test]
fn a_ping_has_its_pong_and_an_end_is_told_apart() {
    let server = TinyGoim::start(|_, _| Act::Send);
    let mut probe = WsProbe::connect(server.websocket).unwrap();
    probe.ping(b"abc").unwrap();
    assert_eq!(probe.recv(SOON).unwrap(), Event::Pong(b"abc".to_vec()));
    let mut probe = TcpProbe::connect(server.tcp).unwrap();
    probe.finish_sending().unwrap();
    assert_eq!(probe.recv(SOON).unwrap(), Event::Closed(Closed::Fin));
}
