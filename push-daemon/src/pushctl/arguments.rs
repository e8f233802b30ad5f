//! What can be typed, with an example for each verb.

use std::{net::IpAddr, path::PathBuf, time::Duration};

use clap::{Args, Parser, Subcommand};
use ipnet::IpNet;

use crate::kernel::{DEFAULT_OBJECT, DEFAULT_PIN_ROOT, Mode};

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
    /// What is in force, and where
    #[command(after_help = "Example:\n  pushctl status")]
    Status,
    /// Packets and bytes by verdict and reason
    #[command(after_help = "Example:\n  pushctl stats --json")]
    Stats,
    /// Put the filter on an interface, with the rules that are pinned already
    #[command(
        after_help = "Example:\n  pushctl attach --interface eth0 --mode driver --protect 3101,3102 --management 192.0.2.0/24\n\
                            Undo:\n  pushctl detach"
    )]
    Attach(AttachArguments),
    /// Take the filter off and remove its pins, rules included, whichever version made them
    #[command(
        after_help = "Example:\n  pushctl filter list --json > rules.json\n  pushctl detach\nUndo:\n  pushctl attach ..., or restart push-daemon"
    )]
    Detach {
        /// Only say what would go
        #[arg(long)]
        dry_run: bool,
    },
}

#[derive(Subcommand)]
pub(super) enum FilterVerb {
    /// Add a rule, or replace the one for the same prefix
    #[command(
        after_help = "Example:\n  pushctl filter add 203.0.113.0/24 --deny --ttl 10m\n  pushctl filter add 203.0.113.9 --allow\n\
                            Undo:\n  pushctl filter del 203.0.113.0/24"
    )]
    Add {
        /// An address or a prefix, IPv4 or IPv6
        #[arg(value_parser = prefix)]
        prefix: IpNet,
        /// Let it through, though a shorter prefix is denied
        #[arg(long, conflicts_with = "deny")]
        allow: bool,
        /// Drop its packets to the protected ports (the default)
        #[arg(long)]
        deny: bool,
        /// How long the rule stands, such as 90s, 10m, 2h or 7d; without it, for ever
        #[arg(long, value_name = "TIME", value_parser = ttl)]
        ttl: Option<Duration>,
        /// Only say what would change
        #[arg(long)]
        dry_run: bool,
    },
    /// Remove the rule for exactly this prefix
    #[command(after_help = "Example:\n  pushctl filter del 203.0.113.0/24\nUndo:\n  pushctl filter add 203.0.113.0/24")]
    Del {
        /// An address or a prefix, IPv4 or IPv6
        #[arg(value_parser = prefix)]
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
    /// Switch the filter off without detaching it: everything passes
    #[command(after_help = "Example:\n  pushctl filter off\nUndo:\n  pushctl filter on")]
    Off,
    /// Switch the filter on again
    #[command(after_help = "Example:\n  pushctl filter on\nUndo:\n  pushctl filter off")]
    On,
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
    /// Source prefixes that are never denied
    #[arg(long, value_name = "PREFIX", value_delimiter = ',', value_parser = prefix)]
    pub(super) management: Vec<IpNet>,
    /// The compiled programs
    #[arg(long, value_name = "FILE", default_value = DEFAULT_OBJECT)]
    pub(super) object: PathBuf,
    /// Count what would be dropped, and let it pass
    #[arg(long)]
    pub(super) observe: bool,
}

/// A prefix, or an address as the prefix that holds only it.
fn prefix(text: &str) -> Result<IpNet, String> {
    match text.parse::<IpAddr>() {
        Ok(address) => Ok(address.into()),
        Err(_) => {
            text.parse().map_err(|_| "neither an address nor a prefix such as 203.0.113.0/24 or 2001:db8::/32".into())
        }
    }
}

fn mode(text: &str) -> Result<Mode, String> {
    match text {
        "driver" => Ok(Mode::Driver),
        "generic" => Ok(Mode::Generic),
        _ => Err("`driver` or `generic`".into()),
    }
}

/// A whole number and a unit.
fn ttl(text: &str) -> Result<Duration, String> {
    let wrong = || "a whole number and s, m, h or d, such as 10m".to_owned();
    let unit = text.chars().last().ok_or_else(wrong)?;
    let seconds = match unit {
        's' => 1,
        'm' => 60,
        'h' => 3_600,
        'd' => 86_400,
        _ => return Err(wrong()),
    };
    let number: u32 = text[..text.len() - 1].parse().map_err(|_| wrong())?;
    if number == 0 {
        return Err("a rule that stands for no time does nothing".into());
    }
    Ok(Duration::from_secs(u64::from(number) * seconds))
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
    fn a_time_is_a_number_and_a_unit() {
        assert_eq!(ttl("90s"), Ok(Duration::from_secs(90)));
        assert_eq!(ttl("10m"), Ok(Duration::from_secs(600)));
        assert_eq!(ttl("4294967295d").map(|time| time.as_secs()), Ok(4_294_967_295 * 86_400));
        for wrong in ["", "s", "10", "m10", "-5m", "1.5h", "4294967296s", "0s", "5µ"] {
            assert!(ttl(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn an_address_is_the_prefix_of_itself() {
        assert_eq!(prefix("203.0.113.9").unwrap().to_string(), "203.0.113.9/32");
        assert_eq!(prefix("2001:db8::1").unwrap().to_string(), "2001:db8::1/128");
        assert_eq!(prefix("10.0.0.0/8").unwrap().to_string(), "10.0.0.0/8");
        for wrong in ["", "10.0.0.0/33", "10.0.0", "eth0", "203.0.113.9:3101"] {
            assert!(prefix(wrong).is_err(), "{wrong}");
        }
    }
}
