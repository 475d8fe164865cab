//! SimCLR on time series: an example of how to add a modality. Run it: `cargo run --release -p timeseries -- train timeseries`

use ctk_core::data::{pair::Maps, pair::PairGenerator, source::Paired};
use ctk_core::modality::{Job, Modality, Model, Query, Split, Summary};
use ctk_core::model::encoder::{Chain, represent};
use ctk_core::nn::{BatchNorm, Layer, Linear, params::Init, params::ParamKind, params::Scope};
use ctk_core::store::{checkpoint::Checkpoint, run::Run};
use ctk_core::train::{fit::fit, plan::Plan, two_views::TwoViews};
use ctk_core::{Context, Device, Error, Result, eval::Features, opened, process::Process, recipe::Recipe, rng};
use rand::Rng as _;
use std::{f32::consts::TAU, path::Path, process::ExitCode};

// ANCHOR: data
/// Reads series from a CSV file (a row is `class,value,…`; the class may be empty) or generates them. Every fifth is in the test split.
fn series(path: Option<&Path>, split: Split) -> Result<Features> {
    let text = path.map_or_else(|| Ok(waves()), opened::text)?;
    let (mut all, mut classes) = (Features::default(), Vec::new());
    for (row, line) in text.lines().enumerate() {
        let name = format!("row {}", row + 1);
        let (class, values) = line.split_once(',').unwrap_or_default();
        let values: Option<Vec<f32>> = values.split(',').map(|v| v.trim().parse().ok().filter(|v: &f32| v.is_finite())).collect();
        let values = values.ok_or_else(|| Error::usage("a row is a class, a comma, and numbers").at(&name))?;
        all.push(&name, &values).at(&name)?;
        classes.push(class.to_string());
    }
    let of_split = |row: &usize| split == Split::All || (split == Split::Test) == row.is_multiple_of(5);
    Ok(all.labelled(&classes).select(&(0..classes.len()).filter(of_split).collect::<Vec<_>>()))
}

/// 600 sines, squares and saws with random period, phase and noise, as a file has them.
fn waves() -> String {
    let mut rng = rng::Key::new(0).of("waves").rng();
    let wave = |row: usize| {
        let (period, phase) = (rng.random_range(12.0..24.0f32), rng.random_range(0.0..1.0f32));
        let shape = |at: f32| [(TAU * at).sin(), (at - 0.5).signum(), 2.0 * at - 1.0][row % 3];
        let value = |t: u8| shape((f32::from(t) / period + phase).fract()) + rng.random_range(-1.0..1.0f32);
        let values: String = (0..128).map(value).map(|value| format!(",{value:.3}")).collect();
        format!("{}{values}\n", ["sine", "square", "saw"][row % 3])
    };
    (0..600).map(wave).collect()
}
// ANCHOR_END: data, ANCHOR: pairs
/// `[pairs]`: a positive pair is two random crops of one series, scaled, with noise.
#[derive(Clone, Default, serde::Serialize, serde::Deserialize, schemars::JsonSchema)]
#[serde(default, deny_unknown_fields)]
struct Crops {
    /// Values of a crop.
    length: usize,
    /// Each crop is multiplied by 1 - scaling to 1 + scaling.
    scaling: f32,
    /// To each value -jitter to jitter is added.
    jitter: f32,
}

impl PairGenerator for Crops {
    type Sample = Vec<f32>;
    type Left = Maps;
    type Right = ();

    fn pairs(&self, series: &Vec<f32>, rng: &mut rng::Rng, views: &mut [Maps], _: &mut [()]) -> Result<()> {
        views.iter_mut().try_for_each(|view| {
            let from = rng.random_range(0..=series.len().saturating_sub(self.length));
            let scale = 1.0 + rng.random_range(-self.scaling..=self.scaling);
            let crop = series.iter().skip(from).take(self.length);
            add(&crop.map(|value| scale * value + rng.random_range(-self.jitter..=self.jitter)).collect::<Vec<_>>(), view)
        })
    }
}
// ANCHOR_END: pairs, ANCHOR: encoder
const WINDOW: usize = 16; // Values that the first layer sees at once.
const WIDTH: usize = 64; // Values of what is learned of a series.

/// Adds a series to a view, as an image one pixel high whose pixels are overlapping windows.
fn add(series: &[f32], view: &mut Maps) -> Result<()> {
    let windows: Vec<&[f32]> = series.windows(WINDOW).step_by(WINDOW / 4).collect();
    view.push([1, windows.len(), WINDOW], &windows.concat())
}

/// Two layers over each window, then the mean of all windows.
fn encoder(mut scope: Scope) -> Chain<Maps> {
    let mut layers = Vec::new();
    for (name, inputs) in [("first", WINDOW), ("second", WIDTH)] {
        let (mut scope, init) = (scope.sub(name), Init::Normal { std: (2.0 / inputs as f64).sqrt() });
        layers.push(Layer::Linear(Linear::new([WIDTH, inputs], false, ParamKind::Weight, init, scope.sub("linear"))));
        layers.push(Layer::BatchNorm(BatchNorm::new(WIDTH, 1.0, scope.sub("norm")).relu()));
    }
    layers.push(Layer::GlobalAverage);
    Chain::new(layers, WIDTH, scope)
}
// ANCHOR_END: encoder, ANCHOR: job
struct Train(TwoViews<Crops>, Plan);

impl Job for Train {
    fn plan(&self) -> &Plan {
        &self.1
    }
    fn run(self: Box<Self>, run: &mut Run, process: &mut Process) -> Result<Summary> {
        let Train(recipe, plan) = *self;
        let mut learner = recipe.learner(encoder, process.device())?;
        let source = Paired { data: series(recipe.data.path.as_deref(), Split::Train)?, pairs: recipe.pairs };
        Ok(fit(&source, &mut learner, &plan, &mut [], run, process)?.into())
    }
}

struct Trained(TwoViews<Crops>, Chain<Maps>);

impl Model for Trained {
    fn features(&self, query: &Query) -> Result<Features> {
        let Trained(recipe, encoder) = self;
        let raw = series(query.data.as_deref().or(recipe.data.path.as_deref()), query.split)?;
        Ok(match query.baseline {
            Some(_) => raw,
            None => Features { rows: represent(encoder, &raw, |row, view| add(row, view))?, width: WIDTH, ..raw },
        })
    }
    fn baselines(&self) -> &'static [&'static str] {
        &["raw"]
    }
}
// ANCHOR_END: job, ANCHOR: modality
struct TimeSeries;

impl Modality for TimeSeries {
    fn name(&self) -> &'static str {
        "timeseries"
    }
    fn recipe(&self, _: Option<&Path>) -> Result<String> {
        Ok(include_str!("../recipe.toml").to_string())
    }
    fn schema(&self) -> serde_json::Value {
        schemars::schema_for!(TwoViews<Crops>).to_value()
    }
    fn plan(&self, text: &Recipe) -> Result<Box<dyn Job>> {
        let (recipe, plan) = TwoViews::<Crops>::check(self.name(), text)?;
        text.within("pairs.length", recipe.pairs.length, WINDOW..=1 << 20)?;
        text.within("pairs.scaling", recipe.pairs.scaling, 0.0..=1.0)?;
        text.within("pairs.jitter", recipe.pairs.jitter, 0.0..=1e3)?;
        Ok(Box::new(Train(recipe, plan)))
    }

    fn open(&self, from: &Checkpoint, device: &Device) -> Result<Box<dyn Model>> {
        let (recipe, encoder) = TwoViews::open(from, encoder, device)?;
        Ok(Box::new(Trained(recipe, encoder)))
    }
}

fn main() -> ExitCode {
    ctk::main(&[&TimeSeries])
}
