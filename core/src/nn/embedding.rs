//! Embedding tables: rows looked up by id.

use std::sync::Arc;

use candle_core::Tensor;
use ctk_kernels::{Device, Groups, Map, Number, Real};

use super::flow::{Context, Forward, SharedMap};
use super::tensors;
use crate::error::{Error, Result};
use crate::nn::gradient::RowGradient;
use crate::nn::params::{Init, Param, ParamKind, Scope};

/// An embedding table: `(tokens,)` ids to `(tokens, width)` values.
#[derive(Clone)]
pub struct Embedding {
    weight: Arc<Param>,
}

impl Embedding {
    /// Declares `weight`, `(rows, width)`, in the scope.
    pub fn new([rows, width]: [usize; 2], init: Init, mut scope: Scope) -> Self {
        Embedding { weight: scope.param("weight", (rows, width), ParamKind::Embedding, init) }
    }

    pub(crate) fn params(&self, into: &mut Vec<Arc<Param>>) {
        into.push(self.weight.clone());
    }

    /// The error of a chain that has a table not as its first layer, or that is given no ids.
    pub(crate) fn misplaced(&self) -> Error {
        Error::new("a table is the first layer of a network that reads ids").at(self.weight.name())
    }

    fn check(&self, ids: &[u32]) -> Result<[usize; 2]> {
        let [rows, width] = [self.weight.dims()[0], self.weight.dims()[1]];
        match ids.iter().find(|&&id| id as usize >= rows) {
            Some(id) => Err(Error::new(format!("a table of {rows} rows has no row {id}")).at(self.weight.name())),
            None => Ok([rows, width]),
        }
    }

    /// The mean of each text's rows, `(texts, width)`: this layer and a mean over all tokens as one. The backward pass ends here.
    pub(crate) fn means<D: Device, T: Number>(&self, ids: &[u32], context: &Context<D>) -> Forward<D, T> {
        let ([_, width], device) = (self.check(ids)?, &context.device);
        let rows = &context.behaviour.rows;
        let Some(offsets) = rows.offsets().filter(|_| rows.covers(ids.len(), 1)) else {
            return Err(Error::new(format!("{} tokens are not those of {} texts", ids.len(), rows.len())));
        };
        let (there, ends) = (device.vector(ids), device.vector(offsets));
        let mut y = Map::new([rows.len(), 1, 1, width], device);
        self.weight.view_rows(ids, device, |table| {
            device.gather_means(table, width, device.read(&there), device.read(&ends), y.data_mut());
        })?;
        let (weight, own, ids) = (self.weight.clone(), context.clone(), ids.to_vec());
        let back = context.back(move |dy: SharedMap<D, T>, _| {
            let device = dy.device();
            let groups = Groups::new(&ids);
            let (order, starts) = (device.vector(&groups.order), device.vector(&groups.starts));
            let sums = device.sum_shares(dy.data(), dy.c, device.read(&ends), device.read(&order), device.read(&starts));
            own.store.add(&weight, rows_of(groups.ids, device.host(sums), dy.c)?)?;
            Ok(None)
        });
        Ok((Arc::new(y), back))
    }

    /// The rows as maps of one pixel. The backward pass ends here.
    pub(crate) fn forward<D: Device, T: Number>(&self, ids: &[u32], context: &Context<D>) -> Forward<D, T> {
        let ([_, width], device) = (self.check(ids)?, &context.device);
        let there = device.vector(ids);
        let mut y = Map::new([ids.len(), 1, 1, width], device);
        self.weight.view_rows(ids, device, |table| device.gather(table, width, device.read(&there), y.data_mut()))?;
        let (weight, own, ids) = (self.weight.clone(), context.clone(), ids.to_vec());
        let back = context.back(move |dy, _| {
            own.store.add(&weight, row_gradient(&ids, &*dy)?)?;
            Ok(None)
        });
        Ok((Arc::new(y), back))
    }

    pub(crate) fn reference(&self, ids: &[u32]) -> Result<Tensor> {
        let [_, width] = self.check(ids)?;
        let table = self.weight.var().as_tensor();
        let ids = Tensor::new(ids, table.device())?;
        let count = ids.dims()[0];
        Ok(table.index_select(&ids, 0)?.reshape((count, 1, 1, width))?)
    }
}

/// The gradient of the rows `ids` of a table; rows that were looked up several times get the sum.
pub(crate) fn row_gradient<D: Device, T: Number>(ids: &[u32], dy: &Map<D, T>) -> Result<RowGradient> {
    let device = dy.device();
    let groups = Groups::new(ids);
    let (order, starts) = (device.vector(&groups.order), device.vector(&groups.starts));
    let sums = device.sum_groups(dy.data(), dy.c, device.read(&order), device.read(&starts));
    rows_of(groups.ids, device.host(sums), dy.c)
}

/// The gradient of the rows `ids`, each once and ascending, of `width` values.
fn rows_of<R: Real>(ids: Vec<u32>, values: Vec<R>, width: usize) -> Result<RowGradient> {
    let values = tensors::from_vec(values, (ids.len(), width))?;
    RowGradient::ascending(ids, values)
}
