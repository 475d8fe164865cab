//! What the towers read: images, texts, or rows that another program computed; and the encoders of each.

use candle_core::Tensor;
use ctk_core::data::pair::{HostBatch, Maps};
use ctk_core::model::encoder::Encoder;
use ctk_core::nn::Sequential;
use ctk_core::nn::pass::Pass;
use ctk_core::nn::rows::Rows;
use ctk_core::nn::tape::Tape;
use ctk_core::{Error, Result};
use ctk_images::pixels::Pixels;
use ctk_text::tokens::{self, TokenEncoder, Tokens};
use ctk_vision::encoder::ImageEncoder;

/// One side of a batch.
#[derive(Clone, Debug, Default, PartialEq)]
pub enum Input {
    /// Nothing yet: the first row says what the others are.
    #[default]
    Empty,
    /// Views of images.
    Pixels(Pixels),
    /// Texts.
    Tokens(Tokens),
    /// Stored features.
    Rows(Maps),
}

/// One side of a batch as an encoder reads it.
pub enum Stacked {
    /// `(n, size, size, 3)` pixels.
    Pixels(Tensor),
    /// Texts one after the other.
    Tokens(tokens::Stacked),
    /// `(n, width)` stored features.
    Rows(Tensor),
}

impl Input {
    /// A row of `size` × `size` pixels to be filled.
    pub fn grow(&mut self, size: usize) -> &mut [f32] {
        if !matches!(self, Input::Pixels(_)) {
            *self = Input::Pixels(Pixels::default());
        }
        match self {
            Input::Pixels(pixels) => pixels.grow(size),
            _ => &mut [],
        }
    }

    /// Appends a text.
    pub fn push_text(&mut self, ids: &[u32]) {
        match self {
            Input::Tokens(texts) => texts.push(ids),
            _ => {
                let mut texts = Tokens::default();
                texts.push(ids);
                *self = Input::Tokens(texts);
            }
        }
    }

    /// Appends stored features.
    ///
    /// # Errors
    /// A row of another width than those before it.
    pub fn push_row(&mut self, row: &[f32]) -> Result<()> {
        if !matches!(self, Input::Rows(_)) {
            *self = Input::Rows(Maps::default());
        }
        match self {
            Input::Rows(rows) => rows.push([1, 1, row.len()], row),
            _ => Ok(()),
        }
    }
}

impl HostBatch for Input {
    type Stacked = Stacked;

    fn size(&self) -> usize {
        match self {
            Input::Pixels(pixels) => pixels.size(),
            _ => 0,
        }
    }

    fn stack(views: &[&Self]) -> Result<Stacked> {
        fn all<'a, T>(views: &[&'a Input], of: impl Fn(&'a Input) -> Option<&'a T>) -> Option<Vec<&'a T>> {
            views.iter().map(|view| of(view)).collect()
        }
        if let Some(views) = all(views, |view| if let Input::Pixels(of) = view { Some(of) } else { None }) {
            return Ok(Stacked::Pixels(Pixels::stack(&views)?));
        }
        if let Some(views) = all(views, |view| if let Input::Tokens(of) = view { Some(of) } else { None }) {
            return Ok(Stacked::Tokens(Tokens::stack(&views)?));
        }
        match all(views, |view| if let Input::Rows(of) = view { Some(of) } else { None }) {
            Some(views) => Ok(Stacked::Rows(Maps::stack(&views)?.flatten_from(1)?)),
            None => Err(Error::new("images, texts and stored features cannot be one view")),
        }
    }
}

/// The encoder of a tower. Every one takes stored rows, too: what it, or another program, has made of the samples before.
pub enum SideEncoder {
    /// Of images.
    Image(Box<dyn ImageEncoder>),
    /// Of texts.
    Text(TokenEncoder),
    /// None: rows of this width that another program computed.
    Stored(usize),
}

fn other() -> Error {
    Error::new("a tower was given the other side's input")
}

impl Encoder for SideEncoder {
    type Views = Input;

    fn width(&self) -> usize {
        match self {
            SideEncoder::Image(of) => of.width(),
            SideEncoder::Text(of) => of.width(),
            SideEncoder::Stored(width) => *width,
        }
    }

    fn encode(&self, x: &Stacked, rows: &Rows, pass: &Pass) -> Result<(Tensor, Tape)> {
        match (self, x) {
            (SideEncoder::Image(of), Stacked::Pixels(x)) => of.encode(x, rows, pass),
            (SideEncoder::Text(of), Stacked::Tokens(x)) => of.encode(x, rows, pass),
            // Nothing in front of the rows learns.
            (_, Stacked::Rows(x)) => Ok((x.clone(), Tape::new(|_, _| Ok(None)))),
            _ => Err(other()),
        }
    }

    fn through(&self, head: &Sequential, x: &Stacked, rows: &Rows, pass: &Pass) -> Result<(Tensor, Tape)> {
        match (self, x) {
            (SideEncoder::Image(of), Stacked::Pixels(x)) => of.through(head, x, rows, pass),
            (SideEncoder::Text(of), Stacked::Tokens(x)) => of.through(head, x, rows, pass),
            (_, Stacked::Rows(x)) => head.forward(x, rows, pass),
            _ => Err(other()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sides_are_stacked_by_their_kind() {
        let (mut one, mut two) = (Input::default(), Input::default());
        one.push_row(&[1.0, 2.0]).unwrap();
        two.push_row(&[3.0, 4.0]).unwrap();
        assert!(one.push_row(&[1.0]).is_err(), "another width");
        match Input::stack(&[&one, &two]).unwrap() {
            Stacked::Rows(rows) => assert_eq!(rows.to_vec2::<f32>().unwrap(), [[1.0, 2.0], [3.0, 4.0]]),
            _ => panic!("rows are rows"),
        }
        let (mut image, mut text) = (Input::default(), Input::default());
        image.grow(2).fill(0.5);
        text.push_text(&[1, 2]);
        text.push_text(&[3]);
        assert_eq!((image.size(), text.size()), (2, 0));
        assert!(matches!(Input::stack(&[&image]).unwrap(), Stacked::Pixels(x) if x.dims() == [1, 2, 2, 3]));
        assert!(matches!(Input::stack(&[&text]).unwrap(), Stacked::Tokens(_)));
        assert!(Input::stack(&[&image, &text]).is_err() && Input::stack(&[&Input::default()]).is_err());
        let stored = SideEncoder::Stored(2);
        assert!(stored.encode(&Input::stack(&[&text]).unwrap(), &Rows::alone(2), &Pass::eval()).is_err());
    }
}
