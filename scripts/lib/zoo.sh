# shellcheck shell=bash
# The zoo's kernels: fetching the source, building, patching. Sourced after cache.sh and build.sh, not run.
#
# One source tree, and a build folder for each architecture. A variant's patch is applied, the kernel built and copied,
# and the patch taken back: make builds only what it touches. A copy of the patch stands in the tree as long as it is
# applied, so that an interrupted run is cleaned up by the next one.

zoo_cache=${cache:?cache.sh comes first}/zoo
zoo_tree=$zoo_cache/tree
zoo_series=6.12

# zoo_use ARCH: which architecture's kernels all that follows is about, by Debian's name of it. zoo: our own code,
# configuration and patches; zoo_machine: QEMU's name of the architecture; zoo_target: what to make, and zoo_image: where
# it is then; zoo_words: what make has to be told.
zoo_use() {
	local name=$1
	case $1 in
	amd64)
		name=x86 zoo_machine=x86_64 zoo_target=bzImage zoo_build=$zoo_cache/build zoo_kernels=$zoo_cache/kernels
		zoo_words=()
		;;
	arm64)
		zoo_machine=aarch64 zoo_target=Image zoo_build=$zoo_cache/build-$1 zoo_kernels=$zoo_cache/kernels-$1
		zoo_words=(ARCH=arm64 CROSS_COMPILE=aarch64-linux-gnu-)
		;;
	*) die "there is no zoo for $1; known: amd64 arm64" ;;
	esac
	zoo_arch=$1 zoo=$root/guest-tests/zoo/$name zoo_image=$zoo_build/arch/$name/boot/$zoo_target
}

# zoo_variants: the healthy kernel, and one for each patch.
zoo_variants() {
	echo healthy
	(cd "$zoo" && printf '%s\n' *.patch | sed 's/\.patch$//')
}

# What building a kernel takes, by Debian's package names. Installs it for root.
zoo_tools() {
	local missing=() tool
	for tool in flex bison bc make gcc patch xz-utils; do
		command -v "${tool%-utils}" >/dev/null || missing+=("$tool")
	done
	echo '#include <gelf.h>' | cc -E - >/dev/null 2>&1 || missing+=(libelf-dev)
	((${#missing[@]})) || return 0
	if ((EUID)) || ! command -v apt-get >/dev/null; then
		die "building a kernel needs the packages ${missing[*]}: install them (as root)"
	fi
	say "installing ${missing[*]}, to build kernels with"
	{ apt-get -q update && DEBIAN_FRONTEND=noninteractive apt-get -q -y --no-install-recommends install "${missing[@]}"; } >"$zoo_cache/log" 2>&1 ||
		die "${missing[*]} cannot be installed; apt's messages: $zoo_cache/log"
}

# zoo_cross: the programs of the cross compiler, where make finds them. They find their libraries by a variable that the
# host's own must not see.
zoo_cross() {
	local files program
	files=$("$root/scripts/cross" "$zoo_arch") || exit 1
	mkdir -p "$zoo_build/.tools"
	for program in "$files/root/usr/bin/aarch64-linux-gnu-"{gcc,ld,ar,nm,objcopy,objdump,strip,readelf}; do
		cat >"$zoo_build/.tools/${program##*/}" <<-EOF
			#!/bin/sh
			export LD_LIBRARY_PATH="$files/root/usr/lib/x86_64-linux-gnu:$files/root/lib/x86_64-linux-gnu"
			exec "$program" "\$@"
		EOF
		chmod +x "$zoo_build/.tools/${program##*/}"
	done
}

# zoo_usable: the tree is there, and if habitat.diff was applied to it, there is a copy to take it back by.
zoo_usable() {
	complete "$zoo_tree" && { [[ -e $zoo_tree/.habitat ]] || ! grep -q icsan_zoo "$zoo_tree/kernel/Makefile"; }
}

# zoo_source: the source tree, from Debian's package. What no kernel of ours compiles stays packed.
zoo_source() {
	local release package exact suite part tar
	! zoo_usable || return 0
	# shellcheck source=debian.sh
	. "$root/scripts/lib/debian.sh"
	begin_fetch
	package=linux-source-$zoo_series
	for release in bookworm trixie; do
		say "looking for $package in Debian $release"
		update "$release"
		read -r exact suite < <(versions "$release" "$package") || continue
		say "fetching $package $exact ($suite), 150 MB"
		part=$(stage "$zoo_tree")
		fetch "$release" "$part/package" "$package=$exact" || continue
		tar=$(find "$part/package" -name 'linux-source-*.tar.xz' | head -n1)
		[[ $tar ]] || die "no source in $package $exact"
		say "unpacking it, 1 GB"
		tar -C "$part" --strip-components=1 -xf "$tar" --exclude='*/drivers/gpu/drm/*.[ch]' --exclude='*/tools/testing/selftests/*' \
			--exclude='*/arch/*/boot/dts/*' --exclude='*/Documentation/*.rst'
		rm -rf "$part/package"
		printf '%s %s\n' "$suite" "$exact" >"$part/.origin"
		publish "$zoo_tree"
		return
	done
	no_luck "$package"
}

# zoo_reverse PATCH: takes it back, if it is applied as a whole.
zoo_reverse() {
	if patch -d "$zoo_tree" -p1 -F0 -R -s -f --dry-run <"$1" >/dev/null 2>&1; then
		patch -d "$zoo_tree" -p1 -F0 -R -s -f <"$1" >>"$zoo_cache/log"
	fi
	rm -f "$1"
}

# zoo_restore: takes back the patch that is applied, if any. It may have got no further than its copy.
zoo_restore() {
	[[ ! -e $zoo_tree/.applied ]] || zoo_reverse "$zoo_tree/.applied"
}

# zoo_apply VARIANT
zoo_apply() {
	[[ $1 != healthy ]] || return 0
	cp "$zoo/$1.patch" "$zoo_tree/.applied"
	patch -d "$zoo_tree" -p1 -F0 -s -f <"$zoo/$1.patch" >>"$zoo_cache/log" || {
		say "$1.patch does not fit $(cat "$zoo_tree/.origin"): $zoo_cache/log"
		return 1
	}
}

# zoo_make TARGET...
zoo_make() {
	PATH=$zoo_build/.tools:$PATH nice make -C "$zoo_tree" O="$zoo_build" "${zoo_words[@]}" -j"$(nproc)" \
		KBUILD_BUILD_USER=icsan KBUILD_BUILD_HOST=zoo "$@" >>"$zoo_cache/log" 2>&1 ||
		die "the kernel does not build: $zoo_cache/log"
}

# zoo_habitat: habitat.diff, in place of what an earlier checkout's was.
zoo_habitat() {
	local applied=$zoo_tree/.habitat
	! cmp -s "$zoo/habitat.diff" "$applied" || return 0
	[[ ! -e $applied ]] || zoo_reverse "$applied"
	patch -d "$zoo_tree" -p1 -F0 -s -f <"$zoo/habitat.diff" >>"$zoo_cache/log" ||
		die "habitat.diff does not fit $(cat "$zoo_tree/.origin"): $zoo_cache/log; if nothing helps, remove $zoo_tree"
	cp "$zoo/habitat.diff" "$applied"
}

# zoo_prepare: our own code and configuration, where they changed.
zoo_prepare() {
	mkdir -p "$zoo_build"
	[[ $zoo_arch == amd64 ]] || zoo_cross
	cmp -s "$zoo/habitat.c" "$zoo_tree/kernel/icsan_zoo.c" || cp "$zoo/habitat.c" "$zoo_tree/kernel/icsan_zoo.c"
	zoo_habitat
	if ! cmp -s "$zoo/tiny.config" "$zoo_build/.fragment"; then
		zoo_make tinyconfig
		(cd "$zoo_tree" && scripts/kconfig/merge_config.sh -m -O "$zoo_build" "$zoo_build/.config" "$zoo/tiny.config") >>"$zoo_cache/log" 2>&1
		zoo_make olddefconfig
		local option
		while read -r option; do
			grep -qx "$option" "$zoo_build/.config" || die "$option is not to be had in this kernel: $zoo_cache/log"
		done < <(grep '^CONFIG_' "$zoo/tiny.config")
		cp "$zoo/tiny.config" "$zoo_build/.fragment"
	fi
}

# zoo_inputs VARIANT: what its kernel is made of.
zoo_inputs() {
	{
		cat "$zoo_tree/.origin" "$zoo/tiny.config" "$zoo/habitat.c" "$zoo/habitat.diff"
		[[ $1 == healthy ]] || cat "$zoo/$1.patch"
	} | sha256sum | cut -d' ' -f1
}

# zoo_kernel VARIANT: builds its kernel, unless it is there: the image and System.map.
zoo_kernel() {
	local entry=$zoo_kernels/$1 start=$SECONDS part inputs first=''
	if complete "$zoo_tree" && complete "$entry" && [[ $(zoo_inputs "$1") == "$(cat "$entry/inputs")" ]]; then return 0; fi
	mkdir -p "$zoo_kernels"
	# A lock of its own: builds take long, and other scripts fill the rest of the cache.
	exec 8>>"$zoo_cache/.lock"
	flock -n 8 || { say "waiting for another scripts/zoo that builds" && flock 8; }
	: >"$zoo_cache/log"
	zoo_tools
	zoo_source
	if complete "$entry" && [[ $(zoo_inputs "$1") == "$(cat "$entry/inputs")" ]]; then return 0; fi # another process was quicker
	[[ -e $zoo_build/vmlinux ]] || first='; the first one takes some ten minutes'
	say "building kernel $1 for $zoo_arch ($(cat "$zoo_tree/.origin"))$first"
	zoo_restore
	inputs=$(zoo_inputs "$1") # as they are now: an editor may change them meanwhile
	zoo_prepare
	zoo_apply "$1" || {
		zoo_restore
		exit 1
	}
	zoo_make "$zoo_target"
	part=$(stage "$entry")
	cp "$zoo_image" "$zoo_build/System.map" "$part/"
	printf '%s\n' "$inputs" >"$part/inputs"
	zoo_restore
	publish "$entry"
	say "kernel $1 is ready: $((SECONDS - start)) s"
}

# build_zoo_runner: builds the host's side of the zoo, and prints its path.
build_zoo_runner() {
	say "building the zoo's runner"
	compile -p icsan-guest-tests --bin icsan-zoo
	printf '%s\n' "${target:?build.sh comes first}/release/icsan-zoo"
}
