"""What the two experiments on rare classes share: the job, the ways that are tried, how each is measured, the table and the plot.

Each way is trained on train.svm of a folder, its threshold is tuned on validation.svm, and what is told of it is what `descent predict` makes of
test.svm, which neither has seen.
"""
import statistics

MEASURES = ("precision", "recall", "f1")
SOURCE = "King and Zeng, 2001; Japkowicz, 2000; Kubat and Matwin, 1997; Chawla et al., 2002; Lin et al., 2017"


def job(name, features, rounds, training):
    """`training`: the fields of the optimizer and of what it minimises, a line each."""
    return f"""
name: "{name}" seed: 1 ranks: 4 batch_size: 64 rounds: {rounds}
data {{
  train      {{ libsvm {{ path: "train.svm" features: {features} }} }}
  validation {{ libsvm {{ path: "validation.svm" features: {features} }} }}
}}
model {{ logistic {{}} }}
{training.strip()}
evaluation {{
  every_rounds: {rounds} tune_threshold: true exact_scores: 131072
  metrics: PRECISION metrics: RECALL metrics: F1 metrics: PR_AUC
}}
"""


def ways(ratio):
    """The fields of each way. `ratio`: of positives to negatives, about ten times what the data have, as a weight of 10 has it."""
    weight, focal = "class_weights={ weight: 1 weight: 10 }", "model.logistic.focal_gamma=2"
    return {
        "plain": (),
        "weight 10": (weight,),
        "oversampled": (f"data.resampling={{ kind: OVERSAMPLE ratio: {ratio} }}",),
        "undersampled": (f"data.resampling={{ kind: UNDERSAMPLE ratio: {ratio} }}",),
        "SMOTE": (f"data.resampling={{ kind: SMOTE ratio: {ratio} }}",),
        "balanced weights": ("class_weights={ balanced: true }",),
        "class-balanced sampling": ("data.sampling=CLASS_BALANCED",),
        "focal loss": (focal,),
        "focal loss with weight 10": (focal, weight),
    }


def varied(ratio, epochs, data):
    return f"""
    `class_weights`, `data.resampling`, `data.sampling` and `model.logistic.focal_gamma` (2). A ratio of {ratio} is about what a weight of 10 comes to. Each way
    makes the same number of steps, {epochs} epochs of the data as they are; then its threshold is tuned on the validation data. What is told is what `descent predict`
    makes of test data that had no part in either. The last column of the table is the F1 of the best threshold for these very data, which nobody can know before.
    {data.strip()}"""


TENFOLD = ("weight 10", "oversampled", "undersampled", "SMOTE")
BALANCED = ("balanced weights", "class-balanced sampling")


def scores(predicted, truth):
    """Precision, recall and F1 of class 1; 0 where there is nothing to divide by."""
    hits = sum(p and t for p, t in zip(predicted, truth, strict=True))
    said, there = sum(predicted), sum(truth)
    return {"precision": hits / said if said else 0.0, "recall": hits / there if there else 0.0,
            "f1": 2 * hits / (said + there) if said + there else 0.0}


def is_positive(line):
    return line.split(None, 1)[0] in ("1", "+1")


def measure(lab, text, folder, rounds, *sets):
    """The job with these fields, trained and predicted with: what is told of test.svm at 0.5 and, `tuned_`, at the saved threshold."""
    run = lab.run(text, f"data.root={folder}", f"rounds={rounds}", f"evaluation.every_rounds={rounds}", *sets, workers=2)
    lines, told = lab.predict(run, folder / "test.svm", "--probabilities")
    with open(folder / "test.svm") as file:
        truth = [is_positive(line) for line in file]
    # A line is the class at the tuned threshold, then the probabilities of class 0 and of class 1.
    at_half = scores([float(line.split()[2]) > 0.5 for line in lines], truth)
    # What predict calls tuned_f1 is of the best threshold of all on the data that it reads.
    return {"pr_auc": told["pr_auc"], **at_half, "threshold": run.last["metrics"]["tuned_threshold"],
            **{f"tuned_{key}": told[key] for key in MEASURES}, "best_f1": told["tuned_f1"],
            **{key: run.last[key] for key in ("objective",) if key in run.last}}


def mean(ways, name, key):
    return statistics.fmean(one[key] for one in ways[name])


def span(values, form):
    """From the least to the greatest."""
    low, high = (format(pick(values), form) for pick in (min, max))
    return low if low == high else f"{low} to {high}"


def ahead(ways, key, name, other="plain"):
    """In how many draws a way has more of it than another."""
    return sum(a[key] > b[key] for a, b in zip(ways[name], ways[other], strict=True))


def extremes(ways, key, names=None):
    """"0.157 (name) and 0.171 (name)": the least and the greatest mean."""
    least, most = (pick(names or ways, key=lambda name: mean(ways, name, key)) for pick in (min, max))
    return f"{mean(ways, least, key):.3f} ({least}) and {mean(ways, most, key):.3f} ({most})"


def table(data):
    """Means; of several draws also the standard deviation from one to the next."""
    def cell(results, key):
        values = [one[key] for one in results]
        spread = f" ± {statistics.stdev(values):.3f}" if len(values) > 1 and key.endswith(("f1", "auc")) else ""
        return f"{statistics.fmean(values):.3f}{spread}"

    columns = {"pr_auc": "PR AUC", "precision": "at 0.5: precision", "recall": "recall", "f1": "F1", "threshold": "tuned threshold",
               "tuned_precision": "at it: precision", "tuned_recall": "recall", "tuned_f1": "F1", "best_f1": "F1 at the test data's own best"}
    yield f"| | {' | '.join(columns.values())} |"
    yield f"|---{'|---:' * len(columns)}|"
    for name, results in data["ways"].items():
        yield f"| {name} | {' | '.join(cell(results, key) for key in columns)} |"


def draw(data, figure):
    """A panel for each measure, a row for each way; a line from the least to the greatest of the draws."""
    ways = data["ways"]
    panels = {"pr_auc": "PR AUC", "precision": "precision", "recall": "recall", "f1": "F1"}
    rows = range(len(ways))
    upper, lower = figure.subfigures(2, 1, height_ratios=(12, 1))
    for axes, (key, title) in zip(upper.subplots(1, len(panels), sharey=True), panels.items()):
        kinds = ((key, "C2", "o", "of all thresholds", 0),) if key == "pr_auc" else (
            (key, "C0", "o", "at 0.5", -0.15), (f"tuned_{key}", "C1", "D", "at the tuned threshold", 0.15))
        for of, colour, marker, label, offset in kinds:
            places = [row + offset for row in rows]
            axes.hlines(places, *([pick(one[of] for one in results) for results in ways.values()] for pick in (min, max)),
                        color=colour, linewidth=1, alpha=0.6)
            axes.plot([mean(ways, name, of) for name in ways], places, marker, color=colour, markersize=4, label=label)
        axes.set(title=title)
        axes.set_yticks(rows, list(ways))
    axes.invert_yaxis()
    lower.legend(handles=[handle for of in upper.axes[:2] for handle in of.get_legend_handles_labels()[0]], ncol=3, loc="center")
