"""descent replay: runs that lost workers and servers are done again from their recorded order, to the same hash."""
import json
import os
import pathlib
import re
import signal
import unittest

from harness import DEADLINE, ClusterTest, write_csv, write_libsvm

JOB = """
name: "recorded"
seed: 3
ranks: 4
batch_size: 16
rounds: {rounds}
record_order: true
l2: 1e-3
learning_rate {{ constant: 0.01 }}
cluster {{ lease_seconds: 2 }}
consistency {{ {mode} }}
optimizer {{ {optimizer} }}
{more}
"""
DENSE = """
block_elements: 256
data { train { csv { path: "train.csv" label: "y" header: true } } }
model { mlp { hidden: 24 hidden: 12 activation: TANH classes: 2 } }
"""
SPARSE = """
slots: 32
data { train { libsvm { path: "train.svm" } } }
model { logistic { sparse_table: true } }
"""
CUTS = "checkpoint { every_rounds: 50 keep: 2 }\n"


class ReplayTest(ClusterTest):
    def setUp(self):
        super().setUp()
        write_csv(self.folder / "train.csv", 800, 10)
        write_libsvm(self.folder / "train.svm", 800, 2000, 8)

    def recorded(self, data, mode, optimizer, rounds=60, more=""):
        return self.job(JOB.format(rounds=rounds, mode=mode, optimizer=optimizer, more=data + more))

    def replay(self, run_dir, status=0):
        replayed = self.command("descent", "replay", run_dir)
        self.assertEqual(replayed.returncode, status, replayed.stdout)
        return replayed.stdout

    def assert_replays(self, run_dir):
        text = self.replay(run_dir)
        summary = json.loads((pathlib.Path(run_dir) / "summary.json").read_text())
        self.assertEqual(text.count("parameters_sha256 " + summary["parameters_sha256"]), 2, text)
        self.assertEqual(text.splitlines()[-1], "equal")
        return text

    def cuts(self, run_dir):
        return sorted((run_dir / "checkpoints").glob("cut-*/MANIFEST"))

    def victim(self, run, binary, flag=""):
        for pid in pathlib.Path(f"/proc/{run.pid}/task/{run.pid}/children").read_text().split():
            command = pathlib.Path(f"/proc/{pid}/cmdline").read_text()
            if binary in command and flag in command:
                return int(pid)
        self.fail(f"no {binary} {flag}: {run.log()}")

    def disturbed(self, name, job):
        """A run that loses a worker, then a server, and ends all the same."""
        run_dir = self.folder / name
        run = self.start("descent", "run", job, "--servers", "2", "--workers", "2", "--run-dir", str(run_dir),
                         *self.slow_worker())
        self.wait_for(lambda: len(self.cuts(run_dir)) > 0, run)
        os.kill(self.victim(run, "descent_worker"), signal.SIGKILL)
        number = self.cuts(run_dir)[-1].parent.name
        self.wait_for(lambda: self.cuts(run_dir)[-1].parent.name > number, run)
        os.kill(self.victim(run, "descent_server", "--coordinator"), signal.SIGKILL)
        self.assertEqual(run.wait(DEADLINE), 0, run.log())
        self.assertIn("rolled_back_to", (run_dir / "metrics.jsonl").read_text())
        return run_dir

    def test_pushes_of_runs_that_lost_a_worker_and_a_server(self):
        for name, data, mode, optimizer in (
                ("async-adam", DENSE, "mode: ASYNC", "adam {}"),
                ("bounded-adam", DENSE, "mode: BOUNDED staleness: 3", "adam {}"),
                ("async-momentum", SPARSE, "mode: ASYNC", "momentum { momentum: 0.9 }"),
                ("bounded-adagrad", SPARSE, "mode: BOUNDED staleness: 3", "adagrad {}")):
            with self.subTest(name):
                text = self.assert_replays(self.disturbed(name, self.recorded(data, mode, optimizer, 700, CUTS)))
                self.assertRegex(text, r"cut-\d+-g2: \d+ gradients")

    def test_rounds(self):
        for name, mode in (("sync", "mode: SYNC"), ("stale", "mode: CUSTOM staleness: 2 apply: ROUND")):
            with self.subTest(name):
                self.assert_replays(self.disturbed(name, self.recorded(DENSE, mode, "adam {}", 700, CUTS)))

    def test_rounds_whose_steps_wait_for_norms(self):
        for name, optimizer, more in (
                ("clipped", "momentum {}", "clip { global_norm: 0.2 } averaging { from_round: 100 }"),
                ("noisy", "sgd {}", "clip { norm: 0.1 } gradient_noise { eta: 1e-4 } encoding: BF16"),
                ("layerwise", "lars { trust: 0.02 }", "")):
            with self.subTest(name):
                job = self.recorded(DENSE, "mode: SYNC", optimizer, 400, CUTS + more)
                self.assert_replays(self.disturbed(name, job))

    def test_pushes_whose_delay_counts(self):
        aware = "staleness_aware_rate: true delay_compensation { lambda: 0.5 }"
        adaptive = "delay_compensation { lambda: 1 mean_square_decay: 0.95 }"
        for name, mode, more in (
                ("adaptive", "mode: ASYNC " + adaptive, "averaging { decay: 0.9 }"),
                ("aware", "mode: ASYNC " + aware, "encoding: FP16 averaging { decay: 0.9 }"),
                ("changing", "mode: BOUNDED staleness: 1 change { from_round: 100 staleness: 6 } " + aware, "")):
            with self.subTest(name):
                job = self.recorded(DENSE, mode, "momentum {}", 400, CUTS + more)
                self.assert_replays(self.disturbed(name, job))

    def test_the_cut_at_the_end_is_enough(self):
        for data, mode in ((DENSE, "mode: ASYNC"), (SPARSE, "mode: SYNC"), (SPARSE, "mode: CUSTOM apply: PUSH")):
            with self.subTest(mode):
                result = self.succeed(self.recorded(data, mode, "sgd {}"), servers=2, workers=3)
                self.assertEqual(len(self.cuts(result.run_dir)), 1)
                self.assert_replays(result.run_dir)

    def test_a_stopped_run_and_one_that_went_on(self):
        run_dir = self.folder / "stopped"
        job = self.recorded(SPARSE, "mode: ASYNC", "adam {}", 700, CUTS)
        run = self.start("descent", "run", job, "--servers", "2", "--workers", "2", "--run-dir", str(run_dir),
                         *self.slow_worker())
        self.wait_for(lambda: len(self.cuts(run_dir)) > 0, run)
        self.assertIn("has not ended", self.replay(run_dir, status=2))
        run.send_signal(signal.SIGINT)
        self.assertEqual(run.wait(DEADLINE), 130, run.log())
        self.assert_replays(run_dir)
        resumed = self.command("descent", "run", job, "--resume", "--run-dir", run_dir, "--servers", 3, "--workers", 1)
        self.assertEqual(resumed.returncode, 0, resumed.stdout)
        self.assert_replays(run_dir)

    def test_what_cannot_be_replayed(self):
        job = self.recorded(DENSE, "mode: ASYNC", "sgd {}")
        result = self.succeed(job, sets=("record_order=false",))
        self.assertIn("recorded no order", self.replay(result.run_dir, status=2))
        result = self.succeed(job)
        self.assert_replays(result.run_dir)
        # Other data: the same files' names, other rows.
        other = self.folder / "other"
        other.mkdir()
        write_csv(other / "train.csv", 800, 10, seed=2)
        replayed = self.command("descent", "replay", result.run_dir, "--data-root", other)
        self.assertEqual(replayed.returncode, 1, replayed.stdout)
        self.assertRegex(replayed.stdout, r"the first block that differs from cut-\S+: tensor '")
        self.assertEqual(replayed.stdout.splitlines()[-1], "DIFFERENT")
        # The recorded hash of another model.
        summary = result.run_dir / "summary.json"
        text = summary.read_text()
        summary.write_text(re.sub('"parameters_sha256": "....', '"parameters_sha256": "0000', text))
        self.assertIn("the model was saved at another moment", self.replay(result.run_dir, status=1))
        summary.write_text(text)
        # One byte of the cut: the only one, so there is none.
        part = next((result.run_dir / "checkpoints").glob("cut-*/server-0.part"))
        data = bytearray(part.read_bytes())
        data[len(data) // 2] ^= 1
        part.write_bytes(data)
        refused = self.replay(result.run_dir, status=2)
        self.assertIn("crc32c", refused)
        self.assertIn("no cut of this job that can be used", refused)


if __name__ == "__main__":
    unittest.main()
