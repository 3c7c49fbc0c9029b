"""What distribution costs: the quickstart's job on 2 servers and 2 workers against the same code in one process with two
threads; a server's memory against its part of the model; the time to a tiny job's first round. Prints a table."""
import json
import pathlib
import subprocess
import sys
import tempfile
import time

source = pathlib.Path(__file__).resolve().parents[2]
bin_dir = pathlib.Path(sys.argv[1])
job = source / "examples/fashion_mnist.textproto"


def output(*command):
    return subprocess.run([str(c) for c in command], check=True, stdout=subprocess.PIPE, text=True, timeout=600).stdout


def distributed(batch, rounds, folder, ranks):
    run = folder / f"run-{batch}-{time.monotonic_ns()}"
    output(bin_dir / "descent", "run", job, "--servers", 2, "--workers", 2, "--run-dir", run, "--set",
           f"batch_size={batch}", "--set", f"rounds={rounds}", "--set", "evaluation.every_rounds=1000000", "--set",
           f"metrics.every_rounds={rounds // 10}", "--set", f"ranks={ranks}")
    records = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    records = [r for r in records if r["kind"] == "training"]
    # From the end of the first tenth to the end, as the other side is measured.
    return sum(r["examples"] for r in records[1:]) / (records[-1]["time"] - records[0]["time"])


def local(batch, rounds, ranks):
    return float(output(bin_dir / "local_training", job, "--threads", 2, "--clocks", rounds, "--set",
                        f"batch_size={batch}", "--set", f"ranks={ranks}"))


def server_peaks(part, folder):
    """Peak resident bytes of each of two servers that hold `part` bytes of a model each."""
    job = folder / f"big-{part}.textproto"
    job.write_text(f'name: "big" ranks: 2 rounds: 40 model {{ quadratic {{ dim: {part // 2} }} }} '
                   "learning_rate { constant: 0.01 }")
    process = subprocess.Popen([bin_dir / "descent", "run", job, "--servers", "2", "--workers", "2", "--run-dir",
                                folder / f"big-{part}"], stdout=subprocess.DEVNULL)
    peaks = {}
    while process.poll() is None:
        # The children of `descent run` alone: other clusters of this machine do not count.
        children = pathlib.Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
        for pid in children:
            try:
                name = pathlib.Path(f"/proc/{pid}/comm").read_text().strip()
                status = pathlib.Path(f"/proc/{pid}/status").read_text()
            except OSError:
                continue
            for row in status.splitlines():
                if name == "descent_server" and row.startswith("VmHWM"):
                    peaks[pid] = int(row.split()[1]) * 1024
        try:
            process.wait(0.05)
        except subprocess.TimeoutExpired:
            pass
    assert process.returncode == 0, process.returncode
    return list(peaks.values())


with tempfile.TemporaryDirectory() as folder:
    folder = pathlib.Path(folder)
    print("| batch | ranks | one process, examples/s | 2 servers + 2 workers, examples/s | ratio |\n|---|---|---|---|---|")
    for batch, rounds in ((64, 1000), (512, 200)):
        for ranks in (2, 8):
            pairs = [(local(batch, rounds, ranks), distributed(batch, rounds, folder, ranks)) for _ in range(3)]
            one, many = (sorted(values)[1] for values in zip(*pairs))
            print(f"| {batch} | {ranks} | {one:,.0f} | {many:,.0f} | {many / one:.2f} |", flush=True)

    # Two sizes tell what grows with the model from what does not.
    print("\n| server memory, SGD, its part of the model | peak of each server, and times the part |\n|---|---|")
    parts, peaks = (50_000_000, 200_000_000), []
    for part in parts:
        of_each = server_peaks(part, folder)
        peaks.append(max(of_each))
        print(f"| {part >> 20} MiB |", ", ".join(f"{p >> 20} MiB ({p / part:.2f})" for p in of_each), "|", flush=True)
    slope = (peaks[1] - peaks[0]) / (parts[1] - parts[0])
    print(f"\na server's peak: {slope:.2f} times its part and {(peaks[0] - slope * parts[0]) / 2**20:.0f} MiB\n")

    times = []
    tiny = folder / "tiny.textproto"
    tiny.write_text('name: "tiny" ranks: 2 rounds: 1 model { quadratic {} } learning_rate { constant: 0.1 }')
    for i in range(5):
        began = time.time()
        output(bin_dir / "descent", "run", tiny, "--servers", 2, "--workers", 2, "--run-dir", folder / f"tiny{i}")
        metrics = (folder / f"tiny{i}/metrics.jsonl").read_text().splitlines()
        times.append(json.loads(metrics[0])["time"] - began)
    print(f"descent run of a tiny job to its first finished round: median {sorted(times)[2]:.2f} s, worst {max(times):.2f} s")
