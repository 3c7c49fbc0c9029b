TITLE = "The variance of a mini-batch gradient"
QUESTION = """
    By how much do gradients of batches of B examples differ from that of all the data?"""
JOB = """
name: "variance" seed: 1 ranks: 1 epochs: 1
data { ... }                     # Fashion-MNIST
model { softmax { classes: 10 } }
optimizer { sgd {} }
learning_rate { constant: 1e-30 }
metrics { every_rounds: 1 }
"""
VARIED = """
    `batch_size`, up to all 60,000. With that rate the parameters stay where they are, at 0, so that `gradient_norm` in `metrics.jsonl` is of many
    batches at one point. Batches of one epoch share the data out, so their mean is the whole gradient g, and the mean of
    their squared norms less the squared norm of g is the variance. Drawn without replacement, it should be the variance
    of single examples times (N - B) / (B (N - 1))."""
SOURCE = "Cochran, 1977, theorem 2.2; Bottou, Curtis and Nocedal, 2018, section 4.2"
N = 60000
BATCHES = (1, 3, 10, 30, 100, 300, 1000, 3000, 10000, 30000)


def measure(lab):
    job = JOB.replace("data { ... }", lab.fashion())
    never = "evaluation.every_epochs=1000000"
    whole = lab.run(job, f"batch_size={N}", never).training[0]["gradient_norm"] ** 2
    variance = {}
    for batch in lab.size(BATCHES, (1000, 10000)):
        norms = [norm for _, norm in lab.run(job, f"batch_size={batch}", never).curve("gradient_norm", "training")]
        variance[str(batch)] = {"rounds": len(norms), "value": sum(n * n for n in norms) / len(norms) - whole}
    return {"whole": whole, "variance": variance}


def expected(batch, single):
    return single * (N - batch) / (batch * (N - 1))


def seen(data):
    values = {int(b): v["value"] for b, v in data["variance"].items()}
    single = values[1]
    yield (f"The squared norm of the whole gradient is {data['whole']:.3g}, the variance of one example's {single:.3g}: "
           f"{single / data['whole']:.0f} times as much.", single > data["whole"])
    worst = max(abs(values[b] / expected(b, single) - 1) for b in values)
    yield (f"From batches of 1 to 30,000 the variance is that of one example times (N - B) / (B (N - 1)), at worst {worst:.1%} off: "
           "ten times the examples, a tenth of the variance.", worst < 0.15)


def draw(data, figure):
    import numpy
    axes = figure.subplots()
    values = {int(b): v["value"] for b, v in data["variance"].items()}
    line = numpy.geomspace(1, 59000, 300)
    axes.plot(line, expected(line, values[1]), color="C1", linewidth=1, label="variance of one example x (N - B) / (B (N - 1))")
    axes.plot(line, values[1] / line, "--", color="#999999", linewidth=1, label="variance of one example / B")
    axes.plot(list(values), list(values.values()), "o", color="C0", label="measured")
    axes.axhline(data["whole"], color="C2", linewidth=1, label="squared norm of the whole gradient")
    axes.set(xscale="log", yscale="log", xlabel="batch size B", ylabel="variance of the gradient")
    axes.legend()
