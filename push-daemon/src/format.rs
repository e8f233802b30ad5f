//! The ways in which packets are headed and packed for clients: goim's, and Bilibili's three.

/// How the packets of a client are headed and packed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum Format {
    /// As goim writes them.
    Goim,
    /// Operation 5, version 0.
    Bilibili,
    /// Batches in one packet of version 2, whose body is zlib.
    Zlib,
    /// Batches in one packet of version 3, whose body is brotli.
    Brotli,
}

impl Format {
    /// All of them, in the order of their numbers.
    pub const ALL: [Self; 4] = [Self::Goim, Self::Bilibili, Self::Zlib, Self::Brotli];
}

/// A set of formats: those that the members of a room take.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Formats(u8);

impl Formats {
    /// The set with `format` in it.
    #[must_use]
    pub fn with(self, format: Format) -> Self {
        Self(self.0 | 1 << format as u8)
    }

    /// The set with `format` not in it.
    #[must_use]
    pub fn without(self, format: Format) -> Self {
        Self(self.0 & !(1 << format as u8))
    }

    /// Whether `format` is in it.
    #[must_use]
    pub fn has(self, format: Format) -> bool {
        self.0 & 1 << format as u8 != 0
    }
}

impl FromIterator<Format> for Formats {
    fn from_iter<I: IntoIterator<Item = Format>>(formats: I) -> Self {
        formats.into_iter().fold(Self::default(), Self::with)
    }
}
