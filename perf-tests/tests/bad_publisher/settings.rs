//! Settings that cannot be used, as `--check --config FILE` tells of them.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use tempfile::TempDir;

/// Exit status and all that was said.
fn run_check(daemon: &str, file: &Path) -> (bool, String) {
    let binary = std::env::var_os("PUSH_BIN_DIR").map_or_else(
        // target/PROFILE/deps/TEST: the binaries are one floor up.
        || std::env::current_exe().unwrap().parent().unwrap().parent().unwrap().to_owned(),
        PathBuf::from,
    );
    let output = Command::new(binary.join(daemon)).arg("--check").arg("--config").arg(file).output().unwrap();
    let said = [output.stdout, output.stderr].concat();
    (output.status.success(), String::from_utf8_lossy(&said).into_owned())
}

/// The same for a file with this text, which is called FILE.
fn check(daemon: &str, toml: &str) -> (bool, String) {
    let directory = TempDir::new().unwrap();
    let file = directory.path().join("settings.toml");
    fs::write(&file, toml).unwrap();
    let (is_good, said) = run_check(daemon, &file);
    (is_good, said.replace(&*file.to_string_lossy(), "FILE"))
}

/// The daemon, the file, and what has to be said of it.
type Row<'a> = (&'a str, &'a str, &'a [&'a str]);

#[test]
fn settings_that_cannot_be_used_are_named_by_file_line_and_nearest_key() {
    let rows: [Row<'_>; 20] = [
        ("push-daemon", "[listen]\ntpc = []\n", &["FILE:2:1", "`tpc`", "did you mean `tcp`?"]),
        ("push-daemon", "# edge\n\n[limts]\n", &["FILE:3:2", "`limts`", "did you mean `limits`?"]),
        ("push-daemon", "[limits]\nhandshake_timeut_ms = 1\n", &["FILE:2:1", "`handshake_timeout_ms`"]),
        ("push-daemon", "[limits]\ndebt_bytes = \"many\"\n", &["FILE:2:14", "invalid type"]),
        ("push-daemon", "[listen]\ntcp = [\"somewhere\"]\n", &["FILE:2:", "address"]),
        ("push-daemon", "[node]\nnumber = 70000\n", &["FILE:2:10", "70000"]),
        ("push-daemon", "[listen]\ntcp = [\n", &["FILE:"]),
        ("push-daemon", "[listen]\ntcp = []\nwebsocket = []\n", &["listen", "at least one address"]),
        ("push-daemon", "[trunk]\nlines = []\n", &["FILE:2:9", "at least one"]),
        ("push-daemon", "[limits]\npacket_timeout_ms = 0\n", &["FILE:2:21", "from 100 to"]),
        ("push-daemon", "[trunk]\nlines = [{ name = \"A\" }]\n", &["FILE:2:", "address"]),
        ("logic-tier", "[http]\nlisen = \"127.0.0.1:1\"\n", &["FILE:2:1", "`lisen`", "did you mean `listen`?"]),
        ("logic-tier", "[htp]\n", &["FILE:1:2", "`htp`", "did you mean `http`?"]),
        ("logic-tier", "[admission]\nmode = \"tokn\"\n", &["FILE:2:", "`tokn`", "did you mean `token`?"]),
        ("logic-tier", "[bus]\npartitions = \"four\"\n", &["FILE:2:14", "invalid type", "whole number"]),
        ("logic-tier", "[bus]\npartitions = 0\n", &["FILE:2:14", "from 1 to 1024"]),
        ("logic-tier", "[http]\nlisten = \"everywhere\"\n", &["FILE:2:", "no address with a port"]),
        ("logic-tier", "[admission]\nmode = \"token\"\n", &["FILE:2:", "secret"]),
        ("logic-tier", "[admission]\nmode = \"token\"\nsecret = \"short\"\n", &["FILE:2:", "5 bytes", "at least 32"]),
        ("logic-tier", "[http]\napi_keys = [\"good\", \"\"]\n", &["FILE:2:21", "this key is empty"]),
    ];
    for (daemon, toml, words) in rows {
        let (is_good, said) = check(daemon, toml);
        assert!(!is_good, "{daemon} takes {toml:?}: {said}");
        for words in words {
            assert!(said.contains(words), "{daemon}: {words:?} in {said:?} of {toml:?}");
        }
        assert!(said.starts_with(&format!("{daemon}: ")) && said.lines().count() == 1, "{said:?}");
    }
}

#[test]
fn open_admission_is_not_served_beyond_loopback_unless_that_is_said() {
    let secret = "secret = \"a secret of at least thirty-two bytes\"\n";
    let open_http = "[http]\nlisten = \"0.0.0.0:3111\"\n";
    let keyed = "[http]\nlisten = \"[::]:3111\"\napi_keys = [\"k\"]\n";
    let rows = [
        (open_http.to_owned(), Some("FILE:2:10")),
        (keyed.to_owned(), Some("admission is open")),
        ("[trunk]\nlisten = \"192.0.2.1:3119\"\nsecret = \"s\"\n".to_owned(), Some("FILE:2:10")),
        (format!("{open_http}[admission]\nmode = \"token\"\n{secret}"), Some("api_keys")),
        (format!("{open_http}[admission]\nallow_open = false\n"), Some("allow_open = true")),
        (format!("{keyed}[admission]\nmode = \"token\"\n{secret}"), None),
        (format!("{open_http}[admission]\nallow_open = true\n"), None),
        ("[http]\nlisten = \"[::1]:3111\"\n[trunk]\nlisten = \"127.9.9.9:3119\"\n".to_owned(), None),
        (String::new(), None),
    ];
    for (toml, refusal) in rows {
        let (is_good, said) = check("logic-tier", &toml);
        assert_eq!(is_good, refusal.is_none(), "{toml}: {said}");
        assert!(said.contains(refusal.unwrap_or("the config can be used")), "{toml}: {said}");
        assert!(!said.contains("thirty-two"), "a secret in {said}");
    }
}

#[test]
fn a_file_that_is_not_there_is_named_and_a_good_one_is_told_so() {
    for daemon in ["push-daemon", "logic-tier"] {
        let (is_good, said) = check(daemon, "");
        assert!(is_good && !said.is_empty(), "{said}");
        let (is_good, said) = run_check(daemon, Path::new("/nonexistent/x.toml"));
        assert!(!is_good && said.contains("/nonexistent/x.toml"), "{said}");
    }
}
