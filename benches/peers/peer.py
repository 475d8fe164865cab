"""What a user would run instead of ctk: PyTorch, with lightly's views. One piece of work a process, one JSON line on stdout.

compare.py calls it; by hand:

    python peer.py step --network resnet18 --size 32 --batch 128 --bf16
    python peer.py simclr --network resnet18 --batch 256 --data DATA/train --workers 1
    python peer.py augment --data DATA/train
"""

import argparse
import json
import os
import statistics
import time

os.environ.setdefault("LIGHTLY_DID_VERSION_CHECK", "True")  # no request to a server while something is timed

import torch
import torch.nn.functional as F
import torchvision
from torch import nn

CHANNELS_LAST = {"memory_format": torch.channels_last}
WARM = 2  # steps before the clock starts, as in ctk


class Block(nn.Module):
    """He et al.'s basic block, its shortcut projected where the shape changes."""

    def __init__(self, before, after, stride):
        super().__init__()
        self.conv1, self.bn1 = nn.Conv2d(before, after, 3, stride, 1, bias=False), nn.BatchNorm2d(after)
        self.conv2, self.bn2 = nn.Conv2d(after, after, 3, 1, 1, bias=False), nn.BatchNorm2d(after)
        self.shortcut = nn.Identity()
        if stride != 1 or before != after:
            self.shortcut = nn.Sequential(nn.Conv2d(before, after, 1, stride, bias=False), nn.BatchNorm2d(after))

    def forward(self, x):
        y = F.relu(self.bn1(self.conv1(x)), inplace=True)
        return F.relu(self.bn2(self.conv2(y)) + self.shortcut(x), inplace=True)


class Small(nn.Module):
    """Basic blocks behind a 3 x 3 stem, for images of about 32 pixels."""

    def __init__(self, blocks, widths):
        super().__init__()
        layers = [nn.Conv2d(3, widths[0], 3, 1, 1, bias=False), nn.BatchNorm2d(widths[0]), nn.ReLU(inplace=True)]
        before = widths[0]
        for group, (count, width) in enumerate(zip(blocks, widths)):
            for block in range(count):
                layers.append(Block(before, width, 2 if group > 0 and block == 0 else 1))
                before = width
        self.body, self.width = nn.Sequential(*layers), before

    def forward(self, x):
        return self.body(x).mean((2, 3))


def resnet50():
    network = torchvision.models.resnet50()
    network.width, network.fc = 2048, nn.Identity()
    return network


NETWORKS = {
    "resnet18": lambda: Small([2, 2, 2, 2], [64, 128, 256, 512]),
    "resnet18-quarter": lambda: Small([2, 2, 2, 2], [16, 32, 64, 128]),
    "resnet20": lambda: Small([3, 3, 3], [16, 32, 64]),
    "resnet50": resnet50,
}


class SimClr(nn.Module):
    """An encoder and SimCLRv2's three-layer head."""

    def __init__(self, encoder, out=128):
        super().__init__()
        width, head = encoder.width, []
        for _ in range(2):
            head += [nn.Linear(width, width, bias=False), nn.BatchNorm1d(width), nn.ReLU(inplace=True)]
        self.encoder, self.head = encoder, nn.Sequential(*head, nn.Linear(width, out, bias=False), nn.BatchNorm1d(out))

    def forward(self, x):
        return self.head(self.encoder(x))


def nt_xent(z, temperature=0.5):
    z = F.normalize(z.float(), dim=1)
    pairs = z.shape[0] // 2
    similarity = (z @ z.T / temperature).masked_fill(torch.eye(2 * pairs, dtype=torch.bool), -1e9)
    return F.cross_entropy(similarity, torch.arange(2 * pairs).roll(pairs))


def resident(name):
    """A figure of /proc/self/status in MB; 0 where there is none."""
    try:
        with open("/proc/self/status") as status:
            return next(int(line.split()[1]) / 1024 for line in status if line.startswith(name))
    except OSError:
        return 0.0


def autocast(bf16):
    return torch.autocast("cpu", dtype=torch.bfloat16, enabled=bf16)


def step(a):
    """Forward, backward and SGD of an encoder with a linear classifier, on random input."""
    before = resident("VmRSS:")
    network = NETWORKS[a.network]().train().to(**CHANNELS_LAST)
    classifier = nn.Linear(network.width, 10)
    x = torch.randn(a.batch, 3, a.size, a.size).contiguous(**CHANNELS_LAST)
    y = torch.randint(0, 10, (a.batch,))
    parameters = [*network.parameters(), *classifier.parameters()]
    optimizer = torch.optim.SGD(parameters, lr=0.01, momentum=0.9, weight_decay=1e-4)
    times = []
    for i in range(WARM + a.steps):
        start = time.perf_counter()
        optimizer.zero_grad(set_to_none=True)
        with autocast(a.bf16):
            loss = F.cross_entropy(classifier(network(x)).float(), y)
        loss.backward()
        optimizer.step()
        if i >= WARM:
            times.append((time.perf_counter() - start) * 1e3)
    best, median = min(times), statistics.median_high(times)
    return {"step_ms": {"best": best, "median": median}, "peak_rss_mb": max(0.0, resident("VmHWM:") - before)}


def views(a, count):
    """`count` images spread over the folder (or all), decoded once before any clock starts, as pairs of lightly's views."""
    from lightly.transforms import SimCLRTransform
    from torchvision.datasets import ImageFolder

    small = a.size <= 32  # SimCLR's settings for CIFAR: half the jitter, no blur
    transform = SimCLRTransform(
        input_size=a.size, cj_strength=0.5 if small else 1.0, gaussian_blur=0.0 if small else 0.5, normalize=None
    )
    data = ImageFolder(a.data, transform=transform)
    count = min(count, len(data.samples))
    data.samples = [data.samples[i * len(data.samples) // count] for i in range(count)]
    decoded = {path: data.loader(path) for path, _ in data.samples}
    data.loader = decoded.__getitem__
    return data


def simclr(a):
    """The whole of a training step, its views drawn by `workers` processes beside it (0: between steps)."""
    from torch.utils.data import DataLoader

    data = views(a, (WARM + a.steps) * a.batch)
    loader = DataLoader(data, a.batch, shuffle=True, drop_last=True, num_workers=a.workers, persistent_workers=a.workers > 0)
    model = SimClr(NETWORKS[a.network]()).train().to(**CHANNELS_LAST)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01, momentum=0.9, weight_decay=5e-4)
    done = 0
    while done < WARM + a.steps:
        for (left, right), _ in loader:
            if done == WARM:
                start = time.perf_counter()
            optimizer.zero_grad(set_to_none=True)
            with autocast(a.bf16):
                z = model(torch.cat([left, right]).contiguous(**CHANNELS_LAST))
            nt_xent(z).backward()
            optimizer.step()
            done += 1
            if done == WARM + a.steps:
                break
    return {"images_per_second": a.steps * a.batch / (time.perf_counter() - start)}


def augment(a):
    """One view on one thread."""
    torch.set_num_threads(1)
    data = views(a, a.batch)
    times = []
    for _ in range(WARM + a.steps):
        start = time.perf_counter()
        for i in range(len(data)):
            data[i]
        times.append((time.perf_counter() - start) * 1e6 / (2 * len(data)))
    return {"view_us": statistics.median(times[WARM:])}


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("work", choices=["step", "simclr", "augment"])
    parser.add_argument("--network", choices=sorted(NETWORKS), default="resnet18")
    parser.add_argument("--size", type=int, default=32)
    parser.add_argument("--batch", type=int, default=128)
    parser.add_argument("--steps", type=int, default=5)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--workers", type=int, default=0)
    parser.add_argument("--bf16", action="store_true")
    parser.add_argument("--data")
    a = parser.parse_args()
    torch.manual_seed(0)
    torch.set_num_threads(a.threads)
    print(json.dumps({"step": step, "simclr": simclr, "augment": augment}[a.work](a)))


if __name__ == "__main__":
    main()
