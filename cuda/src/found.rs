//! What there is of CUDA on a machine, as data: libraries and devices, and why one cannot be used.

use crate::calls::Fault;

/// The libraries that a device needs, and what brings each.
pub const NAMES: [(&str, &str); 4] = [
    ("driver", "NVIDIA's driver, 525 or newer (Debian: nvidia-driver)"),
    ("NVRTC", "the CUDA 12 toolkit, or the Python package nvidia-cuda-nvrtc-cu12 with its lib folder in LD_LIBRARY_PATH"),
    ("cuBLAS", "the CUDA 12 toolkit, or the Python package nvidia-cublas-cu12 with its lib folder in LD_LIBRARY_PATH"),
    ("cuDNN", "cuDNN 9, or the Python package nvidia-cudnn-cu12 with its lib folder in LD_LIBRARY_PATH"),
];

/// The oldest version of each library that ctk can use: CUDA 12 for the first three, cuDNN 9.
const LEAST: [i32; 4] = [12, 12, 12, 9];

/// The oldest compute capability that ctk can use: the first with bf16 and TF32.
pub const CAPABILITY: [i32; 2] = [8, 0];

/// A library that may be missing, and what brings it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Library {
    /// Its name.
    pub name: &'static str,
    /// Its major and minor version, if it can be opened and says it. The driver's is that of the newest CUDA that it serves.
    pub version: Option<[i32; 2]>,
    /// Whether it can be opened.
    pub there: bool,
    /// What to install if it cannot.
    pub brought_by: &'static str,
}

impl Library {
    /// Why it cannot be used, if it cannot.
    pub fn trouble(&self) -> Option<String> {
        let least = NAMES.iter().zip(LEAST).find(|((name, _), _)| *name == self.name).map_or(0, |(_, least)| least);
        match self.version {
            _ if !self.there => Some(format!("{} cannot be opened; it comes with {}", self.name, self.brought_by)),
            Some([major, minor]) if major < least => {
                let what = if self.name == NAMES[0].0 { "serves CUDA" } else { "has version" };
                Some(format!(
                    "{} {what} {major}.{minor}, and ctk needs {least} or newer; it comes with {}",
                    self.name, self.brought_by
                ))
            }
            _ => None,
        }
    }
}

/// A device that the driver lists.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Listed {
    /// Its number.
    pub number: usize,
    /// Its name.
    pub name: String,
    /// Its memory in bytes.
    pub memory: usize,
    /// Its compute capability.
    pub capability: [i32; 2],
}

impl Listed {
    /// Why ctk cannot use it, if it cannot.
    pub fn trouble(&self) -> Option<String> {
        let ([major, minor], [first, second]) = (self.capability, CAPABILITY);
        let old = self.capability < CAPABILITY;
        old.then(|| format!("{} has compute capability {major}.{minor}, and ctk needs {first}.{second} or newer", self.name))
    }
}

/// The error of the first library that is missing or too old.
///
/// # Errors
/// There is one.
pub fn usable(found: &[Library]) -> Result<(), Fault> {
    // A library of a newer CUDA than the driver serves cannot run on it.
    let driver = found.iter().find(|library| library.name == NAMES[0].0).and_then(|driver| driver.version);
    let newer = |library: &&Library| {
        let of_cuda = library.name == NAMES[1].0 || library.name == NAMES[2].0;
        of_cuda && library.version.zip(driver).is_some_and(|(of, served)| of[0] > served[0])
    };
    let too_new = found.iter().find(newer).map(|library| {
        let [major, minor] = library.version.unwrap_or_default();
        let [served, _] = driver.unwrap_or_default();
        format!(
            "{} has version {major}.{minor}, and the driver serves CUDA {served}: a newer driver, or an older {0}",
            library.name
        )
    });
    match found.iter().find_map(Library::trouble).or(too_new) {
        Some(said) => Err(Fault::Call { call: "opening the CUDA libraries".to_string(), said }),
        None => Ok(()),
    }
}

/// Device `number`, if ctk can use it.
///
/// # Errors
/// There is no such device, or it is too old.
pub fn chosen(all: &[Listed], number: usize) -> Result<Listed, Fault> {
    let call = format!("opening device {number}");
    let refused = |said| Fault::Call { call: call.clone(), said };
    let listed = all.get(number).ok_or_else(|| {
        refused(match all.len() {
            0 => "the driver lists no device".to_string(),
            1 => "the driver lists one device, number 0".to_string(),
            count => format!("the driver lists {count} devices, numbers 0 to {}", count - 1),
        })
    })?;
    match listed.trouble() {
        Some(said) => Err(refused(said)),
        None => Ok(listed.clone()),
    }
}
