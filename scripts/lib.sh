# What scripts share: saying what goes on, installing Debian's packages, finding ports. Sourced, never run.
# shellcheck shell=bash

packages_are_fresh=

say() { printf '%s\n' "scripts/${0##*/}: $*" >&2; }
die() { say "$@"; exit 1; }

as_root() {
    if [ "$(id -u)" -eq 0 ]; then "$@"; else sudo "$@"; fi
}

# need WHY PACKAGE: can packages be installed here at all? Brings their list up to date.
need() {
    command -v apt-get >/dev/null ||
        die "$1, and there is no apt-get here. Install what Debian calls $2, then run this again."
    [ "$(id -u)" -eq 0 ] || command -v sudo >/dev/null ||
        die "$1, and there is no sudo here. Run as root: apt-get install $2"
    say "$1: installing $2"
    [ -z "$packages_are_fresh" ] || return 0
    as_root apt-get -qq -o DPkg::Lock::Timeout=300 update >&2 ||
        die "apt-get update failed. Mend what it says above, then run this again."
    packages_are_fresh=yes
}

install() {
    as_root env DEBIAN_FRONTEND=noninteractive apt-get -qq -y -o DPkg::Lock::Timeout=300 \
        -o Dpkg::Use-Pty=0 \
        --no-install-recommends install "$@" >&2 ||
        die "apt-get could not install $*. Mend what it says above, then run this again."
}

is_free() { ! (exec 3<>"/dev/tcp/127.0.0.1/$1") 2>/dev/null; }

# free_port TAKEN…: another, below the range from which systems take ports for outgoing connections.
free_port() {
    local port
    while :; do
        port=$((20000 + RANDOM % 12000))
        case " $* " in *" $port "*) continue ;; esac
        if is_free "$port"; then
            printf '%s\n' "$port"
            return
        fi
    done
}
