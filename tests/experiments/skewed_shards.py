import gzip

import numpy

from lab import IMAGES

TITLE = "Shards with one class each"
QUESTION = """
    Images sorted by label, so that each of ten ranks has one class and nothing else. What does that do to rounds, to steps by single pushes, and to one
    rank that reads the file from beginning to end?"""
JOB = """
name: "skewed" seed: 1 ranks: 10 batch_size: 20 epochs: 4
data {                           # of Fashion-MNIST: 2,000 images of each class, sorted, or shuffled once; the test set
  train      { idx { images: "sorted.images" labels: "sorted.labels" } }
  validation { idx { images: "/usr/share/datasets/fashion-mnist/t10k-images-idx3-ubyte.gz"
                     labels: "/usr/share/datasets/fashion-mnist/t10k-labels-idx1-ubyte.gz" } }
  sampling: SEQUENTIAL
}
model { mlp { hidden: 64 activation: RELU classes: 10 } }
optimizer { sgd {} }
learning_rate { constant: 0.05 }
evaluation { every_epochs: 0.5 }
"""
VARIED = """
    The files; `consistency`: SYNC, with ten times the rate, since it makes one step where pushes make ten, and ASYNC; and one rank with batches of 20."""
SOURCE = "Zhao et al., 2018; Hsieh et al., 2020"
KINDS = {"rounds": ("learning_rate.constant=0.5",), "single pushes": ("consistency.mode=ASYNC",), "one rank": ("ranks=1",)}


def read(source, head):
    with gzip.open(IMAGES / source) as file:
        return numpy.frombuffer(file.read(), numpy.uint8, offset=head)


def write(folder, name, images, labels):
    count = len(labels).to_bytes(4, "big")
    (folder / f"{name}.images").write_bytes(bytes([0, 0, 8, 3]) + count + (28).to_bytes(4, "big") * 2 + images.tobytes())
    (folder / f"{name}.labels").write_bytes(bytes([0, 0, 8, 1]) + count + labels.tobytes())


def measure(lab):
    lab.fashion()
    labels = read("train-labels-idx1-ubyte.gz", 8)
    images = read("train-images-idx3-ubyte.gz", 16).reshape(-1, 784)
    of_each = lab.size(2000, 100)
    rows = numpy.concatenate([numpy.flatnonzero(labels == c)[:of_each] for c in range(10)])
    write(lab.folder, "sorted", images[rows], labels[rows])
    rows = numpy.random.default_rng(1).permutation(rows)
    write(lab.folder, "shuffled", images[rows], labels[rows])
    out = {}
    for kind, sets in KINDS.items():
        for order in ("shuffled", "sorted"):
            run = lab.run(JOB, *sets, f"data.train.idx.images={order}.images", f"data.train.idx.labels={order}.labels",
                          f"epochs={lab.size(4, 0.5)}", workers=1 if kind == "one rank" else 2)
            out[f"{kind}, {order}"] = {"accuracy": run.curve("accuracy"), "loss": run.curve("loss")}
    return out


def seen(data):
    last = {key: one["accuracy"][-1][1] for key, one in data.items()}
    for kind, holds, why in (
            ("rounds", lambda a, b: b > a - 0.03, "the mean of a round is over all classes either way"),
            ("single pushes", lambda a, b: b < a - 0.02, "each step goes towards one class"),
            ("one rank", lambda a, b: b < a - 0.3, "the last class read is what it remembers")):
        a, b = last[f"{kind}, shuffled"], last[f"{kind}, sorted"]
        yield f"{kind.capitalize()}: test accuracy {a:.3f} shuffled, {b:.3f} sorted; {why}.", holds(a, b)


def draw(data, figure):
    for axes, kind in zip(figure.subplots(1, 3, sharey=True), KINDS):
        for order in ("shuffled", "sorted"):
            axes.plot(*zip(*data[f"{kind}, {order}"]["accuracy"]), label=order)
        axes.set(title=kind, xlabel="epoch", ylim=(0, 1))
    figure.axes[0].set(ylabel="test accuracy")
    figure.axes[0].legend()
