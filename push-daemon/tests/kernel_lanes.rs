//! The ISPs in the kernel's tables are the lanes of the edge, and a change by another process is followed while it runs.
#![allow(clippy::unwrap_used)] // A test that fails by panicking has said what it had to say, its helpers included.

mod edge_in_process;
mod netns;

use std::thread;

use edge_in_process::{Edge, eventually};
use netns::{Bpffs, Namespace, object};
use push_daemon::kernel::{Action, IspRate, IspSpec, NewRule, Tables, WholeSet};

const PORTS: [u16; 2] = [3101, 3102];

fn isp(name: &str, prefix: &str, bytes_per_s: u64) -> IspSpec {
    let egress = IspRate { bytes_per_s, burst_bytes: 100_000 };
    IspSpec { name: name.into(), prefixes: vec![prefix.parse().unwrap()], egress, ..IspSpec::default() }
}

#[test]
fn lanes_follow_the_isps_in_the_tables() {
    let Some(object) = object() else { return };
    let (bpffs, namespace) = (Bpffs::mount(), Namespace::new("e"));
    let settings = format!(
        "[kernel]\ninterface = \"lo\"\nmode = \"generic\"\nprotected_ports = {PORTS:?}\nobject = {object:?}\npin_root = {:?}\n",
        bpffs.pin_root()
    );
    namespace.run(|| {
        let edge = Edge::start_on(PORTS, &settings);
        // As `pushctl` does: other descriptors, the same pins.
        let mut tables = Tables::open(&bpffs.pin_root()).unwrap();
        let (stop, stops) = tokio::sync::oneshot::channel::<()>();
        thread::scope(|scope| {
            let watching = scope.spawn(|| edge.runtime.block_on(edge.appliance.watch(async { drop(stops.await) })));
            let lanes = || -> Vec<(String, u64, u64)> {
                let lanes = edge.appliance.lanes().into_iter();
                lanes.map(|lane| (lane.isp, lane.rate, lane.connections)).collect()
            };
            let become_so = |expected: &[(&str, u64, u64)]| {
                let expected: Vec<_> =
                    expected.iter().map(|(isp, rate, clients)| ((*isp).to_owned(), *rate, *clients)).collect();
                eventually("the lanes are so", || (lanes() == expected).then_some(()));
            };
            let _client = edge.join(false, 1, 1);
            become_so(&[]);
            tables.set_isp(&isp("north", "127.0.0.0/8", 0)).unwrap();
            tables.set_isp(&isp("south", "10.0.0.0/8", 6_250_000)).unwrap();
            become_so(&[("north", 0, 1), ("south", 6_250_000, 0)]);

            let set = WholeSet { isps: vec![isp("south", "127.0.0.1/32", 50_000)], ..WholeSet::default() };
            tables.apply(&set, None).unwrap();
            become_so(&[("south", 50_000, 1)]);
            tables.rollback().unwrap();
            become_so(&[("north", 0, 1), ("south", 6_250_000, 0)]);
            tables.remove_isp("south").unwrap();
            become_so(&[]);

            // The daemon takes rules out whose time is over.
            let rule = NewRule::new("10.0.0.0/8".parse().unwrap(), Action::Deny);
            tables.add(&rule.standing(Some(std::time::Duration::ZERO))).unwrap();
            eventually("the expired rule is gone", || tables.list().unwrap().is_empty().then_some(()));
            stop.send(()).unwrap();
            watching.join().unwrap().unwrap();
        });
        edge.stop();
    });
}
