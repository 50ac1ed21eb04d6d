# shellcheck shell=bash
# Sourced by bin/demo, bin/test and .ci/run: a .venv of the checkout's own, with the checkout installed in it.

root=$(dirname -- "$(dirname -- "$(readlink -f -- "${BASH_SOURCE[0]}")")")

# fail PROBLEM: say it in one line and end
fail() {
  printf '%s: %s\n' "${0##*/}" "$1" >&2
  exit 1
}

# find_python: print the first Python that kforge-run can be installed with
find_python() {
  local candidate
  for candidate in "${PYTHON:-python3}" python3.{14,13,12,11,10} /usr/bin/python3; do
    # Debian splits ensurepip off into python3-venv.
    if "$candidate" -c 'import sys, ensurepip, venv; sys.exit(sys.version_info < (3, 10))' 2>/dev/null; then
      printf '%s\n' "$candidate"
      return
    fi
  done
  return 1
}

# installed EXTRA...: tell whether .venv has the checkout as it is now, with these extras
installed() {
  local extra
  for extra; do
    [ "$(cat "$venv/installed-$extra" 2>/dev/null)" = "$stamp" ] || return 1
  done
  "$venv/bin/python" -c '' 2>/dev/null # the Python it was made from may have been removed
}

# use_venv [EXTRA...]: put the checkout's .venv, made if need be, first on PATH
use_venv() {
  local venv=$root/.venv extras='' python stamp extra lock
  [ $# = 0 ] || extras="[$(IFS=, && echo "$*")]"
  # What a .venv is made from: these files are copied into it or describe it, and scripts know where they are.
  stamp=$(cd "$root" && { cat pyproject.toml kempnerforge/__about__.py bin/kforge-run && pwd; } | cksum)
  unset PYTHONHOME PYTHONPATH # what they name would come before what is installed here

  exec {lock}<"$root"
  flock "$lock" # two commands at once: the second waits, and finds the work done
  if ! installed checkout "$@"; then
    if ! installed checkout; then
      python=$(find_python) ||
        fail "no Python >= 3.10 with venv and ensurepip found (hint: apt install python3-venv, or PYTHON=/path/to/python ${0##*/})"
      printf 'Making .venv with %s; the next time it is there.\n' "$("$python" --version)"
      "$python" -m venv --clear "$venv" || fail "cannot make $venv"
    fi
    (cd "$root" && "$venv/bin/python" -m pip install --quiet --disable-pip-version-check -e ".$extras") ||
      fail "cannot install what is needed into .venv (hint: pip needs a package index: see pip's message above)"
    for extra in checkout "$@"; do printf '%s\n' "$stamp" >"$venv/installed-$extra"; done
  fi
  exec {lock}<&-

  export VIRTUAL_ENV=$venv PATH="$venv/bin:$PATH"
}
