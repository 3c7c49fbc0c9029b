"""The machinery of scripts/experiments: a job of each kind runs in small, its numbers are read, judged and written."""
import json
import os
import pathlib
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
import lab
import momentum


class ExperimentsTest(unittest.TestCase):
    def setUp(self):
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.folder = pathlib.Path(folder.name)

    def run_them(self, *arguments):
        return subprocess.run(["/usr/bin/python3", "-B", EXPERIMENTS, BIN, *arguments, "--out", self.folder], timeout=200,
                              stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)

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
        done = subprocess.run(["/usr/bin/python3", "-B", EXPERIMENTS, BIN, "imbalance", "--data-only", "--out", self.folder],
                              timeout=60, stdout=subprocess.PIPE, text=True,
                              env={**os.environ, "DESCENT_SHARED_DATA": str(self.folder / "nowhere")})
        self.assertEqual(done.returncode, 0)
        self.assertIn("imbalance: SKIPPED, there is no", done.stdout)

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
        # A loss that falls by a tenth in each step, with a bump that the envelope passes over.
        points = [[t, 0.9 ** t * (1 if t % 7 else 0.5)] for t in range(401)]
        self.assertAlmostEqual(momentum.factor(points), 0.9, places=4)


if __name__ == "__main__":
    unittest.main(verbosity=2)
