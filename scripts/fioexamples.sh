#!/bin/sh
# Fetch the job files that fio's own source package has as examples; Debian's
# binary package leaves them out. They are fetched once and kept, outside the
# repository. Needs no root: apt works in a folder of its own and the machine's
# lists of packages are left alone.
#
#   scripts/fioexamples.sh [-o DIR] [-n]
#
# Prints the folder's path on stdout; everything else goes to stderr.
#   -o DIR  where to put them; default fio-examples in $VMDISK_IMAGE_CACHE,
#           else in ${XDG_CACHE_HOME:-$HOME/.cache}/vmdisk
#   -n      do not fetch: print the path if they are there, else exit 3
# The Debian mirror and suite are those of this machine's apt; $VMDISK_MIRROR and
# $VMDISK_SUITE override them.
set -eu

say() { echo "fioexamples: $*" >&2; }
die() { say "$*"; exit 1; }

out= fetch=yes
while getopts o:n opt; do
	case $opt in
	o) out=$OPTARG ;;
	n) fetch=no ;;
	*) exit 2 ;;
	esac
done
shift $((OPTIND - 1))
[ $# -eq 0 ] || { say "unexpected argument $1; usage: fioexamples.sh [-o DIR] [-n]"; exit 2; }
if [ -z "$out" ]; then
	dir=${VMDISK_IMAGE_CACHE:-${XDG_CACHE_HOME:-${HOME:?set HOME or VMDISK_IMAGE_CACHE}/.cache}/vmdisk}
	out=$dir/fio-examples
fi

# The folder only ever appears by rename, so it is whole.
done_if_present() {
	if [ -d "$out" ]; then
		echo "$out"
		exit 0
	fi
}
done_if_present
[ $fetch = yes ] || { say "$out is not there; run scripts/fioexamples.sh"; exit 3; }

for tool in apt-get:apt tar:tar xz:xz-utils flock:util-linux; do
	command -v "${tool%%:*}" >/dev/null || die "${tool%%:*} is missing; run: apt-get install ${tool#*:}"
done

# apt_source prints "URI SUITE" of the machine's Debian main archive.
apt_source() {
	apt-get indextargets --format '$(CREATED_BY) $(REPO_URI) $(RELEASE) $(COMPONENT)' 2>/dev/null |
		awk '$1 == "Packages" && $4 == "main" && $2 !~ /security/ && $3 !~ /-(updates|backports|security)/ { print $2, $3; exit }'
}
src=$(apt_source || true)
mirror=${VMDISK_MIRROR:-${src%% *}}
suite=${VMDISK_SUITE:-${src##* }}
mirror=${mirror:-http://deb.debian.org/debian}
suite=${suite:-bookworm}

mkdir -p "$(dirname "$out")"
# One at a time; the others find the folder when they get the lock.
exec 9>"$out.lock"
flock 9
done_if_present

work=$(mktemp -d "$out.fetch.XXXXXX")
trap 'rm -rf "$work"' EXIT
trap 'exit 130' INT TERM HUP
mkdir -p "$work/lists/partial" "$work/cache/archives/partial" "$work/src"
echo "deb-src $mirror $suite main" >"$work/sources.list"

# apt drops privileges to a user that cannot enter the folder, hence the sandbox.
private() {
	apt-get -q -o Dir::Etc::SourceList="$work/sources.list" -o Dir::Etc::SourceParts=/dev/null \
		-o Dir::State::Lists="$work/lists" -o Dir::Cache="$work/cache" -o APT::Sandbox::User="$(id -un)" "$@"
}
say "fetching the source package of fio, $suite, from $mirror"
(cd "$work/src" && private update && private source --download-only fio) >"$work/log" 2>&1 || {
	tail -n 5 "$work/log" >&2
	die "cannot fetch the source package of fio; is $mirror reachable? (set VMDISK_MIRROR and VMDISK_SUITE to use another)"
}
mkdir "$work/examples"
tar -C "$work/examples" --strip-components=2 --wildcards -xf "$(echo "$work"/src/fio_*.orig.tar.?z)" '*/examples/*.fio' ||
	die "the source package of fio has no examples/*.fio"
mv "$work/examples" "$out"
say "$out: $(find "$out" -name '*.fio' | wc -l) files"
echo "$out"
