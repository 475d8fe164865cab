//! `ctk neighbors` and `ctk analogy`: what lies nearest to words and to sums of them.

use ctk_core::error::Result;
use ctk_core::eval::{Sum, doesnt_match, search};
use serde_json::{Value, json};

use crate::Modalities;
use crate::shared::args::{Analogy, ModelArgs, Neighbors};
use crate::shared::model::{open, query};
use crate::shared::output;

pub fn run(args: Neighbors, modalities: Modalities) -> Result<()> {
    let words: Vec<&str> = args.words.iter().map(String::as_str).collect();
    if args.doesnt_match {
        return odd(&args.model, &words, modalities);
    }
    if args.together || !args.negative.is_empty() {
        let sum = Sum { positive: words, negative: args.negative.iter().map(String::as_str).collect() };
        let near = find(&args.model, std::slice::from_ref(&sum), args.count, modalities)?.remove(0);
        if args.model.show.json {
            return output::line(json!({ "positive": sum.positive, "negative": sum.negative, "neighbors": objects(&near) }));
        }
        return print("", &near);
    }
    let sums: Vec<Sum> = words.iter().map(|word| Sum { positive: vec![word], negative: Vec::new() }).collect();
    let found = find(&args.model, &sums, args.count, modalities)?;
    if args.model.show.json {
        return output::line(words.iter().zip(&found).map(|(word, near)| (word.to_string(), objects(near))).collect::<Value>());
    }
    words.iter().zip(&found).try_for_each(|(word, near)| {
        output::line(word)?;
        print("  ", near)
    })
}

/// `ctk analogy`: a is to b as c is to what?
pub fn analogy(args: Analogy, modalities: Modalities) -> Result<()> {
    let sum = Sum { positive: vec![&args.b, &args.c], negative: vec![&args.a] };
    let near = find(&args.model, &[sum], args.count, modalities)?.remove(0);
    match args.model.show.json {
        true => output::line(json!({ "question": [args.a, args.b, args.c], "answers": objects(&near) })),
        false => print("", &near),
    }
}

fn odd(args: &ModelArgs, words: &[&str], modalities: Modalities) -> Result<()> {
    let model = open(args, modalities)?;
    let (odd, cosines) = doesnt_match(&*model.table(&query(args))?, words)?;
    if !args.show.json {
        return output::line(words[odd]);
    }
    let cosines: Value = words.iter().zip(cosines).map(|(word, cosine)| (word.to_string(), json!(cosine))).collect();
    output::line(json!({ "doesnt_match": words[odd], "cosines": cosines }))
}

type Near = Vec<(String, f32)>;

fn find(args: &ModelArgs, sums: &[Sum], count: usize, modalities: Modalities) -> Result<Vec<Near>> {
    let model = open(args, modalities)?;
    search(&*model.table(&query(args))?, sums, count)
}

fn objects(near: &Near) -> Value {
    near.iter().map(|(name, cosine)| json!({ "name": name, "cosine": cosine })).collect()
}

fn print(indent: &str, near: &Near) -> Result<()> {
    near.iter().try_for_each(|(name, cosine)| output::line(format!("{indent}{cosine:.4}  {name}")))
}
