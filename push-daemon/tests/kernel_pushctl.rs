//! `pushctl` as an operator or a script runs it: on the pinned tables, without the daemon.
#![allow(clippy::unwrap_used)] // A test that fails by panicking has said what it had to say, its helpers included.

mod netns;
mod pushctl_rig;

use pushctl_rig::Pushctl;
use serde_json::json;

#[test]
fn rules_come_and_go() {
    let Some(pushctl) = Pushctl::new() else { return };
    pushctl.attach();
    assert_eq!(pushctl.says("filter list"), "no rules: everybody may reach the protected ports\n");
    assert_eq!(pushctl.says("filter add 203.0.113.0/24 --comment scanners"), "deny 203.0.113.0/24\n");
    assert_eq!(pushctl.says("filter add 203.0.113.9 --allow --ttl 10m"), "allow 203.0.113.9/32 for 10 min\n");
    assert_eq!(pushctl.says("filter add 2001:db8::/32 --deny --dry-run"), "would deny 2001:db8::/32\n");
    assert_eq!(
        pushctl.says("filter list"),
        "PREFIX          ACTION  HITS  BYTES  EXPIRES    BY  COMMENT\n\
         203.0.113.0/24  deny    0     0      never          scanners\n\
         203.0.113.9/32  allow   0     0      in 10 min\n"
    );
    assert_eq!(pushctl.says("filter test 203.0.113.8"), "203.0.113.8: drop (deny 203.0.113.0/24)\n");
    assert_eq!(pushctl.says("filter test 203.0.113.9"), "203.0.113.9: pass (allow 203.0.113.9/32, 10 min left)\n");
    assert_eq!(pushctl.says("filter test 198.51.100.1"), "198.51.100.1: pass (no rule)\n");
    assert_eq!(pushctl.says("filter test 192.0.2.1"), "192.0.2.1: pass (management prefix 192.0.2.0/24)\n");
    assert_eq!(pushctl.says("off"), "the filter is off: everything passes\n");
    assert_eq!(pushctl.says("filter test 203.0.113.8"), "203.0.113.8: pass (the filter is switched off)\n");
    pushctl.says("on");
    assert_eq!(
        pushctl.says("filter del 203.0.113.0/24 --dry-run"),
        "would remove deny 203.0.113.0/24, which decided 0 packets\n"
    );
    assert_eq!(pushctl.says("filter del 203.0.113.0/24"), "removed deny 203.0.113.0/24, which decided 0 packets\n");
    assert_eq!(pushctl.says("filter test 203.0.113.8"), "203.0.113.8: pass (no rule)\n");
}

#[test]
fn json_says_the_same_to_a_program() {
    let Some(pushctl) = Pushctl::new() else { return };
    pushctl.attach();
    assert_eq!(
        pushctl.json("filter add 192.0.0.0/8 --ttl 1h"),
        json!({ "prefix": "192.0.0.0/8", "action": "deny", "ttl_s": 3600, "comment": "", "dry_run": false,
                "replaced": null, "spared_management": ["192.0.2.0/24"] })
    );
    pushctl.says("filter add 2001:db8::1");
    let rules = pushctl.json("filter list");
    assert_eq!(
        rules[1],
        json!({ "prefix": "2001:db8::1/128", "action": "deny", "hits": 0, "bytes": 0, "expires_in_s": null,
                "comment": "", "origin": "operator" })
    );
    assert!(rules[0]["expires_in_s"].as_u64().is_some_and(|left| left <= 3600), "{rules}");

    let found = pushctl.json("filter test 2001:db8::1");
    assert_eq!((&found["verdict"], &found["reason"]), (&json!("drop"), &json!("denied")));
    assert_eq!(found["rule"]["prefix"], "2001:db8::1/128");

    let status = pushctl.json("status");
    assert_eq!(status["attached"]["interface"], "lo");
    assert_eq!(status["attached"]["mode"], "generic");
    assert_eq!(status["protected_ports"], json!([3101, 3102]));
    assert_eq!(status["management"], json!(["192.0.2.0/24"]));
    assert_eq!(status["rules"], json!({ "hosts_v4": 0, "prefixes_v4": 1, "hosts_v6": 1, "prefixes_v6": 0 }));
    assert_eq!(status["layout"], abi::LAYOUT);

    let stats = pushctl.json("stats");
    let names: Vec<_> =
        stats["reasons"].as_array().unwrap().iter().map(|count| count["reason"].as_str().unwrap()).collect();
    assert_eq!(names, abi::verdict::Reason::ALL.map(abi::verdict::Reason::name));

    let error: serde_json::Value = serde_json::from_str(&pushctl.fails(1, "filter del 10.0.0.0/8 --json")).unwrap();
    assert_eq!(error["error"], "there is no rule for 10.0.0.0/8 (see `pushctl filter list`)");
}

#[test]
fn mistakes_are_told_in_words_and_by_the_exit_code() {
    let Some(pushctl) = Pushctl::new() else { return };
    for verb in ["status", "stats", "filter list", "filter add 10.0.0.1"] {
        assert!(pushctl.fails(1, verb).starts_with("pushctl: no filter is pinned under "), "{verb}");
    }
    assert!(pushctl.fails(2, "filter add 10.0.0.0/33").contains("neither an address nor a prefix"));
    assert!(pushctl.fails(2, "filter add 10.0.0.1 --ttl 5").contains("such as 10m"));
    assert!(pushctl.fails(2, "filter add 10.0.0.1 --allow --deny").contains("cannot be used with"));
    assert!(
        pushctl
            .fails(2, "attach --interface lo --mode native --protect 1 --object OBJECT")
            .contains("`driver` or `generic`")
    );
    assert!(pushctl.fails(2, "attach --interface lo --mode generic --protect 0 --object OBJECT").contains("0"));
    assert!(
        pushctl
            .fails(1, "attach --interface lo --mode driver --protect 1 --object OBJECT")
            .contains("has no XDP support")
    );
    assert!(
        pushctl
            .fails(1, "attach --interface no0 --mode generic --protect 1 --object OBJECT")
            .contains("no interface no0")
    );
    pushctl.attach();
    assert!(pushctl.fails(1, "filter add 192.0.2.7").contains("lies within the management prefix 192.0.2.0/24"));
    assert!(pushctl.fails(1, "filter add 10.0.0.1/8").contains("did you mean 10.0.0.0/8 or 10.0.0.1/32?"));
}

#[test]
fn attach_says_what_it_found_and_detach_takes_all() {
    let Some(pushctl) = Pushctl::new() else { return };
    assert_eq!(pushctl.says("detach"), format!("nothing is pinned under {}\n", pushctl.bpffs.pin_root().display()));
    let attach = "attach --interface lo --mode generic --protect 3101 --object OBJECT";
    assert!(pushctl.says(attach).starts_with("the filter is attached, with no rules yet\n"));
    pushctl.says("filter add 10.0.0.0/8");
    assert_eq!(pushctl.json(attach)["arrival"], "adopted");
    assert!(pushctl.says("detach --dry-run").starts_with("would detach the filter and forget its rules:\n"));
    assert_eq!(pushctl.json("status")["attached"]["interface"], "lo");
    let said = pushctl.says("detach");
    assert!(said.starts_with("the filter is detached, and ") && said.contains(" pins under "), "{said}");
    assert!(!pushctl.bpffs.pin_root().exists());
}
