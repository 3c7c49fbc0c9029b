import random

import two_classes

TITLE = "One example in a hundred is positive"
QUESTION = """
    a9a (UCI Adult in Platt's encoding) with so many positives left out that 1 % remain. What do class weights and focal loss do to what is found?"""
JOB = """
name: "imbalance" seed: 1 ranks: 4 batch_size: 64 epochs: 40
data {
  train      { libsvm { path: "train.svm" features: 123 } }
  validation { libsvm { path: "test.svm" features: 123 } }
}
model { logistic {} }
optimizer { adagrad {} }
learning_rate { constant: 0.2 }
l2: 1e-4
evaluation { every_epochs: 40 ... }
"""
VARIED = """
    `class_weights` and `model.logistic.focal_gamma`. The data are not part of the project: `a9a` and `a9a.t` of the LIBSVM collection, in `a9a/` of the folder that
    `$DESCENT_SHARED_DATA` names. The script leaves out positives of both, drawn with seed 1, until 1 % are left; what is told is of the test set, which has some 125, so that
    a number of recall moves by 0.008 with each of them. The last group tells the best F1 of all thresholds, chosen on the very examples it is told of."""
SOURCE = "King and Zeng, 2001; Lin et al., 2017; Saito and Rehmsmeier, 2015 (for PR curves where positives are rare)"
METHODS = {
    "plain": (),
    "weight 10": ("class_weights={ weight: 1 weight: 10 }",),
    "balanced weights": ("class_weights={ balanced: true }",),
    "focal, gamma 2": ("model.logistic.focal_gamma=2",),
    "focal, gamma 2, weight 10": ("model.logistic.focal_gamma=2", "class_weights={ weight: 1 weight: 10 }"),
}


def thin(source, target, share=0.01):
    lines = source.read_text().splitlines(keepends=True)
    positive = [line for line in lines if line.startswith(("+1", "1"))]
    negative = [line for line in lines if line.startswith("-1")]
    kept = set(random.Random(1).sample(range(len(positive)), round(len(negative) * share / (1 - share))))
    left = iter(range(len(positive)))
    with open(target, "w") as out:
        for line in lines:
            if line.startswith("-1") or next(left) in kept:
                out.write(line)
    return len(kept), len(negative)


def measure(lab):
    root = lab.shared("a9a/a9a", "a9a/a9a.t") / "a9a"
    train = thin(root / "a9a", lab.folder / "train.svm")
    test = thin(root / "a9a.t", lab.folder / "test.svm")
    job = JOB.replace("every_epochs: 40 ...", f"every_epochs: {lab.size(40, 1)} {two_classes.METRICS}")
    return {"train": train, "test": test,
            "methods": {name: two_classes.numbers(lab.run(job, *sets, f"epochs={lab.size(40, 1)}", workers=2))
                        for name, sets in METHODS.items()}}


def seen(data):
    methods = data["methods"]
    plain, balanced = methods["plain"], methods["balanced weights"]
    yield (f"{data['train'][0]} positives beside {data['train'][1]:,} negatives to train on, {data['test'][0]} beside {data['test'][1]:,} to test.", True)
    yield (f"Plain logistic regression finds {plain['recall']:.0%} of the positives, balanced weights {balanced['recall']:.0%}, with a precision of "
           f"{balanced['precision']:.1%}.", plain["recall"] < 0.2 and balanced["recall"] > 0.6 and balanced["precision"] < 0.2)
    told = ", ".join(f"{v['pr_auc']:.3f} ({name})" for name, v in methods.items())
    spread = max(v["pr_auc"] for v in methods.values()) - min(v["pr_auc"] for v in methods.values())
    yield f"PR AUC: {told}. How examples are ranked hardly changes; where the line is drawn does.", spread < 0.05
    told = ", ".join(f"{v['f1']:.3f} ({name})" for name, v in methods.items())
    yield (f"F1 at a probability of 0.5: {told}. With the threshold moved plain logistic regression has {plain['tuned_f1']:.3f}.",
           plain["tuned_f1"] > plain["f1"])


def draw(data, figure):
    two_classes.bars(data["methods"], figure)
