TITLE = "Bytes on the wire, and accuracy"
QUESTION = """
    Gradients and parameters in 16 bits instead of 32: what is saved, and what does it cost?"""
JOB = """
name: "compression" seed: 1 ranks: 2 batch_size: 64 epochs: 4
data { ... }                     # Fashion-MNIST
model { mlp { hidden: 128 activation: RELU classes: 10 } }
optimizer { momentum { momentum: 0.9 } }
learning_rate { cosine { initial: 0.05 final: 1e-4 } }
evaluation { every_epochs: 1 }
"""
VARIED = """
    `encoding`: F32, FP16, BF16; three seeds each. Two workers, one server."""
SOURCE = "Micikevicius et al., 2018 (half precision); Kalamkar et al., 2019 (bfloat16)"
ENCODINGS = ("F32", "FP16", "BF16")


def measure(lab):
    job = JOB.replace("data { ... }", lab.fashion())
    out = {}
    for encoding in ENCODINGS:
        runs = [lab.run(job, f"encoding={encoding}", f"seed={seed}", f"epochs={lab.size(4, 0.1)}", workers=2)
                for seed in range(1, lab.size(3, 1) + 1)]
        out[encoding] = {"bytes": [run.summary["payload_bytes"] for run in runs], "accuracy": [run.last["accuracy"] for run in runs],
                         "loss": [run.last["loss"] for run in runs]}
    return out


def mean(values):
    return sum(values) / len(values)


def seen(data):
    full = data["F32"]
    for encoding in ENCODINGS[1:]:
        one = data[encoding]
        saved = 1 - mean(one["bytes"]) / mean(full["bytes"])
        change = mean(one["accuracy"]) - mean(full["accuracy"])
        yield (f"{encoding}: {saved:.1%} of the bytes are saved; test accuracy {mean(one['accuracy']):.4f} instead of {mean(full['accuracy']):.4f} "
               f"({change:+.4f}; seeds alone differ by {max(full['accuracy']) - min(full['accuracy']):.4f}).",
               0.45 < saved < 0.51 and abs(change) < 0.01)


def draw(data, figure):
    axes = figure.subplots()
    for i, (encoding, one) in enumerate(data.items()):
        axes.plot([b / 1e6 for b in one["bytes"]], one["accuracy"], "o", label=encoding, alpha=0.8)
    axes.set(xlabel="megabytes sent in the run", ylabel="test accuracy", xlim=(0, None), ylim=(0.85, 0.89))
    axes.legend()
