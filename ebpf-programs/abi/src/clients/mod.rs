//! What the program that plays clients and its userspace agree on.
//!
//! It is a tool of the tests, in an object of its own: nothing of it is pinned, so it is no part of the
//! [`LAYOUT`](crate::LAYOUT).
//!
//! Layout: [`Script`] what the clients do · [`Client`] how one of them stands · [`state`] what it is about · [`reading`] how
//! far it has read that reads slowly · `count` what is counted · `delay` the histogram of delays.

mod count;
mod delay;
pub mod reading;
pub mod state;

pub use count::{COUNTS, Count};
pub use delay::{DELAY_BUCKETS, delay_bucket, delay_bucket_start_ns};

/// The XDP program that plays the clients.
pub const PROGRAM: &str = "clients";
/// The XDP program that lets everything pass. A veth end takes frames that its peer sends by `XDP_TX` only when it runs
/// some program itself.
pub const PASS: &str = "pass";

/// One entry: [`Script`].
pub const SCRIPT_MAP: &str = "SCRIPT";
/// [`Client`] by number, as many as the script has.
pub const CLIENTS_MAP: &str = "CLIENTS";
/// Per CPU, a `u64` by [`Count`].
pub const COUNTS_MAP: &str = "CLIENT_COUNTS";
/// Per CPU, a `u64` by [`delay_bucket`].
pub const DELAYS_MAP: &str = "DELAYS";
/// [`Broadcast`] by [`broadcast_index`], as many as are to be timed.
pub const BROADCASTS_MAP: &str = "BROADCASTS";

/// The `u32` by client's number: the first message of the phase that it heard after it had come back in its middle.
pub const HEARD_FROM_MAP: &str = "HEARD_FROM";
/// [`Late`] acknowledgements, for userspace to send.
pub const LATE_MAP: &str = "LATE";
/// 0 to the `u32` of the run that was heard first, when the script names none.
pub const HEARD_RUN_MAP: &str = "HEARD_RUN";

/// Room for the auth packet in the script.
pub const GREETING_BYTES: usize = 256;

/// The longest auth packet: a SYN's answer grows by it into the 256 bytes in front of a frame, of which the kernel keeps
/// some for itself.
pub const MAX_GREETING_BYTES: u32 = 208;

/// The longest answer to an upgrade that is read before the server is taken for something else.
pub const MAX_UPGRADE_ANSWER_BYTES: u32 = 8 << 10;

/// Room for a number in the auth packet: the digits of the largest `u32`.
pub const NUMBER_DIGITS: usize = 10;

/// The longest packet that is taken for one. What announces more is garbage, and nothing behind it can be understood.
pub const MAX_PACKET_BYTES: u32 = 1 << 24;

/// The clients, as userspace orders them. All zero, as before it is written: nobody is there.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Script {
    /// How many. A higher number is nobody's.
    pub clients: u32,
    /// Low 32 bits of the first client's address; the addresses follow it.
    pub first_address: u32,
    /// Clients of one address, on ports that follow one another.
    pub ports_per_address: u32,
    /// The first port of each address.
    pub first_port: u32,
    /// What initial sequence numbers are drawn from.
    pub secret: u32,
    /// The run whose messages count. 0: the first that a client hears.
    pub run: u32,
    /// The phase whose messages count. A client's books begin anew with its first message of another phase.
    pub phase: u32,
    /// Streams of the phase: client n follows stream n modulo this. 0 counts as 1.
    pub streams: u32,
    /// User id of the first client.
    pub first_mid: u32,
    /// Number of the first room.
    pub first_room: u32,
    /// Rooms: client n is in room n modulo this. 0 counts as 1.
    pub rooms: u32,
    /// Length of what `greeting` holds, the frame around the packet included. At most `MAX_GREETING_BYTES`.
    pub greeting_bytes: u32,
    /// Where in `greeting` the `NUMBER_DIGITS` of the user id go, blanks in front.
    pub mid_at: u32,
    /// Where in `greeting` the digits of the room go.
    pub room_at: u32,
    /// How many digits these are. At most `NUMBER_DIGITS`; 0 leaves the room as it is.
    pub room_digits: u32,
    /// [`habit`]s that all clients have.
    pub habits: u32,
    /// Length of what `upgrade` holds. At most `MAX_GREETING_BYTES`; 0 for clients that speak TCP alone.
    pub upgrade_bytes: u32,
    /// Nothing; keeps `greeting` on a multiple of 8.
    pub reserved: u32,
    /// Bytes that come and are not read before no more are taken, of a client that does not read as it should.
    pub room_bytes: u32,
    /// Not 0: everybody reads whatever comes, so that a close behind it is seen.
    pub all_read: u32,
    /// Segments with data that get lost, of 2^32.
    pub lost: u32,
    /// Not 0: userspace acknowledges data, later.
    pub acknowledges_late: u32,
    /// Bytes a second that slow clients read, by [`state::rate_of`]. The first is 0.
    pub bytes_per_second: [u32; RATES],
    /// The auth packet of every client, zeros behind it. On WebSocket in its frame, masked by zeros.
    pub greeting: [u8; GREETING_BYTES],
    /// The request that every client makes to have WebSocket, zeros behind it.
    pub upgrade: [u8; GREETING_BYTES],
}

const _: () = assert!(size_of::<Script>() == (22 + RATES) * 4 + 2 * GREETING_BYTES);

/// How many rates there are at which clients read, the first of which is not at all.
pub const RATES: usize = 8;

/// An acknowledgement that is due later.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Late {
    /// When what it acknowledges came.
    pub came_ns: u64,
    /// Whose it is.
    pub number: u32,
    /// What it acknowledges.
    pub next_in: u32,
}

const _: () = assert!(size_of::<Late>() == 16);

impl Late {
    /// What stands in these bytes.
    #[must_use]
    pub const fn from_bytes(bytes: [u8; size_of::<Self>()]) -> Self {
        let [a, b, c, d, e, f, g, h, number @ .., i, j, k, l] = bytes;
        Self {
            came_ns: u64::from_ne_bytes([a, b, c, d, e, f, g, h]),
            number: u32::from_ne_bytes(number),
            next_in: u32::from_ne_bytes([i, j, k, l]),
        }
    }
}

/// [`Client::next_number`] of one that has come back in the middle of a phase and heard nothing of it: its books begin with
/// the first message that it hears.
pub const UNHEARD: u32 = u32::MAX;

/// How one client stands. All zero: it has no connection yet.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Client {
    /// Of the packet under way: when its publisher sent it. From the grant until the first message: when that came. On
    /// WebSocket, of a packet that a segment cut: in the upper half what of its frame comes behind it, in the lower one the
    /// time in [`tick`]s. Of a client that reads at a rate: its [`reading::Reading`]. 0: it was never let in, or not since it
    /// began to come back.
    pub sent_ns: u64,
    /// The next byte that is due from the server.
    pub next_in: u32,
    /// The next byte that the server awaits, as it says itself. What was sent beyond is under way. While `RETURNING`: the
    /// byte behind the SYN.
    pub next_out: u32,
    /// One past the highest message number heard.
    pub next_number: u32,
    /// Of the packet under way: bytes still to come. Before its length is whole: what is known of that. Between packets, on
    /// WebSocket: what of the frame is still to come.
    pub left: u32,
    /// Of the packet under way: its operation, later its number.
    pub field: u32,
    /// Of the packet under way: bytes seen, at most [`STAMP_END`]. 0: none is. [`GARBLED`]: nothing is understood any more.
    /// From [`FRAME_HEADER`] on: the header of a frame is under way. [`CONTROL`]: the payload of a control frame is.
    pub at: u8,
    /// One of the [`state`]s. Userspace writes it too.
    pub state: u8,
    /// Of the packet under way: the [`mark`]s. And which phase `next_number` belongs to.
    pub marks: u8,
    /// Bit i: the message `next_number - 1 - i` has not come. Older ones are not remembered.
    pub missed: u8,
}

const _: () = assert!(size_of::<Client>() == 32);

impl Client {
    /// What it is made of when memory is looked at as words.
    pub const WORDS: usize = size_of::<Self>() / size_of::<u64>();

    /// The word that its state is in, and the byte of that.
    pub const STATE_AT: (usize, usize) = (3, core::mem::offset_of!(Self, state) - 24);

    /// The words that it stands in.
    #[must_use]
    pub const fn to_words(self) -> [u64; Self::WORDS] {
        let ([a, b, c, d], [e, f, g, h]) = (self.next_in.to_ne_bytes(), self.next_out.to_ne_bytes());
        let next = u64::from_ne_bytes([a, b, c, d, e, f, g, h]);
        let ([a, b, c, d], [e, f, g, h]) = (self.next_number.to_ne_bytes(), self.left.to_ne_bytes());
        let heard = u64::from_ne_bytes([a, b, c, d, e, f, g, h]);
        let [a, b, c, d] = self.field.to_ne_bytes();
        let packet = u64::from_ne_bytes([a, b, c, d, self.at, self.state, self.marks, self.missed]);
        [self.sent_ns, next, heard, packet]
    }

    /// The client that stands in these words.
    #[must_use]
    pub const fn from_words(words: [u64; Self::WORDS]) -> Self {
        let (next, heard, packet) = (words[1].to_ne_bytes(), words[2].to_ne_bytes(), words[3].to_ne_bytes());
        Self {
            sent_ns: words[0],
            next_in: u32::from_ne_bytes([next[0], next[1], next[2], next[3]]),
            next_out: u32::from_ne_bytes([next[4], next[5], next[6], next[7]]),
            next_number: u32::from_ne_bytes([heard[0], heard[1], heard[2], heard[3]]),
            left: u32::from_ne_bytes([heard[4], heard[5], heard[6], heard[7]]),
            field: u32::from_ne_bytes([packet[0], packet[1], packet[2], packet[3]]),
            at: packet[4],
            state: packet[5],
            marks: packet[6],
            missed: packet[7],
        }
    }
}

/// By how much the time of a message's last receipt may be behind. All CPUs write it, and each writing takes it from the
/// caches of the others.
pub const LAST_BEHIND_NS: u64 = 1 << 16;

/// One message, whoever hears it. All zero: nobody has.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Broadcast {
    /// When its publisher sent it.
    pub sent_ns: u64,
    /// When a client heard it, up to now the last, within [`LAST_BEHIND_NS`].
    pub last_ns: u64,
}

const _: () = assert!(size_of::<Broadcast>() == 16);

/// Where message `number` of a stream stands among all; past the end when there is no such place.
#[inline(always)]
#[must_use]
pub const fn broadcast_index(streams: u32, stream: u32, number: u32) -> u32 {
    let streams = if streams == 0 { 1 } else { streams };
    let index = number as u64 * streams as u64 + stream as u64;
    if index < u32::MAX as u64 { index as u32 } else { u32::MAX }
}

/// Where the stamp of a message ends: header and stamp are the part of a packet that is read.
pub const STAMP_END: u8 = 48;
/// [`Client::at`] of a stream in which no packet begins any more.
pub const GARBLED: u8 = u8::MAX;
/// Bit of [`Client::left`], on WebSocket: it is not known what of the frame is still to come, because what stands in
/// [`Client::sent_ns`] is something else. The first byte behind the packet tells.
pub const FRAME_UNKNOWN: u32 = 1 << 31;
/// [`Client::at`] from which on the header of a WebSocket frame is under way.
pub const FRAME_HEADER: u8 = 64;
/// [`Client::at`] of a stream in which the payload of a control frame is under way.
pub const CONTROL: u8 = 128;
/// The same of a ping, of which nothing but the header has come.
pub const PING: u8 = 129;

/// What a time becomes that has to fit into 32 bits: units of 1024 ns, which come round in 73 minutes.
#[inline(always)]
#[must_use]
pub const fn tick(ns: u64) -> u32 {
    (ns >> TICK_BITS) as u32
}

/// The time that became `tick` less than 36 minutes before `now_ns`, or after.
#[inline(always)]
#[must_use]
pub const fn time_of_tick(now_ns: u64, tick_then: u32) -> u64 {
    let ago = tick(now_ns).wrapping_sub(tick_then) as i32;
    (now_ns >> TICK_BITS).wrapping_sub(ago as i64 as u64) << TICK_BITS
}

/// Bits of a time that a [`tick`] is without.
pub const TICK_BITS: u32 = 10;

/// Bits of [`Script::habits`].
pub mod habit {
    /// A client is owed what follows the first message that it hears, whatever its number: somebody else publishes, and may
    /// have begun before.
    pub const FROM_FIRST_HEARD: u32 = 1;
}

/// Bits of [`Client::marks`].
pub mod mark {
    /// What the packet is: one of the next four.
    pub const KIND: u8 = 0b11;
    /// A message, or what might be one.
    pub const MESSAGE: u8 = 0;
    /// The answer to the auth packet.
    pub const AUTH_REPLY: u8 = 1;
    /// The answer to a heartbeat.
    pub const HEARTBEAT_REPLY: u8 = 2;
    /// Something else of the protocol's.
    pub const OTHER: u8 = 3;
    /// Of a message: its stamp is not of this run.
    pub const FOREIGN: u8 = 1 << 2;
    /// Of the answer to the auth packet: it does not grant.
    pub const DENIED: u8 = FOREIGN;
    /// Of something else: it is the head of a batch, goim's raw one, and packets follow.
    pub const BATCH: u8 = FOREIGN;
    /// Of the header of a WebSocket frame: its opcode.
    pub const OPCODE: u8 = 0b1111;
    /// It is of another stream.
    pub const MISROUTED: u8 = 1 << 3;
    /// It is of another phase.
    pub const STRAGGLER: u8 = 1 << 4;
    /// The phase of `next_number`, its lowest three bits.
    pub const PHASE: u8 = 0b111 << PHASE_SHIFT;
    /// Where they stand.
    pub const PHASE_SHIFT: u8 = 5;
}

/// The initial sequence number of client `number`: its SYN says it, and the answer is checked against it.
#[inline(always)]
#[must_use]
pub const fn initial_sequence(number: u32, secret: u32) -> u32 {
    number.wrapping_mul(0x9e37_79b1) ^ secret
}

/// How far the initial sequence numbers of a client's connections are apart: a server that still remembers the one before
/// (TIME_WAIT) takes only what lies ahead of it. A client says far less on one.
pub const SEQUENCE_STEP: u32 = 1 << 20;

/// What client `number` has said behind the SYN of its connection, when it is at `next_out`.
#[inline(always)]
#[must_use]
pub const fn said(number: u32, secret: u32, next_out: u32) -> u32 {
    next_out.wrapping_sub(initial_sequence(number, secret)).wrapping_sub(1) % SEQUENCE_STEP
}

/// The initial sequence number of the next connection of client `number`, when the one before has come to `next_out`.
#[must_use]
pub const fn next_initial_sequence(number: u32, secret: u32, next_out: u32) -> u32 {
    let first = initial_sequence(number, secret);
    let steps = next_out.wrapping_sub(first) / SEQUENCE_STEP + 1;
    first.wrapping_add(steps.wrapping_mul(SEQUENCE_STEP))
}

/// A number that shows no pattern, out of one that was counted.
#[inline(always)]
#[must_use]
pub const fn chance(counted: u32) -> u32 {
    // The finalizer of MurmurHash3, public domain.
    let mixed = (counted ^ counted >> 16).wrapping_mul(0x85eb_ca6b);
    let mixed = (mixed ^ mixed >> 13).wrapping_mul(0xc2b2_ae35);
    mixed ^ mixed >> 16
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_connection_begins_ahead_of_the_one_before_and_tells_what_was_said_on_it() {
        let (number, secret) = (37, 0x5eed);
        let mut initial = initial_sequence(number, secret);
        for connection in 0..5000 {
            assert_eq!(said(number, secret, initial.wrapping_add(1)), 0, "{connection}");
            let next_out = initial.wrapping_add(1 + 300);
            assert_eq!(said(number, secret, next_out), 300, "{connection}");
            let next = next_initial_sequence(number, secret, next_out);
            assert!((1..=SEQUENCE_STEP).contains(&next.wrapping_sub(next_out)), "{connection}");
            initial = next;
        }
    }

    #[test]
    fn a_client_is_what_its_words_say() {
        let client = Client {
            sent_ns: 1 << 40,
            next_in: 2,
            next_out: 3,
            next_number: 4,
            left: 5,
            field: 6,
            at: 7,
            state: 8,
            marks: 9,
            missed: 10,
        };
        assert_eq!(Client::from_words(client.to_words()), client);
        let (word, byte) = Client::STATE_AT;
        assert_eq!(client.to_words()[word].to_ne_bytes()[byte], 8);
    }

    #[test]
    fn a_chance_comes_as_often_as_its_share_and_not_in_a_row() {
        for share in [0.01, 0.1, 0.5, 0.9] {
            let below = (share * 4_294_967_296.0) as u32;
            let taken: u32 = (1..=10_000).map(|counted| u32::from(chance(counted) < below)).sum();
            assert!((f64::from(taken) / 10_000.0 - share).abs() < 0.01, "{taken} of 10,000 for {share}");
        }
        let pairs = (1..=10_000).filter(|counted| chance(*counted) < 1 << 31 && chance(*counted + 1) < 1 << 31).count();
        assert!((2_300..2_700).contains(&pairs), "{pairs} of 10,000 for a half twice");
    }
}
