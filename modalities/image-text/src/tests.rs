//! Towers of images and captions: what learns and what is frozen, exact large batches, sets of equal pairs, and refused recipes.

use ctk_core::data::feed::Order;
use ctk_core::data::known::Known;
use ctk_core::data::pair::Batch;
use ctk_core::data::source::Source;
use ctk_core::modality::Modality;
use ctk_core::model::encoder::Encoder;
use ctk_core::model::tower::{Dual, Places, Tower, Towers as _};
use ctk_core::nn::params::Params;
use ctk_core::nn::pass::Pass;
use ctk_core::nn::rows::Rows;
use ctk_core::nn::tape::Tape;
use ctk_core::objective::spec::EmbeddingSpace;
use ctk_core::optim::Optimizer;
use ctk_core::recipe::{OptimizerRecipe, Recipe, SgdRecipe};
use ctk_core::rng::Key;
use ctk_core::train::dense::Dense;
use ctk_core::train::learner::Learner as _;
use ctk_core::world::solo;
use ctk_core::{DType, Device, Result, Tensor};
use ctk_text::sentences::start::Start;
use ctk_text::sentences::tokenizing::Tokenizing;

use crate::data::Data;
use crate::input::{Input, SideEncoder, Stacked};
use crate::network::{Begin, Sides, TextSide, Towers};
use crate::ready::Ready;
use crate::recipe::Checked;
use crate::source::{Captions, Images, Pairs, Tokens};
use crate::{ImageText, PATHS};

fn recipe(set: &[(&str, &str)]) -> Recipe {
    let mut recipe = Recipe::new("a.toml", ImageText.recipe(None).unwrap());
    let small = [("data.train", "18"), ("data.test", "9"), ("train.batch", "6")];
    small.iter().chain(set).for_each(|(key, value)| recipe.set(key, value).unwrap());
    ImageText.complete(&mut recipe).unwrap();
    recipe
}

struct Made {
    checked: Checked,
    data: Data,
    tokens: Tokens,
    sides: Sides,
}

fn made(set: &[(&str, &str)]) -> Result<Made> {
    let checked = Checked::new(&recipe(set))?;
    let data = Data::of_model(&checked.recipe.data, &checked.recipe.captions, None)?.joined(&checked.recipe.captions)?;
    let texts = || data.texts.all.iter().map(String::as_str).collect();
    let start = Start::new(&checked.recipe.text.of_sentences(), &checked.text.below("text"), texts)?;
    let described = start.described;
    let tokenizing = Tokenizing::new(start.tokenizer, described.rules.clone(), described.network.vocabulary())?;
    let (tokens, _) = Tokens::of(&tokenizing, &data.texts.all)?;
    let sides = Sides { stored_image: None, text: TextSide::Network(described.network) };
    Ok(Made { checked, data, tokens, sides })
}

impl Made {
    fn source(&self) -> Pairs<'_> {
        Pairs { data: &self.data.train, images: Images::Views(&self.checked.augment), captions: Captions::Tokens(&self.tokens) }
    }

    fn learner(&self) -> ctk_core::train::dense::Dense<Towers> {
        self.sides.learner(&self.checked, &Begin::default(), &Device::Cpu).unwrap()
    }
}

#[test]
fn a_caption_and_a_view_are_drawn_by_keys_of_their_own() {
    let made = made(&[("pairs.crop", "[0.3, 0.6]")]).unwrap();
    let source = made.source();
    let (key, other) = (Key::new(3), Key::new(4));
    let first = source.draw(&[4, 1], key).unwrap();
    let again = source.draw(&[1, 4], key).unwrap();
    assert_eq!(first.known.contents.len(), 2);
    let rows = |batch: &Batch<crate::input::Input, crate::input::Input>| match (&batch.left[0], &batch.right[0]) {
        (crate::input::Input::Pixels(left), crate::input::Input::Tokens(right)) => {
            let texts: Vec<Vec<u32>> = right.texts().map(<[u32]>::to_vec).collect();
            (0..2).map(|row| (left.row(row).to_vec(), texts[row].clone())).collect::<Vec<_>>()
        }
        _ => panic!("images and texts"),
    };
    let (first, again) = (rows(&first), rows(&again));
    assert!(first[0] == again[1] && first[1] == again[0], "a sample is the same at every place of a batch");
    let captions: std::collections::BTreeSet<Vec<u32>> =
        (0..20).map(|seed| rows(&source.draw(&[4, 1], Key::new(seed)).unwrap())[0].1.clone()).collect();
    assert_eq!(captions.len(), 3, "all captions of an image are drawn");
    assert!(rows(&source.draw(&[4, 1], other).unwrap())[0].0 != first[0].0, "another key, another view");
}

#[test]
fn images_of_one_class_are_one_set_and_are_masked() {
    let set = |same: &str| made(&[("captions.same", same)]).unwrap().data.train.sets;
    // Nine classes in turn, with the same captions for each image of a class.
    for same in ["captions", "captions-and-pixels"] {
        let sets = set(same);
        assert!((0..18).all(|at| sets[at] == sets[at % 9]) && sets[0] != sets[1], "{sets:?}");
    }
    assert_eq!(set("none"), (0..18).collect::<Vec<u32>>());
    let none = made(&[("captions.same", "none")]).unwrap();
    let masked = |made: &Made| {
        let mut learner = made.learner();
        let source = made.source();
        let batch = source.draw(&(0..18).collect::<Vec<u32>>(), Key::new(1)).unwrap();
        let (embeddings, _) =
            learner.towers.project(&batch, Default::default(), &Places::alone(18), &Pass::train(Key::new(0), &solo())).unwrap();
        let world = solo();
        let inputs = ctk_core::objective::Inputs {
            online: &embeddings,
            target: None,
            known: &batch.known,
            progress: 0.0,
            device: &Device::Cpu,
            world: &*world,
        };
        let terms = learner.objective.loss(&inputs).unwrap();
        learner.objective.after_step(&inputs).unwrap();
        let masked = terms.extras.iter().find(|(name, _)| *name == "masked");
        masked.map(|(_, share)| share.to_dtype(ctk_core::DType::F64).unwrap().to_scalar::<f64>().unwrap())
    };
    // Of 17 other captions one is of the same class.
    let share = masked(&made(&[]).unwrap()).unwrap();
    assert!((share - 1.0 / 17.0).abs() < 1e-6, "{share}");
    assert_eq!(masked(&none), Some(0.0));
}

#[test]
fn what_is_frozen_has_no_gradient_and_other_blocks_have() {
    let vit = ("image.encoder", "{ vit = { patch = 8, width = 16, layers = 3, heads = 2 } }");
    for (set, learns) in [
        (vec![("text.frozen", "true")], vec!["image.conv1.weight", "head.text.layers.0.weight"]),
        (vec![("image.frozen", "true")], vec!["text.words.weight", "head.image.layers.0.weight"]),
        (vec![vit, ("image.unlock_last", "1")], vec!["image.blocks.2.mlp.fc1.weight"]),
    ] {
        let made = made(&set).unwrap();
        let learner = made.learner();
        let batch = made.source().draw(&[0, 1, 2, 3], Key::new(1)).unwrap();
        let pass = Pass::train(Key::new(0), &solo());
        let (embeddings, tape) = learner.towers.project(&batch, Default::default(), &Places::alone(4), &pass).unwrap();
        let gradients: Vec<_> = (0..2)
            .map(|view| {
                let rows = &embeddings.view(view).unwrap().query;
                ctk_core::model::embeddings::EmbeddedGradient { query: Some(rows.clone()), key: None }
            })
            .collect();
        tape.play(&gradients).unwrap();
        let found = learner.params.gradients().unwrap();
        let names: Vec<&str> = learner.params.iter().zip(&found).filter(|(_, g)| g.is_some()).map(|(p, _)| p.name()).collect();
        for (param, gradient) in learner.params.iter().zip(&found).filter(|(p, _)| !p.name().starts_with("loss")) {
            assert_eq!(param.trained(), gradient.is_some(), "{} of {set:?}", param.name());
        }
        assert!(learns.iter().all(|name| names.contains(name)), "{set:?}: {names:?}");
        let frozen = learner.params.iter().filter(|p| p.kind().trained() && !p.trained()).count();
        assert!(frozen > 0, "{set:?}");
    }
}

/// An encoder whose images are f64 values.
struct Doubles(SideEncoder);

impl Encoder for Doubles {
    type Views = Input;

    fn width(&self) -> usize {
        self.0.width()
    }

    fn encode(&self, x: &Stacked, rows: &Rows, pass: &Pass) -> Result<(Tensor, Tape)> {
        match x {
            Stacked::Pixels(x) => self.0.encode(&Stacked::Pixels(x.to_dtype(DType::F64)?), rows, pass),
            _ => self.0.encode(x, rows, pass),
        }
    }
}

#[test]
fn a_batch_in_parts_has_the_gradient_of_the_whole_batch_in_f64() {
    let doubles = |tower: Tower<SideEncoder>| Tower { encoder: Doubles(tower.encoder), head: tower.head, predictor: None };
    for loss in ["{ infonce = { temperature = 0.07, learned = true } }", "{ siglip = {} }"] {
        let vit = ("image.encoder", "{ vit = { patch = 8, width = 16, layers = 2, heads = 2 } }");
        let made = made(&[vit, ("loss", loss), ("train.seed", "5")]).unwrap();
        let source = made.source();
        // The values behind one step of SGD at the rate 1, and those before it.
        let step = |part: usize| {
            let mut params = Params::new();
            let (Towers { left, right }, width) = made.sides.declare(&made.checked, &mut params).unwrap();
            let space = EmbeddingSpace { width, dtype: DType::F64 };
            let objective = made.checked.recipe.loss.build(&space, params.root().sub("loss")).unwrap();
            params.materialise(Key::new(5), DType::F64, &Device::Cpu).unwrap();
            let values = |params: &Params| -> Vec<f64> {
                params.iter().flat_map(|param| param.tensor().unwrap().flatten_all().unwrap().to_vec1::<f64>().unwrap()).collect()
            };
            let before = values(&params);
            let sgd = OptimizerRecipe::Sgd(SgdRecipe { momentum: 0.0, decay: 0.0, ..SgdRecipe::default() });
            let towers = Dual { left: doubles(left), right: doubles(right) };
            let mut learner = Dense::new(towers, objective, params, Optimizer::new(&sgd));
            let order = Order::new(source.len(), 18, part, false, true, Key::new(5)).with_passes(learner.passes());
            let draw = |unit: usize| order.draw(&source, unit, Key::new(6));
            learner.stages(&order.feed(0, Key::new(7), &draw), 1.0, &mut |_| ()).unwrap();
            let after = values(&learner.params);
            before.iter().zip(&after).map(|(before, after)| after - before).collect::<Vec<f64>>()
        };
        let (whole, parts) = (step(18), step(5));
        let norm = |of: &mut dyn Iterator<Item = f64>| of.map(|value| value * value).sum::<f64>().sqrt();
        let off = norm(&mut whole.iter().zip(&parts).map(|(a, b)| a - b)) / norm(&mut whole.iter().copied());
        assert!(off < 1e-6 && norm(&mut whole.iter().copied()) > 1e-3, "{loss}: off by {off:e}");
    }
}

#[test]
fn a_frozen_text_tower_reads_each_caption_once() {
    let set = [("text.frozen", "true"), ("train.epochs", "50")];
    let checked = Checked::new(&recipe(&set)).unwrap();
    let data = Data::of_model(&checked.recipe.data, &checked.recipe.captions, None).unwrap();
    let mut ready = Ready::new(&checked, &data, None).unwrap();
    let learner = ready.learner(&checked, &Device::Cpu).unwrap();
    let z = |ready: &Ready| {
        let batch = ready.source(&checked, &data).draw(&[3, 1, 2], Key::new(1)).unwrap();
        let pass = Pass::train(Key::new(0), &solo());
        let (embeddings, _) = learner.towers.project(&batch, Default::default(), &Places::alone(3), &pass).unwrap();
        let values = |view: usize| embeddings.view(view).unwrap().query.flatten_all().unwrap().to_vec1::<f32>().unwrap();
        [values(0), values(1)].concat()
    };
    let each_time = z(&ready);
    let few = Checked::new(&recipe(&[("text.frozen", "true"), ("train.max_steps", "1")])).unwrap();
    assert!(
        ready.read_once(&few, data.train.len(), &learner.towers.right.encoder).unwrap().is_none(),
        "a step reads six captions"
    );
    let learns = Checked::new(&recipe(&set[1..])).unwrap();
    assert!(ready.read_once(&learns, data.train.len(), &learner.towers.right.encoder).unwrap().is_none(), "the tower learns");
    let note = ready.read_once(&checked, data.train.len(), &learner.towers.right.encoder).unwrap().unwrap();
    assert!(note.contains("27 captions"), "{note}");
    let once = z(&ready);
    let off = each_time.iter().zip(&once).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
    assert_eq!(off, 0.0);
}

#[test]
fn keys_that_hold_paths_name_the_weights_of_every_encoder() {
    for name in ctk_vision::tower::WEIGHTS {
        assert!(PATHS.contains(&format!("image.{name}").as_str()), "{name}");
    }
}

#[test]
fn what_cannot_be_is_refused_with_its_line() {
    for (set, said) in [
        (("image.frozen", "\"x\""), "has to be true or false"),
        (("image.rate", "0.0"), "image.rate"),
        (("image.unlock_last", "2"), "needs an encoder of blocks"),
        (("text.unlock_last", "9"), "text.unlock_last: is 9, and the encoder has 1 blocks"),
        (("text.head.width", "32"), "image.head.width"),
        (("image.head.layers", "7"), "image.head.layers"),
        (("text.encoder.transformer.heads", "3"), "text.encoder.transformer.heads: must divide the width"),
        (("image.encoder.resnet.depth", "17"), "depth"),
        (("captions.prompts", "[\"no place\"]"), "captions.prompts: must each contain {class}"),
        (("captions.holdout", "1.5"), "captions.holdout"),
        (("captions.same", "\"pixels\""), "captions-and-pixels"),
        (("loss", "{ byol = {} }"), "loss.byol"),
        (("loss", "{ nt-xent = {} }"), "use [loss.infonce]"),
        (("train.batch", "1"), "train.batch: must be at least 2"),
        (("eval.every", "0"), "eval.every"),
        (("image.features", "\"f.npy\""), "image.encoder: cannot be beside `features`"),
        (("image.frozn", "true"), "frozen"),
    ] {
        let mut recipe = Recipe::new("a.toml", ImageText.recipe(None).unwrap());
        recipe.set(set.0, set.1).unwrap();
        let checked = Checked::new(&recipe)
            .and_then(|_| made(&[set]).and_then(|made| made.sides.learner(&made.checked, &Begin::default(), &Device::Cpu)));
        let error = checked.err().unwrap_or_else(|| panic!("{set:?} is taken"));
        assert!(error.to_string().contains(said) && error.to_string().contains("a.toml:"), "{set:?}: {error}");
        assert_eq!(error.exit_code(), 2, "{set:?}");
    }
    assert_eq!(Known::default().contents.len(), 0);
}
