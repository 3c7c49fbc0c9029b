"""Runs experiments, draws a plot of each and writes docs/experiments/README.md. scripts/experiments calls it.

  python3 tests/experiments BINARIES [NAME...]     measure, draw, write
  --redraw      draw and write what was measured before, with no run
  --data-only   measure and judge alone, into --out; needs no matplotlib
  --small       sizes for a test of the machinery, with which nothing is claimed
"""
import argparse
import importlib
import json
import pathlib
import sys
import tempfile
import time

import lab as laboratory
import page

DOCS = pathlib.Path(__file__).resolve().parents[2] / "docs" / "experiments"


def measure(name, module, arguments, folder):
    """The experiment's data, written as JSON. None: what it needs is absent, and what was measured before stays."""
    inner = folder / name
    inner.mkdir()
    began = time.monotonic()
    try:
        data = module.measure(laboratory.Lab(arguments.binaries, inner, arguments.small))
    except laboratory.Absent as absent:
        print(f"{name}: SKIPPED, there is no {absent}", flush=True)
        return None
    data = laboratory.rounded(data)
    seconds = time.monotonic() - began
    print(f"{name}: {seconds:.0f} s", flush=True)
    place = arguments.out / "data"
    place.mkdir(parents=True, exist_ok=True)
    (place / f"{name}.json").write_text(json.dumps(data, separators=(",", ":")) + "\n")
    if not arguments.small:
        page.note_seconds(arguments.out, name, seconds)
    return data


def main():
    parser = argparse.ArgumentParser(prog="experiments")
    parser.add_argument("binaries", type=pathlib.Path)
    parser.add_argument("names", nargs="*")
    parser.add_argument("--out", type=pathlib.Path, default=DOCS)
    parser.add_argument("--pictures", type=pathlib.Path, help="a folder for the plots as PNG, too")
    for flag in ("--redraw", "--data-only", "--small"):
        parser.add_argument(flag, action="store_true")
    arguments = parser.parse_intermixed_args()
    unknown = [name for name in arguments.names if name not in page.NAMES]
    if unknown:
        parser.error(f"no such experiment: {', '.join(unknown)}; there are {', '.join(page.NAMES)}")
    modules = {name: importlib.import_module(name) for name in page.NAMES}
    wrong = 0
    with tempfile.TemporaryDirectory() as folder:
        for name in arguments.names or page.NAMES:
            if arguments.redraw:
                stored = arguments.out / "data" / f"{name}.json"
                data = json.loads(stored.read_text()) if stored.exists() else None
            else:
                data = measure(name, modules[name], arguments, pathlib.Path(folder))
            if data is None:
                continue
            if not arguments.small:
                for sentence, holds in modules[name].seen(data):
                    wrong += not holds
                    print(f"  {'' if holds else 'NOT SEEN: '}{sentence}", flush=True)
            if not arguments.data_only:
                page.draw(name, modules[name], data, arguments.out, arguments.pictures)
    if not arguments.data_only and not arguments.small:
        page.write(arguments.out, [(name, modules[name]) for name in page.NAMES])
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
