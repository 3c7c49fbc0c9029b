import numpy

from lab import write_csv

TITLE = "Clipping where gradients explode"
QUESTION = """
    A recurrent net of tanh units whose state weights start 1.5 times as large as those at which derivatives keep their size over the steps.
    It is to add up two marked numbers of a sequence of 30. What becomes of it with and without clipping?"""
JOB = """
name: "clipping" seed: 1 ranks: 1 batch_size: 20 epochs: 20
data {
  train      { csv { path: "train.csv" header: true label: "y" } }   # 4,000 sequences: 30 x (number, marked or not)
  validation { csv { path: "test.csv" header: true label: "y" } }    # 1,000
}
model { custom { name: "elman" options { key: "steps" value: "30" }
  options { key: "units" value: "32" } options { key: "gain" value: "1.5" } } }
optimizer { sgd {} }
metrics { every_rounds: 20 }
"""
VARIED = """
    `clip`: none, or `{ global_norm: 1 }`, and `learning_rate.constant`: 0.003, 0.01, 0.03, 0.1."""
SOURCE = "Pascanu, Mikolov and Bengio, 2013; the task is that of Hochreiter and Schmidhuber, 1997, section 5.4"
RATES = (0.003, 0.01, 0.03, 0.1)
CLIPS = {"not clipped": (), "clipped to 1": ("clip={ global_norm: 1 }",)}


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
    sequences(lab.folder / "train.csv", lab.size(4000, 200), rng)
    sequences(lab.folder / "test.csv", lab.size(1000, 50), rng)
    out = {}
    for kind, sets in CLIPS.items():
        for rate in RATES:
            run = lab.run(JOB, *sets, f"learning_rate.constant={rate}", f"epochs={lab.size(20, 1)}", own_models=True, may_fail=True)
            out[f"{kind}, {rate}"] = {"norms": run.curve("gradient_norm", "training"), "losses": run.curve("loss"),
                                      "clipped": run.summary.get("clipped"), "cause": run.summary.get("first_cause", "")}
    return out


def seen(data):
    return []


def draw(data, figure):
    left, right = figure.subplots(1, 2)
    for i, kind in enumerate(CLIPS):
        for rate in RATES:
            one = data[f"{kind}, {rate}"]
            left.plot(*zip(*one["norms"]), color=f"C{i}", linewidth=0.6)
            right.plot(*zip(*one["losses"]), color=f"C{i}", label=f"{kind}, {rate}")
    left.set(yscale="log", xlabel="epoch", ylabel="norm of the gradient, before clipping")
    right.set(yscale="log", xlabel="epoch", ylabel="test loss")
    right.legend()
