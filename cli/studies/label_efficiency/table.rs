//! The table of a study: means over seeds, paired differences, and what they leave out; for people, scripts and eyes.

use std::path::Path;

use ctk_core::data::labels::Amount;
use ctk_core::error::Result;
use ctk_core::eval::spread::{paired, spread};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::plot;
use crate::shared::args::Method;
use crate::shared::output::{self, percent};

/// What the figures leave out.
const NOTE: &str = "± is the standard deviation over label subsets, whose seeds seed training too (with all labels: only training); \
    intervals are Student's, 95 %, of paired differences. Both leave out the variance of pretraining: there was one pretraining.";

/// What a cell found, as stored in its folder.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Cell {
    pub labels: Amount,
    /// Labelled samples.
    pub labelled: usize,
    pub seed: u64,
    pub method: Method,
    pub top1: f64,
}

pub struct Table {
    /// What samples are called: `images`, `texts`.
    samples: &'static str,
    /// By labelled samples, seed and method.
    cells: Vec<Cell>,
    /// Rows: amounts of labels, few first.
    amounts: Vec<Amount>,
    /// Columns.
    methods: Vec<Method>,
}

impl Table {
    pub fn new(mut cells: Vec<Cell>, samples: &'static str) -> Table {
        cells.sort_by(|a, b| {
            let key = |cell: &Cell| (cell.labelled, cell.labels.to_string(), cell.seed, cell.method);
            key(a).cmp(&key(b))
        });
        let mut amounts: Vec<Amount> = cells.iter().map(|cell| cell.labels).collect();
        amounts.dedup();
        let mut methods: Vec<Method> = cells.iter().map(|cell| cell.method).collect();
        methods.sort();
        methods.dedup();
        Table { samples, cells, amounts, methods }
    }

    fn of(&self, labels: Amount, method: Method) -> impl Iterator<Item = &Cell> {
        self.cells.iter().filter(move |cell| cell.labels == labels && cell.method == method)
    }

    /// Mean, standard deviation and number of a method's accuracies at an amount of labels; none where it was not run.
    fn spread(&self, labels: Amount, method: Method) -> Option<(f64, Option<f64>, usize)> {
        let values: Vec<f64> = self.of(labels, method).map(|cell| cell.top1).collect();
        let (mean, sd) = spread(&values);
        (!values.is_empty()).then_some((mean, sd, values.len()))
    }

    /// Everything, for scripts.
    pub fn figures(&self, folder: &Path) -> Value {
        let (mut table, mut differences) = (Vec::new(), Vec::new());
        for &labels in &self.amounts {
            for &method in &self.methods {
                let Some((mean, sd, seeds)) = self.spread(labels, method) else { continue };
                let labelled = self.of(labels, method).next().map(|cell| cell.labelled);
                table.push(json!({
                    "labels": labels, "labelled": labelled, "method": method, "mean": mean, "sd": sd, "seeds": seeds,
                }));
            }
            for (at, &a) in self.methods.iter().enumerate().rev() {
                for &b in &self.methods[..at] {
                    let beside = |cell: &Cell| self.of(labels, b).find(|other| other.seed == cell.seed).map(|other| other.top1);
                    let pairs = self.of(labels, a).filter_map(|cell| Some((cell.top1, beside(cell)?)));
                    let (ours, theirs): (Vec<f64>, Vec<f64>) = pairs.unzip();
                    if ours.is_empty() {
                        continue;
                    }
                    let found = paired(&ours, &theirs);
                    differences.push(json!({
                        "labels": labels, "method": a, "than": b, "mean": found.mean, "interval": found.interval,
                        "pairs": found.pairs,
                    }));
                }
            }
        }
        json!({
            "out": folder.display().to_string(), "top1": table, "differences": differences, "cells": self.cells, "note": NOTE,
        })
    }

    /// The table, the differences and what they leave out, for people. `figures` are its own.
    pub fn tell(&self, figures: &Value) -> Result<()> {
        let mut table = Vec::new();
        for &labels in &self.amounts {
            let labelled = self.cells.iter().find(|cell| cell.labels == labels).map(|cell| cell.labelled);
            let mut row = json!({ "labels": labels, self.samples: labelled });
            for &method in &self.methods {
                row[method.said()] = json!(self.spread(labels, method).map(|(mean, sd, _)| {
                    let mean = percent(mean);
                    sd.map_or(mean.clone(), |sd| format!("{mean} ± {}", percent(sd)))
                }));
            }
            table.push(row);
        }
        output::line(format!("top-1 accuracy on test {}, %", self.samples))?;
        output::rows(false, "top1", &table)?;
        let said = |value: &Value| Method::deserialize(value).map_or(String::new(), |method| method.said().to_string());
        let number = |value: &Value| value.as_f64().map_or("-".to_string(), percent);
        let row = |d: &Value| {
            let interval = d["interval"].as_array().map(|ends| format!("{} to {}", number(&ends[0]), number(&ends[1])));
            let what = format!("{} minus {}", said(&d["method"]), said(&d["than"]));
            json!({ "difference": what, "labels": d["labels"], "mean, points": number(&d["mean"]), "95 % interval": interval })
        };
        let differences: Vec<Value> = figures["differences"].as_array().into_iter().flatten().map(row).collect();
        if !differences.is_empty() {
            output::line("")?;
            output::rows(false, "differences", &differences)?;
        }
        output::line(format!("\n{NOTE}"))
    }

    /// One line for each cell. No value needs quoting.
    pub fn csv(&self) -> String {
        let line = |cell: &Cell| format!("{},{},{},{},{}\n", cell.labels, cell.labelled, cell.seed, cell.method, cell.top1);
        format!("labels,labelled,seed,method,top1\n{}", self.cells.iter().map(line).collect::<String>())
    }

    /// An SVG, of the study of `run`, whose data has so many `classes`, where that is known.
    pub fn plot(&self, run: &str, classes: Option<usize>) -> String {
        let curve = |&method: &Method| plot::Curve {
            name: method.said().to_string(),
            points: self.amounts.iter().map(|&labels| self.spread(labels, method).map(|(mean, sd, _)| (mean, sd))).collect(),
        };
        let images = |labels| self.cells.iter().find(|cell| cell.labels == labels).map_or(0, |cell| cell.labelled);
        let spreads = self.amounts.iter().flat_map(|&labels| self.methods.iter().filter_map(move |&m| self.spread(labels, m)));
        let seeds = spreads.fold((usize::MAX, 0), |(least, most), (_, _, seeds)| (least.min(seeds), most.max(seeds)));
        let plot = plot::Plot {
            run: run.to_string(),
            samples: self.samples,
            labels: self.amounts.iter().map(|&labels| (labels.to_string(), images(labels))).collect(),
            chance: classes.filter(|classes| *classes > 0).map(|classes| 1.0 / classes as f64),
            seeds,
            curves: self.methods.iter().map(curve).collect(),
        };
        plot.svg()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_not_run_is_left_out_and_pairs_are_of_one_seed() {
        let cell =
            |labels, seed, method, top1| Cell { labels: Amount::Percent(labels), labelled: labels as usize, seed, method, top1 };
        let table = Table::new(
            vec![
                cell(100.0, 0, Method::Finetune, 0.9),
                cell(10.0, 1, Method::Scratch, 0.5),
                cell(10.0, 2, Method::Finetune, 0.8),
                cell(10.0, 1, Method::Finetune, 0.6),
                cell(10.0, 1, Method::Distill, 0.7),
            ],
            "images",
        );
        let figures = table.figures(Path::new("study"));
        let rows: Vec<_> =
            figures["top1"].as_array().unwrap().iter().map(|row| (row["labels"].to_string(), row["seeds"].as_u64())).collect();
        let ten = "\"10%\"".to_string();
        assert_eq!(rows, [(ten.clone(), Some(1)), (ten.clone(), Some(2)), (ten, Some(1)), ("\"100%\"".to_string(), Some(1))]);
        let differences = figures["differences"].as_array().unwrap();
        assert_eq!(differences.len(), 3, "with all labels there is nothing to compare with");
        let tuned = differences.iter().find(|d| d["method"] == "finetune").unwrap();
        assert!((tuned["mean"].as_f64().unwrap() - 0.1).abs() < 1e-12 && tuned["pairs"] == 1, "{tuned}");
        assert_eq!(table.csv().lines().nth(1), Some("10%,10,1,scratch,0.5"));
        let plot = table.plot("runs/a", Some(4));
        assert_eq!(plot.matches("<polyline").count(), 3, "a curve a method");
        for text in ["runs/a", "chance 25.0 %", "10 images", "100 images", "over 1 to 2 label subsets"] {
            assert!(plot.contains(text), "{text}: {plot}");
        }
    }
}
