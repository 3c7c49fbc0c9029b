"""The machinery of scripts/experiments: a job of each kind runs in small, its numbers are read, judged and written."""
import importlib
import json
import os
import pathlib
import random
import shutil
import subprocess
import sys
import tempfile
import unittest

SOURCE = pathlib.Path(os.environ["DESCENT_SOURCE_DIR"])
BIN = pathlib.Path(os.environ["DESCENT_BINARY_DIR"])
EXPERIMENTS = SOURCE / "tests" / "experiments"
sys.path.insert(0, str(EXPERIMENTS))
import delay_limit
import gradient_variance
import imbalance
import lab
import momentum
import page
import rare_attacks
import two_classes


class ExperimentsTest(unittest.TestCase):
    def setUp(self):
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.folder = pathlib.Path(folder.name)

    def run_them(self, *arguments, **environment):
        return subprocess.run(["/usr/bin/python3", "-B", EXPERIMENTS, BIN, *arguments, "--out", self.folder], timeout=200,
                              stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env={**os.environ, **environment})

    def test_small_runs(self):
        done = self.run_them("--small", "--data-only", "delay_limit", "saddle")
        self.assertEqual(done.returncode, 0, done.stdout)
        # Without delay and with two rounds of it the bracket holds the limit even in small: the roots decide it.
        for tau, (low, high) in json.loads((self.folder / "data" / "delay_limit.json").read_text()).items():
            self.assertLess(low, high)
            self.assertAlmostEqual((low * high) ** 0.5, delay_limit.limit(int(tau)), delta=0.01 * delay_limit.limit(int(tau)))
        saddle = json.loads((self.folder / "data" / "saddle.json").read_text())
        self.assertEqual(saddle["full batch"]["ends"][0][1], 0)
        self.assertFalse((self.folder / "README.md").exists())

    def test_absent_data_are_told(self):
        done = self.run_them("imbalance", "--data-only", DESCENT_SHARED_DATA=str(self.folder / "nowhere"))
        self.assertEqual(done.returncode, 0)
        self.assertIn("imbalance: SKIPPED, there is no", done.stdout)

    def test_rare_positives_in_small(self):
        """Data like a9a, of another origin: every way trains, and its threshold is applied to the test data."""
        (self.folder / "a9a").mkdir()
        rng = random.Random(1)
        for name in ("a9a", "a9a.t"):
            rows = [(label, [i for i in range(1, 124) if rng.random() < (0.3 if i < 20 and label == "+1" else 0.1)])
                    for label in ["-1"] * 1980 + ["+1"] * 60]
            rng.shuffle(rows)
            (self.folder / "a9a" / name).write_text("".join(f"{label} {' '.join(f'{i}:1' for i in row)}\n" for label, row in rows))
        done = self.run_them("imbalance", "--small", "--data-only", DESCENT_SHARED_DATA=str(self.folder))
        self.assertEqual(done.returncode, 0, done.stdout)
        data = json.loads((self.folder / "data" / "imbalance.json").read_text())
        (train,), (validation,), (test,) = (data["sizes"][name] for name in ("train", "validation", "test"))
        self.assertEqual(test, [20, 1980])
        self.assertEqual([train[0] + validation[0], train[1] + validation[1]], [20, 1980])
        self.assertEqual(sum(validation), 400)
        self.assertEqual(list(data["ways"]), list(imbalance.WAYS))
        for name, (one,) in data["ways"].items():
            for key in ("pr_auc", "precision", "recall", "tuned_precision", "tuned_recall"):
                self.assertTrue(0 <= one[key] <= 1, (name, key, one[key]))
            for prefix in ("", "tuned_"):  # counts of 20 positives
                hits = 20 * one[f"{prefix}recall"]
                self.assertAlmostEqual(hits, round(hits), places=3)
            self.assertLessEqual(one["tuned_f1"], one["best_f1"] + 1e-5, "the best of all thresholds")
        recall = {name: one["recall"] for name, (one,) in data["ways"].items()}
        for name in two_classes.BALANCED:
            self.assertGreater(recall[name], recall["plain"] + 0.2, name)
        self.assertFalse((self.folder / "data" / "seconds.json").exists(), "a small run tells no time")

    def test_scores_of_two_classes(self):
        # By hand: three reported, two of them rightly, of four that there are.
        told = two_classes.scores([1, 1, 1, 0, 0, 0], [1, 1, 0, 1, 1, 0])
        self.assertEqual(told, {"precision": 2 / 3, "recall": 0.5, "f1": 4 / 7})
        self.assertEqual(two_classes.scores([0, 0], [1, 0]), {"precision": 0.0, "recall": 0.0, "f1": 0.0})
        self.assertEqual([two_classes.is_positive(line) for line in ("+1 3:1\n", "1\n", "-1 1:1\n", "0 1:1\n")], [True, True, False, False])

    def test_the_page_tells_times_and_tables(self):
        (self.folder / "data").mkdir()
        tau = {str(tau): [0.99 * delay_limit.limit(tau), 1.01 * delay_limit.limit(tau)] for tau in delay_limit.DELAYS}
        (self.folder / "data" / "delay_limit.json").write_text(json.dumps(tau))
        one = {"pr_auc": 0.25, "precision": 0.5, "recall": 0.125, "f1": 0.2, "threshold": 0.3, "best_f1": 0.4,
               **{f"tuned_{key}": 0.375 for key in two_classes.MEASURES}}
        other = {**one, "pr_auc": 0.75}
        sizes = {name: [[10, 990]] * 2 for name in ("train", "validation", "test")}
        (self.folder / "data" / "imbalance.json").write_text(json.dumps({"sizes": sizes, "ways": {name: [one, other] for name in imbalance.WAYS}}))
        page.note_seconds(self.folder, "imbalance", 41.3)
        both = [("imbalance", imbalance), ("delay_limit", delay_limit)]
        page.write(self.folder, both)
        text = (self.folder / "README.md").read_text()
        # The standard deviation of 0.25 and 0.75 is sqrt(2 x 0.0625).
        self.assertIn("\n| SMOTE | 0.500 ± 0.354 | 0.500 | 0.125 | 0.200 ± 0.000 | 0.300 | 0.375 | 0.375 | 0.375 ± 0.000 | 0.400 ± 0.000 |\n", text)
        self.assertEqual(text.count("It takes"), 1)
        self.assertIn("It takes 41 s. [imbalance.py]", text)
        self.assertIn("all plots and this page:\n", text)  # of one no time is known
        page.note_seconds(self.folder, "delay_limit", 200)
        page.write(self.folder, both)
        text = (self.folder / "README.md").read_text()
        self.assertIn("all plots and this page (4 minutes, once built):\n", text)
        self.assertIn("It takes 3 minutes. [delay_limit.py]", text)

    def test_the_page_is_what_its_numbers_say(self):
        """docs/experiments/README.md as --redraw writes it: no sentence of another run, and the time of each experiment."""
        docs = SOURCE / "docs" / "experiments"
        shutil.copytree(docs / "data", self.folder / "data")
        page.write(self.folder, [(name, importlib.import_module(name)) for name in page.NAMES])
        text = (self.folder / "README.md").read_text()
        self.assertEqual(text, (docs / "README.md").read_text(), "scripts/experiments --redraw writes it")
        self.assertEqual(text.count("\n## "), len(page.NAMES))
        self.assertEqual(text.count(". It takes "), len(page.NAMES))
        self.assertNotIn("not so in this run", text)

    def test_unknown_names_are_refused(self):
        done = self.run_them("batch_sice")
        self.assertEqual(done.returncode, 2)
        self.assertIn("no such experiment: batch_sice", done.stdout)

    def test_a_job_that_fails_is_told(self):
        with self.assertRaisesRegex(lab.Failed, "learning_rate"):
            lab.Lab(BIN, self.folder).run('model { quadratic {} } rounds: 1')

    def test_judgements_can_fail(self):
        flat = {"rows": 30000, "single": 100.0, "variance": {"1": {"value": 100.0}, "1000": {"value": 90.0}}}
        self.assertFalse(list(gradient_variance.seen(flat))[-1][1])
        self.assertFalse(list(delay_limit.seen({"3": [1.0, 1.0]}))[-1][1])
        same = {"pr_auc": 0.9, "precision": 0.9, "recall": 0.9, "f1": 0.9, "threshold": 0.5, "best_f1": 0.9, "objective": rare_attacks.OPTIMUM,
                **{f"tuned_{key}": 0.9 for key in two_classes.MEASURES}}
        ways = {name: [same] for name in rare_attacks.WAYS}
        self.assertEqual([holds for _, holds in rare_attacks.seen({"recur": [0.5, 0.5], "reference": same, "ways": ways})],
                         [True, True, False, False, True])
        sizes = {name: [[10, 990]] for name in ("train", "validation", "test")}
        self.assertEqual([holds for _, holds in imbalance.seen({"sizes": sizes, "ways": ways})], [True, False, True, False, True, True])
        worse = {**ways, "SMOTE": [{**same, "pr_auc": 0.95, "tuned_f1": 0.8}]}
        self.assertEqual([holds for _, holds in imbalance.seen({"sizes": sizes, "ways": worse})], [True, False, False, False, False, False])
        # A loss that falls by a tenth in each step, with a bump that the envelope passes over.
        points = [[t, 0.9 ** t * (1 if t % 7 else 0.5)] for t in range(401)]
        self.assertAlmostEqual(momentum.factor(points), 0.9, places=4)


if __name__ == "__main__":
    unittest.main(verbosity=2)
