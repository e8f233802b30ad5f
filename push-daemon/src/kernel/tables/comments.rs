//! What operators write beside their rules, kept once per text.
//!
//! A rule holds the number of its comment; the number is a hash of the text, so that the same text finds its number
//! again without an index. They live beside the rules in the kernel, or `pushctl` would need a file that follows them.

use std::collections::{HashMap, HashSet};

use abi::rules::COMMENT_BYTES;
use aya::maps::{MapData, MapError};

use super::pinned::map_data;
use crate::kernel::{error::KernelError, pin::PinDir, sys::maps};

/// The longest comment, in bytes: the last byte stays zero.
pub const MAX_COMMENT_BYTES: usize = COMMENT_BYTES - 1;

/// Numbers tried for a text before the table counts as full.
const TRIES: u32 = 64;

type Text = [u8; COMMENT_BYTES];

/// The comments under one root.
pub(super) struct Comments {
    map: MapData,
}

impl Comments {
    pub(super) fn open(pins: &PinDir) -> Result<Self, KernelError> {
        let map = map_data(pins, abi::maps::COMMENTS)?;
        let info = map.info().map_err(|error| foreign(pins, error))?;
        if info.key_size() != 4 || info.value_size() as usize != COMMENT_BYTES {
            let size = info.value_size() as usize;
            return Err(foreign(pins, MapError::InvalidValueSize { size, expected: COMMENT_BYTES }));
        }
        Ok(Self { map })
    }

    /// The number of `comment`, which is noted if it is new; 0 for none.
    pub(super) fn number_of(&self, comment: &str) -> Result<u32, KernelError> {
        if comment.is_empty() {
            return Ok(0);
        }
        let text = padded(comment)?;
        let failed = |error| KernelError::system("note a comment", error);
        let first = hash(&text);
        for number in (0..TRIES).map(|step| first.wrapping_add(step).max(1)) {
            match maps::lookup::<u32, Text>(self.map.fd(), &number).map_err(failed)? {
                Some(there) if there == text => return Ok(number),
                Some(_) => {}
                None => {
                    let done = maps::update(self.map.fd(), &number, &text);
                    return match done {
                        Ok(()) => Ok(number),
                        Err(error) if matches!(error.raw_os_error(), Some(libc::E2BIG | libc::ENOSPC)) => Err(full()),
                        Err(error) => Err(failed(error)),
                    };
                }
            }
        }
        Err(full())
    }

    /// The number that `comment` has; one that no rule has when it is new.
    pub(super) fn find(&self, comment: &str) -> Result<u32, KernelError> {
        if comment.is_empty() {
            return Ok(0);
        }
        let text = padded(comment)?;
        let first = hash(&text);
        for number in (0..TRIES).map(|step| first.wrapping_add(step).max(1)) {
            let there = maps::lookup::<u32, Text>(self.map.fd(), &number);
            match there.map_err(|error| KernelError::system("look a comment up", error))? {
                Some(there) if there == text => return Ok(number),
                Some(_) => {}
                None => break,
            }
        }
        Ok(u32::MAX)
    }

    /// The comment of `number`; empty for 0, or for one that is gone.
    pub(super) fn text_of(&self, number: u32) -> Result<String, KernelError> {
        if number == 0 {
            return Ok(String::new());
        }
        let text = maps::lookup::<u32, Text>(self.map.fd(), &number);
        let text = text.map_err(|error| KernelError::system("read a comment", error))?;
        Ok(text.map(|text| plain(&text)).unwrap_or_default())
    }

    /// Every comment by its number.
    pub(super) fn all(&self) -> Result<HashMap<u32, String>, KernelError> {
        let entries = maps::entries::<u32, Text>(self.map.fd());
        let entries = entries.map_err(|error| KernelError::system("read the comments", error))?;
        Ok(entries.into_iter().map(|(number, text)| (number, plain(&text))).collect())
    }

    /// Forgets the comments that no rule uses.
    pub(super) fn keep_only(&self, used: &HashSet<u32>) -> Result<(), KernelError> {
        let entries = maps::entries::<u32, Text>(self.map.fd());
        let failed = |error| KernelError::system("forget comments", error);
        let unused: Vec<u32> =
            entries.map_err(failed)?.into_iter().map(|(number, _)| number).filter(|n| !used.contains(n)).collect();
        maps::delete_all(self.map.fd(), &unused).map_err(failed)
    }
}

/// Says what is wrong with a comment.
pub(super) fn check(comment: &str) -> Result<(), KernelError> {
    padded(comment).map(drop)
}

fn padded(comment: &str) -> Result<Text, KernelError> {
    if comment.len() > MAX_COMMENT_BYTES || comment.chars().any(char::is_control) {
        return Err(KernelError::Comment { comment: comment.chars().take(80).collect(), most: MAX_COMMENT_BYTES });
    }
    let mut text = [0; COMMENT_BYTES];
    text[..comment.len()].copy_from_slice(comment.as_bytes());
    Ok(text)
}

fn plain(text: &Text) -> String {
    let length = text.iter().position(|byte| *byte == 0).unwrap_or(text.len());
    String::from_utf8_lossy(&text[..length]).into_owned()
}

/// FNV-1a: any even spread does, and it has to be the same in every version.
fn hash(text: &Text) -> u32 {
    text.iter().fold(0x811c_9dc5, |hash, byte| (hash ^ u32::from(*byte)).wrapping_mul(0x0100_0193))
}

fn full() -> KernelError {
    KernelError::TableFull { table: abi::maps::COMMENTS, max: abi::maps::MAX_COMMENTS, key: "" }
}

fn foreign(pins: &PinDir, source: MapError) -> KernelError {
    KernelError::ForeignPin { path: pins.file(abi::maps::COMMENTS), source: Box::new(source) }
}
