# What the programs of this directory share: words for people, and packages that are missing.
# Sourced by bash; does nothing by itself.
# shellcheck shell=bash

# The oldest Rust that the workspace states, as Cargo.toml says it.
OLDEST_RUST=$(sed -n 's/^rust-version = "\(.*\)"$/\1/p' Cargo.toml)

say() { printf '%s: %s\n' "ci/${0##*/}" "$*"; }

die() {
    say "$*" >&2
    exit 1
}

# need PROGRAM=PACKAGE…: sees to it that these programs are there, or the files if they begin with
# a slash. What is missing is said before it is installed.
need() {
    local pair missing=()
    for pair in "$@"; do
        case $pair in
        /*) [ -e "${pair%%=*}" ] || missing+=("${pair##*=}") ;;
        *) command -v "${pair%%=*}" >/dev/null || missing+=("${pair##*=}") ;;
        esac
    done
    if [ ${#missing[@]} -gt 0 ]; then install_packages "${missing[@]}"; fi
}

# Installs packages of Debian, as root or through sudo.
install_packages() {
    local become=() wanted="apt-get install $*"
    if ! command -v apt-get >/dev/null; then
        die "this needs what Debian has in its packages $*: please install it"
    fi
    if [ "$(id -u)" != 0 ]; then
        command -v sudo >/dev/null || die "this needs packages; as root, run: $wanted"
        become=(sudo)
    fi
    say "installing packages that are missing: $*"
    local quiet=(-qq -o "Dpkg::Use-Pty=0")
    # A new machine's list is old, and may lack what its security archive has.
    "${become[@]}" apt-get "${quiet[@]}" update || say "the list of packages stays as it was"
    "${become[@]}" env DEBIAN_FRONTEND=noninteractive \
        apt-get "${quiet[@]}" install --yes --no-install-recommends "$@" >/dev/null ||
        die "could not install them; by hand: $wanted"
}

# Whether version $1 is at least version $2.
is_at_least() { [ "$(printf '%s\n' "$2" "$1" | sort -V | head -n 1)" = "$2" ]; }

# Cargo, a new enough compiler and a linker.
need_rust() {
    if ! command -v cargo >/dev/null && [ -x "$HOME/.cargo/bin/cargo" ]; then
        PATH=$HOME/.cargo/bin:$PATH
    fi
    # Debian 12 carries a recent compiler under this name, in its security archive.
    if command -v apt-get >/dev/null; then need cargo=cargo-web rustc=rustc-web; fi
    local found
    found=$(rustc --version 2>/dev/null | cut -d ' ' -f 2)
    if [ -z "$found" ] || ! is_at_least "$found" "$OLDEST_RUST"; then
        die "Rust $OLDEST_RUST or newer is needed, this is ${found:-none}: see https://rustup.rs"
    fi
    need cc=gcc
    # Where these two are elsewhere, they come with the system.
    if command -v apt-get >/dev/null; then
        need /usr/include/stdlib.h=libc6-dev \
            /etc/ssl/certs/ca-certificates.crt=ca-certificates
    fi
}

# Where cargo puts what it builds.
target_directory() {
    cargo metadata --locked --no-deps --format-version 1 |
        sed 's/.*"target_directory":"\([^"]*\)".*/\1/'
}
