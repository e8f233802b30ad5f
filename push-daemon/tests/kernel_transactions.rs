//! Whole rule sets at once: what a file says is in force in one step, can be taken back, and comes back by itself.
#![allow(clippy::unwrap_used)] // A test that fails by panicking has said what it had to say, its helpers included.

mod filter_under_test;
mod netns;
mod packets;
mod pushctl_rig;

use std::{
    process::Stdio,
    sync::atomic::{AtomicBool, Ordering},
    thread,
    time::Duration,
};

use abi::verdict::Reason::*;
use filter_under_test::FilterUnderTest;
use ipnet::IpNet;
use netns::eventually;
use packets::tcp;
use push_daemon::kernel::{
    Action::{self, Allow, Deny},
    IspRate, IspSpec, KernelError, NewRule, Origin, Tables, WholeSet,
};
use pushctl_rig::Pushctl;

const SYN: &str = "203.0.113.9:4000 > 10.0.0.1:3101";

const TABLES: &str = r#"
[limits]
connects_per_s = 20
open_connections = 200

[[isp]]
name = "north"
prefixes = ["198.51.100.0/24", "2001:db8:1::/48"]
ingress = "50 Mbit/s"
egress = "200 Mbit/s"
egress_burst = "1 MiB"

[[rule]]
prefix = "203.0.113.0/24"
comment = "scanners"

[[rule]]
prefix = "203.0.113.9"
action = "allow"
ttl = "1h"
"#;

fn net(text: &str) -> IpNet {
    text.parse().unwrap()
}

fn set(rules: &[(&str, Action)]) -> WholeSet {
    let rules = rules.iter().map(|(prefix, action)| NewRule::new(net(prefix), *action)).collect();
    WholeSet { rules, ..WholeSet::default() }
}

fn prefixes(tables: &Tables) -> Vec<String> {
    tables.list().unwrap().iter().map(|rule| rule.prefix.to_string()).collect()
}

#[test]
fn a_file_is_compared_applied_confirmed_and_exported() {
    let Some(pushctl) = Pushctl::new() else { return };
    pushctl.attach();
    pushctl.says("filter add 192.0.0.0/24");
    pushctl.file("tables.toml", TABLES);
    let difference = "~ limits: none, per /32 and /64 -> 20 connections/s, 200 open connections, per /32 and /64\n\
                      + ISP north\n\
                      ~ 2 prefixes of ISPs\n\
                      - deny 192.0.0.0/24\n\
                      + deny 203.0.113.0/24\n\
                      + allow 203.0.113.9/32\n";
    assert_eq!(pushctl.says("diff FILES/tables.toml"), format!("would change:\n{difference}"));
    assert_eq!(pushctl.says("apply FILES/tables.toml --dry-run"), format!("would change:\n{difference}"));
    assert_eq!(pushctl.json("filter list").as_array().unwrap().len(), 1, "nothing has changed yet");

    let said = pushctl.says("apply FILES/tables.toml --confirm-within 10m");
    assert!(said.starts_with(difference) && said.contains("`pushctl confirm` keeps it"), "{said}");
    let status = pushctl.json("status");
    assert!(status["transaction"]["trial_s"].as_u64().is_some_and(|left| (590..=600).contains(&left)), "{status}");
    assert!(pushctl.fails(1, "apply FILES/tables.toml").contains("a change is on trial for "));
    assert_eq!(pushctl.says("confirm"), "confirmed: the tables in force stay, those before are gone\n");
    assert!(pushctl.fails(1, "confirm").contains("nothing to confirm"));
    assert!(pushctl.fails(1, "rollback").contains("nothing to go back to"));

    assert_eq!(pushctl.says("filter test 203.0.113.9"), "203.0.113.9: pass (allow 203.0.113.9/32, 60 min left)\n");
    assert_eq!(pushctl.says("filter test 203.0.113.8"), "203.0.113.8: drop (deny 203.0.113.0/24)\n");
    assert_eq!(pushctl.says("filter test 198.51.100.7"), "198.51.100.7: pass (no rule, ISP north)\n");
    assert_eq!(pushctl.says("limit show"), "20 connections/s, 200 open connections, per /32 and /64\n");
    assert_eq!(
        pushctl.says("isp list --prefixes"),
        "ISP                PREFIXES  INGRESS                        EGRESS\n\
         north              2         50 Mbit/s (burst 312500 B)     200 Mbit/s (burst 1 MiB)\n\
         \u{20} 198.51.100.0/24\n\
         \u{20} 2001:db8:1::/48\n"
            .replace("50 Mbit/s (burst 312500 B)     ", "50 Mbit/s (burst 312500 B)  ")
            .replace("INGRESS                        ", "INGRESS                     ")
    );

    pushctl.file("exported.toml", &pushctl.says("export"));
    assert_eq!(pushctl.says("diff FILES/exported.toml"), "nothing would change\n");
}

#[test]
fn what_was_applied_can_be_taken_back_and_a_bad_file_changes_nothing() {
    let Some(pushctl) = Pushctl::new() else { return };
    pushctl.attach();
    pushctl.says("filter add 192.0.0.0/24");
    pushctl.file("tables.toml", TABLES);
    pushctl.says("apply FILES/tables.toml");
    assert_eq!(pushctl.json("status")["transaction"]["can_roll_back"], true);
    assert_eq!(pushctl.says("rollback"), "rolled back: the tables before are in force again\n");
    assert_eq!(pushctl.json("filter list")[0]["prefix"], "192.0.0.0/24");
    assert_eq!(pushctl.says("isp list"), "no ISPs\n");

    for (text, word) in [
        ("[[rule]]\nprefix = \"10.0.0.0/33\"", "line 2"),
        ("[[rule]]\nprefix = \"10.0.0.1/8\"", "did you mean 10.0.0.0/8"),
        ("[[rule]]\nprefix = \"192.0.2.0/25\"", "lies within the management prefix"),
        ("[[rule]]\nprefix = \"10.0.0.0/8\"\n[[rule]]\nprefix = \"10.0.0.0/8\"\naction = \"allow\"", "there twice"),
        ("[[isp]]\nname = \"North\"", "a name has"),
        ("[[isp]]\nname = \"north\"\ningress = \"100 bit/s\"", "is below"),
        ("[[isp]]\nname = \"north\"\nprefix_file = \"nowhere.txt\"", "cannot read"),
        ("[limits]\npacket_burst = 5", "limits nothing"),
        ("[limits]\nipv4_bits = 33", "1 to 32 bits"),
    ] {
        pushctl.file("bad.toml", text);
        let error = pushctl.fails(1, "apply FILES/bad.toml");
        assert!(error.contains(word), "{text}: {error}");
    }
    assert!(pushctl.fails(2, "apply FILES/tables.toml --confirm-within 0s").contains("more than no time"));
    assert_eq!(pushctl.json("filter list")[0]["prefix"], "192.0.0.0/24");
}

#[test]
fn a_list_is_imported_in_one_step_and_exported_as_it_came() {
    let Some(pushctl) = Pushctl::new() else { return };
    pushctl.attach();
    pushctl.says("filter add 203.0.113.0/24 --allow");
    pushctl.file("drop.txt", "; a list\n203.0.113.0/24 ; SBL1\n2001:db8::/32\n\n198.51.100.7 # one host\n");
    let said = pushctl.says("filter import FILES/drop.txt --ttl 1d");
    assert!(
        said.starts_with("+ deny 198.51.100.7/32\n~ allow -> deny 203.0.113.0/24\n+ deny 2001:db8::/32\n"),
        "{said}"
    );
    assert_eq!(pushctl.says("filter export"), "198.51.100.7/32 # one host\n203.0.113.0/24 # SBL1\n2001:db8::/32\n");
    assert_eq!(pushctl.says("filter export --allow"), "");
    pushctl.says("rollback");
    assert_eq!(pushctl.says("filter export --allow"), "203.0.113.0/24\n");
    pushctl.file("bad.txt", "10.0.0.0/8\nnonsense\n");
    assert!(pushctl.fails(1, "filter import FILES/bad.txt").contains("line 2: \"nonsense\" is neither"));
    assert_eq!(pushctl.json("filter list").as_array().unwrap().len(), 1);
}

#[test]
fn nobody_locks_himself_out_unless_he_insists() {
    let Some(mut pushctl) = Pushctl::new() else { return };
    pushctl.attach();
    pushctl.operator = Some("198.51.100.7");
    for line in ["filter add 198.51.100.0/24", "filter add 198.51.100.7", "filter add 0.0.0.0/0"] {
        assert!(pushctl.fails(1, line).contains("you are connected from 198.51.100.7"), "{line}");
    }
    pushctl.says("filter add 198.51.101.0/24");
    pushctl.file("out.toml", "[[rule]]\nprefix = \"198.51.100.0/24\"\n");
    assert!(pushctl.fails(1, "apply FILES/out.toml").contains("198.51.100.0/24 would be denied"));
    pushctl.file("out.txt", "198.51.0.0/16\n");
    assert!(pushctl.fails(1, "filter import FILES/out.txt").contains("198.51.0.0/16 would be denied"));
    pushctl.file(
        "in.toml",
        "[[rule]]\nprefix = \"198.51.100.0/24\"\n[[rule]]\nprefix = \"198.51.100.7\"\naction = \"allow\"\n",
    );
    pushctl.says("apply FILES/in.toml");
    pushctl.says("filter add 198.51.0.0/16");
    assert_eq!(pushctl.says("filter add 198.51.100.7 --force"), "deny 198.51.100.7/32 (in place of allow)\n");
    assert_eq!(
        pushctl.says("filter add 192.0.2.0/24 --force"),
        "deny 192.0.2.0/24\nmanagement still passes: 192.0.2.0/24\n"
    );
    assert_eq!(pushctl.says("filter test 192.0.2.9"), "192.0.2.9: pass (management prefix 192.0.2.0/24)\n");
}

#[test]
fn a_trial_that_nobody_confirms_ends_in_the_packet_path_by_itself() {
    let Some(mut filter) = FilterUnderTest::bring_up(&[]) else { return };
    filter.set_rules(&["deny 203.0.113.0/24"]);
    let packet = tcp(SYN).build();
    filter.tables().apply(&set(&[]), Some(Duration::from_secs(1))).unwrap();
    assert_eq!(filter.judge(&packet).reason, NoRule);
    // Nothing but packets touches the tables meanwhile.
    eventually("the trial ends", || filter.judge(&packet).reason == Denied);
    let tables = filter.tables();
    assert_eq!(prefixes(tables), ["203.0.113.0/24"]);
    assert_eq!(tables.transaction().unwrap().trial_s, None);
    assert!(matches!(tables.confirm(), Err(KernelError::NothingToConfirm)), "too late");
    tables.add(&NewRule::new(net("10.0.0.0/8"), Deny)).unwrap();
    assert!(matches!(tables.rollback(), Err(KernelError::NothingToRollBack)));
    assert_eq!(prefixes(tables), ["10.0.0.0/8", "203.0.113.0/24"]);
}

#[test]
fn a_rollback_during_a_trial_and_a_confirmation_in_time() {
    let Some(mut filter) = FilterUnderTest::bring_up(&[]) else { return };
    filter.set_rules(&["deny 203.0.113.0/24"]);
    let packet = tcp(SYN).build();
    let trial = Some(Duration::from_secs(3600));
    filter.tables().apply(&set(&[("203.0.113.9/32", Allow)]), trial).unwrap();
    assert_eq!(filter.judge(&packet).reason, Allowed);
    filter.tables().rollback().unwrap();
    assert_eq!(filter.judge(&packet).reason, Denied);
    filter.tables().apply(&set(&[("203.0.113.9/32", Allow)]), trial).unwrap();
    filter.tables().confirm().unwrap();
    assert_eq!(filter.judge(&packet).reason, Allowed);
    assert_eq!(filter.tables().transaction().unwrap().trial_s, None);
}

#[test]
fn the_tiers_bans_outlive_files_and_roll_backs() {
    let Some(mut filter) = FilterUnderTest::bring_up(&[]) else { return };
    let tables = filter.tables();
    let ban = |prefix: &str| NewRule::new(net(prefix), Deny).by(Origin::Tier).because("spam");
    tables.add(&ban("203.0.113.9/32")).unwrap();
    tables.apply(&set(&[("10.0.0.0/8", Deny)]), Some(Duration::from_secs(3600))).unwrap();
    tables.add(&ban("203.0.113.10/32")).unwrap();
    tables.add(&NewRule::new(net("11.0.0.0/8"), Deny)).unwrap();
    assert_eq!(prefixes(tables), ["10.0.0.0/8", "11.0.0.0/8", "203.0.113.9/32", "203.0.113.10/32"]);
    tables.rollback().unwrap();
    assert_eq!(prefixes(tables), ["203.0.113.9/32", "203.0.113.10/32"], "what an operator did goes with the trial");
    let rule = tables.find(net("203.0.113.10/32")).unwrap();
    assert_eq!((rule.comment.as_str(), rule.origin), ("spam", Origin::Tier));
}

#[test]
fn rules_keep_their_counts_and_isps_their_numbers() {
    let Some(mut filter) = FilterUnderTest::bring_up(&[]) else { return };
    let isp = |name: &str| IspSpec { name: name.into(), ..IspSpec::default() };
    let both = WholeSet { isps: vec![isp("north"), isp("south")], ..set(&[("203.0.113.0/24", Deny)]) };
    filter.tables().apply(&both, None).unwrap();
    let packet = tcp(SYN).build();
    for _ in 0..3 {
        filter.judge(&packet);
    }
    let number = |tables: &Tables, name: &str| {
        tables.isps().unwrap().into_iter().find(|isp| isp.name == name).map(|isp| isp.number)
    };
    let south = number(filter.tables(), "south").unwrap();
    let mut later = set(&[("203.0.113.0/24", Deny), ("10.0.0.0/8", Deny)]);
    later.isps = vec![isp("west"), isp("south")];
    let tables = filter.tables();
    let applied = tables.apply(&later, None).unwrap();
    assert_eq!(
        (applied.diff.rules.len(), applied.diff.isps_added, applied.diff.isps_removed),
        (1, vec!["west".to_owned()], vec!["north".to_owned()])
    );
    assert_eq!(tables.find(net("203.0.113.0/24")).unwrap().hits, 3);
    assert_eq!(number(tables, "south"), Some(south));
    assert_eq!(number(tables, "north"), None);
    tables.set_isp(&IspSpec { egress: IspRate { bytes_per_s: 5_000, burst_bytes: 0 }, ..isp("west") }).unwrap();
    assert_eq!(tables.remove_isp("south").unwrap(), 0);
    assert!(matches!(tables.remove_isp("south"), Err(KernelError::NoIsp { .. })));
}

#[test]
fn packets_see_one_set_or_the_other_and_never_half_of_either() {
    let Some(mut filter) = FilterUnderTest::bring_up(&[]) else { return };
    let pin_root = filter.pin_root();
    let packet = tcp(SYN).build();
    // Half of the first set would be its deny without its allow.
    let first = set(&[("203.0.113.0/24", Deny), ("203.0.113.9/32", Allow)]);
    filter.tables().apply(&first, None).unwrap();
    let done = AtomicBool::new(false);
    thread::scope(|scope| {
        scope.spawn(|| {
            let mut tables = Tables::open(&pin_root).unwrap();
            let second = set(&[]);
            for round in 0..40 {
                tables.apply(if round % 2 == 0 { &second } else { &first }, None).unwrap();
            }
            done.store(true, Ordering::Relaxed);
        });
        let mut seen = [false; 2];
        while !done.load(Ordering::Relaxed) {
            match filter.judge(&packet).reason {
                Allowed => seen[0] = true,
                NoRule => seen[1] = true,
                other => panic!("half a set: {}", other.name()),
            }
        }
        assert_eq!(seen, [true; 2], "both sets were met");
    });
}

#[test]
fn editors_at_the_same_time_lose_nothing() {
    let Some(pushctl) = Pushctl::new() else { return };
    pushctl.attach();
    for list in 0..4 {
        let lines: String = (0..50).map(|host| format!("10.{list}.0.{host}\n")).collect();
        pushctl.file(&format!("{list}.txt"), &lines);
    }
    thread::scope(|scope| {
        for editor in 0..4 {
            let pushctl = &pushctl;
            scope.spawn(move || {
                pushctl.says(&format!("filter import FILES/{editor}.txt"));
                for host in 0..10 {
                    pushctl.says(&format!("filter add 10.1{editor}.0.{host}"));
                }
            });
        }
    });
    let rules = pushctl.json("filter list");
    assert_eq!(rules.as_array().unwrap().len(), 4 * (50 + 10));
}

#[test]
fn an_editor_that_is_killed_leaves_one_set_or_the_other() {
    let Some(pushctl) = Pushctl::new() else { return };
    pushctl.attach();
    const RULES: u32 = 20_000;
    let file = |first: u32, action: &str| -> String {
        let rule =
            |at: u32| format!("[[rule]]\nprefix = \"10.{first}.{}.{}\"\naction = \"{action}\"\n", at / 250, at % 250);
        (0..RULES).map(rule).collect()
    };
    pushctl.file("one.toml", &file(1, "deny"));
    pushctl.file("two.toml", &file(2, "allow"));
    pushctl.says("apply FILES/one.toml");
    let (mut killed, mut delay) = (0, Duration::ZERO);
    for round in 0..30 {
        let file = if round % 2 == 0 { "two" } else { "one" };
        let mut editor = pushctl
            .namespace
            .run(|| pushctl.command(&format!("apply FILES/{file}.toml")).stdout(Stdio::null()).spawn().unwrap());
        // No condition tells how far it is: each round lets it get a little farther.
        thread::sleep(delay);
        delay += Duration::from_millis(25);
        editor.kill().unwrap();
        killed += u32::from(!editor.wait().unwrap().success());
        let rules = pushctl.json("filter list");
        let rules = rules.as_array().unwrap();
        let first = &rules[0]["action"];
        assert_eq!(rules.len(), RULES as usize, "after round {round}");
        assert!(rules.iter().all(|rule| rule["action"] == *first), "half of either after round {round}");
    }
    assert!(killed > 0, "none was killed in time");
    pushctl.says("apply FILES/one.toml");
    assert_eq!(pushctl.json("filter list")[0]["action"], "deny");
}
