"""Every command that the documents show can be run as written: the program or script is there, and takes those flags."""
import os
import pathlib
import re
import shlex
import subprocess
import sys
import unittest

SOURCE = pathlib.Path(os.environ["DESCENT_SOURCE_DIR"])
BIN = pathlib.Path(os.environ["DESCENT_BINARY_DIR"])
DOCUMENTS = ["README.md", "CONTRIBUTING.md", *sorted(str(p.relative_to(SOURCE)) for p in SOURCE.glob("docs/*.md"))]
PROGRAMS = {"descent", "descent_server", "descent_worker"}


def commands(text):
    """Lines of sh blocks, and `commands` in tables whose first word is a script or one of the programs."""
    for block in re.findall(r"```sh\n(.*?)```", text, re.S):
        for line in block.splitlines():
            line = line.split("#")[0].strip()
            if line:
                yield line
    for code in re.findall(r"`([^`\n]+)`", text):
        first = code.split()[0]
        if (first in PROGRAMS and " " in code) or first.startswith("scripts/"):
            yield code


def complaints(document, text, helps):
    found = []
    for command in commands(text):
        words = shlex.split(command.replace("<", "").replace(">", ""))
        program = pathlib.Path(words[0]).name
        if program in PROGRAMS:
            sub = words[1] if program == "descent" and len(words) > 1 and not words[1].startswith("-") else ""
            known = helps(program, sub)
            for word in words[1:]:
                flag = word.split("=")[0]
                if flag.startswith("--") and flag not in known:
                    found.append(f"{document}: `{command}`: {program} {sub} has no {flag}")
            for word in words[1:]:
                if word.startswith("examples/") and not (SOURCE / word).exists():
                    found.append(f"{document}: `{command}`: no {word}")
        elif "/" in words[0]:
            if not os.access(SOURCE / words[0], os.X_OK):
                found.append(f"{document}: `{command}`: no script {words[0]}")
    return found


def helps_of(cache={}):
    def helps(program, sub):
        if (program, sub) not in cache:
            call = [str(BIN / program), *([sub] if sub else []), "--help"]
            run = subprocess.run(call, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=30)
            cache[program, sub] = set(re.findall(r"--[a-z][a-z-]*", run.stdout)) if run.returncode == 0 else set()
        return cache[program, sub]
    return helps


class DocsCommands(unittest.TestCase):
    def test_documents(self):
        seen = 0
        for document in DOCUMENTS:
            text = (SOURCE / document).read_text()
            seen += len(list(commands(text)))
            self.assertEqual(complaints(document, text, helps_of()), [])
        self.assertGreater(seen, 10)

    def test_finds_what_is_wrong(self):
        text = "```sh\ndescent run examples/none.textproto --no-such-flag\nscripts/none\n```\n"
        self.assertEqual(len(complaints("x.md", text, helps_of())), 3)


if __name__ == "__main__":
    unittest.main(verbosity=2)
