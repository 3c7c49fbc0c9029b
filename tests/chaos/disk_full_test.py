"""A disk that is full costs checkpoints, not the run: a small tmpfs for the checkpoint folder."""
import os
import pathlib
import re
import subprocess
import sys
import unittest

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent.parent / "integration"))
from harness import ClusterTest, write_csv  # noqa: E402

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
        full = self.succeed(job, servers=2, workers=2, sets=[f"checkpoint.path={disk}"])
        self.assertEqual(full.summary["parameters_sha256"], whole.summary["parameters_sha256"])
        self.assertRegex(full.logs(), re.compile("cut [0-9]+ is given up: .*No space left on device"))
        inspected = self.command("descent", "inspect", disk)
        self.assertEqual(inspected.returncode, 0, inspected.stdout)
        self.assertIn("good", inspected.stdout)


if __name__ == "__main__":
    unittest.main(verbosity=2)
