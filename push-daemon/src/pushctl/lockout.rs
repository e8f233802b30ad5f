//! Where the operator himself comes from, so that he does not shut the door behind him.

use std::{env, net::IpAddr};

use crate::kernel::Guard;

/// What a change must not do, unless it is forced.
pub(super) fn guard(force: bool) -> Guard {
    if force { Guard { operator: None, management: false } } else { Guard { operator: operator(), management: true } }
}

/// The client's address of the SSH session that we run in, if it is one (`SSH_CONNECTION`: client, port, server, port).
fn operator() -> Option<IpAddr> {
    env::var("SSH_CONNECTION").ok()?.split_whitespace().next()?.parse().ok()
}
