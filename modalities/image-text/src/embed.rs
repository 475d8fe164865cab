//! Rows of images and captions in the common space: what both towers make of them, scaled to length 1.

use ctk_core::data::dataset::Dataset;
use ctk_core::data::pair::HostBatch as _;
use ctk_core::eval::crossmodal;
use ctk_core::eval::{Features, normalise};
use ctk_core::model::encoder::Encoder as _;
use ctk_core::model::tower::Tower;
use ctk_core::nn::pass::{Pass, Precision};
use ctk_core::nn::rows::Rows;
use ctk_core::observer::advanced;
use ctk_core::process::Stop;
use ctk_core::{DType, Result};
use ctk_images::augment::Augment;
use ctk_images::dataset::Images;
use ctk_images::pixels;
use ctk_vision::tower::{batches, named};

use crate::data::{Captioned, Texts};
use crate::input::{Input, SideEncoder};
use crate::source;
use crate::stored::{Found, Stored};

/// Tokens that are encoded at once.
const AT_ONCE: usize = 8192;

/// Stored rows that are projected at once.
const ROWS_AT_ONCE: usize = 4096;

/// A trained tower.
pub type Side = Tower<SideEncoder>;

/// Appends the rows of `input`, which has `count` rows.
fn append(side: &Side, input: &Input, count: usize, precision: Precision, into: &mut Vec<f32>) -> Result<()> {
    let z = side.embed(&Input::stack(&[input])?, &Rows::alone(count), &Pass::eval().at(precision))?.key;
    into.extend(z.to_dtype(DType::F32)?.flatten_all()?.to_vec1::<f32>()?);
    Ok(())
}

/// The rows of images, of their evaluation views.
///
/// # Errors
/// An image cannot be read; the process was asked to end.
pub fn images(side: &Side, images: &Images, augment: &Augment, precision: Precision) -> Result<Features> {
    let (stop, width) = (Stop::here(), side.head.width());
    let mut rows = Vec::with_capacity(images.len() * width);
    for batch in batches(images.len(), augment.eval_size()) {
        stop.check()?;
        let count = batch.len();
        append(side, &Input::Pixels(pixels::evaluation(images, augment, batch)?), count, precision, &mut rows)?;
    }
    normalise(&mut rows, width);
    Ok(named(images, rows, width))
}

/// The rows of texts of these tokens, in order. A text without a token has a row of zeros.
///
/// # Errors
/// The device fails; the process was asked to end.
pub fn texts(side: &Side, texts: &[&[u32]], precision: Precision) -> Result<Vec<f32>> {
    let mut rows = Vec::with_capacity(texts.len() * side.head.width());
    in_blocks(texts, |input, count| append(side, input, count, precision, &mut rows))?;
    normalise(&mut rows, side.head.width());
    Ok(rows)
}

/// What the encoder of a tower makes of texts of these tokens, before the projection.
///
/// # Errors
/// The device fails; the process was asked to end.
pub fn encoded(encoder: &SideEncoder, texts: &[&[u32]], precision: Precision) -> Result<Vec<f32>> {
    let mut rows = Vec::with_capacity(texts.len() * encoder.width());
    in_blocks(texts, |input, count| {
        let (h, _) = encoder.encode(&Input::stack(&[input])?, &Rows::alone(count), &Pass::eval().at(precision))?;
        rows.extend(h.to_dtype(DType::F32)?.flatten_all()?.to_vec1::<f32>()?);
        Ok(())
    })?;
    Ok(rows)
}

/// Gives `work` some texts after the other, with their number.
fn in_blocks(texts: &[&[u32]], mut work: impl FnMut(&Input, usize) -> Result<()>) -> Result<()> {
    let (stop, mut from) = (Stop::here(), 0);
    while from < texts.len() {
        stop.check()?;
        let (mut batch, mut count, mut to) = (Input::default(), 0, from);
        while to < texts.len() && (to == from || count + texts[to].len() <= AT_ONCE) {
            batch.push_text(texts[to]);
            count += texts[to].len();
            to += 1;
        }
        work(&batch, to - from)?;
        advanced(to, texts.len());
        from = to;
    }
    Ok(())
}

/// The rows of stored features: of a name with several rows, the mean of what the projection makes of each.
///
/// # Errors
/// The device fails; the process was asked to end.
pub fn stored(side: &Side, rows: &Stored, found: &Found, precision: Precision) -> Result<Vec<f32>> {
    let (stop, width) = (Stop::here(), side.head.width());
    let all: Vec<u32> = found.0.iter().flatten().copied().collect();
    let mut each = Vec::with_capacity(all.len() * width);
    for block in all.chunks(ROWS_AT_ONCE) {
        stop.check()?;
        let mut input = Input::default();
        block.iter().try_for_each(|row| input.push_row(rows.row(*row)))?;
        append(side, &input, block.len(), precision, &mut each)?;
    }
    normalise(&mut each, width);
    let (mut means, mut from) = (Vec::with_capacity(found.0.len() * width), 0);
    for own in &found.0 {
        let block = &each[from * width..(from + own.len()) * width];
        means.extend((0..width).map(|at| block.iter().skip(at).step_by(width).sum::<f32>() / own.len() as f32));
        from += own.len();
    }
    normalise(&mut means, width);
    Ok(means)
}

/// All images of `data` with all of their captions, for retrieval.
///
/// # Errors
/// An image cannot be read; the process was asked to end.
pub fn captioned(
    [left, right]: [&Side; 2],
    data: &Captioned,
    all: &Texts,
    (of_images, of_captions): (source::Images, source::Captions),
    precision: Precision,
) -> Result<crossmodal::Captioned> {
    let images = match of_images {
        source::Images::Views(augment) => images(left, &data.images, augment, precision)?,
        source::Images::Stored(rows, found) => named(&data.images, stored(left, rows, found, precision)?, left.head.width()),
    };
    // Each different caption is embedded once.
    let mut used: Vec<u32> = data.captions.iter().flatten().copied().collect();
    used.sort_unstable();
    used.dedup();
    let width = right.head.width();
    let rows = match of_captions {
        source::Captions::Tokens(tokens) => {
            let own: Vec<&[u32]> = used.iter().map(|at| tokens.text(*at)).collect();
            texts(right, &own, precision)?
        }
        source::Captions::Stored(rows, found) => {
            let own = Found(used.iter().map(|at| found.0[*at as usize].clone()).collect());
            stored(right, rows, &own, precision)?
        }
    };
    let mut captions = Features { width, ..Features::default() };
    let mut of = Vec::new();
    for (image, own) in data.captions.iter().enumerate() {
        for text in own {
            let row = used.partition_point(|at| at < text);
            captions.push(all.all[*text as usize].clone(), &rows[row * width..(row + 1) * width])?;
            of.push(image as u32);
        }
    }
    Ok(crossmodal::Captioned { images, captions, of })
}
