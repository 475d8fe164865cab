//! Which input pixels each output pixel of a convolution reads, so that they need not be copied together.
//!
//! Along one axis, outputs fall into a few groups that read the same taps of the kernel: inner ones read all taps, those at an edge fewer;
//! in the gradient of a strided convolution, even and odd outputs read different ones. A class is a group of rows combined with a group of
//! columns; within a class every pixel's sum has the same shape.

use super::geometry::Geometry;
use super::micro::Stretch;

/// One axis: the taps of each group, in the order of the contiguous inputs that they read; and each output's group and first input.
struct Axis {
    groups: Vec<Vec<usize>>,
    at: Vec<(usize, usize)>,
}

impl Axis {
    /// `meets(output)` are the (tap, input) pairs of an output, with ascending consecutive inputs.
    fn new(outputs: usize, meets: impl Fn(usize) -> Vec<(usize, usize)>) -> Self {
        let mut axis = Axis { groups: Vec::new(), at: Vec::with_capacity(outputs) };
        for output in 0..outputs {
            let meets = meets(output);
            let taps: Vec<usize> = meets.iter().map(|&(tap, _)| tap).collect();
            let group = axis.groups.iter().position(|g| *g == taps).unwrap_or_else(|| {
                axis.groups.push(taps);
                axis.groups.len() - 1
            });
            axis.at.push((group, meets.first().map_or(0, |&(_, input)| input)));
        }
        axis
    }
}

/// A convolution, or its gradient, as sums over taps: from `channels` × `height` × `width` images to `rows` × `columns` pixels.
pub struct Taps {
    vertical: Axis,
    horizontal: Axis,
    kernel: usize,
    channels: usize,
    height: usize,
    width: usize,
}

impl Taps {
    /// The outputs from the inputs.
    pub fn forward(g: &Geometry) -> Self {
        let axis = |outputs, inputs| {
            Axis::new(outputs, |output| {
                let input = |tap: usize| (output * g.stride + tap).checked_sub(g.padding).filter(|&input| input < inputs);
                (0..g.kernel).filter_map(|tap| Some((tap, input(tap)?))).collect()
            })
        };
        let (vertical, horizontal) = (axis(g.oh, g.h), axis(g.ow, g.w));
        Taps { vertical, horizontal, kernel: g.kernel, channels: g.c, height: g.h, width: g.w }
    }

    /// The gradients of the inputs from those of the outputs.
    pub fn backward(g: &Geometry) -> Self {
        let axis = |inputs, outputs| {
            Axis::new(inputs, |input| {
                let output = |tap: usize| {
                    let at = (input + g.padding).checked_sub(tap).filter(|at| at % g.stride == 0)?;
                    Some(at / g.stride).filter(|&output| output < outputs)
                };
                (0..g.kernel).rev().filter_map(|tap| Some((tap, output(tap)?))).collect()
            })
        };
        let (vertical, horizontal) = (axis(g.h, g.oh), axis(g.w, g.ow));
        Taps { vertical, horizontal, kernel: g.kernel, channels: g.o, height: g.oh, width: g.ow }
    }

    /// Multiplications in all sums of an image, for one input and one output channel.
    pub fn products(&self) -> usize {
        let count = |axis: &Axis| axis.at.iter().map(|&(group, _)| axis.groups[group].len()).sum::<usize>();
        count(&self.vertical) * count(&self.horizontal)
    }

    /// Rows and columns of the output.
    pub fn output(&self) -> [usize; 2] {
        [self.vertical.at.len(), self.horizontal.at.len()]
    }

    /// Every class: the runs of its sums, and a function that lists its pixels in output rows `from..to` (counted over all images): the
    /// start of each pixel's input, and its number counted from the first pixel of row `from`.
    pub fn classes(&self) -> impl Iterator<Item = (Vec<Stretch>, Pixels<'_>)> {
        let groups = (0..self.vertical.groups.len()).flat_map(|v| (0..self.horizontal.groups.len()).map(move |h| (v, h)));
        groups.map(move |(v, h)| (self.runs(v, h), Pixels { taps: self, vertical: v, horizontal: h }))
    }

    fn runs(&self, vertical: usize, horizontal: usize) -> Vec<Stretch> {
        let c = self.channels;
        let mut runs: Vec<Stretch> = Vec::new();
        for (dy, ky) in self.vertical.groups[vertical].iter().enumerate() {
            for (dx, kx) in self.horizontal.groups[horizontal].iter().enumerate() {
                let next = Stretch { a: (dy * self.width + dx) * c, b: (ky * self.kernel + kx) * c, len: c };
                match runs.last_mut() {
                    Some(last) if last.a + last.len == next.a && last.b + last.len == next.b => last.len += c,
                    _ => runs.push(next),
                }
            }
        }
        runs
    }

    /// For one tap: the pixels in output rows `from..to` that read it, as (first channel of the input, number counted from the first pixel
    /// of row `from`).
    pub fn tap(&self, tap: usize, from: usize, to: usize, mut each: impl FnMut(usize, usize)) {
        let [rows, columns] = self.output();
        let find = |axis: &Axis, tap: usize, output: usize| {
            let (group, first) = axis.at[output];
            axis.groups[group].iter().position(|&t| t == tap).map(|i| first + i)
        };
        let inputs: Vec<Option<usize>> = (0..columns).map(|x| find(&self.horizontal, tap % self.kernel, x)).collect();
        for row in from..to {
            let Some(y) = find(&self.vertical, tap / self.kernel, row % rows) else { continue };
            let start = (row / rows * self.height + y) * self.width;
            for (x, input) in inputs.iter().enumerate() {
                if let Some(input) = input {
                    each((start + input) * self.channels, (row - from) * columns + x);
                }
            }
        }
    }
}

/// The pixels of a class.
pub struct Pixels<'a> {
    taps: &'a Taps,
    vertical: usize,
    horizontal: usize,
}

impl Pixels<'_> {
    /// Calls `each` with the start of the input and the pixel's number, for output rows `from..to`.
    pub fn between(&self, from: usize, to: usize, mut each: impl FnMut(usize, usize)) {
        let taps = self.taps;
        let [rows, columns] = taps.output();
        for row in from..to {
            let (group, y) = taps.vertical.at[row % rows];
            if group != self.vertical {
                continue;
            }
            let start = (row / rows * taps.height + y) * taps.width;
            for (x, &(group, input)) in taps.horizontal.at.iter().enumerate() {
                if group == self.horizontal {
                    each((start + input) * taps.channels, (row - from) * columns + x);
                }
            }
        }
    }
}
