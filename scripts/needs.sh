# shellcheck shell=bash
# Sourced by the scripts: what this machine must have. Nothing is installed that is already there.

# Debian keeps some of these where an ordinary user does not look, rustup where a script does not.
PATH=$PATH:$HOME/.cargo/bin:/usr/sbin:/sbin

# need COMMAND=PACKAGE...: installs the packages of the missing commands, or says how and stops.
need() {
  local pair missing=()
  for pair in "$@"; do
    command -v "${pair%%=*}" >/dev/null || missing+=("${pair#*=}")
  done
  [ ${#missing[@]} -gt 0 ] || return 0
  if [ "$(id -u)" -ne 0 ] || ! command -v apt-get >/dev/null; then
    printf 'Missing here: %s. As root, on Debian or Ubuntu:\n  apt-get install %s\n' "${missing[*]}" "${missing[*]}" >&2
    exit 1
  fi
  printf 'Installing %s\n' "${missing[*]}"
  apt-get update -qq
  DEBIAN_FRONTEND=noninteractive apt-get install -qq -y --no-install-recommends "${missing[@]}" >/dev/null
}

# Stops unless cargo is at least the rust-version of Cargo.toml.
need_rust() {
  local wanted have
  wanted=$(sed -n 's/^rust-version = "\(.*\)"$/\1/p' Cargo.toml)
  have=$(cargo --version 2>/dev/null | cut -d ' ' -f 2 || true)
  [ "$(printf '%s\n' "$wanted" "${have:-0}" | sort -V | head -n 1)" != "$wanted" ] || return 0
  if [ -n "$have" ]; then
    printf 'cargo %s is older than %s, which this needs. ' "$have" "$wanted" >&2
  else
    printf 'cargo is missing; this needs %s or newer. ' "$wanted" >&2
  fi
  cat >&2 <<'TEXT'
Install Rust with rustup, then run this again:
  curl --proto '=https' --tlsv1.2 -sSf https://sh.rustup.rs | sh -s -- -y && . "$HOME/.cargo/env"
TEXT
  exit 1
}

# The seconds since a value of SECONDS, as people say them.
since() {
  local seconds=$((SECONDS - $1))
  if [ "$seconds" -lt 60 ]; then printf '%d s' "$seconds"; else printf '%d min %d s' $((seconds / 60)) $((seconds % 60)); fi
}
