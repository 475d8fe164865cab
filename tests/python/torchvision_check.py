"""Checks that ctk's ResNets are torchvision's, in both directions.

    pip install torch torchvision safetensors numpy
    python3 tests/python/torchvision_check.py --arch resnet18 --stem small --weights RUN/checkpoints/STEP/model.safetensors \
        --images images.npy --features features.npy [--random random.safetensors]

`--weights` is loaded with strict=True into torchvision's network without its classifier, whose features of `--images`,
(n, h, w, 3) float32, must be `--features`, (n, width), to 1e-4 of their size. With `--random` the other direction is
prepared: randomly drawn torchvision weights (a whole state dict, classifier and counters included) are saved there, and
the features they give beside it, in `<random>.features.npy`. Arrays are .npy, or .safetensors with a single tensor.

The test `modalities/vision/tests/torchvision.rs` runs this script:

    CTK_PYTHON=python3 cargo test -p ctk-vision --test torchvision -- --ignored
"""

import argparse
import sys

import numpy as np
import torch
import torchvision
from safetensors.torch import load_file, save_file


def network(arch, stem, classifier):
    model = getattr(torchvision.models, arch)(weights=None)
    if not classifier:
        model.fc = torch.nn.Identity()
    if stem == "small":
        model.conv1 = torch.nn.Conv2d(3, model.conv1.out_channels, 3, stride=1, padding=1, bias=False)
        model.maxpool = torch.nn.Identity()
    return model.eval()


def array(path):
    if path.endswith(".npy"):
        return torch.from_numpy(np.load(path))
    (tensor,) = load_file(path).values()
    return tensor


def features(model, images):
    with torch.no_grad():
        return model(images.float().permute(0, 3, 1, 2))


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--arch", required=True)
    parser.add_argument("--stem", required=True, choices=["small", "imagenet"])
    parser.add_argument("--weights", required=True)
    parser.add_argument("--images", required=True)
    parser.add_argument("--features", required=True)
    parser.add_argument("--random")
    args = parser.parse_args()

    images = array(args.images)
    model = network(args.arch, args.stem, classifier=False)
    model.load_state_dict(load_file(args.weights), strict=True)
    ours, theirs = array(args.features), features(model, images)
    if ours.shape != theirs.shape:
        sys.exit(f"{args.arch}: features are {tuple(ours.shape)}, torchvision's {tuple(theirs.shape)}")
    off = ((ours - theirs).norm() / theirs.norm()).item()
    print(f"{args.arch} ({args.stem} stem): ctk's features are off by {off:.2e}")
    if not off < 1e-4:
        sys.exit(1)

    if args.random:
        torch.manual_seed(1)
        model = network(args.arch, args.stem, classifier=True)
        for name, value in model.state_dict().items():
            # Scales, shifts and statistics off their constants, or a mistake in them would not show.
            if value.dim() == 1 and value.is_floating_point():
                positive = name.endswith("weight") or name.endswith("running_var")
                value.uniform_(0.5, 1.1) if positive else value.uniform_(-0.3, 0.3)
        save_file({k: v.contiguous() for k, v in model.state_dict().items()}, args.random)
        model.fc = torch.nn.Identity()
        np.save(args.random + ".features.npy", features(model, images).numpy())


if __name__ == "__main__":
    main()
