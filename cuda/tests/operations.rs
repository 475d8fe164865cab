//! Every operation of the device on the emulated one, beside the CPU's in f64: on random and on edge shapes, for each type of number.

use std::fmt::Write as _;

use ctk_cuda::{Cuda, Emulated, Limits};
use ctk_kernels::{
    Adam, Bf16, Change, Cpu, Device, Dropout, Element, Geometry, Groups, Identity, Kind, Lars, Map, Momentum, Number, Real, Step,
    Windows,
};

/// SplitMix64.
struct Draws(u64);

impl Draws {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let z = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    fn below(&mut self, n: usize) -> usize {
        (self.next() % n as u64) as usize
    }

    /// Values in [−1, 1) that bf16 holds exactly, so that every type begins with the same ones.
    fn values(&mut self, n: usize) -> Vec<f64> {
        (0..n).map(|_| f64::from(Bf16::down((self.next() >> 40) as f32 / (1 << 23) as f32 - 1.0).up())).collect()
    }
}

/// The results of an operation, by name.
type Results = Vec<(&'static str, Vec<f64>)>;

/// An operation on any device and number, with its input.
trait Operation {
    fn run<D: Device, T: Number>(&self, device: &D) -> Results;
}

/// Runs the operation on the emulated device for each type, and compares with the CPU's in f64.
fn check(name: &str, operation: &impl Operation) {
    let exact = operation.run::<_, f64>(&Cpu::default());
    let cuda = || Cuda::new(Emulated::new(Limits::default()));
    let close = |kind: Kind, found: &Results| {
        for ((what, expected), (_, found)) in exact.iter().zip(found) {
            assert_eq!(expected.len(), found.len(), "{name}: {what}");
            let largest = expected.iter().fold(1.0f64, |largest, v| largest.max(v.abs()));
            // A stored value is rounded to 8 bits in bf16; sums are in f32.
            let bound = largest
                * match kind {
                    Kind::F64 => 1e-12,
                    Kind::F32 => 3e-5,
                    Kind::Bf16 => 2e-2,
                };
            for (i, (e, f)) in expected.iter().zip(found).enumerate() {
                let same = (e - f).abs() <= bound || (e.is_nan() && f.is_nan());
                assert!(same, "{name} in {kind:?}: {what}[{i}] is {f}, not {e}");
            }
        }
    };
    close(Kind::F64, &operation.run::<_, f64>(&cuda()));
    close(Kind::F32, &operation.run::<_, f32>(&cuda()));
    close(Kind::Bf16, &operation.run::<_, Bf16>(&cuda()));
    // Another order of blocks and threads gives the same bits.
    let device = cuda();
    let bits =
        |results: Results| results.into_iter().map(|(_, v)| v.into_iter().map(f64::to_bits).collect()).collect::<Vec<Vec<u64>>>();
    let [once, again] = [(); 2].map(|()| bits(operation.run::<_, f32>(&device)));
    assert!(once == again, "{name} depends on the order of blocks or threads");
}

fn real<T: Number>(values: &[f64]) -> Vec<T::Real> {
    values.iter().map(|v| T::Real::of(*v)).collect()
}

fn wide<R: Real>(values: Vec<R>) -> Vec<f64> {
    values.into_iter().map(Real::wide).collect()
}

/// A map of one row of values.
fn map<D: Device, T: Number>(device: &D, values: &[f64]) -> Map<D, T> {
    Map::store([1, 1, 1, values.len()], &real::<T>(values), device)
}

fn values<D: Device, T: Number>(map: &Map<D, T>) -> Vec<f64> {
    wide(map.load())
}

macro_rules! operation {
    ($name:ident { $($field:ident: $kind:ty),* } |$self:ident, $device:ident, $D:ident, $T:ident| $body:block) => {
        struct $name { $($field: $kind),* }
        impl Operation for $name {
            fn run<$D: Device, $T: Number>(&$self, $device: &$D) -> Results $body
        }
    };
}

operation!(Convolution { g: Geometry, x: Vec<f64>, w: Vec<f64>, dy: Vec<f64>, beside: Vec<f64> } |self, device, D, T| {
    let g = &self.g;
    let (x, dy, beside) = (map::<D, T>(device, &self.x), map::<D, T>(device, &self.dy), map::<D, T>(device, &self.beside));
    let weight = device.vector(&real::<T>(&self.w));
    let mut y = map::<D, T>(device, &self.dy);
    device.convolve(g, (x.data(), None), device.read(&weight), y.data_mut(), false);
    let [mut dx, mut sum] = [(); 2].map(|()| map::<D, T>(device, &self.x));
    device.input_gradient(g, dy.data(), device.read(&weight), dx.data_mut(), None, None);
    device.input_gradient(g, dy.data(), device.read(&weight), sum.data_mut(), Some(beside.data()), None);
    let dw = device.weight_gradient(g, (x.data(), None), dy.data());
    vec![("y", values(&y)), ("dx", values(&dx)), ("dx + beside", values(&sum)), ("dw", wide(device.host(dw)))]
});

#[test]
fn convolutions() {
    let mut draws = Draws(1);
    let mut shapes = vec![[1, 1, 1, 1, 1, 1, 1, 0], [2, 5, 4, 3, 7, 1, 1, 0], [2, 5, 4, 3, 7, 1, 2, 0], [1, 6, 6, 5, 4, 3, 2, 1]];
    shapes.extend((0..10).map(|_| {
        let kernel = [1, 2, 3, 5, 7][draws.below(5)];
        let (h, w) = (kernel + draws.below(6), kernel + draws.below(6));
        [
            1 + draws.below(3),
            h,
            w,
            1 + draws.below(40),
            1 + draws.below(40),
            kernel,
            1 + draws.below(3),
            draws.below(kernel.min(3) + 1),
        ]
    }));
    for [n, h, w, c, o, kernel, stride, padding] in shapes {
        let size = |x: usize| (x + 2 * padding - kernel) / stride + 1;
        let g = Geometry { n, h, w, c, o, oh: size(h), ow: size(w), kernel, stride, padding };
        let [x, beside] = [(); 2].map(|()| draws.values(n * h * w * c));
        let (dy, w) = (draws.values(g.rows() * o), draws.values(o * c * kernel * kernel));
        check(&format!("{g:?}"), &Convolution { g, x, w, dy, beside });
    }
}

operation!(Normalisation { c: usize, x: Vec<f64>, z: Vec<f64>, dy: Vec<f64>, gamma: Vec<f64>, beta: Vec<f64>, relu: bool } |self, device, D, T| {
    let c = self.c;
    let (x, z, dy) = (map::<D, T>(device, &self.x), map::<D, T>(device, &self.z), map::<D, T>(device, &self.dy));
    let (gamma, beta) = (device.vector(&real::<T>(&self.gamma)), device.vector(&real::<T>(&self.beta)));
    let mut results = Vec::new();
    let [mean, variance] = device.merge(device.moments(x.data(), c), c);
    let mut running = device.vector(&real::<T>(&self.gamma));
    device.follow::<T::Real>(device.write(&mut running), &mean, 1.5, 0.1);
    results.push(("running", wide(device.host(running))));
    let affine = device.affine([&mean, &variance], device.read(&gamma), Some(device.read(&beta)), 1e-5, self.relu);
    let plain = device.affine([&mean, &variance], device.read(&gamma), None, 1e-3, false);
    results.extend([("mean", device.host(mean)), ("variance", device.host(variance))]);
    let mut y = map::<D, T>(device, &self.dy);
    device.normalise(&affine, x.data(), y.data_mut());
    results.push(("y", values(&y)));
    // The mask of a ReLU is that of each type's own rounding, so its gradients are compared without one.
    if !self.relu {
        let sums = device.gradient_sums(&affine, x.data(), dy.data());
        let [dgamma, dbeta] = device.affine_gradients::<T::Real>(&affine, &sums);
        results.extend([("dgamma", wide(device.host(dgamma))), ("dbeta", wide(device.host(dbeta)))]);
        for rows in [Some(self.x.len() / c), None] {
            let mut dx = map::<D, T>(device, &self.x);
            device.normalise_gradient(&affine, &sums, rows, x.data(), Some(dy.data()), dx.data_mut());
            results.push(("dx", values(&dx)));
            let mut own = map::<D, T>(device, &self.dy);
            device.normalise_gradient(&affine, &sums, rows, x.data(), None, own.data_mut());
            results.push(("dx in place", values(&own)));
        }
    }
    let mut masked = map::<D, T>(device, &self.dy);
    let [a, b] = device.masked_sums(masked.data_mut(), Some(z.data()), c, [(x.data(), Some(&plain)), (z.data(), None)]);
    assert!(b.is_none());
    let [dgamma, dbeta] = device.affine_gradients::<T::Real>(&plain, &a.unwrap());
    results.extend([("masked", values(&masked)), ("dgamma of it", wide(device.host(dgamma))), ("dbeta of it", wide(device.host(dbeta)))]);
    for (a, b, relu) in [(None, None, false), (Some(&affine), None, true), (None, Some(&plain), true), (Some(&plain), Some(&affine), false)] {
        device.join((x.data(), a), (z.data(), b), c, relu, y.data_mut());
        results.push(("join", values(&y)));
    }
    let sums = device.column_sums(x.data(), c);
    results.push(("column sums", wide(device.host(sums))));
    device.add_bias(y.data_mut(), device.read(&beta));
    results.push(("bias", values(&y)));
    let wide_gamma = device.widen::<T::Real>(device.read(&gamma));
    results.push(("wide", device.host(wide_gamma)));
    results
});

#[test]
fn normalisation() {
    let mut draws = Draws(2);
    let mut shapes = vec![(1, 1), (1, 33), (257, 1), (1000, 3), (255, 32), (600, 65)];
    shapes.extend((0..6).map(|_| (1 + draws.below(700), 1 + draws.below(80))));
    for (rows, c) in shapes {
        let [x, z, dy] = [(); 3].map(|()| draws.values(rows * c));
        // A mean far from 0 must not cost precision.
        let x: Vec<f64> = x.into_iter().map(|v| v + 4.0 * f64::from(u8::from(rows > 900))).collect();
        let x = x.into_iter().map(|v| f64::from(Bf16::down(v as f32).up())).collect::<Vec<_>>();
        let [gamma, beta] = [(); 2].map(|()| draws.values(c));
        for relu in [false, true] {
            let (x, z, dy, gamma, beta) = (x.clone(), z.clone(), dy.clone(), gamma.clone(), beta.clone());
            // One row has no variance: its gradients are of the size of 1/√ε, and rounding as well.
            if rows > 1 {
                check(&format!("{rows} rows of {c}"), &Normalisation { c, x, z, dy, gamma, beta, relu });
            }
        }
    }
}

operation!(Elementwise { x: Vec<f64>, y: Vec<f64>, scale: f64 } |self, device, D, T| {
    let mut results = Vec::new();
    let y = map::<D, T>(device, &self.y);
    type InPlace<D, T> = fn(&D, <D as Device>::ViewMut<'_, T>, <D as Device>::View<'_, T>);
    let changes: [(&str, InPlace<D, T>); 4] =
        [("relu", |d, x, _| d.relu(x)), ("mask", |d, x, y| d.mask(x, y)), ("add", |d, x, y| d.add(x, y)), ("copy", |d, x, y| d.copy(y, x))];
    for (name, change) in changes {
        let mut x = map::<D, T>(device, &self.x);
        change(device, x.data_mut(), y.data());
        results.push((name, values(&x)));
    }
    let mut x = map::<D, T>(device, &self.x);
    device.add(x.data_mut(), y.data());
    let small: Vec<f64> = self.y.iter().map(|v| v.abs()).collect();
    let mut d = device.vector(&real::<T>(&self.x));
    let (a, b) = (device.vector(&real::<T>(&self.y)), device.vector(&real::<T>(&small)));
    device.linear::<T::Real>([0.9, 0.5, -0.25], device.write(&mut d), device.read(&a), device.read(&b));
    results.push(("linear", wide(device.host(d))));
    // Parameters of different lengths, each with another step.
    let lars = |trust, popular| Step::Lars(Lars { momentum: 0.9, decay: 1e-2, rate: 0.1, trust, popular });
    let steps = [
        Step::Blend { keep: 0.99, add: -0.1 },
        Step::Momentum(Momentum { velocity: [0.9, 1.0, 1e-2], weight: [0.99, -0.05, -0.045] }),
        lars(Some(0.01), false),
        lars(None, false),
        lars(Some(0.01), true),
        lars(None, true),
        Step::Adam(Adam { betas: [0.9, 0.99], keep: 0.99, rate: 0.1, root: 1.5, eps: 1e-2 }),
    ];
    let of = |from: &[f64], at: usize| device.vector(&real::<T>(&from[..from.len().div_ceil(1 + at)]));
    let mut taken: Vec<_> = (0..steps.len()).map(|at| (of(&self.x, at), [of(&self.y, at), of(&small, at)], of(&self.y, at))).collect();
    let changes = taken.iter_mut().zip(steps).map(|((w, state, g), step)| {
        let states = match step {
            Step::Blend { .. } => 0,
            Step::Adam(_) => 2,
            _ => 1,
        };
        let state = state.iter_mut().take(states).map(|state| device.write(state)).collect();
        Change { step, w: device.write(w), state, g: device.read(g), scale: self.scale }
    });
    let changes = changes.collect();
    device.steps::<T::Real>(changes);
    let norms = {
        let views: Vec<_> = taken.iter().map(|(w, ..)| device.read(w)).collect();
        device.norms::<T::Real>(&views)
    };
    results.push(("norms", norms));
    for (w, [first, second], _) in taken {
        results.extend([("weight", wide(device.host(w))), ("first", wide(device.host(first))), ("second", wide(device.host(second)))]);
    }
    let mut lent = real::<T>(&self.x);
    let [a, b] = [&self.y, &small].map(|of| device.vector(&real::<T>(of)));
    device.lend_mut(&mut lent, |d| device.linear::<T::Real>([1.0, 1.0, 1.0], d, device.read(&a), device.read(&b)));
    let lent_norm = device.lend(&lent, |x| device.norms::<T::Real>(&[x]));
    results.extend([("lent", wide(lent)), ("lent norm", lent_norm)]);
    results
});

#[test]
fn elementwise_operations() {
    let mut draws = Draws(3);
    for (n, scale) in [(1, 1.0), (3, 0.3), (255, 1.0), (1024, 0.3), (1025, 1.0), (40_000, 0.3)] {
        let (x, y) = (draws.values(n), draws.values(n));
        check(&format!("{n} values, gradients by {scale}"), &Elementwise { x, y, scale });
    }
}

operation!(Pools { w: Windows, x: Vec<f64>, dy: Vec<f64> } |self, device, D, T| {
    let (x, dy) = (map::<D, T>(device, &self.x), map::<D, T>(device, &self.dy));
    let mut y = map::<D, T>(device, &self.dy);
    let mut winners = device.zeros::<u32>(self.dy.len());
    device.max_pool(&self.w, x.data(), y.data_mut(), device.write(&mut winners));
    let mut results = vec![("maximum", values(&y))];
    let mut dx = map::<D, T>(device, &self.x);
    device.max_pool_gradient(&self.w, dy.data(), device.read(&winners), dx.data_mut());
    results.push(("gradient", values(&dx)));
    results.push(("winners", device.host(winners).into_iter().map(f64::from).collect()));
    device.mean_pool(&self.w, x.data(), y.data_mut());
    results.push(("mean", values(&y)));
    device.mean_pool_gradient(&self.w, dy.data(), dx.data_mut());
    results.push(("gradient of it", values(&dx)));
    results
});

#[test]
fn pools() {
    let mut draws = Draws(4);
    for i in 0..16 {
        let (kernel, stride) = (1 + draws.below(3), 1 + draws.below(3));
        let (top, left) = (draws.below(kernel), draws.below(kernel));
        let (h, w, c, n) = (kernel + draws.below(6), kernel + draws.below(6), 1 + draws.below(9), 1 + draws.below(3));
        let (oh, ow) = ((h + top - kernel) / stride + 1, (w + left - kernel) / stride + 1);
        let windows = Windows { h, w, c, oh, ow, kernel, stride, top, left, count_outside: i % 2 == 0 };
        let (x, dy) = (draws.values(n * h * w * c), draws.values(n * oh * ow * c));
        check(&format!("{windows:?}"), &Pools { w: windows, x, dy });
    }
    // NaN wins, and of equal values the first.
    let w = Windows { h: 2, w: 2, c: 1, oh: 1, ow: 1, kernel: 2, stride: 2, top: 0, left: 0, count_outside: false };
    for x in [vec![1.0, 1.0, 0.5, 1.0], vec![0.0, f64::NAN, 3.0, 1.0]] {
        check("a window", &Pools { w, x, dy: vec![1.0] });
    }
}

operation!(Images { pixels: usize, c: usize, x: Vec<f64>, small: Vec<f64> } |self, device, D, T| {
    let (pixels, c) = (self.pixels, self.c);
    let x = map::<D, T>(device, &self.x);
    let mut small = map::<D, T>(device, &self.small);
    device.global_mean(x.data(), pixels, c, small.data_mut());
    let mut results = vec![("mean", values(&small))];
    let dy = map::<D, T>(device, &self.small);
    let mut dx = map::<D, T>(device, &self.x);
    device.global_mean_gradient(dy.data(), pixels, c, dx.data_mut());
    results.push(("gradient", values(&dx)));
    if !c.is_multiple_of(2) {
        return results;
    }
    // Two streams of half the channels.
    let f = c / 2;
    let half = |values: &[f64]| map::<D, T>(device, &values[..values.len() / 2]);
    let mut mean = half(&self.small);
    device.stream_mean(x.data(), pixels, f, mean.data_mut());
    results.push(("stream mean", values(&mean)));
    let (gate, dy) = (map::<D, T>(device, &self.small), half(&self.x));
    let (mut y, mut weight) = (half(&self.x), half(&self.small));
    device.select(x.data(), gate.data(), pixels, f, y.data_mut(), weight.data_mut());
    let mut dgate = map::<D, T>(device, &self.small);
    device.select_gradient([x.data(), weight.data(), dy.data()], pixels, f, dx.data_mut(), dgate.data_mut());
    results.extend([("selected", values(&y)), ("weight", values(&weight)), ("streams", values(&dx)), ("gate", values(&dgate))]);
    device.stream_mean_gradient(half(&self.small).data(), pixels, f, dx.data_mut());
    results.push(("stream mean's gradient", values(&dx)));
    results
});

#[test]
fn whole_images_and_streams() {
    let mut draws = Draws(5);
    for (n, pixels, c) in [(1, 1, 1), (3, 49, 2), (2, 300, 66), (5, 4, 31), (2, 17, 128)] {
        let (x, small) = (draws.values(n * pixels * c), draws.values(n * c));
        check(&format!("{n} images of {pixels} pixels"), &Images { pixels, c, x, small });
    }
}

operation!(Tables { width: usize, table: Vec<f64>, ids: Vec<u32>, dy: Vec<f64>, offsets: Vec<u32> } |self, device, D, T| {
    let table = device.vector(&real::<T>(&self.table));
    let ids = device.vector(&self.ids);
    let mut y = map::<D, T>(device, &self.dy);
    device.gather(device.read(&table), self.width, device.read(&ids), y.data_mut());
    let mut results = vec![("rows", values(&y))];
    let groups = Groups::new(&self.ids);
    let (order, starts, dy) = (device.vector(&groups.order), device.vector(&groups.starts), map::<D, T>(device, &self.dy));
    let sums = device.sum_groups(dy.data(), self.width, device.read(&order), device.read(&starts));
    results.push(("sums", wide(device.host(sums))));
    let rows = self.offsets.len() - 1;
    let (places, views): (Vec<u32>, Vec<u16>) = (0..rows).map(|row| (7 * row as u32 + 3, row as u16 % 2)).unzip();
    let dropout = Dropout::new(11, 0.4);
    let total = self.ids.len();
    for (offsets, count) in [(Some(&self.offsets[..]), rows), (None, total)] {
        let (places, views) = match offsets {
            Some(_) => (places.clone(), views.clone()),
            None => ((0..count as u32).collect(), vec![1; count]),
        };
        let identity = Identity { places: &places, views: &views, offsets };
        let mut x = map::<D, T>(device, &self.dy);
        device.dropout(&dropout, identity, 1, self.width, x.data_mut());
        results.push(("dropout", values(&x)));
    }
    results
});

#[test]
fn tables_and_dropout() {
    let mut draws = Draws(6);
    for (words, width, count) in [(1, 1, 1), (7, 5, 40), (100, 33, 300)] {
        let ids: Vec<u32> = (0..count).map(|_| draws.below(words) as u32).collect();
        let (table, dy) = (draws.values(words * width), draws.values(count * width));
        let mut offsets: Vec<u32> = (0..4).map(|_| draws.below(count + 1) as u32).chain([0, count as u32]).collect();
        offsets.sort_unstable();
        check(&format!("{count} rows of {words}"), &Tables { width, table, ids, dy, offsets });
    }
}

#[test]
fn numbers_are_stored_to_the_bit() {
    let device = Cuda::new(Emulated::new(Limits::default()));
    let mut draws = Draws(7);
    let odd = [f32::NAN, f32::INFINITY, f32::NEG_INFINITY, f32::MAX, -0.0, f32::MIN_POSITIVE, 1e-45, f32::from_bits(0x3f80_8000)];
    let values: Vec<f32> = (0..5000).map(|_| f32::from_bits(draws.next() as u32)).chain(odd).collect();
    let there = Map::<_, Bf16>::store([1, 1, 1, values.len()], &values, &device);
    let here: Vec<u32> = values.iter().map(|v| Bf16::down(*v).up().to_bits()).collect();
    assert_eq!(there.load().into_iter().map(f32::to_bits).collect::<Vec<_>>(), here);
    assert!(device.read_back() > 0 && device.name().contains("emulated"));
}

#[test]
fn a_kernel_that_races_or_writes_too_far_is_noticed() {
    use ctk_cuda::{Argument, Calls as _};
    let device = Emulated::new(Limits::default());
    let mut said = String::new();
    write!(said, "{}", device.launch("relu_f32", [1, 1], &[]).unwrap_err()).unwrap();
    assert!(said.contains("relu_f32 failed: it has another number of parameters"), "{said}");
    assert!(device.launch("nothing", [1, 1], &[]).unwrap_err().to_string().contains("no such kernel"));
    // A block of 512 bytes is told to be longer than it is.
    let at = device.allocate(512).unwrap();
    device.upload(&[0xff; 512], at).unwrap();
    device.upload(&[0xbf; 4], at).unwrap();
    device.launch("add_f32", [1, 1], &[Argument::Address(at), Argument::Address(at), Argument::Word(129)]).unwrap();
    let caught = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| device.free(at)));
    assert!(caught.is_err(), "the margin was written to");
}
