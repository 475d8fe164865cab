//! The patches of each image as the tokens of a ViT (Dosovitskiy et al. 2021): learned positions are added, and the class token and
//! registers (Darcet et al. 2024) come before them.

use std::sync::Arc;

use candle_core::Tensor;
use ctk_kernels::{Device, Groups, Map, Number, Real};

use super::flow::{Context, Forward, SharedMap};
use super::pool::picked;
use super::resampling::Resampling;
use super::tensors;
use crate::error::{Error, Result};
use crate::nn::params::{Init, Param, ParamKind, Scope};

/// What a ViT adds to its patches.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Tokens {
    /// Values of a token.
    pub width: usize,
    /// Patches in a row of an image of the size for which positions are learned, and in a column.
    pub side: usize,
    /// Whether there is a class token, which comes first.
    pub class: bool,
    /// Whether the class token has a position, the first one.
    pub class_position: bool,
    /// Registers, which come after the class token and have no positions.
    pub registers: usize,
    /// How positions are resampled for other sizes.
    pub resampling: Resampling,
    /// The standard deviation of the initial positions, class token and registers.
    pub deviation: f64,
}

/// `(n, h, w, width)` patches to `(n, 1, class + registers + h·w, width)` tokens.
#[derive(Clone)]
pub struct Patches {
    of: Tokens,
    class: Option<Arc<Param>>,
    registers: Option<Arc<Param>>,
    positions: Arc<Param>,
}

impl Patches {
    /// Declares `cls_token`, `reg_token` and `pos_embed`, `(1, rows, width)`, in the scope: timm's names and shapes.
    pub fn new(of: Tokens, mut scope: Scope) -> Self {
        let init = Init::Normal { std: of.deviation };
        let mut rows = |name, count: usize| scope.param(name, (1, count, of.width), ParamKind::Embedding, init);
        Patches {
            class: of.class.then(|| rows("cls_token", 1)),
            registers: (of.registers > 0).then(|| rows("reg_token", of.registers)),
            positions: rows("pos_embed", usize::from(of.class && of.class_position) + of.side * of.side),
            of,
        }
    }

    pub(crate) fn params(&self, into: &mut Vec<Arc<Param>>) {
        into.extend(self.class.iter().chain(&self.registers).cloned());
        into.push(self.positions.clone());
    }

    /// Tokens before the patches.
    fn before(&self) -> usize {
        usize::from(self.of.class) + self.of.registers
    }

    /// Whether the first position is the class token's.
    fn first(&self) -> usize {
        usize::from(self.of.class && self.of.class_position)
    }

    fn check(&self, [h, w, c]: [usize; 3]) -> Result<()> {
        if c != self.of.width || h * w == 0 {
            let what = format!("positions of {} values for {h} × {w} patches of {c}", self.of.width);
            return Err(Error::new(what).at(self.positions.name()));
        }
        Ok(())
    }

    /// What is added to each token of an image of h × w patches: the class token with its position, registers, positions.
    fn table(&self, size: [usize; 2], value: impl Fn(&Param) -> Result<Tensor>) -> Result<Tensor> {
        let value = |param: &Param| -> Result<Tensor> { Ok(value(param)?.squeeze(0)?) };
        let positions = value(&self.positions)?;
        let first = self.first();
        let grid = positions.narrow(0, first, positions.dims()[0] - first)?;
        let grid = match self.of.resampling.matrix(self.of.side, size, positions.dtype())? {
            Some(matrix) => matrix.matmul(&grid.contiguous()?)?,
            None => grid,
        };
        let mut rows = Vec::new();
        if let Some(class) = &self.class {
            let class = value(class)?;
            rows.push(if first == 1 { (class + positions.narrow(0, 0, 1)?)? } else { class });
        }
        rows.extend(self.registers.as_deref().map(&value).transpose()?);
        rows.push(grid);
        Ok(Tensor::cat(&rows, 0)?)
    }

    /// Leaves the parameters' gradients, of that of the table.
    fn leave<D: Device, R: Real>(&self, size: [usize; 2], gradient: Vec<R>, own: &Context<D>) -> Result<()> {
        let (device, width, first) = (&own.device, self.of.width, self.first());
        let (before, grid) = gradient.split_at(self.before() * width);
        let mut positions = before[..first * width].to_vec();
        let grid = tensors::from_vec(grid.to_vec(), (size[0] * size[1], width))?;
        let grid = match self.of.resampling.matrix(self.of.side, size, grid.dtype())? {
            Some(matrix) => matrix.t()?.contiguous()?.matmul(&grid)?,
            None => grid,
        };
        tensors::read(&grid, |grid: &[R]| positions.extend_from_slice(grid))?;
        own.leave(&self.positions, device.vector(&positions))?;
        let of_class = if self.of.class { width } else { 0 };
        if let Some(class) = &self.class {
            own.leave(class, device.vector(&before[..of_class]))?;
        }
        if let Some(registers) = &self.registers {
            own.leave(registers, device.vector(&before[of_class..]))?;
        }
        Ok(())
    }

    pub(crate) fn forward<D: Device, T: Number>(&self, x: SharedMap<D, T>, context: &Context<D>) -> Forward<D, T> {
        let [n, h, w, c] = x.shape();
        self.check([h, w, c])?;
        let (device, count) = (context.device.clone(), self.before() + h * w);
        let ids: Vec<u32> = (0..n).flat_map(|_| 0..count as u32).collect();
        let own_rows: Vec<u32> =
            (0..n).flat_map(|image| (image * count + self.before()) as u32..((image + 1) * count) as u32).collect();
        let there = device.vector(&own_rows);
        let mut y = Map::<D, T>::new([n, 1, count, c], &device);
        device.pick_gradient(x.data(), device.read(&there), c, y.data_mut());
        drop(x);
        let table = tensors::read(&self.table([h, w], Param::tensor)?, |table: &[T::Real]| device.vector(table))?;
        let mut added = Map::<D, T>::new(y.shape(), &device);
        device.gather(device.read(&table), c, device.read(&device.vector(&ids)), added.data_mut());
        device.add(y.data_mut(), added.data());
        let (layer, own) = (self.clone(), context.clone());
        let back = context.back(move |dy: SharedMap<D, T>, want| {
            let (device, groups) = (&own.device, Groups::new(&ids));
            let (order, starts) = (device.vector(&groups.order), device.vector(&groups.starts));
            let sums = device.sum_groups(dy.data(), c, device.read(&order), device.read(&starts));
            layer.leave([h, w], device.host(sums), &own)?;
            Ok(want.then(|| {
                let mut dx = Map::new([n, h, w, c], device);
                device.pick(dy.data(), device.read(&there), c, dx.data_mut());
                Arc::new(dx)
            }))
        });
        Ok((Arc::new(y), back))
    }

    pub(crate) fn reference(&self, x: &Tensor) -> Result<Tensor> {
        let (n, h, w, c) = x.dims4()?;
        self.check([h, w, c])?;
        let table = self.table([h, w], |param| Ok(param.var().as_tensor().clone()))?;
        let x = x.reshape((n, h * w, c))?;
        let x = match self.before() {
            0 => x,
            before => Tensor::cat(&[Tensor::zeros((n, before, c), x.dtype(), x.device())?, x], 1)?,
        };
        Ok(x.broadcast_add(&table)?.reshape((n, 1, self.before() + h * w, c))?)
    }
}

/// The tokens behind the first `count` of each image.
pub(crate) fn behind<D: Device, T: Number>(count: usize, x: &Map<D, T>, context: &Context<D>) -> Forward<D, T> {
    let [n, h, w, c] = x.shape();
    let rest = left(count, h * w)?;
    let at: Vec<u32> = (0..n).flat_map(|image| (image * h * w + count) as u32..((image + 1) * h * w) as u32).collect();
    picked(x, &at, [n, 1, rest, c], context)
}

pub(crate) fn behind_reference(count: usize, x: &Tensor) -> Result<Tensor> {
    let (n, h, w, c) = x.dims4()?;
    let rest = left(count, h * w)?;
    Ok(x.reshape((n, h * w, c))?.narrow(1, count, rest)?.reshape((n, 1, rest, c))?)
}

fn left(count: usize, tokens: usize) -> Result<usize> {
    let rest = tokens.checked_sub(count).filter(|rest| *rest > 0);
    rest.ok_or_else(|| Error::new(format!("an image of {tokens} tokens has none behind the first {count}")))
}
