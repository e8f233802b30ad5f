//! `pushctl isp`: who a prefix belongs to, and his rates.

use std::path::Path;

use ipnet::IpNet;
use serde_json::json;

use super::{
    Answer, Failure,
    arguments::{IspArguments, IspVerb},
    text, transaction,
};
use crate::kernel::{IspEntry, IspRate, IspSpec, KernelError, Tables, file::read_list};

pub(super) fn run(verb: IspVerb, pin_root: &Path) -> Result<Answer, Failure> {
    let mut tables = Tables::open(pin_root)?;
    match verb {
        IspVerb::Set(arguments) => set(&mut tables, arguments),
        IspVerb::Del { name, dry_run } => del(&mut tables, &name, dry_run),
        IspVerb::Import { name, file, dry_run } => {
            let prefixes = read_list(&file)?.into_iter().map(|line| line.prefix).collect();
            let before = find(&tables, &name)?.unwrap_or_default();
            write(&mut tables, IspSpec { name, prefixes, ingress: before.ingress, egress: before.egress }, dry_run)
        }
        IspVerb::List { prefixes } => list(&tables, prefixes),
    }
}

fn set(tables: &mut Tables, arguments: IspArguments) -> Result<Answer, Failure> {
    let before = find(tables, &arguments.name)?.unwrap_or_default();
    // A new rate without a burst gets the usual one for it, not that of the rate before.
    let rate = |rate: Option<u64>, burst: Option<u64>, before: IspRate| IspRate {
        bytes_per_s: rate.unwrap_or(before.bytes_per_s),
        burst_bytes: burst.unwrap_or(if rate.is_some() { 0 } else { before.burst_bytes }),
    };
    let spec = IspSpec {
        name: arguments.name,
        prefixes: arguments.prefix,
        ingress: rate(arguments.ingress, arguments.ingress_burst, before.ingress),
        egress: rate(arguments.egress, arguments.egress_burst, before.egress),
    };
    write(tables, spec, arguments.dry_run)
}

fn write(tables: &mut Tables, spec: IspSpec, dry_run: bool) -> Result<Answer, Failure> {
    spec.validate()?;
    if dry_run {
        let said = format!("would set ISP {} and add {} prefixes\n", spec.name, spec.prefixes.len());
        return Answer::new(said, json!({ "isp": spec.name, "prefixes": spec.prefixes, "dry_run": true }));
    }
    tables.set_isp(&spec)?;
    let isp = find(tables, &spec.name)?.ok_or_else(|| KernelError::NoIsp { name: spec.name.clone() })?;
    Answer::new(
        format!(
            "ISP {}: {} prefixes, ingress {}, egress {}\n",
            isp.name,
            isp.prefixes,
            transaction::rate(isp.ingress),
            transaction::rate(isp.egress)
        ),
        json!({ "isp": isp, "dry_run": false }),
    )
}

fn del(tables: &mut Tables, name: &str, dry_run: bool) -> Result<Answer, Failure> {
    let isp = find(tables, name)?.ok_or_else(|| KernelError::NoIsp { name: name.into() })?;
    let prefixes = if dry_run { isp.prefixes } else { tables.remove_isp(name)? };
    let does = if dry_run { "would remove" } else { "removed" };
    Answer::new(format!("{does} ISP {name} with {prefixes} prefixes\n"), json!({ "removed": isp, "dry_run": dry_run }))
}

fn list(tables: &Tables, with_prefixes: bool) -> Result<Answer, Failure> {
    let isps = tables.isps()?;
    let prefixes = if with_prefixes { tables.isp_prefixes()? } else { Vec::new() };
    let of = |isp: &IspEntry| -> Vec<IpNet> {
        prefixes.iter().filter(|(_, number)| *number == isp.number).map(|(prefix, _)| *prefix).collect()
    };
    let mut rows = Vec::new();
    for isp in &isps {
        let [ingress, egress] = [isp.ingress, isp.egress].map(transaction::rate);
        rows.push([isp.name.clone(), isp.prefixes.to_string(), ingress, egress]);
        rows.extend(of(isp).into_iter().map(|prefix| [format!("  {prefix}"), "".into(), "".into(), "".into()]));
    }
    let said = match isps.is_empty() {
        true => "no ISPs\n".into(),
        false => text::table(["ISP", "PREFIXES", "INGRESS", "EGRESS"], &rows),
    };
    let values = isps.iter().map(|isp| {
        let mut value = serde_json::to_value(isp)?;
        if with_prefixes {
            value["prefix_list"] = serde_json::to_value(of(isp))?;
        }
        Ok(value)
    });
    Answer::new(said, values.collect::<Result<Vec<_>, serde_json::Error>>()?)
}

fn find(tables: &Tables, name: &str) -> Result<Option<IspEntry>, Failure> {
    Ok(tables.isps()?.into_iter().find(|isp| isp.name == name))
}
