//! The entrance for plans of lanes: from whoever knows them to every shard.

use std::sync::PoisonError;

use super::{Appliance, FULL_QUEUE_PAUSE};
use crate::admin::LaneStatus;
use crate::lanes::LanePlan;
use crate::shard::order::Order;

impl Appliance {
    /// Has every shard keep to another plan of lanes. Rates hold at once; which lane a client is in is looked up again
    /// within moments. A shard that is behind is waited for; who drops the wait leaves some shards with the plan before, until
    /// the next one comes.
    pub async fn set_lanes(&self, plan: LanePlan) {
        // So that all shards get plans in the same order.
        let _alone = self.changing_lanes.lock().await;
        let order = {
            let mut lanes = self.sources.lanes.lock().unwrap_or_else(PoisonError::into_inner);
            *lanes = lanes.replaced(plan);
            lanes.clone()
        };
        for shard in &self.shards {
            let mut next = Order::Lanes(order.clone());
            while let Err(back) = shard.handle.queue(next)
                && !shard.thread.is_finished()
            {
                shard.handle.wake();
                tokio::time::sleep(FULL_QUEUE_PAUSE).await;
                next = back;
            }
            shard.handle.wake();
        }
    }

    /// How the lanes are.
    #[must_use]
    pub fn lanes(&self) -> Vec<LaneStatus> {
        self.sources.lanes()
    }
}
