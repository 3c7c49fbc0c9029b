"""Metrics of an evaluation: what they are of, on any number of processes, and when workers die."""
import json
import os
import re
import signal
import unittest

import numpy

from harness import ClusterTest, write_csv

TWO = """
name: "two"
seed: 5
ranks: 5
batch_size: 8
epochs: 6
data {{
  train {{ csv {{ path: "train.csv" label: "y" header: true }} }}
  validation {{ csv {{ path: "valid.csv" label: "y" header: true }} }}
}}
model {{ {model} }}
learning_rate {{ constant: 0.1 }}
evaluation {{ every_epochs: 1 batch_size: 32 {evaluation} }}
"""
ALL_OF_CLASSES = ("metrics: CONFUSION metrics: PRECISION metrics: RECALL metrics: F1 metrics: TOP_K top_k: 1 metrics: ROC_AUC "
                  "metrics: PR_AUC metrics: LOG_LOSS metrics: CALIBRATION calibration_bins: 5 tune_threshold: true")


class MetricsTest(ClusterTest):
    def setUp(self):
        super().setUp()
        write_csv(self.folder / "train.csv", 400, 8)
        write_csv(self.folder / "valid.csv", 203, 8)  # no multiple of the ranks

    def evaluations(self, run_dir):
        lines = [json.loads(line) for line in (run_dir / "metrics.jsonl").read_text().splitlines()]
        return [{k: v for k, v in m.items() if k != "time"} for m in lines if m["kind"] == "evaluation"]

    def scores(self, result):
        """Probabilities of class 1 and labels of the validation data, as `descent predict` has them."""
        told = self.command("descent", "predict", "--model", result.run_dir / "model", "--data", self.folder / "valid.csv",
                            "--probabilities")
        self.assertEqual(told.returncode, 0, told.stdout)
        lines = [line.split() for line in told.stdout.splitlines() if not line.startswith("descent")]
        labels = [int(line.rsplit(",", 1)[1]) for line in (self.folder / "valid.csv").read_text().splitlines()[1:]]
        return numpy.array([float(line[2]) for line in lines]), numpy.array(labels), told.stdout

    def test_two_classes_by_their_definitions(self):
        result = self.succeed(self.job(TWO.format(model="logistic {}", evaluation=ALL_OF_CLASSES)), servers=2, workers=2)
        metrics = result.summary["metrics"]
        p, y, told = self.scores(result)
        self.assertEqual(len(p), 203)
        wins = (p[y == 1][:, None] > p[y == 0]).mean() + 0.5 * (p[y == 1][:, None] == p[y == 0]).mean()
        self.assertAlmostEqual(metrics["roc_auc"], wins, places=12)
        precision = [(y[p >= s] == 1).mean() for s in p[y == 1]]
        self.assertAlmostEqual(metrics["pr_auc"], numpy.mean(precision), places=12)
        predicted = p > 0.5
        counts = [[int(((y == a) & (predicted == b)).sum()) for b in (0, 1)] for a in (0, 1)]
        self.assertEqual(metrics["confusion"], counts)
        self.assertAlmostEqual(metrics["precision"], counts[1][1] / (counts[0][1] + counts[1][1]), places=12)
        self.assertAlmostEqual(metrics["recall"], counts[1][1] / (counts[1][0] + counts[1][1]), places=12)
        self.assertAlmostEqual(metrics["top_1_accuracy"], result.summary["accuracy"], places=12)
        loss = -numpy.log(numpy.where(y == 1, p, 1 - p)).mean()
        self.assertAlmostEqual(metrics["log_loss"], loss, places=6)
        self.assertAlmostEqual(metrics["log_loss"], result.summary["loss"], places=5)
        bins = numpy.minimum((p * 5).astype(int), 4)
        gap = sum(abs(p[bins == b].sum() - y[bins == b].sum()) for b in range(5)) / len(y)
        self.assertAlmostEqual(metrics["calibration_error"], gap, places=6)
        self.assertEqual([b["examples"] for b in metrics["reliability"]], [int((bins == b).sum()) for b in range(5)])
        best = max(2 * (y[p >= t] == 1).sum() / ((p >= t).sum() + (y == 1).sum()) for t in p)
        self.assertAlmostEqual(metrics["tuned_f1"], best, places=12)
        self.assertIn(f"roc_auc {metrics['roc_auc']:.6g}", result.output)
        # On the same data predict measures the same.
        for name in ("roc_auc", "pr_auc", "log_loss", "tuned_threshold"):
            found = re.search(rf"\b{name} ([0-9.e-]+)", told)
            self.assertIsNotNone(found, told)
            self.assertAlmostEqual(float(found[1]), metrics[name], delta=1e-5)

    def test_the_tuned_threshold_is_saved_and_predicted_with(self):
        job = TWO.format(model="logistic {}", evaluation="tune_threshold: true metrics: F1") + "class_weights { weight: 1 weight: 9 }"
        result = self.succeed(self.job(job), servers=2, workers=2)
        tuned = result.summary["metrics"]["tuned_threshold"]
        saved = json.loads((result.run_dir / "model" / "model.json").read_text())
        self.assertEqual(saved["threshold"], tuned)
        p, y, told = self.scores(result)
        self.assertGreater(tuned, 0.55, "weights for class 1 move its scores up")
        predicted = numpy.array([int(line.split()[0]) for line in told.splitlines() if not line.startswith("descent")])
        # Scores are computed again, so the one that is the threshold may come out next to it.
        sure = abs(p - tuned) > 1e-6
        self.assertTrue((predicted == (p >= tuned))[sure].all())
        self.assertTrue(((predicted == 1) != (p > 0.5)).any(), "no prediction is another for the threshold")
        f1 = 2 * ((y == 1) & (predicted == 1)).sum() / ((predicted == 1).sum() + (y == 1).sum())
        self.assertAlmostEqual(f1, result.summary["metrics"]["tuned_f1"], delta=0.02)
        self.assertAlmostEqual(float(re.search(r"\baccuracy ([0-9.]+)", told)[1]), (predicted == y).mean(), places=5)

    def test_numbers_by_their_definitions(self):
        result = self.succeed(self.job(TWO.format(model="linear {}", evaluation="metrics: RMSE metrics: MAE metrics: R2")),
                              servers=2, workers=2)
        told = self.command("descent", "predict", "--model", result.run_dir / "model", "--data", self.folder / "valid.csv")
        p = numpy.array([float(line) for line in told.stdout.splitlines() if not line.startswith("descent")])
        y = numpy.array([float(line.rsplit(",", 1)[1]) for line in (self.folder / "valid.csv").read_text().splitlines()[1:]])
        metrics = result.summary["metrics"]
        self.assertAlmostEqual(metrics["rmse"], numpy.sqrt(((p - y) ** 2).mean()), places=6)
        self.assertAlmostEqual(metrics["mae"], abs(p - y).mean(), places=6)
        self.assertAlmostEqual(metrics["r2"], 1 - ((p - y) ** 2).sum() / ((y - y.mean()) ** 2).sum(), places=6)

    def test_the_same_for_any_number_of_processes_and_under_a_kill(self):
        job = self.job(TWO.format(model="mlp { hidden: 8 classes: 2 }", evaluation=ALL_OF_CLASSES + " exact_scores: 100"))
        first = self.evaluations(self.succeed(job).run_dir)
        self.assertEqual(len(first), 6)
        self.assertGreater(first[-1]["metrics"]["roc_auc"], 0.8)
        self.assertIn("roc_auc_error", first[-1]["metrics"])
        self.assertEqual(self.evaluations(self.succeed(job, servers=3, workers=4).run_dir), first)

        run_dir = self.folder / "killed"
        process = self.start("descent", "run", job, "--servers", 2, "--workers", 2, "--run-dir", run_dir,
                             *self.slow_worker(10))
        log = run_dir / "metrics.jsonl"
        self.wait_for(lambda: log.exists() and '"evaluation"' in log.read_text(), process)
        found = re.search(r"worker \d+ on host \S+ \(pid (\d+)\)", "".join(
            p.read_text() for p in (run_dir / "logs").glob("*.log")))
        self.assertIsNotNone(found)
        os.kill(int(found[1]), signal.SIGKILL)
        self.assertEqual(process.wait(120), 0, process.log())
        self.assertEqual(self.evaluations(run_dir), first)

    def histograms(self, run_dir):
        lines = [json.loads(line) for line in (run_dir / "metrics.jsonl").read_text().splitlines()]
        return [{k: v for k, v in m.items() if k != "time"} for m in lines if m["kind"] in ("gradient_histograms", "rolled_back_to")]

    def test_histograms_of_gradient_norms_count_every_round(self):
        # With a record each round and one tensor, the norm in the record says which bucket it must be.
        job = self.job(TWO.format(model="logistic { no_bias: true }", evaluation="") + "metrics { every_rounds: 1 gradient_histograms: true }")
        result = self.succeed(job, servers=2, workers=2, args=self.slow_worker(10))
        # A record that is made before the servers have told has no norm.
        norms = {m["clock"]: m["gradient_norm"] for m in result.metrics if m["kind"] == "training" and "gradient_norm" in m}
        found = {m["clock"]: m["histograms"]["weights"] for m in result.metrics if m["kind"] == "gradient_histograms"}
        self.assertEqual(sorted(found), list(range(1, 61)))
        edges = 10 ** (numpy.arange(-36, 37) / 3)
        for clock, histogram in found.items():
            self.assertEqual(list(histogram.values()), [1])
            if clock in norms:
                below = edges[numpy.searchsorted(edges, norms[clock], side="right") - 1]
                self.assertEqual(next(iter(histogram)), f"{below:.3g}", norms[clock])
        self.assertGreater(len(norms), 20)

    def test_histograms_on_any_number_of_processes_and_under_kills(self):
        more = "metrics { every_rounds: 7 gradient_histograms: true } checkpoint { every_rounds: 10 }"
        job = self.job(TWO.format(model="mlp { hidden: 8 hidden: 6 classes: 2 }", evaluation="") + more)
        first = self.histograms(self.succeed(job).run_dir)
        self.assertEqual([m["clock"] for m in first], [7, 14, 21, 28, 35, 42, 49, 56, 60])
        self.assertEqual([m["rounds"] for m in first], [7] * 8 + [4])
        for m in first:
            self.assertEqual(len(m["histograms"]), 6)
            for histogram in m["histograms"].values():
                self.assertEqual(sum(histogram.values()), m["rounds"])
        self.assertEqual(self.histograms(self.succeed(job, servers=3, workers=4).run_dir), first)

        for role in ("worker", "server"):
            with self.subTest(role):
                run_dir = self.folder / f"killed-{role}"
                process = self.start("descent", "run", job, "--servers", 2, "--workers", 2, "--run-dir", run_dir,
                                     *self.slow_worker(10))
                self.wait_for(lambda: (run_dir / "metrics.jsonl").exists() and "gradient_histograms" in (run_dir / "metrics.jsonl").read_text()
                              and any((run_dir / "checkpoints").glob("cut-*/MANIFEST")), process)
                self.kill_some(run_dir, role)
                self.assertEqual(process.wait(120), 0, process.log())
                lines = self.histograms(run_dir)
                if role == "worker":
                    self.assertEqual(lines, first)
                    continue
                # From where the run went back to, every round is counted once more, and the windows behind are whole.
                back = max(i for i, m in enumerate(lines) if m["kind"] == "rolled_back_to")
                again = lines[back + 1:]
                self.assertEqual(sum(m["rounds"] for m in again), 60 - lines[back]["clock"])
                self.assertEqual(again[1:], first[-len(again) + 1:] if len(again) > 1 else [])

    def test_what_the_model_can_not_give_is_refused(self):
        wrong = self.command("descent", "validate", self.job(TWO.format(model="linear {}", evaluation="metrics: ROC_AUC")))
        self.assertEqual(wrong.returncode, 2)
        self.assertIn("evaluation: ROC_AUC is of two classes; the model predicts a number", wrong.stdout)


if __name__ == "__main__":
    unittest.main()
