"""Training data sampled by class: what an epoch is of, and the same bits on any cluster."""
import json
import random
import re
import unittest

from harness import ClusterTest

JOB = """
name: "imbalance"
seed: 5
ranks: 4
batch_size: 16
epochs: 6
data {{
  shard_rows: 150
  {data}
  train {{ {train} }}
  validation {{ {valid} }}
}}
model {{ {model} }}
learning_rate {{ constant: 0.1 }}
evaluation {{ every_epochs: 1 metrics: RECALL metrics: CONFUSION objective: true }}
metrics {{ every_rounds: 1 }}
"""
CSV = 'csv {{ path: "{0}.csv" label: "y" header: true }}'
SVM = 'libsvm {{ path: "{0}.svm" {1} }}'


def write_rare(folder, name, rows, rare, seed):
    """Two features; class 1, `rare` rows of them, lies a little to the right of class 0. As CSV and as LIBSVM."""
    rng = random.Random(seed)
    labels = [int(i < rare) for i in range(rows)]
    rng.shuffle(labels)
    points = [(rng.gauss(1.5 * y, 1), rng.gauss(0, 1), y) for y in labels]
    (folder / f"{name}.csv").write_text("a,b,y\n" + "".join(f"{a:.5f},{b:.5f},{y}\n" for a, b, y in points))
    (folder / f"{name}.svm").write_text("".join(f"{y} 1:{a:.5f} 2:{b:.5f}\n" for a, b, y in points))


class ImbalanceTest(ClusterTest):
    def setUp(self):
        super().setUp()
        write_rare(self.folder, "train", 600, 40, 1)
        write_rare(self.folder, "valid", 400, 100, 2)

    def run_job(self, data, kind="csv", model="logistic {}", **processes):
        train, valid = (CSV.format("train"), CSV.format("valid")) if kind == "csv" else (
            SVM.format("train", "features: 2"), SVM.format("valid", "features: 2"))
        if "sparse_table" in model:
            train, valid = SVM.format("train", ""), SVM.format("valid", "")
        text = JOB.format(data=data, train=train, valid=valid, model=model)
        return self.succeed(self.job(text), **processes)

    def test_epochs_have_the_examples_that_are_asked_for(self):
        plain = self.run_job("")
        recall = plain.summary["metrics"]["recall"]
        # By hand: 560 + 560, 40 + 40, 560 + 280, and the data's own number.
        for data, rows in (("resampling { kind: OVERSAMPLE }", 1120), ("resampling { kind: UNDERSAMPLE }", 80),
                           ("resampling { kind: SMOTE ratio: 0.5 }", 840), ("sampling: CLASS_BALANCED", 600)):
            result = self.run_job(data, servers=2, workers=2)
            self.assertEqual(result.summary["clocks"], 6 * -(-rows // (4 * 16)), data)
            training = [m for m in result.metrics if m["kind"] == "training"]
            self.assertEqual(sum(m["examples"] for m in training), 6 * rows, data)
            evaluations = [m for m in result.metrics if m["kind"] == "evaluation"]
            self.assertEqual([m["examples"] for m in evaluations], [400] * 6, "validation is as it is")
            self.assertEqual(sum(map(sum, evaluations[-1]["metrics"]["confusion"])), 400)
            self.assertGreater(result.summary["metrics"]["recall"], recall + 0.2, data)

    def test_the_same_bits_on_any_cluster_and_under_a_death(self):
        cases = (("resampling { kind: SMOTE neighbours: 3 }", "csv", "mlp { hidden: 6 classes: 2 }"),
                 ("resampling { kind: SMOTE }", "svm", "logistic {}"),
                 ("resampling { kind: SMOTE }", "svm", "factorization_machine { dim: 2 sparse_table: true }"),
                 ("resampling { kind: UNDERSAMPLE ratio: 0.3 }", "csv", "logistic {}"),
                 ("sampling: CLASS_BALANCED", "csv", "logistic {}"))
        for data, kind, model in cases:
            with self.subTest(data=data, model=model):
                one = self.run_job(data, kind, model).summary["parameters_sha256"]
                self.assertEqual(self.run_job(data, kind, model, servers=2, workers=3).summary["parameters_sha256"], one)
        data, kind, model = cases[0]
        job = self.job(JOB.format(data=data, train=CSV.format("train"), valid=CSV.format("valid"), model=model))
        run_dir = self.folder / "killed"
        process = self.start("descent", "run", job, "--servers", 2, "--workers", 2, "--run-dir", run_dir, *self.slow_worker(10))
        log = run_dir / "metrics.jsonl"
        self.wait_for(lambda: log.exists() and '"evaluation"' in log.read_text(), process)
        self.kill_some(run_dir, "worker")
        self.assertEqual(process.wait(120), 0, process.log())
        one = self.run_job(data, kind, model).summary["parameters_sha256"]
        self.assertEqual(json.loads((run_dir / "summary.json").read_text())["parameters_sha256"], one)

    def test_the_objective_is_of_the_data_as_they_are(self):
        for data in ("resampling { kind: SMOTE }", "resampling { kind: OVERSAMPLE }"):
            result = self.run_job(data)
            last = [m for m in result.metrics if m["kind"] == "evaluation"][-1]
            told = self.command("descent", "predict", "--model", result.run_dir / "model", "--data", self.folder / "train.csv")
            self.assertAlmostEqual(float(re.search(r"\bloss ([0-9.e-]+)", told.stdout)[1]), last["train_loss"], places=5)


if __name__ == "__main__":
    unittest.main()
