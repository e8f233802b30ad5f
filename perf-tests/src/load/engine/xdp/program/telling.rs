//! What userspace tells single clients, past the script, and what the program tells of single ones.

use std::sync::atomic::{AtomicU64, Ordering};

use abi::clients::{Client, HEARD_FROM_MAP, Late};
use aya::maps::Array;

use super::{Clients, Program, failed, typed};
use crate::load::engine::xdp::error::XdpError;

impl Clients {
    /// Brings a client from one state into another. False when it is not in that one, or nobody.
    ///
    /// The program writes the other bytes of the word at any moment, and loses none of them by this.
    pub fn turn(&self, number: u32, from: u8, to: u8) -> bool {
        let Some(words) = self.words_of(number) else { return false };
        let (at, byte) = Client::STATE_AT;
        let mut before = words[at].load(Ordering::Acquire);
        loop {
            let mut bytes = before.to_ne_bytes();
            if bytes[byte] != from {
                return false;
            }
            bytes[byte] = to;
            let now = u64::from_ne_bytes(bytes);
            match words[at].compare_exchange(before, now, Ordering::AcqRel, Ordering::Acquire) {
                Ok(_) => return true,
                Err(other) => before = other,
            }
        }
    }

    /// Puts a client that has no connection where it shall be, its state last. The program writes nothing of such a one.
    pub fn put(&self, number: u32, client: &Client) {
        let Some(words) = self.words_of(number) else { return };
        for (word, value) in words.iter().zip(client.to_words()) {
            word.store(value, Ordering::Release);
        }
    }

    /// All, by number, with the number.
    pub fn numbered(&self) -> impl Iterator<Item = (u32, Client)> {
        (0..).zip(self.iter())
    }

    fn words_of(&self, number: u32) -> Option<&[AtomicU64]> {
        let first = number as usize * Client::WORDS;
        self.0.words().get(first..first + Client::WORDS)
    }
}

impl Program {
    /// The first message of the phase that a client heard, when it came back in its middle and heard one.
    ///
    /// # Errors
    /// [`XdpError::Table`].
    pub fn heard_from(&self, number: u32) -> Result<u32, XdpError> {
        let table: Array<_, u32> = typed(self.object.map(HEARD_FROM_MAP), HEARD_FROM_MAP)?;
        table.get(&number, 0).map_err(failed("read", HEARD_FROM_MAP))
    }

    /// Acknowledgements to be said later, those that were not taken yet, the oldest first.
    pub fn take_late(&mut self, mut take: impl FnMut(Late)) {
        while let Some(entry) = self.late.next() {
            if let Ok(bytes) = <[u8; size_of::<Late>()]>::try_from(&entry[..]) {
                take(Late::from_bytes(bytes));
            }
        }
    }
}
