TITLE = "The rate of stale gradients"
QUESTION = """
    16 or 31 ranks, each push a step of its own: when it arrives, about 15 or 30 others have been made since its parameters were read. With the rate
    of one rank it fails; does the rate divided by the staleness of each push mend that?"""
JOB = """
name: "staleness" seed: 1 ranks: 16 batch_size: 32 epochs: 4
data { ... }                     # Fashion-MNIST
model { mlp { hidden: 128 hidden: 64 activation: RELU classes: 10 } }
consistency { mode: ASYNC }
optimizer { momentum { momentum: 0.9 } }
learning_rate { constant: 0.05 }
evaluation { every_epochs: 0.5 }
"""
VARIED = """
    `ranks`: 16 and 31; `consistency`: SYNC, ASYNC, and ASYNC with `staleness_aware_rate: true`. Three seeds."""
SOURCE = "Zhang, Gupta, Lian and Liu, 2016, equation 5 and figure 4"
KINDS = {"synchronous": "consistency={ mode: SYNC }", "stale, rate as it is": "consistency={ mode: ASYNC }",
         "stale, rate / staleness": "consistency={ mode: ASYNC staleness_aware_rate: true }"}
RANKS = (16, 31)


def measure(lab):
    job = JOB.replace("data { ... }", lab.fashion())
    out = {}
    for ranks in RANKS:
        for kind, consistency in KINDS.items():
            runs = [lab.run(job, consistency, f"ranks={ranks}", f"seed={seed}", f"epochs={lab.size(4, 0.1)}", may_fail=True)
                    for seed in range(1, lab.size(1, 1) + 1)]
            out[f"{ranks} {kind}"] = [{"accuracy": run.curve("accuracy"), "cause": run.summary.get("first_cause", "")}
                                      for run in runs]
    return out


def seen(data):
    return []


def draw(data, figure):
    for axes, ranks in zip(figure.subplots(1, 2, sharey=True), RANKS):
        for i, kind in enumerate(KINDS):
            for j, run in enumerate(data[f"{ranks} {kind}"]):
                if run["accuracy"]:
                    axes.plot(*zip(*run["accuracy"]), color=f"C{i}", label=kind if j == 0 else None)
        axes.set(title=f"staleness {ranks - 1}", xlabel="epoch", ylim=(0, 1))
    figure.axes[0].set(ylabel="test accuracy")
    figure.axes[0].legend()
