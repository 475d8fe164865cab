//! The headers of a JPEG up to its first scan: size, orientation, colours; and which decoder decodes it correctly.

use std::borrow::Cow;

use ctk_core::{Error, Result};
use image::metadata::Orientation;

use super::super::{BROKEN, Header, broken};

/// The headers before the first scan.
pub(super) struct Frame {
    width: u16,
    height: u16,
    orientation: Orientation,
    progressive: bool,
    /// The id of every component.
    ids: Vec<u8>,
    /// Horizontal and vertical sampling factors of every component.
    sampling: Vec<[u8; 2]>,
    jfif: bool,
    /// The colour transform that Adobe's segment states.
    adobe: Option<u8>,
    /// Number of units between restart markers; 0 if there are none.
    restart: usize,
    /// Number of components in the first scan.
    scanned: usize,
    /// Position of the first scan's header.
    scan: usize,
}

/// Which decoders decode the file correctly.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Right {
    pub fast: bool,
    /// Whether the fast decoder reports missing data.
    pub tells: bool,
    pub slow: bool,
}

/// A marker segment: its code, the position of its marker, and its content.
pub(super) struct Segment<'a> {
    pub code: u8,
    pub at: usize,
    pub body: &'a [u8],
}

/// The segments from `at` on; the last one is the end marker. Stray bytes between segments are skipped, as every decoder does. Ends at the
/// end of the bytes.
pub(super) fn segments(bytes: &[u8], mut at: usize) -> impl Iterator<Item = Segment<'_>> {
    std::iter::from_fn(move || {
        loop {
            match *bytes.get(at..at + 2)? {
                [0xFF, 0xD9] => {
                    let segment = Segment { code: 0xD9, at, body: &[] };
                    at = bytes.len();
                    return Some(segment);
                }
                [0xFF, 0x01 | 0xD0..=0xD8] => at += 2,
                [0xFF, code @ 0xC0..=0xFE] => {
                    let &[high, low] = bytes.get(at + 2..at + 4)? else { return None };
                    let length = usize::from(u16::from_be_bytes([high, low]));
                    let body = bytes.get(at + 4..at + 2 + length.max(2))?;
                    let segment = Segment { code, at, body };
                    at += 2 + length.max(2);
                    return Some(segment);
                }
                _ => at += 1,
            }
        }
    })
}

impl Frame {
    /// Reads the headers.
    ///
    /// # Errors
    /// There is no frame or no scan; or the frame is of a kind that is not supported, which the error names.
    pub fn read(bytes: &[u8]) -> Result<Frame> {
        let (mut orientation, mut jfif, mut adobe, mut restart) = (None, false, None, 0);
        let mut frame: Option<Frame> = None;
        for Segment { code, at, body } in segments(bytes, 2) {
            match code {
                0xE0 => jfif |= body.starts_with(b"JFIF\0"),
                0xEE => adobe = adobe.or(body.strip_prefix(b"Adobe").and_then(|body| body.get(6)).copied()),
                0xE1 => {
                    let exif = body.strip_prefix(b"Exif\0\0");
                    orientation = orientation.or(exif.and_then(Orientation::from_exif_chunk));
                }
                0xDD => restart = body.first_chunk::<2>().map_or(0, |of| usize::from(u16::from_be_bytes(*of))),
                0xC0..=0xC2 if frame.is_none() => frame = Some(Frame::of(code, body)?),
                0xC3 | 0xC5..=0xC7 | 0xC9..=0xCB | 0xCD..=0xCF => return Err(unread(code)),
                0xDA => {
                    let frame = frame.ok_or_else(|| broken("it has no frame"))?;
                    let scanned = body.first().map_or(0, |&count| usize::from(count));
                    let orientation = orientation.unwrap_or(Orientation::NoTransforms);
                    return Ok(Frame { orientation, jfif, adobe, restart, scanned, scan: at, ..frame });
                }
                _ => {}
            }
        }
        Err(super::early())
    }

    fn of(code: u8, body: &[u8]) -> Result<Frame> {
        let [precision, h1, h0, w1, w0, count, components @ ..] = body else { return Err(broken("its frame is cut short")) };
        if *precision != 8 {
            let what = format!("this JPEG has {precision} bits a sample, and 8 are read");
            return Err(Error::new(what).hint("store it again as PNG of 16 bits"));
        }
        let components = components.as_chunks::<3>().0;
        let sampling: Vec<[u8; 2]> = components.iter().map(|[_, factors, _]| [factors >> 4, factors & 15]).collect();
        let (height, width) = (u16::from_be_bytes([*h1, *h0]), u16::from_be_bytes([*w1, *w0]));
        let sound = sampling.iter().flatten().all(|factor| (1..=4).contains(factor));
        if sampling.len() != usize::from(*count) || !matches!(count, 1 | 3 | 4) || !sound || width == 0 || height == 0 {
            return Err(broken("its frame says nothing that could be a picture"));
        }
        Ok(Frame {
            width,
            height,
            orientation: Orientation::NoTransforms,
            progressive: code == 0xC2,
            ids: components.iter().map(|[id, ..]| *id).collect(),
            sampling,
            jfif: false,
            adobe: None,
            restart: 0,
            scanned: 0,
            scan: 0,
        })
    }

    /// Size and orientation.
    ///
    /// # Errors
    /// The size is not allowed.
    pub fn header(&self) -> Result<Header> {
        let Frame { width, height, orientation, .. } = *self;
        Header { width: width.into(), height: height.into(), orientation, deep: false }.bounded()
    }

    /// Which decoders decode the file `bytes` correctly, as determined by `tests/jpegs.rs`.
    pub fn right(&self, bytes: &[u8]) -> Right {
        let luma = self.sampling[0];
        let coarser = |factors: &[u8; 2]| (0..2).all(|axis| factors[axis] != 3 && factors[axis] <= luma[axis]);
        let usual = self.sampling.iter().all(coarser);
        let together = self.scanned == self.sampling.len();
        if usual && together && !self.progressive {
            return Right { fast: true, tells: true, slow: true };
        }
        // The scans: the number of components in each, and their ids.
        let scans: Vec<&[u8]> =
            segments(bytes, self.scan).filter(|segment| segment.code == 0xDA).map(|segment| segment.body).collect();
        let apart = scans.iter().all(|scan| scan.first() == Some(&1)) && self.sampling.iter().all(|[_, down]| *down == 1);
        // The slow decoder miscounts the blocks of a scan of one component whose sampling is neither the finest nor the coarsest.
        let most = [0, 1].map(|axis| self.most(axis));
        let between = |id: u8| {
            let factors = self.ids.iter().position(|own| *own == id).map(|number| self.sampling[number]);
            factors.is_some_and(|factors| (0..2).any(|axis| factors[axis] > 1 && factors[axis] < most[axis]))
        };
        let miscounted = scans.iter().any(|scan| matches!(scan, [1, id, ..] if between(*id)));
        Right { fast: usual && (self.progressive || apart), tells: false, slow: !miscounted }
    }

    /// The largest sampling factor, horizontal (0) or vertical (1).
    fn most(&self, axis: usize) -> u8 {
        self.sampling.iter().map(|factors| factors[axis]).max().unwrap_or(1)
    }

    /// The file with its colour transform stated so clearly that all decoders agree, where headers contradict each other. It follows
    /// libjpeg's rule: JFIF takes precedence over Adobe's segment, and that over components called R, G, B.
    pub fn plain<'a>(&self, bytes: &'a [u8]) -> Cow<'a, [u8]> {
        let letters = self.ids == *b"RGB";
        let red = !self.jfif && self.adobe.map_or(letters, |transform| transform == 0);
        let plain = match self.adobe {
            Some(transform) => !self.jfif && !letters && transform <= 1 || red,
            None => !letters || red,
        };
        if plain || self.ids.len() != 3 {
            return Cow::Borrowed(bytes);
        }
        let new = if red { *b"RGB" } else { [1, 2, 3] };
        let mut out = Vec::with_capacity(bytes.len());
        let mut done = 0;
        for Segment { code, at, body } in segments(bytes, 2) {
            let end = at + 4 + body.len();
            let (first, step) = if code == 0xDA { (at + 5, 2) } else { (at + 10, 3) };
            match code {
                0xE0 | 0xEE => out.extend(&bytes[done..at]),
                0xC0..=0xC2 | 0xDA => {
                    let mut segment = bytes[at..end].to_vec();
                    let count = if code == 0xDA { body.first().map_or(0, |&count| usize::from(count)) } else { 3 };
                    for id in segment.iter_mut().skip(first - at).step_by(step).take(count) {
                        if let Some(number) = self.ids.iter().position(|own| own == id) {
                            *id = new[number];
                        }
                    }
                    out.extend(&bytes[done..at]);
                    out.extend(segment);
                }
                _ => continue,
            }
            done = end;
        }
        out.extend(&bytes[done..]);
        Cow::Owned(out)
    }

    /// The end marker after the first scan's header, and the number of restart markers before it.
    pub fn end(&self, bytes: &[u8]) -> Option<End> {
        let mut restarts = 0;
        // Segments have a length, so an end marker inside one (an EXIF thumbnail's) was skipped. Entropy-coded data escape every 0xFF, so
        // there the marker can only be the end itself.
        for at in memchr::memchr_iter(0xFF, &bytes[self.scan..]) {
            match bytes.get(self.scan + at + 1) {
                Some(0xD9) => return Some(End { at: self.scan + at, restarts }),
                Some(0xD0..=0xD7) => restarts += 1,
                _ => {}
            }
        }
        None
    }

    /// Whether this number of restart markers is complete for a single scan.
    pub fn restarted(&self, restarts: usize) -> bool {
        if self.restart == 0 {
            return true;
        }
        let side = |axis: usize| 8 * if self.sampling.len() == 1 { 1 } else { usize::from(self.most(axis)) };
        let units = usize::from(self.width).div_ceil(side(0)) * usize::from(self.height).div_ceil(side(1));
        restarts + 1 >= units.div_ceil(self.restart)
    }
}

/// The end of an image.
#[derive(Clone, Copy)]
pub(super) struct End {
    /// Position of the end marker.
    pub at: usize,
    /// Number of restart markers before it.
    pub restarts: usize,
}

/// The error for a frame that neither decoder supports.
fn unread(code: u8) -> Error {
    let kind = match code {
        0xC9.. => "with arithmetic coding",
        0xC3 => "without loss",
        _ => "in a hierarchy of frames",
    };
    Error::new(format!("this JPEG was stored {kind}, which is not read"))
        .hint(format!("{BROKEN}, as `convert in.jpg out.png` does"))
}
