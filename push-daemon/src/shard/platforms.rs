//! What clients say they run on, each name kept once.
//!
//! A client says what it likes, so the list is bounded: what comes when it is full, or is too long, is one name.

/// Longest name that is kept.
const MAX_NAME_BYTES: usize = 32;

/// What all others are called.
const OTHER: &str = "other";

/// The names of one shard. A connection holds the place of its name in the list.
pub(crate) struct Platforms {
    /// At most 256; the first is [`OTHER`].
    names: Vec<Box<str>>,
}

impl Platforms {
    pub(crate) fn new() -> Self {
        Self { names: vec![OTHER.into()] }
    }

    /// The number of `name`, which is kept from now on if there is room.
    pub(crate) fn number(&mut self, name: &str) -> u8 {
        if name.len() > MAX_NAME_BYTES {
            return 0;
        }
        let place = self.names.iter().position(|known| **known == *name).unwrap_or_else(|| {
            if self.names.len() > usize::from(u8::MAX) {
                return 0;
            }
            self.names.push(name.into());
            self.names.len() - 1
        });
        place as u8
    }

    pub(crate) fn name(&self, number: u8) -> &str {
        &self.names[usize::from(number)]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_kept_once_and_the_list_is_bounded() {
        let mut platforms = Platforms::new();
        let web = platforms.number("web");
        assert_eq!((platforms.number("web"), platforms.name(web)), (web, "web"));
        for count in 0..1_000 {
            platforms.number(&format!("made up {count}"));
        }
        assert_eq!(platforms.name((platforms.names.len() - 1) as u8), "made up 253");
        let beyond = platforms.number("made up 999");
        let long = platforms.number(&"x".repeat(33));
        assert_eq!((platforms.name(beyond), platforms.name(long)), ("other", "other"));
        assert_eq!(platforms.number("web"), web);
    }
}
