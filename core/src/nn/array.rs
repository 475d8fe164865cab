//! Values that outlive a pass, in the memory of the device that runs the layers: parameters, their gradients, optimizer state.
//!
//! On the CPU an [`Array`] is a candle tensor and shares its memory. On any other device the values stay in the device's memory: a training
//! step changes them by the device's own operations, and they are copied to the host only to be saved or read.

use std::any::Any;
use std::sync::{Arc, PoisonError, RwLock};

use candle_core::{DType, Shape, Tensor};
use ctk_kernels::{Cpu, Device, Momentum, Real, Update};

use super::{tensors, whole};
use crate::error::{Error, Result};

/// Values of one shape and type (f32 or f64) in a device's memory. Clones share them.
#[derive(Clone)]
pub struct Array(Home);

#[derive(Clone)]
enum Home {
    /// In the CPU's memory, as a candle tensor.
    Cpu(Tensor),
    /// In another device's memory.
    Device(Arc<dyn Numbers>),
}

impl From<Tensor> for Array {
    fn from(tensor: Tensor) -> Array {
        Array(Home::Cpu(tensor))
    }
}

impl std::fmt::Debug for Array {
    fn fmt(&self, f: &mut std::fmt::Formatter) -> std::fmt::Result {
        write!(f, "{:?} {:?} on {}", self.dtype(), self.dims(), self.device())
    }
}

/// Values of any device other than the CPU.
trait Numbers: Any + Send + Sync {
    fn device(&self) -> String;
    fn shape(&self) -> &Shape;
    fn dtype(&self) -> DType;
    fn download(&self) -> Result<Tensor>;
    fn upload(&self, from: &Tensor) -> Result<()>;
    fn place(&self, from: &Tensor) -> Result<Array>;
    fn zeros(&self) -> Result<Array>;
    fn update(&self, update: Update, d: &Array, x: &Array, y: &Array) -> Result<()>;
    fn momentum(&self, step: Momentum, w: &Array, v: &Array, g: &Array) -> Result<()>;
    fn norm(&self, x: &Array, y: &Array, scale: f64) -> Result<f64>;
}

/// Values in the memory of `D`.
struct Held<D: Device, R: Real> {
    device: D,
    vector: RwLock<D::Vector<R>>,
    shape: Shape,
}

impl<D: Device, R: Real> Numbers for Held<D, R> {
    fn device(&self) -> String {
        self.device.name()
    }

    fn shape(&self) -> &Shape {
        &self.shape
    }

    fn dtype(&self) -> DType {
        tensors::dtype::<R>()
    }

    fn download(&self) -> Result<Tensor> {
        let vector = self.vector.read().unwrap_or_else(PoisonError::into_inner);
        whole(|| tensors::from_vec(self.device.download(self.device.read(&vector)), self.shape.clone()))
    }

    fn upload(&self, from: &Tensor) -> Result<()> {
        let mut vector = self.vector.write().unwrap_or_else(PoisonError::into_inner);
        whole(|| tensors::read(from, |numbers: &[R]| self.device.upload(numbers, self.device.write(&mut vector))))
    }

    fn place(&self, from: &Tensor) -> Result<Array> {
        Array::on::<D, R>(&self.device, from)
    }

    fn zeros(&self) -> Result<Array> {
        whole(|| Ok(Array::of(&self.device, self.device.zeros::<R>(self.shape.elem_count()), self.shape.clone())))
    }

    fn update(&self, update: Update, d: &Array, x: &Array, y: &Array) -> Result<()> {
        whole(|| update_on::<D, R>(&self.device, update, d, x, y))
    }

    fn momentum(&self, step: Momentum, w: &Array, v: &Array, g: &Array) -> Result<()> {
        whole(|| momentum_on::<D, R>(&self.device, step, w, v, g))
    }

    fn norm(&self, x: &Array, y: &Array, scale: f64) -> Result<f64> {
        whole(|| norm_on::<D, R>(&self.device, x, y, scale))
    }
}

fn update_on<D: Device, R: Real>(device: &D, update: Update, d: &Array, x: &Array, y: &Array) -> Result<()> {
    both::<D, R, _>(device, x, y, |x, y| d.change::<D, R>(device, |d| device.update(update, d, x, y)))?
}

fn momentum_on<D: Device, R: Real>(device: &D, step: Momentum, w: &Array, v: &Array, g: &Array) -> Result<()> {
    g.view::<D, R, _>(device, |g| {
        let mut inner = Ok(());
        v.change::<D, R>(device, |v| inner = w.change::<D, R>(device, |w| device.momentum(step, w, v, g)))?;
        inner
    })?
}

fn norm_on<D: Device, R: Real>(device: &D, x: &Array, y: &Array, scale: f64) -> Result<f64> {
    both::<D, R, _>(device, x, y, |x, y| device.norm(x, y, scale))
}

/// Gives access to two arrays, which may be the same one.
fn both<D: Device, R: Real, Out>(
    device: &D,
    x: &Array,
    y: &Array,
    use_them: impl FnOnce(D::View<'_, R>, D::View<'_, R>) -> Out,
) -> Result<Out> {
    match (&x.0, &y.0) {
        (Home::Device(one), Home::Device(other)) if Arc::ptr_eq(one, other) => x.view::<D, R, _>(device, |x| use_them(x, x)),
        _ => x.view::<D, R, _>(device, |x| y.view::<D, R, _>(device, |y| use_them(x, y)))?,
    }
}

impl Array {
    /// The values of `from` in the memory of `device`. On the CPU this is a candle tensor: see [`From`].
    pub(crate) fn on<D: Device, R: Real>(device: &D, from: &Tensor) -> Result<Array> {
        let vector = whole(|| tensors::read(from, |numbers: &[R]| device.vector(numbers)))?;
        Ok(Array::of(device, vector, from.shape().clone()))
    }

    fn of<D: Device, R: Real>(device: &D, vector: D::Vector<R>, shape: Shape) -> Array {
        Array(Home::Device(Arc::new(Held::<D, R> { device: device.clone(), vector: RwLock::new(vector), shape })))
    }

    /// A result of `device` as an array of the same shape on the same device.
    pub(crate) fn beside<D: Device, R: Real>(&self, device: &D, vector: D::Vector<R>) -> Result<Array> {
        Ok(match &self.0 {
            Home::Cpu(tensor) => Array::from(tensors::from_vec(device.host(vector), tensor.shape())?),
            Home::Device(numbers) => Array::of(device, vector, numbers.shape().clone()),
        })
    }

    /// The values of `from`, of any shape, on the same device as these.
    pub(crate) fn place(&self, from: &Tensor) -> Result<Array> {
        match &self.0 {
            Home::Cpu(_) => Ok(Array::from(from.clone())),
            Home::Device(numbers) => numbers.place(from),
        }
    }

    /// Dimensions, slowest first.
    pub fn dims(&self) -> &[usize] {
        match &self.0 {
            Home::Cpu(tensor) => tensor.dims(),
            Home::Device(numbers) => numbers.shape().dims(),
        }
    }

    /// The type of the values.
    pub fn dtype(&self) -> DType {
        match &self.0 {
            Home::Cpu(tensor) => tensor.dtype(),
            Home::Device(numbers) => numbers.dtype(),
        }
    }

    /// The device's name.
    pub fn device(&self) -> String {
        match &self.0 {
            Home::Cpu(_) => Cpu::default().name(),
            Home::Device(numbers) => numbers.device(),
        }
    }

    /// The values as a tensor: on the CPU it shares their memory, from another device it is a copy.
    ///
    /// # Errors
    /// An error of candle.
    pub fn tensor(&self) -> Result<Tensor> {
        match &self.0 {
            Home::Cpu(tensor) => Ok(tensor.clone()),
            Home::Device(numbers) => numbers.download(),
        }
    }

    /// Zeros of the same shape and type, on the same device.
    ///
    /// # Errors
    /// An error of candle.
    pub fn zeros_like(&self) -> Result<Array> {
        match &self.0 {
            Home::Cpu(tensor) => Ok(Array::from(tensor.zeros_like()?)),
            Home::Device(numbers) => numbers.zeros(),
        }
    }

    /// Copies the values of `from` in place.
    ///
    /// # Errors
    /// Shape or type differ.
    pub fn set(&self, from: &Tensor) -> Result<()> {
        if (from.dims(), from.dtype()) != (self.dims(), self.dtype()) {
            return Err(Error::new(format!("{:?} {:?} cannot become {self:?}", from.dtype(), from.dims())));
        }
        match &self.0 {
            Home::Cpu(_) => {
                let from = Array::from(from.clone());
                self.update(Update::Linear(0.0, 1.0, 0.0), &from, &from)
            }
            Home::Device(numbers) => numbers.upload(from),
        }
    }

    /// Updates the values in place, from themselves, `x` and `y`, which must not share memory with them.
    ///
    /// # Errors
    /// The three differ in shape, type or device.
    pub(crate) fn update(&self, update: Update, x: &Array, y: &Array) -> Result<()> {
        self.like(&[x, y])?;
        match (&self.0, self.dtype()) {
            (Home::Device(numbers), _) => numbers.update(update, self, x, y),
            (Home::Cpu(_), DType::F32) => update_on::<Cpu, f32>(&Cpu::default(), update, self, x, y),
            (Home::Cpu(_), DType::F64) => update_on::<Cpu, f64>(&Cpu::default(), update, self, x, y),
            (Home::Cpu(_), other) => Err(strange(other)),
        }
    }

    /// Updates these weights and their velocity `v` with the gradient `g`. No two may share memory.
    ///
    /// # Errors
    /// The three differ in shape, type or device.
    pub(crate) fn momentum(&self, step: Momentum, v: &Array, g: &Array) -> Result<()> {
        self.like(&[v, g])?;
        match (&self.0, self.dtype()) {
            (Home::Device(numbers), _) => numbers.momentum(step, self, v, g),
            (Home::Cpu(_), DType::F32) => momentum_on::<Cpu, f32>(&Cpu::default(), step, self, v, g),
            (Home::Cpu(_), DType::F64) => momentum_on::<Cpu, f64>(&Cpu::default(), step, self, v, g),
            (Home::Cpu(_), other) => Err(strange(other)),
        }
    }

    /// ‖x + y·`scale`‖₂ in f64, summed in a fixed order.
    ///
    /// # Errors
    /// The two differ in shape, type or device.
    pub(crate) fn norm(&self, y: &Array, scale: f64) -> Result<f64> {
        self.like(&[y])?;
        match (&self.0, self.dtype()) {
            (Home::Device(numbers), _) => numbers.norm(self, y, scale),
            (Home::Cpu(_), DType::F32) => norm_on::<Cpu, f32>(&Cpu::default(), self, y, scale),
            (Home::Cpu(_), DType::F64) => norm_on::<Cpu, f64>(&Cpu::default(), self, y, scale),
            (Home::Cpu(_), other) => Err(strange(other)),
        }
    }

    /// The sum of two arrays.
    ///
    /// # Errors
    /// They differ in shape, type or device.
    pub(crate) fn plus(self, more: &Array) -> Result<Array> {
        match (&self.0, &more.0) {
            (Home::Cpu(a), Home::Cpu(b)) => Ok(Array::from((a + b)?)),
            _ => {
                let sum = self.zeros_like()?;
                sum.update(Update::Linear(0.0, 1.0, 1.0), &self, more)?;
                Ok(sum)
            }
        }
    }

    /// Gives `device` read access to the values.
    ///
    /// # Errors
    /// Their type is not `R`, or they are in the memory of another device that is not the CPU.
    pub(crate) fn view<D: Device, R: Real, Out>(&self, device: &D, use_it: impl FnOnce(D::View<'_, R>) -> Out) -> Result<Out> {
        match &self.0 {
            Home::Cpu(tensor) => tensors::read(tensor, |numbers| device.lend(numbers, use_it)),
            Home::Device(numbers) => {
                let vector = &held::<D, R>(&**numbers, device)?.vector;
                Ok(use_it(device.read(&vector.read().unwrap_or_else(PoisonError::into_inner))))
            }
        }
    }

    /// Gives `device` write access to the values.
    ///
    /// # Errors
    /// As [`view`](Array::view).
    pub(crate) fn change<D: Device, R: Real>(&self, device: &D, change: impl FnOnce(D::ViewMut<'_, R>)) -> Result<()> {
        match &self.0 {
            Home::Cpu(tensor) => tensors::change(tensor, |numbers| device.lend_mut(numbers, change)),
            Home::Device(numbers) => {
                let vector = &held::<D, R>(&**numbers, device)?.vector;
                change(device.write(&mut vector.write().unwrap_or_else(PoisonError::into_inner)));
                Ok(())
            }
        }
    }

    fn like(&self, others: &[&Array]) -> Result<()> {
        match others.iter().find(|other| (other.dims(), other.dtype()) != (self.dims(), self.dtype())) {
            Some(other) => Err(Error::new(format!("an update of {self:?} by {other:?}: shape and type must be the same"))),
            None => Ok(()),
        }
    }
}

fn strange(dtype: DType) -> Error {
    Error::new(format!("an optimizer updates f32 or f64, not {dtype:?}"))
}

fn held<'a, D: Device, R: Real>(numbers: &'a dyn Numbers, device: &D) -> Result<&'a Held<D, R>> {
    (numbers as &dyn Any).downcast_ref().ok_or_else(|| {
        let (there, here) = (numbers.device(), device.name());
        Error::new(format!("{:?} on {there} where {} wants {:?} of its own", numbers.dtype(), here, tensors::dtype::<R>()))
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::nn::emulated::Emulated;

    fn tensor(dtype: DType, n: usize) -> Tensor {
        Tensor::ones(n, dtype, &candle_core::Device::Cpu).unwrap()
    }

    fn array(dtype: DType, n: usize) -> Array {
        tensor(dtype, n).into()
    }

    #[test]
    fn other_types_shapes_and_devices_are_errors() {
        let update = |d: &Array, x: &Array| d.update(Update::Linear(1.0, 1.0, 1.0), x, x).map_err(|e| e.to_string());
        let f32s = || array(DType::F32, 2);
        assert!(update(&f32s(), &f32s()).is_ok());
        assert!(update(&array(DType::F16, 2), &array(DType::F16, 2)).unwrap_err().contains("F16"));
        assert!(update(&f32s(), &array(DType::F64, 2)).unwrap_err().contains("F64"));
        assert!(update(&f32s(), &array(DType::F32, 3)).is_err());
        let step = Momentum { velocity: [0.9, 1.0, 0.0], weight: [1.0, 0.0, -0.1] };
        assert!(f32s().momentum(step, &f32s(), &array(DType::F32, 3)).is_err());
        assert!(f32s().momentum(step, &f32s(), &f32s()).is_ok());
        let there = Array::on::<_, f32>(&Emulated::default(), &tensor(DType::F32, 2)).unwrap();
        assert!(update(&f32s(), &there).unwrap_err().contains("emulated"));
        assert!(there.set(&tensor(DType::F64, 2)).is_err() && f32s().set(&tensor(DType::F32, 3)).is_err());
    }

    #[test]
    fn on_the_cpu_a_tensor_is_its_view() {
        let (array, tensor) = (array(DType::F64, 2), tensor(DType::F64, 2));
        let view = array.tensor().unwrap();
        array.update(Update::Linear(1.0, 0.5, 0.0), &tensor.clone().into(), &tensor.into()).unwrap();
        assert_eq!(view.to_vec1::<f64>().unwrap(), [1.5, 1.5]);
        assert_eq!(array.norm(&array, 1.0).unwrap(), (18f64).sqrt());
    }
}
