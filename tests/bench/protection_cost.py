"""What protection costs: throughput with checkpoints, with replicas, and with recorded orders, as ratios to none.

  python3 tests/bench/protection_cost.py BINARY_DIR [--repeats N] [--rounds N]

examples/fashion_mnist.textproto (an MLP on Fashion-MNIST, Adam) with 2 servers and 2 workers under `descent run`, without
evaluations. Each repeat runs all settings one after another; the ratio is to the run without, of the same repeat; the table has the median.
"""
import argparse
import json
import pathlib
import shutil
import statistics
import subprocess
import sys
import tempfile

SOURCE = pathlib.Path(__file__).resolve().parent.parent.parent
SYNC = [("none", []), ("checkpoint every 10 s", ["checkpoint={ every_seconds: 10 }"]), ("replicas", ["replicas=1"]),
        ("replicas, checkpoint every 10 s", ["replicas=1", "checkpoint={ every_seconds: 10 }"])]
BOUNDED = [("none", []), ("record_order", ["record_order=true"])]


def throughput(args, root, name, sets):
    run_dir = root / "run"
    shutil.rmtree(run_dir, ignore_errors=True)
    flags = [flag for assignment in sets for flag in ("--set", assignment)]
    done = subprocess.run([str(args.binaries / "descent"), "run", str(SOURCE / "examples/fashion_mnist.textproto"), "--servers", "2",
                           "--workers", "2", "--run-dir", str(run_dir), "--set", f"rounds={args.rounds}", "--set",
                           "evaluation={ every_rounds: 1000000 }", *flags], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
                          timeout=600)
    if done.returncode != 0:
        sys.exit(f"{name}: {done.stdout[-2000:]}")
    return json.loads((run_dir / "summary.json").read_text())["examples_per_second"]


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("binaries", type=pathlib.Path)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--rounds", type=int, default=6000)
    args = parser.parse_args()
    root = pathlib.Path(tempfile.mkdtemp(prefix="descent-cost-"))
    print("| mode | with | examples/s | ratio to none, median (all) |\n|---|---|---|---|")
    try:
        for mode, settings, base in (("SYNC", SYNC, ["checkpoint={ keep: 3 }"]),
                                     ("BOUNDED, s = 4", BOUNDED, ["consistency={ mode: BOUNDED staleness: 4 }", "checkpoint={ keep: 3 }"])):
            found = {name: [] for name, _ in settings}
            for _ in range(args.repeats):
                for name, sets in settings:
                    found[name].append(throughput(args, root, name, base + sets))
            for name, rates in found.items():
                ratios = [rate / none for rate, none in zip(rates, found["none"])]
                print(f"| {mode} | {name} | {statistics.median(rates):,.0f} | {statistics.median(ratios):.2f} "
                      f"({', '.join(f'{r:.2f}' for r in ratios)}) |", flush=True)
    finally:
        shutil.rmtree(root, ignore_errors=True)


if __name__ == "__main__":
    main()
