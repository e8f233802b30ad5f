//! `pushctl limit`: what one source may do.

use std::path::Path;

use serde_json::json;

use super::{
    Answer, Failure,
    arguments::{LimitArguments, LimitVerb},
    text,
};
use crate::kernel::{SourceLimits, Tables};

pub(super) fn run(verb: LimitVerb, pin_root: &Path) -> Result<Answer, Failure> {
    let mut tables = Tables::open(pin_root)?;
    match verb {
        LimitVerb::Show => {
            let limits = tables.limits()?;
            Answer::new(format!("{}\n", text::limits(&limits)), limits)
        }
        LimitVerb::Set(arguments) => set(&mut tables, &arguments),
    }
}

fn set(tables: &mut Tables, arguments: &LimitArguments) -> Result<Answer, Failure> {
    let before = tables.limits()?;
    let after = SourceLimits {
        packets_per_s: arguments.packets_per_s.unwrap_or(before.packets_per_s),
        packet_burst: burst(arguments.packet_burst, arguments.packets_per_s, before.packet_burst),
        connects_per_s: arguments.connects_per_s.unwrap_or(before.connects_per_s),
        connect_burst: burst(arguments.connect_burst, arguments.connects_per_s, before.connect_burst),
        open_connections: arguments.open.unwrap_or(before.open_connections),
        ipv4_bits: arguments.ipv4_bits.unwrap_or(before.ipv4_bits),
        ipv6_bits: arguments.ipv6_bits.unwrap_or(before.ipv6_bits),
    };
    after.validate()?;
    if !arguments.dry_run {
        tables.set_limits(&after)?;
    }
    let does = if arguments.dry_run { "would be" } else { "are" };
    let said = format!("the limits {does}: {}\nbefore: {}\n", text::limits(&after), text::limits(&before));
    Answer::new(said, json!({ "before": before, "after": after, "dry_run": arguments.dry_run }))
}

/// A burst goes with its rate: no rate, no burst.
fn burst(asked: Option<u32>, rate: Option<u32>, before: u32) -> u32 {
    asked.unwrap_or(if rate == Some(0) { 0 } else { before })
}
