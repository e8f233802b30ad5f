//! From the pins of layout 1 to ours, without a packet that nobody judges.
//!
//! Layout 1 had one set of tables, whose rules were shorter, and no limits, ISPs or comments. Its rules, ports, management
//! prefixes and switches are copied while its filter goes on working; then its link is renamed, and bringing up finds it as it
//! finds any link: with another program, which is swapped in one step. The old directory goes last, so a process that dies
//! on the way leaves it, and the next one begins again.

use std::{fs, io, net::IpAddr, path::Path};

use abi::{
    rules::{RuleValue, V4, V4InTrie, V6},
    settings::{PASS_EVERYTHING, Settings},
};
use aya::{Pod, maps::lpm_trie::Key};
use ipnet::IpNet;

use super::{
    error::KernelError,
    pin::PinDir,
    sys::{self, maps},
    tables::{Contents, Tables},
};

/// The one layout that we know how to take over.
pub(super) const FROM: u32 = 1;

/// A rule of layout 1: action and prefix length, expiry, hits, bytes.
type OldRule = [u64; 4];
/// The settings of layout 1: kill switch and observe in the first word.
type OldSettings = [u64; 5];

/// Copies what the old pins hold into `tables`, and puts their link into the place of ours.
pub(super) fn take_over(pins: &PinDir, old: &Path, tables: &mut Tables, bounds: (u32, u32)) -> Result<(), KernelError> {
    let mut contents = Contents::default();
    rules::<V4>(&old.join("HOSTS_V4"), &mut contents, |key| (*key).into())?;
    rules::<V6>(&old.join("HOSTS_V6"), &mut contents, |key| (*key).into())?;
    rules::<Key<V4InTrie>>(&old.join("PREFIXES_V4"), &mut contents, v4_of)?;
    rules::<Key<V6>>(&old.join("PREFIXES_V6"), &mut contents, |key| key.data().into())?;

    let mut management = prefixes::<V4InTrie>(&old.join("MANAGEMENT_V4"), v4_of)?;
    management.extend(prefixes::<V6>(&old.join("MANAGEMENT_V6"), |key| key.data().into())?);

    let switches = entries::<u32, OldSettings>(&old.join("SETTINGS"))?.first().map_or(0, |(_, settings)| settings[0]);
    let is_off = switches as u32 == PASS_EVERYTHING;
    tables.set_settings(Settings {
        kill_switch: if is_off { PASS_EVERYTHING } else { 0 },
        observe: (switches >> 32) as u32,
        max_hosts: bounds.0,
        max_prefixes: bounds.1,
        ..tables.settings()?
    })?;
    tables.set_management(&management)?;
    tables.set_protected_ports(&ports(&old.join("PROTECTED"))?)?;
    tables.fill(&contents)?;

    let link = old.join(super::pin::LINK);
    match fs::rename(&link, pins.link()) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            Err(KernelError::system(format!("take over the link {}", link.display()), error))
        }
        _ => Ok(()),
    }
}

fn rules<K: Pod>(path: &Path, into: &mut Contents, address: impl Fn(&K) -> IpAddr) -> Result<(), KernelError> {
    for (key, [action_and_length, expires_ns, hits, bytes]) in entries::<K, OldRule>(path)? {
        let (action, prefix_len) = (action_and_length as u32, (action_and_length >> 32) as u32);
        let prefix = u8::try_from(prefix_len).ok().and_then(|length| IpNet::new(address(&key), length).ok());
        // A length that no address has is nothing that version 1 wrote.
        if let Some(prefix) = prefix {
            let rule = RuleValue { action, prefix_len, expires_ns, hits, bytes, ..RuleValue::default() };
            into.rules.push((prefix, rule));
        }
    }
    Ok(())
}

fn prefixes<A: Pod>(path: &Path, address: impl Fn(&Key<A>) -> IpAddr) -> Result<Vec<IpNet>, KernelError> {
    let entries = entries::<Key<A>, u32>(path)?.into_iter();
    let prefixes = entries.filter_map(|(key, length)| IpNet::new(address(&key), u8::try_from(length).ok()?).ok());
    Ok(prefixes.collect())
}

fn ports(path: &Path) -> Result<Vec<u16>, KernelError> {
    let words = entries::<u32, u64>(path)?;
    let is_set = |port: &u16| {
        let (word, bit) = abi::maps::port_bit(*port);
        words.iter().any(|(at, ports)| *at == word && ports & bit != 0)
    };
    Ok((1..=u16::MAX).filter(is_set).collect())
}

fn v4_of(key: &Key<V4InTrie>) -> IpAddr {
    let [a, b, c, d, ..] = key.data();
    IpAddr::from([a, b, c, d])
}

/// What a pinned map holds. One that is missing holds nothing: it went in an earlier attempt, or was never made.
fn entries<K: Pod, V: Pod>(path: &Path) -> Result<Vec<(K, V)>, KernelError> {
    let failed = |error| KernelError::system(format!("read the old table {}", path.display()), error);
    let map = match sys::open_pinned(path) {
        Ok(map) => map,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(failed(error)),
    };
    let sizes = maps::sizes(&map).map_err(failed)?;
    if sizes != (size_of::<K>(), size_of::<V>()) {
        return Err(failed(io::Error::other(format!("its keys and values have {} and {} bytes", sizes.0, sizes.1))));
    }
    maps::entries(&map).map_err(failed)
}
