import numpy

from lab import write_csv

TITLE = "A saddle that holds the full batch"
QUESTION = """
    In (0, 0) the mean of x²/2 + y⁴/4 - y²/2 + a y over examples a has a saddle: no gradient, and a minimum of -1/4 on either side. Training starts in (1, 0),
    from where the gradient leads straight into it. Who gets out?"""
JOB = """
name: "saddle" seed: 1 ranks: 1 rounds: 400
data {
  train      { csv { path: "pulls.csv" header: true label: "unused" } }   # 1,000 numbers a, 500 and their negatives
  validation { csv { path: "pulls.csv" header: true label: "unused" } }
}
model { custom { name: "saddle" options { key: "start" value: "1" } } }
optimizer { sgd {} }
learning_rate { constant: 0.05 }
evaluation { every_rounds: 5 }
"""
VARIED = """
    `batch_size`: 1,000 (all), 100, 10, 1; and all with `gradient_noise { eta: 1e-4 gamma: 0 }`. Five seeds each."""
SOURCE = "Ge, Huang, Jin and Yuan, 2015; Jin et al., 2017"
KINDS = {"full batch": ("batch_size=1000",), "batches of 100": ("batch_size=100",), "batches of 10": ("batch_size=10",),
         "single examples": ("batch_size=1",),
         "full batch with noise": ("batch_size=1000", "gradient_noise={ eta: 1e-4 gamma: 0 }")}


def measure(lab):
    half = numpy.round(numpy.random.default_rng(1).normal(size=500) * 16) / 16  # whose sums are exact
    write_csv(lab.folder / "pulls.csv", ["a", "unused"], [numpy.concatenate([half, -half]), numpy.zeros(1000)])
    out = {}
    for kind, sets in KINDS.items():
        runs = [lab.run(JOB, *sets, f"seed={seed}", f"rounds={lab.size(400, 20)}", own_models=True)
                for seed in range(1, lab.size(5, 1) + 1)]
        out[kind] = {"curves": [run.curve("loss", x="clock") for run in runs],
                     "ends": [[float(run.parameters()[name][0]) for name in ("x", "y")] for run in runs]}
    return out


def seen(data):
    full = data["full batch"]
    x, y = full["ends"][0]
    yield (f"The full batch ends in ({x:.1g}, {y:g}) with a loss of {full['curves'][0][-1][1]:.1g}, whatever the seed: in the saddle.",
           all(end[1] == 0 and abs(end[0]) < 1e-6 for end in full["ends"]))
    for kind in list(KINDS)[1:]:
        out = [next((clock for clock, loss in curve if loss < -0.2), None) for curve in data[kind]["curves"]]
        if None in out:
            yield f"{kind.capitalize()}: some runs stay.", False
            continue
        ends = [end[1] for end in data[kind]["ends"]]
        yield (f"{kind.capitalize()}: all five runs are below -0.2 after {min(out)} to {max(out)} steps, with y from {min(ends):.2f} to {max(ends):.2f}.",
               True)


def draw(data, figure):
    axes = figure.subplots()
    for i, (kind, runs) in enumerate(data.items()):
        for j, curve in enumerate(runs["curves"]):
            axes.plot(*zip(*curve), color=f"C{i}", linewidth=1, alpha=0.8, label=kind if j == 0 else None)
    axes.set(xlabel="step", ylabel="loss", ylim=(-0.3, 0.55))
    axes.legend(loc="upper right")
