# shellcheck shell=bash
# Building what the scripts run. Sourced after cache.sh, not run.

target=${CARGO_TARGET_DIR:-${root:?cache.sh comes first}/target}

# A Rust that is new enough, and a C linker, which every Rust program needs.
need_rust() {
	command -v cargo >/dev/null || die "cargo is not installed: install Rust 1.88 or newer (https://rustup.rs)"
	if ! command -v cc >/dev/null; then
		((EUID == 0)) || die "no C compiler, which Rust links with: install the packages gcc and libc6-dev (as root)"
		say "installing gcc and libc6-dev, which Rust links with"
		{ apt-get update && apt-get install -y --no-install-recommends gcc libc6-dev; } >&2
	fi
}

# build_plugin: builds it, and prints its path.
build_plugin() {
	say "building the plugin"
	(cd "$root" && cargo build --release --locked -p icsan-plugin >&2)
	printf '%s\n' "$target/release/libicsan.so"
}

# build_runner: builds the host's side of the guest tests, and prints its path.
build_runner() {
	say "building the runner"
	(cd "$root" && cargo build --release --locked -p icsan-guest-tests --bin icsan-runner >&2)
	printf '%s\n' "$target/release/icsan-runner"
}

# build_guest: builds the guest's program, and prints its path. Static, so that it can be a guest's only file; not relocatable, so that its symbols are where the
# file says.
build_guest() {
	say "building the guest program"
	(cd "$root" && CARGO_TARGET_X86_64_UNKNOWN_LINUX_GNU_RUSTFLAGS='-C target-feature=+crt-static -C relocation-model=static' \
		cargo build --release --locked --target x86_64-unknown-linux-gnu -p icsan-guest-tests --no-default-features --bin icsan-guest >&2)
	printf '%s\n' "$target/x86_64-unknown-linux-gnu/release/icsan-guest"
}
