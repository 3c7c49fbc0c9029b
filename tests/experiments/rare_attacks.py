import gzip

import two_classes

TITLE = "Rare attacks: where there is little to mend"
QUESTION = """
    KDD Cup 1999's connections, of which 0.24 % are attacks of the classes r2l and u2r. Plain logistic regression tells them well already. What do weights add?"""
JOB = """
name: "rare" seed: 1 ranks: 4 batch_size: 64 epochs: 8
data {
  train      { libsvm { path: "train.svm" features: 118 } }
  validation { libsvm { path: "test.svm" features: 118 } }
}
model { logistic {} }
optimizer { adam {} }
learning_rate { cosine { initial: 0.05 final: 1e-5 } }
l2: 1e-5
evaluation { every_epochs: 8 objective: true ... }
"""
VARIED = """
    `class_weights` and `model.logistic.focal_gamma`. The data are not part of the project: the 10 % file of KDD Cup 1999, encoded in 118 columns, in `kdd99/` of the folder that
    `$DESCENT_SHARED_DATA` names; every fifth row is the test set."""
SOURCE = "King and Zeng, 2001; Elkan, 2001; Lin et al., 2017"
METHODS = {
    "plain": (),
    "weight 10": ("class_weights={ weight: 1 weight: 10 }",),
    "balanced weights": ("class_weights={ balanced: true }",),
    "focal, gamma 2": ("model.logistic.focal_gamma=2",),
}
OPTIMUM = 0.0027694100  # of the plain objective, by Newton's method in float64
FEATURES, LABELS = "kdd99/kdd99.train.attack.libsvm.gz", "kdd99/kdd99.train.rare_r2l_u2r.labels.txt"


def relabel(root, folder, most):
    with gzip.open(root / FEATURES, "rt") as rows, open(root / LABELS) as labels, \
            open(folder / "train.svm", "w") as train, open(folder / "test.svm", "w") as test:
        for i, (row, label) in enumerate(zip(rows, labels)):
            if i == most:
                break
            (test if i % 5 == 4 else train).write(label.strip() + " " + row.split(" ", 1)[1])


def measure(lab):
    relabel(lab.shared(FEATURES, LABELS), lab.folder, lab.size(None, 20000))
    epochs = lab.size(8, 1)
    job = JOB.replace("every_epochs: 8 objective: true ...", f"every_epochs: {epochs} objective: true {two_classes.METRICS}")
    out = {}
    for name, sets in METHODS.items():
        run = lab.run(job, *sets, f"epochs={epochs}", workers=2)
        out[name] = {**two_classes.numbers(run), "objective": run.last["objective"]}
    return out


def seen(data):
    plain = data["plain"]
    yield (f"Plain: PR AUC {plain['pr_auc']:.3f}, F1 {plain['f1']:.3f}, at an objective {plain['objective'] / OPTIMUM - 1:.1%} above the least there is "
           "(at which they are 0.910 and 0.896).", abs(plain["pr_auc"] - 0.910) < 0.02 and abs(plain["f1"] - 0.896) < 0.02)
    for name in ("weight 10", "balanced weights"):
        one = data[name]
        yield (f"{name.capitalize()}: recall {one['recall']:.3f} instead of {plain['recall']:.3f}, precision {one['precision']:.3f} instead of "
               f"{plain['precision']:.3f}, F1 {one['f1']:.3f}: recall is bought with precision.",
               one["recall"] > plain["recall"] and one["precision"] < plain["precision"])
    focal = data["focal, gamma 2"]
    yield f"Focal loss: F1 {focal['f1']:.3f}, PR AUC {focal['pr_auc']:.3f}.", True


def draw(data, figure):
    two_classes.bars(data, figure)
