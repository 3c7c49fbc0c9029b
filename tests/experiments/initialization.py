from lab import first_images

TITLE = "The first weights of a deep ReLU net"
QUESTION = """
    Ten hidden layers of 64 ReLU units. How large is the gradient of each layer's weights before the first step, and how does training go on, with He's
    first weights and with smaller ones?"""
JOB = """
name: "initialization" seed: 1 ranks: 1 batch_size: 100 epochs: 3
data { ... }                     # Fashion-MNIST
model { mlp { hidden: 64 ... ten times ... activation: RELU classes: 10 } }
optimizer { momentum { momentum: 0.9 } }
learning_rate { constant: 0.01 }
evaluation { every_epochs: 0.25 }
"""
VARIED = """
    `model.mlp.initialization`: HE, LECUN (half He's variance) and NORMAL with `initial_scale: 0.01`. The gradient of one layer is `gradient_norm` of runs on 2,000 images at once in which all other
    tensors are `frozen` and the rate is 1e-30."""
SOURCE = "Glorot and Bengio, 2010; He et al., 2015, section 2.2"
LAYERS = 10
STARTS = {"He": "initialization: HE", "LeCun": "initialization: LECUN",
          "normal, 0.01": "initialization: NORMAL initial_scale: 0.01"}
WIDTH = "hidden: 64 " * LAYERS


def measure(lab):
    job = JOB.replace("data { ... }", lab.fashion()).replace("hidden: 64 ... ten times ... ", WIDTH)
    names = [f"layer{i}/{part}" for i in range(1, LAYERS + 2) for part in ("weights", "bias")]
    first_images("train", lab.folder / "few", 2000)
    few = (f"data.train.idx.images={lab.folder}/few.images", f"data.train.idx.labels={lab.folder}/few.labels", "batch_size=2000",
           "learning_rate.constant=1e-30", "rounds=3", "metrics.every_rounds=3", "evaluation.every_rounds=1000000")
    out = {}
    for kind, start in STARTS.items():
        model = f"model={{ mlp {{ {WIDTH} activation: RELU classes: 10 {start} }} }}"
        norms = []
        for layer in range(1, LAYERS + 2) if not lab.small else (1, LAYERS + 1):
            frozen = ",".join(name for name in names if name != f"layer{layer}/weights")
            run = lab.run(job, model, f"frozen={frozen}", *few)
            norms.append(run.training[0]["gradient_norm"])
        run = lab.run(job, model, f"epochs={lab.size(3, 0.1)}")
        out[kind] = {"norms": norms, "loss": run.curve("loss"), "accuracy": run.last["accuracy"]}
    return out


def seen(data):
    he, small = data["He"], data["normal, 0.01"]
    ratio = max(he["norms"][:-1]) / min(he["norms"][:-1])
    yield f"He: the greatest norm of a hidden layer's gradient is {ratio:.1f} times the least.", ratio < 30
    yield (f"Deviation 0.01: none of the layers' norms is above {max(small['norms']):.1g}; each is a product of what all other layers "
           "make smaller.", max(small["norms"]) < 1e-9)
    lecun = data["LeCun"]["norms"]
    yield (f"LeCun's half of He's variance takes about a factor of sqrt 2 a layer: {lecun[0]:.2g} in the first layer, against {he['norms'][0]:.2g}.",
           4 < he["norms"][0] / lecun[0] < 256)
    told = ", ".join(f"{v['accuracy']:.3f} ({kind})" for kind, v in data.items())
    yield (f"Test accuracy after three epochs: {told}. A net with a gradient of nothing learns how frequent the classes are, and no more.",
           he["accuracy"] > 0.8 and small["accuracy"] < 0.2)


def draw(data, figure):
    left, right = figure.subplots(1, 2)
    for kind, one in data.items():
        left.plot(range(1, LAYERS + 2), one["norms"], "o-", label=kind)
        right.plot(*zip(*one["loss"]), label=kind)
    left.set(yscale="log", xlabel="layer", ylabel="norm of its weights' gradient", xticks=range(1, LAYERS + 2))
    left.legend()
    right.set(xlabel="epoch", ylabel="test loss", ylim=(0, 2.5))
