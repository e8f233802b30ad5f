//! From the object file to pinned maps and a loaded program.
//!
//! Maps that are pinned already are used as they are, with their rules; missing ones are created and pinned. Nothing is
//! attached here.

use std::fs;

use aya::{
    Ebpf, EbpfLoader,
    maps::MapInfo,
    programs::{Program, ProgramError, ProgramInfo, SchedClassifier, SockOps, Xdp},
};

use aya_log::{EbpfLogger, LEVEL, Level};

use super::{
    config::KernelConfig,
    error::KernelError,
    pin::{self, PinDir},
    tables::outers,
};

/// The object in the kernel: its maps pinned, the filter loaded and not attached, the others not loaded until they are asked for.
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
    outers::make(pins)?;
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
        self.of_type(abi::maps::FILTER)
    }

    /// The program at the egress, loaded.
    pub(super) fn shape(&mut self) -> Result<&mut SchedClassifier, KernelError> {
        self.of_type_loaded(abi::maps::SHAPE, SchedClassifier::load)
    }

    /// The program that sockets call, loaded.
    pub(super) fn measure(&mut self) -> Result<&mut SockOps, KernelError> {
        self.of_type_loaded(abi::maps::MEASURE, SockOps::load)
    }

    fn of_type_loaded<P>(
        &mut self,
        name: &str,
        load: fn(&mut P) -> Result<(), ProgramError>,
    ) -> Result<&mut P, KernelError>
    where
        for<'a> &'a mut P: TryFrom<&'a mut Program, Error = ProgramError>,
    {
        let path = self.path.clone();
        let is_loaded = self.any(name)?.fd().is_ok();
        let program = self.of_type(name)?;
        if !is_loaded {
            load(program).map_err(|error| KernelError::load_program(&path, error))?;
        }
        Ok(program)
    }

    fn of_type<P>(&mut self, name: &str) -> Result<&mut P, KernelError>
    where
        for<'a> &'a mut P: TryFrom<&'a mut Program, Error = ProgramError>,
    {
        let reason = format!("its program {name} is of another type than that of this version");
        let path = self.path.clone();
        self.any(name)?.try_into().map_err(|_| KernelError::Load { path, reason })
    }

    fn any(&mut self, name: &str) -> Result<&mut Program, KernelError> {
        let path = &self.path;
        self.object.program_mut(name).ok_or_else(|| KernelError::Load {
            path: path.clone(),
            reason: format!("it holds no program named {name}"),
        })
    }

    /// Whether `running` has the same instructions as the loaded program `name` and works on the same pinned maps, so that swapping
    /// would change nothing. The maps that hold its constants are its own.
    pub(super) fn is_same_as(&mut self, name: &str, running: &ProgramInfo, pins: &PinDir) -> Result<bool, KernelError> {
        let failed = |error| KernelError::program("compare the loaded program with the running one", error);
        let ours = self.any(name)?.info().map_err(failed)?;
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

    /// Pins the program `name` under its name, in one step where another was pinned before.
    pub(super) fn pin_program(&mut self, name: &str, pins: &PinDir) -> Result<(), KernelError> {
        let path = pins.file(name);
        let beside = pin::beside(&path);
        let doing = || format!("pin the program at {}", path.display());
        match fs::remove_file(&beside) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                return Err(KernelError::system(doing(), error));
            }
            _ => {}
        }
        self.any(name)?.pin(&beside).map_err(|error| KernelError::pin(doing(), error))?;
        fs::rename(&beside, &path).map_err(|error| KernelError::system(doing(), error))
    }
}
