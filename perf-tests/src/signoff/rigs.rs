//! Where clients made of XDP are: one rig for the edge, and one for the floor, whose clients may be there at the same time.

use std::sync::Arc;

use super::profile::{EngineKind, Profile};
use crate::load::engine::xdp::error::XdpError;
use crate::load::engine::xdp::program::Program;
use crate::load::engine::xdp::rig::{Rig, ServerEnd, addresses};

/// Messages of the floor that are timed. It sends as many as it can.
const FLOOR_MESSAGES: u32 = 1 << 16;

/// See the module.
pub(super) struct Rigs {
    /// The daemons' namespace, with the appliance's filter.
    pub(super) edge: Rig,
    /// The floor's server's.
    pub(super) floor: Arc<Rig>,
}

impl Rigs {
    /// What the profile's clients need; nothing when they are sockets.
    pub(super) fn of(profile: &Profile) -> Result<Option<Self>, XdpError> {
        if profile.clients.engine == EngineKind::Socket {
            return Ok(None);
        }
        let clients = profile.phases.iter().map(|phase| phase.clients.unwrap_or(profile.clients.count).get_u32()).max();
        let clients = clients.unwrap_or(0);
        let messages = profile.phases.iter().map(|phase| phase.message_count()).max().unwrap_or(0);
        let messages = u32::try_from(messages).unwrap_or(u32::MAX);
        let addresses = addresses();
        let guarded = ServerEnd::Filter(vec![addresses.tcp.port(), addresses.websocket.port()]);
        let edge = Rig::build(Program::load(clients, messages)?, &guarded)?;
        let floor = Rig::build(Program::load(clients, FLOOR_MESSAGES)?, &guarded)?;
        Ok(Some(Self { edge, floor: Arc::new(floor) }))
    }
}
