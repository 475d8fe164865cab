//! Amounts of memory as recipes ask for them.

use bytesize::ByteSize;
use sysinfo::System;

use crate::error::{Error, Result};

/// For `auto` where the system does not tell what is free.
const DEFAULT: u64 = 1_000_000_000;

/// `auto` takes one part in this many of the memory that is free.
const SHARE: u64 = 2;

/// What `wish`, the value of `key`, asks for, in bytes: `auto` (half of the memory that is free), `off`, or an amount such as `2GB`.
///
/// # Errors
/// Anything else.
pub fn limit(key: &str, wish: &str) -> Result<usize> {
    let unknown = || {
        Error::usage(format!("{key}: `{wish}` is no amount of memory"))
            .hint("write \"auto\" (half of the memory that is free), \"off\", or an amount such as \"500MB\" or \"2GB\"")
    };
    let limit = match wish {
        "auto" => free().map_or(DEFAULT, |free| free / SHARE),
        "off" => 0,
        // A bare number would be bytes, which nobody means.
        amount if amount.ends_with(['b', 'B']) => amount.parse::<ByteSize>().map_err(|_| unknown())?.as_u64(),
        _ => return Err(unknown()),
    };
    Ok(usize::try_from(limit).unwrap_or(usize::MAX))
}

/// Memory that is free, in bytes: the machine's, or what a container allows of it.
pub fn free() -> Option<u64> {
    let mut system = System::new();
    system.refresh_memory();
    let machine = Some(system.available_memory()).filter(|&free| free > 0);
    // Of a container's memory, cached pages of files are given back when they are needed: what programs hold is what counts.
    let container = system.cgroup_limits().map(|limits| limits.total_memory.saturating_sub(limits.rss));
    machine.into_iter().chain(container).min()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn amounts_are_understood_and_mistakes_are_told() {
        let bytes = |wish: &str| limit("data.cache", wish).unwrap();
        assert_eq!(["off", "500MB", "1.5 GB", "2gb", "1GiB"].map(bytes), [0, 500_000_000, 1_500_000_000, 2_000_000_000, 1 << 30]);
        let auto = bytes("auto");
        assert!(auto > 1_000_000, "{auto}");
        for wrong in ["", "lots", "12", "GB", "-1GB", "2 apples", "NaNGB"] {
            let error = limit("data.cache", wrong).err().unwrap_or_else(|| panic!("`{wrong}` is an amount"));
            assert!(error.exit_code() == 2 && error.to_string().contains("hint: write \"auto\""), "{error}");
        }
    }
}
