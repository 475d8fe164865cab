//! A learner on the emulated CUDA device: the CPU's values up to rounding, checkpoints that go on on either, and an error wherever its memory
//! ends.

use ctk_cuda::{Cuda, Emulated, Limits};

use super::devices::{made, on};
use super::*;
use crate::recipe::{AdamwRecipe, LarsForm, LarsRecipe};

fn emulated(limits: Limits) -> Cuda {
    Cuda::new(Emulated::new(limits), true)
}

/// The largest difference between parameters, statistics and the momentum copy of two learners, as a part of the values.
fn apart(a: &Dense<Siamese<Net>>, b: &Dense<Siamese<Net>>) -> f64 {
    let one = |(a, b): (&Arc<Param>, &Arc<Param>)| {
        let values = |p: &Param| p.tensor().unwrap().flatten_all().unwrap().to_vec1::<f64>().unwrap();
        let pairs = values(a).into_iter().zip(values(b));
        pairs.map(|(a, b)| (a - b).abs() / b.abs().max(1.0)).fold(0.0, f64::max)
    };
    a.params.iter().zip(b.params.iter()).map(one).fold(0.0, f64::max)
}

fn sgd() -> OptimizerRecipe {
    OptimizerRecipe::Sgd(SgdRecipe { momentum: 0.9, decay: 0.01, ..SgdRecipe::default() })
}

#[test]
fn a_learner_on_cuda_has_the_cpus_values_and_goes_on_from_its_checkpoint() {
    let lars = |form| OptimizerRecipe::Lars(LarsRecipe { momentum: 0.9, decay: 0.02, form, ..LarsRecipe::default() });
    let adamw = OptimizerRecipe::Adamw(AdamwRecipe::default());
    for (recipe, part) in [(sgd(), 7), (sgd(), 3), (lars(LarsForm::Classic), 7), (lars(LarsForm::Popular), 7), (adamw, 7)] {
        let road = Road::Cuda(emulated(Limits::default()));
        let (mut here, mut there) = (on(&Road::default(), &recipe), on(&road, &recipe));
        for _ in 0..10 {
            let [here, there] = [&mut here, &mut there].map(|dense| step(dense, part, 0.1));
            assert!((here - there).abs() <= 1e-9 * here.abs(), "{recipe:?} in parts of {part}: {there}, not {here}");
        }
        assert!(apart(&here, &there) < 1e-9, "{recipe:?} in parts of {part}: {:e}", apart(&here, &there));
        // Each goes on from the other's checkpoint.
        let folder = tempfile::tempdir().unwrap();
        let saved = |dense: &Dense<Siamese<Net>>, name: &str| {
            let manifest = Manifest::new("test", 1, 0, &Recipe::new("r", ""));
            Checkpoint::write(&folder.path().join(name), manifest, |w| dense.save(w)).unwrap()
        };
        let (of_here, of_there) = (saved(&here, "here"), saved(&there, "there"));
        let (mut here, mut there) = (on(&Road::default(), &recipe), on(&road, &recipe));
        here.load(&of_there.reader()).unwrap();
        there.load(&of_here.reader()).unwrap();
        for dense in [&mut here, &mut there] {
            step(dense, part, 0.1);
        }
        assert!(apart(&here, &there) < 1e-9, "{recipe:?}, resumed on the other: {:e}", apart(&here, &there));
    }
}

#[test]
fn a_step_reads_embeddings_and_their_gradients_back_and_no_parameter() {
    let device = emulated(Limits::default());
    let mut dense = on(&Road::Cuda(device.clone()), &sgd());
    step(&mut dense, 7, 0.1);
    let before = device.read_back();
    step(&mut dense, 7, 0.1);
    let rows = 7 * 5;
    // Representations of 6 numbers and embeddings of 4, of the network and its momentum copy; the gradient of the representations.
    assert_eq!(device.read_back() - before, 8 * (2 * rows * (6 + 4) + rows * 6) as u64);
}

#[test]
fn wherever_memory_ends_it_is_an_error() {
    let attempt = |allocations: u64| {
        let device = emulated(Limits { allocations, ..Limits::default() });
        let mut dense = made(&Road::Cuda(device), &sgd())?;
        let draw = |_: usize| multi_crop().draw(&[0, 1, 2, 3], Key::new(0));
        dense.step(&Feed::new(1, 4, Key::new(0), &draw), 0.1).map(drop)
    };
    let first = (0..10_000).find(|&allocations| match attempt(allocations) {
        Err(error) => {
            assert!(error.to_string().contains("the device's memory is full"), "after {allocations} allocations: {error}");
            false
        }
        Ok(()) => true,
    });
    assert!(first.is_some_and(|first| first > 20), "{first:?} allocations are enough");
    assert!(attempt(first.unwrap() + 1).is_ok());
}
