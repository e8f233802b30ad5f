//! What can be typed, with an example for each verb.

use std::{net::IpAddr, path::PathBuf, time::Duration};

use clap::{Args, Parser, Subcommand};
use clap_complete::Shell;
use ipnet::IpNet;

use crate::kernel::{
    DEFAULT_OBJECT, DEFAULT_PIN_ROOT, Fragments, Mode,
    file::{parse_prefix, quantity},
};

/// See and change what the kernel does for the edge; the daemon need not run.
#[derive(Parser)]
#[command(
    name = "pushctl",
    version,
    after_help = "Example:\n  pushctl filter add 203.0.113.0/24 --ttl 10m\n  pushctl filter test 203.0.113.9\n  pushctl stats --json"
)]
pub(super) struct Arguments {
    /// Answer with one JSON value
    #[arg(long, global = true)]
    pub(super) json: bool,
    /// Directory of the pins
    #[arg(long, global = true, value_name = "DIR", default_value = DEFAULT_PIN_ROOT)]
    pub(super) pin_root: PathBuf,
    #[command(subcommand)]
    pub(super) verb: Verb,
}

#[derive(Subcommand)]
pub(super) enum Verb {
    /// The rules: who may reach the protected ports
    Filter {
        #[command(subcommand)]
        verb: FilterVerb,
    },
    /// What one source may do to the protected ports
    Limit {
        #[command(subcommand)]
        verb: LimitVerb,
    },
    /// Internet service providers: their prefixes and rates
    Isp {
        #[command(subcommand)]
        verb: IspVerb,
    },
    /// Make a file the whole of rules, limits and ISPs, in one step for the packets
    #[command(
        after_help = "Example:\n  pushctl apply tables.toml --confirm-within 60s\n  pushctl confirm\nUndo:\n  pushctl rollback"
    )]
    Apply {
        /// The tables (see `pushctl export`)
        file: PathBuf,
        #[command(flatten)]
        how: Transact,
    },
    /// Keep what was applied, and forget what was before
    #[command(after_help = "Example:\n  pushctl confirm")]
    Confirm,
    /// Put in force again what was before the last `apply` or `import`
    #[command(after_help = "Example:\n  pushctl rollback")]
    Rollback,
    /// What `apply` would change
    #[command(after_help = "Example:\n  pushctl diff tables.toml")]
    Diff {
        /// The tables
        file: PathBuf,
    },
    /// Rules, limits and ISPs as a file that `apply` takes
    #[command(after_help = "Example:\n  pushctl export > tables.toml")]
    Export,
    /// What is in force, and where
    #[command(after_help = "Example:\n  pushctl status")]
    Status,
    /// Packets and bytes by verdict and reason, and by ISP
    #[command(after_help = "Example:\n  pushctl stats --json\n  pushctl stats --watch")]
    Stats {
        /// Again every second, with what came meanwhile, until interrupted
        #[arg(long)]
        watch: bool,
    },
    /// A live view: ISPs, reasons, busiest sources
    #[command(after_help = "Example:\n  pushctl top\nKeys:\n  q quits")]
    Top,
    /// Drops as they happen, a sample of them
    #[command(after_help = "Example:\n  pushctl events\n  pushctl events --count 10 --json")]
    Events {
        /// End after so many
        #[arg(long, value_name = "N")]
        count: Option<u64>,
        /// End after this time
        #[arg(long = "for", value_name = "TIME", value_parser = quantity::parse_time)]
        time: Option<Duration>,
    },
    /// Switch everything off without detaching it: every packet passes
    #[command(after_help = "Example:\n  pushctl off\nUndo:\n  pushctl on")]
    Off {
        /// Only say what would change
        #[arg(long)]
        dry_run: bool,
    },
    /// Switch on again
    #[command(after_help = "Example:\n  pushctl on\nUndo:\n  pushctl off")]
    On {
        /// Only say what would change
        #[arg(long)]
        dry_run: bool,
    },
    /// Put the filter on an interface, with the rules that are pinned already
    #[command(
        after_help = "Example:\n  pushctl attach --interface eth0 --mode driver --protect 3101,3102 --management 192.0.2.0/24\n\
                            Undo:\n  pushctl detach"
    )]
    Attach(AttachArguments),
    /// Take the filter off and remove its pins, rules included, whichever version made them
    #[command(
        after_help = "Example:\n  pushctl export > tables.toml\n  pushctl detach\nUndo:\n  pushctl attach ..., or restart push-daemon; then pushctl apply tables.toml"
    )]
    Detach {
        /// Only say what would go
        #[arg(long)]
        dry_run: bool,
    },
    /// Print the completions of a shell
    #[command(after_help = "Example:\n  pushctl completions bash > /etc/bash_completion.d/pushctl")]
    Completions {
        /// The shell
        shell: Shell,
    },
    /// Write the manual pages
    #[command(after_help = "Example:\n  pushctl man /usr/local/share/man/man1")]
    Man {
        /// The directory
        directory: PathBuf,
    },
}

/// How a transaction goes.
#[derive(Args)]
pub(super) struct Transact {
    /// Only say what would change
    #[arg(long)]
    pub(super) dry_run: bool,
    /// Undo it by itself, unless `pushctl confirm` comes within this time, such as 60s
    #[arg(long, value_name = "TIME", value_parser = quantity::parse_time)]
    pub(super) confirm_within: Option<Duration>,
    /// Also when it denies the address that you are connected from, or management
    #[arg(long)]
    pub(super) force: bool,
}

#[derive(Subcommand)]
pub(super) enum FilterVerb {
    /// Add a rule, or replace the one for the same prefix
    #[command(
        after_help = "Example:\n  pushctl filter add 203.0.113.0/24 --deny --ttl 10m --comment scanners\n  pushctl filter add 203.0.113.9 --allow\n\
                            Undo:\n  pushctl filter del 203.0.113.0/24"
    )]
    Add {
        /// An address or a prefix, IPv4 or IPv6
        #[arg(value_parser = parse_prefix)]
        prefix: IpNet,
        #[command(flatten)]
        kind: RuleKind,
        /// Only say what would change
        #[arg(long)]
        dry_run: bool,
        /// Also when it denies the address that you are connected from, or management
        #[arg(long)]
        force: bool,
    },
    /// Remove the rule for exactly this prefix
    #[command(after_help = "Example:\n  pushctl filter del 203.0.113.0/24\nUndo:\n  pushctl filter add 203.0.113.0/24")]
    Del {
        /// An address or a prefix, IPv4 or IPv6
        #[arg(value_parser = parse_prefix)]
        prefix: IpNet,
        /// Only say what would change
        #[arg(long)]
        dry_run: bool,
    },
    /// Every rule with its hits
    #[command(after_help = "Example:\n  pushctl filter list --json")]
    List,
    /// What becomes of a packet from an address, and by which rule
    #[command(after_help = "Example:\n  pushctl filter test 203.0.113.9")]
    Test {
        /// The source address
        address: IpAddr,
    },
    /// Add a rule for each line of a list: a prefix, then `# comment`; in one step for the packets
    #[command(
        after_help = "Example:\n  pushctl filter import drop.txt --ttl 1d --comment spamhaus\nUndo:\n  pushctl rollback"
    )]
    Import {
        /// The list
        file: PathBuf,
        #[command(flatten)]
        kind: RuleKind,
        #[command(flatten)]
        how: Transact,
    },
    /// The denied prefixes as a list that `import` takes
    #[command(
        after_help = "Example:\n  pushctl filter export > denied.txt\n  pushctl filter export --allow > allowed.txt"
    )]
    Export {
        /// The allowed ones instead
        #[arg(long)]
        allow: bool,
    },
}

/// What a rule does, for how long, and why.
#[derive(Args)]
pub(super) struct RuleKind {
    /// Let it through, though a shorter prefix is denied
    #[arg(long, conflicts_with = "deny")]
    pub(super) allow: bool,
    /// Drop its packets to the protected ports (the default)
    #[arg(long)]
    pub(super) deny: bool,
    /// How long the rule stands, such as 90s, 10m, 2h or 7d; without it, for ever
    #[arg(long, value_name = "TIME", value_parser = quantity::parse_time)]
    pub(super) ttl: Option<Duration>,
    /// Why, in at most 63 bytes
    #[arg(long, value_name = "TEXT")]
    pub(super) comment: Option<String>,
}

#[derive(Subcommand)]
pub(super) enum LimitVerb {
    /// Set what one source may do; what is not said stays as it is, and 0 is no limit
    #[command(
        after_help = "Example:\n  pushctl limit set --connects-per-s 20 --connect-burst 100 --open 200\nUndo:\n  pushctl limit set --connects-per-s 0 --open 0"
    )]
    Set(LimitArguments),
    /// What one source may do
    #[command(after_help = "Example:\n  pushctl limit show")]
    Show,
}

#[derive(Args)]
pub(super) struct LimitArguments {
    /// Packets per second
    #[arg(long, value_name = "N")]
    pub(super) packets_per_s: Option<u32>,
    /// Packets at once
    #[arg(long, value_name = "N")]
    pub(super) packet_burst: Option<u32>,
    /// New connections per second
    #[arg(long, value_name = "N")]
    pub(super) connects_per_s: Option<u32>,
    /// New connections at once
    #[arg(long, value_name = "N")]
    pub(super) connect_burst: Option<u32>,
    /// Connections open at the same time
    #[arg(long, value_name = "N")]
    pub(super) open: Option<u32>,
    /// Bits of an IPv4 address that make a source
    #[arg(long, value_name = "BITS")]
    pub(super) ipv4_bits: Option<u16>,
    /// Bits of an IPv6 address that make a source
    #[arg(long, value_name = "BITS")]
    pub(super) ipv6_bits: Option<u16>,
    /// Only say what would change
    #[arg(long)]
    pub(super) dry_run: bool,
}

#[derive(Subcommand)]
pub(super) enum IspVerb {
    /// Set the rates of an ISP, or add prefixes to his; one that is not there is made
    #[command(
        after_help = "Example:\n  pushctl isp set north --prefix 198.51.100.0/24 --egress \"200 Mbit/s\"\n  pushctl isp set north --egress none\n\
                            Undo:\n  pushctl isp del north"
    )]
    Set(IspArguments),
    /// Remove an ISP with his prefixes
    #[command(after_help = "Example:\n  pushctl isp del north\nUndo:\n  pushctl isp import north north.txt")]
    Del {
        /// His name
        name: String,
        /// Only say what would change
        #[arg(long)]
        dry_run: bool,
    },
    /// Add the prefixes of a list to an ISP's; one that is not there is made
    #[command(after_help = "Example:\n  pushctl isp import north north.txt\nUndo:\n  pushctl isp del north")]
    Import {
        /// His name
        name: String,
        /// The list: a prefix a line
        file: PathBuf,
        /// Only say what would change
        #[arg(long)]
        dry_run: bool,
    },
    /// The ISPs with their rates
    #[command(after_help = "Example:\n  pushctl isp list\n  pushctl isp list --prefixes")]
    List {
        /// Their prefixes too
        #[arg(long)]
        prefixes: bool,
    },
}

#[derive(Args)]
pub(super) struct IspArguments {
    /// His name: a-z, 0-9, '.', '_', '-'
    pub(super) name: String,
    /// A prefix of his, more by commas
    #[arg(long, value_name = "PREFIX", value_delimiter = ',', value_parser = parse_prefix)]
    pub(super) prefix: Vec<IpNet>,
    /// What his clients may send, such as "100 Mbit/s", or "none"; the rest is dropped
    #[arg(long, value_name = "RATE", value_parser = quantity::parse_rate)]
    pub(super) ingress: Option<u64>,
    /// What they may send at once, such as "1 MB"
    #[arg(long, value_name = "SIZE", value_parser = quantity::parse_size)]
    pub(super) ingress_burst: Option<u64>,
    /// What his clients are sent; the rest waits
    #[arg(long, value_name = "RATE", value_parser = quantity::parse_rate)]
    pub(super) egress: Option<u64>,
    /// What they are sent at once
    #[arg(long, value_name = "SIZE", value_parser = quantity::parse_size)]
    pub(super) egress_burst: Option<u64>,
    /// Only say what would change
    #[arg(long)]
    pub(super) dry_run: bool,
}

#[derive(Args)]
pub(super) struct AttachArguments {
    /// Interface that the clients' packets come in on
    #[arg(long)]
    pub(super) interface: String,
    /// `driver` (fast, needs the driver's support) or `generic` (any interface)
    #[arg(long, value_parser = mode)]
    pub(super) mode: Mode,
    /// TCP ports to guard
    #[arg(long, value_name = "PORT", value_delimiter = ',', required = true, value_parser = clap::value_parser!(u16).range(1..))]
    pub(super) protect: Vec<u16>,
    /// Destination addresses to guard; without it, all
    #[arg(long, value_name = "ADDRESS", value_delimiter = ',')]
    pub(super) protect_address: Vec<IpAddr>,
    /// Source prefixes that are never denied
    #[arg(long, value_name = "PREFIX", value_delimiter = ',', value_parser = parse_prefix)]
    pub(super) management: Vec<IpNet>,
    /// What becomes of fragments: `judge` or `drop`
    #[arg(long, value_name = "POLICY", value_parser = fragments, default_value = "judge")]
    pub(super) fragments: Fragments,
    /// The compiled programs
    #[arg(long, value_name = "FILE", default_value = DEFAULT_OBJECT)]
    pub(super) object: PathBuf,
    /// Count what would be dropped, and let it pass
    #[arg(long)]
    pub(super) observe: bool,
}

fn mode(text: &str) -> Result<Mode, String> {
    match text {
        "driver" => Ok(Mode::Driver),
        "generic" => Ok(Mode::Generic),
        _ => Err("`driver` or `generic`".into()),
    }
}

fn fragments(text: &str) -> Result<Fragments, String> {
    match text {
        "judge" => Ok(Fragments::Judge),
        "drop" => Ok(Fragments::Drop),
        _ => Err("`judge` or `drop`".into()),
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;

    use super::*;

    #[test]
    fn the_command_line_is_sound_and_every_verb_has_an_example() {
        fn check(command: &clap::Command) {
            let help = command.get_after_help().map(ToString::to_string).unwrap_or_default();
            assert!(command.has_subcommands() || help.contains("Example:"), "{} has no example", command.get_name());
            command.get_subcommands().filter(|verb| verb.get_name() != "help").for_each(check);
        }
        let command = Arguments::command();
        command.clone().debug_assert();
        check(&command);
    }

    #[test]
    fn an_address_is_the_prefix_of_itself() {
        assert_eq!(parse_prefix("203.0.113.9").unwrap().to_string(), "203.0.113.9/32");
        assert_eq!(parse_prefix("2001:db8::1").unwrap().to_string(), "2001:db8::1/128");
        assert_eq!(parse_prefix("10.0.0.0/8").unwrap().to_string(), "10.0.0.0/8");
        for wrong in ["", "10.0.0.0/33", "10.0.0", "eth0", "203.0.113.9:3101"] {
            assert!(parse_prefix(wrong).is_err(), "{wrong}");
        }
    }
}
