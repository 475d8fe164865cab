//! Amounts of memory: reading them from recipes, measuring what is free, and refusing what does not fit.

use bytesize::ByteSize;
use sysinfo::System;

use crate::error::{Error, Result};

/// The limit for `auto` if the system does not say how much memory is free.
const DEFAULT: u64 = 1_000_000_000;

/// `auto` takes this fraction (one part in so many) of the free memory.
const SHARE: u64 = 2;

/// The limit that `wish`, the value of `key`, asks for, in bytes: `auto` (half of the free memory), `off`, or an amount such as `2GB`.
///
/// # Errors
/// Any other text.
pub fn limit(key: &str, wish: &str) -> Result<usize> {
    let unknown = || {
        Error::usage(format!("{key}: `{wish}` is not an amount of memory"))
            .hint("write \"auto\" (half of the memory that is free), \"off\", or an amount such as \"500MB\" or \"2GB\"")
    };
    let limit = match wish {
        "auto" => free().map_or(DEFAULT, |free| free / SHARE),
        "off" => 0,
        // A bare number would be bytes, which is certainly a mistake.
        amount if amount.ends_with(['b', 'B']) => amount.parse::<ByteSize>().map_err(|_| unknown())?.as_u64(),
        _ => return Err(unknown()),
    };
    Ok(usize::try_from(limit).unwrap_or(usize::MAX))
}

/// Free memory in bytes: the machine's, or what a container or the shell (`ulimit -v`) allows of it.
pub fn free() -> Option<u64> {
    let mut system = System::new();
    system.refresh_memory();
    let machine = Some(system.available_memory()).filter(|&free| free > 0);
    // In a container, cached pages of files are given back when needed, so only the memory of programs counts as used.
    let container = system.cgroup_limits().map(|limits| limits.total_memory.saturating_sub(limits.rss));
    machine.into_iter().chain(container).chain(addresses()).min()
}

/// An amount of memory as text.
pub fn size(bytes: u64) -> String {
    ByteSize(bytes).display().si().to_string()
}

/// Refuses what needs more memory than is free, before it is allocated. `hint` gets the number of free bytes and says what would fit.
///
/// # Errors
/// `need`, in bytes, is more than is free.
pub fn require(what: &str, need: u64, hint: impl FnOnce(u64) -> String) -> Result<()> {
    match free() {
        Some(free) if need > free => {
            let error = Error::usage(format!("{what} needs about {} of memory, and {} are free", size(need), size(free)));
            Err(error.hint(hint(free)))
        }
        _ => Ok(()),
    }
}

/// The address space that this process may still use, if the shell limits it; Linux only.
fn addresses() -> Option<u64> {
    let line = |file: &str, name: &str| -> Option<u64> {
        let text = std::fs::read_to_string(file).ok()?;
        text.lines().find_map(|line| line.strip_prefix(name))?.split_whitespace().next()?.parse().ok()
    };
    let most = line("/proc/self/limits", "Max address space")?;
    let kilobytes = line("/proc/self/status", "VmSize:")?;
    Some(most.saturating_sub(kilobytes.saturating_mul(1024)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_cannot_fit_is_refused_before_it_is_asked_for() {
        let error = require("this table", u64::MAX, |free| format!("{free} bytes would fit")).unwrap_err();
        let said = error.to_string();
        assert!(said.starts_with("this table needs about 18.4 EB of memory, and ") && said.contains("bytes would fit"), "{said}");
        assert!(error.exit_code() == 2 && require("this", 1, |_| String::new()).is_ok());
    }

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
