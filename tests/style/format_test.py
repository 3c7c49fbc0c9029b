"""Every *.h and *.cc is as clang-format 14 leaves it with the root's .clang-format.

Tried first on a planted file. Another version formats otherwise and decides nothing: skipped (77).
"""
import concurrent.futures
import os
import re
import shutil
import subprocess
import sys
import tempfile

import sources

VERSION = "14"


def differences(tool, paths, folder):
    """clang-format's complaints about the files, empty where it has none."""
    run = subprocess.run([tool, "--dry-run", "-Werror", "--style=file", *paths], cwd=folder, capture_output=True,
                         text=True)
    if run.returncode == 0:
        return ""
    return run.stderr or f"{tool}: exit status {run.returncode}\n"


def self_test(tool):
    with tempfile.TemporaryDirectory() as folder:
        shutil.copy(os.path.join(sources.ROOT, ".clang-format"), folder)
        for name, text, clean in [
            ("good.cc", "int Twice(int x) { return 2 * x; }\n", True),
            ("indented.cc", "int Twice(int x) {\n    return 2 * x;\n}\n", False),
            ("long.h", "// " + "word " * 24 + "\n", False),
        ]:
            with open(os.path.join(folder, name), "w", encoding="utf-8") as file:
                file.write(text)
            found = differences(tool, [name], folder)
            sources.expect((found == "") == clean, f"{name} is judged wrongly: {found or 'no difference'}")


tool = shutil.which(f"clang-format-{VERSION}") or shutil.which("clang-format")
sources.expect(tool is not None, "there is no clang-format; scripts/setup installs it")
said = subprocess.run([tool, "--version"], capture_output=True, text=True, check=True).stdout
version = re.search(r"version (\d+)", said)
if version is None or version.group(1) != VERSION:
    print(f"SKIPPED: clang-format {VERSION} is needed, {tool} says: {said.strip()}")
    sys.exit(77)
self_test(tool)
paths = sources.tracked(".h", ".cc")
batches = [paths[i:i + 40] for i in range(0, len(paths), 40)]
with concurrent.futures.ThreadPoolExecutor(os.cpu_count()) as pool:
    found = "".join(pool.map(lambda batch: differences(tool, batch, sources.ROOT), batches))
print(found or f"{len(paths)} files are formatted")
sys.exit(1 if found else 0)
