//! Measuring of what connections see: attaches the program to the root of the control groups, finds it again, takes it away.
//!
//! The program hears every TCP socket of the machine that opens or closes a connection, in all namespaces, and passes over those
//! that are not of protected ports in the filter's namespace.

use std::{
    fs::{self, File},
    io,
    os::unix::fs::MetadataExt as _,
    path::{Path, PathBuf},
};

use abi::measuring::Measuring;
use aya::programs::{CgroupAttachMode, ProgramInfo, SockOps, links::FdLink};

use super::{
    config::KernelConfig,
    error::KernelError,
    load::Loaded,
    pin::{self, PinDir},
    sys::{self, CgroupLink},
    tables::Tables,
};

/// Attaches the program, or swaps the one that is there. `Err` of the inner kind says why there is nothing to attach it to.
pub(super) fn bring_up(
    config: &KernelConfig,
    loaded: &mut Loaded,
    pins: &PinDir,
    tables: &Tables,
) -> Result<Result<PathBuf, String>, KernelError> {
    let cgroup = match &config.cgroup {
        Some(path) => path.clone(),
        None => match mounted()? {
            Some(path) => path,
            None => {
                leave(pins)?;
                return Ok(Err("no cgroup2 is mounted (`mount -t cgroup2 none /sys/fs/cgroup/unified`)".into()));
            }
        },
    };
    let doing = || format!("open the control group {} (kernel.cgroup)", cgroup.display());
    let root = File::open(&cgroup).map_err(|error| KernelError::system(doing(), error))?;
    // The number that the kernel knows a group by is that of its directory.
    let id = root.metadata().map_err(|error| KernelError::system(doing(), error))?.ino();

    tables.set_measuring(Measuring { one_in: config.measure_one_in, reserved: 0 })?;
    loaded.measure()?;
    let pin = pins.measure_link();
    match running(&pin)? {
        Some(link) if link.cgroup_id == id => {
            if !is_current(link.program_id, loaded, pins)? {
                loaded.pin_program(abi::maps::MEASURE, pins)?;
                replace_program(loaded.measure()?, &pin)?;
            }
        }
        elsewhere => {
            loaded.pin_program(abi::maps::MEASURE, pins)?;
            if elsewhere.is_some() {
                pin::detach(&pin)?;
            }
            attach(loaded.measure()?, &root, &pin)?;
        }
    }
    Ok(Ok(cgroup))
}

/// Takes the program away. What it counted stays; connections that are open are not counted down any more, so what sources
/// have open is forgotten.
pub(super) fn leave(pins: &PinDir) -> Result<bool, KernelError> {
    pin::detach(&pins.measure_link())
}

/// Where the second version of the control groups is mounted, its root.
fn mounted() -> Result<Option<PathBuf>, KernelError> {
    let mounts = fs::read_to_string("/proc/mounts").map_err(|error| KernelError::system("read /proc/mounts", error))?;
    Ok(cgroup2_in(&mounts))
}

fn cgroup2_in(mounts: &str) -> Option<PathBuf> {
    mounts.lines().find_map(|line| {
        let mut fields = line.split(' ').skip(1);
        let path = fields.next()?;
        (fields.next()? == "cgroup2").then(|| path.replace("\\040", " ").into())
    })
}

fn running(pin: &Path) -> Result<Option<CgroupLink>, KernelError> {
    let failed = |error| KernelError::system(format!("look at the link {}", pin.display()), error);
    match sys::open_pinned(pin) {
        Ok(link) => sys::cgroup_link_info(link).map(Some).map_err(failed),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(failed(error)),
    }
}

fn is_current(running: u32, loaded: &mut Loaded, pins: &PinDir) -> Result<bool, KernelError> {
    match ProgramInfo::from_pin(pins.file(abi::maps::MEASURE)) {
        Ok(pinned) if pinned.id() == running => loaded.is_same_as(abi::maps::MEASURE, &pinned, pins),
        _ => Ok(false),
    }
}

fn attach(program: &mut SockOps, cgroup: &File, pin: &Path) -> Result<(), KernelError> {
    let doing = "attach the measuring to the control group";
    // A link stands beside those of others whatever the mode says, which links do not take.
    let id = program.attach(cgroup, CgroupAttachMode::Single).map_err(|error| KernelError::program(doing, error))?;
    let link = program.take_link(id).map_err(|error| KernelError::program(doing, error))?;
    let link: FdLink = link.try_into().map_err(|error| KernelError::system(doing, io::Error::other(error)))?;
    link.pin(pin).map(drop).map_err(|error| KernelError::pin(format!("pin the link at {}", pin.display()), error))
}

fn replace_program(program: &mut SockOps, pin: &Path) -> Result<(), KernelError> {
    let doing = "swap the program of the pinned link";
    let failed = |error| KernelError::system(doing, error);
    let link = sys::open_pinned(pin).map_err(failed)?;
    let program = program.fd().map_err(|error| KernelError::program(doing, error))?;
    sys::update_link(link, program).map_err(failed)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_second_version_of_control_groups_is_found_wherever_it_is() {
        let mixed = "proc /proc proc rw 0 0\ncgroup /sys/fs/cgroup/cpu cgroup rw,cpu 0 0\ncgroup2 /sys/fs/cgroup/unified cgroup2 rw 0 0\n";
        assert_eq!(cgroup2_in(mixed), Some("/sys/fs/cgroup/unified".into()));
        assert_eq!(cgroup2_in("none /a\\040b cgroup2 rw 0 0"), Some("/a b".into()));
        assert_eq!(cgroup2_in("cgroup /sys/fs/cgroup cgroup rw 0 0\n\nx"), None);
    }
}
