TITLE = "One example, some, or all at a time"
QUESTION = """
    How far does gradient descent come with the examples it has seen, and with the time it has had, if a step is made of 1 example, of 32,
    of 1,000, or of all 10,000?"""
JOB = """
name: "batch-size" seed: 1 ranks: 1
data {                           # the 10,000 images of Fashion-MNIST's test set
  root: "/usr/share/datasets/fashion-mnist"
  train { idx { images: "t10k-images-idx3-ubyte.gz" labels: "t10k-labels-idx1-ubyte.gz" } }
}
model { softmax { classes: 10 } }
optimizer { sgd {} }
"""
VARIED = """
    `batch_size`, `epochs`, and `learning_rate.constant`: 0.003, 0.03, 0.1 and 0.1, each about as large as its batch bears. The loss is that of
    the examples of a step before it is made, as `metrics.jsonl` has it, averaged over the last twentieth of the examples seen."""
SOURCE = "Bottou, Curtis and Nocedal, 2018, section 4.4; LeCun et al., 1998, \"Efficient BackProp\", section 4.1"

# batch, rate, epochs, rounds of a record
RUNS = [(1, 0.003, 2, 100), (32, 0.03, 20, 10), (1000, 0.1, 100, 1), (10000, 0.1, 400, 1)]
TARGET = 0.65


def measure(lab):
    lab.fashion()
    curves = {}
    for batch, rate, epochs, every in lab.size(RUNS, [(32, 0.03, 0.1, 1), (1000, 0.1, 1, 1)]):
        run = lab.run(JOB, f"batch_size={batch}", f"epochs={epochs}", f"metrics.every_rounds={every}",
                      f"learning_rate.constant={rate}")
        began = run.training[0]["time"] - (run.training[-1]["time"] - run.training[0]["time"]) / len(run.training)
        seen, points = 0, []
        for record in run.training:
            seen += record["examples"]
            points.append([seen, record["time"] - began, record["loss"]])
        curves[str(batch)] = spaced(smooth(points))
    return {"curves": curves}


def smooth(points, share=0.05):
    """Each loss as the mean of those before it back to a twentieth of the examples: single examples are noisy."""
    out, first, total = [], 0, 0.0
    for i, (seen, seconds, loss) in enumerate(points):
        total += loss
        while points[first][0] < seen * (1 - share) and first < i:
            total -= points[first][2]
            first += 1
        out.append([seen, seconds, total / (i - first + 1)])
    return out


def spaced(points, factor=1.04):
    """Points whose numbers of examples are at least that factor apart: the axis is logarithmic."""
    out = points[:1]
    for point in points[1:]:
        if point[0] >= out[-1][0] * factor:
            out.append(point)
    return out


def reached(points, column):
    return next((p[column] for p in points if p[2] <= TARGET), float("inf"))


def seen(data):
    curves = data["curves"]
    examples = {b: reached(p, 0) for b, p in curves.items()}
    seconds = {b: reached(p, 1) for b, p in curves.items()}
    told = ", ".join(f"{examples[b]:,.0f} with batches of {int(b):,}" for b in curves)
    yield (f"Examples until the loss is {TARGET}: {told}. The full batch has made {examples['10000'] / 10000:.0f} steps by then.",
           examples["1"] < examples["32"] < examples["1000"] / 3 and examples["1000"] < examples["10000"] / 3)
    told = ", ".join(f"{seconds[b]:.2g} s with {int(b):,}" for b in curves)
    yield (f"Time until then: {told}. A step of one example costs an exchange with the server, as one of 32 does.",
           seconds["32"] < seconds["1"] and seconds["32"] < seconds["10000"] / 3)  # times of a machine that may be busy


def draw(data, figure):
    left, right = figure.subplots(1, 2, sharey=True)
    for batch, points in data["curves"].items():
        left.plot([p[0] for p in points], [p[2] for p in points], label=f"batch {int(batch):,}")
        # Records of several steps reach the coordinator together: the last of them is the one of that time.
        told = [p for p, after in zip(points, points[1:] + [[0, float("inf")]]) if after[1] > 1.02 * p[1]]
        right.plot([p[1] for p in told], [p[2] for p in told])
    for axes, name in ((left, "examples seen"), (right, "seconds")):
        axes.set(xscale="log", xlabel=name)
        axes.axhline(TARGET, color="#999999", linewidth=0.7)
    left.set(ylabel="loss", ylim=(0.4, 2.4))
    left.legend()
