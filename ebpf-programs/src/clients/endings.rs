//! How connections end by what the server says, and what that is counted as.

use abi::clients::{Client, Count, state};

use crate::maps::count;

/// The server has reset the connection.
#[inline(always)]
pub fn reset(client: &mut Client) {
    let what = match client.state {
        state::FRESH => Count::SynReset,
        state::UPGRADING | state::GREETED => Count::ResetBeforeGrant,
        state::JOINED | state::RESUMED => Count::Reset,
        state::RETURNING => Count::BackSynReset,
        state::UPGRADING_AGAIN | state::GREETED_AGAIN => Count::BackReset,
        state::STOPPED => Count::StoppedReset,
        state::SILENT => Count::SilentReset,
        // The end that was asked for.
        state::LEAVING | state::ABORTED => {
            client.state = state::RESET;
            return;
        }
        // The end of what was counted.
        state::REFUSED | state::CLOSED | state::RESET | state::VANISHED => return,
        _ => Count::SlowReset,
    };
    count(what, 1);
    client.state = state::RESET;
}

/// The server has closed the connection.
#[inline(always)]
pub fn close(client: &mut Client) {
    let what = match client.state {
        state::UPGRADING | state::GREETED => Some(Count::ClosedBeforeGrant),
        state::JOINED | state::RESUMED => Some(Count::Closed),
        state::UPGRADING_AGAIN | state::GREETED_AGAIN => Some(Count::BackClosed),
        state::STOPPED => Some(Count::StoppedClosed),
        state::SILENT => Some(Count::SilentClosed),
        at_a_rate if state::rate_of(at_a_rate).is_some() => Some(Count::SlowClosed),
        _ => None,
    };
    if let Some(what) = what {
        count(what, 1);
    }
    client.state = state::CLOSED;
}
