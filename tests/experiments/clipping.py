import re

import numpy

from lab import thinned, write_csv

TITLE = "Clipping where gradients explode"
QUESTION = """
    A recurrent net of rectified units whose state weights start 1.2 times as large as those at which values keep their size from step to step. It is to add up two marked
    numbers of a sequence of 30. What becomes of it with and without clipping?"""
JOB = """
name: "clipping" seed: 1 ranks: 1 batch_size: 20 epochs: 30
data {
  train      { csv { path: "train.csv" header: true label: "y" } }   # 2,000 sequences: 30 x (number, marked or not)
  validation { csv { path: "test.csv" header: true label: "y" } }    # 500
}
model { custom { name: "elman" options { key: "steps" value: "30" }
  options { key: "units" value: "32" } options { key: "gain" value: "1.2" } } }
optimizer { sgd {} }
metrics { every_rounds: 1 }
"""
VARIED = """
    `clip`: none, or `{ global_norm: 1 }`, and `learning_rate.constant`."""
SOURCE = ("Pascanu, Mikolov and Bengio, 2013; the net is like that of Le, Jaitly and Hinton, 2015; the task is that of Hochreiter and "
          "Schmidhuber, 1997, section 5.4")
RATES = {"not clipped": (1e-5, 1e-4, 1e-3, 1e-2, 1e-1), "clipped to 1": (1e-2, 1e-1)}
CLIPS = {"not clipped": (), "clipped to 1": ("clip={ global_norm: 1 }",)}
MEAN_ALONE = 1 / 12  # half the variance of a sum of two uniform numbers: the loss of a net that tells their mean


def sequences(path, rows, rng, steps=30):
    number, marked = rng.uniform(size=(rows, steps)), numpy.zeros((rows, steps))
    first, second = rng.integers(0, steps // 2, rows), rng.integers(steps // 2, steps, rows)
    every = numpy.arange(rows)
    marked[every, first] = marked[every, second] = 1
    x = numpy.stack([number, marked], axis=2).reshape(rows, 2 * steps)
    y = number[every, first] + number[every, second]
    write_csv(path, [f"x{i}" for i in range(2 * steps)] + ["y"], [*x.T, y])


def measure(lab):
    rng = numpy.random.default_rng(1)
    sequences(lab.folder / "train.csv", lab.size(2000, 200), rng)
    sequences(lab.folder / "test.csv", lab.size(500, 50), rng)
    out = {}
    for kind, rates in RATES.items():
        for rate in rates:
            run = lab.run(JOB, *CLIPS[kind], f"learning_rate.constant={rate:g}", f"epochs={lab.size(30, 1)}", own_models=True,
                          may_fail=True)
            norms = run.curve("gradient_norm", "training", "clock")
            out[f"{kind}, {rate:g}"] = {"norms": norms[:30] + thinned(norms[30:]), "loss": run.curve("loss"),
                                        "clipped": run.summary.get("clipped"), "ended": cause(run.summary.get("first_cause"))}
    return out


def cause(text):
    """Of one that failed: what was not finite."""
    return text and text[text.index("tensor"):] if text and "tensor" in text else text


def seen(data):
    first = next(norm for one in data.values() for clock, norm in one["norms"] if clock == 1)
    yield f"The first gradient has a norm of {first:,.0f}.", first > 1000
    ended = {key: one for key, one in data.items() if one["ended"]}
    told = ", ".join(key.rsplit(" ", 1)[1] for key in ended)
    example = next(iter(ended.values()))["ended"] if ended else ""
    last = max((int(of[1]) + 1 for one in ended.values() if (of := re.search(r"at clock (\d+)", one["ended"]))), default=0)
    yield (f"Without clipping rates of {told} end with a number that is not finite, at the latest in round {last}: \"{example}\".",
           all(key.startswith("not clipped") for key in ended) and len(ended) >= 2)
    least = {key: min(loss for _, loss in one["loss"]) for key, one in data.items() if not one["ended"]}
    plain = min((v, key) for key, v in least.items() if key.startswith("not"))
    clipped = min((v, key) for key, v in least.items() if key.startswith("clipped"))
    yield (f"Least test loss without clipping: {plain[0]:.4f} ({plain[1]}); with: {clipped[0]:.4f} ({clipped[1]}). Whoever tells the mean alone has {MEAN_ALONE:.4f}.",
           clipped[0] < MEAN_ALONE / 2 and clipped[0] < plain[0] / 2)
    share = data[clipped[1]]["clipped"]
    yield f"In that run {share:.0%} of the steps were clipped.", 0 < share < 1


def draw(data, figure):
    left, right = figure.subplots(1, 2)
    for i, (key, one) in enumerate(data.items()):
        colour = f"C{i}"
        if len(one["norms"]) > 1:
            left.plot(*zip(*one["norms"]), color=colour, linewidth=0.7)
        if one["loss"] and not one["ended"]:
            right.plot(*zip(*one["loss"]), color=colour, label=key, linewidth=1)
    left.set(xscale="log", yscale="log", xlabel="round", ylabel="norm of the gradient, before clipping")
    right.axhline(MEAN_ALONE, color="#999999", linewidth=0.7, label="the mean alone")
    right.set(yscale="log", xlabel="epoch", ylabel="test loss")
    right.legend()
