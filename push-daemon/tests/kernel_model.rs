//! Property: for any rules and any sender, the kernel, `Tables::test` and a plain model of the rules agree.
//!
//! The model is a list and a filter over it; it knows nothing of hashes, tries or walks.
#![allow(clippy::unwrap_used)] // A test that fails by panicking has said what it had to say, its helpers included.

mod filter_under_test;
mod netns;
mod packets;

use std::{net::IpAddr, time::Duration};

use abi::{rules::MAX_EXPIRED_STEPS, verdict::Reason};
use filter_under_test::FilterUnderTest;
use ipnet::IpNet;
use packets::syn_from;
use proptest::{collection::vec, prelude::*, test_runner::TestRunner};
use push_daemon::kernel::{Action, IspSpec, KernelError, NewRule, SourceLimits, WholeSet};

#[derive(Clone, Copy, Debug)]
enum Life {
    Expired,
    AnHour,
    Forever,
}

#[derive(Clone, Copy, Debug)]
struct ModelRule {
    prefix: IpNet,
    action: Action,
    life: Life,
}

const MANAGEMENT: [&str; 2] = ["10.0.0.64/27", "2001:db8::40/123"];

const UNREACHED: SourceLimits = SourceLimits {
    packets_per_s: 1_000_000_000,
    packet_burst: 0,
    connects_per_s: 0,
    connect_burst: 0,
    open_connections: 0,
    ipv4_bits: 32,
    ipv6_bits: 64,
};

/// What the documentation says, as directly as it can be said.
fn model(rules: &[ModelRule], sender: IpAddr) -> Reason {
    if MANAGEMENT.iter().any(|prefix| prefix.parse::<IpNet>().unwrap().contains(&sender)) {
        return Reason::Management;
    }
    let mut matching: Vec<_> = rules.iter().filter(|rule| rule.prefix.contains(&sender)).collect();
    matching.sort_by_key(|rule| std::cmp::Reverse(rule.prefix.prefix_len()));
    let is_host = |rule: &ModelRule| rule.prefix.prefix_len() == rule.prefix.max_prefix_len();
    let (hosts, prefixes): (Vec<&ModelRule>, Vec<&ModelRule>) = matching.into_iter().partition(|rule| is_host(rule));
    let looked_at = prefixes.into_iter().take(MAX_EXPIRED_STEPS as usize + 1);
    match hosts.into_iter().chain(looked_at).find(|rule| !matches!(rule.life, Life::Expired)) {
        Some(rule) if rule.action == Action::Deny => Reason::Denied,
        Some(_) => Reason::Allowed,
        None => Reason::NoRule,
    }
}

/// Addresses that differ in their last 8 bits, so that rules and senders meet often.
fn an_address() -> impl Strategy<Value = IpAddr> {
    (any::<bool>(), any::<u8>()).prop_map(|(v4, last)| {
        if v4 { IpAddr::from([10, 0, 0, last]) } else { IpAddr::from([0x2001, 0xdb8, 0, 0, 0, 0, 0, u16::from(last)]) }
    })
}

fn a_rule() -> impl Strategy<Value = ModelRule> {
    let bits_left_free = prop_oneof![4 => 0u8..=9, 1 => 10u8..=32, 1 => Just(128)];
    let life = prop_oneof![Just(Life::Expired), Just(Life::AnHour), Just(Life::Forever)];
    (an_address(), bits_left_free, any::<bool>(), life).prop_map(|(address, free, deny, life)| {
        let host = IpNet::from(address);
        let prefix = IpNet::new(address, host.prefix_len().saturating_sub(free)).unwrap().trunc();
        ModelRule { prefix, action: if deny { Action::Deny } else { Action::Allow }, life }
    })
}

#[test]
fn kernel_tables_and_model_agree() {
    let Some(mut filter) = FilterUnderTest::bring_up(&MANAGEMENT) else { return };
    filter.tables().set_limits(&UNREACHED).unwrap();
    let mut runner =
        TestRunner::new(ProptestConfig { cases: 128, failure_persistence: None, ..ProptestConfig::default() });
    let filter = std::cell::RefCell::new(&mut filter);
    runner
        .run(&(vec(a_rule(), 0..40), vec(an_address(), 1..20)), |(rules, senders)| {
            let mut filter = filter.borrow_mut();
            filter.clear();
            let mut standing: Vec<ModelRule> = Vec::new();
            for rule in rules {
                let ttl = match rule.life {
                    Life::Expired => Some(Duration::ZERO),
                    Life::AnHour => Some(Duration::from_secs(3600)),
                    Life::Forever => None,
                };
                match filter.tables().add(&NewRule::new(rule.prefix, rule.action).standing(ttl)) {
                    Ok(_) => {
                        standing.retain(|other| other.prefix != rule.prefix);
                        standing.push(rule);
                    }
                    Err(KernelError::ManagementPrefix { .. }) if rule.action == Action::Deny => {}
                    Err(error) => return Err(TestCaseError::fail(error.to_string())),
                }
            }
            let listed: Vec<_> = filter.tables().list().unwrap().iter().map(|rule| rule.prefix).collect();
            let mut expected: Vec<_> = standing.iter().map(|rule| rule.prefix).collect();
            expected.sort();
            prop_assert_eq!(listed, expected);
            for sender in senders {
                let expected = model(&standing, sender);
                prop_assert_eq!(filter.tables().test(sender).unwrap().reason, expected, "Tables::test({})", sender);
                prop_assert_eq!(
                    filter.judge(&syn_from(sender, 3101).build()).reason,
                    expected,
                    "the kernel on {}",
                    sender
                );
            }
            let expired = standing.iter().filter(|rule| matches!(rule.life, Life::Expired)).count();
            prop_assert_eq!(filter.tables().sweep_expired().unwrap(), expired);
            prop_assert_eq!(filter.tables().list().unwrap().len(), standing.len() - expired);
            Ok(())
        })
        .unwrap();
}

#[test]
fn a_whole_set_with_isps_agrees_with_the_model() {
    let Some(mut filter) = FilterUnderTest::bring_up(&MANAGEMENT) else { return };
    let mut runner =
        TestRunner::new(ProptestConfig { cases: 64, failure_persistence: None, ..ProptestConfig::default() });
    let filter = std::cell::RefCell::new(&mut filter);
    let an_isp_prefix = (a_rule(), 1usize..=3).prop_map(|(rule, isp)| (rule.prefix, isp));
    runner
        .run(&(vec(a_rule(), 0..40), vec(an_isp_prefix, 0..30), vec(an_address(), 1..20)), |(rules, owned, senders)| {
            let mut filter = filter.borrow_mut();
            let is_refused = |rule: &ModelRule| {
                rule.action == Action::Deny
                    && MANAGEMENT.iter().any(|prefix| prefix.parse::<IpNet>().unwrap().contains(&rule.prefix))
            };
            let mut standing: Vec<ModelRule> = Vec::new();
            for rule in rules.into_iter().filter(|rule| !is_refused(rule)) {
                standing.retain(|other| other.prefix != rule.prefix);
                standing.push(rule);
            }
            let mut owners: Vec<(IpNet, usize)> = Vec::new();
            for (prefix, isp) in owned {
                owners.retain(|(other, _)| *other != prefix);
                owners.push((prefix, isp));
            }
            let ttl = |life| match life {
                Life::Expired => Some(Duration::ZERO),
                Life::AnHour => Some(Duration::from_secs(3600)),
                Life::Forever => None,
            };
            let isps = (1..=3).map(|isp| IspSpec {
                name: format!("isp-{isp}"),
                prefixes: owners.iter().filter(|(_, owner)| *owner == isp).map(|(prefix, _)| *prefix).collect(),
                ..IspSpec::default()
            });
            let set = WholeSet {
                rules: standing
                    .iter()
                    .map(|rule| NewRule::new(rule.prefix, rule.action).standing(ttl(rule.life)))
                    .collect(),
                isps: isps.collect(),
                // Nobody reaches it, but with a limit the filter remembers its sources.
                limits: UNREACHED,
            };
            filter.tables().apply(&set, None).map_err(|error| TestCaseError::fail(error.to_string()))?;
            for sender in senders {
                let expected = model(&standing, sender);
                let owner = owners.iter().filter(|(prefix, _)| prefix.contains(&sender));
                let owner = owner.max_by_key(|(prefix, _)| prefix.prefix_len()).map(|(_, isp)| format!("isp-{isp}"));
                prop_assert_eq!(&filter.tables().test(sender).unwrap().isp, &owner);
                let before = filter.tables().isp_counters().unwrap();
                let packet = syn_from(sender, 3101).build();
                prop_assert_eq!(filter.judge(&packet).reason, expected, "on {}", sender);
                prop_assert_eq!(filter.judge(&packet).reason, expected, "on {}, now remembered", sender);
                let after = filter.tables().isp_counters().unwrap();
                let moved: Vec<_> = before
                    .iter()
                    .zip(&after)
                    .filter(|(before, after)| before.passed_packets != after.passed_packets)
                    .map(|(_, after)| after.name.clone())
                    .collect();
                let counted = matches!(expected, Reason::Allowed | Reason::NoRule);
                prop_assert_eq!(moved, if counted { vec![owner.unwrap_or_default()] } else { vec![] });
            }
            Ok(())
        })
        .unwrap();
}

#[test]
fn limits_agree_with_a_model_that_only_counts() {
    let Some(mut filter) = FilterUnderTest::bring_up(&[]) else { return };
    let mut runner =
        TestRunner::new(ProptestConfig { cases: 64, failure_persistence: None, ..ProptestConfig::default() });
    let filter = std::cell::RefCell::new(&mut filter);
    let next = std::cell::Cell::new(0u32);
    let packets = vec((0u8..3, any::<bool>(), any::<bool>()), 1..25);
    runner
        .run(&(1u32..8, 1u32..4, packets), |(packet_burst, connect_burst, packets)| {
            let mut filter = filter.borrow_mut();
            // Sources that no case before has used.
            next.set(next.get() + 1);
            let source = |last: u8, v4: bool| -> IpAddr {
                let [_, a, b, c] = next.get().to_be_bytes();
                match v4 {
                    true => [10, b, c, last].into(),
                    false => {
                        [0x2001, 0xdb8, u16::from(a), u16::from(b) << 8 | u16::from(c), u16::from(last), 0, 0, 1].into()
                    }
                }
            };
            let limits = SourceLimits {
                packets_per_s: 1,
                packet_burst,
                connects_per_s: 1,
                connect_burst,
                ipv6_bits: 80,
                ..SourceLimits::default()
            };
            filter.tables().set_limits(&limits).unwrap();
            let mut used = std::collections::HashMap::<IpAddr, (u32, u32)>::new();
            let began = std::time::Instant::now();
            let mut seen = Vec::new();
            for (last, v4, is_syn) in packets {
                let source = source(last, v4);
                let (sent, opened) = used.entry(source).or_default();
                let expected = if *sent == packet_burst {
                    Reason::PacketRate
                } else {
                    *sent += 1;
                    if is_syn && *opened == connect_burst {
                        Reason::ConnectRate
                    } else {
                        *opened += u32::from(is_syn);
                        Reason::NoRule
                    }
                };
                let packet = syn_from(source, 3101).tcp_byte(13, if is_syn { 0x02 } else { 0x10 });
                seen.push((source, is_syn, expected, filter.judge(&packet.build()).reason));
            }
            // At one a second nothing comes back in this time; a machine that took longer has shown nothing.
            prop_assume!(began.elapsed() < Duration::from_millis(900));
            for (source, is_syn, expected, reason) in seen {
                prop_assert_eq!(reason, expected, "{} {}", source, is_syn);
            }
            Ok(())
        })
        .unwrap();
}

#[test]
fn arbitrary_bytes_get_a_verdict_and_one_count() {
    let Some(mut filter) = FilterUnderTest::bring_up(&[]) else { return };
    filter.set_rules(&["deny 0.0.0.0/1", "deny ::/1"]);
    let mut runner =
        TestRunner::new(ProptestConfig { cases: 2000, failure_persistence: None, ..ProptestConfig::default() });
    let filter = std::cell::RefCell::new(&mut filter);
    let ethertype = prop_oneof![Just(0x0800u16), Just(0x86dd), Just(0x8100), Just(0x88a8), any::<u16>()];
    runner
        .run(&(ethertype, vec(any::<u8>(), 0..200)), |(ethertype, rest)| {
            let mut frame = vec![2; 12];
            frame.extend_from_slice(&ethertype.to_be_bytes());
            frame.extend_from_slice(&rest);
            // `judge` asserts that exactly one counter moved, by one packet.
            let judged = filter.borrow_mut().judge(&frame);
            prop_assert_eq!(judged.bytes, frame.len() as u64);
            prop_assert_eq!(judged.verdict, judged.reason.verdict());
            Ok(())
        })
        .unwrap();
}
