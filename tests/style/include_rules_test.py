"""Who may include whom: proto <- common <- {server, worker} <- cli, and what the pure parts never include.

The rules are first tried on planted violations, then on the sources.
"""
import posixpath
import re
import sys

import sources

# Folder -> folders whose headers it may include. descent/ is what is generated from proto/.
ALLOWED = {
    "proto": {"descent"},
    "common": {"common", "descent"},
    "server": {"server", "common", "descent"},
    "worker": {"worker", "common", "descent"},
    "cli": {"cli", "server", "worker", "common", "descent"},
    "examples": {"worker", "common", "descent"},
    "tests": {"tests", "cli", "server", "worker", "common", "descent"},
}
OURS = set(ALLOWED) | {"descent"}

# State machines and mathematics: no gRPC, threads, locks, clocks, files or random numbers, not even through a header of
# ours. Their tests may.
PURE = re.compile(r"server/core/|server/coordinator/(?!coordinator_service)|worker/models/|worker/client/client_core\.")
IMPURE = re.compile(
    r"grpc|descent/.*\.grpc\.pb\.h$|"
    r"(thread|threads\.h|pthread\.h|mutex|shared_mutex|condition_variable|future|semaphore|latch|barrier|stop_token)$|"
    r"absl/synchronization/|common/base/mutex\.h$|"
    r"(chrono|ctime|time\.h|sys/time\.h|sys/timerfd\.h)$|absl/time/clock\.h$|common/base/time_source\.h$|"
    r"(fstream|filesystem|unistd\.h|fcntl\.h|random)$|absl/random/")
IMPURE_USE = re.compile(
    r"\b(absl::(Now|SleepFor|GetCurrentTimeNanos)|std::chrono|std::j?thread|std::random_device|"
    r"clock_gettime|gettimeofday)\b")

INCLUDE = re.compile(r'^[ \t]*#[ \t]*include[ \t]*[<"]([^>"]+)[>"]', re.M)
IMPORT = re.compile(r'^[ \t]*import[ \t]+(?:public[ \t]+|weak[ \t]+)?"([^"]+)"', re.M)
COMMENT = re.compile(r"//[^\n]*|/\*.*?\*/", re.S)


def is_test(path):
    name = posixpath.basename(path)
    return name.endswith("_test.cc") or "_test_" in name or "_testing." in name


def includes(path, text):
    return (IMPORT if path.endswith(".proto") else INCLUDE).findall(text)


def violations(files):
    """All of them, as lines for people. files: path -> text."""
    found = []
    for path, text in sorted(files.items()):
        allowed = ALLOWED.get(path.split("/")[0])
        for included in includes(path, text):
            top = included.split("/")[0]
            if top in (".", ".."):
                found.append(f"{path}: includes {included}: paths start at the root of the sources")
            elif allowed is not None and "/" in included and top in OURS and top not in allowed:
                found.append(f"{path}: includes {included}, which is not below it")
        if PURE.match(path) and not is_test(path):
            found += impurities(path, files)
    return found


def impurities(start, files):
    """What a pure file includes that is not, with the way there."""
    found = []
    way = {start: start}
    stack = [start]
    while stack:
        path = stack.pop()
        text = files[path]
        for included in includes(path, text):
            if IMPURE.match(included):
                found.append(f"{way[path]} -> {included}: {start} is to be pure")
            elif included in files and included not in way:
                way[included] = f"{way[path]} -> {included}"
                stack.append(included)
        use = IMPURE_USE.search(COMMENT.sub("", text)) if path == start else None
        if use:
            found.append(f"{path}: uses {use.group()}, but is to be pure")
    return found


def self_test():
    clean = {
        "common/a.h": '#include <vector>\n#include "descent/v1/job.pb.h"\n',
        "server/node/b.cc": '#include <thread>\n#include "common/a.h"\n#include "absl/time/clock.h"\n',
        "server/core/c.cc": '#include "server/core/c.h"\n#include "absl/time/time.h"\n// not std::chrono\n',
        "server/core/c.h": '#include "common/a.h"\n',
        "server/core/c_test.cc": "#include <thread>\n",
        "server/coordinator/coordinator_service.cc": '#include <grpcpp/grpcpp.h>\n#include "common/base/mutex.h"\n',
        "worker/d.h": '#include "common/a.h"\n',
        "worker/client/client_core.cc": '#include "common/a.h"\n',
        "worker/models/model.h": "#include <vector>\n",
        "cli/e.cc": '#include "worker/d.h"\n#include "server/core/c.h"\n',
        "tests/f.cc": '#include "worker/d.h"\n#include "server/core/c.h"\n',
        "proto/descent/v1/g.proto": 'import "descent/v1/job.proto";\nimport "google/protobuf/any.proto";\n',
        "common/base/mutex.h": "#include <mutex>\n",
    }
    sources.expect(violations(clean) == [], f"clean sources are found at fault: {violations(clean)}")
    plants = [
        ("common/a.h", '#include "server/core/c.h"'),
        ("common/a.h", '#include "worker/d.h"'),
        ("common/a.h", "#include <cli/x.h>"),
        ("common/a.h", '  #  include "tests/x.h"'),
        ("common/a.h", '#include "../server/core/c.h"'),
        ("server/node/b.cc", '#include "worker/d.h"'),
        ("server/node/b.cc", '#include "cli/x.h"'),
        ("worker/d.h", '#include "server/core/c.h"'),
        ("worker/d.h", '#include "cli/x.h"'),
        ("worker/d.h", '#include "tests/x.h"'),
        ("cli/e.cc", '#include "tests/x.h"'),
        ("proto/descent/v1/g.proto", 'import "common/x.proto";'),
        ("server/core/c.cc", "#include <thread>"),
        ("server/core/c.cc", "#include <grpcpp/grpcpp.h>"),
        ("server/core/c.h", '#include "descent/v1/parameter.grpc.pb.h"'),
        ("server/core/c.cc", "absl::Time t = absl::Now();"),
        ("server/coordinator/coordinator.cc", "#include <chrono>"),
        ("server/coordinator/lease_table.h", '#include "absl/time/clock.h"'),
        ("worker/models/mlp_model.cc", '#include "absl/synchronization/mutex.h"'),
        ("worker/models/internal/gemm.cc", "#include <mutex>"),
        ("worker/client/client_core.cc", '#include "common/base/time_source.h"'),
        ("worker/client/client_core.cc", '#include "common/base/mutex.h"'),
        ("common/a.h", '#include "common/base/mutex.h"'),  # server/core and client_core include it
    ]
    for path, line in plants:
        planted = dict(clean)
        planted[path] = planted.get(path, "") + line + "\n"
        sources.expect(violations(planted) != [], f"not found: {path} with {line}")


self_test()
files = {path: sources.read(path) for path in sources.tracked(".h", ".cc", ".proto")}
sources.expect(sum(bool(PURE.match(path)) for path in files) > 20, "the pure parts are not where the rules look for them")
found = violations(files)
print("\n".join(found) or f"{len(files)} files keep the rules")
sys.exit(1 if found else 0)
