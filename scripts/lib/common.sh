# shellcheck shell=bash
# What scripts/demo, scripts/test and scripts/bench share; sourced by them.

# Building: rusqlite and zstd compile C; recipes need dpkg-dev, patch and make, which come with it. clang and lld compile the
# program for nodes, for each CPU of nodes.
PACKAGES_BUILD="build-essential clang lld patch ca-certificates curl"
# Serving: the programs that walt-server and the recipes call.
PACKAGES_RUN="runc qemu-system-x86 ipxe openssh-client nftables iproute2 busybox-static mmdebstrap
    dpkg-dev kmod xz-utils zstd e2fsprogs dosfstools"
# Seconds a server gets to answer on its socket after it was started.
SERVER_START_LIMIT=60
# Account that qemu runs as.
SERVICE_ACCOUNT=walt-qemu

top=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)
# rustup's programs come first; programs such as runc and nft lie where an unprivileged PATH does not look.
PATH=${CARGO_HOME:-$HOME/.cargo}/bin:$PATH:/usr/local/sbin:/usr/sbin:/sbin
export PATH

say() { printf '%s\n' "$*" >&2; }
die() { say "${0##*/}: $*"; exit 1; }
now() { date +%s.%N; }
since() { awk -v a="$1" -v b="$(now)" 'BEGIN { printf "%.1f", b - a }'; }

TIMINGS=()
FAILED=()
# Directory for what each step prints, if the script sets it: then 'failures' repeats what failed.
STEP_LOGS=
# Lines repeated of each step that failed.
FAILURE_LINES=60
# Number of steps and seconds that each is expected to take, by its label, if the script sets them.
STEPS=
declare -A EXPECTED=()
# step LABEL COMMAND...: runs it, remembers how long it took and whether it failed. The shell does not
# stop at a failure inside the command: functions that are run as steps chain what must succeed.
step() {
    local label=$1 start status=0 log
    shift
    say "==${STEPS:+ $((${#TIMINGS[@]} + 1))/$STEPS} $label${EXPECTED[$label]:+ (about $(duration "${EXPECTED[$label]}"))}"
    start=$(now)
    log=$STEP_LOGS/${label//[^a-z]/-}
    if [ -n "$STEP_LOGS" ]; then
        # Not a pipe: a step may change this shell's PATH, and a daemon that it leaves behind must not
        # be waited for.
        "$@" > >(tee "$log") 2> >(tee -a "$log.errors" >&2) || status=$?
    else
        "$@" || status=$?
    fi
    TIMINGS+=("$(printf '%8s s  %s' "$(since "$start")" "$label")")
    if [ $status -ne 0 ]; then
        FAILED+=("$label")
        say "== $label: failed (status $status)"
    fi
    return $status
}
# duration SECONDS: in words; minutes from two on.
duration() {
    if [ "$1" -lt 120 ]; then printf '%s s\n' "$1"; else printf '%s minutes\n' $((($1 + 30) / 60)); fi
}
timings() { printf '%s\n' "${TIMINGS[@]}" >&2; }
# Which steps failed, and what their tests, compilers and lints said, so that the end of a log is enough.
failures() {
    local label log
    say "failed:"
    for label in "${FAILED[@]}"; do
        log=$STEP_LOGS/${label//[^a-z]/-}
        say "  $label"
        # tee is not waited for: it may still be writing.
        sleep 0.5
        cat "$log" "$log.errors" 2>/dev/null |
            grep -aE -A 8 'panicked at|FAILED|^error|^warning: unused|^Diff in|SC[0-9]{4}|^thread .* has overflowed' |
            tail -n $FAILURE_LINES | sed 's/^/    /' >&2
    done
}

need_root() {
    [ "$(id -u)" -eq 0 ] || die "run this as root: it installs packages, makes a bridge and starts containers"
}

# missing_packages PACKAGE...: a line for each that is not installed.
missing_packages() {
    local p
    for p; do
        [ "$(dpkg-query -W -f '${db:Status-Status}' "$p" 2>/dev/null)" = installed ] || printf '%s\n' "$p"
    done
}

# install_packages PACKAGE...: those that are missing, from the distribution.
install_packages() {
    local missing
    command -v apt-get >/dev/null || die "this script installs its needs with apt-get; install them yourself: $*"
    mapfile -t missing < <(missing_packages "$@")
    [ ${#missing[@]} -eq 0 ] && return
    say "installing: ${missing[*]}"
    export DEBIAN_FRONTEND=noninteractive
    apt-get -q update >&2 || return
    # A machine may hold a newer version of a library or tool than the one that these packages want.
    apt-get -q -y install --no-install-recommends --allow-downgrades "${missing[@]}" >&2
}

# A distribution's cargo may be too old to read Cargo.toml: ask for the version of rust-toolchain.toml.
have_rust() {
    local wanted found
    wanted=$(sed -n 's/^channel = "\(.*\)"/\1/p' "$top/rust-toolchain.toml")
    found=$(cd "$top" && cargo --version 2>/dev/null | awk '{ print $2 }') || return 1
    [ -n "$found" ] && [ "$(printf '%s\n%s\n' "$wanted" "$found" | sort -V | head -n 1)" = "$wanted" ]
}

install_rust() {
    if ! have_rust; then
        if ! command -v rustup >/dev/null; then
            if apt-cache show rustup >/dev/null 2>&1; then
                install_packages rustup
            else
                say "installing rustup"
                curl --proto '=https' --tlsv1.2 -fsS https://sh.rustup.rs |
                    sh -s -- -y --no-modify-path --profile minimal --default-toolchain none >&2
            fi
        fi
        # Without a name, it is the toolchain of rust-toolchain.toml, with its components.
        (cd "$top" && { rustup toolchain install || rustup show; }) >&2
    fi
    have_rust || die "cargo is still missing or too old: see rust-toolchain.toml for the version"
}

make_service_account() {
    getent passwd "$SERVICE_ACCOUNT" >/dev/null && return
    useradd --system --no-create-home --home-dir /nonexistent --shell /usr/sbin/nologin "$SERVICE_ACCOUNT"
    if getent group kvm >/dev/null; then
        usermod -a -G kvm "$SERVICE_ACCOUNT"
    fi
}

# Where cargo puts the programs of the development profile.
target_dir() { printf '%s\n' "${CARGO_TARGET_DIR:-$top/target}"; }

build() { (cd "$top" && cargo build --locked "$@") >&2; }

# wait_socket SOCKET PID LOG: until a server answers; its log says why if it does not.
wait_socket() {
    local socket=$1 pid=$2 log=$3 deadline=$((SECONDS + SERVER_START_LIMIT))
    until [ -S "$socket" ] && WALT_SERVER=unix:$socket "$WALT" node show --names-only >/dev/null 2>&1; do
        if ! kill -0 "$pid" 2>/dev/null; then
            tail -n 20 "$log" >&2
            die "the server ended at once; its log is $log"
        fi
        if [ $SECONDS -ge $deadline ]; then
            tail -n 20 "$log" >&2
            die "waited $SERVER_START_LIMIT s for the server to answer on $socket; its log is $log"
        fi
        sleep 0.1
    done
}
