"""Makes, loads and compares ResNets of other programs for `tests/clients/resnets.rs`.

    pip install -r tests/python/requirements.txt
    CTK_PYTHON=python3 cargo test --test clients -- --ignored resnets

`make PROGRAM ARCH DIR` draws a network, writes it as the program does (`model.safetensors`, or the folder `weights`), some pictures
(`pictures/`) and what it makes of them (`features.npy`, and `embeddings.npy` where it has a head). `load PROGRAM PATH DIR` opens what ctk exported and compares with these
features, `classify PROGRAM PATH DIR` opens a network with its classifier and compares with what ctk said of the pictures
(`predictions.csv`), `compare A B` two arrays; `photos DIR` draws pictures of many sizes, and `alike PROGRAM PATH PHOTOS
FEATURES` compares what a program makes of them by its own preprocessing; all print the largest difference of a feature. `others DIR` writes networks that are none of ctk's.

Weights are random, scales and shifts off their constants, and so are running statistics, which fit the pictures: a mistake in any
of them would show, and features stay about 1.
"""

import csv
import json
import os
import re
import sys

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from safetensors.torch import load_file, save_file

os.environ["HF_HUB_OFFLINE"] = "1"

# Maps of 18, 9, 5 and 3: windows at odd edges are told apart.
SIZE = 72
IMAGENET = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
# Unlike ImageNet's, so that a description which is not read shows.
ODD = ((0.4, 0.3, 0.6), (0.3, 0.2, 0.15))
PLAIN = ((0.0, 0.0, 0.0), (1.0, 1.0, 1.0))
# The last normalisation of a block, which training starts at 0, has a smaller scale than others: as in networks that were trained,
# its shortcut counts for more, and rounding errors do not grow from block to block.
SCALES, LAST_SCALES, SHIFTS = (0.5, 1.1), (0.1, 0.3), (-0.2, 0.2)


def settle(x, mean, var):
    """Statistics for what a normalisation meets: neither its own nor constants."""
    channels = x.transpose(0, 1).flatten(1)
    shift, spread = channels.mean(1), channels.var(1)
    mean.copy_(shift * torch.empty_like(shift).uniform_(0.3, 0.8))
    var.copy_((spread + shift**2) * torch.empty_like(spread).uniform_(0.8, 1.25))


def lasts(names):
    """Of the names of normalisations those that end a block: the largest number of a block's."""
    numbered = [re.fullmatch(r"(.*(?:bn|layer\.|net\.))(\d)(\.normalization|\.0|)", name) for name in names]
    largest = {found[1]: found[0] for found in sorted(filter(None, numbered), key=lambda found: found[2])}
    return set(largest.values())


def randomise(model, x):
    """Layer after layer, so that each meets what the ones before make of the pictures with their new values."""

    norms = {name: module for name, module in model.named_modules() if isinstance(module, torch.nn.BatchNorm2d)}
    last = lasts(norms)
    hooks = [norm.register_forward_pre_hook(lambda n, x: settle(x[0], n.running_mean, n.running_var)) for norm in norms.values()]
    with torch.no_grad():
        for name, norm in norms.items():
            norm.weight.uniform_(*(LAST_SCALES if name in last else SCALES))
            norm.bias.uniform_(*SHIFTS)
        model.eval()(x)
    for hook in hooks:
        hook.remove()
    return model


def pictures(folder):
    """Smooth noise, two classes of four."""
    for i in range(8):
        small = torch.rand(1, 3, 9, 9)
        large = F.interpolate(small, size=(SIZE, SIZE), mode="bicubic").clamp(0, 1)[0]
        pixels = (large.permute(1, 2, 0) * 255).round().to(torch.uint8).numpy()
        path = os.path.join(folder, "pictures", "ab"[i % 2], f"{i}.png")
        os.makedirs(os.path.dirname(path), exist_ok=True)
        Image.fromarray(pixels).save(path)


def opened(folder):
    root = os.path.join(folder, "pictures")
    return [Image.open(os.path.join(root, c, name)) for c in "ab" for name in sorted(os.listdir(os.path.join(root, c)))]


def batch(images, mean, std):
    pixels = torch.stack([torch.from_numpy(np.array(image)).permute(2, 0, 1).float() / 255 for image in images])
    return (pixels - torch.tensor(mean).view(1, 3, 1, 1)) / torch.tensor(std).view(1, 3, 1, 1)


# SimCLRv2's network as its public PyTorch conversion names and computes it: the state dict is the network.

BLOCKS = {"r50": (3, 4, 6, 3)}


def conversion(arch):
    """Names and shapes of `resnet` and `head`, by group: convolutions and linear layers, then normalisations."""
    depth, width, sk = arch.split("_")
    width, sk, planes, weights, norms = int(width[:-1]), sk == "sk1", 64, {}, {}
    stem = 64 * width
    if sk:
        for at, (output, source) in zip((0, 2, 4), ((stem // 2, 3), (stem // 2, stem // 2), (stem, stem // 2))):
            weights[f"resnet.net.0.{at}.weight"] = (output, source, 3, 3)
            norms[f"resnet.net.0.{at + 1}.0"] = output
    else:
        weights["resnet.net.0.0.weight"] = (stem, 3, 7, 7)
        norms["resnet.net.0.1.0"] = stem
    source = stem
    for group, count in enumerate(BLOCKS[depth], 1):
        middle = planes * width << (group - 1)
        for block in range(count):
            at = f"resnet.net.{group}.blocks.{block}"
            if block == 0:
                weights[f"{at}.projection.shortcut{'.2' if sk else ''}.weight"] = (4 * middle, source, 1, 1)
                norms[f"{at}.projection.bn.0"] = 4 * middle
            weights[f"{at}.net.0.weight"] = (middle, source, 1, 1)
            norms[f"{at}.net.1.0"] = middle
            if sk:
                gate = max(int(middle * 0.0625), 32)
                weights[f"{at}.net.2.main_conv.0.weight"] = (2 * middle, middle, 3, 3)
                norms[f"{at}.net.2.main_conv.1.0"] = 2 * middle
                weights[f"{at}.net.2.mixing_conv.0.weight"] = (gate, middle, 1, 1)
                norms[f"{at}.net.2.mixing_conv.1.0"] = gate
                weights[f"{at}.net.2.mixing_conv.2.weight"] = (2 * middle, gate, 1, 1)
                last = 3
            else:
                weights[f"{at}.net.2.weight"] = (middle, middle, 3, 3)
                norms[f"{at}.net.3.0"] = middle
                last = 4
            weights[f"{at}.net.{last}.weight"] = (4 * middle, middle, 1, 1)
            norms[f"{at}.net.{last + 1}.0"] = 4 * middle
            source = 4 * middle
    weights["resnet.fc.weight"] = (1000, source)
    for layer, output in enumerate((source, source, 128)):
        weights[f"head.layers.{3 * layer}.weight"] = (output, source)
        norms[f"head.layers.{3 * layer + 1}"] = output
    tensors = {}
    for name, shape in weights.items():
        tensors[name] = torch.randn(shape) * (2 / np.prod(shape[1:])) ** 0.5
    tensors["resnet.fc.bias"] = torch.zeros(1000)
    last = lasts(norms)
    for name, channels in norms.items():
        tensors[f"{name}.weight"] = torch.empty(channels).uniform_(*(LAST_SCALES if name in last else SCALES))
        tensors[f"{name}.bias"] = torch.empty(channels).uniform_(*SHIFTS)
        tensors[f"{name}.running_mean"] = torch.zeros(channels)
        tensors[f"{name}.running_var"] = torch.ones(channels)
        tensors[f"{name}.num_batches_tracked"] = torch.tensor(7)
    # As the conversion leaves it: there is no such shift in Google's head.
    tensors["head.layers.7.bias"].zero_()
    return tensors


class Conversion:
    def __init__(self, tensors):
        self.tensors, self.fresh = tensors, False

    def norm(self, x, name, relu=True):
        mean, var, weight, bias = (self.tensors[f"{name}.{of}"] for of in ("running_mean", "running_var", "weight", "bias"))
        if self.fresh:
            settle(x, mean, var)
        y = F.batch_norm(x, mean, var, weight, bias, eps=1e-5)
        return F.relu(y) if relu else y

    def conv(self, x, name, stride=1):
        weight = self.tensors[f"{name}.weight"]
        return F.conv2d(x, weight, stride=stride, padding=(weight.shape[-1] - 1) // 2)

    def selected(self, x, at, stride):
        both = self.norm(self.conv(x, f"{at}.main_conv.0", stride), f"{at}.main_conv.1.0")
        half = both.shape[1] // 2
        one, two = both[:, :half], both[:, half:]
        gate = (one + two).mean((2, 3), keepdim=True)
        gate = self.norm(self.conv(gate, f"{at}.mixing_conv.0"), f"{at}.mixing_conv.1.0")
        gate = self.conv(gate, f"{at}.mixing_conv.2")
        share = torch.sigmoid(gate[:, :half] - gate[:, half:])
        return share * one + (1 - share) * two

    def block(self, x, at, stride):
        sk = f"{at}.net.2.main_conv.0.weight" in self.tensors
        shortcut = x
        if f"{at}.projection.bn.0.weight" in self.tensors:
            if sk:
                shortcut = F.avg_pool2d(F.pad(x, (0, 1, 0, 1)), 2, stride)
                shortcut = self.conv(shortcut, f"{at}.projection.shortcut.2")
            else:
                shortcut = self.conv(x, f"{at}.projection.shortcut", stride)
            shortcut = self.norm(shortcut, f"{at}.projection.bn.0", relu=False)
        y = self.norm(self.conv(x, f"{at}.net.0"), f"{at}.net.1.0")
        if sk:
            y, last = self.selected(y, f"{at}.net.2", stride), 3
        else:
            y, last = self.norm(self.conv(y, f"{at}.net.2", stride), f"{at}.net.3.0"), 4
        y = self.norm(self.conv(y, f"{at}.net.{last}"), f"{at}.net.{last + 1}.0", relu=False)
        return F.relu(y + shortcut)

    def __call__(self, x):
        for at in (0, 2, 4):
            if f"resnet.net.0.{at}.weight" in self.tensors:
                x = self.norm(self.conv(x, f"resnet.net.0.{at}", 2 if at == 0 else 1), f"resnet.net.0.{at + 1}.0")
        x = F.max_pool2d(x, 3, 2, 1)
        for group, count in enumerate(BLOCKS["r50"], 1):
            for block in range(count):
                x = self.block(x, f"resnet.net.{group}.blocks.{block}", 2 if group > 1 and block == 0 else 1)
        return x.mean((2, 3))

    def head(self, h):
        for layer in range(3):
            h = F.linear(h, self.tensors[f"head.layers.{3 * layer}.weight"])
            h = self.norm(h, f"head.layers.{3 * layer + 1}", relu=layer < 2)
        return h


def make(program, arch, folder):
    torch.manual_seed(3)
    pictures(folder)
    images = opened(folder)
    file, weights = os.path.join(folder, "model.safetensors"), os.path.join(folder, "weights")
    save = lambda tensors: save_file({name: tensor.contiguous() for name, tensor in tensors.items()}, file)
    if program == "torchvision":
        import torchvision

        model = randomise(getattr(torchvision.models, arch)(weights=None), batch(images, *IMAGENET))
        save(model.state_dict())
        model.fc = torch.nn.Identity()
        features = lambda: model(batch(images, *IMAGENET))
    elif program == "timm":
        import timm
        from timm.models import save_for_hf

        model = randomise(timm.create_model(arch, num_classes=10), batch(images, *ODD))
        data = {"input_size": (3, SIZE, SIZE), "crop_pct": 1.0, "mean": ODD[0], "std": ODD[1]}
        save_for_hf(model, weights, safe_serialization=True, data_config=data)
        model.reset_classifier(0)
        features = lambda: model(batch(images, *ODD))
    elif program == "transformers":
        from transformers import ConvNextImageProcessor, ResNetConfig, ResNetForImageClassification

        config = {
            "resnet18": ResNetConfig(hidden_sizes=[64, 128, 256, 512], depths=[2, 2, 2, 2], layer_type="basic"),
            "resnet50": ResNetConfig(),
            "resnet50-2x": ResNetConfig(embedding_size=128, hidden_sizes=[512, 1024, 2048, 4096]),
        }[arch]
        model = randomise(ResNetForImageClassification(config), batch(images, *ODD))
        model.save_pretrained(weights)
        processor = ConvNextImageProcessor(size={"shortest_edge": SIZE}, crop_pct=1.0, image_mean=ODD[0], image_std=ODD[1])
        processor.save_pretrained(weights)
        features = lambda: model.resnet(batch(images, *ODD)).pooler_output.flatten(1)
    else:
        model = Conversion(conversion(arch))
        with torch.no_grad():
            model.fresh = True
            model.head(model(batch(images, *PLAIN)))
            model.fresh = False
            np.save(os.path.join(folder, "embeddings.npy"), model.head(model(batch(images, *PLAIN))).numpy())
        save(model.tensors)
        features = lambda: model(batch(images, *PLAIN))
    with torch.no_grad():
        found = features().numpy()
    spread = found.std(0).mean()
    assert 0.05 < np.abs(found).mean() < 20 and spread > 1e-3, f"features of no use: {np.abs(found).mean()}, {spread}"
    np.save(os.path.join(folder, "features.npy"), found)


def load(program, path, folder):
    images = opened(folder)
    if program == "torchvision":
        import torchvision

        tensors = load_file(path)
        model = (torchvision.models.resnet50 if "layer1.0.conv3.weight" in tensors else torchvision.models.resnet18)(weights=None)
        model.fc = torch.nn.Identity()
        model.load_state_dict(tensors, strict=True)
        features = lambda: model.eval()(batch(images, *IMAGENET))
    elif program == "timm":
        import timm

        model = timm.create_model(f"local-dir:{path}", pretrained=True).eval()
        transform = timm.data.create_transform(**timm.data.resolve_model_data_config(model))
        features = lambda: model(torch.stack([transform(image) for image in images]))
        fresh = timm.create_model(f"local-dir:{path}", pretrained=True, num_classes=5)
        assert fresh(torch.zeros(1, 3, SIZE, SIZE)).shape == (1, 5)
    else:
        from transformers import AutoImageProcessor, AutoModel

        model, info = AutoModel.from_pretrained(path, output_loading_info=True)
        assert type(model).__name__ == "ResNetModel" and not any(info.values()), info
        processor = AutoImageProcessor.from_pretrained(path)
        features = lambda: model.eval()(**processor(images, return_tensors="pt")).pooler_output.flatten(1)
    with torch.no_grad():
        print(difference(features().numpy(), np.load(os.path.join(folder, "features.npy"))))


def apart(logits, names, folder):
    """The largest difference between the probabilities of a program's classes and what ctk said of the pictures."""
    with torch.no_grad():
        found = logits().softmax(1).numpy()
    ours = np.empty_like(found)
    with open(os.path.join(folder, "predictions.csv"), newline="") as file:
        rows = list(csv.DictReader(file))
    for row, said in zip(ours, rows, strict=True):
        for behind in ("", "_2"):
            row[names.index(said[f"predicted{behind}"])] = float(said[f"probability{behind}"])
    assert np.abs(ours[:, 0] - ours[0, 0]).max() > 1e-3, f"probabilities of no use: {ours}"
    return difference(found, ours)


def classify(program, path, folder):
    images = opened(folder)
    if program.startswith("torchvision"):
        import torchvision

        tensors = load_file(path)
        layers = sorted({int(name.split(".")[1]) for name in tensors if re.match(r"fc\.\d", name)})
        model = (torchvision.models.resnet50 if "layer1.0.conv3.weight" in tensors else torchvision.models.resnet18)(num_classes=2)
        if layers:
            linear = {at: torch.nn.Linear(*reversed(tensors[f"fc.{at}.weight"].shape)) for at in layers}
            model.fc = torch.nn.Sequential(*[linear.get(at, torch.nn.ReLU()) for at in range(layers[-1] + 1)])
        model.load_state_dict(tensors, strict=True)
        pixels = batch(images, *(PLAIN if program.endswith("plain") else IMAGENET))
        names, logits = json.load(open(f"{path}.classes.json")), lambda: model.eval()(pixels)
    elif program == "timm":
        import timm

        model = timm.create_model(f"local-dir:{path}", pretrained=True).eval()
        transform = timm.data.create_transform(**timm.data.resolve_model_data_config(model))
        names, logits = model.pretrained_cfg["label_names"], lambda: model(torch.stack([transform(image) for image in images]))
        assert model.num_classes == len(names), model.pretrained_cfg
    else:
        from transformers import AutoImageProcessor, AutoModelForImageClassification

        model, info = AutoModelForImageClassification.from_pretrained(path, output_loading_info=True)
        assert type(model).__name__ == "ResNetForImageClassification" and not any(info.values()), info
        processor = AutoImageProcessor.from_pretrained(path)
        names = [model.config.id2label[at] for at in range(model.config.num_labels)]
        logits = lambda: model.eval()(**processor(images, return_tensors="pt")).logits
    print(apart(logits, names, folder))


def photos(folder):
    """Pictures of any size and shape, smooth and sharp."""
    torch.manual_seed(5)
    for height, width in [(8, 8), (20, 33), (32, 32), (33, 40), (64, 48), (72, 72), (97, 61), (150, 101), (200, 301), (225, 224), (61, 400)]:
        small = torch.rand(1, 3, max(2, height // 7), max(2, width // 7))
        large = F.interpolate(small, size=(height, width), mode="bicubic").clamp(0, 1)[0]
        large[:, : height // 3, width // 2 :] = torch.rand(3, 1, 1)
        pixels = (large.permute(1, 2, 0) * 255).round().to(torch.uint8).numpy()
        Image.fromarray(pixels).save(os.path.join(folder, f"{height:03}x{width:03}.png"))


def alike(program, path, folder, features):
    """Prints the least cosine of what a program makes of photos, by its own preprocessing, and what ctk made of them."""
    images = [Image.open(os.path.join(folder, name)).convert("RGB") for name in sorted(os.listdir(folder))]
    if program == "timm":
        import timm

        model = timm.create_model(f"local-dir:{path}", pretrained=True).eval()
        transform = timm.data.create_transform(**timm.data.resolve_model_data_config(model))
        made = lambda: model(torch.stack([transform(image) for image in images]))
    else:
        from transformers import AutoImageProcessor, AutoModel

        model, processor = AutoModel.from_pretrained(path).eval(), AutoImageProcessor.from_pretrained(path)
        made = lambda: model(**processor(images, return_tensors="pt")).pooler_output.flatten(1)
    with torch.no_grad():
        theirs = F.normalize(made().double(), dim=1)
    ours = F.normalize(torch.from_numpy(np.load(features)).double(), dim=1)
    cosines = (theirs * ours).sum(1)
    for image, cosine in zip(images, cosines):
        print(image.size, float(cosine))
    print(float(cosines.min()))


def others(folder):
    """Networks that are none of ctk's, though some have a ResNet's names: files alone, and folders where only a description tells."""
    import timm
    from timm.models import save_for_hf
    from transformers import BitConfig, BitModel, RegNetConfig, RegNetModel, ResNetConfig, ResNetModel

    names = ["resnet50s", "resnet50c", "resnet50t", "resnet26", "wide_resnet50_2", "resnext50_32x4d", "seresnet50", "skresnet18", "resnet50_gn"]
    for name in names + ["ecaresnet26t", "resnetv2_50", "convnext_atto"]:
        model = timm.create_model(name, num_classes=0)
        save_file({key: t.contiguous() for key, t in model.state_dict().items()}, os.path.join(folder, name))
    for name in ["resnetblur18", "resnetaa50"]:
        save_for_hf(timm.create_model(name, num_classes=0), os.path.join(folder, name), safe_serialization=True)
    save_for_hf(timm.create_model("resnet18", output_stride=8), os.path.join(folder, "dilated"), safe_serialization=True)
    small = {"hidden_sizes": [32, 64, 128, 256], "depths": [3, 4, 6, 3], "embedding_size": 32}
    for name, model in {
        "bottleneck": ResNetModel(ResNetConfig(downsample_in_bottleneck=True, **small)),
        "first": ResNetModel(ResNetConfig(downsample_in_first_stage=True, **small)),
        "gelu": ResNetModel(ResNetConfig(hidden_act="gelu", **small)),
        "regnet": RegNetModel(RegNetConfig(groups_width=8, **small)),
        "bit": BitModel(BitConfig(num_groups=4, **small)),
    }.items():
        model.save_pretrained(os.path.join(folder, name))


def difference(a, b):
    assert a.shape == b.shape, f"{a.shape} and {b.shape}"
    return float(np.abs(a.astype(np.float64) - b).max())


if __name__ == "__main__":
    verb, *arguments = sys.argv[1:]
    if verb == "compare":
        print(difference(*map(np.load, arguments)))
    else:
        {"make": make, "load": load, "classify": classify, "others": others, "photos": photos, "alike": alike}[verb](*arguments)
