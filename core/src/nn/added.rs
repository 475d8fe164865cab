//! Rows of a table that are added to tokens by their places: learned positions, and the row of a token's type.

use std::sync::Arc;

use candle_core::Tensor;
use ctk_kernels::{Device, Map, Number};

use super::embedding::row_gradient;
use super::flow::{Context, Forward, SharedMap};
use crate::error::{Error, Result};
use crate::nn::params::{Init, Param, ParamKind, Scope};
use crate::nn::rows::Rows;

/// Which row of the table is added to a token.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Which {
    /// The row of the token's position in its text (of the pixel in its image), counted from this row on.
    From(usize),
    /// This row, to all of them.
    Always(usize),
}

/// x + a row of a table.
#[derive(Clone)]
pub struct AddedRow {
    weight: Arc<Param>,
    which: Which,
}

impl AddedRow {
    /// Declares `weight`, `(rows, width)`, of which row `first` is added to the first token of each text, and so on: learned positions
    /// (Devlin et al. 2019). RoBERTa's begin at row 2.
    pub fn by_position(rows: [usize; 2], first: usize, init: Init, scope: Scope) -> Self {
        AddedRow::new(rows, Which::From(first), init, scope)
    }

    /// Declares `weight`, `(rows, width)`, of which row `row` is added to every token: the type of all tokens where texts have one part.
    pub fn always(rows: [usize; 2], row: usize, init: Init, scope: Scope) -> Self {
        AddedRow::new(rows, Which::Always(row), init, scope)
    }

    fn new([rows, width]: [usize; 2], which: Which, init: Init, mut scope: Scope) -> Self {
        AddedRow { weight: scope.param("weight", (rows, width), ParamKind::Embedding, init), which }
    }

    pub(crate) fn params(&self, into: &mut Vec<Arc<Param>>) {
        into.push(self.weight.clone());
    }

    /// The number of the row that is added to each token.
    fn ids(&self, rows: &Rows, [n, h, w, c]: [usize; 4]) -> Result<Vec<u32>> {
        let [count, width] = [self.weight.dims()[0], self.weight.dims()[1]];
        if c != width || !rows.covers(n, h * w) {
            let what = format!("rows of {width} values cannot be added to {n} rows of {} positions of {c} channels", h * w);
            return Err(Error::new(what).at(self.weight.name()));
        }
        let ids: Vec<u32> = match self.which {
            Which::Always(row) => vec![row as u32; n * h * w],
            Which::From(first) => {
                let each = |row| (0..rows.tokens(row, h * w).len()).map(move |position| (first + position) as u32);
                (0..rows.len()).flat_map(each).collect()
            }
        };
        if ids.iter().any(|id| *id as usize >= count) {
            let longest = (0..rows.len()).map(|row| rows.tokens(row, h * w).len()).max().unwrap_or(0);
            let what = format!("a text of {longest} tokens for a table of {count} rows");
            return Err(Error::new(what).at(self.weight.name()).hint("cut texts to the length that the model was made for"));
        }
        Ok(ids)
    }

    pub(crate) fn forward<D: Device, T: Number>(&self, x: SharedMap<D, T>, context: &Context<D>) -> Forward<D, T> {
        let (shape, device) = (x.shape(), context.device.clone());
        let ids = self.ids(&context.behaviour.rows, shape)?;
        let there = device.vector(&ids);
        let mut added = Map::<D, T>::new(shape, &device);
        self.weight.view(&device, |table| device.gather(table, shape[3], device.read(&there), added.data_mut()))?;
        let mut y = Map::own(x);
        device.add(y.data_mut(), added.data());
        let (weight, own) = (self.weight.clone(), context.clone());
        let back = context.back(move |dy: SharedMap<D, T>, _| {
            own.store.add(&weight, row_gradient(&ids, &*dy)?)?;
            Ok(Some(dy))
        });
        Ok((Arc::new(y), back))
    }

    pub(crate) fn reference(&self, x: &Tensor, rows: &Rows) -> Result<Tensor> {
        let (n, h, w, c) = x.dims4()?;
        let ids = self.ids(rows, [n, h, w, c])?;
        let table = self.weight.var().as_tensor();
        let ids = Tensor::from_vec(ids, n * h * w, table.device())?;
        Ok((x + table.index_select(&ids, 0)?.reshape((n, h, w, c))?)?)
    }
}
