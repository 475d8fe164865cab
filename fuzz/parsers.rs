//! Every parser of bytes that others wrote, as a function of these bytes: it may fail, but it must not panic, hang or exhaust memory.

use std::fs;
use std::path::{Path, PathBuf};

use ctk_core::Device;
use ctk_core::data::dataset::Dataset as _;
use ctk_core::eval::Features;
use ctk_core::modality::{Modality as _, Split};
use ctk_core::recipe::Recipe;
use ctk_core::store::checkpoint::Checkpoint;
use ctk_core::store::parquet::Parquet;
use ctk_core::store::rows::{Identity, StoredRows};
use ctk_core::store::safetensors_header::Header;
use ctk_hub::answer::Told;
use ctk_image_text::recipe::Checked;
use ctk_images::dataset::{self, Columns, Format};
use ctk_images::decode;
use ctk_text::sentences::folder::Folder;
use ctk_text::sentences::network::Described;
use ctk_text::sentences::recipe::SentencesRecipe;
use ctk_text::word2vec::recipe::Word2VecRecipe;
use ctk_texts::corpus::{Corpus, Invalid, Limits, Reading, Room, Tokens};
use ctk_texts::files::Encoding;
use ctk_texts::labelled;
use ctk_texts::pairs::recipe::SentencesDataRecipe;
use ctk_texts::recipe::Paths;
use ctk_texts::retrieval::{self, Collection};
use ctk_texts::sts::Sets;
use ctk_texts::table::Texts;
use ctk_texts::vocabulary::Vocabulary;
use ctk_vision::recipe::VisionRecipe;

/// A parser, and the name of its folder of seeds.
#[derive(Clone, Copy)]
pub struct Parser {
    pub name: &'static str,
    /// Parses the bytes; temporary files are put into the folder.
    pub read: fn(&[u8], &Path),
}

/// All parsers.
pub const PARSERS: [Parser; 34] = [
    Parser { name: "image", read: image },
    Parser { name: "idx", read: |bytes, folder| images(bytes, folder, "train-images-idx3-ubyte", Some(Format::Idx)) },
    Parser { name: "images-csv", read: |bytes, folder| images(bytes, folder, "images.csv", Some(Format::Table)) },
    Parser { name: "images-tsv", read: |bytes, folder| images(bytes, folder, "images.tsv", Some(Format::Table)) },
    Parser { name: "images-jsonl", read: |bytes, folder| images(bytes, folder, "images.jsonl", Some(Format::Table)) },
    Parser { name: "images-parquet", read: |bytes, folder| images(bytes, folder, "images.parquet", None) },
    Parser { name: "tar", read: |bytes, folder| images(bytes, folder, "images.tar", None) },
    Parser { name: "tar-gz", read: |bytes, folder| images(bytes, folder, "images.tar.gz", None) },
    Parser { name: "tar-zst", read: |bytes, folder| images(bytes, folder, "images.tar.zst", None) },
    Parser { name: "zip", read: |bytes, folder| images(bytes, folder, "images.zip", None) },
    Parser { name: "cifar", read: |bytes, folder| images(bytes, folder, "data_batch_1.bin", None) },
    Parser { name: "parquet", read: parquet },
    Parser { name: "network", read: network },
    Parser { name: "network-config", read: network_config },
    Parser { name: "features-npy", read: |bytes, folder| features(bytes, folder, "features.npy") },
    Parser { name: "features-csv", read: |bytes, folder| features(bytes, folder, "features.csv") },
    Parser { name: "features-names", read: features_names },
    Parser { name: "features-safetensors", read: |bytes, folder| features(bytes, folder, "features.safetensors") },
    Parser { name: "vectors", read: vectors },
    Parser { name: "fasttext", read: fasttext },
    Parser { name: "tokenizer", read: tokenizer },
    Parser { name: "corpus", read: corpus },
    Parser { name: "texts", read: texts },
    Parser { name: "sts", read: sts },
    Parser { name: "retrieval", read: retrieval },
    Parser { name: "labelled", read: labelled },
    Parser { name: "pairs-tsv", read: |bytes, folder| pairs(bytes, folder, "pairs.tsv") },
    Parser { name: "pairs-csv", read: |bytes, folder| pairs(bytes, folder, "pairs.csv") },
    Parser { name: "pairs-jsonl", read: |bytes, folder| pairs(bytes, folder, "pairs.jsonl") },
    Parser { name: "recipe", read: recipe },
    Parser { name: "manifest", read: manifest },
    Parser { name: "rows", read: rows },
    Parser { name: "encoder-folder", read: encoder_folder },
    Parser { name: "hub", read: hub },
];

/// Number and width of the rows that are kept: a whole block, and one more.
const ROWS: [usize; 2] = [1025, 1];

fn file(bytes: &[u8], folder: &Path, name: &str) -> PathBuf {
    let path = folder.join(name);
    fs::write(&path, bytes).expect("a file can be written");
    path
}

fn image(bytes: &[u8], _: &Path) {
    let _ = decode::look(bytes);
    let _ = decode::size(bytes);
    let _ = decode::decode(bytes);
}

fn images(bytes: &[u8], folder: &Path, name: &str, format: Option<Format>) {
    let path = file(bytes, folder, name);
    for open in [dataset::open, dataset::open_captioned] {
        let Ok(splits) = open(&path, format, &Columns::default()) else { continue };
        let all = splits.all();
        for index in 0..all.len().min(4) {
            let _ = (all.name(index), all.label(index), all.captions(index), all.get(index));
        }
    }
}

fn parquet(bytes: &[u8], folder: &Path) {
    let Ok(table) = Parquet::open(&file(bytes, folder, "table.parquet")) else { return };
    for column in 0..table.columns().len().min(8) {
        let _ = (table.columns()[column].name(), table.columns()[column].holds());
        let _ = table.texts(column);
        let _ = table.bytes(column, |_, _| Ok(()));
        let _ = table.numbers(column);
        let _ = table.text_lists(column, |_, _| Ok(()));
    }
}

fn network(bytes: &[u8], folder: &Path) {
    for name in ["model.safetensors", "model.pth"] {
        let path = file(bytes, folder, name);
        let _ = fs::File::open(&path).map(|file| Header::read(&file));
        let _ = ctk_vision::Vision.import(&path, &|_| Ok(()));
    }
}

/// The descriptions that timm, transformers and open_clip write beside a network's weights.
fn network_config(bytes: &[u8], folder: &Path) {
    let networks: [(&[u8], &str, &[&str]); 4] = [
        (include_bytes!("corpus/network/resnet18"), "model.safetensors", &["config.json", "preprocessor_config.json"]),
        (include_bytes!("corpus/network/vit-timm"), "model.safetensors", &["config.json"]),
        (include_bytes!("corpus/network/vit-clip"), "model.safetensors", &["config.json"]),
        (include_bytes!("corpus/network/vit-open-clip"), "open_clip_model.safetensors", &["open_clip_config.json"]),
    ];
    for (number, (weights, name, descriptions)) in networks.into_iter().enumerate() {
        let described = folder.join(format!("described{number}"));
        fs::create_dir_all(&described).expect("a folder can be made");
        file(weights, &described, name);
        for name in descriptions {
            let path = file(bytes, &described, name);
            let _ = ctk_vision::Vision.import(&described, &|_| Ok(()));
            fs::remove_file(path).expect("the file is there");
        }
    }
}

/// The file of names beside features.
fn features_names(bytes: &[u8], folder: &Path) {
    let path = file(include_bytes!("corpus/features-npy/f4"), folder, "named.npy");
    file(bytes, folder, "named.npy.names.tsv");
    let _ = Features::load(&path);
}

fn features(bytes: &[u8], folder: &Path, name: &str) {
    let path = file(bytes, folder, name);
    let _ = ctk_core::eval::is_features(&path);
    let _ = Features::load(&path);
}

fn vectors(bytes: &[u8], folder: &Path) {
    let path = file(bytes, folder, "words.vec");
    let _ = ctk_text::vectors::open(&path);
}

fn fasttext(bytes: &[u8], folder: &Path) {
    let _ = ctk_text::fasttext::open(&file(bytes, folder, "words.bin"));
}

fn tokenizer(bytes: &[u8], folder: &Path) {
    let path = file(bytes, folder, "tokenizer.json");
    let Ok(tokens) = Tokens::named(&path.to_string_lossy()) else { return };
    let reading = Reading { tokens, ..Reading::default() };
    let _ = reading.words("The quick brown fox, jumps over 13 lazy dogs. \u{fc}\u{4e2d}\u{6587}", |_| {});
}

fn corpus(bytes: &[u8], folder: &Path) {
    let path = file(bytes, folder, "corpus.txt");
    let reading = Reading { invalid: Invalid::Replace, tokens: Tokens::Words, lowercase: true, ..Reading::default() };
    let mut room = Room { limit: 1 << 20, folder: &mut || Ok(std::env::temp_dir()) };
    let _ = Corpus::read(&[path], &reading, Limits { min_count: 1, max_size: None }, &mut room);
}

fn texts(bytes: &[u8], folder: &Path) {
    let _ = Texts::read(&file(bytes, folder, "texts.tsv"), Encoding::default(), Invalid::Refuse);
    let _ = Vocabulary::from_bytes(bytes.to_vec());
}

fn sts(bytes: &[u8], folder: &Path) {
    let _ = Sets::read(&file(bytes, folder, "pairs.tsv"), Encoding::default(), Invalid::Refuse);
}

/// The bytes are the corpus, the queries and the judgements in turn.
fn retrieval(bytes: &[u8], folder: &Path) {
    let at = folder.join("beir");
    fs::create_dir_all(at.join("qrels")).expect("a folder can be made");
    let whole: [(&str, &[u8]); 3] = [
        ("corpus.jsonl", b"{\"_id\": \"d\", \"text\": \"a\"}\n"),
        ("queries.jsonl", b"{\"_id\": \"q\", \"text\": \"b\"}\n"),
        ("qrels/test.tsv", b"query-id\tcorpus-id\tscore\nq\td\t1\n"),
    ];
    for odd in 0..whole.len() {
        for (number, (name, usual)) in whole.iter().enumerate() {
            file(if number == odd { bytes } else { usual }, &at, name);
        }
        let _ = Collection::read(&at, &retrieval::Options::default());
    }
    let passages = folder.join("passages");
    fs::create_dir_all(&passages).expect("a folder can be made");
    file(bytes, &passages, "passages.tsv");
    file(bytes, &passages, "questions.tsv");
    let _ = Collection::read(&passages, &retrieval::Options::default());
}

/// Texts with classes, as each kind of table.
fn labelled(bytes: &[u8], folder: &Path) {
    for name in ["texts.tsv", "texts.csv", "texts.jsonl", "texts.txt"] {
        let path = file(bytes, folder, name);
        let Ok(texts) = labelled::read(&path, &labelled::Reading::default()) else { continue };
        for split in [Split::Train, Split::Test] {
            let _ = texts.clone().part(split);
        }
        let _ = labelled::in_both(&texts, &texts);
    }
}

fn pairs(bytes: &[u8], folder: &Path, name: &str) {
    let path = Some(Paths::One(file(bytes, folder, name).display().to_string()));
    let Ok(sentences) = (SentencesDataRecipe { path, ..SentencesDataRecipe::default() }).open() else { return };
    let mut order: Vec<u32> = (0..sentences.train.len() as u32).collect();
    let _ = sentences.train.arrange(&mut order, 4, 0);
    for index in 0..sentences.train.len().min(4) {
        let _ = (sentences.train.name(index), sentences.train.label(index), sentences.train.get(index));
    }
}

fn recipe(bytes: &[u8], folder: &Path) {
    let Ok(recipe) = Recipe::read(&file(bytes, folder, "recipe.toml")) else { return };
    let _ = recipe.parse::<VisionRecipe>();
    let _ = Word2VecRecipe::parse(&recipe);
    let _ = SentencesRecipe::check(&recipe);
    let _ = Checked::new(&recipe);
}

fn manifest(bytes: &[u8], folder: &Path) {
    file(bytes, folder, "manifest.json");
    let _ = Checkpoint::open(folder).and_then(|checkpoint| checkpoint.verify());
}

/// Rows that an earlier run has kept: what is damaged is computed again, what is of something else is left as it is.
fn rows(bytes: &[u8], folder: &Path) {
    let path = file(bytes, folder, "kept.rows");
    let kept = StoredRows::of(&path, &Identity::default().and(b"seed"), ROWS, |range| Ok(vec![0.5; range.len() * ROWS[1]]));
    match kept {
        Ok(rows) => {
            let mut values = Vec::new();
            assert!(rows.read(0..rows.len(), &mut values).is_ok());
            assert_eq!(values.len(), ROWS[0] * ROWS[1]);
        }
        Err(_) => assert_eq!(fs::read(&path).expect("the file is there"), bytes),
    }
}

/// What sentence-transformers, transformers, open_clip and model2vec write into a folder, each file in turn, and ctk's own description.
fn encoder_folder(bytes: &[u8], folder: &Path) {
    let tokenizer: &[u8] = include_bytes!("corpus/tokenizer/pieces");
    let sentences: [(&str, &[u8]); 7] = [
        ("config.json", include_bytes!("corpus/encoder-folder/bert")),
        ("modules.json", include_bytes!("corpus/encoder-folder/modules")),
        ("1_Pooling/config.json", include_bytes!("corpus/encoder-folder/pooling")),
        ("sentence_bert_config.json", include_bytes!("corpus/encoder-folder/length")),
        ("config_sentence_transformers.json", include_bytes!("corpus/encoder-folder/prompts")),
        ("tokenizer.json", tokenizer),
        ("model.safetensors", include_bytes!("corpus/network/bert")),
    ];
    let settings: &[u8] = include_bytes!("corpus/encoder-folder/tokenizer-config");
    let siglip: [(&str, &[u8]); 4] = [
        ("config.json", include_bytes!("corpus/encoder-folder/siglip")),
        ("tokenizer.json", tokenizer),
        ("tokenizer_config.json", settings),
        ("model.safetensors", include_bytes!("corpus/network/siglip-text")),
    ];
    let open_clip: [(&str, &[u8]); 4] = [
        ("open_clip_config.json", include_bytes!("corpus/encoder-folder/siglip-open-clip")),
        ("tokenizer.json", tokenizer),
        ("tokenizer_config.json", settings),
        ("open_clip_model.safetensors", include_bytes!("corpus/network/siglip-text-open-clip")),
    ];
    for (name, usual) in [("sentences", &sentences[..]), ("siglip", &siglip), ("open-clip", &open_clip)] {
        let at = folder.join(name);
        fs::create_dir_all(at.join("1_Pooling")).expect("a folder can be made");
        for (name, usual) in usual {
            file(usual, &at, name);
        }
        assert!(Folder::read(&at).is_ok(), "the usual files are those of an encoder: {name}");
        for (name, usual) in usual {
            file(bytes, &at, name);
            let _ = Folder::is_table(&at);
            if let Ok(read) = Folder::read(&at) {
                let _ = read.encoder(&Device::Cpu).and_then(|encoder| encoder.embed(&["the quick fox", ""]));
            }
            file(usual, &at, name);
        }
    }
    let _ = Described::from_bytes(bytes);
}

/// Lines of headers, as a server sends them.
fn hub(bytes: &[u8], _: &Path) {
    let lines = bytes.split(|&byte| byte == b'\n').filter_map(|line| {
        let colon = line.iter().position(|&byte| byte == b':')?;
        Some((std::str::from_utf8(&line[..colon]).ok()?, &line[colon + 1..]))
    });
    let Ok(told) = Told::of(&lines.collect::<Vec<_>>()) else { return };
    // Every name that is accepted is a single file name.
    for name in told.commit.iter().chain(&told.etag) {
        assert_eq!(Path::new(name).components().count(), 1, "{name}");
        assert_eq!(Path::new(name).file_name().and_then(|name| name.to_str()), Some(&**name));
    }
}
