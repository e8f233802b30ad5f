//! Who comes in: what `Hello` has to say, and where the line goes on.

use std::net::IpAddr;

use wire::trunk::{EdgeFrame, Hello, NodeAddress, PROTOCOL, Position, edge_frame};

use crate::bus::Span;
use crate::config::Config;

/// Longest name of an edge, in bytes. It stands in logs and in the bus.
const MAX_EDGE_BYTES: usize = 128;

/// Texts of a [`wire::trunk::NodeAddress`] at most, and the length of each.
const MAX_ADDRESSES: usize = 16;
const MAX_ADDRESS_BYTES: usize = 256;

/// Judges the first message of a line.
///
/// # Errors
/// A reason that the edge's operator can act on.
pub(super) fn judge(frame: EdgeFrame, config: &Config) -> Result<Hello, String> {
    let secret = &config.trunk.secret;
    let Some(edge_frame::Body::Hello(hello)) = frame.body else {
        return Err("the first message of a line has to be Hello".to_owned());
    };
    if hello.protocol != PROTOCOL {
        return Err(format!(
            "this tier speaks trunk protocol {PROTOCOL}, not {}; update the older of the two",
            hello.protocol
        ));
    }
    if !secret.is_empty() && !secret.matches(hello.secret.as_bytes()) {
        return Err("the trunk secret is wrong; it has to be the same on the edge and on the tier".to_owned());
    }
    if hello.edge.is_empty() || hello.edge.len() > MAX_EDGE_BYTES || hello.edge.chars().any(char::is_control) {
        return Err(format!("the edge needs a name of 1 to {MAX_EDGE_BYTES} bytes without control characters"));
    }
    if u16::try_from(hello.node).is_err() {
        return Err(format!("node {} is above 65535, the highest that a key can hold", hello.node));
    }
    if let Some(address) = &hello.address {
        let texts = [&address.hostname, &address.region, &address.zone];
        let long = texts.into_iter().chain(&address.addresses).any(|text| text.len() > MAX_ADDRESS_BYTES);
        if long || address.addresses.len() > MAX_ADDRESSES {
            return Err(format!(
                "the edge's address has more than {MAX_ADDRESSES} addresses or a text above {MAX_ADDRESS_BYTES} bytes"
            ));
        }
        if let Some(open) = open_to_others(address).filter(|_| config.is_closed_to_others()) {
            return Err(format!(
                "admission is open, and clients on other hosts can reach this edge at {open}: set [admission] mode = \"token\" \
                 and a secret on the tier, or [admission] allow_open = true if that is meant"
            ));
        }
    }
    Ok(hello)
}

/// The first address of an edge at which clients of other hosts reach it. A name may lead anywhere.
fn open_to_others(address: &NodeAddress) -> Option<&str> {
    let is_loopback = |text: &str| text.parse::<IpAddr>().is_ok_and(|ip| ip.to_canonical().is_loopback());
    address.addresses.iter().map(String::as_str).find(|text| !is_loopback(text))
}

/// Where the line goes on, by partition: where the edge is, when it is a place in this bus; else the tail.
pub(super) fn start(hello: &Hello, bus: u64, spans: &[Span]) -> Vec<u64> {
    let mut cursors: Vec<u64> = spans.iter().map(|span| span.tail).collect();
    if hello.bus != bus {
        return cursors;
    }
    for Position { partition, offset } in &hello.positions {
        // A position behind the tail is none of this bus: a copy of it was put back. The edge goes back with it.
        if let Some(cursor) = cursors.get_mut(*partition as usize) {
            *cursor = (*offset).min(*cursor);
        }
    }
    cursors
}

/// `cursors` as the trunk says them.
pub(super) fn positions(cursors: &[u64]) -> Vec<Position> {
    cursors.iter().zip(0..).map(|(offset, partition)| Position { partition, offset: *offset }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::AdmissionMode;

    #[test]
    fn an_edge_that_the_world_reaches_needs_admission_or_the_operators_word() {
        let open = Config::default();
        let mut allowed = Config::default();
        allowed.admission.allow_open = true;
        let mut token = Config::default();
        token.admission.mode = AdmissionMode::Token;
        for (addresses, config, expected) in [
            (vec![], &open, None),
            (vec!["127.0.0.1", "::1", "::ffff:127.0.0.1"], &open, None),
            (vec!["127.0.0.1", "0.0.0.0"], &open, Some("at 0.0.0.0:")),
            (vec!["::"], &open, Some("at :::")),
            (vec!["edge-1.example"], &open, Some("at edge-1.example:")),
            (vec!["203.0.113.9"], &allowed, None),
            (vec!["203.0.113.9"], &token, None),
        ] {
            let addresses: Vec<String> = addresses.into_iter().map(str::to_owned).collect();
            let address = Some(NodeAddress { addresses: addresses.clone(), ..NodeAddress::default() });
            let hello = Hello { protocol: PROTOCOL, edge: "edge-1".to_owned(), address, ..Hello::default() };
            let judged = judge(EdgeFrame { body: Some(edge_frame::Body::Hello(hello)) }, config);
            match expected {
                None => assert!(judged.is_ok(), "{addresses:?}: {judged:?}"),
                Some(words) => assert!(judged.as_ref().is_err_and(|why| why.contains(words)), "{judged:?}"),
            }
        }
    }

    #[test]
    fn a_line_goes_on_where_the_edge_is_or_at_the_tail() {
        let spans = [Span { head: 3, tail: 9 }, Span { head: 1, tail: 0 }, Span { head: 1, tail: 4 }];
        let at = |partition, offset| Position { partition, offset };
        for (what, bus, known, expected) in [
            ("nothing known", 0, vec![], [9, 0, 4]),
            ("another bus", 8, vec![at(0, 5)], [9, 0, 4]),
            ("this bus", 7, vec![at(0, 5), at(2, 1)], [5, 0, 1]),
            ("before retention", 7, vec![at(0, 1)], [1, 0, 4]),
            ("behind the tail", 7, vec![at(1, 99)], [9, 0, 4]),
            ("no such partition", 7, vec![at(3, 1)], [9, 0, 4]),
        ] {
            let hello = Hello { bus, positions: known, ..Hello::default() };
            assert_eq!(start(&hello, 7, &spans), expected, "{what}");
        }
    }
}
