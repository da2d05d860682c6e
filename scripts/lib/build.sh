# shellcheck shell=bash
# Building what the scripts run. Sourced after cache.sh, not run.

target=${CARGO_TARGET_DIR:-${root:?cache.sh comes first}/target}
[[ $target == /* ]] || target=$PWD/$target
export CARGO_TARGET_DIR=$target # the same for every cargo, whatever its folder and configuration

# A Rust that is new enough, and a C compiler with a static C library, which Rust links with.
need_rust() {
	local need has
	need=$(sed -n 's/^rust-version = "\(.*\)"/\1/p' "$root/Cargo.toml")
	command -v cargo >/dev/null || die "cargo is not installed: install Rust $need or newer (https://rustup.rs)"
	has=$("${RUSTC:-rustc}" --version 2>&1) || die "rustc does not work: ${has%%$'\n'*}"
	has=$(sed -n 's/^rustc \([0-9.]*\).*/\1/p' <<<"$has")
	if [[ $(printf '%s\n' "$need" "$has" | sort -V | head -n1) != "$need" ]]; then
		die "Rust ${has:-of an unknown version} is too old: install $need or newer (https://rustup.rs; Debian 13's own is 1.85)"
	fi
	# gcc may be there without libc6-dev; it then repeats the file's name instead of saying where it is.
	if [[ $(cc -print-file-name=libc.a 2>/dev/null) != /* ]]; then
		if ((EUID)) || ! command -v apt-get >/dev/null; then
			die "no C compiler with a static C library, which Rust links with: install the packages gcc and libc6-dev (as root)"
		fi
		say "installing gcc and libc6-dev, which Rust links with"
		has=$({ apt-get -q update && DEBIAN_FRONTEND=noninteractive apt-get -q -y --no-install-recommends install gcc libc6-dev; } 2>&1) ||
			die "gcc and libc6-dev cannot be installed; apt says:"$'\n'"$has"
	fi
}

# compile ARG...: cargo build. With its own exit: bash ignores a failure in a command substitution's middle, and what an older build left would be used.
compile() { (cd "$root" && cargo build --release --locked "$@") >&2 || exit 1; }

# guest_arch ARCH: QEMU's name of an architecture that Debian calls so.
guest_arch() {
	case $1 in
	amd64) echo x86_64 ;;
	arm64) echo aarch64 ;;
	*) die "there are no guests of $1; known: amd64 arm64" ;;
	esac
}

# guest_triple ARCH: the Rust target of the guests of an architecture, by QEMU's name of it.
guest_triple() {
	case $1 in
	x86_64 | aarch64) printf '%s-unknown-linux-gnu\n' "$1" ;;
	*) die "there are no guest programs for $1; known: x86_64 aarch64" ;;
	esac
}

# guest_target ARCH: the target directory of the guests of an architecture. Each compiler has one of its own: they would throw away what the other one built.
guest_target() {
	case $1 in
	x86_64) printf '%s\n' "$target" ;;
	*) printf '%s\n' "$target/$1" ;;
	esac
}

# guest_program BINARY ARCH: where the program is when it is built.
guest_program() {
	local triple folder
	triple=$(guest_triple "$2") && folder=$(guest_target "$2") || exit 1
	printf '%s\n' "$folder/$triple/release/$1"
}

# compile_guest BINARY [ARCH]: for x86_64 if no other architecture is named. Static, so that it can be a guest's only file; not relocatable, so that its symbols are where the file says. These flags win over all that
# the user's environment or configuration sets.
compile_guest() {
	local arch=${2:-x86_64} triple folder cross words=()
	triple=$(guest_triple "$arch") && folder=$(guest_target "$arch") || exit 1
	if [[ $arch == aarch64 ]]; then
		# The host's own Rust may have no library for it.
		cross=$("$root/scripts/cross" arm64) || exit 1
		words=(RUSTC="$cross/rustc" CARGO_TARGET_AARCH64_UNKNOWN_LINUX_GNU_LINKER="$cross/linker")
	fi
	(
		export CARGO_TARGET_DIR=$folder CARGO_ENCODED_RUSTFLAGS=$'-Ctarget-feature=+crt-static\x1f-Crelocation-model=static' "${words[@]}"
		compile --target "$triple" -p icsan-guest-tests --no-default-features --bin "$1"
	) || exit 1
}

# build_plugin: builds it, and prints its path.
build_plugin() {
	say "building the plugin"
	compile -p icsan-plugin
	printf '%s\n' "$target/release/libicsan.so"
}

# build_base COMMIT: builds the plugin as it was, from a copy of that commit in the cache, and prints its path.
build_base() {
	local commit folder
	commit=$(git -C "$root" rev-parse --verify --quiet "$1^{commit}") || die "there is no commit $1"
	folder=$cache/base/$commit
	if [[ ! -e $folder/target/release/libicsan.so ]]; then
		say "building the plugin of $1"
		mkdir -p "$folder"
		git -C "$root" archive "$commit" | tar -x -C "$folder"
		(cd "$folder" && CARGO_TARGET_DIR=$folder/target cargo build --release --locked -p icsan-plugin) >&2 || exit 1
	fi
	printf '%s\n' "$folder/target/release/libicsan.so"
}

# build_runner: builds the host's side of the guest tests, and prints its path.
build_runner() {
	say "building the runner"
	compile -p icsan-guest-tests --bin icsan-runner
	printf '%s\n' "$target/release/icsan-runner"
}

# build_guest [ARCH]: builds the guest's program, and prints its path.
build_guest() {
	say "building the guest program${1:+ for $1}"
	compile_guest icsan-guest "${1:-x86_64}"
	guest_program icsan-guest "${1:-x86_64}"
}

# build_bench: builds the host's side of the measurements, and prints its path.
build_bench() {
	say "building the bench"
	compile -p icsan-guest-tests --bin icsan-bench
	printf '%s\n' "$target/release/icsan-bench"
}

# build_workload [ARCH]: builds the guest that is measured, and prints its path.
build_workload() {
	say "building the guest's workload${1:+ for $1}"
	compile_guest icsan-workload "${1:-x86_64}"
	guest_program icsan-workload "${1:-x86_64}"
}
