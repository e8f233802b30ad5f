//! A mistake in the config is named by file, line, column and what would be right; what it opens has to be meant.

mod support;

use std::path::Path;

use logic_tier::config::{Config, default_bus_directory};
use settings::{Source, example};
use support::{Daemon, run, write_config};

/// What the package puts into /etc.
const SHIPPED: &str = include_str!("../../systemd/etc/logic-tier.toml");

fn mistake(text: &str) -> String {
    match Config::parse(&Source::new("tier.toml", text)) {
        Ok(config) => panic!("no mistake in `{text}`: {config:?}"),
        Err(error) => error.to_string(),
    }
}

#[test]
fn mistakes_are_located_and_explained() {
    let rows = [
        ("[http]\nlissten = \"127.0.0.1:1\"", "tier.toml:2:1: unknown key `lissten`: did you mean `listen`?"),
        ("[buss]\n", "tier.toml:1:2: unknown key `buss`: did you mean `bus`?"),
        ("[admission]\n  mode = \"tokn\"", "tier.toml:2:10: unknown value `tokn`: did you mean `token`?"),
        ("[chat]\nwhatever = 1", "tier.toml:2:1: unknown key `whatever`: valid here: operation, max_body_bytes"),
        (
            "[bus]\n\npartitions = 0",
            "tier.toml:3:14: invalid value: integer `0`, expected a whole number from 1 to 1024",
        ),
        (
            "[bus]\npartitions = -1",
            "tier.toml:2:14: invalid value: integer `-1`, expected a whole number from 1 to 1024",
        ),
        (
            "[chat]\noperation = \"1000\"",
            "tier.toml:2:13: invalid type: string \"1000\", expected a whole number from 1000 to 2147483647",
        ),
        (
            "[trunk]\nlisten = \"localhost\"",
            "tier.toml:2:10: `localhost` is no address with a port, such as \"127.0.0.1:3111\" or \"[::1]:3111\"",
        ),
        (
            "[admission]\nmode = \"token\"",
            "tier.toml:2:8: mode = \"token\" needs the HS256 key: set secret or secret_file in [admission]",
        ),
        (
            "[admission]\nmode = \"token\"\nsecret = \"short\"",
            "tier.toml:2:8: the HS256 key has 5 bytes; it needs at least 32",
        ),
        (
            "[trunk]\nsecret = \"a\"\nsecret_file = \"b\"",
            "tier.toml:3:15: [trunk] sets both secret and secret_file; keep one of them",
        ),
        ("[http]\napi_keys = [\"a\", \"\"]", "tier.toml:2:18: this key is empty, so that anybody has it; remove it"),
    ];
    for (text, expected) in rows {
        assert_eq!(mistake(text), expected);
    }
    assert!(mistake("[http\n").starts_with("tier.toml:1:6: "), "{}", mistake("[http\n"));
}

#[test]
fn what_other_hosts_can_reach_is_not_open_by_accident() {
    let token = "[admission]\nmode = \"token\"\nsecret = \"0123456789abcdef0123456789abcdef\"\n";
    let open = "admission is open";
    let no_key = "publishers need no key";
    let no_secret = "edges need no secret";
    let rows: [(&str, &str, &[&str]); 9] = [
        ("[http]\nlisten = \"127.0.0.2:1\"\n[trunk]\nlisten = \"[::1]:1\"\n", "", &[]),
        ("[http]\nlisten = \"0.0.0.0:1\"\n", "", &[no_key, open]),
        ("[http]\nlisten = \"0.0.0.0:1\"\napi_keys = [\"k\"]\n", "", &[open]),
        ("[http]\nlisten = \"[::]:1\"\n", token, &[no_key]),
        ("[http]\nlisten = \"192.0.2.1:1\"\napi_keys = [\"k\"]\n", token, &[]),
        ("[trunk]\nlisten = \"192.0.2.1:1\"\nsecret = \"s\"\n", "", &[open]),
        ("[trunk]\nlisten = \"192.0.2.1:1\"\n", token, &[no_secret]),
        ("[trunk]\nlisten = \"192.0.2.1:1\"\nsecret = \"s\"\n", token, &[]),
        ("[http]\nlisten = \"0.0.0.0:1\"\n[trunk]\nlisten = \"0.0.0.0:1\"\n", "[admission]\nallow_open = true", &[]),
    ];
    for (listen, admission, reasons) in rows {
        let text = format!("{listen}{admission}");
        match Config::parse(&Source::new("tier.toml", &*text)) {
            Ok(_) => assert!(reasons.is_empty(), "{text}"),
            Err(error) => {
                let error = error.to_string();
                assert!(error.starts_with("tier.toml:2:10: "), "{error}");
                assert!(error.contains("or set [admission] allow_open = true if that is meant"), "{error}");
                for reason in [open, no_key, no_secret] {
                    assert_eq!(error.contains(reason), reasons.contains(&reason), "{text}: {error}");
                }
            }
        }
    }
}

#[test]
fn the_shipped_file_explains_every_key_and_its_default() {
    let read = |text: &str| Source::new("logic-tier.toml", text).parse::<Config>().expect("the file is good");
    Config::parse(&Source::new("logic-tier.toml", SHIPPED)).expect("the file can be used as it is");
    let missing = example::missing_keys::<Config>(SHIPPED).expect("it is TOML with everything set");
    assert_eq!(missing, Vec::<String>::new());
    let defaults = format!("{:?}", Config::default());
    assert_eq!(format!("{:?}", read(&example::defaults(SHIPPED))), defaults);
    // The tier's file sets nothing by itself.
    assert_eq!(format!("{:?}", read(SHIPPED)), defaults);
    // The examples of what is unset are values that could be set.
    read(&example::everything(SHIPPED));
}

#[test]
fn secrets_are_read_from_files_and_never_shown() {
    let directory = tempfile::tempdir().expect("a temporary directory");
    std::fs::write(directory.path().join("jwt"), "0123456789abcdef0123456789abcdef\n").expect("it can be written");
    let path = directory.path().join("tier.toml");
    let text = "[admission]\nmode = \"token\"\nsecret_file = \"jwt\"\n[trunk]\nsecret = \"trunk-secret\"";
    let config = Config::parse(&Source::new(&path, text)).expect("a good config");
    assert!(config.admission.secret.matches(b"0123456789abcdef0123456789abcdef"));
    let shown = format!("{config:?}");
    assert!(!shown.contains("0123456789abcdef") && !shown.contains("trunk-secret"), "{shown}");
    let missing =
        Config::parse(&Source::new(&path, "[trunk]\nsecret_file = \"none\"")).expect_err("no such file").to_string();
    assert!(missing.starts_with(&format!("cannot read {}: ", directory.path().join("none").display())), "{missing}");
}

#[test]
fn the_bus_lives_where_the_environment_says() {
    type Variables<'a> = &'a [(&'a str, &'a str)];
    let rows: [(Variables<'_>, Option<&str>); 6] = [
        (&[("STATE_DIRECTORY", "/var/lib/a:/var/lib/b"), ("HOME", "/root")], Some("/var/lib/a/bus")),
        (&[("XDG_STATE_HOME", "/state"), ("HOME", "/root")], Some("/state/push-appliance/bus")),
        (&[("HOME", "/root")], Some("/root/.local/state/push-appliance/bus")),
        (&[("STATE_DIRECTORY", ""), ("HOME", "/root")], Some("/root/.local/state/push-appliance/bus")),
        (&[("HOME", "")], None),
        (&[], None),
    ];
    for (variables, expected) in rows {
        let variable =
            |name: &str| variables.iter().find(|(key, _)| *key == name).map(|(_, value)| (*value).to_owned());
        assert_eq!(default_bus_directory(variable).as_deref(), expected.map(Path::new), "{variables:?}");
    }
}

#[test]
fn check_judges_and_does_not_start() {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let config = write_config(directory.path(), "", "", "");
    let said = run(&["--config", &config.display().to_string(), "--check"]);
    assert!(said.success && said.stdout == "logic-tier: the config can be used\n", "{}{}", said.stdout, said.stderr);
    assert!(!directory.path().join("bus").exists());
    let config = write_config(directory.path(), "api_kees = []", "", "");
    let path = config.display().to_string();
    for arguments in [&["--config", &path, "--check"][..], &["--config", &path]] {
        let said = run(arguments);
        assert!(!said.success);
        assert_eq!(said.stderr, format!("logic-tier: {path}:3:1: unknown key `api_kees`: did you mean `api_keys`?\n"));
    }
    let said = run(&["--config", "/nonexistent/tier.toml", "--check"]);
    assert!(
        !said.success && said.stderr.starts_with("logic-tier: cannot read /nonexistent/tier.toml: "),
        "{}",
        said.stderr
    );
}

#[test]
fn a_bus_that_cannot_be_opened_says_what_to_do() {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let config = write_config(directory.path(), "", "", "");
    let path = config.display().to_string();
    let bus = directory.path().join("bus");
    // Another process has it.
    let daemon = Daemon::start(&config);
    let said = run(&["--config", &path]);
    let expected = format!(
        "logic-tier: the bus in {} is in use by another logic-tier; stop that one or set another [bus] directory\n",
        bus.display()
    );
    assert!(!said.success);
    assert_eq!(said.stderr, expected);
    assert!(daemon.terminate());
    // It was made with other partitions.
    let config = write_config(directory.path(), "", "", "partitions = 7");
    let said = run(&["--config", &config.display().to_string()]);
    assert!(!said.success);
    let expected = "was created with 4 partitions; set [bus] partitions = 4 instead of 7, or use a new directory\n";
    assert!(said.stderr.ends_with(expected), "{}", said.stderr);
    // It is no bus.
    std::fs::write(bus.join("bus.redb"), "not a bus, whatever its name says").expect("it can be written");
    let said = run(&["--config", &path]);
    assert!(!said.success && said.stderr.starts_with("logic-tier: cannot open the bus "), "{}", said.stderr);
    // A file is in the way, which not even root can write a directory into.
    std::fs::remove_dir_all(&bus).expect("it was made above");
    std::fs::write(&bus, "").expect("it can be written");
    let said = run(&["--config", &path]);
    let expected = format!("logic-tier: cannot create the bus directory {}: ", bus.display());
    assert!(!said.success && said.stderr.starts_with(&expected), "{}", said.stderr);
    assert!(said.stderr.ends_with("set [bus] directory to one that can be written\n"), "{}", said.stderr);
}

#[test]
fn an_address_that_is_taken_is_named() {
    let taken = std::net::TcpListener::bind("127.0.0.1:0").expect("a free port");
    let address = taken.local_addr().expect("it is bound");
    let directory = tempfile::tempdir().expect("a temporary directory");
    let text =
        format!("[http]\nlisten = \"{address}\"\n[bus]\ndirectory = \"{}\"\n", directory.path().join("bus").display());
    let path = directory.path().join("tier.toml");
    std::fs::write(&path, text).expect("it can be written");
    let said = run(&["--config", &path.display().to_string()]);
    let expected = format!("logic-tier: cannot listen on {address} ([http] listen): ");
    assert!(!said.success && said.stderr.starts_with(&expected), "{}", said.stderr);
}
