//! The shapes of a convolution.

/// A convolution from n × h × w × c images to n × oh × ow × o, with a square kernel and zero padding.
#[derive(Clone, Copy, Debug)]
pub struct Geometry {
    /// Images.
    pub n: usize,
    /// Height of the input.
    pub h: usize,
    /// Width of the input.
    pub w: usize,
    /// Channels of the input.
    pub c: usize,
    /// Channels of the output.
    pub o: usize,
    /// Height of the output.
    pub oh: usize,
    /// Width of the output.
    pub ow: usize,
    /// The kernel's side.
    pub kernel: usize,
    /// Pixels from window to window.
    pub stride: usize,
    /// Zeros on every side.
    pub padding: usize,
}

impl Geometry {
    /// Number of output pixels.
    pub fn rows(&self) -> usize {
        self.n * self.oh * self.ow
    }
}
