//! The program that plays the clients, in the kernel, and its tables. Nothing is pinned: all of it goes with this value.

mod telling;

use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use abi::clients::{
    BROADCASTS_MAP, Broadcast, CLIENTS_MAP, COUNTS, COUNTS_MAP, Client, Count, DELAY_BUCKETS, DELAYS_MAP,
    HEARD_FROM_MAP, HEARD_RUN_MAP, LATE_MAP, PASS, PROGRAM, SCRIPT_MAP, Script, broadcast_index,
};
use aya::maps::{Array, HashMap, Map, MapData, MapError, PerCpuArray, RingBuf};
use aya::programs::{ProgramError, Xdp, XdpMode};
use aya::{Ebpf, EbpfLoader};

use super::error::XdpError;
use crate::sys::Shared;

/// The object's file.
const OBJECT: &str = "push-clients.bpf.o";

/// Messages that are timed at most: 16 MiB.
pub const MAX_BROADCASTS: u32 = 1 << 20;

/// Programs and tables. Dropping it detaches and frees them.
pub struct Program {
    object: Ebpf,
    clients: Arc<Clients>,
    late: RingBuf<MapData>,
}

/// How the clients stand: the program's table, in our memory. Read without asking anybody, so each client is as it was at
/// some moment of the reading, and one that is being written may be half old and half new.
#[derive(Debug)]
pub struct Clients(Shared);

impl Clients {
    /// How many there is room for.
    #[must_use]
    pub fn count(&self) -> u32 {
        (self.0.words().len() / Client::WORDS) as u32
    }

    /// A client; `None` for a number that is nobody's.
    #[must_use]
    pub fn get(&self, number: u32) -> Option<Client> {
        let first = number as usize * Client::WORDS;
        self.0.words().get(first..first + Client::WORDS).map(client_in)
    }

    /// A client that is there.
    ///
    /// # Errors
    /// [`XdpError::Table`] when there is no such client.
    pub fn client(&self, number: u32) -> Result<Client, XdpError> {
        let reason = || format!("{number} is nobody's number, of {}", self.count());
        self.get(number).ok_or_else(|| XdpError::Table { doing: "read", table: CLIENTS_MAP, reason: reason() })
    }

    /// All, by number.
    pub fn iter(&self) -> impl Iterator<Item = Client> {
        self.0.words().chunks_exact(Client::WORDS).map(client_in)
    }

    /// Makes nobody of everybody.
    fn forget(&self) {
        for word in self.0.words() {
            word.store(0, Ordering::Relaxed);
        }
    }
}

fn client_in(words: &[AtomicU64]) -> Client {
    Client::from_words(std::array::from_fn(|at| words[at].load(Ordering::Relaxed)))
}

/// What the clients have counted, by [`Count`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Counts([u64; COUNTS as usize]);

impl Counts {
    /// How often.
    #[must_use]
    pub fn of(&self, what: Count) -> u64 {
        self.0[what as usize]
    }

    /// What was counted since `before`, in either direction: missing messages that came late are taken off again.
    #[must_use]
    pub fn since(&self, before: &Self) -> Self {
        Self(std::array::from_fn(|at| self.0[at].wrapping_sub(before.0[at])))
    }
}

impl Program {
    /// Loads the object with room for `clients` clients, who are nobody yet, and to time `broadcasts` messages.
    ///
    /// # Errors
    /// [`XdpError`] when it is not there, we are not root, or the kernel does not take it.
    pub fn load(clients: u32, broadcasts: u32) -> Result<Self, XdpError> {
        if !rustix::process::geteuid().is_root() {
            return Err(XdpError::NotRoot);
        }
        let path = object(OBJECT)?;
        let refused = |reason: String| XdpError::Load { object: path.clone(), reason };
        let mut object = EbpfLoader::new()
            .map_max_entries(CLIENTS_MAP, clients)
            .map_max_entries(HEARD_FROM_MAP, clients)
            .map_max_entries(BROADCASTS_MAP, broadcasts.clamp(1, MAX_BROADCASTS))
            .load_file(&path)
            .map_err(|error| refused(format!("{}, with room for {clients} clients", words_of(&error))))?;
        let words = clients as usize * Client::WORDS;
        let Some(Map::Array(table)) = object.map(CLIENTS_MAP) else {
            return Err(refused(format!("it holds no table {CLIENTS_MAP}")));
        };
        let mapped = Shared::map(table.fd(), words).map_err(XdpError::io("map the table of clients"))?;
        let late = typed(object.take_map(LATE_MAP), LATE_MAP)?;
        let mut loaded = Self { object, clients: Arc::new(Clients(mapped)), late };
        for name in [PROGRAM, PASS] {
            load(loaded.program(name)?).map_err(|error| refused(words_of(&error)))?;
        }
        Ok(loaded)
    }

    /// The program called `name`, for whoever attaches or runs it.
    ///
    /// # Errors
    /// [`XdpError::Load`] when the object holds no such program.
    pub fn program(&mut self, name: &'static str) -> Result<&mut Xdp, XdpError> {
        let missing = || XdpError::Load { object: OBJECT.into(), reason: format!("it holds no XDP program {name}") };
        self.object.program_mut(name).ok_or_else(missing)?.try_into().map_err(|_| missing())
    }

    /// Attaches the program called `name` in driver mode, to an interface of this thread's namespace.
    ///
    /// # Errors
    /// [`XdpError::Attach`].
    pub fn attach(&mut self, name: &'static str, interface_index: u32) -> Result<(), XdpError> {
        let attached = self.program(name)?.attach_to_if_index(interface_index, XdpMode::Driver);
        attached.map(drop).map_err(|error| XdpError::Attach { program: name, reason: words_of(&error) })
    }

    /// How the clients stand.
    #[must_use]
    pub fn clients(&self) -> &Arc<Clients> {
        &self.clients
    }

    /// How a client stands.
    ///
    /// # Errors
    /// As [`Clients::client`].
    pub fn client(&self, number: u32) -> Result<Client, XdpError> {
        self.clients.client(number)
    }

    /// Clears the table for others: nobody has begun, and nobody heard of any run.
    ///
    /// # Errors
    /// [`XdpError::Table`].
    pub fn forget_clients(&mut self) -> Result<(), XdpError> {
        self.clients.forget();
        if self.heard_run()? == 0 {
            return Ok(());
        }
        let mut heard: HashMap<_, u32, u32> = typed(self.object.map_mut(HEARD_RUN_MAP), HEARD_RUN_MAP)?;
        heard.remove(&0).map_err(failed("clear", HEARD_RUN_MAP))
    }

    /// Tells the clients what to do.
    ///
    /// # Errors
    /// [`XdpError::Table`].
    pub fn set_script(&mut self, script: &Script) -> Result<(), XdpError> {
        let mut table: Array<_, Script> = typed(self.object.map_mut(SCRIPT_MAP), SCRIPT_MAP)?;
        table.set(0, script, 0).map_err(failed("write", SCRIPT_MAP))
    }

    /// Puts a client where a test wants it.
    ///
    /// # Errors
    /// [`XdpError::Table`].
    pub fn set_client(&mut self, number: u32, client: &Client) -> Result<(), XdpError> {
        let mut table: Array<_, Client> = typed(self.object.map_mut(CLIENTS_MAP), CLIENTS_MAP)?;
        table.set(number, client, 0).map_err(failed("write", CLIENTS_MAP))
    }

    /// What was counted so far, on all CPUs.
    ///
    /// # Errors
    /// [`XdpError::Table`].
    pub fn counts(&self) -> Result<Counts, XdpError> {
        let sums = self.sums(COUNTS_MAP, COUNTS)?;
        Ok(Counts(std::array::from_fn(|at| sums[at])))
    }

    /// Delays so far, by bucket, on all CPUs.
    ///
    /// # Errors
    /// [`XdpError::Table`].
    pub fn delays(&self) -> Result<Vec<u64>, XdpError> {
        self.sums(DELAYS_MAP, DELAY_BUCKETS)
    }

    /// Messages `0..ends[s]` of every stream s, as far as they are timed.
    ///
    /// # Errors
    /// [`XdpError::Table`].
    pub fn for_each_broadcast(&self, ends: &[u32], mut look: impl FnMut(u32, u32, Broadcast)) -> Result<(), XdpError> {
        let table: Array<_, Broadcast> = typed(self.object.map(BROADCASTS_MAP), BROADCASTS_MAP)?;
        for (stream, end) in ends.iter().enumerate() {
            for number in 0..*end {
                let index = broadcast_index(ends.len() as u32, stream as u32, number);
                if index >= table.len() {
                    break;
                }
                look(stream as u32, number, table.get(&index, 0).map_err(failed("read", BROADCASTS_MAP))?);
            }
        }
        Ok(())
    }

    /// The run whose messages count because it was heard first; 0 when none was, or the script names one.
    ///
    /// # Errors
    /// [`XdpError::Table`].
    pub fn heard_run(&self) -> Result<u32, XdpError> {
        let table: HashMap<_, u32, u32> = typed(self.object.map(HEARD_RUN_MAP), HEARD_RUN_MAP)?;
        match table.get(&0, 0) {
            Err(MapError::KeyNotFound) => Ok(0),
            heard => heard.map_err(failed("read", HEARD_RUN_MAP)),
        }
    }

    fn sums(&self, name: &'static str, entries: u32) -> Result<Vec<u64>, XdpError> {
        let table: PerCpuArray<_, u64> = typed(self.object.map(name), name)?;
        let sum = |entry: u32| {
            let values = table.get(&entry, 0).map_err(failed("read", name))?;
            Ok(values.iter().fold(0_u64, |sum, value| sum.wrapping_add(*value)))
        };
        (0..entries).map(sum).collect()
    }
}

/// Times that the kernel is asked to verify a program, which any signal to the thread ends.
const LOADS: u32 = 5;

/// Has the kernel verify `program` and take it.
pub(super) fn load(program: &mut Xdp) -> Result<(), ProgramError> {
    for _ in 1..LOADS {
        match program.load() {
            Err(ProgramError::LoadError { io_error, .. }) if io_error.kind() == ErrorKind::WouldBlock => {}
            outcome => return outcome,
        }
    }
    program.load()
}

fn typed<M, T: TryFrom<M>>(map: Option<M>, table: &'static str) -> Result<T, XdpError>
where
    T::Error: std::fmt::Display,
{
    let map = map.ok_or(XdpError::Table { doing: "find", table, reason: "the object holds none".to_owned() })?;
    T::try_from(map).map_err(|error| XdpError::Table { doing: "open", table, reason: error.to_string() })
}

fn failed(doing: &'static str, table: &'static str) -> impl FnOnce(MapError) -> XdpError {
    move |error| XdpError::Table { doing, table, reason: words_of(&error) }
}

/// The error and what caused it: aya's outer ones name the step only.
fn words_of(error: &dyn std::error::Error) -> String {
    let mut words = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        words = format!("{words}: {cause}");
        source = cause.source();
    }
    words
}

/// An object of the kernel's side: in `PUSH_BPF_DIR`, else in a directory `bpf` somewhere above our own executable.
pub(super) fn object(name: &'static str) -> Result<PathBuf, XdpError> {
    if let Some(directory) = std::env::var_os("PUSH_BPF_DIR") {
        let path = Path::new(&directory).join(name);
        return if path.is_file() { Ok(path) } else { Err(XdpError::NoObject { name, executable: path }) };
    }
    let executable = std::env::current_exe().map_err(XdpError::io("find our own executable"))?;
    let found = executable.ancestors().skip(1).map(|above| above.join("bpf").join(name)).find(|path| path.is_file());
    found.ok_or(XdpError::NoObject { name, executable })
}
