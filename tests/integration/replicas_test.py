"""Servers with a backup each: processes are killed, and nothing is rolled back."""
import json
import os
import pathlib
import signal
import subprocess

from harness import DEADLINE, ClusterTest, main, write_csv, write_libsvm

DENSE = """
name: "dense"
seed: 3
ranks: 4
batch_size: 16
rounds: {rounds}
data {{ train {{ csv {{ path: "train.csv" label: "y" header: true }} }} }}
model {{ mlp {{ hidden: 24 hidden: 16 activation: TANH classes: 2 }} }}
consistency {{ {consistency} }}
optimizer {{ adam {{}} }}
learning_rate {{ constant: 0.01 }}
block_elements: 64
metrics {{ every_rounds: 10 }}
replicas: 1
"""
SPARSE = """
name: "sparse"
seed: 4
ranks: 4
batch_size: 16
rounds: {rounds}
data {{ train {{ libsvm {{ path: "train.svm" }} }} }}
model {{ logistic {{ sparse_table: true }} }}
consistency {{ {consistency} }}
optimizer {{ adagrad {{}} }}
learning_rate {{ constant: 0.1 }}
l2: 1e-4
slots: 16
metrics {{ every_rounds: 10 }}
replicas: 1
"""


class ReplicasTest(ClusterTest):
    def setUp(self):
        super().setUp()
        write_csv(self.folder / "train.csv", 500, 8)
        write_libsvm(self.folder / "train.svm", 800, 200, 6)

    def begin(self, name, job, servers=3, workers=2):
        run_dir = self.folder / name
        process = self.start("descent", "run", job, "--servers", servers, "--workers", workers, "--run-dir", run_dir,
                             *self.slow_worker(1))
        self.wait_for(lambda: self.status(run_dir).get("phase") == "RUNNING" and self.round(run_dir) > 20, process)
        return process, run_dir

    def round(self, run_dir):
        return int(self.status(run_dir).get("round", 0))

    def synced(self, run_dir):
        servers = self.status(run_dir).get("server", [])
        return len(servers) > 1 and all(s.get("synced") for s in servers)

    def servers(self, process, flag="--coordinator"):
        """Process ids of the servers: those that were told where the coordinator is, or the one that hosts it."""
        out = subprocess.run(["ps", "--ppid", str(process.pid), "-o", "pid=,args="], stdout=subprocess.PIPE, text=True)
        return [int(line.split()[0]) for line in out.stdout.splitlines() if "descent_server" in line and flag in line]

    def undisturbed(self, text, rounds, servers=3):
        text = text.replace("replicas: 1\n", "")
        return self.succeed(self.job(text, "plain.textproto"), servers=servers, workers=2).summary["parameters_sha256"]

    def end(self, process, run_dir):
        self.assertEqual(process.wait(DEADLINE), 0, process.log())
        return json.loads((run_dir / "summary.json").read_text())

    def logs(self, run_dir):
        return "\n".join(p.read_text() for p in sorted((run_dir / "logs").glob("*.log")))

    def test_one_server_after_another_dies_and_nothing_is_rolled_back(self):
        for kind, template in (("dense", DENSE), ("sparse", SPARSE)):
            text = template.format(rounds=2500, consistency="mode: SYNC")
            expected = self.undisturbed(text, 2500)
            process, run_dir = self.begin(kind, self.job(text))
            for kill in range(2):
                victims = self.servers(process)
                if kill > 0 and self.round(run_dir) > 2000:
                    break  # a machine so fast that the run is nearly over
                before = self.round(run_dir)
                os.kill(victims[kill % len(victims)], signal.SIGKILL)
                self.wait_for(lambda: self.round(run_dir) > before + 20, process)
                self.wait_for(lambda: self.synced(run_dir), process)
            summary = self.end(process, run_dir)
            logs = self.logs(run_dir)
            self.assertIn("its backup takes over", logs)
            self.assertNotIn("rolled_back_to", (run_dir / "metrics.jsonl").read_text(), logs[-4000:])
            self.assertEqual(summary["parameters_sha256"], expected, logs[-4000:])

    def test_the_coordinators_server_dies_and_nothing_is_rolled_back(self):
        text = DENSE.format(rounds=2500, consistency="mode: SYNC")
        expected = self.undisturbed(text, 2500)
        process, run_dir = self.begin("first", self.job(text))
        os.kill(self.servers(process, "--job")[0], signal.SIGKILL)
        summary = self.end(process, run_dir)
        logs = self.logs(run_dir)
        self.assertIn("goes on with what the servers hold", logs)
        self.assertNotIn("rolled_back_to", (run_dir / "metrics.jsonl").read_text(), logs[-4000:])
        self.assertEqual(summary["parameters_sha256"], expected, logs[-4000:])

    def test_the_coordinator_dies_again_before_its_successors_generation_runs(self):
        text = DENSE.format(rounds=6000, consistency="mode: SYNC")
        expected = self.undisturbed(text, 6000)
        process, run_dir = self.begin("twice", self.job(text))
        adopted = "goes on with what the servers hold"
        for deaths in range(2):
            os.kill(self.servers(process, "--job")[0], signal.SIGKILL)
            self.wait_for(lambda: self.logs(run_dir).count(adopted) > deaths, process)
        summary = self.end(process, run_dir)
        logs = self.logs(run_dir)
        self.assertNotIn("rolled_back_to", (run_dir / "metrics.jsonl").read_text(), logs[-4000:])
        self.assertEqual(summary["parameters_sha256"], expected, logs[-4000:])

    def test_a_push_mode_goes_on_through_a_death(self):
        text = SPARSE.format(rounds=2500, consistency="mode: BOUNDED staleness: 2")
        process, run_dir = self.begin("bounded", self.job(text))
        before = self.round(run_dir)
        os.kill(self.servers(process)[0], signal.SIGKILL)
        self.wait_for(lambda: self.round(run_dir) > before + 20, process)
        self.end(process, run_dir)
        self.assertNotIn("rolled_back_to", (run_dir / "metrics.jsonl").read_text())

    def test_what_joined_backups_went_on_with_is_replayed(self):
        for name, template, consistency in (("rounds", DENSE, "mode: SYNC"), ("pushes", SPARSE, "mode: ASYNC")):
            text = template.format(rounds=2500, consistency=consistency) + "record_order: true\ncheckpoint { every_rounds: 100 }\n"
            process, run_dir = self.begin(name, self.job(text), servers=2)
            # The first death makes another process join, the second promotes what has joined.
            for flag in ("--coordinator", "--job"):
                self.wait_for(lambda: self.synced(run_dir), process)
                os.kill(self.servers(process, flag)[0], signal.SIGKILL)
                self.wait_for(lambda: self.status(run_dir).get("phase") == "RUNNING", process)
            self.end(process, run_dir)
            self.assertNotIn("rolled_back_to", (run_dir / "metrics.jsonl").read_text())
            replayed = self.command("descent", "replay", run_dir)
            self.assertEqual(replayed.returncode, 0, replayed.stdout)

    def test_a_stop_goes_on_when_a_server_dies_meanwhile(self):
        text = DENSE.format(rounds=8000, consistency="mode: SYNC") + "checkpoint { every_rounds: 1000000 }\n"
        expected = self.undisturbed(text, 8000)
        job = self.job(text)
        for name in ("death-first", "stop-first"):
            process, run_dir = self.begin(name, job)
            self.wait_for(lambda: self.synced(run_dir), process)
            blows = [lambda pid=self.servers(process)[0]: os.kill(pid, signal.SIGKILL),
                     lambda: process.send_signal(signal.SIGINT)]
            for blow in blows if name == "death-first" else reversed(blows):
                blow()
            self.assertEqual(process.wait(DEADLINE), 130, process.log() + self.logs(run_dir)[-4000:])
            self.assertEqual(json.loads((run_dir / "summary.json").read_text())["result"], "STOPPED")
            # The last checkpoint is of the clock where it stopped.
            resumed = self.command("descent", "run", job, "--resume", "--run-dir", run_dir, "--servers", 3)
            self.assertEqual(resumed.returncode, 0, resumed.stdout)
            self.assertEqual(json.loads((run_dir / "summary.json").read_text())["parameters_sha256"], expected)

    def test_primary_and_backup_together_go_back_to_the_last_cut(self):
        text = DENSE.format(rounds=2500, consistency="mode: SYNC") + "checkpoint { every_rounds: 50 }\n"
        expected = self.undisturbed(text, 2500, servers=2)
        process, run_dir = self.begin("both", self.job(text), servers=2)
        self.wait_for(lambda: int(self.status(run_dir).get("last_cut", 0)) > 0, process)
        for pid in self.servers(process) + self.servers(process, "--job"):
            os.kill(pid, signal.SIGKILL)
        summary = self.end(process, run_dir)
        self.assertIn("rolled_back_to", (run_dir / "metrics.jsonl").read_text())
        self.assertEqual(summary["parameters_sha256"], expected)


if __name__ == "__main__":
    main()
