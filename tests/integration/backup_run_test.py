"""Backup ranks from outside: a run ends whoever dies, every evaluation is whole, a stop saves one clock."""
import json
import os
import signal
import time

from harness import DEADLINE, ClusterTest, main, write_csv

JOB = """
name: "backups"
seed: 3
ranks: 6
batch_size: 16
epochs: {epochs}
data {{
  train {{ csv {{ path: "train.csv" label: "y" header: true }} }}
  validation {{ csv {{ path: "valid.csv" label: "y" header: true }} }}
  sampling: {sampling}
}}
model {{ logistic {{}} }}
optimizer {{ sgd {{}} }}
learning_rate {{ constant: 0.5 }}
evaluation {{ every_epochs: 5 }}
metrics {{ every_rounds: 10 }}
consistency {{ backup_ranks: 1 late: {late} }}
checkpoint {{ every_rounds: 50 }}
cluster {{ lease_seconds: 4 }}
"""


class BackupRanksTest(ClusterTest):
    def setUp(self):
        super().setUp()
        write_csv(self.folder / "train.csv", 500, 8)
        write_csv(self.folder / "valid.csv", 200, 8)
        # Batches come late at random, so that every rank is left out now and then.
        self.late = self.slow_worker()

    def start_run(self, name, job, workers=3):
        run_dir = self.folder / name
        process = self.start("descent", "run", job, "--servers", "2", "--workers", str(workers), *self.late,
                             "--run-dir", str(run_dir))
        metrics = run_dir / "metrics.jsonl"
        self.wait_for(lambda: metrics.exists() and metrics.read_text(), process)
        return process, run_dir

    def status(self, run_dir):
        address = (run_dir / "coordinator.address").read_text().strip()
        out = self.command("descent", "status", address, "--json")
        self.assertEqual(out.returncode, 0, out.stdout)
        return json.loads(out.stdout)

    def await_round(self, process, run_dir, least):
        deadline = time.monotonic() + DEADLINE
        while True:
            status = self.status(run_dir)
            if int(status.get("round", 0)) >= least:
                return status
            self.assertIsNone(process.poll(), process.log())
            self.assertLess(time.monotonic(), deadline, process.log())

    def metrics(self, run_dir):
        # A line that is being written ends in no newline yet.
        return [json.loads(line) for line in (run_dir / "metrics.jsonl").read_text().split("\n")[:-1]]

    def pid(self, status, role, number=0):
        return [int(m["pid"]) for m in status["member"] if m["role"] == role][number]

    def test_a_killed_worker_and_a_killed_server(self):
        for late, sampling in (("ABANDON", "WITHOUT_REPLACEMENT"), ("FINISH", "SEQUENTIAL")):
            with self.subTest(late):
                # 6 clocks an epoch.
                job = self.job(JOB.format(epochs=60, late=late, sampling=sampling))
                process, run_dir = self.start_run(f"killed-{late}", job)
                status = self.await_round(process, run_dir, 30)
                os.kill(self.pid(status, "worker"), signal.SIGKILL)
                status = self.await_round(process, run_dir, 90)
                os.kill(self.pid(status, "server", 1), signal.SIGKILL)
                self.assertEqual(process.wait(DEADLINE), 0, process.log())
                summary = json.loads((run_dir / "summary.json").read_text())
                self.assertEqual(summary["clocks"], 360)
                self.assertGreater(summary["accuracy"], 0.8)
                last = {}  # what was rolled back is evaluated again
                for m in self.metrics(run_dir):
                    if m["kind"] == "evaluation":
                        last[m["clock"]] = m
                self.assertEqual(sorted(last), list(range(30, 361, 30)))
                self.assertEqual({m["examples"] for m in last.values()}, {200})
                training = [m["clock"] for m in self.metrics(run_dir) if m["kind"] == "training"]
                self.assertEqual(training[-1], 360)

    def test_a_stop_saves_one_clock_and_the_run_goes_on_from_it(self):
        job = self.job(JOB.format(epochs=100000, late="ABANDON", sampling="WITHOUT_REPLACEMENT"))
        process, run_dir = self.start_run("stopped", job)
        self.await_round(process, run_dir, 60)
        process.send_signal(signal.SIGINT)
        self.assertEqual(process.wait(DEADLINE), 130, process.log())
        summary = json.loads((run_dir / "summary.json").read_text())
        self.assertEqual(summary["result"], "STOPPED")
        self.assertTrue((run_dir / "model/model.npz").exists())
        # The last checkpoint is that of the stop: nothing is computed again.
        inspected = self.command("descent", "inspect", run_dir)
        self.assertEqual(inspected.returncode, 0, inspected.stdout)
        self.assertIn(str(summary["clocks"]), inspected.stdout)
        resumed = self.start("descent", "run", job, "--resume", "--run-dir", str(run_dir), "--servers", "1",
                             "--workers", "2", *self.late)
        self.wait_for(lambda: any(m["kind"] == "training" and m["clock"] > summary["clocks"] for m in self.metrics(run_dir)),
                      resumed)
        rolled = [m for m in self.metrics(run_dir) if m["kind"] == "rolled_back_to"]
        self.assertEqual(rolled[-1]["clock"], summary["clocks"], inspected.stdout)
        resumed.send_signal(signal.SIGINT)
        self.assertEqual(resumed.wait(DEADLINE), 130, resumed.log())


if __name__ == "__main__":
    main()
