"""Training that ends before its length: why, where, with which model; and the same bits whatever dies."""
import json
import unittest

import numpy

from harness import ClusterTest, write_csv

JOB = """
name: "stopping"
seed: 2
ranks: 4
batch_size: 16
rounds: 4000
data {{
  train {{ csv {{ path: "train.csv" label: "y" header: true }} }}
  validation {{ csv {{ path: "valid.csv" label: "y" header: true }} }}
}}
model {{ mlp {{ hidden: 32 classes: 2 }} }}
optimizer {{ adam {{}} }}
learning_rate {{ constant: {rate} }}
evaluation {{ every_rounds: 20 }}
{rules}
"""
QUADRATIC = """
name: "quadratic"
ranks: 2
rounds: 5000
model {{ quadratic {{ center: 1 start: 2 dim: 4 }} }}
learning_rate {{ constant: 0.1 }}
evaluation {{ every_rounds: 1 }}
{rules}
"""


class StoppingTest(ClusterTest):
    def setUp(self):
        super().setUp()
        # Few examples, much noise: a net learns them by heart soon.
        write_csv(self.folder / "train.csv", 200, 12)
        lines = (self.folder / "train.csv").read_text().splitlines()
        for i in range(1, 61):
            lines[i] = lines[i][:-1] + str(1 - int(lines[i][-1]))
        (self.folder / "train.csv").write_text("\n".join(lines) + "\n")
        write_csv(self.folder / "valid.csv", 300, 12)

    def lines(self, run_dir, kind):
        return [m for line in (run_dir / "metrics.jsonl").read_text().splitlines() if (m := json.loads(line))["kind"] == kind]

    def losses(self, run_dir):
        return {m["clock"]: m["loss"] for m in self.lines(run_dir, "evaluation")}

    EARLY = "stopping { early { patience: 4 restore_best: true } }"

    def test_early_stopping_saves_the_best_model(self):
        result = self.succeed(self.job(JOB.format(rate=0.01, rules=self.EARLY)), servers=2, workers=2)
        losses = self.losses(result.run_dir)
        best = min(losses, key=losses.get)
        self.assertEqual(max(losses), best + 4 * 20)
        self.assertLess(max(losses), 4000)
        summary = result.summary
        self.assertEqual(summary["clocks"], best)
        self.assertEqual(summary["evaluated_at_clock"], best)
        self.assertEqual(summary["loss"], losses[best])
        self.assertEqual(summary["result"], "FINISHED")
        self.assertIn(f"loss was no better in 4 evaluations than {losses[best]:.6g} at clock {best}", summary["ended_by"])
        self.assertIn("ended by loss was no better", result.output)
        decisions = self.lines(result.run_dir, "decision")
        self.assertEqual([(d["clock"], d["decision"]) for d in decisions], [(max(losses), "stop")])
        # The model of a run that is as long as that and no longer.
        short = self.succeed(self.job(JOB.format(rate=0.01, rules=""), "short.textproto"), sets=(f"rounds={best}",))
        self.assertEqual(short.summary["parameters_sha256"], summary["parameters_sha256"])
        self.assertEqual(short.summary["state_sha256"], summary["state_sha256"])

    def test_the_best_of_a_run_that_reaches_its_length(self):
        rules = "stopping { early { patience: 1000 restore_best: true } }"
        result = self.succeed(self.job(JOB.format(rate=0.01, rules=rules)), sets=("rounds=200",), servers=2)
        losses = self.losses(result.run_dir)
        best = min(losses, key=losses.get)
        self.assertEqual(max(losses), 200)
        self.assertLess(best, 200)
        self.assertEqual(result.summary["evaluated_at_clock"], best)
        self.assertEqual(result.summary["ended_by"], "the length is reached: 200 clocks")

    def test_the_same_bits_under_kills(self):
        rules = self.EARLY + " reduce_on_plateau { patience: 1 factor: 0.5 } checkpoint { every_rounds: 15 }"
        job = self.job(JOB.format(rate=0.01, rules=rules))
        calm = self.succeed(job, servers=2, workers=2).summary
        self.assertEqual(self.succeed(job, servers=3, workers=3).summary["parameters_sha256"], calm["parameters_sha256"])
        for role in ("worker", "server"):
            run_dir = self.folder / f"killed-{role}"
            process = self.start("descent", "run", job, "--servers", 2, "--workers", 2, "--run-dir", run_dir,
                                 *self.slow_worker(4))
            log = run_dir / "metrics.jsonl"
            self.wait_for(lambda: log.exists() and log.read_text().count('"evaluation"') >= 3, process)
            self.kill_some(run_dir, role)
            self.assertEqual(process.wait(120), 0, process.log())
            summary = json.loads((run_dir / "summary.json").read_text())
            for name in ("parameters_sha256", "state_sha256", "ended_by", "clocks", "loss"):
                self.assertEqual(summary[name], calm[name], role)

    def test_a_plateau_reduces_the_rate(self):
        rules = "reduce_on_plateau { patience: 2 factor: 0.5 cooldown: 1 } metrics { every_rounds: 20 }"
        result = self.succeed(self.job(JOB.format(rate=0.02, rules=rules)), sets=("rounds=400",), servers=2, workers=2)
        decisions = self.lines(result.run_dir, "decision")
        self.assertGreater(len(decisions), 2)
        at = [d["clock"] for d in decisions if d["decision"] == "rate"]
        for line in self.lines(result.run_dir, "training"):
            factor = 0.5 ** sum(clock <= line["clock"] - 1 for clock in at)
            self.assertAlmostEqual(line["rate"], 0.02 * max(factor, 1e-4), places=9)
        # It is another model than that of the constant rate.
        plain = self.succeed(self.job(JOB.format(rate=0.02, rules=""), "plain.textproto"), sets=("rounds=400",))
        self.assertNotEqual(plain.summary["parameters_sha256"], result.summary["parameters_sha256"])

    def test_a_target_ends_it_and_so_does_time(self):
        result = self.succeed(self.job(JOB.format(rate=0.01, rules='stopping { target { metric: "accuracy" value: 0.7 } }')),
                              servers=2, workers=2)
        evaluations = self.lines(result.run_dir, "evaluation")
        self.assertGreaterEqual(evaluations[-1]["accuracy"], 0.7)
        self.assertTrue(all(m["accuracy"] < 0.7 for m in evaluations[:-1]))
        self.assertEqual(result.summary["clocks"], evaluations[-1]["clock"])
        slow = self.succeed(self.job(JOB.format(rate=0.01, rules="stopping { seconds: 1 }")), sets=("rounds=1000000",),
                            args=self.slow_worker(2))
        self.assertEqual(slow.summary["ended_by"], "the time is over: 1 s")
        self.assertEqual(slow.summary["result"], "FINISHED")

    def test_asynchronous_runs_stop_too(self):
        rules = 'stopping { target { metric: "accuracy" value: 0.7 } } consistency { mode: BOUNDED staleness: 3 }'
        result = self.succeed(self.job(JOB.format(rate=0.01, rules=rules)), servers=2, workers=2)
        self.assertIn("the target is reached: accuracy", result.summary["ended_by"])
        self.assertLess(result.summary["clocks"], 4000)

    def test_norms_of_a_quadratic(self):
        # Each step multiplies the distance by 0.8; the gradient is twice it, and the step a tenth of that.
        def distance(clock):
            return 2 * 0.8**clock  # sqrt(4) x 1

        for field, value in (("gradient_norm", lambda c: 2 * distance(c - 1)),
                             ("parameter_change", lambda c: 0.2 * distance(c - 1))):
            result = self.succeed(self.job(QUADRATIC.format(rules=f"stopping {{ {field}: 1e-3 evaluations: 2 }}")), servers=2)
            first = next(c for c in range(1, 5000) if value(c) < 1e-3)
            self.assertEqual(result.summary["clocks"], first + 1, field)
            model = numpy.load(result.run_dir / "model/model.npz")
            self.assertTrue(all(abs(model[name] - 1).max() < 1e-2 for name in model.files))


if __name__ == "__main__":
    unittest.main()
