//! Attention: its rows in the device's memory, and the launches of its kernels.

use ctk_kernels::{Attention, Number};

use crate::calls::{Argument, Fault, THREADS};
use crate::launch::{Cuda, at, int, named, ok, to};
use crate::memory::{Block, View, ViewMut};

/// Which text each token belongs to, and the texts' keys for dropout, in the device's memory.
struct Placed {
    places: Block<u32>,
    views: Block<u16>,
    offsets: Option<Block<u32>>,
}

impl Placed {
    fn arguments(&self, of: &Attention) -> [Argument; 12] {
        let dropout = of.dropout.unwrap_or(ctk_kernels::Dropout { seed: 0, threshold: 0, scale: 1.0 });
        [
            at(self.places.view()),
            at(self.views.view()),
            self.offsets.as_ref().map_or(Argument::Address(0), |offsets| at(offsets.view())),
            int(of.rows.places.len()),
            int(of.each),
            int(of.heads),
            int(of.width),
            Argument::Double(of.scale),
            Argument::Int(i32::from(of.causal)),
            Argument::Seed(dropout.seed),
            Argument::Word(dropout.threshold),
            Argument::Double(dropout.scale),
        ]
    }
}

impl Cuda {
    fn placed_rows(&self, of: &Attention) -> Placed {
        let most = THREADS as usize;
        if of.width / of.heads > most {
            let said = format!("a head has at most {most} values, and here {}", of.width / of.heads);
            ok(Err(Fault::Call { call: "attention".to_string(), said }))
        }
        let (places, views) = (self.uploaded(of.rows.places), self.uploaded(of.rows.views));
        Placed { places, views, offsets: of.rows.offsets.map(|offsets| self.uploaded(offsets)) }
    }

    pub(crate) fn attend<T: Number>(&self, of: &Attention, x: View<T>, y: ViewMut<T>, sums: ViewMut<T::Real>) {
        let (rows, tokens) = (self.placed_rows(of), y.len / of.width);
        let arguments = [&[at(x), to(&y), to(&sums)][..], &rows.arguments(of)].concat();
        self.launch(&named("attention", T::KIND), [tokens, of.heads], &arguments);
    }

    pub(crate) fn attend_gradient<T: Number>(
        &self,
        of: &Attention,
        [x, y, dy]: [View<T>; 3],
        sums: View<T::Real>,
        dx: ViewMut<T>,
    ) {
        let (rows, tokens) = (self.placed_rows(of), y.len / of.width);
        let arguments = [&[at(x), at(y), at(dy), at(sums), to(&dx)][..], &rows.arguments(of)].concat();
        for kernel in ["attention_queries", "attention_keys"] {
            self.launch(&named(kernel, T::KIND), [tokens, of.heads], &arguments);
        }
    }
}
