TITLE = "More ranks, and the rate for them"
QUESTION = """
    1, 4 and 16 ranks of 32 examples each: a round then has 32, 128 or 512, and an epoch 1,875, 469 or 118 steps. With the rate for one rank, with that rate times their
    number, and with that rate times its root?"""
JOB = """
name: "ranks" seed: 1 ranks: 1 batch_size: 32 epochs: 4
data { ... }                     # Fashion-MNIST
model { mlp { hidden: 64 activation: RELU classes: 10 } }
optimizer { sgd {} }
learning_rate { constant: 0.005 warmup_epochs: 0.5 }
evaluation { every_epochs: 0.5 }
"""
VARIED = """
    `ranks`, and `learning_rate.scaling`: NO_SCALING, LINEAR, SQUARE_ROOT."""
SOURCE = "Goyal et al., 2017 (linear, with warm-up); Krizhevsky, 2014 (root)"
RANKS = (1, 4, 16)
SCALINGS = {"NO_SCALING": "the rate as it is", "LINEAR": "times ranks", "SQUARE_ROOT": "times their root"}


def measure(lab):
    job = JOB.replace("data { ... }", lab.fashion())
    out = {}
    for ranks in RANKS:
        for scaling in SCALINGS if ranks > 1 else ["NO_SCALING"]:
            run = lab.run(job, f"ranks={ranks}", f"learning_rate.scaling={scaling}", f"epochs={lab.size(4, 0.1)}",
                          workers=min(ranks, 2))
            out[f"{ranks} {scaling}"] = {"loss": run.curve("loss"), "accuracy": run.last["accuracy"], "steps": run.last["clock"]}
    return out


def seen(data):
    last = {key: one["loss"][-1][1] for key, one in data.items()}
    one = last["1 NO_SCALING"]
    yield (f"Test loss after four epochs: {one:.3f} with one rank. With 16 ranks {last['16 NO_SCALING']:.3f} with the rate as it is, {last['16 LINEAR']:.3f} with 16 times, "
           f"{last['16 SQUARE_ROOT']:.3f} with 4 times that rate.",
           abs(last["16 LINEAR"] - one) < abs(last["16 SQUARE_ROOT"] - one) < abs(last["16 NO_SCALING"] - one))
    distance = {r: max(abs(a[1] - b[1]) for a, b in zip(data[f"{r} LINEAR"]["loss"][1:], data["1 NO_SCALING"]["loss"][1:]))
                for r in (4, 16)}
    yield (f"With the linear rule 4 ranks are after the first half epoch at most {distance[4]:.3f} from one. 16 ranks are at worst {distance[16]:.3f} from it: a rate of "
           "0.08 is near to where this net becomes unsteady, and the rule near its end.", distance[4] < 0.05)


def draw(data, figure):
    for axes, (scaling, name) in zip(figure.subplots(1, 3, sharey=True), SCALINGS.items()):
        for ranks in RANKS:
            key = f"{ranks} {scaling}" if ranks > 1 else "1 NO_SCALING"
            axes.plot(*zip(*data[key]["loss"]), label=f"{ranks} rank{'s' if ranks > 1 else ''}")
        axes.set(title=name, xlabel="epoch", ylim=(0.35, 1.2))
    figure.axes[0].set(ylabel="test loss")
    figure.axes[0].legend()
