//! Tests of the learner against its oracle: candle's autograd on the same pairs, one by one.

use std::sync::Arc;

use candle_core::DType;
use ctk_core::data::known::Known;
use ctk_core::data::pair::{self, HostBatch};
use ctk_core::data::source::Source;
use ctk_core::model::encoder::Encoder;
use ctk_core::model::head::ProjectionHead;
use ctk_core::model::tower::{Dual, Tower};
use ctk_core::nn;
use ctk_core::nn::gradient::GradientStore;
use ctk_core::nn::params::{Init, Param, ParamKind, Params};
use ctk_core::nn::pass::Pass;
use ctk_core::nn::tape::Tape;
use ctk_core::objective::NegativeSampling;
use ctk_core::optim::Optimizer;
use ctk_core::recipe::{HeadRecipe, OptimizerRecipe, SgdRecipe};
use ctk_core::train::dense::Dense;
use ctk_texts::corpus::{Corpus, Limits};
use ctk_texts::language;

use super::super::recipe::{Architecture, Negatives};
use super::super::rows::step::{CONTEXTS, OUTPUTS, OutputWeights, labels};
use super::super::windows::{Block, Windows};
use super::*;

#[derive(Default)]
struct Ids(Vec<u32>);

impl HostBatch for Ids {
    type Stacked = Tensor;

    fn stack(parts: &[&Self]) -> Result<Tensor> {
        let ids: Vec<u32> = parts.iter().flat_map(|part| part.0.iter().copied()).collect();
        Ok(Tensor::new(ids, &Device::Cpu)?)
    }
}

/// A table of rows as an encoder for candle.
struct Table(Arc<Param>, GradientStore);

impl Encoder for Table {
    type Views = Ids;

    fn width(&self) -> usize {
        self.0.dims()[1]
    }

    fn encode(&self, ids: &Tensor, _: &nn::rows::Rows, _: &Pass) -> Result<(Tensor, Tape)> {
        let h = self.0.var().index_select(ids, 0)?;
        Ok((h.detach(), Tape::of_graph(h, None, vec![self.0.clone()], self.1.clone())))
    }
}

type Oracle = Dense<Dual<Table, Table>>;

/// Both tables of `sparse`, in f64, for candle, with one more row of zeros each.
fn oracle(sparse: &Sparse) -> (Oracle, [Arc<Param>; 2]) {
    let width = sparse.settings.width;
    let mut params = Params::new();
    let none = HeadRecipe { layers: 0, width, ..HeadRecipe::default() };
    let mut tower = |name: &str, mut values: Vec<f32>| {
        values.resize(values.len() + width, 0.0);
        let count = values.len() / width;
        let param = params.root().sub(name).param("weight", (count, width), ParamKind::Weight, Init::Constant(0.0));
        let tower = Tower {
            encoder: Table(param.clone(), params.gradient_store()),
            head: ProjectionHead::new(&none, width, params.root()),
            predictor: None,
        };
        (tower, param, values)
    };
    let sides = [tower("input", sparse.vectors()), tower("output", sparse.outputs())];
    params.materialise(Key::new(0), DType::F64, &ctk_core::Device::Cpu).unwrap();
    let [left, right] = sides.map(|(tower, param, values)| {
        let values = Tensor::from_vec(values, param.dims(), &Device::Cpu).unwrap().to_dtype(DType::F64).unwrap();
        param.var().set(&values).unwrap();
        (tower, param)
    });
    let sgd = OptimizerRecipe::Sgd(SgdRecipe { momentum: 0.0, decay: 0.0, ..SgdRecipe::default() });
    let towers = Dual { left: left.0, right: right.0 };
    (Dense::new(towers, Box::new(NegativeSampling), params, Optimizer::new(&sgd)), [left.1, right.1])
}

fn values(param: &Param) -> Vec<f64> {
    param.var().flatten_all().unwrap().to_vec1().unwrap()
}

fn corpus() -> Corpus {
    Corpus::from_text(&language::text(3_000, Key::new(0)), Limits { min_count: 3, max_size: None }).unwrap()
}

fn sparse(corpus: &Corpus, threads: usize) -> Sparse {
    let settings = Settings {
        width: 20,
        subwords: None,
        pairs: Pairs { architecture: Architecture::SkipGram, exact: false },
        contrast: noise(Negatives::Shared, 5),
        rate: 0.1,
        shards: None,
        precision: Precision::F32,
    };
    Sparse::new(corpus.vocabulary(), settings, Key::new(1)).unwrap().threads(threads)
}

/// A block in which no word occurs twice in a window, so that the order in which vector instructions take contexts does not matter.
fn block(words: u32) -> Block {
    let ids: Vec<u32> = (0..3 * words).map(|i| i * 7 % words).collect();
    let lines = (0..ids.len()).step_by(14).map(|start| start..(start + 14).min(ids.len())).collect();
    let radii = ids.iter().map(|id| 1 + id % 6).collect();
    Block { ids, radii, reach: 6, lines, negatives: Key::new(3).of("negatives") }
}

fn noise(sharing: Negatives, negatives: usize) -> Contrast {
    Contrast::Noise { negatives, power: 0.75, sharing }
}

/// A word, an output row, whether they belong together, and the pair's weight.
type Pair = (u32, u32, bool, usize);

/// The pairs of each step of `block`, and the number of the text's own pairs.
fn pairs(sparse: &Sparse, block: &Block) -> (Vec<Vec<Pair>>, usize) {
    let mut drawn = Vec::new();
    let plain = OutputWeights {
        weights: [1.0; OUTPUTS],
        labels: labels(if sparse.targets.sharing() == Negatives::Grouped { 2 } else { 1 }),
    };
    sparse.targets.draw(block, |ids, odd| drawn.push((ids, odd.unwrap_or(plain))));
    let mut drawn = drawn.into_iter();
    let (mut steps, mut count) = (Vec::new(), 0);
    // All of `contexts`, twelve at a time, against one step's outputs; `counts` says which of them count.
    let mut add = |(ids, odd): ([u32; OUTPUTS], OutputWeights), contexts: &[usize], counts: &dyn Fn(usize, usize) -> usize| {
        for contexts in contexts.chunks(CONTEXTS) {
            let pair = |(at, j): (&usize, usize)| {
                (block.ids[*at], ids[j], odd.labels[j] == 1.0, odd.weights[j] as usize * counts(*at, j))
            };
            let all = contexts.iter().flat_map(|at| (0..OUTPUTS).map(move |j| (at, j))).map(pair);
            steps.push(all.filter(|pair| pair.3 > 0).collect());
        }
    };
    match sparse.targets.sharing() {
        Negatives::Grouped => {
            for group in block.groups() {
                let within = |at: usize, j: usize| group[j].words.contains(&at) && at != group[j].centre;
                let counts = |at: usize, j: usize| match j {
                    0 | 1 => usize::from(j < group.len() && within(at, j)),
                    _ => (0..group.len()).filter(|j| within(at, *j)).count(),
                };
                let mut contexts: Vec<usize> = group.iter().flat_map(|window| window.contexts()).collect();
                contexts.sort_unstable();
                contexts.dedup();
                add(drawn.next().unwrap(), &contexts, &counts);
                count += group.iter().map(|window| window.pairs()).sum::<usize>();
            }
        }
        sharing => {
            for window in block.windows() {
                let contexts: Vec<usize> = window.contexts().collect();
                let turns = if sharing == Negatives::Shared { contexts.len() } else { 1 };
                for contexts in contexts.chunks(turns.max(1)) {
                    for _ in 0..sparse.targets.steps(block.ids[window.centre]) {
                        add(drawn.next().unwrap(), contexts, &|_, _| 1);
                    }
                }
                count += window.pairs();
            }
        }
    }
    assert!(drawn.next().is_none());
    (steps, count)
}

#[test]
fn the_fused_update_is_autograds_on_the_same_pairs() {
    for contrast in [
        noise(Negatives::Shared, 5),
        noise(Negatives::Shared, 2),
        noise(Negatives::Shared, 8),
        noise(Negatives::PerPair, 5),
        // Four draws serve a group: each counts once.
        noise(Negatives::Grouped, 4),
        Contrast::Tree,
    ] {
        let corpus = corpus();
        let settings = Settings { contrast, ..sparse(&corpus, 1).settings };
        let mut sparse = Sparse::new(corpus.vocabulary(), settings, Key::new(1)).unwrap().threads(1);
        // Output rows start at zero, where half of the gradient vanishes, so the comparison starts elsewhere.
        sparse.output = Rows::uniform(sparse.output.len(), 20, Key::new(2)).unwrap();
        let (mut dense, [input, output]) = oracle(&sparse);
        let start = [values(&input), values(&output)];
        let rate = 0.1;
        let block = block(corpus.vocabulary().len() as u32 / 7 * 7 - 1);
        let (steps, count) = pairs(&sparse, &block);

        let one = Batch { blocks: vec![block.clone()] };
        let again = |_| Ok(one.clone());
        let fused = sparse.step(&Feed::new(1, 1, Key::new(0), &again), rate).unwrap();

        let mut loss = 0.0;
        for step in steps.iter().filter(|step| !step.is_empty()) {
            let mut all: Vec<&Pair> = step.iter().flat_map(|pair| std::iter::repeat_n(pair, pair.3)).collect();
            // The oracle needs a word that was seen. Two rows of zeros serve as one; they have the loss log 2 and do not change.
            let seen = all.iter().any(|pair| pair.2);
            let stand_in = (sparse.input.len() as u32, sparse.output.len() as u32, true, 1);
            if !seen {
                all.push(&stand_in);
                loss -= 2f64.ln();
            }
            let pair = |_| {
                let (left, right) = all.iter().map(|pair| (pair.0, pair.1)).unzip();
                let labels = all.iter().map(|pair| u32::from(pair.2)).collect();
                Ok(pair::Batch {
                    left: vec![Ids(left)],
                    right: vec![Ids(right)],
                    samples: vec![0; all.len()],
                    known: Known::labels(labels),
                })
            };
            // The oracle takes the mean over the words that were seen.
            let seen = all.iter().filter(|pair| pair.2).count().max(1) as f64;
            let terms = dense.step(&Feed::new(1, all.len(), Key::new(0), &pair), rate * seen).unwrap();
            loss += terms.loss.to_scalar::<f64>().unwrap() * seen;
        }
        let what = format!("{contrast:?}");
        assert!(count > 300, "{what}: {count} pairs");
        let ours = fused.loss.to_scalar::<f64>().unwrap();
        assert!((ours - loss / count as f64).abs() < 1e-5, "{what}: loss {ours} for {}", loss / count as f64);
        for (fused, (exact, start)) in [sparse.vectors(), sparse.outputs()].iter().zip([input, output].iter().zip(&start)) {
            let exact = values(exact);
            // The accumulated gradient, (start − end) / rate, must agree to 1e-5 of its largest value.
            let gradients = exact.iter().zip(start).map(|(e, s)| (s - e) / rate);
            let largest = gradients.clone().fold(0.0f64, |m, g| m.max(g.abs()));
            assert!(largest > 0.01, "{what}: the rows moved");
            for ((g, s), f) in gradients.zip(start).zip(fused) {
                let ours = (s - f64::from(*f)) / rate;
                assert!((ours - g).abs() < 1e-5 * largest, "{what}: {ours} against {g}, the largest being {largest}");
            }
        }
    }
}

/// Three passes over the corpus; returns the mean loss of the last.
fn trained(threads: usize) -> (Sparse, f64) {
    pass_three_times(sparse(&corpus(), threads))
}

fn in_shards(threads: usize, shards: usize) -> (Sparse, f64) {
    let settings = Settings { shards: Some(shards), ..sparse(&corpus(), 1).settings };
    pass_three_times(Sparse::new(corpus().vocabulary(), settings, Key::new(1)).unwrap().threads(threads))
}

fn pass_three_times(mut sparse: Sparse) -> (Sparse, f64) {
    let corpus = corpus();
    let windows = Windows::new(&corpus, 4, 0.01);
    let mut loss = 0.0;
    for epoch in 0..3 {
        let draw = |part: usize| windows.draw(&[part as u32], Key::new(5).at(epoch));
        let terms = sparse.step(&Feed::new(windows.len(), windows.len(), Key::new(0), &draw), 0.05).unwrap();
        loss = terms.loss.to_scalar::<f64>().unwrap();
    }
    (sparse, loss)
}

#[test]
fn one_thread_is_reproducible_and_many_learn_the_same() {
    let ((a, one), (b, _), (_, four)) = (trained(1), trained(1), trained(4));
    assert_eq!(a.vectors(), b.vectors(), "one thread, the same bits");
    assert_eq!(a.outputs(), b.outputs());
    assert!((one - four).abs() < 0.05 * one, "{one} alone, {four} by four");
}

#[test]
fn products_of_bf16_learn_as_much() {
    let settings = Settings { precision: Precision::Bf16, ..sparse(&corpus(), 1).settings };
    let (half, loss) = pass_three_times(Sparse::new(corpus().vocabulary(), settings, Key::new(1)).unwrap().threads(1));
    let (whole, expected) = trained(1);
    assert!((loss / expected - 1.0).abs() < 5e-3, "loss {loss}, {expected} in f32");
    let (a, b) = (half.vectors(), whole.vectors());
    let dot = |x: &[f32], y: &[f32]| x.iter().zip(y).map(|(x, y)| f64::from(x * y)).sum::<f64>();
    let cosine = dot(&a, &b) / (dot(&a, &a) * dot(&b, &b)).sqrt();
    assert!(cosine > 0.999, "{cosine}");
}

#[test]
fn shards_give_the_same_bits_on_any_number_of_threads_and_learn_the_same() {
    let (one, loss) = in_shards(1, 3);
    for threads in [2, 3, 8] {
        let (other, same) = in_shards(threads, 3);
        assert!(one.vectors() == other.vectors() && one.outputs() == other.outputs(), "{threads} threads");
        assert_eq!(loss, same);
    }
    assert_ne!(one.vectors(), in_shards(1, 2).0.vectors(), "the number of shards shows");
    // A single shard trains as a thread does, except for the rounding of base + (copy - base).
    let ((single, _), (plain, _)) = (in_shards(2, 1), trained(1));
    let apart = single.vectors().iter().zip(plain.vectors()).fold(0.0f32, |m, (a, b)| m.max((a - b).abs()));
    assert!(apart < 1e-5, "{apart}");
}

#[test]
fn shards_learn_as_much_as_one_thread_does() {
    let corpus = Corpus::from_text(&language::text(200_000, Key::new(0)), Limits { min_count: 3, max_size: None }).unwrap();
    let windows = Windows::new(&corpus, 4, 0.01);
    let [free, sharded] = [None, Some(4)].map(|shards| {
        let settings = Settings { shards, ..sparse(&corpus, 1).settings };
        let mut sparse = Sparse::new(corpus.vocabulary(), settings, Key::new(1)).unwrap().threads(1);
        let step = |from: u32| (from..(from + 16).min(windows.len() as u32)).collect::<Vec<_>>();
        let mut last = 0.0;
        for epoch in 0..2 {
            let mut losses = Vec::new();
            for blocks in (0..windows.len() as u32).step_by(16).map(step) {
                let draw = |part: usize| windows.draw(&blocks[part..part + 1], Key::new(5).at(epoch));
                let terms = sparse.step(&Feed::new(blocks.len(), blocks.len(), Key::new(0), &draw), 0.05).unwrap();
                losses.push(terms.loss.to_scalar::<f64>().unwrap());
            }
            last = losses.iter().sum::<f64>() / losses.len() as f64;
        }
        last
    });
    assert!((sharded - free).abs() < 0.05 * free, "{sharded} in shards, {free} without a lock");
}

#[test]
fn an_error_in_a_part_reaches_the_caller() {
    let corpus = corpus();
    for threads in [1, 2] {
        let broken = |part: usize| if part == 2 { Err(Error::new("part two is broken")) } else { Ok(Batch::default()) };
        let error = sparse(&corpus, threads).step(&Feed::new(4, 4, Key::new(0), &broken), 0.1).err().unwrap();
        assert!(error.to_string().contains("part two is broken"));
    }
}

#[test]
fn rows_of_words_and_of_n_grams_go_where_the_new_text_has_them() {
    let corpus = corpus();
    let of = |words: &[&str], seed: u64| {
        let vocabulary = Vocabulary::new(words.iter().map(|word| word.to_string()).collect(), vec![5; words.len()]);
        let subwords = Some(Subwords { min: 3, max: 4, buckets: 50 });
        Sparse::new(&vocabulary, Settings { subwords, ..sparse(&corpus, 1).settings }, Key::new(seed)).unwrap()
    };
    let (old, mut new) = (of(&["cat", "dog"], 1), of(&["dog", "emu", "cat"], 2));
    let place = [("cat".to_string(), 0), ("dog".to_string(), 1)].into();
    let fresh = new.input.to_vec();
    new.begin_with(&Vectors { place, input: old.input.to_vec(), output: old.outputs(), width: 20 });
    let (was, is) = (old.input.to_vec(), new.input.to_vec());
    let row = |values: &[f32], row: usize| values[20 * row..20 * (row + 1)].to_vec();
    assert_eq!((row(&is, 0), row(&is, 2), row(&is, 1)), (row(&was, 1), row(&was, 0), row(&fresh, 1)));
    assert_eq!(is[20 * 3..], was[20 * 2..], "n-grams stand behind the words, however many there are");
    assert_eq!(row(&new.vectors(), 0), row(&old.vectors(), 1), "what is published of a word that both have is the same");
}
