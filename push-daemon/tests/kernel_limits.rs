//! What one source and one ISP may do: packets per second, new connections per second, connections at once, bytes per second.
//!
//! Rates here are so low that the clock does not fill a bucket again while a test runs its packets.
#![allow(clippy::unwrap_used)] // A test that fails by panicking has said what it had to say, its helpers included.

mod filter_under_test;
mod netns;
mod packets;

use std::net::Ipv4Addr;

use abi::verdict::Reason::{self, *};
use aya::maps::{HashMap, Map, MapData};
use filter_under_test::FilterUnderTest;
use netns::eventually;
use packets::{Frame, tcp};
use push_daemon::kernel::{Fragments, IspRate, IspSpec, KernelError, SourceLimits};

const SERVER: &str = "10.0.0.1:3101";
const SERVER6: &str = "[2001:db8:ffff::1]:3101";
const ACK: u8 = 0x10;

fn syn(source: &str) -> Frame {
    let server = if source.contains(':') { SERVER6 } else { SERVER };
    let source = if source.contains(':') { format!("[{source}]") } else { source.into() };
    tcp(&format!("{source}:4000 > {server}"))
}

fn ack(source: &str) -> Frame {
    syn(source).tcp_byte(13, ACK)
}

fn limited(change: impl FnOnce(&mut SourceLimits)) -> Option<FilterUnderTest> {
    let mut filter = FilterUnderTest::bring_up(&["192.0.2.0/24"])?;
    let mut limits = SourceLimits::default();
    change(&mut limits);
    filter.tables().set_limits(&limits).unwrap();
    Some(filter)
}

/// The reasons for one packet after another.
fn reasons(filter: &mut FilterUnderTest, packets: &[Frame]) -> Vec<Reason> {
    packets.iter().map(|packet| filter.judge(&packet.build()).reason).collect()
}

#[test]
fn packets_per_source_have_a_burst_and_then_the_rate() {
    let Some(mut filter) = limited(|limits| (limits.packets_per_s, limits.packet_burst) = (1, 3)) else { return };
    let four = |source: &str| [syn(source), ack(source), ack(source), ack(source)];
    let expected = [NoRule, NoRule, NoRule, PacketRate];
    assert_eq!(reasons(&mut filter, &four("203.0.113.9")), expected);
    assert_eq!(reasons(&mut filter, &four("203.0.113.10")), expected, "another source has its own");
    assert_eq!(reasons(&mut filter, &four("2001:db8::9")), expected);
    assert_eq!(reasons(&mut filter, &[ack("2001:db8::1:2:3:4")]), [PacketRate], "a /64 is one source");
    assert_eq!(reasons(&mut filter, &[ack("2001:db8:0:1::9")]), [NoRule], "the next /64 is another");
    assert_eq!(reasons(&mut filter, &four("192.0.2.7")), [Management; 4], "management has no limits");

    filter.set_rules(&["allow 203.0.113.0/24"]);
    assert_eq!(reasons(&mut filter, &four("203.0.113.9")), [Allowed; 4], "nor has what is allowed by a rule");
    filter.set_rules(&["deny 203.0.113.0/24"]);
    assert_eq!(reasons(&mut filter, &four("203.0.113.11")), [Denied; 4], "what is denied does not get that far");

    let sources = filter.tables().sources().unwrap();
    let told = |address: &str| sources.iter().find(|source| source.source.to_string() == address).copied().unwrap();
    let nine = told("203.0.113.9");
    assert_eq!((nine.packets, nine.over), (4, 1));
    assert_eq!((told("2001:db8::").packets, told("2001:db8::").over), (5, 2));
}

#[test]
fn a_source_that_waits_may_send_again() {
    let Some(mut filter) = limited(|limits| (limits.packets_per_s, limits.packet_burst) = (50, 1)) else { return };
    let packet = ack("203.0.113.9").build();
    eventually("the burst is used up", || filter.judge(&packet).reason == PacketRate);
    eventually("it has filled again", || filter.judge(&packet).reason == NoRule);
}

#[test]
fn new_connections_have_a_rate_of_their_own() {
    let Some(mut filter) = limited(|limits| (limits.connects_per_s, limits.connect_burst) = (1, 2)) else { return };
    let source = "203.0.113.9";
    let packets = [syn(source), syn(source), syn(source), ack(source), syn(source).tcp_byte(13, 0x12)];
    assert_eq!(reasons(&mut filter, &packets), [NoRule, NoRule, ConnectRate, NoRule, NoRule], "others go on");
    let six = "2001:db8::9";
    assert_eq!(reasons(&mut filter, &[syn(six), syn(six), syn(six)]), [NoRule, NoRule, ConnectRate]);
}

#[test]
fn what_is_limited_no_more_passes_at_once() {
    let Some(mut filter) = limited(|limits| (limits.packets_per_s, limits.packet_burst) = (1, 60)) else { return };
    let packet = [ack("203.0.113.9")];
    eventually("a minute of the rate is spent", || reasons(&mut filter, &packet) == [PacketRate]);
    // Another limit keeps the source remembered, with what it owes.
    let connects = SourceLimits { connects_per_s: 1, connect_burst: 60, ..SourceLimits::default() };
    filter.tables().set_limits(&connects).unwrap();
    assert_eq!(reasons(&mut filter, &packet), [NoRule]);
    eventually("so are the connections", || reasons(&mut filter, &[syn("203.0.113.9")]) == [ConnectRate]);
    filter.tables().set_limits(&SourceLimits { packets_per_s: 1_000_000, ..SourceLimits::default() }).unwrap();
    eventually("the packets' minute is over or forgiven", || reasons(&mut filter, &packet) == [NoRule]);
    assert_eq!(reasons(&mut filter, &[syn("203.0.113.9")]), [NoRule]);
}

#[test]
fn a_source_is_as_wide_as_it_is_set() {
    let Some(mut filter) = limited(|limits| {
        (limits.connects_per_s, limits.connect_burst) = (1, 1);
        (limits.ipv4_bits, limits.ipv6_bits) = (24, 48);
    }) else {
        return;
    };
    assert_eq!(reasons(&mut filter, &[syn("203.0.113.9"), syn("203.0.113.200")]), [NoRule, ConnectRate]);
    assert_eq!(reasons(&mut filter, &[syn("203.0.112.9")]), [NoRule]);
    assert_eq!(reasons(&mut filter, &[syn("2001:db8:1:1::"), syn("2001:db8:1:2::")]), [NoRule, ConnectRate]);

    let narrow = SourceLimits { connects_per_s: 1, connect_burst: 1, ..SourceLimits::default() };
    filter.tables().set_limits(&narrow).unwrap();
    let again = [syn("203.0.113.0"), syn("203.0.113.9"), syn("203.0.113.9")];
    assert_eq!(reasons(&mut filter, &again), [NoRule, NoRule, ConnectRate], "another width starts afresh");
}

#[test]
fn open_connections_hold_back_new_ones_only() {
    let Some(mut filter) = limited(|limits| limits.open_connections = 2) else { return };
    let pin = filter.pin_dir().join(abi::maps::OPEN_V4);
    let map = Map::from_map_data(MapData::from_pin(pin).unwrap()).unwrap();
    let mut open = HashMap::<_, [u8; 4], u64>::try_from(map).unwrap();
    let source = "203.0.113.9";
    let address = source.parse::<Ipv4Addr>().unwrap();
    for (count, expected) in [(0, NoRule), (1, NoRule), (2, OpenConnections), (3, OpenConnections), (1, NoRule)] {
        open.insert(address.octets(), count, 0).unwrap();
        assert_eq!(reasons(&mut filter, &[syn(source), ack(source)]), [expected, NoRule], "{count} open");
    }
    assert_eq!(filter.tables().open_connections().unwrap(), [(address.into(), 1)]);
}

#[test]
fn a_source_that_is_remembered_meets_every_change_at_once() {
    let Some(mut filter) = limited(|limits| limits.packets_per_s = 1_000_000) else { return };
    let isp = |name: &str, prefixes: &[&str]| IspSpec {
        name: name.into(),
        prefixes: prefixes.iter().map(|prefix| prefix.parse().unwrap()).collect(),
        ..IspSpec::default()
    };
    for (source, neighbour, deny, far) in [
        ("203.0.113.9", "203.0.113.10", "203.0.113.8/31", "10.0.0.0/8"),
        ("2001:db8::9", "2001:db8::10", "2001:db8::8/126", "2001:db9::/32"),
    ] {
        let twice = |filter: &mut FilterUnderTest| reasons(filter, &[ack(source), ack(source), ack(neighbour)]);
        let whose = |filter: &mut FilterUnderTest| {
            let before = filter.tables().isp_counters().unwrap();
            assert_eq!(twice(filter), [NoRule; 3]);
            let after = filter.tables().isp_counters().unwrap();
            let moved = after.iter().filter(|now| {
                before
                    .iter()
                    .find(|was| was.number == now.number)
                    .is_none_or(|was| was.passed_packets != now.passed_packets)
            });
            moved.map(|now| now.name.clone()).collect::<Vec<_>>()
        };
        assert_eq!(twice(&mut filter), [NoRule; 3]);
        filter.set_rules(&[&format!("deny {deny}")]);
        assert_eq!(
            twice(&mut filter),
            [Denied, Denied, NoRule],
            "a deny that is longer than an IPv6 source is wide, too"
        );
        filter.set_rules(&[&format!("deny {far}")]);
        assert_eq!(twice(&mut filter), [NoRule; 3]);

        assert_eq!(whose(&mut filter), [""]);
        filter
            .tables()
            .set_isp(&isp("north", &[if source.contains(':') { "2001:db8::/32" } else { "203.0.0.0/16" }]))
            .unwrap();
        assert_eq!(whose(&mut filter), ["north"]);
        filter
            .tables()
            .set_isp(&isp("south", &[&format!("{source}/{}", if source.contains(':') { 128 } else { 32 })]))
            .unwrap();
        assert_eq!(whose(&mut filter), ["north", "south"], "the source is another's, its neighbour is not");
        filter.tables().remove_isp("south").unwrap();
        filter.tables().remove_isp("north").unwrap();
        assert_eq!(whose(&mut filter), [""]);
        filter.set_rules(&[]);
    }
}

#[test]
fn a_source_is_not_remembered_past_the_rules_that_hid_another() {
    let Some(mut filter) = limited(|limits| limits.packets_per_s = 1_000_000) else { return };
    // One more expired prefix than the walk steps over, and behind them a deny.
    let mut rules: Vec<String> =
        (17..=25).map(|length| format!("expired allow {}", prefix("203.0.113.9", length))).collect();
    rules.push("deny 203.0.0.0/16".into());
    filter.set_rules(&rules.iter().map(String::as_str).collect::<Vec<_>>());
    let twice = [ack("203.0.113.9"), ack("203.0.113.9"), ack("203.0.113.9")];
    assert_eq!(reasons(&mut filter, &twice), [NoRule; 3]);
    assert_eq!(filter.tables().sweep_expired().unwrap(), 9);
    assert_eq!(reasons(&mut filter, &twice), [Denied; 3]);

    filter.set_rules(&rules.iter().map(String::as_str).collect::<Vec<_>>());
    assert_eq!(reasons(&mut filter, &twice), [NoRule; 3]);
    filter.tables().remove(prefix("203.0.113.9", 20).parse().unwrap()).unwrap();
    assert_eq!(reasons(&mut filter, &twice), [Denied; 3]);
}

fn prefix(address: &str, length: u8) -> String {
    ipnet::Ipv4Net::new(address.parse().unwrap(), length).unwrap().trunc().to_string()
}

#[test]
fn observing_tells_what_the_limits_would_drop() {
    let Some(mut filter) = FilterUnderTest::bring_up_observing() else { return };
    filter.tables().set_limits(&SourceLimits { packets_per_s: 1, packet_burst: 1, ..SourceLimits::default() }).unwrap();
    filter.judge(&ack("203.0.113.9").build());
    let judged = filter.judge(&ack("203.0.113.9").build());
    assert_eq!((judged.reason, judged.observed), (PacketRate, true));
}

#[test]
fn limits_that_contradict_themselves_are_refused() {
    let Some(mut filter) = limited(|_| {}) else { return };
    for wrong in [
        SourceLimits { packet_burst: 5, ..SourceLimits::default() },
        SourceLimits { connect_burst: 5, ..SourceLimits::default() },
        SourceLimits { ipv4_bits: 0, ..SourceLimits::default() },
        SourceLimits { ipv6_bits: 129, ..SourceLimits::default() },
    ] {
        assert!(matches!(filter.tables().set_limits(&wrong), Err(KernelError::Limits(_))), "{wrong:?}");
    }
    assert!(filter.tables().limits().unwrap().is_none());
}

#[test]
fn flags_that_no_stack_sends_drop() {
    let Some(mut filter) = limited(|_| {}) else { return };
    const NAMES: [(u8, &str); 6] = [(1, "FIN"), (2, "SYN"), (4, "RST"), (8, "PSH"), (16, "ACK"), (32, "URG")];
    for flags in 0..64u8 {
        let lone = u32::from(flags & 1) + u32::from(flags >> 1 & 1) + u32::from(flags >> 2 & 1);
        let is_sane = lone <= 1 && flags & (2 | 4 | 16) != 0;
        let expected = if is_sane { NoRule } else { BadTcpFlags };
        let names: Vec<_> = NAMES.iter().filter(|(bit, _)| flags & bit != 0).map(|(_, name)| *name).collect();
        // The two bits of ECN, which a SYN may carry, change nothing.
        for flags in [flags, flags | 0xc0] {
            assert_eq!(filter.judge(&syn("203.0.113.9").tcp_byte(13, flags).build()).reason, expected, "{names:?}");
            assert_eq!(filter.judge(&syn("2001:db8::9").tcp_byte(13, flags).build()).reason, expected, "{names:?}");
        }
    }
    filter.set_rules(&["deny 203.0.113.9"]);
    assert_eq!(reasons(&mut filter, &[syn("203.0.113.9").tcp_byte(13, 0)]), [Denied], "the rules come first");
}

#[test]
fn fragments_drop_where_they_are_not_wanted() {
    let change = |config: &mut push_daemon::kernel::KernelConfig| config.fragments = Fragments::Drop;
    let Some(mut filter) = FilterUnderTest::bring_up_with(change) else { return };
    let four = syn("203.0.113.9");
    let six = syn("2001:db8::9");
    let cases = [
        (four.clone().fragment(0, true).payload(44), Fragment),
        (four.clone().fragment(64, false), Fragment),
        (six.clone().fragment(0, true).payload(44), Fragment),
        (six.clone().fragment(64, false), Fragment),
        (four.clone().fragment(64, false).protocol(17), NotProtected),
        (tcp("203.0.113.9:4000 > 10.0.0.1:22").fragment(0, true).payload(44), NotProtected),
        (six.clone().fragment(0, false), NoRule),
        (four, NoRule),
    ];
    for (packet, expected) in cases {
        assert_eq!(filter.judge(&packet.build()).reason, expected, "{packet:?}");
    }
}

#[test]
fn only_listed_addresses_are_guarded() {
    let change = |config: &mut push_daemon::kernel::KernelConfig| {
        config.protected_addresses = vec!["10.0.0.1".parse().unwrap(), "2001:db8:ffff::1".parse().unwrap()];
    };
    let Some(mut filter) = FilterUnderTest::bring_up_with(change) else { return };
    filter.set_rules(&["deny 0.0.0.0/0", "deny ::/0"]);
    let cases = [
        ("203.0.113.9:4000 > 10.0.0.1:3101", Denied),
        ("203.0.113.9:4000 > 10.0.0.2:3101", NotProtected),
        ("[2001:db8::9]:4000 > [2001:db8:ffff::1]:3101", Denied),
        ("[2001:db8::9]:4000 > [2001:db8:ffff::2]:3101", NotProtected),
    ];
    for (line, expected) in cases {
        assert_eq!(filter.judge(&tcp(line).build()).reason, expected, "{line}");
    }
}

#[test]
fn an_isps_clients_share_its_ingress_rate() {
    let Some(mut filter) = limited(|_| {}) else { return };
    let isp = |name: &str, prefixes: &[&str], bytes_per_s| IspSpec {
        name: name.into(),
        prefixes: prefixes.iter().map(|prefix| prefix.parse().unwrap()).collect(),
        // Three frames of 54 bytes fit in the burst.
        ingress: IspRate { bytes_per_s, burst_bytes: 3 * 54 },
        ..IspSpec::default()
    };
    let north = filter.tables().set_isp(&isp("north", &["203.0.113.0/24", "2001:db8::/32"], 1_000)).unwrap();
    let part = filter.tables().set_isp(&isp("part", &["203.0.113.128/25"], 0)).unwrap();
    assert_ne!(north, part);

    // A kilobyte per second refills a frame in 54 ms, so what passes is told by the burst and a little more.
    let mut verdicts = Vec::new();
    for last in 0..100u8 {
        let source = if last % 2 == 0 { format!("203.0.113.{last}") } else { format!("2001:db8::{last:x}") };
        verdicts.push(filter.judge(&ack(&source).build()).reason);
    }
    assert_eq!(verdicts[..2], [NoRule, NoRule]);
    let policed = verdicts.iter().filter(|reason| **reason == IspPoliced).count();
    assert!(policed > 50, "{policed} of 100");
    assert_eq!(reasons(&mut filter, &[ack("203.0.113.200"), ack("198.51.100.1")]), [NoRule; 2], "neighbours go on");

    let counts = filter.tables().isp_counters().unwrap();
    let of = |name: &str| counts.iter().find(|count| count.name == name).unwrap();
    assert_eq!(of("north").policed_packets, policed as u64);
    assert_eq!(of("north").passed_packets, 100 - policed as u64);
    assert!(of("north").policed_bytes >= 54 * policed as u64);
    assert_eq!((of("part").passed_packets, of("").passed_packets), (1, 1));

    filter.tables().set_isp(&isp("north", &[], 0)).unwrap();
    assert_eq!(reasons(&mut filter, &[ack("203.0.113.9"), ack("203.0.113.9")]), [NoRule; 2], "a rate changes at once");
}
