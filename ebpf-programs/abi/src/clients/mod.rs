//! What the program that plays clients and its userspace agree on.
//!
//! It is a tool of the tests, in an object of its own: nothing of it is pinned, so it is no part of the
//! [`LAYOUT`](crate::LAYOUT).
//!
//! Layout: [`Script`] what the clients do · [`Client`] how one of them stands · `count` what is counted · `delay` the
//! histogram of delays.

mod count;
mod delay;

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
    /// The auth packet of every client, zeros behind it. On WebSocket in its frame, masked by zeros.
    pub greeting: [u8; GREETING_BYTES],
    /// The request that every client makes to have WebSocket, zeros behind it.
    pub upgrade: [u8; GREETING_BYTES],
}

const _: () = assert!(size_of::<Script>() == 18 * 4 + 2 * GREETING_BYTES);

/// How one client stands. All zero: it has no connection yet.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Client {
    /// Of the packet under way: when its publisher sent it. From the answer to the auth until the first message: when that
    /// answer came. On WebSocket, of a packet that a segment cut: in the upper half what of its frame comes behind it, in the
    /// lower one the time in [`tick`]s.
    pub sent_ns: u64,
    /// The next byte that is due from the server.
    pub next_in: u32,
    /// The next byte that the server awaits, as it says itself. What was sent beyond is under way.
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
    /// One of the [`state`]s.
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

/// One message, whoever hears it. All zero: nobody has.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Broadcast {
    /// When its publisher sent it.
    pub sent_ns: u64,
    /// When a client heard it, up to now the last.
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
/// [`Client::at`] from which on the header of a WebSocket frame is under way.
pub const FRAME_HEADER: u8 = 64;
/// [`Client::at`] of a stream in which the payload of a control frame is under way.
pub const CONTROL: u8 = 128;

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

/// Values of [`Client::state`].
pub mod state {
    /// Nothing came from the server yet.
    pub const FRESH: u8 = 0;
    /// The handshake is done, WebSocket's as well if that is to be, and the auth packet sent.
    pub const GREETED: u8 = 1;
    /// The auth was granted.
    pub const JOINED: u8 = 2;
    /// The auth was refused.
    pub const REFUSED: u8 = 3;
    /// The server closed, and we did too.
    pub const CLOSED: u8 = 4;
    /// The server reset the connection.
    pub const RESET: u8 = 5;
    /// The handshake is done and WebSocket asked for.
    pub const UPGRADING: u8 = 6;
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
