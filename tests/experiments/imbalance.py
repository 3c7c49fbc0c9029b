import random

import two_classes
from two_classes import BALANCED, TENFOLD, ahead, draw, extremes, mean, span, table  # noqa: F401

TITLE = "One example in a hundred is positive"
QUESTION = """
    a9a (UCI Adult in Platt's encoding) with so many positives left out that 1 % remain. What do class weights, over- and undersampling, SMOTE, class-balanced
    sampling, focal loss and a tuned threshold do to what is found?"""
RATIO, ROUNDS, DRAWS = 0.1, 3160, 10
JOB = two_classes.job("imbalance", 123, ROUNDS, """
optimizer { adagrad {} }
learning_rate { constant: 0.2 }
l2: 1e-4
""")
VARIED = two_classes.varied(RATIO, 40, f"""
    SMOTE interpolates features that are 0 or 1 here. The data are not part of the project: `a9a` and `a9a.t` of the LIBSVM collection, in `a9a/` of the folder
    that `$DESCENT_SHARED_DATA` names. The script leaves out positives of both until 1 % are left, drawn anew with each of the seeds 1 to {DRAWS}; the
    negatives are always all there are. Every fifth row of `a9a` that is left is of the validation data; `a9a.t` has the test data. The table has means, and after ±
    the standard deviation from draw to draw; the lines of the plot go from the least to the greatest.""")
SOURCE = f"{two_classes.SOURCE}; Saito and Rehmsmeier, 2015 (for PR curves where positives are rare)"
WAYS = two_classes.ways(RATIO)


def thin(source, seed, share=0.01):
    """The lines of a file, with so many of its positives that they are that share."""
    lines = source.read_text().splitlines(keepends=True)
    positives = [i for i, line in enumerate(lines) if two_classes.is_positive(line)]
    negatives = len(lines) - len(positives)
    kept = set(random.Random(seed).sample(positives, round(negatives * share / (1 - share))))
    return [line for i, line in enumerate(lines) if i in kept or not two_classes.is_positive(line)]


def write(folder, name, lines):
    (folder / f"{name}.svm").write_text("".join(lines))
    positives = sum(map(two_classes.is_positive, lines))
    return positives, len(lines) - positives


def measure(lab):
    root = lab.shared("a9a/a9a", "a9a/a9a.t") / "a9a"
    sizes, ways = {}, {name: [] for name in WAYS}
    for seed in range(1, lab.size(DRAWS, 1) + 1):
        folder = lab.folder / f"draw{seed}"
        folder.mkdir()
        lines = thin(root / "a9a", seed)
        for name, part in (("train", [line for i, line in enumerate(lines) if i % 5 != 4]), ("validation", lines[4::5]),
                           ("test", thin(root / "a9a.t", seed))):
            sizes.setdefault(name, []).append(write(folder, name, part))
        for name, sets in WAYS.items():
            ways[name].append(two_classes.measure(lab, JOB, folder, lab.size(ROUNDS, 30), f"seed={seed}", *sets))
    return {"sizes": sizes, "ways": ways}


def counts(parts):
    positives, negatives = zip(*parts)
    return f"{span(positives, 'd')} positives beside some {sum(negatives) / len(parts):,.0f} negatives"


def against_plain(ways, key):
    draws = len(ways["plain"])
    above = [name for name in ways if ahead(ways, key, name) == draws]
    below = [name for name in ways if ahead(ways, key, "plain", name) == draws]
    return f"Above plain in all {draws} draws: {', '.join(above) or 'none'}; below it in all: {', '.join(below) or 'none'}."


def seen(data):
    ways, sizes = data["ways"], data["sizes"]
    plain = {key: mean(ways, "plain", key) for key in ways["plain"][0]}
    tenfold, balanced = ({key: [mean(ways, name, key) for name in names] for key in plain} for names in (TENFOLD, BALANCED))
    yield f"To train on: {counts(sizes['train'])}; to tune the threshold on: {counts(sizes['validation'])}; to test: {counts(sizes['test'])}.", True

    yield (f"At a probability of 0.5 plain logistic regression finds {plain['recall']:.0%} of the positives, and with focal loss {mean(ways, 'focal loss', 'recall'):.0%}; "
           f"with a weight of 10, or sampled to the same ratio, it finds {span(tenfold['recall'], '.0%')}, whichever way; with balanced classes "
           f"{span(balanced['recall'], '.0%')}, but no more than {max(balanced['precision']):.1%} of what these report is positive.",
           plain["recall"] < 0.2 < min(tenfold["recall"]) and max(tenfold["recall"]) < 0.5 < min(balanced["recall"]) and max(balanced["precision"]) < 0.1)

    yield (f"None of them ranks the examples better: PR AUC lies between {extremes(ways, 'pr_auc')}, plain at {plain['pr_auc']:.3f}. {against_plain(ways, 'pr_auc')}",
           max(mean(ways, name, "pr_auc") for name in ways) < plain["pr_auc"] + 0.01)

    thresholds = [one["threshold"] for one in ways["plain"]]
    gains = [b - a for a, b in zip(tenfold["f1"], tenfold["tuned_f1"])]
    yield (f"What plain logistic regression lacks is a threshold: with a tuned one its F1 is {plain['tuned_f1']:.3f} instead of {plain['f1']:.3f}. But the positives of the "
           f"validation data are few: the threshold comes out anywhere from {span(thresholds, '.2f')}, and F1 is {plain['best_f1'] - plain['tuned_f1']:.3f} below that of the "
           f"best one for the test data. A weight of 10, and sampling to that ratio, have {span(tenfold['f1'], '.3f')} with no tuning; tuning changes that by "
           f"{span(gains, '+.3f')}.",
           all(one["tuned_f1"] > one["f1"] for one in ways["plain"]) and min(tenfold["f1"]) > plain["f1"])

    yield (f"Tuned, F1 lies between {extremes(ways, 'tuned_f1')}. {against_plain(ways, 'tuned_f1')}",
           max(abs(mean(ways, name, "tuned_f1") - plain["tuned_f1"]) for name in ways) < 0.05)

    repeated, made = (mean(ways, name, "pr_auc") for name in ("oversampled", "SMOTE"))
    yield f"Examples made by SMOTE do what repeated ones do: PR AUC {made:.3f} and {repeated:.3f}.", abs(made - repeated) < 0.01
