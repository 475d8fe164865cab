"""What a user would run instead of `ctk embed`: sentence-transformers on PyTorch, or ONNX Runtime. One JSON line on stdout.

embed.py calls it; by hand:

    python embed_peer.py torch --model FOLDER --texts texts.txt --batch 32 --bf16 autocast
    python embed_peer.py export --model FOLDER --out folder/
    python embed_peer.py onnx --model FOLDER --texts texts.txt --batch 32 --onnx folder/f32.onnx

`export` writes f32.onnx, whose attention is fused by ONNX Runtime's optimizer for transformers, and int8.onnx, the same with weights and
activations quantised dynamically. Seconds are from the texts to the rows, tokenizer included, on a network that has been loaded and has
run; texts are sorted by length in both, as sentence-transformers does.
"""

import argparse
import json
import pathlib
import time

import numpy


def read(path):
    return pathlib.Path(path).read_text(encoding="utf-8").splitlines()


def warm(texts):
    """Some texts to begin with: the longest are among them, so that memory has been allocated."""
    return sorted(texts, key=len)[:: max(1, len(texts) // 64)] + sorted(texts, key=len)[-16:]


def timed(encode, texts):
    encode(warm(texts))
    start = time.perf_counter()
    rows = encode(texts)
    return time.perf_counter() - start, rows


def by_torch(a):
    import torch
    from sentence_transformers import SentenceTransformer

    torch.set_num_threads(a.threads)
    model = SentenceTransformer(a.model, device="cpu")
    model.max_seq_length = a.longest
    if a.bf16 == "model":
        model = model.bfloat16()

    def encode(texts):
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=a.bf16 == "autocast"):
            found = model.encode(texts, batch_size=a.batch, show_progress_bar=False, convert_to_tensor=True)
        return found.float().numpy()

    return encode


def export(a):
    import onnx
    import torch
    from onnxruntime.quantization import QuantType, quantize_dynamic
    from onnxruntime.transformers.optimizer import optimize_model
    from transformers import AutoModel

    out = pathlib.Path(a.out)
    out.mkdir(parents=True, exist_ok=True)
    network = AutoModel.from_pretrained(a.model, attn_implementation="eager").eval()

    class Network(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.network = network

        def forward(self, ids, mask):
            return self.network(input_ids=ids, attention_mask=mask).last_hidden_state

    axes = {0: "texts", 1: "tokens"}
    given = torch.randint(1000, 2000, (3, 11)), torch.ones(3, 11, dtype=torch.long)
    torch.onnx.export(
        Network().eval(), given, str(out / "plain.onnx"), input_names=["ids", "mask"], output_names=["hidden"],
        dynamic_axes={"ids": axes, "mask": axes, "hidden": axes}, opset_version=17, dynamo=False,
    )
    config = network.config
    fused = optimize_model(
        str(out / "plain.onnx"), model_type="bert", num_heads=config.num_attention_heads, hidden_size=config.hidden_size, opt_level=1
    )
    fused.save_model_to_file(str(out / "f32.onnx"))
    # Shapes cannot be inferred through the fused operators, so their type is told.
    told = {"DefaultTensorType": onnx.TensorProto.FLOAT}
    quantize_dynamic(str(out / "f32.onnx"), str(out / "int8.onnx"), weight_type=QuantType.QInt8, extra_options=told)
    kinds = [node.op_type for node in onnx.load(str(out / "f32.onnx")).graph.node]
    return {"layers": config.num_hidden_layers, "attention": kinds.count("Attention"), "nodes": len(kinds)}


def by_onnx(a):
    import onnxruntime
    from tokenizers import Tokenizer

    tokenizer = Tokenizer.from_file(str(pathlib.Path(a.model) / "tokenizer.json"))
    tokenizer.enable_truncation(a.longest)
    tokenizer.enable_padding()
    settings = onnxruntime.SessionOptions()
    settings.intra_op_num_threads, settings.inter_op_num_threads = a.threads, 1
    session = onnxruntime.InferenceSession(a.onnx, settings, providers=["CPUExecutionProvider"])

    def encode(texts):
        order = sorted(range(len(texts)), key=lambda at: -len(texts[at]))
        rows = None
        for start in range(0, len(order), a.batch):
            part = order[start:start + a.batch]
            found = tokenizer.encode_batch([texts[at] for at in part])
            ids, mask = (numpy.array([getattr(one, of) for one in found]) for of in ("ids", "attention_mask"))
            hidden = session.run(["hidden"], {"ids": ids, "mask": mask})[0]
            mean = numpy.einsum("ntd,nt->nd", hidden, mask.astype(numpy.float32)) / mask.sum(axis=1, keepdims=True)
            mean /= numpy.maximum(numpy.linalg.norm(mean, axis=1, keepdims=True), 1e-12)
            rows = numpy.empty((len(texts), mean.shape[1]), numpy.float32) if rows is None else rows
            rows[part] = mean
        return rows

    return encode


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("work", choices=["torch", "onnx", "export"])
    parser.add_argument("--model", required=True)
    parser.add_argument("--texts")
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--longest", type=int, default=256, help="tokens of a text, special tokens included")
    parser.add_argument("--bf16", choices=["model", "autocast"])
    parser.add_argument("--onnx", help="the network of `onnx`")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--out", help="a folder for `export`, or a file for the rows")
    a = parser.parse_args()
    if a.work == "export":
        print(json.dumps(export(a)))
        return
    texts = read(a.texts)
    seconds, rows = timed((by_torch if a.work == "torch" else by_onnx)(a), texts)
    if a.out:
        numpy.save(a.out, rows)
    print(json.dumps({"seconds": seconds, "texts_per_second": len(texts) / seconds, "texts": len(texts)}))


if __name__ == "__main__":
    main()
