"""What the two experiments on rare classes share."""
METRICS = "metrics: PRECISION metrics: RECALL metrics: F1 metrics: ROC_AUC metrics: PR_AUC tune_threshold: true"
COLUMNS = (("pr_auc", "PR AUC"), ("roc_auc", "ROC AUC"), ("precision", "precision"), ("recall", "recall"), ("f1", "F1"),
           ("tuned_f1", "F1, threshold tuned"))


def numbers(run):
    """Of the last evaluation."""
    return {key: run.last["metrics"][key] for key, _ in COLUMNS}


def bars(methods, figure):
    axes = figure.subplots()
    width = 0.8 / len(methods)
    for i, (method, values) in enumerate(methods.items()):
        places = [c + (i - (len(methods) - 1) / 2) * width for c in range(len(COLUMNS))]
        heights = [values[key] for key, _ in COLUMNS]
        axes.bar(places, heights, width * 0.92, label=method)
    axes.set_xticks(range(len(COLUMNS)), [name for _, name in COLUMNS])
    axes.grid(axis="x", visible=False)
    axes.set(ylim=(0, 1.02))
    axes.legend(ncol=min(len(methods), 7), loc="lower center", bbox_to_anchor=(0.5, 1.0))
