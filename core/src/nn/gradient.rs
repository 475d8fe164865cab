//! Gradients of parameters, dense or of single rows of a table; and the store that backward passes add them to.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, PoisonError};

use candle_core::{Device, Tensor};

use super::array::Array;
use super::param::Param;
use crate::error::{Error, Result};
use crate::world::Collective;

/// The gradient of one parameter.
#[derive(Clone, Debug)]
pub enum Gradient {
    /// Of every value, in the parameter's shape.
    Dense(Array),
    /// Of some rows of a table; 0 in all other rows.
    Rows(RowGradient),
}

impl From<Tensor> for Gradient {
    fn from(whole: Tensor) -> Self {
        Gradient::Dense(whole.into())
    }
}

impl From<Array> for Gradient {
    fn from(whole: Array) -> Self {
        Gradient::Dense(whole)
    }
}

impl From<RowGradient> for Gradient {
    fn from(rows: RowGradient) -> Self {
        Gradient::Rows(rows)
    }
}

/// The gradient of those rows of a table that a step looked up.
#[derive(Clone, Debug)]
pub struct RowGradient {
    /// Row numbers, each once, ascending.
    ids: Vec<u32>,
    /// Their gradients, `(ids, width)`.
    values: Tensor,
}

impl RowGradient {
    /// Row i of `values` (n, width) is a gradient of the table's row `ids[i]`; gradients of the same row are added in order.
    ///
    /// # Errors
    /// `ids` and `values` have different numbers of rows.
    pub fn new(ids: &[u32], values: &Tensor) -> Result<RowGradient> {
        let (n, width) = values.dims2()?;
        if n != ids.len() {
            return Err(Error::new(format!("{} ids for {n} rows of gradients", ids.len())));
        }
        let mut slots = BTreeMap::new();
        ids.iter().for_each(|&id| *slots.entry(id).or_insert(0u32) = 0);
        slots.values_mut().enumerate().for_each(|(at, slot)| *slot = at as u32);
        let slot: Vec<u32> = ids.iter().map(|id| slots[id]).collect();
        let sum = Tensor::zeros((slots.len(), width), values.dtype(), values.device())?;
        let values =
            if n == 0 { sum } else { sum.index_add(&Tensor::from_vec(slot, n, values.device())?, &values.contiguous()?, 0)? };
        Ok(RowGradient { ids: slots.into_keys().collect(), values })
    }

    /// The gradients `values` (n, width) of the rows `ids`, each once and ascending.
    ///
    /// # Errors
    /// `ids` and `values` have different numbers of rows, or the ids are not ascending.
    pub fn ascending(ids: Vec<u32>, values: Tensor) -> Result<RowGradient> {
        let (n, _) = values.dims2()?;
        if n != ids.len() || !ids.is_sorted_by(|a, b| a < b) {
            return Err(Error::new(format!("{} ids, each once and ascending, for {n} rows of gradients", ids.len())));
        }
        Ok(RowGradient { ids, values })
    }

    /// The row numbers, each once, ascending.
    pub fn ids(&self) -> &[u32] {
        &self.ids
    }

    /// Their gradients, `(ids, width)`.
    pub fn values(&self) -> &Tensor {
        &self.values
    }

    /// The gradient of the whole table, (`rows`, width).
    ///
    /// # Errors
    /// The table has no such row.
    pub fn dense(&self, rows: usize) -> Result<Tensor> {
        if self.ids.last().is_some_and(|&id| id as usize >= rows) {
            return Err(Error::new(format!("a gradient of row {} for a table of {rows}", self.ids[self.ids.len() - 1])));
        }
        let whole = Tensor::zeros((rows, self.values.dim(1)?), self.values.dtype(), self.values.device())?;
        if self.ids.is_empty() {
            return Ok(whole);
        }
        let ids = Tensor::from_slice(&self.ids, self.ids.len(), self.values.device())?;
        Ok(whole.index_add(&ids, &self.values, 0)?)
    }
}

impl Gradient {
    /// The sum of two gradients of one parameter.
    ///
    /// # Errors
    /// Their shapes differ.
    pub fn plus(self, more: Gradient) -> Result<Gradient> {
        Ok(match (self, more) {
            (Gradient::Dense(a), Gradient::Dense(b)) => a.plus(&b)?.into(),
            (Gradient::Dense(a), Gradient::Rows(b)) => {
                let b = a.place(&b.dense(a.dims()[0])?)?;
                a.plus(&b)?.into()
            }
            (Gradient::Rows(a), Gradient::Dense(b)) => b.place(&a.dense(b.dims()[0])?)?.plus(&b)?.into(),
            (Gradient::Rows(a), Gradient::Rows(b)) => {
                Gradient::Rows(RowGradient::new(&[a.ids, b.ids].concat(), &Tensor::cat(&[a.values, b.values], 0)?)?)
            }
        })
    }

    /// The gradient in the parameter's shape `dims`, on the host.
    ///
    /// # Errors
    /// It has another shape.
    pub fn dense(&self, dims: &[usize]) -> Result<Tensor> {
        let whole = match self {
            Gradient::Dense(whole) => whole.tensor()?,
            Gradient::Rows(rows) => rows.dense(*dims.first().unwrap_or(&0))?,
        };
        if whole.dims() != dims {
            return Err(Error::new(format!("a gradient of shape {:?} for {dims:?}", whole.dims())));
        }
        Ok(whole)
    }

    /// The gradient in a parameter's shape, on the device of its `values`.
    ///
    /// # Errors
    /// It has another shape.
    pub(crate) fn beside(&self, values: &Array) -> Result<Array> {
        match self {
            Gradient::Dense(whole) if whole.dims() == values.dims() => Ok(whole.clone()),
            _ => values.place(&self.dense(values.dims())?),
        }
    }

    /// The sum over all ranks, in rank order; ranks may have used different rows. Ranks exchange values through host memory.
    ///
    /// # Errors
    /// An error of the communication.
    pub fn over(self, world: &dyn Collective) -> Result<Gradient> {
        Ok(match self {
            Gradient::Dense(own) => own.place(&world.sum(&own.tensor()?)?)?.into(),
            Gradient::Rows(own) => {
                let ids = Tensor::from_slice(&own.ids, (own.ids.len(), 1), &Device::Cpu)?;
                let ids = world.gather(&ids)?.rows.flatten_all()?.to_vec1::<u32>()?;
                Gradient::Rows(RowGradient::new(&ids, &world.gather(&own.values)?.rows)?)
            }
        })
    }
}

/// The store that backward passes add the gradients of parameters to. Clones share it.
#[derive(Clone, Default)]
pub struct GradientStore(Arc<Mutex<HashMap<String, Gradient>>>);

impl GradientStore {
    /// Adds a gradient to the sum so far; a parameter may be used several times.
    ///
    /// # Errors
    /// The shapes differ.
    pub fn add(&self, param: &Param, gradient: impl Into<Gradient>) -> Result<()> {
        let gradient = gradient.into();
        let mut map = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let sum = match map.remove(param.name()) {
            Some(before) => before.plus(gradient)?,
            None => gradient,
        };
        map.insert(param.name().to_string(), sum);
        Ok(())
    }

    /// Whether `other` is a clone of this store.
    pub(crate) fn is(&self, other: &GradientStore) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }

    /// Takes all gradients out, by parameter name.
    pub fn drain(&self) -> HashMap<String, Gradient> {
        std::mem::take(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

#[cfg(test)]
mod tests {
    use candle_core::DType;

    use super::*;

    fn rows(ids: &[u32], values: &[f64]) -> RowGradient {
        let tensor = Tensor::from_slice(values, (ids.len(), values.len() / ids.len().max(1)), &Device::Cpu).unwrap();
        RowGradient::new(ids, &tensor).unwrap()
    }

    #[test]
    fn rows_are_a_dense_gradient_with_zeros_elsewhere() {
        let met = rows(&[3, 0, 3], &[1.0, 2.0, 3.0, 4.0, 5.0, 6.0]);
        assert_eq!(met.ids(), [0, 3]);
        assert_eq!(met.dense(4).unwrap().to_vec2::<f64>().unwrap(), [[3.0, 4.0], [0.0; 2], [0.0; 2], [6.0, 8.0]]);
        assert!(met.dense(3).is_err());
        let more = rows(&[1, 3], &[10.0, 20.0, 30.0, 40.0]);
        let dense = |g: &Gradient| g.dense(&[4, 2]).unwrap().to_vec2::<f64>().unwrap();
        let both = Gradient::Rows(met.clone()).plus(Gradient::Rows(more.clone())).unwrap();
        assert_eq!(dense(&both), [[3.0, 4.0], [10.0, 20.0], [0.0; 2], [36.0, 48.0]]);
        for mixed in [
            Gradient::Rows(met.clone()).plus(more.dense(4).unwrap().into()),
            Gradient::from(met.dense(4).unwrap()).plus(Gradient::Rows(more)),
        ] {
            assert_eq!(dense(&mixed.unwrap()), dense(&both));
        }
        assert!(RowGradient::new(&[1], &Tensor::zeros((2, 2), DType::F64, &Device::Cpu).unwrap()).is_err());
        let none = RowGradient::new(&[], &Tensor::zeros((0, 2), DType::F64, &Device::Cpu).unwrap()).unwrap();
        assert_eq!(none.dense(2).unwrap().to_vec2::<f64>().unwrap(), [[0.0; 2]; 2]);
    }

    #[test]
    fn ranks_add_rows_that_others_did_not_meet() {
        use crate::objective::testing::ranks;
        let of = |rank: usize| match rank {
            0 => rows(&[4, 1], &[1.0, 2.0, 3.0, 4.0]),
            _ => rows(&[0, 4, 2], &[10.0, 20.0, 30.0, 40.0, 50.0, 60.0]),
        };
        let alone = Gradient::Rows(of(0)).plus(Gradient::Rows(of(1))).unwrap();
        for found in ranks(2, |world| Gradient::Rows(of(world.rank())).over(world).unwrap()) {
            let Gradient::Rows(rows) = &found else { panic!("rows stay rows") };
            assert_eq!(rows.ids(), [0, 1, 2, 4]);
            let dense = |g: &Gradient| g.dense(&[5, 2]).unwrap().to_vec2::<f64>().unwrap();
            assert_eq!(dense(&found), dense(&alone));
        }
    }
}
