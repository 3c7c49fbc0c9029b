# Sourced by the scripts beside it: where the project lies, and how it is built.
root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
cd "$root"
# Objects of one checkout serve another.
export CCACHE_BASEDIR=$root CCACHE_NOHASHDIR=1

# build PRESET [TARGET...]: configures where that is needed, then builds; quiet unless it fails.
build() {
  local preset=$1
  shift
  mkdir -p "build/$preset"
  if [[ ! -f build/$preset/build.ninja ]]; then
    echo "configuring $preset"
    cmake --preset "$preset" >"build/$preset/configure.log" 2>&1 || {
      cat "build/$preset/configure.log" >&2
      return 1
    }
  fi
  echo "building $preset"
  cmake --build --preset "$preset" ${1:+--target "$@"} >"build/$preset/build.log" 2>&1 || {
    tail -n 80 "build/$preset/build.log" >&2
    return 1
  }
}
