//! A queue of keys from earlier batches, used as further negatives (He et al. 2020).

use candle_core::{DType, Device, Tensor};

use super::normalise;
use crate::error::{Error, Result};
use crate::store::checkpoint::{Reader, Writer};

const FILE: &str = "queue.safetensors";

/// A ring of the newest keys, each of length 1. Slots that have not been filled are not used.
pub struct Queue {
    keys: Tensor,
    next: usize,
    filled: usize,
}

impl Queue {
    /// An empty queue of `capacity` keys of `width` values.
    ///
    /// # Errors
    /// `capacity` or `width` is 0.
    pub fn new(capacity: usize, width: usize, dtype: DType) -> Result<Self> {
        if capacity == 0 || width == 0 {
            return Err(Error::usage(format!("a queue of {capacity} keys of {width} values holds nothing")));
        }
        Ok(Queue { keys: Tensor::zeros((capacity, width), dtype, &Device::Cpu)?, next: 0, filled: 0 })
    }

    /// The largest number of keys.
    pub fn capacity(&self) -> usize {
        self.keys.dims()[0]
    }

    /// The number of keys held.
    pub fn len(&self) -> usize {
        self.filled
    }

    /// Whether it holds no key.
    pub fn is_empty(&self) -> bool {
        self.filled == 0
    }

    /// The keys held, `(len, width)`, in the order of their slots; `None` if there are none. Shares memory with the queue.
    ///
    /// # Errors
    /// An error of candle.
    pub fn keys(&self) -> Result<Option<Tensor>> {
        Ok(if self.is_empty() { None } else { Some(self.keys.narrow(0, 0, self.filled)?) })
    }

    /// Replaces the oldest keys by the rows of `keys` (n, width), scaled to length 1.
    ///
    /// # Errors
    /// The keys have another width.
    pub fn enqueue(&mut self, keys: &Tensor) -> Result<()> {
        let (n, width) = keys.dims2()?;
        let capacity = self.capacity();
        if width != self.keys.dims()[1] {
            return Err(Error::new(format!("keys of {width} values for a queue of {}", self.keys.dims()[1])));
        }
        // Rows that would be overwritten at once are left out, but the position moves past them.
        let skipped = n.saturating_sub(capacity);
        let keys = normalise(&keys.detach().narrow(0, skipped, n - skipped)?)?.contiguous()?;
        self.next = (self.next + skipped) % capacity;
        let until_end = (n - skipped).min(capacity - self.next);
        for (from, count) in [(0, until_end), (until_end, n - skipped - until_end)] {
            if count > 0 {
                self.keys.slice_set(&keys.narrow(0, from, count)?.copy()?, 0, self.next)?;
                self.next = (self.next + count) % capacity;
            }
        }
        self.filled = (self.filled + n).min(capacity);
        Ok(())
    }

    /// Saves the whole queue.
    ///
    /// # Errors
    /// A file cannot be written.
    pub fn save(&self, writer: &mut Writer) -> Result<()> {
        let at = Tensor::new(&[self.next as i64, self.filled as i64], &Device::Cpu)?;
        writer.tensors(FILE, &[("keys".into(), self.keys.clone()), ("next_and_filled".into(), at)])
    }

    /// Restores what [`save`](Queue::save) wrote.
    ///
    /// # Errors
    /// A file cannot be read, or the queue has another shape.
    pub fn load(&mut self, reader: &Reader) -> Result<()> {
        let tensors = reader.tensors(FILE)?;
        let get = |name: &str| tensors.get(name).ok_or_else(|| Error::new(format!("the queue lacks `{name}`")).at(FILE));
        let keys = get("keys")?;
        if (keys.dims(), keys.dtype()) != (self.keys.dims(), self.keys.dtype()) {
            return Err(Error::new(format!("the saved queue is {:?}, the recipe's {:?}", keys.dims(), self.keys.dims())).at(FILE));
        }
        let at = get("next_and_filled")?.to_vec1::<i64>()?;
        let inside = |v: i64, end: usize| usize::try_from(v).ok().filter(|v| *v <= end);
        let capacity = self.capacity();
        match at[..] {
            [next, filled] if inside(next, capacity - 1).is_some() && inside(filled, capacity).is_some() => {
                (self.next, self.filled) = (next as usize, filled as usize);
            }
            _ => return Err(Error::new("the saved queue's positions are out of range").at(FILE)),
        }
        self.keys = keys.clone();
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::recipe::Recipe;
    use crate::store::checkpoint::{Checkpoint, Manifest};

    fn queue(capacity: usize) -> Queue {
        Queue::new(capacity, 2, DType::F64).unwrap()
    }

    fn axis(values: &[f64]) -> Tensor {
        // Directions that are told apart by their angle.
        let rows: Vec<f64> = values.iter().flat_map(|a| [3.0 * a.cos(), 3.0 * a.sin()]).collect();
        Tensor::from_vec(rows, (values.len(), 2), &Device::Cpu).unwrap()
    }

    fn angles(queue: &Queue) -> Vec<f64> {
        let rows = queue.keys().unwrap().map_or(vec![], |k| k.to_vec2::<f64>().unwrap());
        rows.iter()
            .inspect(|r| assert!((r[0].hypot(r[1]) - 1.0).abs() < 1e-12))
            .map(|r| (r[1].atan2(r[0]) * 1e9).round() / 1e9)
            .collect()
    }

    #[test]
    fn the_oldest_keys_leave_first() {
        let mut q = queue(5);
        assert!(q.is_empty() && q.keys().unwrap().is_none());
        q.enqueue(&axis(&[0.1, 0.2, 0.3])).unwrap();
        assert_eq!((angles(&q), q.len()), (vec![0.1, 0.2, 0.3], 3));
        q.enqueue(&axis(&[0.4, 0.5, 0.6])).unwrap();
        assert_eq!((angles(&q), q.len()), (vec![0.6, 0.2, 0.3, 0.4, 0.5], 5));
        q.enqueue(&axis(&[1.0, 1.1, 1.2, 1.3, 1.4, 1.5, 1.6])).unwrap();
        let mut all = angles(&q);
        all.sort_by(f64::total_cmp);
        assert_eq!(all, [1.2, 1.3, 1.4, 1.5, 1.6]);
        q.enqueue(&axis(&[2.0])).unwrap();
        assert!(!angles(&q).contains(&1.2), "the oldest of a batch larger than the queue leaves first");
        assert!(q.enqueue(&Tensor::zeros((1, 3), DType::F64, &Device::Cpu).unwrap()).is_err());
        assert!(Queue::new(0, 2, DType::F32).is_err());
    }

    #[test]
    fn a_saved_queue_goes_on_where_it_was() {
        let folder = tempfile::tempdir().unwrap();
        let mut q = queue(4);
        q.enqueue(&axis(&[0.1, 0.2, 0.3, 0.4, 0.5])).unwrap();
        let manifest = Manifest::new("test", 1, 0, &Recipe::new("a", ""));
        let saved = Checkpoint::write(folder.path(), manifest, |w| q.save(w)).unwrap();
        let mut other = queue(4);
        other.load(&saved.reader()).unwrap();
        for q in [&mut q, &mut other] {
            q.enqueue(&axis(&[0.6, 0.7])).unwrap();
        }
        assert_eq!((angles(&q), q.next), (angles(&other), other.next));
        assert!(queue(5).load(&saved.reader()).is_err());
    }
}
