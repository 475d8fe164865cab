//! What is said of libraries and devices that are missing or too old. Where a GPU is, the first test has nothing to check.

use ctk_cuda::{Library, Listed, Vendor, chosen, found, usable};

fn said<T>(result: Result<T, ctk_cuda::Fault>) -> String {
    result.err().map_or_else(String::new, |fault| fault.to_string())
}

#[test]
fn a_missing_library_is_named_with_what_brings_it() {
    let Some(missing) = found().into_iter().find(|library| !library.there) else { return };
    let error = said(Vendor::open(0, |build| build.compile()));
    assert!(error.contains(missing.name) && error.contains(missing.brought_by), "{error}");
}

#[test]
fn an_old_library_is_named_with_its_version_and_the_one_that_is_needed() {
    let with = |versions: [Option<[i32; 2]>; 4]| -> Vec<Library> {
        let known = found().into_iter().zip(versions);
        known.map(|(library, version)| Library { version, there: version.is_some(), ..library }).collect()
    };
    let new = [Some([12, 4]), Some([12, 9]), Some([12, 8]), Some([9, 1])];
    assert_eq!(said(usable(&with(new))), "");
    for (at, old, expected) in [
        (0, Some([11, 8]), "driver serves CUDA 11.8, and ctk needs 12 or newer; it comes with NVIDIA's driver, 525"),
        (1, Some([11, 2]), "NVRTC has version 11.2, and ctk needs 12"),
        (3, Some([8, 9]), "cuDNN has version 8.9, and ctk needs 9"),
        (2, None, "cuBLAS cannot be opened; it comes with the CUDA 12 toolkit"),
        (1, Some([13, 0]), "NVRTC has version 13.0, and the driver serves CUDA 12"),
    ] {
        let mut versions = new;
        versions[at] = old;
        let error = said(usable(&with(versions)));
        assert!(error.contains(expected), "{error}");
    }
}

#[test]
fn a_device_that_there_is_not_or_that_is_too_old_is_refused() {
    let of = |number: usize, capability| Listed { number, name: format!("GPU {number}"), memory: 1 << 34, capability };
    let error = said(chosen(&[], 0));
    assert!(error.contains("opening device 0") && error.contains("lists no device"), "{error}");
    let all = [of(0, [7, 5]), of(1, [9, 0])];
    let error = said(chosen(&all, 2));
    assert!(error.contains("opening device 2") && error.contains("lists 2 devices, numbers 0 to 1"), "{error}");
    let error = said(chosen(&all, 0));
    assert!(error.contains("GPU 0 has compute capability 7.5, and ctk needs 8.0 or newer"), "{error}");
    assert_eq!(chosen(&all, 1).unwrap(), all[1]);
}
