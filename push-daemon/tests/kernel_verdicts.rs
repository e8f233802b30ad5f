//! Packet in, verdict and reason out: rows of a table, run through the real program in the kernel by `BPF_PROG_TEST_RUN`.
#![allow(clippy::unwrap_used)] // A test that fails by panicking has said what it had to say, its helpers included.

mod filter_under_test;
mod netns;
mod packets;

use abi::verdict::Reason::{self, *};
use filter_under_test::FilterUnderTest;
use packets::{Frame, tcp};

const SYN: &str = "203.0.113.9:4000 > 10.0.0.1:3101";
const SYN6: &str = "[2001:db8::9]:4000 > [2001:db8:ffff::1]:3101";

const EIGHT_EXPIRED: &[&str] = &[
    "expired allow 203.0.113.0/24",
    "expired allow 203.0.112.0/23",
    "expired allow 203.0.112.0/22",
    "expired allow 203.0.112.0/21",
    "expired allow 203.0.112.0/20",
    "expired allow 203.0.96.0/19",
    "expired allow 203.0.64.0/18",
    "expired allow 203.0.0.0/17",
    "deny 203.0.0.0/16",
];

const NINE_EXPIRED: &[&str] = &[
    "expired allow 203.0.113.0/25",
    "expired allow 203.0.113.0/24",
    "expired allow 203.0.112.0/23",
    "expired allow 203.0.112.0/22",
    "expired allow 203.0.112.0/21",
    "expired allow 203.0.112.0/20",
    "expired allow 203.0.96.0/19",
    "expired allow 203.0.64.0/18",
    "expired allow 203.0.0.0/17",
    "deny 203.0.0.0/16",
];

/// A packet, the rules it meets, and why it passes or is dropped.
struct Row {
    name: &'static str,
    packet: Frame,
    rules: &'static [&'static str],
    reason: Reason,
}

fn row(name: &'static str, packet: Frame, rules: &'static [&'static str], reason: Reason) -> Row {
    Row { name, packet, rules, reason }
}

fn check(rows: Vec<Row>) {
    let Some(mut filter) = FilterUnderTest::bring_up(&["192.0.2.0/24", "2001:db8:aaaa::/48"]) else { return };
    for Row { name, packet, rules, reason } in rows {
        filter.set_rules(rules);
        let bytes = packet.build();
        let judged = filter.judge(&bytes);
        assert_eq!(judged.reason, reason, "{name}: {bytes:02x?}");
        assert_eq!(judged.verdict, reason.verdict(), "{name}");
        assert_eq!(judged.bytes, bytes.len() as u64, "{name}: bytes are counted");
    }
}

#[test]
fn rules_decide_by_the_most_specific_match() {
    check(vec![
        row("without rules everybody passes", tcp(SYN), &[], NoRule),
        row("a denied prefix drops", tcp(SYN), &["deny 203.0.113.0/24"], Denied),
        row("a denied host drops", tcp(SYN), &["deny 203.0.113.9"], Denied),
        row("its neighbour passes", tcp(SYN), &["deny 203.0.113.8"], NoRule),
        row("the prefix beside it passes", tcp(SYN), &["deny 203.0.112.0/24"], NoRule),
        row("a host's allow beats its prefix's deny", tcp(SYN), &["deny 203.0.113.0/24", "allow 203.0.113.9"], Allowed),
        row("a host's deny beats its prefix's allow", tcp(SYN), &["allow 203.0.113.0/24", "deny 203.0.113.9"], Denied),
        row("the longer prefix wins: allow", tcp(SYN), &["deny 203.0.0.0/16", "allow 203.0.113.0/25"], Allowed),
        row(
            "the longer prefix wins: deny",
            tcp(SYN),
            &["allow 203.0.0.0/16", "deny 203.0.113.0/31", "deny 203.0.113.8/31"],
            Denied,
        ),
        row("/0 is everybody", tcp(SYN), &["deny 0.0.0.0/0"], Denied),
        row("/0 of IPv6 is not of IPv4", tcp(SYN), &["deny ::/0"], NoRule),
        row("IPv6: a denied prefix drops", tcp(SYN6), &["deny 2001:db8::/32"], Denied),
        row("IPv6: a denied host drops", tcp(SYN6), &["deny 2001:db8::9"], Denied),
        row("IPv6: its neighbour passes", tcp(SYN6), &["deny 2001:db8::8"], NoRule),
        row("IPv6: a host's allow beats its prefix", tcp(SYN6), &["deny 2001:db8::/64", "allow 2001:db8::9"], Allowed),
        row("IPv6: the longer prefix wins", tcp(SYN6), &["allow 2001:db8::/32", "deny 2001:db8::8/127"], Denied),
        row("IPv6: /0 is everybody", tcp(SYN6), &["deny ::/0"], Denied),
        row("an expired rule is none", tcp(SYN), &["expired deny 203.0.113.9"], NoRule),
        row(
            "behind an expired host its prefix decides",
            tcp(SYN),
            &["expired allow 203.0.113.9", "deny 203.0.113.0/24"],
            Denied,
        ),
        row(
            "behind an expired prefix the shorter decides",
            tcp(SYN),
            &["expired deny 203.0.113.0/24", "allow 203.0.0.0/16"],
            Allowed,
        ),
        row("behind an expired /0 there is nothing", tcp(SYN6), &["expired deny ::/0"], NoRule),
        row("the walk steps over eight expired prefixes", tcp(SYN), EIGHT_EXPIRED, Denied),
        row("and gives up at the ninth", tcp(SYN), NINE_EXPIRED, NoRule),
        row("a rule with time left stands", tcp(SYN), &["for an hour deny 203.0.113.9"], Denied),
    ]);
}

#[test]
fn management_always_passes() {
    let managed = "192.0.2.7:4000 > 10.0.0.1:3101";
    let managed6 = "[2001:db8:aaaa::7]:4000 > [2001:db8:ffff::1]:3101";
    check(vec![
        row("whatever is denied around it", tcp(managed), &["deny 0.0.0.0/0", "deny 192.0.0.0/16"], Management),
        row("IPv6 too", tcp(managed6), &["deny ::/0"], Management),
        row("also with a bent header", tcp(managed).tcp_byte(12, 0x10), &[], Management),
        row("its neighbour does not", tcp("192.0.3.7:4000 > 10.0.0.1:3101"), &["deny 0.0.0.0/0"], Denied),
        row("IPv6: nor its", tcp("[2001:db8:aaab::7]:4000 > [2001:db8:ffff::1]:3101"), &["deny ::/0"], Denied),
    ]);
}

#[test]
fn only_protected_tcp_ports_are_judged() {
    const ALL: &[&str] = &["deny 0.0.0.0/0", "deny ::/0"];
    check(vec![
        row("another port is not ours", tcp("203.0.113.9:4000 > 10.0.0.1:22"), ALL, NotProtected),
        row("nor is one that shares 6 bits", tcp("203.0.113.9:4000 > 10.0.0.1:3165"), ALL, NotProtected),
        row("a protected source port is nothing", tcp("203.0.113.9:3101 > 10.0.0.1:443"), ALL, NotProtected),
        row("the second protected port", tcp("203.0.113.9:4000 > 10.0.0.1:3102"), ALL, Denied),
        row("the highest port", tcp("203.0.113.9:4000 > 10.0.0.1:65535"), ALL, Denied),
        row("UDP to the port", tcp(SYN).protocol(17), ALL, NotProtected),
        row("ICMPv6", tcp(SYN6).protocol(58), ALL, NotProtected),
        row("ESP", tcp(SYN6).protocol(50), ALL, NotProtected),
        row("no next header", tcp(SYN6).protocol(59), ALL, NotProtected),
        row("ARP", tcp(SYN).ethertype(0x0806), ALL, NotProtected),
        row("a bent header to another port", tcp("203.0.113.9:4000 > 10.0.0.1:22").tcp_byte(12, 0), ALL, NotProtected),
        row("a cut header to another port", tcp("203.0.113.9:4000 > 10.0.0.1:22").tcp_cut_to(8), ALL, NotProtected),
    ]);
}

#[test]
fn headers_in_between_do_not_hide_the_port() {
    const ALL: &[&str] = &["deny 0.0.0.0/0", "deny ::/0"];
    check(vec![
        row("a VLAN tag", tcp(SYN).vlan(0x8100, 5), ALL, Denied),
        row("two VLAN tags", tcp(SYN).vlan(0x88a8, 5).vlan(0x8100, 6), ALL, Denied),
        row("IPv6 in two VLAN tags", tcp(SYN6).vlan(0x8100, 5).vlan(0x8100, 6), ALL, Denied),
        row(
            "three VLAN tags are one too many",
            tcp(SYN).vlan(0x8100, 5).vlan(0x8100, 6).vlan(0x8100, 7),
            ALL,
            NotProtected,
        ),
        row("one word of IPv4 options", tcp(SYN).options(1), ALL, Denied),
        row("all ten words of them", tcp(SYN).options(10), ALL, Denied),
        row("options and a tag", tcp(SYN).options(3).vlan(0x8100, 5), ALL, Denied),
        row("TCP options and payload", tcp(SYN).tcp_byte(12, 0xf0).payload(40), ALL, Denied),
        row("hop-by-hop options", tcp(SYN6).extension(0, 0), ALL, Denied),
        row("the largest hop-by-hop options that fit", tcp(SYN6).extension(0, 150), ALL, Denied),
        row("a routing header", tcp(SYN6).extension(43, 2), ALL, Denied),
        row("destination options", tcp(SYN6).extension(60, 1), ALL, Denied),
        row("an authentication header", tcp(SYN6).authentication(), ALL, Denied),
        row(
            "one of each",
            tcp(SYN6).extension(0, 0).extension(60, 0).extension(43, 1).authentication().extension(60, 3),
            ALL,
            Denied,
        ),
        row("eight are walked", (0..8).fold(tcp(SYN6), |packet, _| packet.extension(60, 0)), ALL, Denied),
        row(
            "nine are one too many",
            (0..9).fold(tcp(SYN6), |packet, _| packet.extension(60, 0)),
            &[],
            ExtensionHeaders,
        ),
        row(
            "nine with a tag",
            (0..9).fold(tcp(SYN6).vlan(0x8100, 5), |packet, _| packet.extension(60, 0)),
            &[],
            ExtensionHeaders,
        ),
        row("an atomic fragment is a whole packet", tcp(SYN6).fragment(0, false), ALL, Denied),
    ]);
}

#[test]
fn fragments_cannot_carry_a_port_past_us() {
    const ALL: &[&str] = &["deny 0.0.0.0/0", "deny ::/0"];
    check(vec![
        row("a first fragment is judged", tcp(SYN).fragment(0, true).payload(44), ALL, Denied),
        row("and passes where the packet would", tcp(SYN).fragment(0, true).payload(44), &[], NoRule),
        row("a later one names no port", tcp(SYN).fragment(64, false), ALL, LaterFragment),
        row("the earliest that can be whole behind TCP", tcp(SYN).fragment(24, true), ALL, LaterFragment),
        row("one that begins inside TCP", tcp(SYN).fragment(8, false), &[], TinyFragment),
        row("or at its end", tcp(SYN).fragment(16, false), &[], TinyFragment),
        row("a first one without the ports", tcp(SYN).fragment(0, true).tcp_cut_to(0), &[], TinyFragment),
        row("a first one that ends inside TCP", tcp(SYN).fragment(0, true).tcp_cut_to(16), &[], TinyFragment),
        row(
            "a first one that ends inside TCP's options",
            tcp(SYN).fragment(0, true).tcp_byte(12, 0x80).payload(4),
            &[],
            TinyFragment,
        ),
        row("UDP's fragments are not ours", tcp(SYN).fragment(8, false).protocol(17), ALL, NotProtected),
        row("IPv6: a first fragment is judged", tcp(SYN6).fragment(0, true).payload(44), ALL, Denied),
        row("IPv6: a later one names no port", tcp(SYN6).fragment(64, false), ALL, LaterFragment),
        row("IPv6: one that begins inside TCP", tcp(SYN6).fragment(8, true), &[], TinyFragment),
        row("IPv6: a first one that ends inside TCP", tcp(SYN6).fragment(0, true).tcp_cut_to(16), &[], TinyFragment),
        row(
            "IPv6: a first one without TCP at all",
            tcp(SYN6).extension(60, 0).fragment(0, true).tcp_cut_to(0),
            &[],
            TinyFragment,
        ),
        row("IPv6: a later one of something longer", tcp(SYN6).fragment(8, false).extension(60, 0), &[], LaterFragment),
    ]);
}

#[test]
fn malformed_packets_drop_with_their_reason() {
    check(vec![
        row("a frame without IP", tcp(SYN).frame_cut_to(14), &[], Truncated),
        row("a frame cut in the IPv4 header", tcp(SYN).frame_cut_to(14 + 19), &[], Truncated),
        row("cut in the options", tcp(SYN).options(4).frame_cut_to(14 + 30), &[], Truncated),
        row("cut before TCP", tcp(SYN).frame_cut_to(14 + 20), &[], Truncated),
        row("cut in the ports", tcp(SYN).frame_cut_to(14 + 20 + 3), &[], Truncated),
        row("cut behind the ports", tcp(SYN).frame_cut_to(14 + 20 + 4), &[], Truncated),
        row("cut in the TCP header", tcp(SYN).frame_cut_to(14 + 20 + 19), &[], Truncated),
        row("a total that ends in the ports", tcp(SYN).length(22), &[], Truncated),
        row("a total that ends in the TCP header", tcp(SYN).length(39), &[], Truncated),
        row("a total that ends in the TCP options", tcp(SYN).tcp_byte(12, 0x60).payload(4).length(42), &[], Truncated),
        row("a cut VLAN tag", tcp(SYN).vlan(0x8100, 5).frame_cut_to(16), &[], Truncated),
        row("IPv4 that says it is IPv6", tcp(SYN).ip_byte(0, 0x65), &[], BadIpHeader),
        row("a header length of 4 words", tcp(SYN).ip_byte(0, 0x44), &[], BadIpHeader),
        row("a header length of 0", tcp(SYN).ip_byte(0, 0x40), &[], BadIpHeader),
        row("a total below the header", tcp(SYN).length(19), &[], BadIpHeader),
        row("a total below the options", tcp(SYN).options(2).length(24), &[], BadIpHeader),
        row("a data offset of 4 words", tcp(SYN).tcp_byte(12, 0x40), &[], BadTcpHeader),
        row("a data offset of 0", tcp(SYN).tcp_byte(12, 0), &[], BadTcpHeader),
        row("an allow does not make it sane", tcp(SYN).tcp_byte(12, 0), &["allow 203.0.113.9"], BadTcpHeader),
        row("IPv6: cut in the header", tcp(SYN6).frame_cut_to(14 + 39), &[], Truncated),
        row("IPv6: cut before TCP", tcp(SYN6).frame_cut_to(14 + 40), &[], Truncated),
        row("IPv6: cut in an extension header", tcp(SYN6).extension(60, 0).frame_cut_to(14 + 40 + 7), &[], Truncated),
        row("IPv6: an extension header past the frame", tcp(SYN6).extension(60, 0).ip_byte(41, 200), &[], Truncated),
        row("IPv6: a payload that ends in the TCP header", tcp(SYN6).length(19), &[], Truncated),
        row("IPv6: a payload that ends in the extension headers", tcp(SYN6).extension(60, 1).length(8), &[], Truncated),
        row("IPv6 that says it is IPv4", tcp(SYN6).ip_byte(0, 0x45), &[], BadIpHeader),
        row("IPv6: a data offset of 4 words", tcp(SYN6).tcp_byte(12, 0x40), &[], BadTcpHeader),
    ]);
}

#[test]
fn a_length_of_zero_leaves_the_check_to_the_stack() {
    check(vec![
        row("IPv4, as BIG TCP sends", tcp(SYN).length(0), &["deny 203.0.113.9"], Denied),
        row("IPv6, as a jumbogram says", tcp(SYN6).length(0), &["deny 2001:db8::9"], Denied),
    ]);
}

#[test]
fn the_kill_switch_passes_everything() {
    let Some(mut filter) = FilterUnderTest::bring_up(&[]) else { return };
    filter.set_rules(&["deny 0.0.0.0/0"]);
    let packets = [tcp(SYN).build(), tcp(SYN6).ip_byte(0, 0x41).build(), tcp(SYN).frame_cut_to(20).build()];
    filter.tables().set_kill_switch(true).unwrap();
    assert!(packets.iter().all(|packet| filter.judge(packet).reason == KillSwitch));
    filter.tables().set_kill_switch(false).unwrap();
    assert_eq!(packets.map(|packet| filter.judge(&packet).reason), [Denied, BadIpHeader, Truncated]);
}

#[test]
fn observing_counts_and_passes() {
    let Some(mut filter) = FilterUnderTest::bring_up_observing() else { return };
    filter.set_rules(&["deny 0.0.0.0/0"]);
    let judged = filter.judge(&tcp(SYN).build());
    assert_eq!((judged.verdict, judged.reason, judged.observed), (abi::verdict::Verdict::Pass, Denied, true));
    let judged = filter.judge(&tcp("203.0.113.9:4000 > 10.0.0.1:22").build());
    assert_eq!((judged.reason, judged.observed), (NotProtected, false));
}

#[test]
fn a_rule_counts_what_it_decides_and_keeps_its_counts_when_it_changes() {
    use push_daemon::kernel::{
        Action::{Allow, Deny},
        NewRule,
    };
    let Some(mut filter) = FilterUnderTest::bring_up(&[]) else { return };
    filter.set_rules(&["deny 203.0.113.0/24", "deny 203.0.0.0/16"]);
    let packet = tcp(SYN).payload(100).build();
    for _ in 0..5 {
        filter.judge(&packet);
    }
    let prefix = "203.0.113.0/24".parse().unwrap();
    let rule = filter.tables().find(prefix).unwrap();
    assert_eq!((rule.action, rule.hits, rule.bytes), (Deny, 5, 5 * packet.len() as u64));
    assert_eq!(filter.tables().find("203.0.0.0/16".parse().unwrap()).unwrap().hits, 0);

    let added = filter.tables().add(&NewRule::new(prefix, Allow)).unwrap();
    assert_eq!(added.replaced, Some(rule));
    filter.judge(&packet);
    let rule = filter.tables().find(prefix).unwrap();
    assert_eq!((rule.action, rule.hits), (Allow, 6));
}
