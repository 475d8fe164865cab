"""PyTorch's step on a CUDA device: forward, backward and SGD of an encoder with a linear classifier, on random input in channels_last, with
autocast for bf16. One JSON line on stdout; run.sh calls it.

    python peer.py --network resnet18 --size 32 --batch 512 --numbers bf16
"""

import argparse
import json
import statistics
import sys
import time
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import nn

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "peers"))
from peer import CHANNELS_LAST, NETWORKS  # noqa: E402

WARM = 5  # steps before the clock starts, in which algorithms are chosen


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--network", choices=NETWORKS, required=True)
    parser.add_argument("--size", type=int, required=True)
    parser.add_argument("--batch", type=int, required=True)
    parser.add_argument("--numbers", choices=["f32", "tf32", "bf16"], required=True)
    parser.add_argument("--steps", type=int, default=10)
    parser.add_argument("--device", default="cuda")
    a = parser.parse_args()

    torch.backends.cudnn.benchmark = True
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = a.numbers != "f32"
    network = NETWORKS[a.network]().train().to(a.device, **CHANNELS_LAST)
    classifier = nn.Linear(network.width, 10).to(a.device)
    x = torch.randn(a.batch, 3, a.size, a.size, device=a.device).contiguous(**CHANNELS_LAST)
    y = torch.randint(0, 10, (a.batch,), device=a.device)
    parameters = [*network.parameters(), *classifier.parameters()]
    optimizer = torch.optim.SGD(parameters, lr=0.01, momentum=0.9, weight_decay=1e-4)
    times = []
    for i in range(WARM + a.steps):
        torch.cuda.synchronize(a.device)
        start = time.perf_counter()
        optimizer.zero_grad(set_to_none=True)
        with torch.autocast("cuda", dtype=torch.bfloat16, enabled=a.numbers == "bf16"):
            loss = F.cross_entropy(classifier(network(x)).float(), y)
        loss.backward()
        optimizer.step()
        torch.cuda.synchronize(a.device)
        if i >= WARM:
            times.append((time.perf_counter() - start) * 1e3)
    median = statistics.median_high(times)
    memory = torch.cuda.max_memory_reserved(a.device) / 1e6
    print(json.dumps({
        "step_ms": {"best": min(times), "median": median}, "step_images_per_second": a.batch / median * 1e3,
        "peak_device_mb": memory, "torch": torch.__version__,
    }))


if __name__ == "__main__":
    main()
