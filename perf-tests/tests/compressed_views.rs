//! Bilibili's body formats: clients that take zlib or brotli hear the same, shorter, and in the same order.
#![allow(clippy::unwrap_used)] // In a test, a panic is the report.

use std::io::Read;
use std::time::Duration;

use perf_tests::probe::daemons::{Stack, StackOptions};
use perf_tests::probe::{AuthRequest, Packet, Probe, ProbeError, Transport};
use wire::goim::Packets;

const PATIENCE: Duration = Duration::from_secs(20);
const PUSHES: usize = 120;

/// What a Bilibili client does with a packet: takes the batches in it apart.
fn unpack(packet: &Packet) -> Vec<Vec<u8>> {
    let mut plain = Vec::new();
    match packet.version {
        0 => return vec![packet.body.clone()],
        2 => flate2::read::ZlibDecoder::new(&*packet.body).read_to_end(&mut plain).unwrap(),
        3 => brotli::Decompressor::new(&*packet.body, 4096).read_to_end(&mut plain).unwrap(),
        other => panic!("version {other}"),
    };
    let packets = Packets::new(&plain, usize::MAX).map(Result::unwrap);
    packets
        .inspect(|inner| assert_eq!((inner.header.operation, inner.header.version), (5, 0)))
        .map(|inner| inner.body.to_vec())
        .collect()
}

/// Hears all pushes; gives the versions that packets came in, and their bytes on the wire.
fn hear<T: Transport>(client: &mut Probe<T>, name: &str) -> (Vec<i16>, usize) {
    let (mut heard, mut versions, mut bytes) = (Vec::new(), Vec::new(), 0);
    while heard.len() < PUSHES {
        let packet = client.recv_push(PATIENCE).unwrap();
        assert_eq!(packet.operation, 5, "{name}");
        versions.push(packet.version);
        bytes += 16 + packet.body.len();
        heard.extend(unpack(&packet));
    }
    let expected: Vec<Vec<u8>> = (0..PUSHES).map(message).collect();
    assert_eq!(heard, expected, "{name}");
    (versions, bytes)
}

fn message(number: usize) -> Vec<u8> {
    format!(r#"{{"cmd":"DANMU_MSG","user":"viewer","text":"hello, everybody in the room","n":{number}}}"#).into_bytes()
}

fn bilibili(protover: u8) -> AuthRequest {
    AuthRequest { protover, ..AuthRequest::bilibili(0, 7) }
}

fn metric(stack: &Stack, name: &str) -> u64 {
    let mut body = ureq::get(format!("http://{}/metrics", stack.addresses().admin)).call().unwrap().into_body();
    let text = body.read_to_string().unwrap();
    let line = text.lines().find(|line| line.split([' ', '{']).next() == Some(name));
    line.and_then(|line| line.rsplit(' ').next()).unwrap().parse().unwrap()
}

#[test]
fn each_client_gets_the_format_that_it_takes() -> Result<(), ProbeError> {
    // The tier merges, so that there are batches worth compressing.
    let logic_tier_toml = "job.merge_ms = 200\n".to_owned();
    let stack = Stack::start_with(&StackOptions { logic_tier_toml, ..StackOptions::default() }).unwrap();
    let mut tcp: Vec<_> =
        [0, 2, 3].into_iter().map(|v| stack.join_tcp(&bilibili(v)).map(|c| (v, c))).collect::<Result<_, _>>()?;
    let mut web: Vec<_> =
        [0, 2, 3].into_iter().map(|v| stack.join_ws(&bilibili(v)).map(|c| (v, c))).collect::<Result<_, _>>()?;
    let mut goim = stack.join_tcp(&AuthRequest::goim(1, "live://7"))?;
    let publisher = stack.publisher();
    for number in 0..PUSHES {
        assert!(publisher.push_room(1000, "live", "7", &message(number)).unwrap().is_accepted());
    }
    let mut plain_bytes = 0;
    let heard = tcp.iter_mut().map(|(v, client)| (*v, hear(client, "TCP"))).collect::<Vec<_>>();
    let heard_on_web = web.iter_mut().map(|(v, client)| (*v, hear(client, "WebSocket"))).collect::<Vec<_>>();
    for (protover, (versions, bytes)) in heard.into_iter().chain(heard_on_web) {
        if protover == 0 {
            assert!(versions.iter().all(|version| *version == 0));
            plain_bytes = bytes;
        } else {
            // A batch that is too short to pay comes plain, which every client takes.
            assert!(
                versions.iter().all(|version| [0, i16::from(protover)].contains(version)),
                "{protover}: {versions:?}"
            );
            assert!(versions.contains(&i16::from(protover)), "{protover}: {versions:?}");
            assert!(bytes * 2 < plain_bytes, "{protover}: {bytes} of {plain_bytes}");
        }
    }
    for number in 0..PUSHES {
        assert_eq!(goim.recv_push(PATIENCE)?.body, message(number), "goim's clients get what was published");
    }
    let (before, after) =
        (metric(&stack, "push_compress_plain_bytes_total"), metric(&stack, "push_compress_bytes_total"));
    assert!(after > 0 && after * 2 < before, "{after} of {before}");
    Ok(())
}

#[test]
fn nothing_is_compressed_for_nobody() -> Result<(), ProbeError> {
    let stack = Stack::start().unwrap();
    let mut plain = stack.join_tcp(&bilibili(0))?;
    let long = vec![b'x'; 4_000];
    assert!(stack.publisher().push_room(1000, "live", "7", &long).unwrap().is_accepted());
    assert_eq!(plain.recv_push(PATIENCE)?.body, long);
    assert_eq!(metric(&stack, "push_compressed_batches_total"), 0);
    Ok(())
}
