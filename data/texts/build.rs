//! Tells the tests whether real data is available: without CTK_DATA these tests show as ignored.

fn main() {
    println!("cargo::rerun-if-env-changed=CTK_DATA");
    println!("cargo::rustc-check-cfg=cfg(ctk_data)");
    if std::env::var_os("CTK_DATA").is_some() {
        println!("cargo::rustc-cfg=ctk_data");
    }
}
