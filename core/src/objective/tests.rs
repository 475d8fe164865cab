//! Losses over similarities on the emulated CUDA device have the CPU's values and gradients.

use candle_core::{DType, Tensor};

use super::testing::{distance, random, ranks, terms_on, two};
use super::*;
use crate::world::Solo;
use ctk_cuda::{Cuda, Emulated, Limits};
use ctk_kernels::Judge;

fn emulated() -> Cuda {
    Cuda::new(Emulated::new(Limits::default()))
}

fn ranked(directions: Directions, margin: Option<f64>) -> Ranking {
    Ranking { temperature: 0.2, directions, margin, judge: Judge::Softmax }
}

/// Every loss whose similarities a device computes, with full and with empty memories.
fn losses(dtype: DType) -> Vec<(&'static str, Box<dyn Objective>)> {
    let queue = |held: usize| {
        let mut queue = Queue::new(9, 5, dtype).unwrap();
        queue.enqueue(&random(7, 9, 5).narrow(0, 0, held.max(1)).unwrap().to_dtype(dtype).unwrap()).unwrap();
        if held == 0 { Queue::new(9, 5, dtype).unwrap() } else { queue }
    };
    let supcon = |positives| Box::new(SupCon { temperature: 0.3, positives }) as Box<dyn Objective>;
    let ranking = |directions| Box::new(ranked(directions, None)) as Box<dyn Objective>;
    vec![
        ("nt-xent", Box::new(NtXent { temperature: 0.2, scale: 2.0, memory: None })),
        ("nt-xent with a memory", Box::new(NtXent { temperature: 0.2, scale: 1.0, memory: Some(queue(7)) })),
        ("nt-xent with an empty memory", Box::new(NtXent { temperature: 0.2, scale: 1.0, memory: Some(queue(0)) })),
        ("dcl", Box::new(Dcl { temperature: 0.2 })),
        ("infonce", Box::new(InfoNce::fixed(0.2))),
        ("ranking", ranking(Directions::Forth)),
        ("ranking of all", ranking(Directions::All)),
        ("supcon", supcon(Positives::SupCon)),
        ("supcon by pairs", supcon(Positives::Pairs)),
        ("supcon by anchors", supcon(Positives::Anchors)),
        ("moco", Box::new(Moco { temperature: 0.2, queue: queue(9) })),
        ("moco with an empty queue", Box::new(Moco { temperature: 0.2, queue: queue(0) })),
    ]
}

const LABELS: [u32; 6] = [3, 1, 3, 8, 1, 3];

/// The largest distance between the CPU's and the device's loss and gradients for these rows; the momentum copy sees them turned round.
fn apart(device: &Device, loss: &dyn Objective, views: &[&Tensor], labels: &[u32], world: &dyn Collective) -> f64 {
    let of = |views: &mut dyn Iterator<Item = &&Tensor>| {
        let all: Vec<_> = views.map(|view| Some((*view).clone().into())).collect();
        Embeddings::new(all.len(), all)
    };
    let (online, target) = (of(&mut views.iter()), of(&mut views.iter().rev()));
    let [here, there] =
        [&Device::Cpu, device].map(|device| terms_on(device, loss, &online, Some(&target), Some(labels), world).unwrap());
    let gradients = here.gradients.iter().zip(&there.gradients).map(|(here, there)| match (&here.query, &there.query) {
        (Some(here), Some(there)) => distance(here, there),
        (here, there) => {
            assert!(here.is_none() && there.is_none());
            0.0
        }
    });
    gradients.fold(distance(&here.loss, &there.loss), f64::max)
}

#[test]
fn a_device_has_the_cpus_losses_and_gradients() {
    for (dtype, bound) in [(DType::F64, 1e-13), (DType::F32, 2e-5)] {
        let [left, right] = [1, 2].map(|seed| random(seed, 6, 5).to_dtype(dtype).unwrap());
        for (name, loss) in losses(dtype) {
            let off = apart(&Device::Cuda(emulated()), &*loss, &[&left, &right], &LABELS, &Solo);
            assert!(off < bound, "{name} in {dtype:?}: {off:e}");
        }
    }
}

#[test]
fn ranks_on_devices_have_the_cpus_losses_and_gradients() {
    let (left, right) = (random(1, 6, 5), random(2, 6, 5));
    for at in 0..losses(DType::F64).len() {
        let off = ranks(2, |world| {
            let (name, loss) = losses(DType::F64).swap_remove(at);
            let from = 4 * world.rank();
            let own = |t: &Tensor| t.narrow(0, from, 4 - 2 * world.rank()).unwrap();
            let labels = &LABELS[from..][..4 - 2 * world.rank()];
            (name, apart(&Device::Cuda(emulated()), &*loss, &[&own(&left), &own(&right)], labels, world))
        });
        assert!(off.iter().all(|(_, off)| *off < 1e-13), "{off:?}");
    }
}

#[test]
fn hard_negatives_are_candidates_on_a_device_too() {
    let views = [1, 2, 3, 4].map(|seed| random(seed, 600, 5));
    let views: Vec<&Tensor> = views.iter().collect();
    let device = Device::Cuda(emulated());
    for directions in [Directions::Forth, Directions::Both] {
        let loss = ranked(directions, None);
        assert!(apart(&device, &loss, &views, &[0; 600], &Solo) < 1e-13, "{directions:?}");
    }
    // Masks are applied on the host.
    let masked = ranked(Directions::Forth, Some(0.1));
    assert_eq!(apart(&device, &masked, &views, &[0; 600], &Solo), 0.0);
}

#[test]
fn a_device_whose_memory_ends_is_an_error() {
    let device = Device::Cuda(Cuda::new(Emulated::new(Limits { allocations: 4, ..Limits::default() })));
    let views = two(&random(1, 6, 5), &random(2, 6, 5));
    let error = terms_on(&device, &NtXent { temperature: 0.2, scale: 1.0, memory: None }, &views, None, None, &Solo);
    assert!(error.err().unwrap().to_string().contains("the device's memory is full"));
}
