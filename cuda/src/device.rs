//! Implements [`Device`]: each operation as launches of kernels and products.

use ctk_kernels::{
    Attention, Change, Cpu, Device, Dropout, Element as _, Finish, Gelu, Geometry, Identity, Number, Plain, Read, Real, Windows,
};

use crate::calls::{Argument, Calls, Product};
use crate::launch::{CHANNELS, Cuda, Moments, Normal, at, chunk, count, int, is_matrix, named, ok, to, windows};
use crate::memory::{Block, View, ViewMut};
use crate::steps::Table;

impl Device for Cuda {
    type Buffer<T: Plain> = Block<T>;
    type View<'a, T: Plain> = View<'a, T>;
    type ViewMut<'a, T: Plain> = ViewMut<'a, T>;
    type Vector<T: Plain> = Block<T>;
    type Affine<R: Real> = Normal<R>;
    type Moments = Moments;
    type Sums = Block<f64>;

    fn name(&self) -> String {
        self.memory.calls.name()
    }

    fn allocate<T: Plain>(&self, len: usize) -> Block<T> {
        self.block(len)
    }

    fn view<'a, T: Plain>(&self, buffer: &'a Block<T>) -> View<'a, T> {
        buffer.view()
    }

    fn view_mut<'a, T: Plain>(&self, buffer: &'a mut Block<T>) -> ViewMut<'a, T> {
        buffer.view_mut()
    }

    fn upload<T: Plain>(&self, from: &[T], to: ViewMut<T>) {
        assert_eq!(from.len(), to.len, "as many values as places");
        ok(self.memory.call(|| "upload".into(), |calls| calls.upload(bytemuck::cast_slice(from), to.at)));
    }

    fn download<T: Plain>(&self, from: View<T>) -> Vec<T> {
        let mut values = bytemuck::zeroed_vec::<T>(from.len);
        ok(self.memory.call(|| "download".into(), |calls| calls.download(from.at, bytemuck::cast_slice_mut(&mut values))));
        self.memory.passed(size_of_val(&values[..]));
        values
    }

    fn store<T: Number>(&self, from: &[T::Real], into: ViewMut<T>) {
        assert_eq!(from.len(), into.len, "as many values as places");
        // Half of the bytes, rounded as every device rounds.
        let mut halves = Vec::new();
        let bytes: &[u8] = if T::KIND == T::Real::KIND {
            bytemuck::cast_slice(from)
        } else {
            halves.resize(from.len(), T::down(T::Real::of(0.0)));
            Cpu::default().store(from, &mut halves);
            bytemuck::cast_slice(&halves)
        };
        let receive = |calls: &dyn Calls, at| calls.copy(at, into.at, bytes.len());
        ok(self.memory.call(|| "upload".into(), |calls| self.memory.send(bytes, |at| receive(calls, at))));
    }

    fn load<T: Number>(&self, from: View<T>) -> Vec<T::Real> {
        if T::KIND == T::Real::KIND {
            return bytemuck::cast_vec(self.download(from));
        }
        let mut wide = self.block::<T::Real>(from.len);
        self.each(&named("load", T::KIND), from.len, &[at(from), to(&wide.view_mut()), count(from.len)]);
        self.download(wide.view())
    }

    fn vector<T: Plain>(&self, from: &[T]) -> Block<T> {
        self.uploaded(from)
    }

    fn zeros<T: Plain>(&self, len: usize) -> Block<T> {
        let block = self.block::<T>(len);
        ok(self.memory.call(|| "clear".into(), |calls| calls.clear(block.at, len * size_of::<T>())));
        block
    }

    fn read<'a, T: Plain>(&self, vector: &'a Block<T>) -> View<'a, T> {
        vector.view()
    }

    fn write<'a, T: Plain>(&self, vector: &'a mut Block<T>) -> ViewMut<'a, T> {
        vector.view_mut()
    }

    fn host<T: Plain>(&self, vector: Block<T>) -> Vec<T> {
        self.download(vector.view())
    }

    fn copy<T: Plain>(&self, from: View<T>, to: ViewMut<T>) {
        assert_eq!(from.len, to.len, "as many values as places");
        ok(self.memory.call(|| "copy".into(), |calls| calls.copy(from.at, to.at, from.len * size_of::<T>())));
    }

    fn lend<T: Plain, Out>(&self, numbers: &[T], read: impl FnOnce(View<'_, T>) -> Out) -> Out {
        read(self.uploaded(numbers).view())
    }

    fn lend_mut<T: Plain, Out>(&self, numbers: &mut [T], change: impl FnOnce(ViewMut<'_, T>) -> Out) -> Out {
        let mut block = self.uploaded(numbers);
        let out = change(block.view_mut());
        numbers.copy_from_slice(&self.download(block.view()));
        out
    }

    fn normalises<T: Number>(&self, _: &Geometry) -> bool {
        false
    }

    fn convolve<T: Number>(
        &self,
        g: &Geometry,
        x: Read<Self, T>,
        weight: View<T::Real>,
        y: ViewMut<T>,
        _: bool,
    ) -> Option<Moments> {
        let (own, packed) = (self.normalised(x), self.packed::<T>(g, weight));
        let x = own.as_ref().map_or(x.0.at, |own| own.at);
        let weight = packed.as_ref().map_or(weight.at, |packed| packed.at);
        self.product::<T>(Product::Output, g, [x, weight], 0.0, y.at);
        None
    }

    fn transform<T: Number>(
        &self,
        g: &Geometry,
        x: View<T>,
        weight: View<T::Real>,
        finish: Finish<Self, T::Real>,
        before: Option<ViewMut<T>>,
        y: ViewMut<T>,
    ) {
        let mut y = y;
        self.convolve::<T>(g, (x, None), weight, y.again(), false);
        if let Some(bias) = finish.bias {
            self.add_bias(y.again(), bias);
        }
        if let Some(before) = before {
            self.copy(y.seen(), before);
        }
        if let Some(form) = finish.gelu {
            // In place: each thread reads a value before it writes it.
            let arguments = [at(y.seen()), to(&y), count(y.len), Argument::Int(form as i32)];
            self.each(&named("gelu", T::KIND), y.len, &arguments);
        }
    }

    fn input_gradient<T: Number>(
        &self,
        g: &Geometry,
        dy: View<T>,
        weight: View<T::Real>,
        dx: ViewMut<T>,
        beside: Option<View<T>>,
        _: Option<Read<Self, T>>,
    ) -> Option<Block<f64>> {
        let packed = self.packed::<T>(g, weight);
        let weight = packed.as_ref().map_or(weight.at, |packed| packed.at);
        if let Some(beside) = beside {
            ok(self.memory.call(|| "copy".into(), |calls| calls.copy(beside.at, dx.at, dx.len * size_of::<T>())));
        }
        let beta = if beside.is_some() { 1.0 } else { 0.0 };
        self.product::<T>(Product::Input, g, [dy.at, weight], beta, dx.at);
        None
    }

    fn weight_gradient<T: Number>(&self, g: &Geometry, x: Read<Self, T>, dy: View<T>) -> Block<T::Real> {
        let own = self.normalised(x);
        let x = own.as_ref().map_or(x.0.at, |own| own.at);
        let area = g.kernel * g.kernel;
        let n = g.o * g.c * area;
        let mut result = self.block::<T::Real>(n);
        if is_matrix(g) {
            self.product::<T>(Product::Weight, g, [x, dy.at], 0.0, result.at);
            return result;
        }
        let packed = self.block::<T>(n);
        self.product::<T>(Product::Weight, g, [x, dy.at], 0.0, packed.at);
        let arguments = [at(packed.view()), to(&result.view_mut()), count(n), int(g.c), int(area)];
        self.each(&named("unpack_weight", T::KIND), n, &arguments);
        result
    }

    fn add_bias<T: Number>(&self, y: ViewMut<T>, bias: View<T::Real>) {
        self.each(&named("add_bias", T::KIND), y.len, &[to(&y), at(bias), count(y.len), int(bias.len)]);
    }

    fn column_sums<T: Number>(&self, x: View<T>, c: usize) -> Block<T::Real> {
        let sums = self.reduced(&named("column_sums", T::KIND), x.len / c, c, 1, &[at(x)], &[]);
        let mut narrow = self.block::<T::Real>(c);
        self.each(&named("narrow", T::Real::KIND), c, &[at(sums.view()), to(&narrow.view_mut()), count(c)]);
        narrow
    }

    fn moments<T: Number>(&self, x: View<T>, c: usize) -> Moments {
        let rows = x.len / c;
        let (parts, _) = self.parts(&named("moments", T::KIND), rows, c, 2, &[at(x)], &[]);
        Moments { parts, rows, chunk: chunk(rows) }
    }

    fn merge(&self, moments: Moments, c: usize) -> [Block<f64>; 2] {
        let Moments { parts, rows, chunk } = moments;
        let [mut mean, mut variance] = [(); 2].map(|()| self.block::<f64>(c));
        let arguments = [
            at(parts.view()),
            int(rows.div_ceil(chunk)),
            count(rows),
            int(chunk),
            int(c),
            to(&mean.view_mut()),
            to(&variance.view_mut()),
        ];
        self.launch("merge", [c.div_ceil(CHANNELS), 1], &arguments);
        [mean, variance]
    }

    fn widen<R: Real>(&self, numbers: View<R>) -> Block<f64> {
        let mut wide = self.block::<f64>(numbers.len);
        self.each(&named("widen", R::KIND), numbers.len, &[at(numbers), to(&wide.view_mut()), count(numbers.len)]);
        wide
    }

    fn affine<R: Real>(
        &self,
        [mean, variance]: [&Block<f64>; 2],
        gamma: View<R>,
        beta: Option<View<R>>,
        epsilon: f64,
        relu: bool,
    ) -> Normal<R> {
        let c = gamma.len;
        let [mut middle, mut scale, mut shift] = [(); 3].map(|()| self.block::<R>(c));
        let mut inverse = self.block::<f64>(c);
        let arguments = [
            at(mean.view()),
            at(variance.view()),
            at(gamma),
            beta.map_or(Argument::Address(0), at),
            Argument::Double(epsilon),
            to(&middle.view_mut()),
            to(&scale.view_mut()),
            to(&shift.view_mut()),
            to(&inverse.view_mut()),
            int(c),
        ];
        self.each(&named("affine", R::KIND), c, &arguments);
        Normal { mean: middle, scale, shift, inverse, relu }
    }

    fn follow<R: Real>(&self, running: ViewMut<R>, batch: &Block<f64>, factor: f64, share: f64) {
        let numbers = [Argument::Double(factor), Argument::Double(share), int(running.len)];
        self.each(&named("follow", R::KIND), running.len, &[&[to(&running), at(batch.view())], &numbers[..]].concat());
    }

    fn normalise<T: Number>(&self, affine: &Normal<T::Real>, x: View<T>, y: ViewMut<T>) {
        let own = [at(x), to(&y), count(x.len), int(affine.mean.len)];
        self.each(&named("normalise", T::KIND), x.len, &[&own[..], &Self::normal(Some(affine))].concat());
    }

    fn gradient_sums<T: Number>(&self, affine: &Normal<T::Real>, x: View<T>, dy: View<T>) -> Block<f64> {
        let c = affine.mean.len;
        self.reduced(&named("gradient_sums", T::KIND), x.len / c, c, 2, &[at(x), at(dy)], &Self::normal(Some(affine)))
    }

    fn affine_gradients<R: Real>(&self, affine: &Normal<R>, sums: &Block<f64>) -> [Block<R>; 2] {
        let c = affine.mean.len;
        let [mut dgamma, mut dbeta] = [(); 2].map(|()| self.block::<R>(c));
        let arguments = [at(sums.view()), at(affine.inverse.view()), to(&dgamma.view_mut()), to(&dbeta.view_mut()), int(c)];
        self.each(&named("affine_gradients", R::KIND), c, &arguments);
        [dgamma, dbeta]
    }

    fn normalise_gradient<T: Number>(
        &self,
        affine: &Normal<T::Real>,
        sums: &Block<f64>,
        rows: Option<usize>,
        x: View<T>,
        dy: Option<View<T>>,
        dx: ViewMut<T>,
    ) {
        let c = affine.mean.len;
        let [mut offset, mut slope] = [(); 2].map(|()| self.block::<T::Real>(c));
        let arguments = [
            at(sums.view()),
            at(affine.inverse.view()),
            Argument::Double(rows.unwrap_or(0) as f64),
            to(&offset.view_mut()),
            to(&slope.view_mut()),
            int(c),
        ];
        self.each(&named("components", T::Real::KIND), c, &arguments);
        let own = [at(x), dy.map_or(to(&dx), at), to(&dx), count(x.len), int(c)];
        let arguments = [&own[..], &Self::normal(Some(affine)), &[at(offset.view()), at(slope.view())]].concat();
        self.each(&named("normalise_gradient", T::KIND), x.len, &arguments);
    }

    fn relu<T: Number>(&self, x: ViewMut<T>) {
        self.each(&named("relu", T::KIND), x.len, &[to(&x), count(x.len)]);
    }

    fn gelu<T: Number>(&self, form: Gelu, x: View<T>, y: ViewMut<T>) {
        self.each(&named("gelu", T::KIND), x.len, &[at(x), to(&y), count(x.len), Argument::Int(form as i32)]);
    }

    fn gelu_gradient<T: Number>(&self, form: Gelu, x: View<T>, dy: ViewMut<T>) {
        self.each(&named("gelu_gradient", T::KIND), x.len, &[at(x), to(&dy), count(x.len), Argument::Int(form as i32)]);
    }

    fn mask<T: Number>(&self, dy: ViewMut<T>, y: View<T>) {
        self.each(&named("mask", T::KIND), dy.len, &[to(&dy), at(y), count(dy.len)]);
    }

    fn add<T: Number>(&self, x: ViewMut<T>, y: View<T>) {
        self.each(&named("add", T::KIND), x.len, &[to(&x), at(y), count(x.len)]);
    }

    fn join<T: Number>(&self, a: Read<Self, T>, b: Read<Self, T>, c: usize, relu: bool, y: ViewMut<T>) {
        let own = [to(&y), count(y.len), int(c), Argument::Int(i32::from(relu))];
        let arguments = [&[at(a.0)], &Self::normal(a.1)[..], &[at(b.0)], &Self::normal(b.1), &own].concat();
        self.each(&named("join", T::KIND), y.len, &arguments);
    }

    fn masked_sums<T: Number>(
        &self,
        dy: ViewMut<T>,
        y: Option<View<T>>,
        c: usize,
        sides: [Read<Self, T>; 2],
    ) -> [Option<Block<f64>>; 2] {
        if let Some(y) = y {
            self.each(&named("mask", T::KIND), dy.len, &[to(&dy), at(y), count(dy.len)]);
        }
        let kernel = named("gradient_sums", T::KIND);
        sides.map(|(x, affine)| {
            let normal = Self::normal(Some(affine?));
            Some(self.reduced(&kernel, x.len / c, c, 2, &[at(x), to(&dy)], &normal))
        })
    }

    fn dropout<T: Number>(&self, dropout: &Dropout, rows: Identity, each: usize, c: usize, x: ViewMut<T>) {
        let (places, views) = (self.uploaded(rows.places), self.uploaded(rows.views));
        let offsets = rows.offsets.map(|offsets| self.uploaded(offsets));
        let arguments = [
            to(&x),
            count(x.len),
            int(c),
            at(places.view()),
            at(views.view()),
            offsets.as_ref().map_or(Argument::Address(0), |offsets| at(offsets.view())),
            int(rows.places.len()),
            int(each),
            Argument::Seed(dropout.seed),
            Argument::Word(dropout.threshold),
            Argument::Double(dropout.scale),
        ];
        self.each(&named("dropout", T::KIND), x.len, &arguments);
    }

    fn max_pool<T: Number>(&self, w: &Windows, x: View<T>, y: ViewMut<T>, winners: ViewMut<u32>) {
        self.each(&named("max_pool", T::KIND), y.len, &[windows(w), at(x), to(&y), to(&winners), count(y.len)]);
    }

    fn max_pool_gradient<T: Number>(&self, w: &Windows, dy: View<T>, winners: View<u32>, dx: ViewMut<T>) {
        self.each(&named("max_pool_gradient", T::KIND), dx.len, &[windows(w), at(dy), at(winners), to(&dx), count(dx.len)]);
    }

    fn mean_pool<T: Number>(&self, w: &Windows, x: View<T>, y: ViewMut<T>) {
        self.each(&named("mean_pool", T::KIND), y.len, &[windows(w), at(x), to(&y), count(y.len)]);
    }

    fn mean_pool_gradient<T: Number>(&self, w: &Windows, dy: View<T>, dx: ViewMut<T>) {
        self.each(&named("mean_pool_gradient", T::KIND), dx.len, &[windows(w), at(dy), to(&dx), count(dx.len)]);
    }

    fn global_mean<T: Number>(&self, x: View<T>, pixels: usize, c: usize, y: ViewMut<T>) {
        let grid = [c.div_ceil(CHANNELS), y.len / c];
        self.launch(&named("global_mean", T::KIND), grid, &[at(x), to(&y), int(pixels), int(c)]);
    }

    fn global_mean_gradient<T: Number>(&self, dy: View<T>, pixels: usize, c: usize, dx: ViewMut<T>) {
        let arguments = [at(dy), to(&dx), count(dx.len), int(pixels), int(c)];
        self.each(&named("global_mean_gradient", T::KIND), dx.len, &arguments);
    }

    fn stream_mean<T: Number>(&self, x: View<T>, pixels: usize, f: usize, y: ViewMut<T>) {
        let grid = [f.div_ceil(CHANNELS), y.len / f];
        self.launch(&named("stream_mean", T::KIND), grid, &[at(x), to(&y), int(pixels), int(f)]);
    }

    fn select<T: Number>(&self, x: View<T>, gate: View<T>, pixels: usize, f: usize, y: ViewMut<T>, weight: ViewMut<T>) {
        self.each(&named("gate_weight", T::KIND), weight.len, &[at(gate), to(&weight), count(weight.len), int(f)]);
        let arguments = [at(x), to(&weight), to(&y), count(y.len), int(pixels), int(f)];
        self.each(&named("select", T::KIND), y.len, &arguments);
    }

    fn select_gradient<T: Number>(
        &self,
        [x, weight, dy]: [View<T>; 3],
        pixels: usize,
        f: usize,
        dx: ViewMut<T>,
        dgate: ViewMut<T>,
    ) {
        let arguments = [at(weight), at(dy), to(&dx), count(dy.len), int(pixels), int(f)];
        self.each(&named("stream_gradients", T::KIND), dy.len, &arguments);
        let grid = [f.div_ceil(CHANNELS), dgate.len / (2 * f)];
        self.launch(&named("gate_gradient", T::KIND), grid, &[at(x), at(weight), at(dy), to(&dgate), int(pixels), int(f)]);
    }

    fn stream_mean_gradient<T: Number>(&self, dy: View<T>, pixels: usize, f: usize, dx: ViewMut<T>) {
        let arguments = [at(dy), to(&dx), count(dx.len), int(pixels), int(f)];
        self.each(&named("stream_mean_gradient", T::KIND), dx.len, &arguments);
    }

    fn layer_norm<T: Number>(
        &self,
        x: View<T>,
        gamma: View<T::Real>,
        beta: View<T::Real>,
        epsilon: f64,
        y: ViewMut<T>,
        statistics: ViewMut<T::Real>,
    ) {
        let c = gamma.len;
        let arguments = [at(x), at(gamma), at(beta), Argument::Double(epsilon), to(&y), to(&statistics), int(c)];
        self.launch(&named("layer_norm", T::KIND), [x.len / c, 1], &arguments);
    }

    fn layer_norm_gradient<T: Number>(
        &self,
        x: View<T>,
        statistics: View<T::Real>,
        gamma: View<T::Real>,
        dy: View<T>,
        dx: ViewMut<T>,
    ) -> [Block<T::Real>; 2] {
        let c = gamma.len;
        let rows = x.len / c;
        let arguments = [at(x), at(statistics), at(gamma), at(dy), to(&dx), int(c)];
        self.launch(&named("layer_norm_gradient", T::KIND), [rows, 1], &arguments);
        let sums = self.reduced(&named("layer_norm_sums", T::KIND), rows, c, 2, &[at(x), at(dy), at(statistics)], &[]);
        [0, 1].map(|half| {
            let mut narrow = self.block::<T::Real>(c);
            let from = Argument::Address(sums.at + (half * c * size_of::<f64>()) as u64);
            self.each(&named("narrow", T::Real::KIND), c, &[from, to(&narrow.view_mut()), count(c)]);
            narrow
        })
    }

    fn attention<T: Number>(&self, of: &Attention, x: View<T>, y: ViewMut<T>, sums: ViewMut<T::Real>) {
        self.attend(of, x, y, sums);
    }

    fn attention_gradient<T: Number>(&self, of: &Attention, from: [View<T>; 3], sums: View<T::Real>, dx: ViewMut<T>) {
        self.attend_gradient(of, from, sums, dx);
    }

    fn means<T: Number>(&self, x: View<T>, offsets: View<u32>, c: usize, y: ViewMut<T>) {
        self.each(&named("means", T::KIND), y.len, &[at(x), at(offsets), to(&y), count(y.len), int(c)]);
    }

    fn means_gradient<T: Number>(&self, dy: View<T>, offsets: View<u32>, c: usize, dx: ViewMut<T>) {
        let arguments = [at(dy), at(offsets), int(offsets.len - 1), to(&dx), count(dx.len), int(c)];
        self.each(&named("means_gradient", T::KIND), dx.len, &arguments);
    }

    fn pick<T: Number>(&self, x: View<T>, numbers: View<u32>, c: usize, y: ViewMut<T>) {
        self.each(&named("pick", T::KIND), y.len, &[at(x), at(numbers), to(&y), count(y.len), int(c)]);
    }

    fn pick_gradient<T: Number>(&self, dy: View<T>, numbers: View<u32>, c: usize, dx: ViewMut<T>) {
        ok(self.memory.call(|| "clear".into(), |calls| calls.clear(dx.at, dx.len * size_of::<T>())));
        self.each(&named("pick_gradient", T::KIND), dy.len, &[at(dy), at(numbers), to(&dx), count(dy.len), int(c)]);
    }

    fn gather<T: Number>(&self, table: View<T::Real>, width: usize, ids: View<u32>, y: ViewMut<T>) {
        self.each(&named("gather", T::KIND), y.len, &[at(table), at(ids), to(&y), count(y.len), int(width)]);
    }

    fn sum_groups<T: Number>(&self, dy: View<T>, width: usize, order: View<u32>, starts: View<u32>) -> Block<T::Real> {
        let n = starts.len.saturating_sub(1) * width;
        let mut sums = self.block::<T::Real>(n);
        let arguments = [at(dy), at(order), at(starts), to(&sums.view_mut()), count(n), int(width)];
        self.each(&named("sum_groups", T::KIND), n, &arguments);
        sums
    }

    fn gather_means<T: Number>(&self, table: View<T::Real>, width: usize, ids: View<u32>, offsets: View<u32>, y: ViewMut<T>) {
        let mut rows = self.allocate::<T>(ids.len * width);
        self.gather::<T>(table, width, ids, self.view_mut(&mut rows));
        self.means(self.view(&rows), offsets, width, y);
    }

    fn sum_shares<T: Number>(
        &self,
        dy: View<T>,
        width: usize,
        offsets: View<u32>,
        order: View<u32>,
        starts: View<u32>,
    ) -> Block<T::Real> {
        let mut rows = self.allocate::<T>(order.len * width);
        self.means_gradient(dy, offsets, width, self.view_mut(&mut rows));
        self.sum_groups(self.view(&rows), width, order, starts)
    }

    fn linear<R: Real>(&self, factors: [f64; 3], d: ViewMut<R>, x: View<R>, y: View<R>) {
        let [a, b, c] = factors.map(Argument::Double);
        self.each(&named("linear", R::KIND), d.len, &[to(&d), at(x), at(y), a, b, c, count(d.len)]);
    }

    fn steps<R: Real>(&self, all: Vec<Change<'_, Self, R>>) {
        let mut table = Table::default();
        for Change { step, w, state, g, scale } in &all {
            let states = [0, 1].map(|i| state.get(i).map_or(0, |state| state.at));
            table.add(Some((step, *scale)), [w.at, states[0], states[1], g.at], w.len);
        }
        self.take::<R>(&table);
    }

    fn norms<R: Real>(&self, all: &[View<R>]) -> Vec<f64> {
        let mut table = Table::default();
        all.iter().for_each(|x| table.add(None, [x.at, 0, 0, 0], x.len));
        let Some(on) = self.placed(&table) else { return Vec::new() };
        let norms = self.norms_of::<R>(&table, &on);
        self.download(norms.view()).chunks(2).map(|of| of[0]).collect()
    }
}
