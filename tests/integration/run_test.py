"""descent run from outside: what it writes, what it returns, how it stops."""
import json
import os
import pathlib
import signal
import socket
import subprocess
import time

from harness import BIN, DEADLINE, SOURCE, ClusterTest, main, write_csv

LOGISTIC = """
name: "small"
seed: 3
ranks: 4
batch_size: 16
epochs: {epochs}
data {{
  train {{ csv {{ path: "train.csv" label: "y" header: true }} }}
  validation {{ csv {{ path: "valid.csv" label: "y" header: true }} }}
}}
model {{ logistic {{}} }}
optimizer {{ sgd {{}} }}
learning_rate {{ constant: 0.5 }}
l2: 1e-4
evaluation {{ every_epochs: 1 objective: true }}
metrics {{ every_rounds: 5 }}
"""


class RunTest(ClusterTest):
    def setUp(self):
        super().setUp()
        write_csv(self.folder / "train.csv", 500, 8)
        write_csv(self.folder / "valid.csv", 200, 8)

    def test_quadratic_ends_at_the_closed_form(self):
        result = self.succeed(SOURCE / "examples/quadratic/quadratic.textproto", servers=2, workers=2)
        import numpy
        model = numpy.load(result.run_dir / "model/model.npz")
        values = numpy.concatenate([model[name].ravel() for name in model.files])
        self.assertEqual(values.dtype, numpy.float32)
        self.assertTrue((abs(values - (3 + 7 * 0.8**100)) < 1e-5).all(), values)

    def test_what_a_run_leaves_behind(self):
        result = self.succeed(self.job(LOGISTIC.format(epochs=4)), servers=2, workers=3)
        names = sorted(p.name for p in result.run_dir.iterdir())
        for name in ("job.textproto", "logs", "metrics.jsonl", "model", "summary.json"):
            self.assertIn(name, names)
        summary = result.summary
        self.assertRegex(summary["parameters_sha256"], "^[0-9a-f]{64}$")
        self.assertRegex(summary["state_sha256"], "^[0-9a-f]{64}$")
        self.assertGreater(summary["accuracy"], 0.8)
        evaluations = [m for m in result.metrics if m["kind"] == "evaluation"]
        self.assertEqual([m["clock"] for m in evaluations], [8, 16, 24, 32])
        self.assertLess(evaluations[-1]["objective"], evaluations[0]["objective"])
        self.assertIn("accuracy", evaluations[0])
        training = [m for m in result.metrics if m["kind"] == "training"]
        self.assertEqual([m["clock"] for m in training], [5, 10, 15, 20, 25, 30, 32])
        self.assertGreater(training[0]["gradient_norm"], 0)
        self.assertIn(summary["parameters_sha256"], result.output)
        self.assertIn("model", result.output)
        validate = self.command("descent", "validate", result.run_dir / "job.textproto")
        self.assertEqual(validate.returncode, 0, validate.stdout)

    def test_the_objective_counts_the_penalties_of_proximal_steps(self):
        rule = "optimizer={ sgd {} proximal { l1: 0.02 l2: 0.01 non_negative: true } }"
        result = self.succeed(self.job(LOGISTIC.format(epochs=4)), servers=2, workers=2, sets=(rule,))
        import numpy
        w = numpy.load(result.run_dir / "model/model.npz")["weights"].astype(float)
        self.assertTrue((w >= 0).all() and (w == 0).any() and (w > 0).any(), w)
        penalty = 0.02 * w.sum() + 0.5 * (0.01 + 1e-4) * (w * w).sum()  # and the job's l2
        last = [m for m in result.metrics if m["kind"] == "evaluation"][-1]
        self.assertAlmostEqual(last["objective"] - last["train_loss"], penalty, delta=1e-6)
        self.assertAlmostEqual(result.summary["objective"], last["objective"], delta=1e-6)

    def test_predict_reads_what_was_trained(self):
        result = self.succeed(self.job(LOGISTIC.format(epochs=4)))
        predicted = self.command("descent", "predict", "--model", result.run_dir / "model", "--data",
                                 self.folder / "valid.csv")
        self.assertEqual(predicted.returncode, 0, predicted.stdout)
        lines = [line for line in predicted.stdout.splitlines() if line[:1] in "01"]
        self.assertEqual(len(lines), 200, predicted.stdout[-500:])
        truth = [row.rsplit(",", 1)[1] for row in (self.folder / "valid.csv").read_text().splitlines()[1:]]
        right = sum(line.split()[0] == label for line, label in zip(lines, truth))
        self.assertAlmostEqual(right / 200, result.summary["accuracy"], places=6)
        from_stdin = self.command("descent", "predict", "--model", result.run_dir / "model", "--data", "-",
                                  stdin=(self.folder / "valid.csv").read_text())
        self.assertEqual([l for l in from_stdin.stdout.splitlines() if l[:1] in "01"], lines)

    def test_a_run_directory_is_not_overwritten(self):
        job = self.job(LOGISTIC.format(epochs=1))
        first = self.succeed(job)
        again = self.command("descent", "run", job, "--run-dir", first.run_dir)
        self.assertEqual(again.returncode, 2, again.stdout)
        self.assertIn(str(first.run_dir), again.stdout)

    def interrupted(self, number):
        job = self.job(LOGISTIC.format(epochs=1000000))
        run_dir = self.folder / "interrupted"
        process = self.start("descent", "run", job, "--servers", "2", "--workers", "2", "--run-dir", str(run_dir))
        self.wait_for(lambda: (run_dir / "metrics.jsonl").exists() and (run_dir / "metrics.jsonl").read_text(), process)
        process.send_signal(number)
        status = process.wait(DEADLINE)
        self.assertEqual(status, 128 + number, process.log())
        self.assertTrue((run_dir / "model/model.npz").exists(), process.log())
        self.assert_nobody_left(run_dir)
        # What was saved is one clock of the run, whole: a run of that length ends in the same bits.
        summary = json.loads((run_dir / "summary.json").read_text())
        self.assertEqual(summary["result"], "STOPPED")
        self.assertGreater(summary["clocks"], 0)
        whole = self.succeed(job, servers=1, workers=1, sets=[f"rounds={summary['clocks']}"])
        self.assertEqual(summary["parameters_sha256"], whole.summary["parameters_sha256"])

    def members(self, run_dir, role=""):
        """Processes of a run: the first server knows its directory, the others the coordinator's address."""
        address = (run_dir / "coordinator.address").read_text().strip()
        pattern = f"descent_{role}.*({run_dir}|{address})"
        out = subprocess.run(["pgrep", "-f", pattern], stdout=subprocess.PIPE, text=True).stdout
        return [int(pid) for pid in out.split()]

    def assert_nobody_left(self, run_dir):
        self.assertEqual(self.members(run_dir), [])

    def test_sigint_saves_the_model(self):
        self.interrupted(signal.SIGINT)

    def test_sigterm_saves_the_model(self):
        self.interrupted(signal.SIGTERM)

    def by_hand(self, workers=2, epochs=1000000):
        """A second server and workers started as on separate hosts; waits until training is under way."""
        port_file, run_dir = self.folder / "port", self.folder / "by_hand"
        first = self.start("descent_server", "--job", self.job(LOGISTIC.format(epochs=epochs)), "--servers", "2",
                           "--workers", workers, "--bind", "127.0.0.1:0", "--port-file", port_file, "--run-dir", run_dir)
        self.wait_for(lambda: port_file.exists() and port_file.read_text().strip(), first)
        address = port_file.read_text().strip()
        second = self.start("descent_server", "--coordinator", address)
        members = [self.start("descent_worker", "--coordinator", address) for _ in range(workers)]
        self.wait_for(lambda: (run_dir / "metrics.jsonl").exists(), first)
        return address, run_dir, first, second, members

    def test_every_process_stopped_at_once_saves_the_model(self):
        _, run_dir, first, second, workers = self.by_hand()
        everybody = [first, second, *workers]
        for process in everybody:
            process.send_signal(signal.SIGTERM)
        for process in everybody:
            self.assertEqual(process.wait(DEADLINE), 143, process.log())
        self.assertTrue((run_dir / "model/model.npz").exists(), first.log())

    def test_a_worker_that_is_told_to_go_hands_its_ranks_over(self):
        address, run_dir, first, second, workers = self.by_hand()
        workers[0].send_signal(signal.SIGTERM)
        self.assertEqual(workers[0].wait(DEADLINE), 143, workers[0].log())
        clock = self.clock(address)
        self.wait_for(lambda: self.clock(address) > clock + 50, first)
        self.assertEqual(self.command("descent", "stop", address).returncode, 0)
        self.assertIn(first.wait(DEADLINE), (130, 143), first.log())

    def clock(self, address):
        status = self.command("descent", "status", address, "--json")
        return int(json.loads(status.stdout).get("round", 0))

    def test_a_worker_that_slept_registers_again(self):
        address, run_dir, first, second, workers = self.by_hand()
        workers[0].send_signal(signal.SIGSTOP)
        self.addCleanup(workers[0].send_signal, signal.SIGCONT)
        # Its lease of 10 s runs out, and the other one goes on with all ranks.
        self.wait_for(lambda: "lease moved" in first.log(), first)
        clock = self.clock(address)
        self.wait_for(lambda: self.clock(address) > clock + 50, first)
        workers[0].send_signal(signal.SIGCONT)
        self.wait_for(lambda: "registering again" in workers[0].log(), workers[0])
        self.wait_for(lambda: first.log().count("registered: worker") == 3, first)
        self.assertEqual(self.command("descent", "stop", address).returncode, 0)
        self.assertIn(first.wait(DEADLINE), (130, 143), first.log())
        self.assertIn(workers[0].wait(DEADLINE), (130, 143), workers[0].log())

    def test_a_server_without_a_coordinator_can_be_stopped(self):
        process = self.start("descent_server", "--coordinator", "127.0.0.1:1")
        self.wait_for(lambda: "waiting" in process.log(), process)
        process.send_signal(signal.SIGTERM)
        self.assertNotEqual(process.wait(DEADLINE), 0)

    def test_killed_supervisor_leaves_nobody(self):
        job = self.job(LOGISTIC.format(epochs=1000000))
        run_dir = self.folder / "killed"
        process = self.start("descent", "run", job, "--servers", "2", "--workers", "2", "--run-dir", str(run_dir))
        self.wait_for(lambda: (run_dir / "metrics.jsonl").exists() and (run_dir / "metrics.jsonl").read_text(), process)
        process.kill()
        process.wait(DEADLINE)
        deadline = time.monotonic() + DEADLINE
        while self.members(run_dir):
            self.assertLess(time.monotonic(), deadline)

    def start_run(self, name, job, *args):
        """A run that has written its first metrics."""
        run_dir = self.folder / name
        process = self.start("descent", "run", job, "--servers", "2", "--workers", "2", "--run-dir", str(run_dir),
                             *self.slow_worker(1), *args)
        self.wait_for(lambda: (run_dir / "metrics.jsonl").exists() and (run_dir / "metrics.jsonl").read_text(), process)
        return process, run_dir

    def server(self, run_dir, flag):
        return [pid for pid in self.members(run_dir, "server")
                if flag in pathlib.Path(f"/proc/{pid}/cmdline").read_text()][0]

    def test_a_dead_server_that_may_not_be_restarted_is_the_first_cause(self):
        process, run_dir = self.start_run("dead", self.job(LOGISTIC.format(epochs=1000000)), "--max-restarts", "0")
        os.kill(self.server(run_dir, "--coordinator"), signal.SIGKILL)
        self.assertEqual(process.wait(DEADLINE), 1, process.log())
        last = "\n".join(process.log().splitlines()[-6:])
        self.assertRegex(last, "(?i)server 1.*(signal 9|SIGKILL|killed)")
        self.assert_nobody_left(run_dir)

    def test_dead_servers_are_replaced_and_the_model_is_the_same(self):
        job = self.job(LOGISTIC.format(epochs=200) + "checkpoint { every_rounds: 20 }\n")
        undisturbed = self.succeed(job, servers=2, workers=2)
        for name, flag in (("server", "--coordinator"), ("coordinator", "--job")):
            process, run_dir = self.start_run(name, job)
            os.kill(self.server(run_dir, flag), signal.SIGKILL)
            self.assertEqual(process.wait(DEADLINE), 0, process.log())
            summary = json.loads((run_dir / "summary.json").read_text())
            self.assertEqual(summary["parameters_sha256"], undisturbed.summary["parameters_sha256"])
            self.assertIn("rolled_back_to", (run_dir / "metrics.jsonl").read_text())
            self.assert_nobody_left(run_dir)

    def test_a_stopped_run_goes_on_with_other_processes(self):
        job = self.job(LOGISTIC.format(epochs=200) + "checkpoint { every_rounds: 20 }\n")
        undisturbed = self.succeed(job, servers=2, workers=2)
        process, run_dir = self.start_run("stopped", job)
        process.send_signal(signal.SIGINT)
        self.assertEqual(process.wait(DEADLINE), 130, process.log())
        self.assertEqual(self.command("descent", "inspect", run_dir).returncode, 0)
        resumed = self.command("descent", "run", job, "--resume", "--run-dir", run_dir, "--servers", 3, "--workers", 1)
        self.assertEqual(resumed.returncode, 0, resumed.stdout)
        summary = json.loads((run_dir / "summary.json").read_text())
        self.assertEqual(summary["parameters_sha256"], undisturbed.summary["parameters_sha256"])
        self.assertEqual(summary["state_sha256"], undisturbed.summary["state_sha256"])
        again = self.command("descent", "run", job, "--resume", "--run-dir", run_dir)
        self.assertEqual(again.returncode, 2, again.stdout)
        self.assertIn("nothing to go on with", again.stdout)

    def test_a_checkpoint_folder_is_one_runs_at_a_time(self):
        text = LOGISTIC.format(epochs=1000000) + f'checkpoint {{ every_rounds: 20 path: "{self.folder}/cuts" }}\n'
        first, run_dir = self.start_run("first", self.job(text))
        run = (run_dir / "run").read_text().strip()
        second = self.command("descent", "run", self.folder / "job.textproto", "--run-dir", self.folder / "second")
        self.assertEqual(second.returncode, 1, second.stdout)
        self.assertIn(f"the checkpoint folder is in use by run {run}, process ", second.stdout)
        first.send_signal(signal.SIGINT)
        self.assertEqual(first.wait(DEADLINE), 130, first.log())
        second = self.command("descent", "run", self.folder / "job.textproto", "--run-dir", self.folder / "third")
        self.assertEqual(second.returncode, 1, second.stdout)
        self.assertIn("of another run; name another folder", second.stdout)

    def test_a_failed_run_that_is_started_again_ends_as_it_did(self):
        # As a restart policy would: the worker can't read its data.
        def start(*more):
            port_file = self.folder / f"port{len(more)}"
            first = self.start("descent_server", "--run-dir", self.folder / "run", "--resume", "--bind", "127.0.0.1:0",
                               "--port-file", port_file, "--servers", "1", "--workers", "1", *more)
            self.wait_for(port_file.exists, first)
            worker = self.start("descent_worker", "--coordinator", port_file.read_text().strip())
            self.assertEqual(worker.wait(DEADLINE), 1, worker.log())
            self.assertEqual(first.wait(DEADLINE), 1, first.log())
            return first.log()
        job = self.job(LOGISTIC.format(epochs=1).replace("train.csv", "absent.csv"))
        start("--job", job)
        summary = json.loads((self.folder / "run" / "summary.json").read_text())
        self.assertEqual(summary["result"], "FAILED")
        self.assertIn("absent.csv", summary["first_cause"])
        log = start("--job", job, "--no-reflection")
        self.assertIn("the run has ended before: FAILED, " + summary["first_cause"], log)
        # A damaged summary is no end.
        (self.folder / "run" / "summary.json").write_text("{}")
        damaged = self.command("descent_server", "--run-dir", self.folder / "run", "--resume", "--job", job)
        self.assertNotEqual(damaged.returncode, 0)
        self.assertIn("expected a run's summary, whose result is FINISHED, STOPPED or FAILED", damaged.stdout)

    def test_a_second_coordinator_of_a_run_is_refused_by_name(self):
        first, run_dir = self.start_run("first", self.job(LOGISTIC.format(epochs=1000000)))
        run = (run_dir / "run").read_text().strip()
        pid = self.server(run_dir, "--job")
        second = self.command("descent_server", "--job", run_dir / "job.textproto", "--run-dir", run_dir, "--resume",
                              "--bind", "127.0.0.1:0")
        self.assertEqual(second.returncode, 2, second.stdout)
        self.assertIn(f"this run has a coordinator: run {run}, process {pid} on host {socket.gethostname()}, which lives",
                      second.stdout)
        self.assertFalse((run_dir / "checkpoints" / "generation-2").exists())
        self.assertNotIn("rolled_back_to", (run_dir / "metrics.jsonl").read_text())
        first.send_signal(signal.SIGINT)
        self.assertEqual(first.wait(DEADLINE), 130, first.log())

    def test_a_dead_worker_is_replaced(self):
        undisturbed = self.succeed(self.job(LOGISTIC.format(epochs=100)), servers=2, workers=2)
        job = self.job(LOGISTIC.format(epochs=100))
        process, run_dir = self.start_run("worker", job)
        os.kill(self.members(run_dir, "worker")[0], signal.SIGKILL)
        self.assertEqual(process.wait(DEADLINE), 0, process.log())
        summary = json.loads((run_dir / "summary.json").read_text())
        self.assertEqual(summary["parameters_sha256"], undisturbed.summary["parameters_sha256"])

    def test_first_round_comes_quickly(self):
        # A bound loose enough for a busy machine; the figure itself is in docs/performance.md.
        began = time.monotonic()
        self.succeed(SOURCE / "examples/quadratic/quadratic.textproto")
        self.assertLess(time.monotonic() - began, 30)


if __name__ == "__main__":
    main()
