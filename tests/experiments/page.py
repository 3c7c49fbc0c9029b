"""Plots, and the page that shows them. The same data give the same bytes."""
import inspect
import json

# In the order of the page.
NAMES = ["batch_size", "duplicated_data", "gradient_variance", "rate_size", "momentum", "saddle", "clipping",
         "initialization", "feature_scaling", "imbalance", "rare_attacks", "early_stopping", "rank_scaling",
         "skewed_shards", "staleness_rate", "delay_limit", "compression"]
COLOURS = ["#0072b2", "#d55e00", "#009e73", "#cc79a7", "#8c6d1f", "#56b4e9", "#555555"]  # after Okabe and Ito, 2008
INTRODUCTION = """# Experiments

What the methods of [training.md](../training.md) do, each shown by a small experiment. One command makes all plots and this page{time}:

```sh
scripts/experiments                    # all
scripts/experiments momentum saddle    # some
```

Each is a file of [tests/experiments](../../tests/experiments): a job, the fields that are varied, and what has to be seen in the numbers of the
runs. The sentences under *seen* are written by that command from what it measured; one that does not hold is marked, and the command
fails. `custom` models are those of [tests/experiments/models](../../tests/experiments/models). Images are Fashion-MNIST; all other data are generated from a seed, but for the two tasks of imbalance (see there). Numbers in SYNC are the same on
every machine with the same instruction-set baseline, but that of which rounds `gradient_norm` is told depends on when servers were asked. Times, bytes on the wire and all of
asynchronous runs are of the machine they were measured on, whose two cores had much else to do.
"""


def draw(name, module, data, folder, pictures):
    import matplotlib
    matplotlib.use("svg")
    from matplotlib import pyplot
    pyplot.rcdefaults()
    pyplot.rcParams.update({
        "svg.hashsalt": name, "svg.fonttype": "path", "font.size": 9, "axes.grid": True, "grid.alpha": 0.3,
        "axes.prop_cycle": matplotlib.cycler(color=COLOURS), "axes.spines.top": False, "axes.spines.right": False,
        "lines.linewidth": 1.5, "legend.frameon": False, "legend.fontsize": 8, "axes.titlesize": 9,
        "figure.constrained_layout.use": True, "path.simplify": True})
    figure = pyplot.figure(figsize=(8, 3.2))
    module.draw(data, figure)
    figure.savefig(folder / f"{name}.svg", metadata={"Date": None, "Creator": None})
    if pictures is not None:
        pictures.mkdir(parents=True, exist_ok=True)
        figure.savefig(pictures / f"{name}.png", dpi=110)
    pyplot.close(figure)


def section(name, module, data, seconds=None):
    """`seconds`: how many it took; None: that is not known."""
    seen = [f"* {sentence}{'' if holds else ' **(not so in this run)**'}" for sentence, holds in module.seen(data)]
    return "\n".join([
        f"## {module.TITLE}", "", inspect.cleandoc(module.QUESTION), "", "```textproto", module.JOB.strip(), "```", "",
        inspect.cleandoc(module.VARIED), "", f"![{module.TITLE}]({name}.svg)", "",
        *([*module.table(data), ""] if hasattr(module, "table") else []), "Seen:", "", *seen, "",
        f"Source: {module.SOURCE}. {'' if seconds is None else f'It takes {length(seconds)}. '}[{name}.py](../../tests/experiments/{name}.py), [numbers](data/{name}.json)", ""])


def length(seconds):
    return f"{seconds:.0f} s" if seconds < 120 else f"{seconds / 60:.0f} minutes"


def note_seconds(folder, name, seconds):
    """How long an experiment took, beside what is known of the others."""
    known = {**seconds_of(folder), name: round(seconds)}
    (folder / "data" / "seconds.json").write_text(json.dumps(known, sort_keys=True, separators=(",", ":")) + "\n")


def seconds_of(folder):
    path = folder / "data" / "seconds.json"
    return json.loads(path.read_text()) if path.exists() else {}


def write(folder, experiments):
    """README.md of all that has been measured, now or before."""
    seconds = seconds_of(folder)
    whole = f" ({length(sum(seconds.values()))}, once built)" if all(name in seconds for name, _ in experiments) else ""
    parts = [INTRODUCTION.replace("{time}", whole)]
    for name, module in experiments:
        stored = folder / "data" / f"{name}.json"
        if stored.exists():
            parts.append(section(name, module, json.loads(stored.read_text()), seconds.get(name)))
    (folder / "README.md").write_text("\n".join(parts))
