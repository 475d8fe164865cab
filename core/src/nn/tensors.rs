//! Candle's tensors as memory: made from numbers without a copy, read and changed in place on the CPU, and copied into a device's buffer
//! (a `Map`). No other file reaches the memory of a tensor. A tensor of a bf16 network holds f32, because only feature maps and the factors
//! of products are bf16.

use std::cell::Cell;

use candle_core::{CpuStorage, DType, InplaceOp1, Layout, Shape, Storage, Tensor};
use ctk_kernels::{Device, Kind, Map, Number, Real};

use crate::error::{Error, Result};

/// Candle's name of a number type.
pub(crate) fn dtype<R: Real>() -> DType {
    match R::KIND {
        Kind::F64 => DType::F64,
        Kind::F32 | Kind::Bf16 => DType::F32,
    }
}

/// Numbers as a tensor on the CPU.
pub(crate) fn from_vec<R: Real>(numbers: Vec<R>, shape: impl Into<Shape>) -> Result<Tensor> {
    let (shape, device) = (shape.into(), &candle_core::Device::Cpu);
    Ok(match R::KIND {
        Kind::F64 => Tensor::from_vec(bytemuck::cast_vec::<R, f64>(numbers), shape, device)?,
        Kind::F32 | Kind::Bf16 => Tensor::from_vec(bytemuck::cast_vec::<R, f32>(numbers), shape, device)?,
    })
}

fn misfit<R: Real>() -> Error {
    Error::new(format!("a network that runs in {:?} got numbers of another type", dtype::<R>()))
}

fn slice<R: Real>(storage: &CpuStorage) -> Result<&[R]> {
    match storage {
        CpuStorage::F32(numbers) if R::KIND == Kind::F32 => Ok(bytemuck::cast_slice(numbers)),
        CpuStorage::F64(numbers) if R::KIND == Kind::F64 => Ok(bytemuck::cast_slice(numbers)),
        _ => Err(misfit::<R>()),
    }
}

/// Gives read access to a CPU tensor's values in order.
pub(crate) fn read<R: Real, Out>(x: &Tensor, use_it: impl FnOnce(&[R]) -> Out) -> Result<Out> {
    let x = x.contiguous()?;
    let (storage, layout) = x.storage_and_layout();
    let Storage::Cpu(storage) = &*storage else {
        return Err(Error::new(format!("a network on the CPU cannot read a tensor on {:?}", x.device().location())));
    };
    Ok(use_it(&slice(storage)?[layout.start_offset()..][..layout.shape().elem_count()]))
}

/// Gives write access to a CPU tensor's values in order.
pub(crate) fn change<R: Real>(x: &Tensor, change: impl FnOnce(&mut [R])) -> Result<()> {
    struct Change<F>(Cell<Option<F>>);
    impl<F: FnOnce(&mut CpuStorage, &Layout) -> Result<()>> InplaceOp1 for Change<F> {
        fn name(&self) -> &'static str {
            "change"
        }

        fn cpu_fwd(&self, storage: &mut CpuStorage, layout: &Layout) -> candle_core::Result<()> {
            match self.0.take() {
                Some(change) => Ok(change(storage, layout)?),
                None => Ok(()),
            }
        }
    }
    let in_place = |storage: &mut CpuStorage, layout: &Layout| {
        let Some((from, to)) = layout.contiguous_offsets() else {
            return Err(Error::new("numbers that change in place must lie side by side"));
        };
        let numbers: &mut [R] = match storage {
            CpuStorage::F32(numbers) if R::KIND == Kind::F32 => bytemuck::cast_slice_mut(numbers),
            CpuStorage::F64(numbers) if R::KIND == Kind::F64 => bytemuck::cast_slice_mut(numbers),
            _ => return Err(misfit::<R>()),
        };
        change(&mut numbers[from..to]);
        Ok(())
    };
    Ok(x.inplace_op1(&Change(Cell::new(Some(in_place))))?)
}

/// Copies a tensor, `(n, h, w, c)` or `(n, c)`, into a device's memory.
pub(crate) fn to_map<D: Device, T: Number>(x: &Tensor, device: &D) -> Result<Map<D, T>> {
    let shape = match *x.dims() {
        [n, c] => [n, 1, 1, c],
        _ => {
            let (n, h, w, c) = x.dims4()?;
            [n, h, w, c]
        }
    };
    read(x, |numbers: &[T::Real]| Map::store(shape, numbers, device))
}
