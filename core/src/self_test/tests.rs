//! The self-test passes on the CPU and on the emulated device, and every kernel and every product that is broken is noticed.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use ctk_cuda::{Address, Argument, Calls, Convolution, Cuda, Emulated, Fault, Limits, Mark, MatrixProduct, Product};

use super::*;

#[test]
fn the_cpu_passes() {
    for check in checks(Sizes::Small) {
        let verdict = check.verdict(&Device::Cpu);
        assert!(verdict.right(), "{verdict:?}");
    }
}

#[test]
fn a_step_reads_back_embeddings_their_gradient_and_the_loss() {
    let text = "[head]\nlayers = 2\nwidth = 6\nhidden = 10\n[loss.nt-xent]\n";
    let (recipe, _) = TwoViews::<()>::check("self-test", &Recipe::new("self-test", text)).unwrap();
    let device = Cuda::new(Emulated::new(Limits::default()));
    let mut learner: Dense<Siamese<Chain<Maps>>> = recipe.learner(encoder, &Device::Cuda(device.clone())).unwrap();
    let mut read = || {
        let (before, draw) = (device.read_back(), |_: usize| batch(0, 0..IMAGES));
        learner.step(&Feed::new(1, IMAGES, Key::new(5), &draw), 0.1).unwrap();
        device.read_back() - before
    };
    let of_embeddings = 2 * IMAGES * 6 * size_of::<f32>();
    assert_eq!([read(), read()], [(2 * of_embeddings + size_of::<f64>()) as u64; 2]);
}

/// The emulated device with one call that does nothing, or a library that has no memory. It notes which calls were made.
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
        self.made.lock().unwrap().insert("free".to_string());
        self.inner.free(at);
    }

    fn upload(&self, from: &[u8], to: Address) -> Result<(), Fault> {
        self.inner.upload(from, to)
    }

    fn send(&self, from: &[u8], to: Address, slot: usize) -> Result<(), Fault> {
        if self.skips("send") { Ok(()) } else { self.inner.send(from, to, slot) }
    }

    fn received(&self, slot: usize) -> Result<(), Fault> {
        self.inner.received(slot)
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

    fn mark(&self) -> Result<Mark, Fault> {
        self.inner.mark()
    }

    fn between(&self, from: Mark, to: Mark) -> Result<Duration, Fault> {
        self.inner.between(from, to)
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
        // A library that finds no memory for itself until some is given back.
        if self.broken == "no memory" && !self.made.lock().unwrap().contains("free") {
            return Err(Fault::Memory { asked: 0, free: 0, total: 1 });
        }
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
fn a_library_without_memory_gets_what_is_kept_and_is_called_again() {
    let steps =
        checks(Sizes::Small).into_iter().find(|check| check.name == "ten steps of nt-xent" && check.numbers == "f32").unwrap();
    let (device, made) = broken("no memory");
    let verdict = steps.verdict(&device);
    assert!(verdict.right() && made.lock().unwrap().contains("free"), "{verdict:?}");
}

#[test]
fn the_emulated_device_passes_and_every_broken_call_is_noticed() {
    // What each check calls, and how long that takes.
    let mut users: BTreeMap<String, Vec<(Duration, usize)>> = BTreeMap::new();
    let all = checks(Sizes::Small);
    for (number, check) in all.iter().enumerate() {
        let (device, made) = broken("");
        let start = Instant::now();
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
