import numpy

from lab import write_csv

TITLE = "Features on one scale, and not"
QUESTION = """
    Linear regression on four features as a power plant would have them: a temperature around 20, a vacuum around 54, a pressure around 1,013, a humidity around 73. What do
    their scales cost?"""
JOB = """
name: "scaling" seed: 1 ranks: 1 batch_size: 100 epochs: 40
data {
  train      { csv { path: "raw.csv" header: true label: "output" } }   # 5,000 rows, generated
  validation { csv { path: "raw.csv" header: true label: "output" } }
}
model { linear {} }
optimizer { sgd {} }
evaluation { every_epochs: 0.5 }
"""
VARIED = """
    `data.features`: none; `{ max_abs {} }`, each by its greatest size; `{ standardize {} }`, less its mean, by its deviation. `learning_rate.constant`: for each the best of four powers
    of 2, from below the limit of stability down."""
SOURCE = "LeCun et al., 1998, \"Efficient BackProp\", section 4.3"
MEAN = numpy.array([20.0, 54.0, 1013.0, 73.0])
DEVIATION = numpy.array([7.5, 12.7, 5.9, 14.6])
NAMES = ["temperature", "vacuum", "pressure", "humidity", "output"]
# name: field, what it does
KINDS = {"as they are": ((), lambda x: x),
         "by their greatest size": (("data.features={ max_abs {} }",), lambda x: x / numpy.abs(x).max(0)),
         "standardised": (("data.features={ standardize {} }",), lambda x: (x - x.mean(0)) / x.std(0))}


def measure(lab):
    rng = numpy.random.default_rng(1)
    normal = rng.normal(size=(lab.size(5000, 500), 4))
    normal[:, 1] = 0.8 * normal[:, 0] + 0.6 * normal[:, 1]  # temperature and vacuum go together
    x = MEAN + DEVIATION * normal
    y = normal @ [-14.0, -3.0, 0.4, -2.3] + 4.5 * rng.normal(size=len(x))
    write_csv(lab.folder / "raw.csv", NAMES, [*x.T, y])
    design = numpy.column_stack([x, numpy.ones(len(x))])
    least = float(numpy.mean((design @ numpy.linalg.lstsq(design, y, rcond=None)[0] - y) ** 2) / 2)
    out = {"least": least, "kinds": {}}
    for kind, (sets, scale) in KINDS.items():
        design = numpy.column_stack([scale(x), numpy.ones(len(x))])
        curvature = numpy.linalg.eigvalsh(design.T @ design / len(x))
        best = None
        # The limit of stability is 2 over the greatest curvature.
        for power in range(lab.size(4, 1)):
            rate = 2.0 ** (numpy.floor(numpy.log2(2 / curvature[-1])) - power)
            run = lab.run(JOB, *sets, f"learning_rate.constant={rate:.6g}", f"epochs={lab.size(40, 1)}", may_fail=True)
            if run.status == 0 and (best is None or run.last["loss"] < best["curve"][-1][1]):
                best = {"rate": rate, "curve": run.curve("loss")}
        out["kinds"][kind] = {"condition": float(curvature[-1] / curvature[0]), **best}
    return out


def seen(data):
    kinds, least = data["kinds"], data["least"]
    told = ", ".join(f"{v['condition']:.2g} ({kind})" for kind, v in kinds.items())
    yield (f"Greatest over least curvature: {told}.",
           kinds["as they are"]["condition"] > 1e4 * kinds["standardised"]["condition"])
    took = [next((epoch for epoch, loss in v["curve"] if loss < 1.1 * least), None) for v in kinds.values()]
    told = ", ".join(f"{'more than 40' if t is None else f'{t:g}'} ({kind}, rate {v['rate']:.2g})" for t, (kind, v) in zip(took, kinds.items()))
    yield (f"Epochs until the loss is within a tenth of the least, {least:.4g}: {told}.",
           took[0] is None and None not in took[1:] and took[2] <= took[1] / 3)
    yield f"As they are the loss is still {kinds['as they are']['curve'][-1][1] / least:.1f} times the least after 40 epochs.", True


def draw(data, figure):
    axes = figure.subplots()
    for kind, one in data["kinds"].items():
        axes.plot([x for x, _ in one["curve"]], [max(v - data["least"], 1e-4) for _, v in one["curve"]],
                  label=f"{kind} (rate {one['rate']:.2g})")
    axes.set(yscale="log", xlabel="epoch", ylabel="loss, less the least there is")
    axes.legend()
