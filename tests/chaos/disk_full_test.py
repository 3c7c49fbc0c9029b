"""A disk that is full costs checkpoints, lines of metrics and of logs, not the run: a small tmpfs for the checkpoint folder, and
for the whole run directory."""
import errno
import json
import os
import pathlib
import re
import subprocess
import sys
import unittest

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent.parent / "integration"))
from harness import DEADLINE, ClusterTest, main, write_csv  # noqa: E402

JOB = """
name: "full"
seed: 1
ranks: 4
batch_size: 16
rounds: 1500
data { train { csv { path: "train.csv" label: "y" header: true } } }
model { mlp { hidden: 128 hidden: 64 activation: TANH classes: 2 } }
optimizer { adam {} }
learning_rate { constant: 0.003 }
checkpoint { every_rounds: 50 keep: 3 }
"""


@unittest.skipUnless(os.geteuid() == 0, "SKIPPED: mounting a tmpfs needs root")
class DiskFullTest(ClusterTest):
    def test_a_full_disk_costs_checkpoints_alone(self):
        write_csv(self.folder / "train.csv", 1237, 20)
        job = self.job(JOB)
        whole = self.succeed(job, servers=2, workers=2)
        disk = self.folder / "disk"
        disk.mkdir()
        # A cut has about 130 KiB: one fits, and a part of the next.
        subprocess.run(["mount", "-t", "tmpfs", "-o", "size=200k", "tmpfs", str(disk)], check=True)
        self.addCleanup(subprocess.run, ["umount", "-l", str(disk)], check=True)
        # Slow enough for several cuts: of a run of a second the one that fits may be the only one that was not too late.
        full = self.succeed(job, servers=2, workers=2, sets=[f"checkpoint.path={disk}"], args=self.slow_worker(1))
        self.assertEqual(full.summary["parameters_sha256"], whole.summary["parameters_sha256"])
        self.assertRegex(full.logs(), re.compile("cut [0-9]+ is given up: .*No space left on device"))
        inspected = self.command("descent", "inspect", disk)
        self.assertEqual(inspected.returncode, 0, inspected.stdout)
        self.assertIn("good", inspected.stdout)

    def test_logs_and_metrics_that_find_no_room_are_lost_alone(self):
        write_csv(self.folder / "train.csv", 1237, 20)
        job = self.job(JOB.replace("rounds: 1500", "rounds: 6000").replace("checkpoint {", "metrics { every_rounds: 5 }\ncheckpoint {"))
        whole = self.succeed(job, servers=2, workers=2)
        disk = self.folder / "disk"
        disk.mkdir()
        subprocess.run(["mount", "-t", "tmpfs", "-o", "size=2m", "tmpfs", str(disk)], check=True)
        self.addCleanup(subprocess.run, ["umount", "-l", str(disk)], check=True)
        run_dir = disk / "run"
        process = self.start("descent", "run", job, "--servers", 2, "--workers", 2, "--run-dir", run_dir)
        metrics = run_dir / "metrics.jsonl"
        self.wait_for(lambda: metrics.exists() and metrics.stat().st_size > 0, process)
        filler = disk / "filler"
        self.fill(filler)
        address = (run_dir / "coordinator.address").read_text().strip()

        def round_now():
            status = self.command("descent", "status", address, "--json")
            return int(json.loads(status.stdout).get("round", 0)) if status.returncode == 0 else 0

        began, written = round_now(), metrics.stat().st_size
        # Training goes on for many windows of metrics, with nowhere to write them. (What is freed meanwhile is filled again.)
        while round_now() < began + 500:
            self.assertIsNone(process.poll(), process.log())
            self.fill(filler)
        self.assertLess(metrics.stat().st_size - written, 60 * 200, "100 records and their evaluations did not fit")
        filler.unlink()
        self.assertEqual(process.wait(DEADLINE), 0, process.log())
        summary = json.loads((run_dir / "summary.json").read_text())
        self.assertEqual(summary["parameters_sha256"], whole.summary["parameters_sha256"])
        # What was written is whole lines, and lines are written again now.
        records = [json.loads(line) for line in metrics.read_text().splitlines()]
        self.assertEqual(records[-1]["clock"], 6000)

    def fill(self, path):
        with open(path, "ab", buffering=0) as file:
            for size in (65536, 4096, 1):
                try:
                    while True:
                        file.write(b"x" * size)
                except OSError as error:
                    self.assertEqual(error.errno, errno.ENOSPC)


if __name__ == "__main__":
    main()
