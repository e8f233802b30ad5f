//! The directory of pins: `<pin_root>/v<LAYOUT>/` with one file per map, the program and the link.
//!
//! The layout is part of the name, so a program never adopts maps that another version laid out; such a directory is
//! reported and left alone. It does not load or attach anything.

use std::{
    ffi::OsStr,
    fs::{self, File},
    io,
    path::{Path, PathBuf},
    thread,
    time::{Duration, Instant},
};

use rustix::fs::{FlockOperation, flock, statfs};

use super::{error::KernelError, sys};

const BPFFS_MAGIC: u64 = 0xcafe_4a11;
/// The name of the filter's link in every layout.
pub(super) const LINK: &str = "filter_link";
const SHAPE_LINK: &str = "shape_link";
const MEASURE_LINK: &str = "measure_link";
/// What the names of links end with, those of one that waits to take another's name included.
const LINK_ENDINGS: [&str; 2] = ["_link", "_link_next"];

/// How long a change waits for another to be done. Building a set of a million rules takes seconds.
const PATIENCE: Duration = Duration::from_secs(15);
const BETWEEN_TRIES: Duration = Duration::from_millis(5);

/// The pins of our layout under one root.
#[derive(Clone, Debug)]
pub(super) struct PinDir {
    root: PathBuf,
    dir: PathBuf,
}

impl PinDir {
    pub(super) fn new(root: &Path) -> Self {
        Self { root: root.into(), dir: root.join(format!("v{}", abi::LAYOUT)) }
    }

    pub(super) fn root(&self) -> &Path {
        &self.root
    }

    pub(super) fn path(&self) -> &Path {
        &self.dir
    }

    /// The pin of a map or of the program.
    pub(super) fn file(&self, name: &str) -> PathBuf {
        self.dir.join(name)
    }

    pub(super) fn link(&self) -> PathBuf {
        self.dir.join(LINK)
    }

    pub(super) fn shape_link(&self) -> PathBuf {
        self.dir.join(SHAPE_LINK)
    }

    pub(super) fn measure_link(&self) -> PathBuf {
        self.dir.join(MEASURE_LINK)
    }

    pub(super) fn is_there(&self) -> bool {
        self.dir.is_dir()
    }

    /// Makes the directory, when the root is on a bpffs, and locks the root. Hands back the directory of layout `from` if it is
    /// there; any other layout is refused.
    pub(super) fn create(&self, from: u32) -> Result<(Lock, Option<PathBuf>), KernelError> {
        require_bpffs(&self.root)?;
        create_dir(&self.root)?;
        let lock = Lock::take(&self.root)?;
        let old = self.root.join(format!("v{from}"));
        self.refuse_layouts_but(Some(&old))?;
        create_dir(&self.dir)?;
        let is_there = old.is_dir();
        Ok((lock, is_there.then_some(old)))
    }

    /// Waits for the lock of the root, under which pins and tables change.
    pub(super) fn lock(&self) -> Result<Lock, KernelError> {
        Lock::take(&self.root)
    }

    /// `Ok` when no directory of another layout stands beside ours.
    pub(super) fn refuse_other_layouts(&self) -> Result<(), KernelError> {
        self.refuse_layouts_but(None)
    }

    fn refuse_layouts_but(&self, known: Option<&Path>) -> Result<(), KernelError> {
        for path in layout_dirs(&self.root)? {
            if path != self.dir && Some(path.as_path()) != known {
                let found = path.file_name().and_then(OsStr::to_str).unwrap_or("?").trim_start_matches('v').to_owned();
                return Err(KernelError::OtherLayout { path, found, ours: abi::LAYOUT });
            }
        }
        Ok(())
    }
}

/// Where the successor of the pin `path` waits to take its name. (A bpffs allows no dot in a name.)
pub(super) fn beside(path: &Path) -> PathBuf {
    let mut name = path.file_name().unwrap_or_default().to_owned();
    name.push("_next");
    path.with_file_name(name)
}

/// Held while pins are made or removed, or tables change, so that two processes do not do it at once. The kernel lets go of it
/// with the process.
pub(super) struct Lock {
    root: File,
}

impl Drop for Lock {
    fn drop(&mut self) {
        // Closing would not do: a child that was just forked for something else still has the descriptor, and with it the lock,
        // until it execs.
        let _ = flock(&self.root, FlockOperation::Unlock);
    }
}

impl Lock {
    fn take(root: &Path) -> Result<Self, KernelError> {
        let opened =
            File::open(root).map_err(|source| KernelError::system(format!("open {}", root.display()), source))?;
        let give_up = Instant::now() + PATIENCE;
        loop {
            match flock(&opened, FlockOperation::NonBlockingLockExclusive) {
                Ok(()) => return Ok(Self { root: opened }),
                Err(rustix::io::Errno::WOULDBLOCK) if Instant::now() < give_up => thread::sleep(BETWEEN_TRIES),
                Err(rustix::io::Errno::WOULDBLOCK) => return Err(KernelError::Locked { path: root.into() }),
                Err(error) => return Err(KernelError::system(format!("lock {}", root.display()), error)),
            }
        }
    }
}

/// Detaches every link and removes every pin under `root`, whatever its layout: removing needs no knowledge of it.
/// Says how many pins went.
pub(super) fn remove_all(root: &Path) -> Result<usize, KernelError> {
    if !root.is_dir() {
        return Ok(0);
    }
    require_bpffs(root)?;
    let lock = Lock::take(root)?;
    let mut removed = 0;
    for dir in layout_dirs(root)? {
        removed += remove_dir(&dir)?;
    }
    drop(lock);
    // A root that somebody else put things into stays.
    match fs::remove_dir(root) {
        Ok(()) => Ok(removed),
        Err(error) if matches!(error.kind(), io::ErrorKind::DirectoryNotEmpty | io::ErrorKind::ResourceBusy) => {
            Ok(removed)
        }
        Err(source) => Err(KernelError::system(format!("remove {}", root.display()), source)),
    }
}

/// Detaches every link in `dir` and removes all of it. Says how many pins went.
pub(super) fn remove_dir(dir: &Path) -> Result<usize, KernelError> {
    let failed = |source| KernelError::system(format!("remove the pins in {}", dir.display()), source);
    let pins = fs::read_dir(dir).and_then(Iterator::collect::<Result<Vec<_>, _>>).map_err(failed)?;
    let (links, others): (Vec<_>, Vec<_>) = pins.iter().map(fs::DirEntry::path).partition(|path| is_link(path));
    let mut removed = 0;
    for link in links {
        removed += usize::from(detach(&link)?);
    }
    for path in others {
        fs::remove_file(path).map_err(failed)?;
        removed += 1;
    }
    fs::remove_dir(dir).map_err(failed)?;
    Ok(removed)
}

/// Detaches the link pinned at `path` at once and removes its pin. Says whether there was one.
pub(super) fn detach(path: &Path) -> Result<bool, KernelError> {
    let link = match sys::open_pinned(path) {
        Ok(link) => link,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(false),
        Err(source) => return Err(KernelError::system(format!("open the link {}", path.display()), source)),
    };
    match sys::detach_link(&link) {
        Ok(()) => {}
        // Its interface is gone, so there is nothing left to detach from.
        Err(error) if error.raw_os_error() == Some(libc::ENOLINK) || error.kind() == io::ErrorKind::InvalidInput => {}
        Err(source) => return Err(KernelError::system(format!("detach {}", path.display()), source)),
    }
    fs::remove_file(path).map_err(|source| KernelError::system(format!("remove {}", path.display()), source))?;
    Ok(true)
}

/// By its name: opening it would not tell a link from a map.
fn is_link(path: &Path) -> bool {
    let name = path.file_name().and_then(OsStr::to_str).unwrap_or_default();
    LINK_ENDINGS.iter().any(|ending| name.ends_with(ending))
}

fn create_dir(path: &Path) -> Result<(), KernelError> {
    match fs::create_dir_all(path) {
        Ok(()) => Ok(()),
        Err(source) => Err(KernelError::system(format!("create {}", path.display()), source)),
    }
}

/// Directories under `root` that are named as a layout is.
fn layout_dirs(root: &Path) -> Result<Vec<PathBuf>, KernelError> {
    let failed = |source| KernelError::system(format!("list {}", root.display()), source);
    let mut found = Vec::new();
    for entry in fs::read_dir(root).map_err(failed)? {
        let entry = entry.map_err(failed)?;
        let name = entry.file_name();
        let number = name.to_str().and_then(|name| name.strip_prefix('v'));
        if number.is_some_and(|number| !number.is_empty() && number.bytes().all(|byte| byte.is_ascii_digit())) {
            found.push(entry.path());
        }
    }
    found.sort();
    Ok(found)
}

/// `Ok` when `root`, or the directory that it will be made in, is on a bpffs.
fn require_bpffs(root: &Path) -> Result<(), KernelError> {
    let existing = root.ancestors().find(|path| path.exists()).unwrap_or(Path::new("/"));
    let on = statfs(existing).map_err(|error| KernelError::system(format!("look at {}", existing.display()), error))?;
    if on.f_type as u64 == BPFFS_MAGIC {
        return Ok(());
    }
    let usual = Path::new("/sys/fs/bpf");
    let mount_point = if root.starts_with(usual) { usual } else { root.parent().unwrap_or(root) };
    Err(KernelError::NotBpffs { path: root.into(), mount_point: mount_point.into() })
}
