#!/usr/bin/env bash
# Fills .venv: libraries to render with, a Python environment, the packages. `make` calls it when .venv/ready is stale.
set -euo pipefail
cd "$(dirname "$0")/.."

RENDERING="libegl1 libegl-mesa0 libgl1-mesa-dri"

fail() {
    printf 'setup: %s\n' "$1" >&2
    printf '       %s\n' "${@:2}" >&2
    exit 1
}

# The upper bound is MuJoCo 3.3's, for which Meta-World 3.1.1 asks.
suits() {
    "$1" -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 13))' 2>/dev/null
}

find_python() {
    local name
    for name in ${PYTHON:-python3.11 python3.12 python3.13 python3}; do
        suits "$name" && echo "$name" && return
    done
    fail "no Python 3.11, 3.12 or 3.13 among: ${PYTHON:-python3.11 python3.12 python3.13 python3}" \
        "Install one (sudo apt-get install python3 python3-venv), or name it: make PYTHON=/path/to/python3.12 ..."
}

# install WHY PACKAGE...: at once as root; otherwise says what to type
install() {
    local why=$1
    shift
    if [ "$(id -u)" != 0 ] || ! command -v apt-get >/dev/null; then
        fail "$why. Install it and run make again:" "sudo apt-get install -y $*"
    fi
    echo "setup: $why; installing $*"
    apt-get update -qq || true
    DEBIAN_FRONTEND=noninteractive apt-get install -yq --no-install-recommends "$@"
}

# EGL hands over to a vendor's library; without one it loads, but cannot draw.
renders() {
    "$1" - 2>/dev/null <<'PYTHON'
import ctypes, sys
def loads(name):
    try:
        return bool(ctypes.CDLL(name))
    except OSError:
        return False
egl = loads("libEGL.so.1") and (loads("libEGL_mesa.so.0") or loads("libEGL_nvidia.so.0"))
sys.exit(not (egl or loads("libOSMesa.so.8")))
PYTHON
}

python=$(find_python)
renders "$python" || install "no library to render with was found (EGL)" $RENDERING
renders "$python" || install "EGL does not load" libosmesa6
"$python" -c 'import venv, ensurepip' 2>/dev/null || install "$python has no venv module" python3-venv

# A set-up that was interrupted leaves .venv/unfinished: what it installed cannot be trusted.
if [ -e .venv/unfinished ] || ! .venv/bin/python -m pip --version >/dev/null 2>&1; then
    "$python" -m venv --clear .venv
fi
touch .venv/unfinished
echo "setup: installing packages into .venv; this takes minutes, and later runs skip it"
.venv/bin/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[all,dev]'
rm .venv/unfinished
touch .venv/ready
