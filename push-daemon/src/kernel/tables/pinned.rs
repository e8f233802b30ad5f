//! Pinned maps as typed values.

use aya::{
    Pod,
    maps::{Array, Map, MapData, MapError},
};

use crate::kernel::{
    error::{KernelError, io_error_of_map},
    pin::PinDir,
};

/// A pinned map, its type unchecked.
pub(super) fn map_data(pins: &PinDir, name: &str) -> Result<MapData, KernelError> {
    let path = pins.file(name);
    MapData::from_pin(&path).map_err(|error| {
        let error = io_error_of_map(error);
        let gone = error.kind() == std::io::ErrorKind::NotFound;
        let hint = if gone { ", which bringing the filter up makes again" } else { "" };
        KernelError::system(format!("open the table {}{hint}", path.display()), error)
    })
}

/// A pinned map as the type that it should be; key and value sizes are checked.
pub(super) fn open<T>(pins: &PinDir, name: &'static str) -> Result<T, KernelError>
where
    T: TryFrom<Map, Error = MapError>,
{
    let foreign = |source| KernelError::ForeignPin { path: pins.file(name), source: Box::new(source) };
    Map::from_map_data(map_data(pins, name)?).and_then(T::try_from).map_err(foreign)
}

/// A pinned array.
pub(super) fn open_array<V: Pod>(pins: &PinDir, name: &'static str) -> Result<Array<MapData, V>, KernelError> {
    open(pins, name)
}
