//! The switches of the programs, one entry in one map, changed while they run.
//!
//! Zero is a valid value of every field and the safe one, so an entry that nobody wrote yet guards no port
//! (`PROTECTED` is empty then) and disturbs nobody.

/// Value of [`Settings::kill_switch`] that lets everything pass.
pub const PASS_EVERYTHING: u32 = 1;
/// Value of [`Settings::observe`] that counts what would be dropped and lets it pass.
pub const OBSERVE: u32 = 1;
/// Value of [`Settings::fragments`] that drops every fragment that could belong to a protected port.
pub const DROP_FRAGMENTS: u32 = 1;
/// Value of [`Settings::addresses`] that guards only the destination addresses listed.
pub const ONLY_LISTED_ADDRESSES: u32 = 1;

/// Room for an interface name with its closing zero (the kernel's `IFNAMSIZ`).
pub const INTERFACE_NAME_BYTES: usize = 16;

/// Switches and the record of where the filter was attached.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Settings {
    /// 1: every packet passes, unparsed. The way out when something is wrong.
    pub kill_switch: u32,
    /// 1: a packet that would be dropped passes, and is counted in the second half of the counters.
    pub observe: u32,
    /// 0: a first fragment is judged by its header, a later one passes. 1: both drop.
    pub fragments: u32,
    /// 1: only packets to the listed addresses are judged. 0: those to any address.
    pub addresses: u32,
    /// Interface that the filter was attached to. Only userspace reads it.
    pub interface_index: u32,
    /// 1 = driver, 2 = generic, as asked and got. Only userspace reads it.
    pub mode: u32,
    /// Inode of the network namespace that the interface lives in; 0 = unknown. Only userspace reads it.
    pub namespace: u64,
    /// Hosts that a rule set may hold, per family. Only userspace reads it.
    pub max_hosts: u32,
    /// Prefixes that it may hold, per family; as many of ISPs. Only userspace reads it.
    pub max_prefixes: u32,
    /// Cookie of that namespace, as `SO_NETNS_COOKIE` tells it; 0 = unknown.
    pub namespace_cookie: u64,
    /// 1: the program was loaded to log every verdict. Only userspace reads it.
    pub trace: u32,
    /// Zero.
    pub reserved: u32,
    /// The interface's name at the time, closed by a zero. Only userspace reads it.
    pub interface_name: [u8; INTERFACE_NAME_BYTES],
}

const _: () = assert!(size_of::<Settings>() == 72);
