//! What a machine without a GPU says. Where there is one, these tests have nothing to check.

use ctk_cuda::{Vendor, libraries};

#[test]
fn a_missing_library_is_named_with_what_brings_it() {
    let Some(missing) = libraries().into_iter().find(|library| !library.there) else { return };
    let error = Vendor::open(0, false).err().expect("a library is missing").to_string();
    assert!(error.contains(missing.name) && error.contains(missing.brought_by), "{error}");
}
