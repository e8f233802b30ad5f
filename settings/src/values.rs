//! Types of single values: what a key may hold, judged while the file is read, so that the error knows its place.
//!
//! They do not judge values against each other: that is the daemons' business.

use std::fmt;
use std::net::SocketAddr;

use serde::de::{self, Deserializer, Visitor};
use serde::{Deserialize, Serialize};
use subtle::ConstantTimeEq;

/// A whole number from `MIN` to `MAX`, both included.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub struct Bounded<const MIN: u64, const MAX: u64>(u64);

impl<const MIN: u64, const MAX: u64> Bounded<MIN, MAX> {
    /// A value that the program itself names.
    ///
    /// # Panics
    /// When it is out of range; in a constant that is an error of the compiler.
    #[must_use]
    pub const fn new(value: u64) -> Self {
        assert!(MIN <= value && value <= MAX, "a default is out of its own range");
        Self(value)
    }

    /// The number.
    #[must_use]
    pub const fn get(self) -> u64 {
        self.0
    }

    /// The number, as a count of things in memory. The compiler refuses a range that does not fit.
    #[must_use]
    pub const fn count(self) -> usize {
        const { assert!(MAX <= usize::MAX as u64, "the range does not fit a count") };
        self.0 as usize
    }

    /// The number in 32 bits. The compiler refuses a range that does not fit.
    #[must_use]
    pub const fn get_u32(self) -> u32 {
        const { assert!(MAX <= u32::MAX as u64, "the range does not fit 32 bits") };
        self.0 as u32
    }

    /// The number in 32 bits with a sign, as some system calls and the wire want it. The compiler refuses a range
    /// that does not fit.
    #[must_use]
    pub const fn get_i32(self) -> i32 {
        const { assert!(MAX <= i32::MAX as u64, "the range does not fit 31 bits") };
        self.0 as i32
    }
}

impl<'de, const MIN: u64, const MAX: u64> Deserialize<'de> for Bounded<MIN, MAX> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Whole<const MIN: u64, const MAX: u64>;
        impl<const MIN: u64, const MAX: u64> Visitor<'_> for Whole<MIN, MAX> {
            type Value = u64;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "a whole number from {MIN} to {MAX}")
            }
            fn visit_u64<E: de::Error>(self, value: u64) -> Result<u64, E> {
                if (MIN..=MAX).contains(&value) {
                    Ok(value)
                } else {
                    Err(E::invalid_value(de::Unexpected::Unsigned(value), &self))
                }
            }
            fn visit_i64<E: de::Error>(self, value: i64) -> Result<u64, E> {
                match u64::try_from(value) {
                    Ok(value) => self.visit_u64(value),
                    Err(_) => Err(E::invalid_value(de::Unexpected::Signed(value), &self)),
                }
            }
        }
        deserializer.deserialize_u64(Whole::<MIN, MAX>).map(Self)
    }
}

/// An address and a port to listen on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ListenAddress(pub SocketAddr);

impl ListenAddress {
    /// What a default should be: nobody else's host reaches it.
    #[must_use]
    pub const fn loopback(port: u16) -> Self {
        Self(SocketAddr::new(std::net::IpAddr::V4(std::net::Ipv4Addr::LOCALHOST), port))
    }
}

impl<'de> Deserialize<'de> for ListenAddress {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        text.parse().map(Self).map_err(|_| {
            de::Error::custom(format!(
                "`{text}` is no address with a port, such as \"127.0.0.1:3111\" or \"[::1]:3111\""
            ))
        })
    }
}

/// A text that no log and no error may show, and whose comparison does not tell by its duration how much was right.
#[derive(Clone, Default, Deserialize)]
#[serde(transparent)]
pub struct Secret(String);

impl Secret {
    /// Wraps a text.
    #[must_use]
    pub fn new(text: impl Into<String>) -> Self {
        Self(text.into())
    }

    /// Nothing is set.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The bytes, for a key that is made of them.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8] {
        self.0.as_bytes()
    }

    /// The text itself, for the one who has to be told it.
    #[must_use]
    pub fn expose(&self) -> &str {
        &self.0
    }

    /// Whether `other` is the same text. Takes as long for a wrong one as for the right one; only the length shows.
    #[must_use]
    pub fn matches(&self, other: &[u8]) -> bool {
        self.0.as_bytes().ct_eq(other).into()
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if self.0.is_empty() { "(not set)" } else { "(set)" })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Source;

    #[derive(Debug, Deserialize)]
    struct Sample {
        #[serde(default = "few")]
        count: Bounded<2, 40>,
        #[serde(default = "here")]
        listen: ListenAddress,
        #[serde(default)]
        secret: Secret,
    }

    fn few() -> Bounded<2, 40> {
        Bounded::new(3)
    }

    fn here() -> ListenAddress {
        ListenAddress::loopback(1)
    }

    fn read(text: &str) -> Result<Sample, String> {
        Source::new("x", text).parse().map_err(|error| error.to_string())
    }

    #[test]
    fn both_ends_of_a_range_belong_to_it() {
        for value in [2, 40] {
            let count = read(&format!("count = {value}")).unwrap().count;
            assert_eq!((count.get(), count.count()), (value, value as usize));
            assert_eq!((count.get_u32(), count.get_i32()), (value as u32, value as i32));
        }
        for value in ["-1", "1", "41"] {
            let said = read(&format!("count = {value}")).unwrap_err();
            let expected = format!("x:1:9: invalid value: integer `{value}`, expected a whole number from 2 to 40");
            assert_eq!(said, expected);
        }
        assert!(read("count = 2.5").unwrap_err().starts_with("x:1:9: invalid type: floating point `2.5`, expected a"));
    }

    #[test]
    fn an_address_needs_its_port() {
        let sample = read("listen = \"[::1]:80\"").unwrap();
        assert_eq!(sample.listen.0, "[::1]:80".parse().unwrap());
        for text in ["localhost", "127.0.0.1", "localhost:80", ""] {
            let said = read(&format!("listen = \"{text}\"")).unwrap_err();
            assert!(said.starts_with(&format!("x:1:10: `{text}` is no address with a port")), "{said}");
        }
    }

    #[test]
    fn a_secret_is_compared_and_never_shown() {
        let sample = read("secret = \"hunter2\"").unwrap();
        assert!(sample.secret.matches(b"hunter2") && !sample.secret.matches(b"hunter") && !sample.secret.is_empty());
        assert!(!format!("{sample:?}").contains("hunter2"));
        assert!(!read("secret = [\"hunter2\"]").unwrap_err().contains("hunter2"));
    }
}
