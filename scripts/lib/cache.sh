# shellcheck shell=bash
# The project's cache: where it is, who may fill it, how an entry becomes visible. Sourced, not run.
#
# An entry is a folder that is filled under another name and renamed when it is complete, with a stamp written last. So a reader needs no
# lock and no network: an entry with a stamp is whole.

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)
cache=$root/.cache

say() { printf 'icsan: %s\n' "$*" >&2; }
die() {
	say "$*"
	exit 1
}

# complete ENTRY: is it there and whole?
complete() { [[ -e $1/.complete ]]; }

# One process fills the cache at a time; apt would take turns anyway. The lock ends with the process that holds it.
lock_cache() {
	local path
	mkdir -p "$cache" 2>/dev/null || true
	for path in "$cache" "$cache"/{.lock,apt,qemu,kernel}; do
		if [[ $path == "$cache" || -e $path ]] && [[ ! -w $path ]]; then
			die "$path is missing and cannot be made, or belongs to another user: fill the cache as its owner, or use a checkout of your own"
		fi
	done
	exec 9>>"$cache/.lock"
	if ! flock -n 9; then
		say "waiting for another icsan script that fills the cache"
		flock 9
	fi
}

# stage ENTRY: an empty folder to fill. What an interrupted run left behind goes first: the lock is held, so nobody is using it.
stage() {
	rm -rf "$1.part" "$1" && mkdir -p "$1.part" && printf '%s\n' "$1.part"
}

# publish ENTRY
publish() {
	chmod -R a+rX "$1.part" # filled by root, read by everybody
	touch "$1.part/.complete"
	mv -T "$1.part" "$1"
}

# megabytes PATH
megabytes() { du -sm "$1" | cut -f1; }
