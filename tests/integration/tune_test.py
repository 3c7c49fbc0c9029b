"""descent tune: trials one after the other, told in a table, as JSON and as a picture."""
import json
import signal
import subprocess
import unittest
import xml.etree.ElementTree

from harness import BIN, ClusterTest

QUADRATIC = 'name: "tuned" ranks: 2 rounds: 20 model { quadratic { start: 1 } } learning_rate { constant: 0.1 }'


class TuneTest(ClusterTest):
    def tune(self, *args):
        return self.command("descent", "tune", self.job(QUADRATIC), "--out", self.folder / "out", *args)

    def trials(self):
        return [json.loads(line) for line in (self.folder / "out" / "trials.jsonl").read_text().splitlines()]

    def test_a_range_test_finds_the_rate_that_the_closed_form_names(self):
        # A step multiplies the distance by 1 - 2 rate: 0.4 is the best of these, 4 diverges, to no finite number.
        done = self.tune("--range", "learning_rate.constant=0.004..4", "--trials", 4, "--rounds", 200, "--set",
                         "evaluation.every_rounds=200")
        self.assertEqual(done.returncode, 0, done.stdout)
        trials = self.trials()
        self.assertEqual([t["set"]["learning_rate.constant"] for t in trials], ["0.004", "0.04", "0.4", "4"])
        self.assertEqual([t["result"] for t in trials], ["finished"] * 3 + ["failed"])
        for trial, rate in zip(trials[:2], (0.004, 0.04)):
            self.assertAlmostEqual(trial["value"] / (1 - 2 * rate) ** 400, 1, delta=1e-3)
        self.assertIsNone(trials[3]["value"])
        self.assertRegex(done.stdout, r"\nbest loss \S+: --set learning_rate.constant=0.4\n")
        table = done.stdout.split("trial           loss")[1].splitlines()[1:5]
        self.assertEqual([line.split()[0] for line in table], ["3", "2", "1", "4"])
        # Each trial is a run like any other.
        self.assertEqual(json.loads((self.folder / "out/trial-001/summary.json").read_text())["loss"], trials[0]["value"])
        xml.etree.ElementTree.parse(self.folder / "out" / "trials.svg")

    def test_a_random_search_can_be_done_again(self):
        search = ("--random-log", "learning_rate.constant=0.01..0.5", "--grid", "optimizer={ sgd {} }|{ adam {} }",
                  "--trials", 4, "--seed", 5, "--metric", "training_loss", "--rounds", 10)
        self.assertEqual(self.tune(*search).returncode, 0)
        first = self.trials()
        again = self.command("descent", "tune", self.job(QUADRATIC), "--out", self.folder / "again", *search)
        self.assertEqual(again.returncode, 0, again.stdout)
        second = [json.loads(line) for line in (self.folder / "again" / "trials.jsonl").read_text().splitlines()]
        self.assertEqual([(t["set"], t["value"]) for t in first], [(t["set"], t["value"]) for t in second])
        self.assertEqual(len({t["set"]["learning_rate.constant"] for t in first}), 4)

    def test_wrong_fields_are_told_before_anything_runs(self):
        for args, message in ((("--grid", "learning_rate.constand=1"), "unknown field `constand`"),
                              (("--grid", "learning_rate.constant=0.1,-1"), "trial learning_rate.constant=-1: "),
                              (("--random", "ranks=1"), "--random ranks=1: expected path=LOW..HIGH"),
                              ((), "nothing to try"),
                              (("--grid", "seed=1,2", "--metric", "accuracy"), "--metric accuracy: none of")):
            done = self.tune(*args)
            self.assertEqual(done.returncode, 2, done.stdout)
            self.assertIn(message, done.stdout)
            self.assertFalse((self.folder / "out").exists())

    def test_ctrl_c_stops_the_trial_and_tells_what_there_is(self):
        flags = self.slow_worker(mean_ms=5)
        process = self.start("descent", "tune", self.job(QUADRATIC), "--out", self.folder / "out", "--grid",
                             "rounds=5,1000000,6", *flags)
        self.wait_for((self.folder / "out/trial-002/metrics.jsonl").exists, process)
        process.send_signal(signal.SIGINT)
        self.assertEqual(process.wait(60), 130, process.log())
        self.assertEqual([t["result"] for t in self.trials()], ["finished", "stopped"])
        self.assertIn("rounds=1000000  (stopped)", process.log())
        self.assertIn("best training_loss", process.log())
        self.assertFalse((self.folder / "out/trial-003").exists())

    def test_nothing_is_overwritten(self):
        (self.folder / "out").mkdir()
        (self.folder / "out" / "mine").write_text("")
        done = self.tune("--grid", "seed=1,2")
        self.assertEqual(done.returncode, 2)
        self.assertIn("is never overwritten", done.stdout)

    def test_help_names_every_flag(self):
        text = subprocess.run([BIN / "descent", "tune", "--help"], stdout=subprocess.PIPE, text=True, timeout=30).stdout
        for flag in ("--grid", "--range", "--random", "--random-log", "--trials", "--seed", "--rounds", "--epochs", "--metric",
                     "--out", "--set", "--worker-binary"):
            self.assertIn(flag, text)


if __name__ == "__main__":
    unittest.main(verbosity=2)
