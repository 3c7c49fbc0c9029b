TITLE = "The rate of stale gradients"
QUESTION = """
    16 or 31 ranks, each of whose pushes is a step: when one arrives, about 15 or 30 others have been made since its parameters were read. With the rate of a round it
    fails; does that rate divided by the staleness of each push mend it?"""
JOB = """
name: "staleness" seed: 1 ranks: 16 batch_size: 32 epochs: 4
data { ... }                     # Fashion-MNIST
model { mlp { hidden: 64 activation: RELU classes: 10 } }
consistency { mode: ASYNC }
optimizer { sgd {} }
learning_rate { cosine { initial: 0.1 final: 1e-3 } }
evaluation { every_epochs: 0.5 }
"""
VARIED = """
    `ranks`: 16 and 31; `consistency`: SYNC, ASYNC, and ASYNC with `staleness_aware_rate: true`. Asynchronous runs differ from one to the next, and the numbers below with them."""
SOURCE = "Zhang, Gupta, Lian and Liu, 2016, equation 5 and figure 4"
KINDS = {"synchronous": "consistency={ mode: SYNC }", "stale, rate as it is": "consistency={ mode: ASYNC }",
         "stale, rate / staleness": "consistency={ mode: ASYNC staleness_aware_rate: true }"}
RANKS = (16, 31)


def measure(lab):
    job = JOB.replace("data { ... }", lab.fashion())
    out = {}
    for ranks in RANKS:
        for kind, consistency in KINDS.items():
            run = lab.run(job, consistency, f"ranks={ranks}", f"epochs={lab.size(4, 0.1)}", may_fail=True)
            out[f"{ranks} {kind}"] = {"accuracy": run.curve("accuracy"), "finite": run.status == 0}
    return out


def seen(data):
    for ranks in RANKS:
        synchronous, stale, mended = (data[f"{ranks} {kind}"] for kind in KINDS)
        last = [one["accuracy"][-1][1] if one["finite"] else 0.0 for one in (synchronous, stale, mended)]
        told = f"{last[1]:.3f}" if stale["finite"] else "no finite number"
        yield (f"Staleness {ranks - 1}: test accuracy {last[0]:.3f} of the synchronous run, {told} with the rate as it is, {last[2]:.3f} with rate / staleness: "
               f"{100 * (last[2] - last[0]):+.1f} points.", last[1] < last[0] - 0.2 and last[2] > last[0] - 0.005)


def draw(data, figure):
    for axes, ranks in zip(figure.subplots(1, 2, sharey=True), RANKS):
        for kind in KINDS:
            axes.plot(*zip(*data[f"{ranks} {kind}"]["accuracy"]), label=kind)
        axes.set(title=f"staleness {ranks - 1}", xlabel="epoch", ylim=(0, 1))
    figure.axes[0].set(ylabel="test accuracy")
    figure.axes[0].legend(loc="center right")
