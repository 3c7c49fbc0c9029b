import gzip

import two_classes
from two_classes import BALANCED, TENFOLD, draw, extremes, table  # noqa: F401

TITLE = "Rare attacks: where there is little to mend"
QUESTION = """
    KDD Cup 1999's connections, of which 0.24 % are attacks of the classes r2l and u2r. Plain logistic regression tells them well already. What do weights,
    sampling, SMOTE, focal loss and a tuned threshold add?"""
RATIO, ROUNDS = 0.024, 9264
JOB = two_classes.job("rare", 118, ROUNDS, """
optimizer { adam {} }
learning_rate { cosine { initial: 0.05 final: 1e-5 } }
l2: 1e-5
""")
VARIED = two_classes.varied(RATIO, 8, """
    The data are not part of the project: the 10 % file of KDD Cup 1999, encoded in 118 columns, in `kdd99/` of the folder that `$DESCENT_SHARED_DATA` names. Of five
    rows in turn three are there to train on, the fourth is of the validation data and the fifth of the test data. These have 239 positives: recall moves by 0.004
    with each of them. One more run has the fourth row to train on, too, since the optimum is known of four of five.""")
SOURCE = f"{two_classes.SOURCE}; Elkan, 2001"
WAYS = two_classes.ways(RATIO)
OPTIMUM = 0.0027694100  # of the plain objective on four of five rows, by Newton's method in float64
REFERENCE = {"pr_auc": 0.910, "f1": 0.896}  # there, of the fifth
PATHS = "kdd99/kdd99.train.attack.libsvm.gz", "kdd99/kdd99.train.rare_r2l_u2r.labels.txt"


def split(features, labels, folder, most):
    """train, validation and test, the rows with other labels; and `both`, what is in one of the first two. Returns which share of the test data's
    negatives and positives stand in train, too: connections recur."""
    known, recur = set(), ([], [])
    with gzip.open(features, "rt") as rows, open(labels) as classes, open(folder / "train.svm", "w") as train, \
            open(folder / "validation.svm", "w") as validation, open(folder / "test.svm", "w") as test, open(folder / "both.svm", "w") as both:
        for i, (row, label) in enumerate(zip(rows, classes)):
            if i == most:
                break
            line = label.strip() + " " + row.split(" ", 1)[1]
            (train, train, train, validation, test)[i % 5].write(line)
            if i % 5 == 4:
                recur[label.strip() == "1"].append(line)
                continue
            both.write(line)
            if i % 5 < 3:
                known.add(line)
    return [sum(line in known for line in lines) / len(lines) for lines in recur]


def measure(lab):
    root = lab.shared(*PATHS)
    recur = split(*(root / path for path in PATHS), lab.folder, lab.size(None, 20000))
    rounds = lab.size(ROUNDS, 30)
    reference = two_classes.measure(lab, JOB, lab.folder, lab.size(ROUNDS * 4 // 3, 30), "data.train.libsvm.path=both.svm",
                                    "evaluation.objective=true")
    return {"recur": recur, "reference": reference,
            "ways": {name: [two_classes.measure(lab, JOB, lab.folder, rounds, *sets)] for name, sets in WAYS.items()}}


def seen(data):
    reference, ways = data["reference"], data["ways"]
    one = {name: results[0] for name, results in ways.items()}
    plain, moved = one["plain"], TENFOLD + BALANCED
    yield (f"Connections recur: {data['recur'][1]:.0%} of the positives to test with and {data['recur'][0]:.0%} of the negatives are among those to train on, too, "
           "which flatters all ways.", True)
    yield (f"Plain logistic regression, trained on four of five rows: PR AUC {reference['pr_auc']:.3f}, F1 {reference['f1']:.3f}, at an objective "
           f"{reference['objective'] / OPTIMUM - 1:.1%} above the least there is (at which they are {REFERENCE['pr_auc']:.3f} and {REFERENCE['f1']:.3f}).",
           all(abs(reference[key] - value) < 0.02 for key, value in REFERENCE.items()))

    yield (f"At a probability of 0.5 weights and sampling all buy recall with precision: recall is between {extremes(ways, 'recall', moved)} instead of "
           f"{plain['recall']:.3f}, precision between {extremes(ways, 'precision', moved)} instead of {plain['precision']:.3f}, and F1 at most "
           f"{max(one[name]['f1'] for name in moved):.3f} instead of {plain['f1']:.3f}.",
           all(one[name]["recall"] > plain["recall"] and one[name]["f1"] < plain["f1"] for name in moved))

    yield (f"Tuning takes back what weights and sampling have done, with thresholds up to {max(one[name]['threshold'] for name in moved):.3f}: F1 then lies between "
           f"{extremes(ways, 'tuned_f1')}. Plain logistic regression has nothing to move: {plain['tuned_f1']:.3f} tuned, {plain['f1']:.3f} at 0.5.",
           all(one[name]["tuned_f1"] > one[name]["f1"] for name in moved) and abs(plain["tuned_f1"] - plain["f1"]) < 0.02)

    above = [name for name in ways if one[name]["pr_auc"] > plain["pr_auc"] + 0.01]
    below = [name for name in ways if one[name]["pr_auc"] < plain["pr_auc"] - 0.01]
    yield (f"PR AUC lies between {extremes(ways, 'pr_auc')}, plain at {plain['pr_auc']:.3f}. By more than 0.01 above it: {', '.join(above) or 'none'}; below it: "
           f"{', '.join(below) or 'none'}.", True)
