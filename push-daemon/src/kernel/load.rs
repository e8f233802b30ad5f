//! From the object file to pinned maps and a loaded program.
//!
//! Maps that are pinned already are used as they are, with their rules; missing ones are created and pinned. Nothing is
//! attached here.

use std::{fs, path::Path};

use aya::{
    Ebpf, EbpfLoader,
    maps::MapInfo,
    programs::{ProgramInfo, Xdp},
};

use aya_log::{EbpfLogger, LEVEL, Level};

use super::{
    config::KernelConfig,
    error::KernelError,
    pin::{self, PinDir},
};

/// The object in the kernel: its maps pinned, its program loaded and not attached.
pub(super) struct Loaded {
    object: Ebpf,
    path: std::path::PathBuf,
}

pub(super) fn load(config: &KernelConfig, pins: &PinDir) -> Result<Loaded, KernelError> {
    let path = config.object.clone();
    let bytes = fs::read(&path).map_err(|source| KernelError::Object { path: path.clone(), source })?;
    let mut loader = EbpfLoader::new();
    for name in abi::maps::ALL {
        loader.map_pin_path(name, pins.file(name));
    }
    use abi::maps::{OPEN_V4, OPEN_V6, SOURCES_V4, SOURCES_V6};
    for name in [SOURCES_V4, SOURCES_V6, OPEN_V4, OPEN_V6] {
        loader.map_max_entries(name, config.max_sources);
    }
    let level = if config.trace { Level::Debug as u8 } else { SILENT };
    loader.override_global(LEVEL, &level, true);
    let object = loader.load(&bytes).map_err(|error| KernelError::load(&path, error))?;
    let mut loaded = Loaded { object, path };
    loaded.program()?.load().map_err(|error| KernelError::load_program(&config.object, error))?;
    Ok(loaded)
}

/// Below the first level.
const SILENT: u8 = 0;

impl Loaded {
    /// Where the log of the programs comes out, once they were loaded to log.
    pub(super) fn logger(&mut self) -> Result<EbpfLogger<&'static dyn log::Log>, KernelError> {
        EbpfLogger::init(&mut self.object)
            .map_err(|error| KernelError::system("read the log of the programs", std::io::Error::other(error)))
    }

    /// The filter.
    pub(super) fn program(&mut self) -> Result<&mut Xdp, KernelError> {
        let refused = |reason: String| KernelError::Load { path: self.path.clone(), reason };
        self.object
            .program_mut(abi::maps::FILTER)
            .ok_or_else(|| refused(format!("it holds no program named {}", abi::maps::FILTER)))?
            .try_into()
            .map_err(|_| refused(format!("its program {} is not an XDP program", abi::maps::FILTER)))
    }

    /// Whether `running` has the same instructions and works on the same pinned maps, so that swapping would change nothing. The
    /// maps that hold its constants are its own.
    pub(super) fn is_same_as(&mut self, running: &ProgramInfo, pins: &PinDir) -> Result<bool, KernelError> {
        let failed = |error| KernelError::program("compare the loaded program with the running one", error);
        let ours = self.program()?.info().map_err(failed)?;
        let pinned = abi::maps::ALL.iter().map(|name| {
            let info = MapInfo::from_pin(pins.file(name));
            info.map(|info| info.id()).map_err(|error| KernelError::map("compare the tables with those in use", error))
        });
        let pinned: Vec<u32> = pinned.collect::<Result<_, _>>()?;
        let maps = |info: &ProgramInfo| {
            let mut ids = info.map_ids().map_err(failed)?.unwrap_or_default();
            ids.retain(|id| pinned.contains(id));
            ids.sort_unstable();
            Ok::<_, KernelError>(ids)
        };
        Ok(ours.tag() == running.tag() && maps(&ours)? == maps(running)?)
    }

    /// Pins the program at `path`, in one step where another was pinned before.
    pub(super) fn pin_program(&mut self, path: &Path) -> Result<(), KernelError> {
        let beside = pin::beside(path);
        let failed = |source| KernelError::system(format!("pin the filter at {}", path.display()), source);
        match fs::remove_file(&beside) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(failed(error)),
            _ => {}
        }
        let program = self.program()?;
        program
            .pin(&beside)
            .map_err(|error| KernelError::pin(format!("pin the filter at {}", path.display()), error))?;
        fs::rename(&beside, path).map_err(failed)
    }
}
