//! A key names the place of its connection, so that a push by key needs no map.
//!
//! 16 bytes as 32 hexadecimal digits: node (2 bytes), shard (2), slot (4), generation (4), check (4). The check
//! is SipHash-2-4 over the other twelve with the secret of one run of one edge, cut to 32 bits: a key of an
//! earlier run, of another edge, or one that somebody made up, names nothing.

use std::hash::Hasher;

use siphasher::sip::SipHasher24;

/// Length of a key in text.
pub const KEY_CHARS: usize = 32;

/// Where a connection is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Place {
    /// The edge.
    pub node: u16,
    /// The shard of the edge.
    pub shard: u16,
    /// The slot in the shard's slab.
    pub slot: u32,
    /// Which of the connections that the slot has held.
    pub generation: u32,
}

/// The secret of one run of an edge.
#[derive(Clone, Copy)]
pub struct KeySecret {
    k0: u64,
    k1: u64,
}

impl KeySecret {
    /// From 16 random bytes.
    #[must_use]
    pub fn new(random: u128) -> Self {
        Self { k0: (random >> 64) as u64, k1: random as u64 }
    }

    fn check(&self, place: &[u8; 12]) -> [u8; 4] {
        let mut hasher = SipHasher24::new_with_keys(self.k0, self.k1);
        hasher.write(place);
        (hasher.finish() as u32).to_be_bytes()
    }
}

impl Place {
    /// The key of this place.
    #[must_use]
    pub fn to_key(&self, secret: &KeySecret) -> String {
        let place = self.to_bytes();
        let mut key = String::with_capacity(KEY_CHARS);
        for byte in place.iter().chain(&secret.check(&place)) {
            for nibble in [byte >> 4, byte & 15] {
                key.push(char::from(b"0123456789abcdef"[usize::from(nibble)]));
            }
        }
        key
    }

    /// The place that `key` names, if `secret` made it.
    #[must_use]
    pub fn from_key(key: &str, secret: &KeySecret) -> Option<Self> {
        if key.len() != KEY_CHARS {
            return None;
        }
        let mut bytes = [0_u8; KEY_CHARS / 2];
        for (byte, pair) in bytes.iter_mut().zip(key.as_bytes().chunks_exact(2)) {
            *byte = digit(pair[0])? << 4 | digit(pair[1])?;
        }
        let place: [u8; 12] = bytes[..12].try_into().ok()?;
        if secret.check(&place) != bytes[12..] {
            return None;
        }
        let [n0, n1, h0, h1, s0, s1, s2, s3, g0, g1, g2, g3] = place;
        Some(Self {
            node: u16::from_be_bytes([n0, n1]),
            shard: u16::from_be_bytes([h0, h1]),
            slot: u32::from_be_bytes([s0, s1, s2, s3]),
            generation: u32::from_be_bytes([g0, g1, g2, g3]),
        })
    }

    fn to_bytes(self) -> [u8; 12] {
        let mut bytes = [0; 12];
        bytes[0..2].copy_from_slice(&self.node.to_be_bytes());
        bytes[2..4].copy_from_slice(&self.shard.to_be_bytes());
        bytes[4..8].copy_from_slice(&self.slot.to_be_bytes());
        bytes[8..12].copy_from_slice(&self.generation.to_be_bytes());
        bytes
    }
}

/// Lower case only: one key has one text.
fn digit(byte: u8) -> Option<u8> {
    match byte {
        b'0'..=b'9' => Some(byte - b'0'),
        b'a'..=b'f' => Some(byte - b'a' + 10),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PLACE: Place = Place { node: 0x0102, shard: 0x0304, slot: 0x0506_0708, generation: 0x090a_0b0c };

    #[test]
    fn a_key_shows_its_place() {
        let secret = KeySecret::new(1);
        let key = PLACE.to_key(&secret);
        assert_eq!(&key[..24], "0102030405060708090a0b0c");
        assert_eq!(key.len(), KEY_CHARS);
        assert_eq!(Place::from_key(&key, &secret), Some(PLACE));
    }

    #[test]
    fn the_check_is_siphash() {
        // The reference code's key, 00 01 .. 0f, whose words are little-endian.
        let secret = KeySecret::new(0x0706_0504_0302_0100_0f0e_0d0c_0b0a_0908);
        // Its answer for 00 01 .. 0b (https://github.com/veorq/SipHash, vectors.h) is 0x751e8fbc860ee5fb.
        let input: [u8; 12] = std::array::from_fn(|at| at as u8);
        assert_eq!(secret.check(&input), [0x86, 0x0e, 0xe5, 0xfb]);
    }

    #[test]
    fn what_no_edge_wrote_names_nothing() {
        let secret = KeySecret::new(1);
        let key = PLACE.to_key(&secret);
        for text in ["", &key[1..], &(key.clone() + "0"), &key.to_uppercase(), &"\u{e9}".repeat(16), &" ".repeat(32)] {
            assert_eq!(Place::from_key(text, &secret), None, "{text:?}");
        }
        assert_eq!(Place::from_key(&key, &KeySecret::new(2)), None);
        assert_eq!(Place::from_key(&key, &KeySecret::new(1 << 64)), None);
    }
}
