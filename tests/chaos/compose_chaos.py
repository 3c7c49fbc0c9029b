"""Blows to containers. The quickstart's job under docker-compose must end by itself, with the undisturbed run's parameters.

  sudo python3 tests/chaos/compose_chaos.py [--runs N] [--seed S] [--servers N] [--workers N] [--epochs N] [--built]

Each run draws a schedule from its seed: a container's process is killed (kill -9, as a crash would; the restart policy starts it
again), paused, taken off the network and put back, or hears nothing from one other container for a while (one-way iptables rule in
its network namespace); at a random time, one container or two at once. Needs root, docker-compose, iptables and nsenter. The image is built first.
"""
import argparse
import collections
import json
import os
import pathlib
import random
import re
import shutil
import subprocess
import sys
import tempfile
import time

SOURCE = pathlib.Path(__file__).resolve().parent.parent.parent


def call(*args, check=True, **kwargs):
    done = subprocess.run([str(a) for a in args], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, **kwargs)
    if check and done.returncode != 0:
        sys.exit(f"{' '.join(map(str, args))}: {done.stdout[-2000:]}")
    return done.stdout


class Cluster:
    """One `docker-compose up`."""

    def __init__(self, folder, project, name, servers, workers):
        self.folder, self.run_dir = folder, folder / "runs" / name
        self.compose = ["docker-compose", "-p", project]
        self.env = dict(os.environ, DESCENT_RUN=name, DESCENT_JOB="../../../../../runs/chaos.textproto", DESCENT_SERVERS=str(servers), DESCENT_WORKERS=str(workers))
        self.network = f"{project}_default"
        self.began = time.monotonic()
        self.healers = []  # (when, what to do)
        call(*self.compose, "up", "-d", "--no-color", cwd=folder, env=self.env)

    def containers(self):
        """(id, role, alias) of those that run."""
        found = []
        for role in ("coordinator", "server", "worker"):
            for name in call(*self.compose, "ps", "-q", role, cwd=self.folder, env=self.env).split():
                if call("docker", "inspect", "-f", "{{.State.Running}}", name, check=False).strip() == "true":
                    found.append((name, role))
        return found

    def ended(self):
        return (self.run_dir / "summary.json").exists()

    def generations(self):
        folder = self.run_dir / "checkpoints"
        return sum(n.startswith("generation-") for n in os.listdir(folder)) if folder.exists() else 0

    def heal(self, now=None):
        for entry in list(self.healers):
            if now is None or now >= entry[0]:
                self.healers.remove(entry)
                entry[1]()

    def wait(self, condition, seconds):
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            if condition():
                return True
            self.heal(time.monotonic())
            time.sleep(0.05)
        return False

    def parameters(self):
        return json.loads((self.run_dir / "summary.json").read_text())["parameters_sha256"]

    def down(self):
        self.heal()
        call(*self.compose, "down", "-t", "1", cwd=self.folder, env=self.env, check=False)


def pid_of(container):
    return int(call("docker", "inspect", "-f", "{{.State.Pid}}", container, check=False).strip() or 0)


def address_of(container):
    return call("docker", "inspect", "-f", "{{range .NetworkSettings.Networks}}{{.IPAddress}}{{end}}", container,
                check=False).strip()


def strike(cluster, stream, counts, blow, victim):
    """True if the container was hit."""
    container, role = victim
    until = time.monotonic() + stream.uniform(1, 4)
    if blow == "killed":
        pid = pid_of(container)
        if pid <= 1:
            return False
        os.kill(pid, 9)
    elif blow == "paused":
        call("docker", "pause", container, check=False)
        cluster.healers.append((until, lambda: call("docker", "unpause", container, check=False)))
    elif blow == "disconnected":
        # The names under which the others find it come back with it.
        aliases = [flag for alias in (role, container[:12]) for flag in ("--alias", alias)]
        call("docker", "network", "disconnect", cluster.network, container, check=False)
        cluster.healers.append((until, lambda: call("docker", "network", "connect", *aliases, cluster.network, container,
                                                    check=False)))
    else:
        others = [c for c in cluster.containers() if c[0] != container]
        pid, address = pid_of(container), address_of(stream.choice(others)[0]) if others else ""
        if pid <= 1 or not address:
            return False
        rule = ["INPUT", "-s", address, "-j", "DROP"]
        call("nsenter", "-t", pid, "-n", "iptables", "-A", *rule, check=False)
        cluster.healers.append((until, lambda: call("nsenter", "-t", pid, "-n", "iptables", "-D", *rule, check=False)))
    counts[f"{blow} {role}"] += 1
    return True


def disturbed(args, folder, project, seed, expected, limit):
    stream = random.Random(seed)
    counts = collections.Counter()
    cluster = Cluster(folder, project, f"chaos-{seed}", args.servers, args.workers)
    began, kills, problem = time.monotonic(), 0, ""
    try:
        cluster.wait(lambda: cluster.generations() > 0, 60)
        for _ in range(stream.choice([2, 2, 3])):
            cluster.wait(cluster.ended, stream.uniform(0.2, 4))
            there = cluster.containers()
            if cluster.ended() or not there:
                break
            # First of all a kill, so that every schedule has one that may hit.
            blow = "killed" if kills == 0 else stream.choice(["killed", "paused", "disconnected", "cut off one way"])
            victims = [stream.choice(there)]
            if blow == "killed" and stream.random() < 0.3:
                victims = stream.sample(there, min(2, len(there)))
            hit = sum(strike(cluster, stream, counts, blow, victim) for victim in victims)
            counts["two at once"] += hit == 2
            kills += hit if blow == "killed" else 0
        if not cluster.wait(cluster.ended, limit - (time.monotonic() - began)):
            problem = f"hung: not over after {limit:.0f} s"
        elif cluster.parameters() != expected:
            problem = f"another model: {cluster.parameters()}, expected {expected}"
        counts["generations"] += max(0, cluster.generations() - 1)
        if problem:
            print(call(*cluster.compose, "logs", "--no-color", cwd=folder, env=cluster.env, check=False)[-6000:])
    finally:
        cluster.down()
    return problem, kills, counts, time.monotonic() - began


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=50)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--servers", type=int, default=2, help="beside the coordinator's")
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--epochs", type=int, default=10)
    parser.add_argument("--built", action="store_true", help="the image is there already")
    args = parser.parse_args()
    root = pathlib.Path(tempfile.mkdtemp(prefix="descent-compose-"))
    project = f"descent-chaos-{os.getpid()}"
    folder = root / "descent"
    files = subprocess.run(["git", "-c", f"safe.directory={SOURCE}", "ls-files", "--cached", "--others", "--exclude-standard"],
                           cwd=SOURCE, stdout=subprocess.PIPE, text=True, check=True).stdout.split("\n")
    for name in filter(lambda n: n and (SOURCE / n).is_file(), files):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(SOURCE / name, folder / name)
    (folder / "runs").mkdir(exist_ok=True)
    os.chmod(folder / "runs", 0o777)
    # The example's job, longer and with more checkpoints; runs/ is where containers see it.
    text = (folder / "examples" / "fashion_mnist.textproto").read_text()
    text = re.sub(r"(?m)^epochs: .*$", f"epochs: {args.epochs}", text)
    text = re.sub(r"(?m)^(checkpoint \{[^}]*\}|cluster \{[^}]*\})[^\n]*$", "", text)
    (folder / "runs" / "chaos.textproto").write_text(
        text + "\ncheckpoint { every_rounds: 50 keep: 2 }\ncluster { lease_seconds: 2 }\n")
    (folder / "runs" / "chaos.textproto").chmod(0o644)
    if not args.built:
        call(folder / "deploy" / "base-image", cwd=folder)
        call("docker-compose", "-p", project, "build", cwd=folder)
    totals, wrong, effective, schedules, times = collections.Counter(), [], 0, 0, []
    try:
        cluster = Cluster(folder, project, "undisturbed", args.servers, args.workers)
        began = time.monotonic()
        if not cluster.wait(cluster.ended, 300):
            sys.exit("the undisturbed run did not end")
        undisturbed, expected = time.monotonic() - began, cluster.parameters()
        cluster.down()
        limit = max(10 * undisturbed, 60)
        print(f"undisturbed: {undisturbed:.1f} s, parameters_sha256 {expected}", flush=True)
        while effective < args.runs and schedules < 2 * args.runs:
            seed = args.seed + schedules
            problem, kills, counts, took = disturbed(args, folder, project, seed, expected, limit)
            schedules += 1
            totals.update(counts)
            effective += kills > 0
            times.append(took)
            if problem:
                wrong.append(seed)
                print(f"seed {seed}: {problem}; {dict(counts)}", flush=True)
    finally:
        call("docker-compose", "-p", project, "down", "-v", "-t", "1", cwd=folder, check=False)
        shutil.rmtree(root, ignore_errors=True)
    times.sort()
    print(f"{effective} schedules with a kill of {schedules}; {len(wrong)} wrong {wrong if wrong else ''}")
    print(f"time: median {times[len(times) // 2]:.1f} s, worst {times[-1]:.1f} s, limit {limit:.0f} s")
    for name, count in sorted(totals.items()):
        print(f"  {name}: {count}")
    sys.exit(1 if wrong or effective < args.runs else 0)


if __name__ == "__main__":
    main()
