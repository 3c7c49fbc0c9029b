"""The sources, as git tracks them; where there is no git (an unpacked archive), all that lie here but build/."""
import os
import subprocess
import sys

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))


def tracked(*suffixes):
    listed = subprocess.run(["git", "-c", f"safe.directory={ROOT}", "ls-files", "-z"], cwd=ROOT, capture_output=True)
    if listed.returncode == 0:
        paths = listed.stdout.decode().split("\0")
    else:
        paths = []
        for folder, folders, names in os.walk(ROOT):
            folders[:] = [name for name in folders if name not in ("build", "runs") and not name.startswith(".")]
            paths += [os.path.relpath(os.path.join(folder, name), ROOT) for name in names]
    paths = [path for path in paths if path.endswith(suffixes) and os.path.exists(os.path.join(ROOT, path))]
    expect(len(paths) > 100, f"{ROOT}: {len(paths)} sources found, more than 100 expected")
    return sorted(paths)


def read(path):
    with open(os.path.join(ROOT, path), encoding="utf-8") as file:
        return file.read()


def expect(condition, message):
    if not condition:
        sys.exit(f"{os.path.basename(sys.argv[0])}: {message}")
