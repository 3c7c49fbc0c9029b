import numpy

from lab import write_csv

TITLE = "The variance of a mini-batch gradient"
QUESTION = """
    At the minimum the gradient over all the data is 0, and that of a batch of B examples is nothing but noise. How large is it?"""
JOB = """
name: "variance" seed: 1 ranks: 1 epochs: 1
data { train { csv { path: "rows.csv" header: true label: "y" } } }   # 30,000 rows, 10 features
model { linear {} }
optimizer { sgd {} }
learning_rate { constant: 1e-30 }
metrics { every_rounds: 1 }
"""
VARIED = """
    `batch_size`. The labels are what the best linear model has left over, so that training begins at the minimum, and with that rate it stays there. The mean of the squares of
    `gradient_norm` in `metrics.jsonl` is then the variance. Drawn without replacement it should be the variance of single examples times (N - B) / (B (N - 1)), N the
    number of rows."""
SOURCE = "Cochran, 1977, theorem 2.2; Bottou, Curtis and Nocedal, 2018, section 4.2"
BATCHES = {1: 0.2, 3: 0.3, 10: 1, 30: 1, 100: 3, 300: 8, 1000: 20, 3000: 50, 10000: 100, 15000: 150}  # epochs of each


def measure(lab):
    rng = numpy.random.default_rng(1)
    count = lab.size(30000, 300)
    x = rng.normal(size=(count, 10)) * rng.uniform(0.5, 2, 10)
    y = rng.normal(size=count) * (1 + numpy.abs(x[:, 0]))  # noisier where the first feature is large
    design = numpy.column_stack([x, numpy.ones(count)])
    y -= design @ numpy.linalg.lstsq(design, y, rcond=None)[0]
    write_csv(lab.folder / "rows.csv", [f"x{i}" for i in range(10)] + ["y"], [*x.T, y])
    variance = {}
    for batch, epochs in lab.size(BATCHES, {10: 1, 30: 2}).items():
        run = lab.run(JOB, f"batch_size={batch}", f"epochs={epochs}")
        squares = [norm * norm for _, norm in run.curve("gradient_norm", "training")]
        variance[str(batch)] = {"batches": len(squares), "value": sum(squares) / len(squares)}
    single = float(numpy.mean((design ** 2).sum(1) * y ** 2))
    return {"rows": count, "single": single, "variance": variance}


def expected(data, batch):
    return data["single"] * (data["rows"] - batch) / (batch * (data["rows"] - 1))


def seen(data):
    values = {int(b): v["value"] for b, v in data["variance"].items()}
    single = values[1]
    yield (f"The variance of a single example's gradient is {single:.2f}; computed from the rows in float64: {data['single']:.2f}.",
           abs(single / data["single"] - 1) < 0.1)
    worst = max(abs(values[b] / expected(data, b) - 1) for b in values)
    yield (f"Batches of {min(values)} to {max(values):,}: at worst {worst:.1%} from what it should be. Ten times the examples, a tenth of the "
           "variance; a standard deviation of a tenth takes a hundred times the examples.", worst < 0.1)


def draw(data, figure):
    axes = figure.subplots()
    values = {int(b): v["value"] for b, v in data["variance"].items()}
    line = numpy.geomspace(1, data["rows"] * 0.97, 300)
    axes.plot(line, data["single"] / line, "--", color="#999999", linewidth=1, label="variance of one example / B")
    axes.plot(line, [expected(data, b) for b in line], color="C1", linewidth=1,
              label="the same, times (N - B) / (N - 1)")
    axes.plot(list(values), list(values.values()), "o", color="C0", label="measured")
    axes.set(xscale="log", yscale="log", xlabel="batch size B", ylabel="variance of the gradient")
    axes.legend()
