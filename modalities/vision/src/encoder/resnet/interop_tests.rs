//! Tests of the key map, of inference, and of round trips, without another program; and that refusals leave nothing behind.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::fs;
use std::path::{Path, PathBuf};

use candle_core::{DType, Device, Tensor};
use ctk_core::modality::Modality;
use ctk_core::model::encoder::Encoder as _;
use ctk_core::model::head::ProjectionHead;
use ctk_core::nn::params::Params;
use ctk_core::process::Process;
use ctk_core::recipe::{HeadRecipe, Norms, Recipe};
use ctk_core::rng::Key;
use ctk_core::store::run::{Place, Run};
use ctk_core::{Error, Result};
use ctk_images::augment::{AugmentRecipe, Evaluation, Filter, Fit, Offset};
use rand::Rng as _;
use tempfile::TempDir;

use super::names::{Layout, Names};
use super::recipe::ALL_DEPTHS;
use super::{ResNet, ResnetRecipe, Stem, Variant, Weights, export, infer};
use crate::Vision;
use crate::encoder::file::File;
use crate::encoder::input::Input;
use crate::encoder::{EncoderRecipe, Exported};

const LAYOUTS: [Layout; 3] = [Layout::Torchvision, Layout::Transformers, Layout::Simclrv2];

fn imagenet(depth: usize, width: f64) -> ResnetRecipe {
    ResnetRecipe { depth, width, stem: Stem::Imagenet, ..Default::default() }
}

fn selecting(depth: usize, width: f64) -> ResnetRecipe {
    ResnetRecipe { sk_ratio: 0.0625, variant: Variant::Simclrv2Pytorch, ..imagenet(depth, width) }
}

fn declared(of: &ResnetRecipe, head: &HeadRecipe) -> Params {
    let mut params = Params::new();
    let width = ResNet::new(of, params.root().sub("encoder")).unwrap().width();
    ProjectionHead::new(head, width, params.root().sub("head"));
    params
}

const NO_HEAD: HeadRecipe = HeadRecipe { layers: 0, width: 128, hidden: None, norms: Norms::All, bias: true };

/// All tensors differ from their initial constants; otherwise a swapped tensor would not be noticed.
fn filled(of: &ResnetRecipe, head: &HeadRecipe, seed: u64) -> Params {
    let params = declared(of, head);
    params.materialise(Key::new(seed), DType::F32, &ctk_core::Device::Cpu).unwrap();
    for param in params.iter().filter(|param| param.dims().len() == 1) {
        let mut rng = Key::new(seed).of(param.name()).rng();
        let values: Vec<f32> = (0..param.dims()[0]).map(|_| rng.random_range(0.5..1.1)).collect();
        param.var().set(&Tensor::from_vec(values, param.dims(), &Device::Cpu).unwrap()).unwrap();
    }
    params
}

/// The conversion's names, with both of its parts.
fn whole_conversion(selects: bool) -> Names {
    let names = Names::of(Layout::Simclrv2, selects);
    let has = |name: &str| {
        ["layer1.0.conv1.weight", "layer1.0.sk.conv1.weight"]
            .iter()
            .any(|ours| names.encoder(ours).is_some_and(|theirs| name == format!("resnet.{theirs}")))
    };
    let found = Names::recognise(has).unwrap();
    assert_eq!(found.head("norms.1.running_var").unwrap(), "head.layers.4.running_var");
    found
}

/// Writes the parameters with a layout's names, changed by `change`.
fn write(names: &Names, params: &Params, path: &Path, change: impl FnOnce(&mut BTreeMap<String, Tensor>)) {
    let bytes = match params.section("head").unwrap().is_empty() {
        true => export::weights(names, params.section("encoder").unwrap().into_iter().collect(), None).unwrap(),
        false => {
            let of = |(name, tensor): (String, Tensor)| (names.encoder(&name).unwrap(), tensor);
            let mut all: BTreeMap<String, Tensor> = params.section("encoder").unwrap().into_iter().map(of).collect();
            all.extend(params.section("head").unwrap().into_iter().map(|(name, tensor)| (names.head(&name).unwrap(), tensor)));
            safetensors::serialize(&all, None).unwrap()
        }
    };
    let mut tensors: BTreeMap<String, Tensor> =
        candle_core::safetensors::load_buffer(&bytes, &Device::Cpu).unwrap().into_iter().collect();
    change(&mut tensors);
    fs::write(path, safetensors::serialize(&tensors, None).unwrap()).unwrap();
}

fn bits(params: &Params, section: &str) -> BTreeMap<String, Vec<u32>> {
    let values = |tensor: Tensor| tensor.flatten_all().unwrap().to_vec1::<f32>().unwrap().into_iter().map(f32::to_bits).collect();
    params.section(section).unwrap().into_iter().map(|(name, tensor)| (name, values(tensor))).collect()
}

#[test]
fn every_key_map_gives_every_tensor_a_name_of_its_own() {
    for (of, layouts) in [
        (imagenet(18, 1.0), &LAYOUTS[..2]),
        (imagenet(50, 1.0), &LAYOUTS[..]),
        (selecting(50, 1.0), &[Layout::Torchvision, Layout::Simclrv2]),
    ] {
        let params = declared(&of, &HeadRecipe::default());
        for &layout in layouts {
            let names = Names::of(layout, of.selects());
            let ours = params.iter().filter_map(|param| param.name().strip_prefix("encoder."));
            let theirs: Vec<String> =
                ours.map(|ours| names.encoder(ours).unwrap_or_else(|| panic!("{layout}: {ours}"))).collect();
            assert_eq!(theirs.iter().collect::<BTreeSet<_>>().len(), theirs.len(), "{layout}: two tensors have one name");
            assert!(theirs.iter().all(|name| !names.ignored(name)), "{layout}");
        }
    }
    let names = Names::of(Layout::Transformers, true);
    assert_eq!(names.encoder("layer2.0.sk.conv1.weight"), None, "it has no selective kernels");
    let known = |layout, selects, ours: &str| Names::of(layout, selects).encoder(ours).unwrap();
    assert_eq!(
        known(Layout::Transformers, false, "layer2.1.bn3.running_mean"),
        "encoder.stages.1.layers.1.layer.2.normalization.running_mean"
    );
    assert_eq!(known(Layout::Simclrv2, false, "layer3.0.downsample.1.bias"), "net.3.blocks.0.projection.bn.0.bias");
    assert_eq!(known(Layout::Simclrv2, true, "layer3.0.downsample.1.weight"), "net.3.blocks.0.projection.shortcut.2.weight");
    assert_eq!(known(Layout::Simclrv2, true, "layer4.2.bn2.weight"), "net.4.blocks.2.net.2.main_conv.1.0.weight");
}

#[test]
fn what_is_written_is_read_as_the_same_network_and_the_same_bits() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("model.safetensors");
    let head = HeadRecipe { layers: 3, width: 16, ..HeadRecipe::default() };
    let google = ResnetRecipe { variant: Variant::Google, ..imagenet(18, 0.25) };
    let small = ResnetRecipe { stem: Stem::Small, ..imagenet(18, 0.25) };
    let averaging = ResnetRecipe { variant: Variant::ResnetD, ..imagenet(18, 0.25) };
    for (of, names, head) in [
        (averaging, Names::of(Layout::Torchvision, false), &NO_HEAD),
        (imagenet(18, 0.25), Names::of(Layout::Torchvision, false), &NO_HEAD),
        (google, Names::of(Layout::Torchvision, false), &NO_HEAD),
        (small, Names::of(Layout::Torchvision, false), &NO_HEAD),
        (imagenet(18, 0.25), Names::of(Layout::Transformers, false), &NO_HEAD),
        (imagenet(50, 0.5), Names::of(Layout::Torchvision, false), &NO_HEAD),
        (imagenet(50, 0.5), Names::of(Layout::Transformers, false), &NO_HEAD),
        (imagenet(50, 0.25), whole_conversion(false), &head),
        (selecting(50, 0.25), whole_conversion(true), &head),
    ] {
        let params = filled(&of, head, 1);
        write(&names, &params, &path, |_| ());
        let weights = Weights::open(&path).unwrap();
        assert_eq!((weights.layout(), weights.encoder().unwrap()), (names.layout, of.clone()));
        assert_eq!(weights.head(), *head);
        let other = filled(&of, head, 2);
        weights.load(&other, head.layers > 0).unwrap();
        for section in ["encoder", "head"] {
            assert_eq!(bits(&other, section), bits(&params, section), "{of:?}");
        }
        // Only the encoder, whatever else is in the file.
        let alone = filled(&of, &NO_HEAD, 3);
        weights.load(&alone, false).unwrap();
        assert_eq!(bits(&alone, "encoder"), bits(&params, "encoder"));
    }
}

#[test]
fn shapes_say_depth_width_stem_and_gates() {
    let mut networks = Vec::new();
    for depth in ALL_DEPTHS {
        for width in [0.25, 0.3, 0.5, 0.75, 1.0, 1.5, 2.0, 3.0, 4.0] {
            for stem in [Stem::Small, Stem::Imagenet] {
                for variant in [Variant::Torchvision, Variant::Google, Variant::ResnetD] {
                    networks.push(ResnetRecipe { depth, width, stem, variant, ..Default::default() });
                }
                networks.push(ResnetRecipe { depth, width, stem, sk_ratio: 0.0625, ..Default::default() });
                networks.push(ResnetRecipe { depth, width, stem, sk_ratio: 0.3, ..Default::default() });
            }
        }
    }
    let mut count = 0;
    // Deep networks with one width only: their many names take time to declare.
    let wanted = |of: &ResnetRecipe| of.check().is_ok() && (of.depth <= 56 || of.width == 3.0);
    for of in networks.into_iter().filter(wanted) {
        let params = declared(&of, &NO_HEAD);
        for layout in LAYOUTS {
            let names = Names::of(layout, of.selects());
            let shapes =
                params.iter().map(|param| Some((names.encoder(param.name().strip_prefix("encoder.")?)?, param.dims().to_vec())));
            let Some(shapes) = shapes.collect::<Option<BTreeMap<_, _>>>() else { continue };
            if layout != Layout::Torchvision && of.stem == Stem::Small {
                continue;
            }
            let file = File::imagined(shapes);
            assert_eq!(Names::recognise(|name| file.dims(name).is_some()), Some(names), "{of:?}");
            let found = infer::encoder(&names, &file).unwrap();
            let again = declared(&found, &NO_HEAD);
            // Several widths and ratios give the same channels; usual ones are found exactly.
            let same = |a: &Params, b: &Params| a.iter().zip(b.iter()).all(|(a, b)| a.name() == b.name() && a.dims() == b.dims());
            assert!(same(&params, &again) && params.iter().count() == again.iter().count(), "{found:?} for {of:?}");
            assert_eq!((found.depth, found.stem), (of.depth, of.stem));
            if of.width != 0.3 {
                assert_eq!(found.width, of.width, "{of:?}");
            }
            if of.sk_ratio == 0.0625 || of.sk_ratio == 0.0 {
                assert_eq!(found.sk_ratio, of.sk_ratio);
            }
            let variant = match (layout, of.selects()) {
                (Layout::Simclrv2, true) => Variant::Simclrv2Pytorch,
                _ if of.bottleneck() && of.variant == Variant::Google => Variant::Torchvision,
                _ => of.variant,
            };
            assert_eq!(found.variant, variant, "{layout}: {of:?}");
            assert!(infer::agree(&names, &file, &again, false).is_ok());
            count += 1;
        }
    }
    assert!(count > 350, "{count} networks");
}

/// Imports `path` with some keys set, into `out` in the folder.
fn import(folder: &Path, path: &Path, set: &[(&str, &str)]) -> Result<PathBuf> {
    let set = |recipe: &mut Recipe| set.iter().try_for_each(|(key, value)| recipe.set(key, value));
    let (recipe, job) = Vision.import(path, &set)?.ok_or_else(|| Error::new("not recognised"))?;
    let out = folder.join("out");
    let mut run = Run::new(Place::New(out.clone()), "vision", recipe)?;
    job.run(&mut run, &mut Process::new(ctk_core::Device::Cpu)).inspect_err(|_| run.abandon())?;
    Ok(out)
}

/// A folder with a small ResNet-18 in torchvision's names, changed by `change`.
fn small(change: impl FnOnce(&mut BTreeMap<String, Tensor>)) -> (TempDir, PathBuf, Params) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("model.safetensors");
    let params = filled(&imagenet(18, 0.25), &NO_HEAD, 1);
    write(&Names::of(Layout::Torchvision, false), &params, &path, |tensors| {
        let fc = Tensor::zeros((10, 128), DType::F32, &Device::Cpu).unwrap();
        tensors.insert("fc.weight".to_string(), fc);
        change(tensors);
    });
    (folder, path, params)
}

#[test]
fn an_import_is_a_run_of_step_0() {
    let (folder, path, params) = small(|_| ());
    let out = import(folder.path(), &path, &[("pairs.size", "48")]).unwrap();
    let checkpoint = ctk_core::store::checkpoint::Checkpoint::open(&out).unwrap();
    assert_eq!((checkpoint.manifest().step, checkpoint.manifest().modality.as_str()), (0, "vision"));
    let saved = checkpoint.reader().tensors("model.safetensors").unwrap();
    let values = |tensor: &Tensor| tensor.flatten_all().unwrap().to_vec1::<f32>().unwrap();
    for (name, tensor) in params.section("encoder").unwrap() {
        assert_eq!(values(&saved[&name]), values(&tensor), "{name}");
    }
    let recipe = crate::recipe::check(&checkpoint.recipe()).unwrap().recipe;
    assert_eq!((recipe.pairs.size, recipe.head.layers, recipe.pairs.normalise), (48, 0, Some(Input::IMAGENET)));
    assert!(Vision.open(&checkpoint, &ctk_core::Device::Cpu).is_ok());
    let error = import(folder.path(), &path, &[]).unwrap_err();
    assert!(error.exit_code() == 2 && error.to_string().contains("not empty"), "{error}");
    let error = import(folder.path(), &out, &[]).unwrap_err();
    assert!(error.exit_code() == 2 && error.to_string().contains("a run of ctk"), "{error}");
    for ours in [checkpoint.folder().to_path_buf(), checkpoint.folder().join("model.safetensors")] {
        let error = import(folder.path(), &ours, &[]).unwrap_err();
        assert!(error.exit_code() == 2 && error.to_string().contains("every verb takes it"), "{error}");
        assert_eq!(Weights::open(&ours).is_ok(), ours.is_file(), "a recipe may start from the file");
    }
}

#[test]
fn half_precision_is_widened() {
    for dtype in [DType::F16, DType::BF16, DType::F64] {
        let (folder, path, params) = small(|tensors| {
            tensors.values_mut().filter(|t| t.dtype() == DType::F32).for_each(|t| *t = t.to_dtype(dtype).unwrap());
        });
        let out = import(folder.path(), &path, &[]).unwrap();
        let saved = ctk_core::store::checkpoint::Checkpoint::open(&out).unwrap().reader().tensors("model.safetensors").unwrap();
        let (name, ours) = params.section("encoder").unwrap().swap_remove(0);
        let expected = ours.to_dtype(dtype).unwrap().to_dtype(DType::F32).unwrap();
        let values = |tensor: &Tensor| tensor.flatten_all().unwrap().to_vec1::<f32>().unwrap();
        assert_eq!(values(&saved[&name]), values(&expected), "{dtype:?}");
    }
}

/// Expects an error that contains each of `parts`, with a place and a hint, and that no run is left behind.
fn refused(folder: &Path, path: &Path, code: u8, parts: &[&str]) {
    let error = import(folder, path, &[]).unwrap_err();
    let text = error.to_string();
    assert!(parts.iter().all(|part| text.contains(part)), "{parts:?} in\n{text}");
    assert!(text.contains("\n  --> ") && text.contains("\nhint: "), "{text}");
    assert_eq!(error.exit_code(), code, "{text}");
    assert!(!folder.join("out").exists(), "something was left behind");
}

#[test]
fn what_is_wrong_with_a_file_is_said_and_nothing_is_left() {
    type Tensors = BTreeMap<String, Tensor>;
    let one = |dims: &[usize], value: f32| Tensor::full(value, dims, &Device::Cpu).unwrap();
    let check = |code: u8, parts: &[&str], change: &dyn Fn(&mut Tensors)| {
        let (folder, path, _) = small(change);
        refused(folder.path(), &path, code, parts);
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1);
    };
    check(2, &["`layer3.1.bn2.running_var` is missing"], &|t| drop(t.remove("layer3.1.bn2.running_var")));
    check(2, &["`attnpool.weight` (0 more)"], &|t| drop(t.insert("attnpool.weight".into(), one(&[1], 0.0))));
    check(2, &["`layer2.0.conv2.weight` has shape [1]", "[32, 32, 3, 3]"], &|t| {
        t.insert("layer2.0.conv2.weight".into(), one(&[1], 0.0));
    });
    check(1, &["`layer1.0.bn1.bias` is NaN"], &|t| drop(t.insert("layer1.0.bn1.bias".into(), one(&[16], f32::NAN))));
    check(1, &["a variance, is -1"], &|t| drop(t.insert("bn1.running_var".into(), one(&[16], -1.0))));
    check(2, &["quantised"], &|t| {
        t.insert("layer1.0.bn1.bias".into(), Tensor::zeros(16, DType::U8, &Device::Cpu).unwrap());
    });
    check(2, &["[2, 2, 2, 1]", "ResNet"], &|t| t.retain(|name, _| !name.starts_with("layer4.1.")));
    check(2, &["images of 2 channels"], &|t| drop(t.insert("conv1.weight".into(), one(&[16, 2, 7, 7], 0.0))));
    check(2, &["5 × 5"], &|t| drop(t.insert("conv1.weight".into(), one(&[16, 3, 5, 5], 0.0))));
    // A wide ResNet has the same output and a wider middle; other networks have stems of three convolutions.
    check(2, &["at any width"], &|t| drop(t.insert("layer4.0.conv1.weight".into(), one(&[64, 64, 3, 3], 0.0))));
    check(2, &["ResNet-C"], &|t| {
        let conv1 = t.remove("conv1.weight").unwrap();
        t.insert("conv1.0.weight".into(), conv1);
    });
    check(2, &["no ResNet or vision transformer that ctk knows", "`a.weight`"], &|t| {
        *t = [("a.weight".to_string(), one(&[1], 0.0)), ("b".to_string(), one(&[2], 0.0))].into();
    });
}

#[test]
fn what_is_no_whole_safetensors_file_is_said() {
    let (folder, path, _) = small(|_| ());
    let whole = fs::read(&path).unwrap();
    // 640 bytes, whose first two are also those of a pickle.
    let brief = [&640u64.to_le_bytes()[..], b"{", &[b' '; 638], b"}"].concat();
    for (bytes, code, parts) in [
        (&brief[..], 2, &["named as in no ResNet"][..]),
        (&whole[..whole.len() - 1], 1, &["its header says", "cut short"][..]),
        (&whole[..100], 1, &["cut short"]),
        (&whole[..4], 1, &["not a safetensors file"]),
        (b"PK\x03\x04 and so on", 2, &["pickle", "weights_only=True"]),
        (b"\x80\x02}q\x00 and so on", 2, &["pickle", "save_file"]),
        (b"\x0a\0\0\0\0\0\0\0{\"a\": 1.5}", 1, &["not a readable safetensors file"]),
    ] {
        fs::write(&path, bytes).unwrap();
        refused(folder.path(), &path, code, parts);
    }
    refused(folder.path(), &folder.path().join("nowhere"), 2, &["nothing here"]);
    fs::remove_file(&path).unwrap();
    refused(folder.path(), folder.path(), 2, &["no model.safetensors"]);
    fs::write(folder.path().join("pytorch_model.bin"), b"PK").unwrap();
    refused(folder.path(), folder.path(), 2, &["only a pickle", "weights_only=True"]);
    fs::write(folder.path().join("model.safetensors.index.json"), b"{}").unwrap();
    refused(folder.path(), folder.path(), 2, &["several files"]);
}

#[test]
fn descriptions_say_what_names_cannot() {
    let (folder, _, _) = small(|_| ());
    let (at, config) = (folder.path(), folder.path().join("config.json"));
    let pairs = || {
        let (recipe, _) = Vision.import(at, &|_| Ok(())).unwrap().unwrap();
        let of = crate::recipe::check(&recipe).unwrap().recipe.pairs;
        assert_eq!(of.eval_fit, Some(Fit::Resize));
        (of.size, of.centre.unwrap(), of.normalise)
    };
    assert_eq!(pairs(), (224, 0.875, Some(Input::IMAGENET)));
    let timm = r#"{"architecture": "resnet18", "model_args": {"num_classes": 0, "in_chans": 3, "global_pool": "avg"},
        "pretrained_cfg": {"input_size": [3, 160, 160], "crop_pct": 0.95, "mean": [0.5, 0.4, 0.3], "std": [0.1, 0.2, 0.3]}}"#;
    fs::write(&config, timm).unwrap();
    let half = ctk_images::augment::NormaliseRecipe { mean: [0.5, 0.4, 0.3], deviation: [0.1, 0.2, 0.3] };
    assert_eq!(pairs(), (160, 0.95, Some(half)));
    assert_eq!(
        Weights::open(&at.join("model.safetensors")).unwrap().said.size,
        Some(160),
        "it describes the file, however that is given"
    );
    fs::write(&config, r#"{"architecture": "tv_resnet18", "input_size": [3, 96, 96], "mean": [0, 0, 0], "std": [1, 1, 1]}"#)
        .unwrap();
    assert_eq!(pairs(), (96, 0.875, None));
    for (text, parts) in [
        (r#"{"architecture": "resnetblur18"}"#, &["`resnetblur18` computes something else"][..]),
        (r#"{"architecture": "resnet18", "model_args": {"output_stride": 8}}"#, &["output_stride = 8"]),
        (r#"{"model_type": "regnet"}"#, &["`regnet`"]),
        (r#"{"model_type": "resnet", "downsample_in_bottleneck": true}"#, &["downsample_in_bottleneck = true"]),
        (r#"{"model_type": "resnet", "hidden_act": "gelu"}"#, &["hidden_act"]),
        (r#"{"a": 1}"#, &["architecture", "names alone"]),
    ] {
        fs::write(&config, text).unwrap();
        let error = import(at, at, &[]).unwrap_err();
        assert!(parts.iter().all(|part| error.to_string().contains(part)), "{error}");
        assert!(error.to_string().contains("config.json") && error.exit_code() == 2 && !at.join("out").exists(), "{error}");
    }
    fs::write(&config, "{").unwrap();
    assert_eq!(import(at, at, &[]).unwrap_err().exit_code(), 1);
    fs::write(&config, r#"{"model_type": "resnet"}"#).unwrap();
    assert_eq!(pairs(), (224, 0.875, Some(Input::IMAGENET)));
    let preprocessor = at.join("preprocessor_config.json");
    let text = r#"{"size": {"shortest_edge": 128}, "crop_pct": 0.9, "do_normalize": false, "image_mean": [0.5, 0.5, 0.5]}"#;
    fs::write(&preprocessor, text).unwrap();
    assert_eq!(pairs(), (128, 0.9, None));
    fs::write(&preprocessor, r#"{"size": 64, "image_mean": [0.5, 0.4, 0.3], "image_std": [0.1, 0.2, 0.3]}"#).unwrap();
    assert_eq!(pairs(), (64, 0.875, Some(half)));
    fs::write(&preprocessor, r#"{"do_rescale": false}"#).unwrap();
    assert!(import(at, at, &[]).unwrap_err().to_string().contains("[0, 1]"));
}

#[test]
fn a_shift_of_the_heads_last_normalisation_is_refused_unless_it_does_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let (at, path) = (folder.path(), folder.path().join("converted.safetensors"));
    let head = HeadRecipe { layers: 3, width: 16, ..HeadRecipe::default() };
    let params = filled(&selecting(50, 0.25), &head, 1);
    let shift = |value: f32| Tensor::full(value, 16, &Device::Cpu).unwrap();
    let with = |value: f32, more: Option<&str>| {
        write(&whole_conversion(true), &params, &path, |tensors| {
            tensors.insert("head.layers.7.bias".into(), shift(value));
            tensors.extend(more.map(|name| (name.to_string(), shift(value))));
        })
    };
    with(0.1, None);
    refused(at, &path, 2, &["head.layers.7.bias", "--set head.layers=0"]);
    with(0.0, Some("head.layers.3.bias"));
    refused(at, &path, 2, &["head.layers.3.bias"]);
    with(0.0, None);
    import(at, &path, &[]).unwrap();
    let saved = ctk_core::store::checkpoint::Checkpoint::open(&at.join("out")).unwrap();
    assert_eq!(saved.reader().tensors("head.safetensors").unwrap().len(), params.section("head").unwrap().len());
    let recipe = crate::recipe::check(&saved.recipe()).unwrap().recipe;
    assert_eq!((recipe.head, recipe.pairs.normalise), (head, None));
    fs::remove_dir_all(at.join("out")).unwrap();
    with(0.1, None);
    import(at, &path, &[("head.layers", "0")]).unwrap();
}

#[test]
fn a_folder_is_read_back_as_the_same_encoder_and_the_same_input() {
    let folder = tempfile::tempdir().unwrap();
    let odd = ctk_images::augment::NormaliseRecipe { mean: [0.1, 0.123_456_79, 1.0 / 3.0], deviation: [0.3, 1e-3, 0.7] };
    let mut number = 0;
    let averaging = ResnetRecipe { variant: Variant::ResnetD, ..imagenet(18, 1.0) };
    for (format, of) in [
        ("timm", imagenet(18, 1.0)),
        ("timm", averaging),
        ("transformers", imagenet(18, 0.25)),
        ("transformers", imagenet(50, 0.5)),
    ] {
        for normalise in [None, Some(odd)] {
            number += 1;
            let (out, at) = (folder.path().join(format!("{number}")), folder.path().join(format!("run{number}")));
            let params = filled(&of, &NO_HEAD, 1);
            let shown = match number % 6 {
                1 | 2 => (Fit::Resize, None, Some(0.9)),
                3 => (Fit::Squash, None, Some(1.0)),
                _ => (Fit::Squash, Some(117), None),
            };
            let offset = if format == "timm" { Offset::Even } else { Offset::Floor };
            let pairs = AugmentRecipe {
                size: 96,
                eval_size: Some(100),
                eval_fit: Some(shown.0),
                eval_resize: shown.1,
                centre: shown.2,
                eval_filter: if number % 2 == 0 { Filter::Bilinear } else { Filter::Bicubic },
                eval_offset: offset,
                normalise,
                ..Default::default()
            };
            let tensors: HashMap<String, Tensor> = params.section("encoder").unwrap().into_iter().collect();
            let exported = || Exported { features: 512, pairs: &pairs, tensors: tensors.clone(), classifier: None };
            assert_eq!(export::write(format, &of, exported(), &out).unwrap(), Vec::<String>::new());
            assert!(export::write(format, &of, exported(), &out).unwrap_err().to_string().contains("already"));
            let back = import(&at, &out, &[]).unwrap();
            let checkpoint = ctk_core::store::checkpoint::Checkpoint::open(&back).unwrap();
            let recipe = crate::recipe::check(&checkpoint.recipe()).unwrap().recipe;
            let shown = |pairs: &AugmentRecipe| Evaluation { centre: 1.0, ..pairs.evaluation() };
            assert_eq!((shown(&recipe.pairs), recipe.pairs.normalise), (shown(&pairs), normalise), "{format}");
            assert_eq!(shown(&pairs).size, 100);
            let EncoderRecipe::Resnet(found) = &recipe.encoder else { panic!("{format}") };
            assert_eq!(*found, of);
            let saved = checkpoint.reader().tensors("model.safetensors").unwrap();
            assert_eq!(saved.len(), tensors.len());
            let values = |tensor: &Tensor| tensor.flatten_all().unwrap().to_vec1::<f32>().unwrap();
            assert!(tensors.iter().all(|(name, tensor)| values(tensor) == values(&saved[name])), "{format}");
        }
    }
}

#[test]
fn what_a_format_cannot_say_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let out = folder.path().join("out");
    let small = ResnetRecipe { stem: Stem::Small, ..imagenet(18, 1.0) };
    let google = ResnetRecipe { variant: Variant::Google, ..imagenet(50, 1.0) };
    let averaging = ResnetRecipe { variant: Variant::ResnetD, ..imagenet(50, 1.0) };
    for (format, of, part) in [
        ("timm", &small, "stem = \"small\""),
        ("transformers", &ResnetRecipe { channels: 1, ..imagenet(18, 1.0) }, "channels = 1"),
        ("transformers", &google, "variant = \"google\""),
        ("transformers", &selecting(50, 1.0), "sk_ratio = 0.0625"),
        ("timm", &imagenet(50, 2.0), "width = 2"),
        ("transformers", &averaging, "variant = \"resnet-d\""),
    ] {
        assert!(export::refused(format, of).unwrap().contains(part));
        let exported = Exported { features: 1, pairs: &AugmentRecipe::default(), tensors: HashMap::new(), classifier: None };
        let error = export::write(format, of, exported, &out).unwrap_err();
        let text = error.to_string();
        assert!(text.contains(part) && text.contains(format) && text.contains("hint: "), "{text}");
        assert!(error.exit_code() == 2 && !out.exists(), "{text}");
    }
}

#[test]
fn a_recipe_of_ones_own_starts_from_any_layout() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("hf.safetensors");
    let params = filled(&imagenet(18, 0.25), &NO_HEAD, 1);
    write(&Names::of(Layout::Transformers, false), &params, &path, |_| ());
    let text = "[encoder.resnet]\nwidth = 0.25\nstem = \"imagenet\"\n";
    let mut recipe = Recipe::new("test", text);
    recipe.set("encoder.resnet.weights", &format!("{:?}", path.display().to_string())).unwrap();
    let build = |recipe: &Recipe| {
        let checked = crate::recipe::check(recipe).unwrap();
        crate::network::build(&checked.recipe, &ctk_core::Device::Cpu).map(|(params, _)| params)
    };
    assert_eq!(bits(&build(&recipe).unwrap(), "encoder"), bits(&params, "encoder"));
    recipe.set("encoder.resnet.depth", "34").unwrap();
    let error = build(&recipe).err().unwrap();
    assert!(
        error.exit_code() == 2 && error.to_string().contains("is missing") && error.to_string().contains("hint: "),
        "{error}"
    );
}

mod wrapped;
