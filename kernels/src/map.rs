//! Feature maps in a device's memory.

use std::sync::Arc;

use crate::device::Device;
use crate::number::Number;

/// Feature maps `(n, h, w, c)` with contiguous channels; features and rows of tokens have h = w = 1.
pub struct Map<D: Device, T: Number> {
    /// Images, or rows.
    pub n: usize,
    /// Height.
    pub h: usize,
    /// Width.
    pub w: usize,
    /// Channels.
    pub c: usize,
    buffer: D::Buffer<T>,
    device: D,
}

impl<D: Device, T: Number> Map<D, T> {
    /// A map whose values must all be written before they are read.
    pub fn new([n, h, w, c]: [usize; 4], device: &D) -> Self {
        Map { n, h, w, c, buffer: device.allocate(n * h * w * c), device: device.clone() }
    }

    /// A map with these host values.
    ///
    /// # Panics
    /// If their number does not fit the shape.
    pub fn store(shape: [usize; 4], numbers: &[T::Real], device: &D) -> Self {
        assert_eq!(shape.iter().product::<usize>(), numbers.len(), "a map's numbers");
        let mut map = Map::new(shape, device);
        device.store(numbers, map.data_mut());
        map
    }

    /// Copies the values to the host.
    pub fn load(&self) -> Vec<T::Real> {
        self.device.load(self.data())
    }

    /// The same map for changes in place; it is copied only if it is shared.
    pub fn own(shared: Arc<Self>) -> Self {
        Arc::try_unwrap(shared).unwrap_or_else(|shared| {
            let mut copy = Map::new(shared.shape(), &shared.device);
            shared.device.copy(shared.data(), copy.data_mut());
            copy
        })
    }

    /// The same values with other dimensions.
    ///
    /// # Panics
    /// If the number of values differs.
    pub fn shaped(self, [n, h, w, c]: [usize; 4]) -> Self {
        assert_eq!(n * h * w * c, self.rows() * self.c, "a map's numbers");
        Map { n, h, w, c, ..self }
    }

    /// Dimensions.
    pub fn shape(&self) -> [usize; 4] {
        [self.n, self.h, self.w, self.c]
    }

    /// Number of pixels of all images.
    pub fn rows(&self) -> usize {
        self.n * self.h * self.w
    }

    /// The values, for reading.
    pub fn data(&self) -> D::View<'_, T> {
        self.device.view(&self.buffer)
    }

    /// The values, for writing.
    pub fn data_mut(&mut self) -> D::ViewMut<'_, T> {
        self.device.view_mut(&mut self.buffer)
    }

    /// The device.
    pub fn device(&self) -> &D {
        &self.device
    }
}
