use ctk_core::{feed::*, learner::Learner, rng::Key, source::Source};
use ctk_text::{
    corpus::*,
    word2vec::{sparse::*, windows::*},
};
use std::time::Instant;
fn main() {
    let a: Vec<String> = std::env::args().collect();
    let (epochs, threads, seed): (usize, usize, u64) = (a[3].parse().unwrap(), a[4].parse().unwrap(), a[5].parse().unwrap());
    let width: usize = a.get(6).map_or(100, |w| w.parse().unwrap());
    let t = Instant::now();
    let corpus =
        Corpus::read(&find(&[a[1].clone()]).unwrap(), &Reading::default(), Limits { min_count: 5, max_size: None }).unwrap();
    println!(
        "read {:.2}s tokens {} vocabulary {} blocks {}",
        t.elapsed().as_secs_f64(),
        corpus.tokens(),
        corpus.vocabulary().len(),
        corpus.len()
    );
    let windows = Windows::new(&corpus, 5, 1e-4);
    let key = Key::new(seed);
    let mut sparse = Sparse::new(
        corpus.vocabulary(),
        Settings { width, negatives: 5, power: 0.75, rate: a.get(7).map_or(0.025, |r| r.parse().unwrap()) },
        key,
    )
    .threads(threads);
    let order = Order::new(windows.len(), 64, 1, true, false, key);
    let (mut pairs, mut kept) = (0usize, 0usize);
    for i in 0..windows.len().min(1000) {
        for b in windows.draw(&[i as u32], key).unwrap().blocks {
            kept += b.ids.len();
            pairs += b.windows().map(|(_, [l, r])| l.len() + r.len()).sum::<usize>();
        }
    }
    println!("first 1000 blocks: kept {kept} pairs {pairs}");
    let t = Instant::now();
    let last = epochs * order.steps();
    for step in 0..last {
        let (e, w) = (step / order.steps(), step % order.steps());
        let draw = |p: usize| windows.draw(&order.samples(e, w, p), key.of("views").at(e as u64));
        let rate = a.get(7).map_or(0.025, |r| r.parse::<f64>().unwrap()) * (1.0 - step as f64 / last as f64);
        let terms = sparse.step(&Feed::new(order.parts(), key.of("step").at(step as u64), &draw), rate).unwrap();
        if step % 50 == 0 {
            println!("{step}/{last} {:.4}", terms.loss.to_scalar::<f64>().unwrap());
        }
    }
    let s = t.elapsed().as_secs_f64();
    println!("train {s:.2}s {:.0} words/s", (corpus.tokens() * epochs as u64) as f64 / s);
    let f = ctk_core::eval::Features {
        rows: sparse.vectors(),
        width,
        names: corpus.vocabulary().words().to_vec(),
        ..Default::default()
    };
    ctk_text::word2vec::files::write_binary(&f, a[2].as_ref()).unwrap();
}
