//! The TOML that a stack's daemons are started with: the least that puts them on their ports and directories.

use std::path::Path;

use toml::{Table, Value};

use super::{Addresses, DaemonError};

pub(super) fn push_daemon(addresses: &Addresses, directory: &Path, over: &str) -> Result<String, DaemonError> {
    let Addresses { tcp, websocket, admin, trunk_as_dialled, .. } = addresses;
    let plain = format!(
        r#"
[node]
name = "edge-{port}"
number = 1
[listen]
tcp = ["{tcp}"]
websocket = ["{websocket}"]
[admin]
listen = "{admin}"
[trunk]
lines = [{{ name = "A", address = "{trunk_as_dialled}" }}]
[shard]
count = 2
"#,
        port = tcp.port()
    );
    let _ = directory;
    lay_over("push-daemon", &plain, over)
}

pub(super) fn logic_tier(addresses: &Addresses, directory: &Path, over: &str) -> Result<String, DaemonError> {
    let Addresses { tcp, http, trunk, .. } = addresses;
    let plain = format!(
        r#"
[http]
listen = "{http}"
[trunk]
listen = "{trunk}"
[bus]
directory = "{bus}"
[admission]
mode = "open"
allow_open = {in_a_namespace}
"#,
        in_a_namespace = !tcp.ip().is_loopback(),
        bus = directory.join("bus").display()
    );
    lay_over("logic-tier", &plain, over)
}

fn lay_over(name: &str, plain: &str, over: &str) -> Result<String, DaemonError> {
    let fragment = |source| DaemonError::Fragment { name: name.to_owned(), source };
    let mut table: Table = plain.parse().map_err(fragment)?;
    merge(&mut table, over.parse().map_err(fragment)?);
    Ok(table.to_string())
}

fn merge(below: &mut Table, above: Table) {
    for (key, value) in above {
        match (below.get_mut(&key), value) {
            (Some(Value::Table(below)), Value::Table(above)) => merge(below, above),
            (_, value) => {
                below.insert(key, value);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_fragment_replaces_keys_and_keeps_their_neighbours() {
        let merged = lay_over("x", "[a]\nb = 1\nc = 2\n", "[a]\nc = 3\n[d]\ne = [1]\n").unwrap();
        let merged: Table = merged.parse().unwrap();
        assert_eq!(merged, "[a]\nb = 1\nc = 3\n[d]\ne = [1]\n".parse().unwrap());
        assert!(matches!(lay_over("x", "", "[a"), Err(DaemonError::Fragment { .. })));
    }
}
