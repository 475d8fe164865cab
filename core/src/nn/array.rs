//! Values that outlive a pass, in the memory of the device that runs the layers: parameters, their gradients, optimizer state.
//!
//! On the CPU an [`Array`] is a candle tensor and shares its memory. On any other device the values stay in the device's memory: a training
//! step changes them by the device's own operations, and they are copied to the host only to be saved or read.

use std::any::Any;
use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

use candle_core::{DType, Shape, Tensor};
use ctk_cuda::Cuda;
use ctk_kernels::{self as kernels, Cpu, Device as _, Real, Step};

use super::{tensors, whole};
use crate::device::Device;
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
    fn device(&self) -> Device;
    fn shape(&self) -> &Shape;
    fn dtype(&self) -> DType;
    fn download(&self) -> Result<Tensor>;
    fn upload(&self, from: &Tensor) -> Result<()>;
    fn place(&self, from: &Tensor) -> Result<Array>;
    fn zeros(&self) -> Result<Array>;
    fn linear(&self, factors: [f64; 3], d: &Array, x: &Array, y: &Array) -> Result<()>;
    fn steps(&self, all: &[Change]) -> Result<()>;
    fn norms(&self, all: &[Array]) -> Result<Vec<f64>>;
}

/// Values in the memory of `D`.
struct Held<D: kernels::Device, R: Real> {
    device: D,
    vector: RwLock<D::Vector<R>>,
    shape: Shape,
}

impl<D: kernels::Device, R: Real> Numbers for Held<D, R> {
    fn device(&self) -> Device {
        let cuda = (&self.device as &dyn Any).downcast_ref::<Cuda>().expect("no other device keeps arrays");
        Device::Cuda(cuda.clone())
    }

    fn shape(&self) -> &Shape {
        &self.shape
    }

    fn dtype(&self) -> DType {
        tensors::dtype::<R>()
    }

    fn download(&self) -> Result<Tensor> {
        let vector = self.read();
        whole(|| tensors::from_vec(self.device.download(self.device.read(&vector)), self.shape.clone()))
    }

    fn upload(&self, from: &Tensor) -> Result<()> {
        let mut vector = self.write();
        whole(|| tensors::read(from, |numbers: &[R]| self.device.upload(numbers, self.device.write(&mut vector))))
    }

    fn place(&self, from: &Tensor) -> Result<Array> {
        Array::on::<D, R>(&self.device, from)
    }

    fn zeros(&self) -> Result<Array> {
        whole(|| Ok(Array::of(&self.device, self.device.zeros::<R>(self.shape.elem_count()), self.shape.clone())))
    }

    fn linear(&self, factors: [f64; 3], d: &Array, x: &Array, y: &Array) -> Result<()> {
        whole(|| linear_on::<D, R>(&self.device, factors, d, x, y))
    }

    fn steps(&self, all: &[Change]) -> Result<()> {
        // All arrays are locked at once.
        let mut locked = Vec::with_capacity(all.len());
        for change in all {
            let mut states = Vec::with_capacity(change.state.len());
            for state in change.state {
                states.push(self.beside(state)?.write());
            }
            locked.push((self.beside(change.w)?.write(), states, self.beside(change.g)?.read()));
        }
        let changes = all.iter().zip(&mut locked).map(|(change, (w, states, g))| kernels::Change {
            step: change.step,
            w: self.device.write(w),
            state: states.iter_mut().map(|state| self.device.write(state)).collect(),
            g: self.device.read(g),
            scale: change.scale,
        });
        let changes = changes.collect();
        whole(|| {
            self.device.steps(changes);
            Ok(())
        })
    }

    fn norms(&self, all: &[Array]) -> Result<Vec<f64>> {
        let mut locked = Vec::with_capacity(all.len());
        for array in all {
            locked.push(self.beside(array)?.read());
        }
        let views: Vec<_> = locked.iter().map(|vector| self.device.read(vector)).collect();
        whole(|| Ok(self.device.norms(&views)))
    }
}

impl<D: kernels::Device, R: Real> Held<D, R> {
    fn read(&self) -> RwLockReadGuard<'_, D::Vector<R>> {
        self.vector.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn write(&self) -> RwLockWriteGuard<'_, D::Vector<R>> {
        self.vector.write().unwrap_or_else(PoisonError::into_inner)
    }

    /// The values of another array, which must be of the same kind.
    fn beside<'a>(&self, array: &'a Array) -> Result<&'a Held<D, R>> {
        match array.elsewhere() {
            Some(numbers) => held(&**numbers, &self.device),
            None => Err(Error::new(format!("{array:?} where {} wants values of its own", self.device.name()))),
        }
    }
}

/// A parameter, and the step of an optimizer that it takes.
pub(crate) struct Change<'a> {
    pub step: Step,
    /// The parameter.
    pub w: &'a Array,
    /// The states that the step names.
    pub state: &'a [Array],
    /// The gradient.
    pub g: &'a Array,
    /// The gradient's factor.
    pub scale: f64,
}

/// Takes the steps of some parameters in place: those of a device in a few launches. No two arrays may share memory.
///
/// # Errors
/// The arrays of a change differ in shape, type or device.
pub(crate) fn steps(all: Vec<Change>) -> Result<()> {
    for change in &all {
        change.w.like(&[change.g])?;
        change.state.iter().try_for_each(|state| change.w.like(&[state]))?;
    }
    let (here, there): (Vec<Change>, Vec<Change>) = all.into_iter().partition(|change| change.w.elsewhere().is_none());
    for change in here {
        match change.w.dtype() {
            DType::F32 => step_here::<f32>(&change)?,
            DType::F64 => step_here::<f64>(&change)?,
            other => return Err(strange(other)),
        }
    }
    match there.first().and_then(|change| change.w.elsewhere()) {
        Some(device) => device.steps(&there),
        None => Ok(()),
    }
}

fn step_here<R: Real>(change: &Change) -> Result<()> {
    let cpu = Cpu::default();
    let mut inner = Ok(());
    let step = |g: &[R], state: Vec<&mut [R]>, inner: &mut Result<()>| {
        let (step, scale) = (change.step, change.scale);
        *inner = change.w.change::<Cpu, R>(&cpu, |w| cpu.steps(vec![kernels::Change { step, w, state, g, scale }]));
    };
    change.g.view::<Cpu, R, _>(&cpu, |g| {
        let inner = &mut inner;
        match change.state {
            [] => {
                step(g, Vec::new(), inner);
                Ok(())
            }
            [first] => first.change::<Cpu, R>(&cpu, |first| step(g, vec![first], inner)),
            [first, second, ..] => {
                let mut nested = Ok(());
                first.change::<Cpu, R>(&cpu, |first| {
                    nested = second.change::<Cpu, R>(&cpu, |second| step(g, vec![first, second], inner));
                })?;
                nested
            }
        }
    })??;
    inner
}

/// ‖x‖₂ of each array in f64, summed in a fixed order.
///
/// # Errors
/// Arrays of different types or devices.
pub(crate) fn norms(all: &[Array]) -> Result<Vec<f64>> {
    let Some(first) = all.first() else { return Ok(Vec::new()) };
    if let Some(device) = first.elsewhere() {
        return device.norms(all);
    }
    let here = |array: &Array| match array.dtype() {
        DType::F32 => array.view::<Cpu, f32, _>(&Cpu::default(), |x| Cpu::default().norms(&[x])[0]),
        DType::F64 => array.view::<Cpu, f64, _>(&Cpu::default(), |x| Cpu::default().norms(&[x])[0]),
        other => Err(strange(other)),
    };
    all.iter().map(here).collect()
}

fn linear_on<D: kernels::Device, R: Real>(device: &D, factors: [f64; 3], d: &Array, x: &Array, y: &Array) -> Result<()> {
    both::<D, R, _>(device, x, y, |x, y| d.change::<D, R>(device, |d| device.linear(factors, d, x, y)))?
}

/// Gives access to two arrays, which may be the same one.
fn both<D: kernels::Device, R: Real, Out>(
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
    /// The values of `from`, of f32 or f64, in the memory of a CUDA device.
    pub(crate) fn on_cuda(cuda: &Cuda, from: &Tensor) -> Result<Array> {
        match from.dtype() {
            DType::F64 => Array::on::<_, f64>(cuda, from),
            _ => Array::on::<_, f32>(cuda, from),
        }
    }

    /// The values of `from` in the memory of `device`. On the CPU this is a candle tensor: see [`From`].
    fn on<D: kernels::Device, R: Real>(device: &D, from: &Tensor) -> Result<Array> {
        let vector = whole(|| tensors::read(from, |numbers: &[R]| device.vector(numbers)))?;
        Ok(Array::of(device, vector, from.shape().clone()))
    }

    fn of<D: kernels::Device, R: Real>(device: &D, vector: D::Vector<R>, shape: Shape) -> Array {
        Array(Home::Device(Arc::new(Held::<D, R> { device: device.clone(), vector: RwLock::new(vector), shape })))
    }

    /// A result of `device` as an array of the same shape on the same device.
    pub(crate) fn beside<D: kernels::Device, R: Real>(&self, device: &D, vector: D::Vector<R>) -> Result<Array> {
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

    /// Their device.
    pub fn device(&self) -> Device {
        match &self.0 {
            Home::Cpu(_) => Device::Cpu,
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
                self.linear([0.0, 1.0, 0.0], &from, &from)
            }
            Home::Device(numbers) => numbers.upload(from),
        }
    }

    /// These values in place: `factors[0]` of themselves, `factors[1]` of x and `factors[2]` of y, which must not share memory with them.
    ///
    /// # Errors
    /// The three differ in shape, type or device.
    pub(crate) fn linear(&self, factors: [f64; 3], x: &Array, y: &Array) -> Result<()> {
        self.like(&[x, y])?;
        match (&self.0, self.dtype()) {
            (Home::Device(numbers), _) => numbers.linear(factors, self, x, y),
            (Home::Cpu(_), DType::F32) => linear_on::<Cpu, f32>(&Cpu::default(), factors, self, x, y),
            (Home::Cpu(_), DType::F64) => linear_on::<Cpu, f64>(&Cpu::default(), factors, self, x, y),
            (Home::Cpu(_), other) => Err(strange(other)),
        }
    }

    /// The values of a device other than the CPU.
    fn elsewhere(&self) -> Option<&Arc<dyn Numbers>> {
        match &self.0 {
            Home::Cpu(_) => None,
            Home::Device(numbers) => Some(numbers),
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
                sum.linear([0.0, 1.0, 1.0], &self, more)?;
                Ok(sum)
            }
        }
    }

    /// Gives `device` read access to the values.
    ///
    /// # Errors
    /// Their type is not `R`, or they are in the memory of another device that is not the CPU.
    pub(crate) fn view<D: kernels::Device, R: Real, Out>(
        &self,
        device: &D,
        use_it: impl FnOnce(D::View<'_, R>) -> Out,
    ) -> Result<Out> {
        match &self.0 {
            Home::Cpu(tensor) => tensors::read(tensor, |numbers| device.lend(numbers, use_it)),
            Home::Device(numbers) => {
                let vector = held::<D, R>(&**numbers, device)?.read();
                Ok(use_it(device.read(&vector)))
            }
        }
    }

    /// Gives `device` write access to the values.
    ///
    /// # Errors
    /// As [`view`](Array::view).
    pub(crate) fn change<D: kernels::Device, R: Real>(&self, device: &D, change: impl FnOnce(D::ViewMut<'_, R>)) -> Result<()> {
        match &self.0 {
            Home::Cpu(tensor) => tensors::change(tensor, |numbers| device.lend_mut(numbers, change)),
            Home::Device(numbers) => {
                let mut vector = held::<D, R>(&**numbers, device)?.write();
                change(device.write(&mut vector));
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

fn held<'a, D: kernels::Device, R: Real>(numbers: &'a dyn Numbers, device: &D) -> Result<&'a Held<D, R>> {
    (numbers as &dyn Any).downcast_ref().ok_or_else(|| {
        let (there, here) = (numbers.device(), device.name());
        Error::new(format!("{:?} on {there} where {} wants {:?} of its own", numbers.dtype(), here, tensors::dtype::<R>()))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn emulated() -> Cuda {
        Cuda::new(ctk_cuda::Emulated::new(ctk_cuda::Limits::default()))
    }

    fn tensor(dtype: DType, n: usize) -> Tensor {
        Tensor::ones(n, dtype, &candle_core::Device::Cpu).unwrap()
    }

    fn array(dtype: DType, n: usize) -> Array {
        tensor(dtype, n).into()
    }

    #[test]
    fn other_types_shapes_and_devices_are_errors() {
        let update = |d: &Array, x: &Array| d.linear([1.0, 1.0, 1.0], x, x).map_err(|e| e.to_string());
        let f32s = || array(DType::F32, 2);
        assert!(update(&f32s(), &f32s()).is_ok());
        assert!(update(&array(DType::F16, 2), &array(DType::F16, 2)).unwrap_err().contains("F16"));
        assert!(update(&f32s(), &array(DType::F64, 2)).unwrap_err().contains("F64"));
        assert!(update(&f32s(), &array(DType::F32, 3)).is_err());
        let step = Step::Momentum(kernels::Momentum { velocity: [0.9, 1.0, 0.0], weight: [1.0, 0.0, -0.1] });
        let take = |w: &Array, v: Array, g: &Array| steps(vec![Change { step, w, state: &[v], g, scale: 1.0 }]);
        assert!(take(&f32s(), f32s(), &array(DType::F32, 3)).is_err() && take(&f32s(), array(DType::F64, 2), &f32s()).is_err());
        assert!(take(&f32s(), f32s(), &f32s()).is_ok());
        let there = Array::on_cuda(&emulated(), &tensor(DType::F32, 2)).unwrap();
        assert!(update(&f32s(), &there).unwrap_err().contains("emulated"));
        assert!(take(&there, there.zeros_like().unwrap(), &f32s()).unwrap_err().to_string().contains("emulated"));
        assert!(norms(&[there.clone(), f32s()]).unwrap_err().to_string().contains("emulated"));
        assert!(there.set(&tensor(DType::F64, 2)).is_err() && f32s().set(&tensor(DType::F32, 3)).is_err());
    }

    #[test]
    fn on_the_cpu_a_tensor_is_its_view() {
        let (array, tensor) = (array(DType::F64, 2), tensor(DType::F64, 2));
        let view = array.tensor().unwrap();
        array.linear([1.0, 0.5, 0.0], &tensor.clone().into(), &tensor.into()).unwrap();
        assert_eq!(view.to_vec1::<f64>().unwrap(), [1.5, 1.5]);
        assert_eq!(norms(&[array]).unwrap(), [(4.5f64).sqrt()]);
    }
}
