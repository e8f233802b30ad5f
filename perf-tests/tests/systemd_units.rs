//! The units and their companions, judged by systemd's own tools on copies: nothing is installed, nothing is started.
//!
//! `systemd-analyze verify` forgives a misspelt key with a line on stderr and exit code 0, so here every line about one of
//! ours is a failure. What it does not look at at all (capabilities, ordering targets) is looked at by name.
//!
//! It stands in this crate because it tests what is shipped from outside, as everything here does.
#![allow(clippy::unwrap_used)] // In a test, a panic is the report.

mod missing_part;

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use missing_part::{Kind, or_skip};
use tempfile::TempDir;

const UNITS: [&str; 2] = ["push-daemon.service", "logic-tier.service"];

/// Exposure that each unit reached, rounded up, in tenths: a line of sandboxing that goes missing shows here.
const EXPOSURE_LIMITS: [(&str, u32); 2] = [("push-daemon.service", 20), ("logic-tier.service", 12)];

fn shipped(name: &str) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../systemd").join(name);
    fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// Where systemd keeps the host's own units, or `None` after saying that `test` is skipped because systemd is not here.
/// The folder alone says nothing: many packages put units there on machines without systemd.
fn systemd(test: &str) -> Option<PathBuf> {
    let runs = match Command::new("systemd-analyze").arg("--version").output() {
        Ok(output) if output.status.success() => Ok(()),
        Ok(output) => Err(format!("systemd-analyze --version says {}", output.status)),
        Err(error) => Err(format!("systemd-analyze does not run: {error} (cargo xtask setup)")),
    };
    let folder = runs.and_then(|()| {
        let mut folders = ["/usr/lib/systemd/system", "/lib/systemd/system"].map(PathBuf::from).into_iter();
        let found = folders.find(|folder| folder.join("sysinit.target").exists());
        found.ok_or_else(|| "systemd's own units are not where they are looked for".to_owned())
    });
    or_skip(Kind::Peers, test, folder)
}

/// What a tool of systemd, which is here, makes of `arguments`.
fn tool(name: &str, arguments: &[&str], environment: &[(&str, &str)]) -> Output {
    let output = Command::new(name).args(arguments).envs(environment.iter().copied()).output();
    output.unwrap_or_else(|error| panic!("{name} does not run, though systemd is here: {error}"))
}

fn said(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr)
}

/// The units in a directory of their own, with stubs for the binaries they name, and `edit` made to each.
struct Copies {
    directory: TempDir,
}

impl Copies {
    fn new(edit: &dyn Fn(String) -> String) -> Self {
        let directory = TempDir::new().unwrap();
        let copies = Self { directory };
        let binaries = copies.path("bin");
        fs::create_dir(&binaries).unwrap();
        for binary in ["push-daemon", "logic-tier", "systemd-tmpfiles"] {
            let stub = binaries.join(binary);
            fs::write(&stub, "#!/bin/sh\n").unwrap();
            fs::set_permissions(&stub, fs::Permissions::from_mode(0o755)).unwrap();
        }
        for unit in UNITS {
            let text = shipped(unit).replace("/usr/bin/", &format!("{}/", binaries.display()));
            fs::write(copies.path(unit), edit(text)).unwrap();
        }
        copies
    }

    fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    /// The complaints about our units; empty when all is well.
    fn verify(&self) -> Vec<String> {
        let paths = UNITS.map(|unit| self.path(unit).display().to_string());
        // The colon at the end keeps the host's own units within reach, for sysinit.target and the like.
        let search = format!("{}:", self.directory.path().display());
        let arguments = ["verify", "--man=no", &paths[0], &paths[1]];
        let output = tool("systemd-analyze", &arguments, &[("SYSTEMD_UNIT_PATH", &search)]);
        let text = said(&output);
        let ours = |line: &&str| UNITS.iter().any(|unit| line.contains(unit));
        let mut complaints: Vec<String> = text.lines().filter(ours).map(str::to_owned).collect();
        if !output.status.success() {
            complaints.push(format!("exit {:?}: {text}", output.status.code()));
        }
        complaints
    }

    /// Whether `unit` is no more exposed than `limit`, and what the tool said.
    fn is_within(&self, unit: &str, limit: u32) -> (bool, String) {
        let (path, threshold) = (self.path(unit).display().to_string(), format!("--threshold={limit}"));
        let arguments = ["security", "--offline=true", "--no-pager", &threshold, &path];
        let search = format!("{}:", self.directory.path().display());
        let output = tool("systemd-analyze", &arguments, &[("SYSTEMD_UNIT_PATH", &search)]);
        (output.status.success(), said(&output))
    }
}

/// The values of all lines `key=` of a unit, split at spaces.
fn values<'a>(unit: &'a str, keys: &'a [&str]) -> impl Iterator<Item = &'a str> {
    unit.lines()
        .filter_map(|line| line.split_once('='))
        .filter(|(key, _)| keys.contains(key))
        .flat_map(|(_, value)| value.split_whitespace())
}

#[test]
fn systemd_has_nothing_to_say_about_the_units() {
    if systemd("systemd_has_nothing_to_say_about_the_units").is_some() {
        assert_eq!(Copies::new(&|text| text).verify(), Vec::<String>::new());
    }
}

#[test]
fn a_typo_in_a_unit_is_seen() {
    if systemd("a_typo_in_a_unit_is_seen").is_none() {
        return;
    }
    let rows: [(&str, &str, &str); 8] = [
        ("a misspelt key", "WatchdogSec=", "WatchdogSecs="),
        ("a misspelt section", "[Service]", "[Servise]"),
        ("a wrong type", "Type=notify", "Type=notifyy"),
        ("a wrong time", "WatchdogSec=30", "WatchdogSec=30parsecs"),
        ("an unknown system call group", "@system-service", "@sistem-service"),
        ("an unknown system call", "LockPersonality=yes", "SystemCallFilter=opensesame"),
        ("a binary that is not there", "/push-daemon --config", "/push-demon --config"),
        ("an unknown address family", "AF_INET6", "AF_INET7"),
    ];
    for (name, right, wrong) in rows {
        let complaints = Copies::new(&|text| text.replace(right, wrong)).verify();
        assert!(!complaints.is_empty(), "{name} goes unseen");
    }
}

#[test]
fn the_units_are_no_more_exposed_than_they_have_to_be() {
    if systemd("the_units_are_no_more_exposed_than_they_have_to_be").is_none() {
        return;
    }
    let shipped = Copies::new(&|text| text);
    let opened = Copies::new(&|text| text.replace("ProtectSystem=strict", "").replace("RestrictNamespaces=yes", ""));
    for (unit, limit) in EXPOSURE_LIMITS {
        let ((holds, text), (opened, _)) = (shipped.is_within(unit, limit), opened.is_within(unit, limit));
        assert!(holds, "{text}");
        assert!(!opened, "{unit} without two of its protections still passes");
    }
}

#[test]
fn capabilities_and_targets_exist_by_name() {
    let Some(units_of_the_host) = systemd("capabilities_and_targets_exist_by_name") else { return };
    let known = said(&tool("systemd-analyze", &["capability", "--no-pager"], &[])).to_lowercase();
    for unit in UNITS {
        let text = shipped(unit);
        for capability in values(&text, &["AmbientCapabilities", "CapabilityBoundingSet"]) {
            assert!(capability.starts_with("CAP_"), "{unit}: {capability}");
            // An old systemd does not list them.
            if known.contains("cap_") {
                let listed = known.split_whitespace().any(|word| word == capability.to_lowercase());
                assert!(listed, "{unit} names {capability}, which systemd does not know");
            }
        }
        for other in values(&text, &["After", "Wants", "Requires", "WantedBy"]) {
            let exists = UNITS.contains(&other) || units_of_the_host.join(other).exists();
            assert!(exists, "{unit} names {other}, which is no unit");
        }
    }
}

/// The daemon cannot do without these calls, so the filter may not lose them: a private descriptor table per shard,
/// pinned shards, io_uring, BPF.
#[test]
fn the_edge_may_make_the_calls_that_it_needs() {
    if systemd("the_edge_may_make_the_calls_that_it_needs").is_none() {
        return;
    }
    let unit = shipped("push-daemon.service");
    let filters: Vec<&str> = values(&unit, &["SystemCallFilter"]).collect();
    // `~` stands before the first of a line's groups and holds for all of them.
    let line_is_deny = |group: &str| unit.lines().any(|l| l.starts_with("SystemCallFilter=~") && l.contains(group));
    let (denied, granted): (Vec<&str>, Vec<&str>) =
        filters.into_iter().partition(|group| line_is_deny(group.trim_start_matches('~')));
    let granted: BTreeSet<String> = granted.into_iter().flat_map(expand).collect();
    let denied: BTreeSet<String> =
        denied.into_iter().map(|group| group.trim_start_matches('~')).flat_map(expand).collect();
    for call in
        ["unshare", "sched_setaffinity", "io_uring_setup", "io_uring_enter", "bpf", "perf_event_open", "epoll_wait"]
    {
        assert!(granted.contains(call) && !denied.contains(call), "{call} is not let through");
    }
    for call in ["mount", "setuid", "init_module", "ptrace", "reboot"] {
        assert!(!granted.contains(call) || denied.contains(call), "{call} is let through");
    }
}

/// The system calls of a group, groups within it included; a plain name is itself.
fn expand(group: &str) -> BTreeSet<String> {
    if !group.starts_with('@') {
        return BTreeSet::from([group.to_owned()]);
    }
    let output = tool("systemd-analyze", &["syscall-filter", "--no-pager", group], &[]);
    let text = said(&output);
    let members =
        text.lines().filter(|line| line.starts_with(' ')).map(str::trim).filter(|line| !line.starts_with('#'));
    members.flat_map(expand).collect()
}

/// A root of its own for sysusers and tmpfiles, with the shipped files in it.
struct OwnRoot(TempDir);

impl OwnRoot {
    fn new() -> Self {
        let root = Self(TempDir::new().unwrap());
        for (name, file) in [("users.conf", "push-appliance.sysusers"), ("files.conf", "push-appliance.tmpfiles")] {
            fs::write(root.at(name), shipped(file)).unwrap();
        }
        root
    }

    fn at(&self, path: &str) -> String {
        self.0.path().join(path).display().to_string()
    }

    /// Runs a tool on the file `name`.
    fn run(&self, program: &str, option: &[&str], name: &str) -> Output {
        let (root, file) = (format!("--root={}", self.0.path().display()), self.at(name));
        tool(program, &[&[root.as_str()], option, &[file.as_str()]].concat(), &[])
    }
}

#[test]
fn the_units_users_are_among_those_that_are_made() {
    if systemd("the_units_users_are_among_those_that_are_made").is_none() {
        return;
    }
    let root = OwnRoot::new();
    let output = root.run("systemd-sysusers", &["--dry-run"], "users.conf");
    assert!(output.status.success(), "{}", said(&output));
    for unit in UNITS {
        let text = shipped(unit);
        for user in values(&text, &["User", "Group"]) {
            assert!(said(&output).contains(&format!("'{user}'")), "{unit} runs as {user}, whom nobody makes");
        }
    }
    fs::write(root.at("typo.conf"), shipped("push-appliance.sysusers").replace("u     push", "x     push")).unwrap();
    let typo = root.run("systemd-sysusers", &["--dry-run"], "typo.conf");
    assert!(!typo.status.success(), "a typo goes unseen: {}", said(&typo));
}

/// For real: this version has no dry run for tmpfiles, and a real run says more.
#[test]
fn directories_come_out_as_the_units_expect() {
    const NAME: &str = "directories_come_out_as_the_units_expect";
    let is_root = rustix::process::geteuid().is_root();
    let root = is_root.then_some(()).ok_or_else(|| "only root can make users and directories".to_owned());
    if or_skip(Kind::Kernel, NAME, root).is_none() || systemd(NAME).is_none() {
        return;
    }
    let root = OwnRoot::new();
    fs::create_dir_all(root.at("etc")).unwrap();
    let users = root.run("systemd-sysusers", &[], "users.conf");
    assert!(users.status.success(), "{}", said(&users));
    fs::create_dir_all(root.at("sys/fs/bpf")).unwrap();
    let files = root.run("systemd-tmpfiles", &["--create"], "files.conf");
    assert!(files.status.success() && said(&files).is_empty(), "{}", said(&files));
    let of_user = |name: &str| -> u32 {
        let passwd = fs::read_to_string(root.at("etc/passwd")).unwrap();
        let line = passwd.lines().find(|line| line.starts_with(&format!("{name}:"))).unwrap();
        line.split(':').nth(2).unwrap().parse().unwrap()
    };
    for (path, mode, user) in [
        ("etc/push-appliance", 0o750, 0),
        ("sys/fs/bpf", 0o711, 0),
        ("sys/fs/bpf/push-appliance", 0o750, of_user("push-daemon")),
    ] {
        let metadata = fs::metadata(root.at(path)).unwrap();
        assert_eq!((metadata.mode() & 0o7777, metadata.uid()), (mode, user), "{path}");
    }
    fs::write(root.at("typo.conf"), shipped("push-appliance.tmpfiles").replace("0750", "07x0")).unwrap();
    let typo = root.run("systemd-tmpfiles", &["--create"], "typo.conf");
    assert!(!typo.status.success(), "a typo goes unseen: {}", said(&typo));
}

/// The keys of a sysctl file whose meaning this kernel does not know.
fn unknown_keys(text: &str) -> Vec<String> {
    text.lines()
        .map(str::trim)
        .filter(|line| !line.is_empty() && !line.starts_with(['#', ';']))
        .map(|line| line.split('=').next().unwrap_or_default().trim().to_owned())
        .filter(|key| !Path::new("/proc/sys").join(key.replace('.', "/")).exists())
        .collect()
}

#[test]
fn each_sysctl_key_exists() {
    let text = shipped("90-push-appliance.conf");
    if !Path::new("/proc/sys/net/core/somaxconn").exists() {
        println!("skipped: each_sysctl_key_exists: /proc/sys/net is not readable here");
        return;
    }
    assert_eq!(unknown_keys(&text), Vec::<String>::new());
    assert_eq!(unknown_keys(&text.replace("somaxconn", "somaxcon")), ["net.core.somaxcon"]);
    let values = text.lines().filter(|line| !line.starts_with('#') && !line.is_empty());
    assert!(values.clone().count() > 0 && values.clone().all(|line| line.contains(" = ")), "{text}");
}
