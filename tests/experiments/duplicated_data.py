import numpy

from lab import write_csv

TITLE = "Data that say the same k times"
QUESTION = """
    Each row of the data is there once, 4 times or 16 times. The minimum is the same; what does it cost to get near it?"""
JOB = """
name: "duplicated" seed: 1 ranks: 1
data {
  train      { csv { path: "rows.csv" header: true label: "y" } }   # 2,000 rows, 20 features, or that 4 or 16 times
  validation { csv { path: "rows.csv" header: true label: "y" } }   # 2,000 rows
}
model { logistic {} }
optimizer { sgd {} }
"""
VARIED = """
    `data.train.csv.path` names the file 1, 4 or 16 times; `batch_size` is 10 (rate 0.1) or all of the data (rate 4)."""
SOURCE = "LeCun et al., 1998, \"Efficient BackProp\", section 4.1; Bottou, Curtis and Nocedal, 2018, section 3.3"
COPIES = (1, 4, 16)
ROWS = 2000
TARGET = 0.18


def rows(folder, count=ROWS, features=20):
    rng = numpy.random.default_rng(1)
    x = rng.normal(size=(count, features))
    score = x @ rng.normal(size=features) / 2 + rng.normal(size=count) / 2
    write_csv(folder / "rows.csv", [f"x{i}" for i in range(features)] + ["y"], [*x.T, score > 0])


def measure(lab):
    rows(lab.folder)
    steps = lab.size(60, 3)
    curves = {}
    for copies in COPIES:
        files = "data.train.csv.path=" + ",".join(["rows.csv"] * copies)
        single = lab.run(JOB, files, "batch_size=10", "learning_rate.constant=0.1", f"rounds={steps * 20}",
                         "evaluation.every_rounds=20")
        full = lab.run(JOB, files, f"batch_size={ROWS * copies}", "learning_rate.constant=4", f"rounds={steps}",
                       "evaluation.every_rounds=1")
        curves[str(copies)] = {"mini": [[clock * 10, loss] for clock, loss in single.curve("loss", x="clock")],
                               "full": [[clock * ROWS * copies, loss] for clock, loss in full.curve("loss", x="clock")]}
    return {"curves": curves}


def reached(points):
    return next((seen for seen, loss in points if loss <= TARGET), float("inf"))


def seen(data):
    curves = data["curves"]
    full = [reached(curves[str(c)]["full"]) for c in COPIES]
    mini = [reached(curves[str(c)]["mini"]) for c in COPIES]
    yield (f"To a loss of {TARGET} the full batch takes {full[0]:,} examples of the data as they are, {full[1]:,} of 4 "
           f"copies, {full[2]:,} of 16: the same steps, each of 4 and 16 times the work.",
           full[1] == 4 * full[0] and full[2] == 16 * full[0])
    yield (f"Batches of 10 take {mini[0]:,}, {mini[1]:,} and {mini[2]:,}: copies cost them nothing.",
           max(mini) < 1.3 * min(mini) and max(mini) < full[0] / 2)


def draw(data, figure):
    axes = figure.subplots()
    for style, (copies, both) in zip(("-", "--", ":"), data["curves"].items()):
        for kind, colour, name in (("mini", 0, "batches of 10"), ("full", 1, "full batch")):
            axes.plot(*zip(*both[kind]), style, color=f"C{colour}", label=f"{name}, each row {copies} x")
    axes.set(xscale="log", xlabel="examples seen", ylabel="loss on the rows, once each")
    axes.legend()
