//! An allocator that counts, thread by thread: what a thread asked for, and what it gave back.
//!
//! It passes everything on to the system's. A thread takes a row of a fixed table with its first allocation, so
//! counting allocates nothing; threads beyond the table share its last row.
#![allow(unsafe_code)] // `GlobalAlloc` is an unsafe trait; every call goes on to `System` as it came.
#![allow(dead_code)] // Each test binary uses its own part of it.
#![allow(clippy::unwrap_used)] // In a test, a panic is the report.

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use std::fs;
use std::ops::{Add, Sub};
use std::sync::atomic::{AtomicI32, AtomicI64, AtomicUsize, Ordering::Relaxed};

/// Threads that can be told apart.
const ROWS: usize = 128;

#[global_allocator]
static COUNTING: Counting = Counting;

static TABLE: [Row; ROWS] = [const { Row::new() }; ROWS];
static NEXT_ROW: AtomicUsize = AtomicUsize::new(0);

thread_local! {
    /// The thread's row; `ROWS` before it has one.
    static OWN_ROW: Cell<usize> = const { Cell::new(ROWS) };
}

struct Row {
    thread: AtomicI32,
    allocations: AtomicI64,
    /// Allocated less freed: negative for a thread that frees what others made.
    bytes: AtomicI64,
}

/// What threads did to the heap.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Heap {
    /// Calls that asked for memory, or for more of it.
    pub(crate) allocations: i64,
    /// Bytes held.
    pub(crate) bytes: i64,
}

impl Heap {
    /// Of all threads that ever were.
    pub(crate) fn of_all() -> Self {
        TABLE.iter().map(Row::heap).fold(Self::default(), Add::add)
    }

    /// Of the threads of this process that run now and whose name begins with `name`.
    pub(crate) fn of_threads(name: &str) -> Self {
        let mut sum = Self::default();
        for task in fs::read_dir("/proc/self/task").unwrap() {
            let task = task.unwrap();
            // A thread may end while we look.
            let Ok(comm) = fs::read_to_string(task.path().join("comm")) else { continue };
            let id: i32 = task.file_name().to_str().unwrap().parse().unwrap();
            if comm.starts_with(name) {
                let rows = TABLE.iter().filter(|row| row.thread.load(Relaxed) == id);
                sum = rows.map(Row::heap).fold(sum, Add::add);
            }
        }
        sum
    }
}

impl Add for Heap {
    type Output = Self;

    fn add(self, other: Self) -> Self {
        Self { allocations: self.allocations + other.allocations, bytes: self.bytes + other.bytes }
    }
}

impl Sub for Heap {
    type Output = Self;

    fn sub(self, other: Self) -> Self {
        Self { allocations: self.allocations - other.allocations, bytes: self.bytes - other.bytes }
    }
}

impl Row {
    const fn new() -> Self {
        Self { thread: AtomicI32::new(0), allocations: AtomicI64::new(0), bytes: AtomicI64::new(0) }
    }

    fn heap(&self) -> Heap {
        Heap { allocations: self.allocations.load(Relaxed), bytes: self.bytes.load(Relaxed) }
    }

    /// The calling thread's.
    fn own() -> &'static Self {
        let row = OWN_ROW.with(|own| {
            if own.get() == ROWS {
                own.set(NEXT_ROW.fetch_add(1, Relaxed).min(ROWS - 1));
                TABLE[own.get()].thread.store(rustix::thread::gettid().as_raw_nonzero().get(), Relaxed);
            }
            own.get()
        });
        &TABLE[row]
    }

    fn grew(&self, bytes: usize) {
        self.allocations.fetch_add(1, Relaxed);
        self.bytes.fetch_add(bytes as i64, Relaxed);
    }

    fn shrank(&self, bytes: usize) {
        self.bytes.fetch_sub(bytes as i64, Relaxed);
    }
}

struct Counting;

// SAFETY: memory comes from `System` and goes back to it, by the layouts that the caller gave; counting touches none of it.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        Row::own().grew(layout.size());
        // SAFETY: the caller's promise is passed on as it came.
        unsafe { System.alloc(layout) }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        Row::own().grew(layout.size());
        // SAFETY: as above.
        unsafe { System.alloc_zeroed(layout) }
    }

    unsafe fn dealloc(&self, memory: *mut u8, layout: Layout) {
        Row::own().shrank(layout.size());
        // SAFETY: as above.
        unsafe { System.dealloc(memory, layout) }
    }

    unsafe fn realloc(&self, memory: *mut u8, layout: Layout, bytes: usize) -> *mut u8 {
        let row = Row::own();
        row.shrank(layout.size());
        row.grew(bytes);
        // SAFETY: as above.
        unsafe { System.realloc(memory, layout, bytes) }
    }
}
