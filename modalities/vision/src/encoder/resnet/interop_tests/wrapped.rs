//! Tests of importing ResNet weights whose tensor names differ from the known layouts.
//!
//! The names may have a prefix (`module.`, `backbone.`), may occur twice (the network and its momentum copy), or may be numbered as the
//! children of a PyTorch `Sequential` are. A network with one input channel is also tested.

use super::*;

/// Writes a network with every name changed by `name`, and other tensors beside it; returns the path and the parameters.
fn wrapped(name: impl Fn(&str) -> String, others: &[&str]) -> (TempDir, PathBuf, Params) {
    small(|tensors| {
        *tensors = std::mem::take(tensors).into_iter().map(|(old, tensor)| (name(&old), tensor)).collect();
        let other = Tensor::zeros(3, DType::F32, &Device::Cpu).unwrap();
        tensors.extend(others.iter().map(|name| (name.to_string(), other.clone())));
    })
}

#[test]
fn a_prefix_is_left_out_and_said() {
    for (prefix, others, said) in [
        ("module.", &[][..], "`module.`, which is removed"),
        ("backbone.", &["projector.0.weight", "projector.2.weight"], "not read: projector. (2)"),
        ("encoder.", &["epoch"], "not read: epoch (1)"),
        (
            "module.encoder_q.",
            &["module.queue"],
            "`module.encoder_q.`, which is removed; other tensors are not read: module.queue (1)",
        ),
        ("state.online.backbone.", &[], "`state.online.backbone.`"),
    ] {
        let (folder, path, params) = wrapped(|name| format!("{prefix}{name}"), others);
        let weights = Weights::open(&path).unwrap();
        let notes = crate::encoder::recognise(&path).unwrap().1.notes();
        assert!(notes.len() == 1 && notes[0].contains(said), "{notes:?}");
        let of = filled(&weights.encoder().unwrap(), &NO_HEAD, 9);
        weights.load(&of, false).unwrap();
        assert_eq!(bits(&of, "encoder"), bits(&params, "encoder"), "{prefix}");
        import(folder.path(), &path, &[]).unwrap();
    }
    let (_folder, path, _) = wrapped(str::to_string, &[]);
    assert!(crate::encoder::recognise(&path).unwrap().1.notes().is_empty());
}

#[test]
fn of_a_network_and_its_slow_copy_the_network_is_read() {
    let both = |slow: &str| {
        small(|tensors| {
            let all = std::mem::take(tensors);
            let copies = all.iter().map(|(name, tensor)| (format!("{slow}{name}"), (tensor * 0.0).unwrap()));
            tensors.extend(copies);
            tensors.extend(all.into_iter().map(|(name, tensor)| (format!("encoder_q.{name}"), tensor)));
        })
    };
    for slow in ["encoder_k.", "momentum_encoder.", "teacher.backbone."] {
        let (_folder, path, params) = both(slow);
        let weights = Weights::open(&path).unwrap();
        let of = filled(&weights.encoder().unwrap(), &NO_HEAD, 9);
        weights.load(&of, false).unwrap();
        assert_eq!(bits(&of, "encoder"), bits(&params, "encoder"), "{slow}");
    }
    let (folder, path, _) = both("other.");
    refused(folder.path(), &path, 2, &["several networks, behind `other.` and `encoder_q.`", "hint: save one"]);
}

#[test]
fn a_network_of_gray_pictures_reads_one_channel() {
    let of = ResnetRecipe { channels: 1, ..imagenet(18, 0.25) };
    let params = filled(&of, &NO_HEAD, 4);
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("gray.safetensors");
    write(&Names::of(Layout::Torchvision, false), &params, &path, |_| ());
    assert_eq!(Weights::open(&path).unwrap().encoder().unwrap(), of);
    let out = import(folder.path(), &path, &[("pairs.size", "32")]).unwrap();
    let checkpoint = ctk_core::store::checkpoint::Checkpoint::open(&out).unwrap();
    let recipe = crate::recipe::check(&checkpoint.recipe()).unwrap().recipe;
    let (_, tower) = crate::network::build(&recipe, &ctk_core::Device::Cpu).unwrap();
    // A gray image is read as it is, a colour image by its luma.
    let value = |i: usize| (i * 37 % 101) as f32 / 101.0;
    let picture = |pixel: &dyn Fn(usize) -> [f32; 3]| {
        let values: Vec<f32> = (0..32 * 32).flat_map(pixel).collect();
        Tensor::from_vec(values, (1, 32, 32, 3), &Device::Cpu).unwrap()
    };
    let encoded = |x: &Tensor| {
        let rows = ctk_core::nn::rows::Rows::alone(1);
        let (h, _) = tower.encoder.encode(x, &rows, &ctk_core::nn::pass::Pass::eval()).unwrap();
        h.flatten_all().unwrap().to_vec1::<f32>().unwrap()
    };
    let gray = encoded(&picture(&|i| [value(i); 3]));
    let coloured = encoded(&picture(&|i| [value(i) + 0.114, value(i), value(i) - 0.299]));
    assert!(gray.iter().zip(&coloured).all(|(a, b)| (a - b).abs() < 1e-4), "{gray:?}, {coloured:?}");
    assert_ne!(gray, encoded(&picture(&|i| [value(i + 1); 3])));
}

#[test]
fn children_of_a_sequential_are_known_by_number() {
    let number = |name: &str| {
        let (first, rest) = name.split_once('.').unwrap();
        let at = match first {
            "conv1" => "0".to_string(),
            "bn1" => "1".to_string(),
            "fc" => "9".to_string(),
            group => (group.strip_prefix("layer").unwrap().parse::<usize>().unwrap() + 3).to_string(),
        };
        format!("backbone.{at}.{rest}")
    };
    let (folder, path, params) = wrapped(number, &["projection_head.layers.0.weight"]);
    let weights = Weights::open(&path).unwrap();
    assert_eq!(weights.layout(), Layout::Sequential);
    let of = filled(&weights.encoder().unwrap(), &NO_HEAD, 9);
    weights.load(&of, false).unwrap();
    assert_eq!(bits(&of, "encoder"), bits(&params, "encoder"));
    let out = import(folder.path(), &path, &[]).unwrap();
    assert!(fs::read_to_string(out.join("recipe.toml")).unwrap().contains("Sequential"));
}
