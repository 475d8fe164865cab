//! What there is of CUDA on a machine: the vendor's libraries and their versions, the devices, and the kernels as NVRTC compiles them.

use std::ffi::{CString, c_int};

use cudarc::cublas::sys as blas;
use cudarc::cudnn::{result as cudnn, sys as dnn};
use cudarc::driver::{result as driver, sys};
use cudarc::nvrtc::{result as nvrtc, sys as compiler};

use super::{done, fault};
use crate::KERNELS;
use crate::calls::Fault;
use crate::found::{Library, Listed, NAMES};

/// Whether the driver can be opened; no other library is.
pub fn driver() -> bool {
    // SAFETY: a library of this name is opened and closed again, which runs its initialisation; it is NVIDIA's own.
    unsafe { sys::is_culib_present() }
}

/// The libraries that a device needs, in the order of [`NAMES`].
///
/// Driver API, 6.3 `cuDriverGetVersion`: 1000·major + 10·minor of the newest CUDA that the driver serves. NVRTC, `nvrtcVersion`. cuBLAS,
/// 2.4.5 `cublasGetProperty`. cuDNN, `cudnnGetVersion`: 10000·major + 100·minor + patch since 9, 1000·major + 100·minor before.
pub fn found() -> [Library; 4] {
    // SAFETY: a library of this name is opened and closed again, which runs its initialisation; they are NVIDIA's own.
    let there =
        unsafe { [sys::is_culib_present(), compiler::is_culib_present(), blas::is_culib_present(), dnn::is_culib_present()] };
    let mut all = NAMES.into_iter().zip(there).enumerate().map(|(at, ((name, brought_by), there))| {
        let version = there.then(|| version(at)).flatten();
        Library { name, version, there, brought_by }
    });
    std::array::from_fn(|_| all.next().expect("one for each name"))
}

/// The version of a library that can be opened.
fn version(library: usize) -> Option<[i32; 2]> {
    let mut version: [c_int; 2] = [0; 2];
    let [major, minor] = &mut version;
    // SAFETY: each call writes one number to each place it is given.
    unsafe {
        match library {
            0 => {
                sys::cuDriverGetVersion(major).result().ok()?;
                version = [version[0] / 1000, version[0] % 1000 / 10];
            }
            1 => compiler::nvrtcVersion(major, minor).result().ok()?,
            2 => {
                blas::cublasGetProperty(blas::libraryPropertyType::MAJOR_VERSION, major).result().ok()?;
                blas::cublasGetProperty(blas::libraryPropertyType::MINOR_VERSION, minor).result().ok()?;
            }
            _ => {
                let number = i32::try_from(cudnn::get_version()).ok()?;
                let unit = if number >= 90_000 { 10_000 } else { 1000 };
                version = [number / unit, number % unit / 100];
            }
        }
    }
    Some(version)
}

/// The devices that the driver lists.
///
/// # Errors
/// There is no driver, or it fails.
pub fn devices() -> Result<Vec<Listed>, Fault> {
    if !driver() {
        return Err(Fault::Call { call: "cuInit".to_string(), said: "there is no driver".to_string() });
    }
    done("cuInit", driver::init())?;
    let count = done("cuDeviceGetCount", driver::device::get_count())?;
    (0..count).map(listed).collect()
}

fn listed(ordinal: c_int) -> Result<Listed, Fault> {
    let device = done("cuDeviceGet", driver::device::get(ordinal))?;
    let name = done("cuDeviceGetName", driver::device::get_name(device))?;
    use sys::CUdevice_attribute_enum as Attribute;
    let major = Attribute::CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR;
    let minor = Attribute::CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MINOR;
    // SAFETY: `device` is from `cuDeviceGet`.
    let (memory, capability) = unsafe {
        let capability = [major, minor].map(|which| driver::device::get_attribute(device, which));
        (driver::device::total_mem(device), capability)
    };
    let [major, minor] = capability;
    Ok(Listed {
        number: ordinal as usize,
        name,
        memory: done("cuDeviceTotalMem", memory)?,
        capability: [done("cuDeviceGetAttribute", major)?, done("cuDeviceGetAttribute", minor)?],
    })
}

/// What the kernels are compiled for, and by which version of NVRTC.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Build {
    /// The compute capability; the newest below it that NVRTC knows.
    pub capability: [i32; 2],
    /// Whether it is the device's own, so that NVRTC gives machine code. Otherwise it gives PTX, which the driver compiles.
    pub own: bool,
    /// NVRTC's version.
    pub nvrtc: [i32; 2],
}

impl Build {
    /// For a device of this compute capability.
    ///
    /// NVRTC 12, `nvrtcGetNumSupportedArchs`, `nvrtcGetSupportedArchs`: 10·major + minor, ascending.
    pub(crate) fn of([major, minor]: [i32; 2]) -> Result<Build, Fault> {
        let mut count: c_int = 0;
        // SAFETY: the call writes one number.
        done("nvrtcGetNumSupportedArchs", unsafe { compiler::nvrtcGetNumSupportedArchs(&mut count) }.result())?;
        let mut known: Vec<c_int> = vec![0; usize::try_from(count).unwrap_or(0)];
        // SAFETY: `known` has room for as many numbers as the call before has named.
        done("nvrtcGetSupportedArchs", unsafe { compiler::nvrtcGetSupportedArchs(known.as_mut_ptr()) }.result())?;
        let wanted = 10 * major + minor;
        let newest = known.into_iter().filter(|arch| *arch <= wanted).max().ok_or_else(|| Fault::Call {
            call: "nvrtcGetSupportedArchs".to_string(),
            said: format!("this NVRTC compiles for nothing as old as {major}.{minor}"),
        })?;
        let nvrtc = version(1).unwrap_or_default();
        Ok(Build { capability: [newest / 10, newest % 10], own: newest == wanted, nvrtc })
    }

    /// NVRTC's options.
    ///
    /// NVRTC 12, "Supported Compile Options": `--gpu-architecture=sm_XY` gives machine code, `compute_XY` PTX.
    pub fn options(&self) -> [String; 2] {
        let ([major, minor], what) = (self.capability, if self.own { "sm" } else { "compute" });
        [format!("--gpu-architecture={what}_{major}{minor}"), "--std=c++17".to_string()]
    }

    /// Compiles the kernels: machine code, which any driver of the same major version loads, or PTX with a 0 at its end.
    ///
    /// # Errors
    /// NVRTC fails; what it says is in the error.
    pub fn compile(&self) -> Result<Vec<u8>, Fault> {
        let text = CString::new(KERNELS).map_err(|e| fault("nvrtcCreateProgram")(&e))?;
        let program = done("nvrtcCreateProgram", nvrtc::create_program(&text, Some(c"kernels.cu")))?;
        // SAFETY: the program is from `nvrtcCreateProgram`, is destroyed last, and its text outlives it.
        unsafe {
            let compiled = nvrtc::compile_program(program, &self.options()).map_err(|e| {
                let log = nvrtc::get_program_log(program).unwrap_or_default();
                let log: String = log.into_iter().map(|byte| char::from(byte as u8)).filter(|c| *c != '\0').collect();
                Fault::Call { call: "nvrtcCompileProgram".to_string(), said: format!("{e:?}\n{log}") }
            });
            let image = compiled.and_then(|()| if self.own { machine_code(program) } else { ptx(program) });
            let destroyed = done("nvrtcDestroyProgram", nvrtc::destroy_program(program));
            image.and_then(|image| destroyed.map(|()| image))
        }
    }
}

/// The PTX of a compiled program.
///
/// # Safety
/// `program` is from `nvrtcCreateProgram`, compiled, and not destroyed.
unsafe fn ptx(program: compiler::nvrtcProgram) -> Result<Vec<u8>, Fault> {
    // SAFETY: the program is compiled and not destroyed, as this function asks of its caller.
    let text = done("nvrtcGetPTX", unsafe { nvrtc::get_ptx(program) })?;
    Ok(text.into_iter().map(|byte| byte as u8).collect())
}

/// The machine code of a compiled program. NVRTC 12, `nvrtcGetCUBINSize`, `nvrtcGetCUBIN`.
///
/// # Safety
/// As for [`ptx`]; it was compiled for `sm_XY`.
unsafe fn machine_code(program: compiler::nvrtcProgram) -> Result<Vec<u8>, Fault> {
    let mut size = 0;
    // SAFETY: the call writes one number; the program is compiled and not destroyed, as this function asks of its caller.
    done("nvrtcGetCUBINSize", unsafe { compiler::nvrtcGetCUBINSize(program, &mut size) }.result())?;
    let mut code = vec![0u8; size];
    // SAFETY: `code` has as many bytes as the call before has named.
    done("nvrtcGetCUBIN", unsafe { compiler::nvrtcGetCUBIN(program, code.as_mut_ptr().cast()) }.result())?;
    Ok(code)
}
