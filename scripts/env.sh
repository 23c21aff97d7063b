# Sourced by the other scripts: makes .venv with fastdl and all that develops it, once per state of pyproject.toml; with
# loaders=1 also what the adapters of data loaders are tested against.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

as_root() { if [ "$(id -u)" = 0 ]; then "$@"; else sudo -n "$@"; fi; }

# Debian's packages that the tests need; everything else comes from PyPI.
need() { # need COMMAND PACKAGE
  command -v "$1" >/dev/null || [ -x "/usr/sbin/$1" ] && return
  echo "installing $2 for $1" >&2
  if ! { as_root apt-get update -qq && DEBIAN_FRONTEND=noninteractive as_root apt-get install -y -qq "$2"; } >&2; then
    echo "$1 is missing and could not be installed: apt-get install $2" >&2
    exit 1
  fi
}

python=${PYTHON:-python3}
if ! "$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))'; then
  echo "fastdl needs Python 3.11 or newer; name it with PYTHON=..." >&2
  exit 1
fi
state="$("$python" -VV) $(cksum <pyproject.toml)"
kept="$(cat .venv/state 2>/dev/null || true)"
if [ "$kept" != "$state" ] && [ "$kept" != "$state loaders" ]; then
  echo "setting up .venv" >&2
  rm -rf .venv
  "$python" -m venv .venv 2>/dev/null || { need no-such-command python3-venv; "$python" -m venv .venv; }
  .venv/bin/pip install --quiet --disable-pip-version-check -e '.[dev]'
  echo "$state" >.venv/state
fi
if [ -n "${loaders:-}" ] && [ "$(cat .venv/state)" != "$state loaders" ]; then
  echo "adding data loaders to .venv" >&2
  .venv/bin/pip install --quiet --disable-pip-version-check -e '.[dev,loaders]'
  # Its requirements are sixty packages, of other clouds too, and hold numpy and huggingface_hub back; what it imports of
  # them is among ours, and for transformers and torchvision its test has something to stand in.
  .venv/bin/pip install --quiet --disable-pip-version-check --no-deps mosaicml-streaming==0.13.0
  echo "$state loaders" >.venv/state
fi
export PATH="$PWD/.venv/bin:$PATH"
