//! The self-test passes on the CPU and on the emulated device, and every kernel and every product that is broken is noticed.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex};

use ctk_cuda::{Address, Argument, Calls, Convolution, Cuda, Emulated, Fault, Limits, MatrixProduct, Product};

use super::*;

#[test]
fn the_cpu_passes() {
    for check in checks(Sizes::Small) {
        let verdict = check.verdict(&Device::Cpu);
        assert!(verdict.right(), "{verdict:?}");
    }
}

/// The emulated device with one call that does nothing. It notes which calls were made.
struct Broken {
    inner: Emulated,
    broken: String,
    made: Arc<Mutex<BTreeSet<String>>>,
}

impl Broken {
    /// Notes a call, and whether it is the broken one.
    fn skips(&self, call: &str) -> bool {
        self.made.lock().unwrap().insert(call.to_string());
        call == self.broken
    }
}

impl Calls for Broken {
    fn name(&self) -> String {
        self.inner.name()
    }

    fn allocate(&self, bytes: usize) -> Result<Address, Fault> {
        self.inner.allocate(bytes)
    }

    fn free(&self, at: Address) {
        self.inner.free(at);
    }

    fn upload(&self, from: &[u8], to: Address) -> Result<(), Fault> {
        self.inner.upload(from, to)
    }

    fn download(&self, from: Address, to: &mut [u8]) -> Result<(), Fault> {
        self.inner.download(from, to)
    }

    fn copy(&self, from: Address, to: Address, bytes: usize) -> Result<(), Fault> {
        if self.skips("copy") { Ok(()) } else { self.inner.copy(from, to, bytes) }
    }

    fn clear(&self, at: Address, bytes: usize) -> Result<(), Fault> {
        if self.skips("clear") { Ok(()) } else { self.inner.clear(at, bytes) }
    }

    fn launch(&self, kernel: &str, grid: [u32; 2], arguments: &[Argument]) -> Result<(), Fault> {
        if self.skips(kernel) { Ok(()) } else { self.inner.launch(kernel, grid, arguments) }
    }

    fn memory(&self) -> Result<[usize; 2], Fault> {
        self.inner.memory()
    }

    fn wait(&self) -> Result<(), Fault> {
        self.inner.wait()
    }

    fn workspace(&self, what: Product, of: &Convolution) -> Result<usize, Fault> {
        self.inner.workspace(what, of)
    }

    fn reject(&self, what: Product, of: &Convolution) -> bool {
        self.inner.reject(what, of)
    }

    fn convolve(
        &self,
        what: Product,
        of: &Convolution,
        from: [Address; 2],
        beta: f64,
        to: Address,
        workspace: (Address, usize),
    ) -> Result<(), Fault> {
        let skips = self.skips(&format!("convolution {what:?} {:?}", of.kind));
        if skips { Ok(()) } else { self.inner.convolve(what, of, from, beta, to, workspace) }
    }

    fn multiply(&self, of: &MatrixProduct, from: [Address; 2], to: Address) -> Result<(), Fault> {
        let skips = self.skips(&format!("product {:?}", of.kind));
        if skips { Ok(()) } else { self.inner.multiply(of, from, to) }
    }
}

fn broken(call: &str) -> (Device, Arc<Mutex<BTreeSet<String>>>) {
    let made = Arc::new(Mutex::new(BTreeSet::new()));
    let calls = Broken { inner: Emulated::new(Limits::default()), broken: call.to_string(), made: made.clone() };
    (Device::Cuda(Cuda::new(calls)), made)
}

#[test]
fn the_emulated_device_passes_and_every_broken_call_is_noticed() {
    // What each check calls, and how long that takes.
    let mut users: BTreeMap<String, Vec<(std::time::Duration, usize)>> = BTreeMap::new();
    let all = checks(Sizes::Small);
    for (number, check) in all.iter().enumerate() {
        let (device, made) = broken("");
        let start = std::time::Instant::now();
        let verdict = check.verdict(&device);
        assert!(verdict.right(), "{verdict:?}");
        let made = made.lock().unwrap();
        made.iter().for_each(|call| users.entry(call.clone()).or_default().push((start.elapsed(), number)));
    }
    // Every kernel for the types that networks are trained in is called.
    let kernels = ctk_cuda::kernels();
    let unused: Vec<&String> = kernels.iter().filter(|name| !name.ends_with("_f64") && !users.contains_key(*name)).collect();
    assert!(unused.is_empty(), "no check calls {unused:?}");
    for (call, mut checks) in users {
        checks.sort();
        let noticed = checks.iter().any(|(_, number)| !all[*number].verdict(&broken(&call).0).right());
        assert!(noticed, "{call} may be broken without a check that notices it");
    }
}
