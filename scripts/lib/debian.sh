# shellcheck shell=bash
# Debian packages of any release without touching the machine's own apt state. Sourced after cache.sh, not run.
#
# Each release has a private apt root in .cache/apt/RELEASE: own sources, lists and an empty status file, so that a package's whole closure is
# resolved and nothing needs root. RELEASE+ARCH is the same release with packages of another architecture beside amd64's. The machine's apt.conf.d, proxies and auth.conf stay in force, and the archive's address is the one that the
# machine uses itself. Everything unpacked was checked by apt against lists that the archive signed.

apt_log=${cache:?cache.sh comes first}/apt/log

# begin_fetch: what a script calls before anything else here. Takes the lock.
begin_fetch() {
	local tool
	for tool in apt-get apt-cache apt-config dpkg-deb flock; do
		command -v "$tool" >/dev/null ||
			die "$tool is not installed: fetching needs Debian's apt, dpkg and util-linux; or copy a filled .cache/ here from a machine that has them"
	done
	lock_cache
	mkdir -p "$cache/apt"
	: >"$apt_log"
	# Nothing may end silently.
	set -E
	trap 'say "failed unexpectedly at ${BASH_SOURCE[0]##*/}:$LINENO (apt messages: $apt_log)"' ERR
}

# The release that this machine runs, e.g. bookworm.
host_release() { sed -n 's/^VERSION_CODENAME=//p' /etc/os-release 2>/dev/null; }

# apt RELEASE TOOL ARG...: apt-get or apt-cache in that release's private root.
apt() { "$2" -c "$cache/apt/$1/apt.conf" "${@:3}"; }

# archives: "URI SUITE" for each source of the machine that has a component called main. apt reads both forms of its sources itself; printing
# what an update would fetch needs neither lists nor network.
archives() {
	mkdir -p "$cache/apt/none/partial"
	apt-get -o Dir::State::lists="$cache/apt/none" -o Debug::NoLocking=1 update --print-uris 2>>"$apt_log" |
		sed -n "s#^'\([^']*\)/dists/\([^']*\)/main/binary-.*/Packages[^/]*' .*#\1 \2#p" | uniq
}

# archive_uri: Debian's own archive among them. Other vendors name their suites after Debian's releases too, but only Debian has
# the suite's -updates or -backports beside it; without those the first source counts, and its signature decides.
archive_uri() {
	archives | awk '
		$2 ~ /^[a-z]+$/ && !first { first = $1 }
		$2 ~ /^[a-z]+-(updates|backports)$/ && !sure { sure = $1 }
		END { print sure ? sure : first }'
}

security_uri() { archives | awk '$2 ~ /^[a-z]+-security$/ && !found { found = $1 } END { print found }'; }

# keyring URI: the keyring that the machine's source for URI names, else the installed archive keyring; nothing means apt's trusted.gpg.d.
keyring() {
	local list=/etc/apt/sources.list parts=/etc/apt/sources.list.d named file
	eval "$(apt-config shell list Dir::Etc::sourcelist/f parts Dir::Etc::sourceparts/d)"
	named=$(
		# paragraphs of the .sources form, then lines of the .list form
		cat "$parts"/*.sources 2>/dev/null | grep -v '^#' | awk -v RS= -v uri="$1" '
			index($0, uri) && match($0, /[Ss]igned-[Bb]y:[ \t]*\/[^ \t\n]+/) {
				s = substr($0, RSTART, RLENGTH); sub(/^[^\/]*/, "", s); print s }'
		cat "$list" "$parts"/*.list 2>/dev/null | grep -v '^#' | grep -F "$1" | sed -n 's/.*signed-by=\(\/[^], ]*\).*/\1/p'
	) || true
	for file in $named /usr/share/keyrings/debian-archive-keyring.{pgp,gpg}; do
		if [[ -r $file ]]; then
			printf '%s\n' "$file"
			return
		fi
	done
}

# configure RELEASE[+ARCH]: writes the private root.
configure() {
	local dir=$cache/apt/$1 suite=${1%%+*} archs=amd64 uri security keys newer options
	[[ $1 != *+* ]] || archs+=,${1#*+}
	uri=$(archive_uri)
	[[ $uri ]] || die "apt's sources on this machine name no Debian archive with a component main: add one in /etc/apt, or copy a filled .cache/ here"
	security=$(security_uri)
	keys=$(keyring "$uri")
	newer=$(find "$cache/apt" -path '*/keyring/*/debian-archive-keyring.[gp][gp][gp]' | sort | head -n1) # see newer_keyring
	keys=$keys${keys:+${newer:+,}}$newer
	mkdir -p "$dir"/{state,cache,lists/partial}
	: >"$dir/status"
	# target=Packages: the machine may be set up to fetch much more (icons, translations).
	options="[arch=$archs target=Packages${keys:+ signed-by=$keys}]"
	{
		echo "deb $options $uri $suite main"
		if [[ $suite != sid ]]; then
			echo "deb $options $uri $suite-backports main"
			[[ ! $security ]] || echo "deb $options $security $suite-security main"
		fi
	} >"$dir/sources.list"
	# Given by -c, this is read after apt.conf.d and wins. The machine's hooks would clean its own cache, and its user _apt may not
	# see this folder.
	cat >"$dir/apt.conf" <<-EOF
		Dir::Etc::sourcelist "$dir/sources.list";
		Dir::Etc::sourceparts "/dev/null";
		Dir::Etc::preferences "/dev/null";
		Dir::Etc::preferencesparts "/dev/null";
		Dir::State "$dir/state";
		Dir::State::status "$dir/status";
		Dir::State::lists "$dir/lists";
		Dir::Cache "$dir/cache";
		Dir::Log "$dir";
		#clear APT::Architectures;
		#clear APT::Default-Release;
		#clear APT::Update::Pre-Invoke;
		#clear APT::Update::Post-Invoke;
		#clear APT::Update::Post-Invoke-Success;
		APT::Architecture "amd64";
		APT::Architectures { "${archs//,/\"; \"}"; };
		APT::Install-Recommends "false";
		APT::Install-Suggests "false";
		APT::Sandbox::User "root";
		APT::Get::AllowUnauthenticated "false";
		Acquire::AllowInsecureRepositories "false";
		Acquire::GzipIndexes "true";
		Acquire::Retries "2";
	EOF
}

# update RELEASE: its lists, as fresh as the network allows. A suite that cannot be had is no error: what the lists hold decides.
update() {
	local messages status=0
	configure "$1"
	messages=$(apt "$1" apt-get -q update 2>&1) || status=$?
	printf '%s\n' "$messages" >>"$apt_log"
	if ((status)) && grep -qE 'NO_PUBKEY|Missing key|not signed' <<<"$messages" && [[ ${1%%+*} != "$(host_release)" && ! -e $cache/apt/keyring ]]; then
		newer_keyring
		configure "$1"
		apt "$1" apt-get -q update >>"$apt_log" 2>&1 || true
	fi
}

# newer_keyring: the keys of later releases, from the release that the machine trusts already.
newer_keyring() {
	local host part
	host=$(host_release)
	say "this machine's archive keyring is older than the release that is needed: fetching debian-archive-keyring of $host"
	update "$host"
	part=$(stage "$cache/apt/keyring")
	if fetch "$host" "$part" debian-archive-keyring; then publish "$cache/apt/keyring"; fi
}

# versions RELEASE PACKAGE: "VERSION SUITE" of each there is, newest first.
versions() {
	apt "$1" apt-cache madison "$2" 2>>"$apt_log" |
		awk -F ' *[|] *' '{ split($3, source, " "); sub("/.*", "", source[2]); print $2, source[2] }'
}

# closure RELEASE SUITE PACKAGE=VERSION: PACKAGE=VERSION of it and of all it depends on.
closure() {
	local target=()
	# apt takes nothing from -backports, not even a dependency, unless that suite is asked for.
	[[ $2 != *-backports ]] || target=(-t "$2")
	apt "$1" apt-get -s -q "${target[@]}" install "$3" 2>>"$apt_log" | sed -n 's/^Inst \([^ ]*\) (\([^ ]*\) .*/\1=\2/p'
}

# fetch RELEASE FOLDER PACKAGE...: downloads and unpacks them there. Always from an empty folder: apt would take a file of the right size,
# left by an interrupted run, for good, and leave it out of the list.
fetch() {
	local release=$1 folder=$2 debs=$cache/apt/debs list start=$SECONDS file
	rm -rf "$debs"
	mkdir -p "$debs"
	list=$(cd "$debs" && apt "$release" apt-get -qq download --print-uris "${@:3}" 2>>"$apt_log") && [[ $list ]] || return 1
	say "downloading $(wc -l <<<"$list") packages, $(awk '{ n += $3 } END { printf "%.1f MB", n / 1e6 }' <<<"$list")"
	(cd "$debs" && apt "$release" apt-get -q download "${@:3}" >>"$apt_log" 2>&1) || return 1
	say "downloaded in $((SECONDS - start)) s, unpacking"
	mkdir -p "$folder"
	while read -r _ file _; do
		dpkg-deb -x "$debs/$file" "$folder" || return 1
	done <<<"$list"
	rm -rf "$debs" "$folder"/usr/share/{doc,man,locale,info,lintian}
}

# no_luck WHAT: the one line that ends a fetch which found nothing.
no_luck() {
	local why="the Debian archive did not give it"
	if grep -qiE 'resolv|could not connect|unreachable|timed out' "$apt_log"; then why="the network does not work"; fi
	die "cannot fetch $1: it is not in $cache and $why. Go online and run this again, or copy a filled .cache/ here (apt's messages: $apt_log)"
}
