//! What the clients count.

macro_rules! counts {
    ($($(#[$doc:meta])* $variant:ident = $number:literal, $name:literal;)+) => {
        /// What is counted; its number is its place in the map.
        #[repr(u32)]
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        pub enum Count {
            $($(#[$doc])* $variant = $number,)+
        }

        impl Count {
            /// All, in the order of the map.
            pub const ALL: [Count; COUNTS as usize] = [$(Count::$variant,)+];

            /// In words.
            #[must_use]
            pub const fn name(self) -> &'static str {
                match self { $(Count::$variant => $name,)+ }
            }
        }

        /// How many there are.
        pub const COUNTS: u32 = [$($name),+].len() as u32;
    };
}

counts! {
    /// Handshakes done.
    Established = 0, "established";
    /// Auths granted.
    Joined = 1, "joined";
    /// Auths refused by an answer that says so.
    Refused = 2, "auth refused";
    /// SYNs answered by a reset.
    SynReset = 3, "connection refused";
    /// Connections reset before the auth was answered.
    ResetBeforeGrant = 4, "reset before the auth was answered";
    /// Connections closed before the auth was answered.
    ClosedBeforeGrant = 5, "closed before the auth was answered";
    /// Connections that had joined, reset.
    Reset = 6, "reset";
    /// Connections that had joined, closed in order.
    Closed = 7, "closed";
    /// Different messages heard.
    Messages = 8, "messages";
    /// Bytes of the stream taken in order.
    Bytes = 9, "bytes";
    /// Times that a later message came than the next.
    Gaps = 10, "gaps";
    /// Numbers that a gap left out; one that came late is taken off again.
    Missing = 11, "missing";
    /// Messages that came after a later one.
    OrderFaults = 12, "order faults";
    /// Messages heard again, or so late that nobody remembers whether they were.
    Duplicates = 13, "duplicates";
    /// Messages of this run and phase for another stream.
    Misrouted = 14, "misrouted";
    /// Messages that are not of this run.
    Foreign = 15, "foreign";
    /// Messages of another phase of this run.
    Stragglers = 16, "stragglers";
    /// Heartbeats answered.
    HeartbeatReplies = 17, "heartbeat replies";
    /// Other packets of the protocol's own.
    OtherPackets = 18, "other packets";
    /// Streams in which something stood that is no packet.
    Garbled = 19, "garbled streams";
    /// Segments of which every byte had come before.
    Repeated = 20, "repeated segments";
    /// Segments behind a hole.
    BehindHole = 21, "segments behind a hole";
    /// Segments that belong to no connection of ours.
    Stray = 22, "stray segments";
    /// Frames that should have been ours and could not be read.
    Malformed = 23, "malformed frames";
    /// Answers that could not be sent.
    Unanswered = 24, "answers that found no room";
    /// Upgrades to WebSocket that were answered by something else.
    UpgradeRefused = 25, "upgrade refused";
    /// Pings, pongs and close frames.
    ControlFrames = 26, "control frames";
    /// Segments so far from what was said and heard that they are none of the connection's.
    OutOfWindow = 27, "segments outside the window";
    /// Auths granted to clients that came back.
    Back = 28, "back";
    /// Attempts to come back: auths refused by an answer that says so.
    BackRefused = 29, "coming back: auth refused";
    /// Attempts to come back: upgrades to WebSocket that were answered by something else.
    BackUpgradeRefused = 30, "coming back: upgrade refused";
    /// Attempts to come back: SYNs answered by a reset.
    BackSynReset = 31, "coming back: connection refused";
    /// Attempts to come back: connections reset before the auth was answered.
    BackReset = 32, "coming back: reset before the auth was answered";
    /// Attempts to come back: connections closed before the auth was answered.
    BackClosed = 33, "coming back: closed before the auth was answered";
    /// Connections of clients that read nothing, reset.
    StoppedReset = 34, "reset, reading nothing";
    /// Connections of clients that read nothing, closed in order.
    StoppedClosed = 35, "closed, reading nothing";
    /// Connections of clients that read slowly, reset.
    SlowReset = 36, "reset, reading slowly";
    /// Connections of clients that read slowly, closed in order.
    SlowClosed = 37, "closed, reading slowly";
    /// Connections of clients that are silent, reset.
    SilentReset = 38, "reset, silent";
    /// Connections of clients that are silent, closed in order.
    SilentClosed = 39, "closed, silent";
    /// Different messages heard by clients that are owed nothing.
    AstrayMessages = 40, "messages to clients astray";
    /// Times that such a client heard a later message than the next.
    AstrayGaps = 41, "gaps of clients astray";
    /// Messages that such a client heard after a later one.
    AstrayOrderFaults = 42, "order faults of clients astray";
    /// Messages that such a client heard again.
    AstrayDuplicates = 43, "duplicates of clients astray";
    /// Segments that came after a goodbye, or to somebody who is gone.
    AfterGoodbye = 44, "segments after a goodbye";
    /// Segments for which a client that does not read had no room, or not for all of it.
    NoRoom = 45, "segments that found no room";
    /// Segments that the script let get lost.
    Lost = 46, "segments lost on purpose";
    /// Segments acknowledged later.
    Late = 47, "segments acknowledged late";
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_count_stands_at_its_own_number_and_has_its_own_name() {
        for (place, count) in Count::ALL.iter().enumerate() {
            assert_eq!(*count as usize, place);
            assert!(Count::ALL[..place].iter().all(|other| other.name() != count.name()));
        }
    }
}
