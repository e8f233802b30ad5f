//! Whose an address is: prefixes, flattened to the ranges that they leave each other.
//!
//! Prefixes either lie within each other or apart, so the longest match of all addresses is one sorted row of ranges, and
//! a look-up is a binary search in it. A hundred thousand prefixes take seventeen steps, once per connection.

use std::net::IpAddr;

use ipnet::IpNet;

/// Prefixes of both families.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct Prefixes {
    v4: Ranges,
    v6: Ranges,
}

/// Ranges of one family.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
struct Ranges {
    /// First address of each, ascending. A range ends where the next begins.
    starts: Vec<u128>,
    /// Whose each is; 0 is nobody's. As many as `starts`.
    ids: Vec<u8>,
}

impl Prefixes {
    pub(crate) fn new(prefixes: &[(IpNet, u8)]) -> Self {
        let of_family = |v4: bool| {
            let family = prefixes.iter().filter(|(prefix, _)| matches!(prefix, IpNet::V4(_)) == v4);
            Ranges::of(family.map(|(prefix, id)| (number(prefix.network()), number(prefix.broadcast()), *id)).collect())
        };
        Self { v4: of_family(true), v6: of_family(false) }
    }

    /// Whose `address` is; 0 if nobody's.
    pub(crate) fn find(&self, address: IpAddr) -> u8 {
        let address = address.to_canonical();
        let ranges = if address.is_ipv4() { &self.v4 } else { &self.v6 };
        ranges.find(number(address))
    }
}

fn number(address: IpAddr) -> u128 {
    match address {
        IpAddr::V4(address) => u128::from(u32::from(address)),
        IpAddr::V6(address) => u128::from(address),
    }
}

impl Ranges {
    /// Of prefixes as first address, last address, and whose.
    fn of(mut prefixes: Vec<(u128, u128, u8)>) -> Self {
        // The wider first; the sort keeps the order of two that are the same.
        prefixes.sort_by_key(|(first, last, _)| (*first, std::cmp::Reverse(*last)));
        let mut ranges = Self::default();
        // Those that the sweep is inside of, each within the one before it.
        let mut around: Vec<(u128, u8)> = Vec::new();
        for (first, last, id) in prefixes {
            ranges.close(&mut around, first);
            ranges.begin(first, id);
            around.push((last, id));
        }
        ranges.close(&mut around, u128::MAX);
        ranges.starts.shrink_to_fit();
        ranges.ids.shrink_to_fit();
        ranges
    }

    /// Ends those of `around` whose last address is before `upto`.
    fn close(&mut self, around: &mut Vec<(u128, u8)>, upto: u128) {
        while let Some((last, _)) = around.pop_if(|(last, _)| *last < upto) {
            self.begin(last + 1, around.last().map_or(0, |(_, id)| *id));
        }
    }

    /// From `start` on it is `id`'s, whatever was said of `start` before.
    fn begin(&mut self, start: u128, id: u8) {
        if self.starts.last() == Some(&start) {
            self.starts.pop();
            self.ids.pop();
        }
        if self.ids.last().copied().unwrap_or(0) != id {
            self.starts.push(start);
            self.ids.push(id);
        }
    }

    fn find(&self, address: u128) -> u8 {
        let behind = self.starts.partition_point(|start| *start <= address);
        behind.checked_sub(1).map_or(0, |at| self.ids[at])
    }
}

#[cfg(test)]
mod tests {
    use std::net::{Ipv4Addr, Ipv6Addr};

    use ipnet::{Ipv4Net, Ipv6Net};
    use proptest::prelude::*;

    use super::*;

    /// The longest that matches, the last of those: as a kernel's trie has it after all were put in.
    fn by_scan(prefixes: &[(IpNet, u8)], address: IpAddr) -> u8 {
        let matching = prefixes.iter().filter(|(prefix, _)| prefix.contains(&address));
        matching.max_by_key(|(prefix, _)| prefix.prefix_len()).map_or(0, |(_, id)| *id)
    }

    /// Few bits, so that prefixes lie within each other, and both ends of the space.
    fn v4() -> impl Strategy<Value = Ipv4Addr> {
        (prop::sample::select(vec![0, 0x0A00_0000, 0xFFFF_FF00_u32]), any::<u8>())
            .prop_map(|(high, low)| (high | u32::from(low)).into())
    }

    fn v6() -> impl Strategy<Value = Ipv6Addr> {
        let high = prop::sample::select(vec![0, 0x2001_0DB8_u128 << 96, u128::MAX << 8]);
        (high, any::<u8>()).prop_map(|(high, low)| (high | u128::from(low)).into())
    }

    fn prefix() -> impl Strategy<Value = IpNet> {
        let short = 0_u8..8;
        prop_oneof![
            (v4(), short.clone()).prop_map(|(address, host)| Ipv4Net::new(address, 32 - host).unwrap().into()),
            (v6(), short).prop_map(|(address, host)| Ipv6Net::new(address, 128 - host).unwrap().into()),
            (v4(), 0_u8..=32).prop_map(|(address, length)| Ipv4Net::new(address, length).unwrap().into()),
            (v6(), 0_u8..=128).prop_map(|(address, length)| Ipv6Net::new(address, length).unwrap().into()),
        ]
    }

    fn find(prefixes: &[(&str, u8)], address: &str) -> u8 {
        let prefixes: Vec<_> = prefixes.iter().map(|(prefix, id)| (prefix.parse().unwrap(), *id)).collect();
        Prefixes::new(&prefixes).find(address.parse().unwrap())
    }

    #[test]
    fn the_longest_match_decides() {
        let nested = [("10.0.0.0/8", 1), ("10.1.0.0/16", 2), ("10.1.2.3/32", 3), ("2001:db8::/32", 4)];
        let rows = [
            ("9.255.255.255", 0),
            ("10.0.0.0", 1),
            ("10.1.0.0", 2),
            ("10.1.2.3", 3),
            ("10.1.2.4", 2),
            ("10.2.0.0", 1),
            ("10.255.255.255", 1),
            ("11.0.0.0", 0),
            ("::ffff:10.1.2.3", 3),
            ("2001:db8::1", 4),
            ("2001:db9::1", 0),
        ];
        for (address, expected) in rows {
            assert_eq!(find(&nested, address), expected, "{address}");
        }
    }

    #[test]
    fn prefixes_may_fill_the_whole_space_and_reach_its_end() {
        assert_eq!(find(&[("::/0", 1)], "ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff"), 1);
        assert_eq!(find(&[("0.0.0.0/0", 1), ("255.255.255.255/32", 2)], "255.255.255.255"), 2);
        assert_eq!(find(&[("::/0", 1)], "10.0.0.1"), 0, "another family");
    }

    #[test]
    fn of_the_same_prefix_twice_the_last_counts() {
        let twice = [("10.1.0.0/16", 1), ("10.0.0.0/8", 3), ("10.1.0.0/16", 2)];
        assert_eq!((find(&twice, "10.1.0.1"), find(&twice, "10.2.0.0")), (2, 3));
    }

    proptest! {
        #[test]
        fn it_finds_what_a_scan_finds(
            prefixes in prop::collection::vec((prefix(), 1_u8..9), 0..40),
            v4s in prop::collection::vec(v4(), 40),
            v6s in prop::collection::vec(v6(), 40),
        ) {
            let table = Prefixes::new(&prefixes);
            let edges = prefixes.iter().flat_map(|(prefix, _)| [prefix.network(), prefix.broadcast()]);
            let addresses = edges.chain(v4s.into_iter().map(IpAddr::from)).chain(v6s.into_iter().map(IpAddr::from));
            for address in addresses.filter(|address| address.to_canonical() == *address) {
                prop_assert_eq!(table.find(address), by_scan(&prefixes, address), "{}", address);
            }
        }
    }
}
