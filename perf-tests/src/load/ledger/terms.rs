//! What a ledger is told, answers and counts.

/// From which number on a client is owed messages.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Anchor {
    /// From 0: the client was in the room before the first message.
    Zero,
    /// From the first that it hears: somebody else publishes, and may have begun before.
    FirstHeard,
    /// From the first that it hears, and from this one at the latest: it came into the room in the middle, and whatever
    /// has a lower number may have passed before.
    AtMost(u32),
}

/// What a number was to the client that heard it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// The one that was due.
    InOrder,
    /// A later one: those between are missing, for now.
    AfterGap,
    /// One that was missing: it came, but after a later one.
    Late,
    /// One that the client already had.
    Duplicate,
}

/// What a ledger has counted over all its clients.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Counts {
    /// Different messages heard.
    pub received: u64,
    /// Times that a number was not the one due, but a later one.
    pub gaps: u64,
    /// Messages heard again.
    pub duplicates: u64,
    /// Messages heard after a later one.
    pub order_faults: u64,
    /// Missing numbers that were not remembered singly for want of room. A late one among them counts as a duplicate.
    pub unremembered: u64,
}

/// How a ledger stands to what was due.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Balance {
    /// Messages owed to the clients.
    pub due: u64,
    /// Of these, never heard.
    pub missing: u64,
    /// Clients that miss at least one.
    pub incomplete_clients: u64,
    /// Clients of a room in which others heard something, who heard nothing.
    pub silent_clients: u64,
    /// Messages that were under way when a client went: neither due nor missing.
    pub in_doubt: u64,
}

impl Balance {
    /// Adds all of `other`.
    pub fn absorb(&mut self, other: &Self) {
        self.due += other.due;
        self.missing += other.missing;
        self.incomplete_clients += other.incomplete_clients;
        self.silent_clients += other.silent_clients;
        self.in_doubt += other.in_doubt;
    }
}

impl Counts {
    /// Adds all of `other`.
    pub fn absorb(&mut self, other: &Self) {
        self.received += other.received;
        self.gaps += other.gaps;
        self.duplicates += other.duplicates;
        self.order_faults += other.order_faults;
        self.unremembered += other.unremembered;
    }
}

/// Whether a client is owed what it hears.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Standing {
    /// It is.
    Owed = 0,
    /// It was told not to read as it should, and is counted apart.
    Astray = 1,
}
