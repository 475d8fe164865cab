//! Folders of tiny text towers: how texts become tokens, what a run that begins with one writes, and what is refused.

use std::path::Path;

use candle_core::DType;
use ctk_core::Device;
use ctk_core::nn::params::Params;
use ctk_core::recipe::Recipe;
use ctk_core::rng::Key;
use serde_json::json;

use super::super::encoder::SentenceEncoder;
use super::super::folder::{self, Folder};
use super::super::network::Described;
use super::super::recipe::SentencesRecipe;
use super::super::start::Start;
use super::super::tokenizing::Tokenizing;
use super::super::{Sentences, export};
use super::*;
use crate::transformer::{Projection, Shape, towers};

/// Words of white space between a start and an end token, or before an end token alone; ids from 0.
fn tokenizer(siglip: bool, normalizer: Value) -> Value {
    let words = ["</s>", "<pad>", "[UNK]", "<start>", "<end>", "a", "b", "c", "d", "A", "ab", "a,", "e", "f"];
    let vocab: serde_json::Map<String, Value> = words.iter().zip(0..).map(|(word, id)| (word.to_string(), json!(id))).collect();
    let special = |id: u32, name: &str| json!({ "id": id, "content": name, "single_word": false, "lstrip": false, "rstrip": false, "normalized": false, "special": true });
    let post = match siglip {
        true => {
            json!({ "type": "TemplateProcessing", "single": [{ "Sequence": { "id": "A", "type_id": 0 } }, { "SpecialToken": { "id": "</s>", "type_id": 0 } }],
            "pair": [{ "Sequence": { "id": "A", "type_id": 0 } }, { "Sequence": { "id": "B", "type_id": 0 } }],
            "special_tokens": { "</s>": { "id": "</s>", "ids": [0], "tokens": ["</s>"] } } })
        }
        false => {
            json!({ "type": "RobertaProcessing", "sep": ["<end>", 4], "cls": ["<start>", 3], "trim_offsets": false, "add_prefix_space": false })
        }
    };
    json!({ "version": "1.0", "truncation": null, "padding": null, "added_tokens": [special(0, "</s>"), special(4, "<end>")],
        "normalizer": normalizer, "pre_tokenizer": { "type": "WhitespaceSplit" }, "post_processor": post, "decoder": null,
        "model": { "type": "WordLevel", "vocab": vocab, "unk_token": "[UNK]" } })
}

fn shape(siglip: bool) -> Shape {
    let tower = if siglip { Shape::siglip(14, 8, 2) } else { Shape::clip(14, 8, 2) };
    let projection = Some(Projection { width: if siglip { 8 } else { 6 }, bias: siglip });
    Shape { heads: 2, inner: 12, positions: 6, ..tower }.projected(projection)
}

/// Writes a folder of transformers with random weights.
fn write(folder: &Path, siglip: bool, normalizer: Value, settings: &Value) {
    let (shape, family) = (shape(siglip), if siglip { Family::Siglip } else { Family::Clip });
    let mut params = Params::new();
    shape.encoder(Pooling::Last, params.root()).unwrap();
    params.materialise(Key::new(1), DType::F32, &Device::Cpu).unwrap();
    let own: Vec<(String, Tensor)> = params
        .section("")
        .unwrap()
        .into_iter()
        .map(|(name, tensor)| (name, (tensor.contiguous().unwrap() * 3.0).unwrap()))
        .collect();
    let mut written = towers::write(family, &shape, &own).unwrap();
    written.config["eos_token_id"] = json!(4);
    let tensors: HashMap<String, Tensor> = written.tensors.into_iter().collect();
    candle_core::safetensors::save(&tensors, folder.join("model.safetensors")).unwrap();
    let put = |name: &str, value: &Value| std::fs::write(folder.join(name), value.to_string()).unwrap();
    put("config.json", &written.config);
    put("tokenizer.json", &tokenizer(siglip, normalizer));
    put("tokenizer_config.json", settings);
    // An image processor may be beside it.
    put("preprocessor_config.json", &json!({}));
}

fn opened(siglip: bool, normalizer: Value, settings: &Value) -> (tempfile::TempDir, Folder) {
    let folder = tempfile::tempdir().unwrap();
    write(folder.path(), siglip, normalizer, settings);
    assert!(folder::at(folder.path()).unwrap().is_some());
    let read = Folder::read(folder.path()).unwrap();
    (folder, read)
}

fn ids(of: &Folder, text: &str) -> Vec<u32> {
    Tokenizing::new(of.tokenizer.clone(), of.described.rules.clone(), 14).unwrap().cut(text).unwrap().ids
}

#[test]
fn clips_texts_end_with_the_end_token() {
    let (_folder, of) = opened(false, Value::Null, &json!({ "model_max_length": 6 }));
    assert!(of.notes.is_empty(), "{:?}", of.notes);
    assert!(!of.described.normalise && of.described.network.is_tower());
    assert_eq!(ids(&of, "a b"), [3, 5, 6, 4]);
    assert_eq!(ids(&of, ""), [3, 4]);
    assert_eq!(ids(&of, "a b c d e f"), [3, 5, 6, 7, 8, 4], "a long text keeps its end token");
    assert_eq!(ids(&of, "a <end> b"), [3, 5, 4], "nothing behind an end token is read");
    let encoder = of.encoder(&Device::Cpu).unwrap();
    assert_eq!(encoder.width(), 6);
    let found = encoder.embed(&["a b", "a b c d e f", "a <end> c", "a"]).unwrap();
    assert_eq!((found.rows.len(), found.cut), (4 * 6, 1));
    assert_eq!(found.rows[12..18], found.rows[18..24]);
    assert_eq!(encoder.embed(&["a b"]).unwrap().rows, found.rows[..6]);
}

#[test]
fn siglips_texts_are_filled_up_and_freed_of_punctuation() {
    let settings = json!({ "tokenizer_class": "SiglipTokenizer", "pad_token": { "content": "<pad>" }, "model_max_length": 6 });
    let (_folder, of) = opened(true, Value::Null, &settings);
    assert_eq!(ids(&of, "a b"), [5, 6, 0, 1, 1, 1]);
    assert_eq!(ids(&of, ""), [0, 1, 1, 1, 1, 1]);
    assert_eq!(ids(&of, " A,  b.c-_d!"), [5, 2, 0, 1, 1, 1], "lower case, without punctuation: `a bcd`");
    assert_eq!(ids(&of, "a b c d e f"), [5, 6, 7, 8, 12, 0]);
    assert!(of.notes.iter().any(|note| note.contains("lower-cased and freed of ASCII punctuation")), "{:?}", of.notes);
    // A tokenizer that does it by itself.
    let steps = json!({ "type": "Sequence", "normalizers": [{ "type": "Lowercase" }, { "type": "Replace", "pattern": { "Regex": "[,.!]" }, "content": "" }] });
    let (_folder, of) = opened(true, steps, &settings);
    assert!(of.notes.is_empty() && !of.described.rules.lower && of.described.rules.punctuation == Punctuation::Kept);
    assert_eq!(ids(&of, "A, b!"), [5, 6, 0, 1, 1, 1]);
    // Without a word about the padding: the description's.
    let (_folder, of) = opened(true, Value::Null, &json!({ "do_lower_case": true }));
    assert_eq!(of.described.rules.padding, Some(Padding { to: 6, id: 1 }));
    assert_eq!(ids(&of, "A, b"), [11, 6, 0, 1, 1, 1], "`a,` is a word");
}

#[test]
fn underscores_are_spaces_in_open_clip() {
    let rules = |punctuation| Rules { lower: true, punctuation, ..Rules::default() };
    let (_folder, of) = opened(true, Value::Null, &json!({ "pad_token": "<pad>" }));
    for (punctuation, expected) in [(Punctuation::Removed, &[10][..]), (Punctuation::Spaced, &[5, 6]), (Punctuation::Kept, &[2])]
    {
        let rules = rules(punctuation);
        let cut = |tokenizer: Tokenizer, rules: Rules| Tokenizing::new(tokenizer, rules, 14).unwrap().cut("A_b").unwrap().ids;
        assert_eq!(cut(of.tokenizer.clone(), rules.clone()), expected);
        assert_eq!(cut(rules.baked(&of.tokenizer).unwrap(), Rules::default()), expected, "by the file itself");
    }
}

#[test]
fn a_run_begins_with_a_tower_and_is_written_as_one() {
    let settings = json!({ "tokenizer_class": "SiglipTokenizer", "pad_token": "<pad>" });
    for siglip in [false, true] {
        let (folder, of) = opened(siglip, Value::Null, &settings);
        let weights = folder.path().to_str().unwrap().to_string();
        let start = |more: &str| {
            let text = Recipe::new("t.toml", format!("[encoder.transformer]\nweights = {weights:?}\n{more}"));
            let (recipe, _) = SentencesRecipe::check(&text)?;
            Start::new(&recipe, &text, Vec::new)
        };
        let begun = start("").unwrap();
        assert_eq!(begun.described, of.described);
        assert_eq!(Described::from_bytes(&begun.described.to_bytes().unwrap()).unwrap(), begun.described);
        assert!(start("dropout = 0.1\npooling = \"mean\"\n").is_ok());
        assert!(start("width = 8\n").err().unwrap().to_string().contains("beside `weights`"));
        let mut tensors: Vec<(String, Tensor)> = begun.tensors.clone().unwrap().into_iter().collect();
        tensors.sort_by(|a, b| a.0.cmp(&b.0));
        let out = tempfile::tempdir().unwrap();
        let place = out.path().join("folder");
        assert!(export::write_tower(&begun.described, &tensors, &begun.tokenizer, &place).unwrap().is_empty());
        let again = Folder::read(&place).unwrap();
        assert!(again.notes.is_empty(), "{:?}", again.notes);
        assert_eq!(again.described.network, of.described.network);
        for (name, tensor) in &tensors {
            let [one, other] = [tensor, &again.tensors[name]].map(|t| t.flatten_all().unwrap().to_vec1::<f32>().unwrap());
            assert_eq!(one, other, "{name}");
        }
        let rows = |of: &Folder| of.encoder(&Device::Cpu).unwrap().embed(&["a b", "A, b", "a b c d e f a"]).unwrap().rows;
        assert_eq!(rows(&of), rows(&again));
        // Features that transformers would not take.
        let mut other = begun.described.clone();
        if let Network::Transformer { pooling, .. } = &mut other.network {
            *pooling = Pooling::Mean;
        }
        let error = export::write_tower(&other, &tensors, &begun.tokenizer, &out.path().join("other")).unwrap_err();
        assert!(error.to_string().contains("not those of its last token"), "{error}");
    }
}

#[test]
fn features_are_the_same_on_another_device() {
    let Ok((device, _)) = Device::open("emulated") else { return };
    for siglip in [false, true] {
        let (_folder, of) = opened(siglip, Value::Null, &json!({ "pad_token": "<pad>" }));
        let rows = |encoder: SentenceEncoder| encoder.embed(&["a b", "c", ""]).unwrap().rows;
        let [here, there] = [Device::Cpu, device.clone()].map(|device| rows(of.encoder(&device).unwrap()));
        let largest = here.iter().fold(0.0f32, |largest, value| largest.max(value.abs()));
        assert!(here.iter().zip(&there).all(|(a, b)| (a - b).abs() < 1e-5 * largest), "{here:?} {there:?}");
    }
}

#[test]
fn open_clips_folders_and_modules_are_found() {
    use ctk_core::modality::Modality as _;
    let (folder, of) = opened(false, Value::Null, &json!({}));
    let place = folder.path();
    // The same tower as a module of sentence-transformers.
    let outer = tempfile::tempdir().unwrap();
    let inner = outer.path().join("0_CLIPModel");
    std::fs::create_dir(&inner).unwrap();
    for name in ["config.json", "tokenizer.json", "model.safetensors"] {
        std::fs::copy(place.join(name), inner.join(name)).unwrap();
    }
    let modules = r#"[{"idx": 0, "name": "0", "path": "0_CLIPModel", "type": "sentence_transformers.models.CLIPModel"}]"#;
    std::fs::write(outer.path().join("modules.json"), modules).unwrap();
    let module = Folder::read(outer.path()).unwrap();
    assert_eq!(module.described.network, of.described.network);
    assert!(!Folder::is_table(outer.path()).unwrap());
    // open_clip's, with its description alone.
    let mut tensors = HashMap::new();
    for (name, tensor) in &of.tensors {
        let name = match name.split_once('.').unwrap() {
            ("words", _) => "token_embedding.weight".to_string(),
            ("positions", _) => "positional_embedding".to_string(),
            ("final", kind) => format!("ln_final.{kind}"),
            ("projection", _) => {
                tensors.insert("text_projection".to_string(), tensor.t().unwrap().contiguous().unwrap());
                continue;
            }
            (number, rest) => {
                let rest =
                    rest.replace("before_attention", "ln_1").replace("before_mlp", "ln_2").replace("qkv.", "attn.in_proj_");
                let rest = rest.replace("mix", "attn.out_proj").replace("in.w", "mlp.c_fc.w").replace("in.b", "mlp.c_fc.b");
                format!(
                    "transformer.resblocks.{number}.{}",
                    rest.replace("out.", "mlp.c_proj.").replace("mlp.c_proj.proj", "out.proj")
                )
            }
        };
        tensors.insert(name, tensor.clone());
    }
    let description = json!({ "model_cfg": { "embed_dim": 6, "text_cfg": { "context_length": 6, "vocab_size": 14, "width": 8, "heads": 2,
        "layers": 2, "mlp_ratio": 1.5 } } });
    for name in ["config.json", "model.safetensors"] {
        std::fs::remove_file(place.join(name)).unwrap();
    }
    candle_core::safetensors::save(&tensors, place.join("open_clip_model.safetensors")).unwrap();
    std::fs::write(place.join(OPEN_CLIP), description.to_string()).unwrap();
    let other = Folder::read(place).unwrap();
    assert_eq!(other.described.network, of.described.network);
    assert!(other.described.rules.lower && other.notes[0].contains("lower-cased"), "{:?}", other.notes);
    let rows = |of: &Folder| of.encoder(&Device::Cpu).unwrap().embed(&["a b"]).unwrap().rows;
    assert_eq!(rows(&of), rows(&other));
    assert!(Sentences.open_file(place, &|| Ok(Device::Cpu)).unwrap().is_some());
    std::fs::remove_file(place.join("tokenizer.json")).unwrap();
    assert!(Folder::read(place).err().unwrap().to_string().contains("tokenizer.json"));
    // An image tower by itself is no encoder of texts.
    std::fs::remove_file(place.join(OPEN_CLIP)).unwrap();
    std::fs::write(place.join("config.json"), r#"{"model_type": "clip_vision_model"}"#).unwrap();
    assert!(folder::at(place).unwrap().is_none());
}

#[test]
fn what_does_not_fit_is_named() {
    let error = |siglip: bool, change: &dyn Fn(&Path)| {
        let folder = tempfile::tempdir().unwrap();
        write(folder.path(), siglip, Value::Null, &json!({ "pad_token": "<pad>" }));
        change(folder.path());
        let error = match Folder::read(folder.path()) {
            Ok(of) => of.encoder(&Device::Cpu).err().unwrap(),
            Err(error) => error,
        };
        error.to_string()
    };
    let edit = |name: &'static str, change: &'static dyn Fn(&mut Value)| {
        move |folder: &Path| {
            let mut value = json(&folder.join(name)).unwrap();
            change(&mut value);
            std::fs::write(folder.join(name), value.to_string()).unwrap();
        }
    };
    let said = error(false, &edit("config.json", &|of| of["eos_token_id"] = json!(9)));
    assert!(said.contains("at the token 9") && said.contains("ends texts with 4"), "{said}");
    let said = error(false, &edit("tokenizer.json", &|of| of["post_processor"] = Value::Null));
    assert!(said.contains("no token behind a text"), "{said}");
    let said = error(true, &edit("tokenizer_config.json", &|of| of["pad_token"] = json!("<fill>")));
    assert!(said.contains("`<fill>`"), "{said}");
    let said = error(true, &edit("config.json", &|of| of["projection_size"] = json!(9)));
    assert!(said.contains("`text_model.head.weight` has shape [8, 8], and the description says [9, 8]"), "{said}");
    let said = error(false, &|folder| std::fs::remove_file(folder.join("tokenizer.json")).unwrap());
    assert!(said.contains("tokenizer.json") && said.contains("sentencepiece"), "{said}");
    let said = error(false, &|folder| std::fs::remove_file(folder.join("model.safetensors")).unwrap());
    assert!(said.contains("model.safetensors"), "{said}");
    // Old descriptions of CLIP mean the highest number by a 2.
    let folder = tempfile::tempdir().unwrap();
    write(folder.path(), false, Value::Null, &json!({}));
    edit("config.json", &|of| of["eos_token_id"] = json!(2))(folder.path());
    assert!(Folder::read(folder.path()).is_ok());
}
