"""Runs that diverge: they fail by name, or go back with a smaller rate; and the same bits whatever dies."""
import json
import unittest

from harness import ClusterTest, write_csv

JOB = """
name: "divergence"
seed: 2
ranks: 4
batch_size: 16
rounds: 200
data {{
  train {{ csv {{ path: "train.csv" label: "y" header: true }} }}
  validation {{ csv {{ path: "valid.csv" label: "y" header: true }} }}
}}
model {{ {model} }}
optimizer {{ {optimizer} }}
learning_rate {{ {rate} }}
evaluation {{ every_rounds: 10 }}
{rules}
"""
# A rate that grows past what the curvature allows: mean squares of standard normal features, of curvature about 1.
GROWS = "constant: 4 warmup_rounds: 100"


class DivergenceTest(ClusterTest):
    def setUp(self):
        super().setUp()
        write_csv(self.folder / "train.csv", 300, 10)
        write_csv(self.folder / "valid.csv", 200, 10)

    def text(self, rules, model="linear {}", rate=GROWS):
        return self.job(JOB.format(model=model, rate=rate, rules=rules, optimizer="sgd {}"))

    def lines(self, run_dir, kind):
        return [m for line in (run_dir / "metrics.jsonl").read_text().splitlines() if (m := json.loads(line))["kind"] == kind]

    def test_it_stops_and_names_clock_rank_and_tensor(self):
        result = self.descent_run(self.text("divergence { loss_above: 5 }"), servers=2, workers=2)
        self.assertEqual(result.status, 1, result.output)
        losses = {m["clock"]: m["loss"] for m in self.lines(result.run_dir, "evaluation")}
        clock = max(losses)
        self.assertLess(clock, 200)
        self.assertGreater(losses[clock], 5)
        self.assertTrue(all(loss <= 5 for c, loss in losses.items() if c != clock))
        self.assertRegex(result.output, rf"the run has diverged at clock {clock}: loss is {losses[clock]:.6g}, above 5; of the "
                         r"ranks' shares that of rank \d has the greatest loss, [0-9.e+]+; of the tensors '\S+' has the greatest "
                         r"gradient, of norm [0-9.e+]+")
        decisions = self.lines(result.run_dir, "decision")
        self.assertEqual([(d["clock"], d["decision"]) for d in decisions], [(clock, "diverged")])

    ROLLBACK = "divergence { jump_factor: 4 action: ROLLBACK rate_factor: 0.25 } metrics { every_rounds: 10 } "

    def test_it_goes_back_and_ends_well_with_the_same_bits(self):
        job = self.text(self.ROLLBACK)
        calm = self.succeed(job, servers=1, workers=1)
        decisions = self.lines(calm.run_dir, "decision")
        self.assertGreater(len(decisions), 0)
        self.assertEqual({d["decision"] for d in decisions}, {"rollback"})
        self.assertLess(calm.summary["loss"], 1)
        self.assertEqual(calm.summary["clocks"], 200)
        # Back to the last evaluation within bounds, with that share of the rate from there on.
        back = [m["clock"] for m in self.lines(calm.run_dir, "rolled_back_to")]
        self.assertEqual(back, [d["clock"] - 10 for d in decisions])
        for line in self.lines(calm.run_dir, "training")[-5:]:
            self.assertAlmostEqual(line["rate"], 4 * 0.25 ** len(decisions), places=6)
        self.assertEqual(self.succeed(job, servers=3, workers=3).summary["parameters_sha256"], calm.summary["parameters_sha256"])
        self.assertEqual(self.succeed(job, servers=3, workers=3).summary["state_sha256"], calm.summary["state_sha256"])

        job = self.text(self.ROLLBACK + "checkpoint { every_rounds: 7 }")
        for role, moment in (("worker", '"decision"'), ("server", '"decision"'), ("server", '"evaluation"')):
            run_dir = self.folder / f"killed-{role}-{moment[1:3]}"
            process = self.start("descent", "run", job, "--servers", 2, "--workers", 2, "--run-dir", run_dir,
                                 *self.slow_worker(10))
            log = run_dir / "metrics.jsonl"
            self.wait_for(lambda: log.exists() and moment in log.read_text(), process)
            self.kill_some(run_dir, role)
            self.assertEqual(process.wait(120), 0, process.log())
            summary = json.loads((run_dir / "summary.json").read_text())
            self.assertEqual(summary["parameters_sha256"], calm.summary["parameters_sha256"], role)

    def test_a_gradient_that_is_not_finite_is_gone_back_from(self):
        # Beyond all bounds within one interval of evaluations, from the first step on.
        job = self.text("divergence { loss_above: 1e6 action: ROLLBACK rate_factor: 1e-31 }", rate="constant: 1e30")
        results = [self.succeed(job, servers=s, workers=s) for s in (1, 2)]
        for result in results:
            decisions = self.lines(result.run_dir, "decision")
            self.assertEqual([d["decision"] for d in decisions], ["rollback"])
            self.assertRegex(decisions[0]["why"], r"(?i)\b(nan|inf)\b.*: back to the beginning with the rate at 1e-31 of the")
        self.assertEqual(results[0].summary["parameters_sha256"], results[1].summary["parameters_sha256"])
        # It is the run that had the smaller rate from the beginning.
        plain = self.succeed(self.text("", rate="constant: 0.1"))
        self.assertEqual(plain.summary["parameters_sha256"], results[0].summary["parameters_sha256"])

    def test_too_many_rollbacks_fail(self):
        job = self.text("divergence { loss_above: 5 action: ROLLBACK rate_factor: 1 max_rollbacks: 2 }")
        result = self.descent_run(job, servers=2, workers=2)
        self.assertEqual(result.status, 1, result.output)
        self.assertRegex(result.output, r"the run has diverged at clock \d+ after 2 rollbacks: loss is ")
        self.assertEqual([d["decision"] for d in self.lines(result.run_dir, "decision")], ["rollback", "rollback", "diverged"])


if __name__ == "__main__":
    unittest.main()
