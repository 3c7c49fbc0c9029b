TITLE = "Too large a rate, and too small a one"
QUESTION = """
    What does a rate do that is too large or too small: on a quadratic, where the limit is known to be 2 over the curvature, and on a net?"""
JOB = """
name: "rate" seed: 1 ranks: 1 batch_size: 64 epochs: 1
data { ... }                     # Fashion-MNIST
model { mlp { hidden: 64 hidden: 64 activation: RELU classes: 10 } }
optimizer { sgd {} }
evaluation { every_epochs: 0.1 batch_size: 1000 }
"""
VARIED = """
    `learning_rate.constant`. The quadratic is `model { quadratic { start: 1 } }`, (x - 0)², whose curvature is 2."""
SOURCE = "LeCun et al., 1998, \"Efficient BackProp\", section 4.6; Goodfellow, Bengio and Courville, 2016, section 11.4.1"
QUADRATIC = 'name: "quadratic" ranks: 1 rounds: 40 model { quadratic { start: 1 } } optimizer { sgd {} } metrics { every_rounds: 1 }'
FACTORS = (0.1, 0.5, 1.8, 1.99, 2.05)
RATES = (1e-4, 3e-4, 1e-3, 3e-3, 0.01, 0.03, 0.1, 0.3, 1, 3, 10)


def measure(lab):
    quadratic = {str(f): lab.run(QUADRATIC, f"learning_rate.constant={f / 2}").curve("loss", "training", "clock")
                 for f in FACTORS}
    job = JOB.replace("data { ... }", lab.fashion())
    net = {}
    for rate in lab.size(RATES, (0.01, 0.1)):
        run = lab.run(job, f"learning_rate.constant={rate}", f"epochs={lab.size(1, 0.1)}", may_fail=True)
        net[str(rate)] = {"accuracy": run.summary.get("accuracy") if run.status == 0 else None,
                          "loss": run.summary.get("loss") if run.status == 0 else None,
                          "cause": run.summary.get("first_cause", "")}
    return {"quadratic": quadratic, "net": net}


def seen(data):
    last = {float(f): points[-1][1] for f, points in data["quadratic"].items()}
    yield (f"On the quadratic, after 40 steps from a loss of 1: {last[0.1]:.2g} with a rate of 0.1 / curvature, {last[0.5]:.1g} with 0.5, {last[1.99]:.2g} with "
           f"1.99 and {last[2.05]:.3g} with 2.05.", last[0.5] < last[0.1] < 1 < last[2.05] and last[1.99] < 1)
    net = {float(rate): v for rate, v in data["net"].items()}
    good = {rate: v["accuracy"] for rate, v in net.items() if v["accuracy"] is not None}
    best = max(good, key=good.get)
    least, most = min(net), max(net)
    told = "it ended with a number that is not finite" if most not in good else f"{good[most]:.3f}"
    yield (f"The net after one epoch: test accuracy {good[least]:.3f} with {least:g}, {good[best]:.3f} with {best:g}; with {most:g}: {told}.",
           good[least] < good[best] - 0.2 and good.get(most, 0) < good[best] - 0.2)


def draw(data, figure):
    left, right = figure.subplots(1, 2)
    for (factor, points), (step, above) in zip(data["quadratic"].items(), ((28, 4), (11, 4), (30, 4), (28, 3), (8, 20))):
        left.plot(*zip(*points))
        left.annotate(f"{factor} / curvature", (step, points[step][1] * above))
    left.set(yscale="log", ylim=(1e-10, 1e4), xlabel="step", ylabel="loss of the quadratic")
    good = [(float(r), v["accuracy"]) for r, v in data["net"].items() if v["accuracy"] is not None]
    bad = [float(r) for r, v in data["net"].items() if v["accuracy"] is None]
    right.plot(*zip(*good), "o-", label="net, one epoch")
    if bad:
        right.plot(bad, [0.1] * len(bad), "x", color="C1", label="not finite")
    right.axhline(0.1, color="#999999", linewidth=0.7, label="by chance")
    right.set(xscale="log", xlabel="rate", ylabel="test accuracy", ylim=(0, 1))
    right.legend()
