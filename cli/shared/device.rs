//! Opens the device that the arguments name.

use ctk_core::Device;
use ctk_core::error::{Error, Result};
use ctk_core::modality::Modality;

use super::output;

/// The device `name` for models of `modality`; says what was chosen and why, unless `quiet`.
pub fn open(name: &str, modality: &dyn Modality, quiet: bool) -> Result<Device> {
    if !modality.on_devices() {
        return match name {
            "auto" | "cpu" => Ok(Device::Cpu),
            _ => Err(Error::usage(format!("--device {name}: {} runs on the CPU alone", modality.name())).hint("leave it out")),
        };
    }
    let (device, note) = Device::open(name).map_err(|e| e.at(format!("--device {name}")))?;
    note.iter().filter(|_| !quiet).for_each(|note| output::note(note));
    Ok(device)
}
