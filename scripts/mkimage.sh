#!/bin/sh
# Make the real image of the tests and the benchmarks: a Debian root file system
# in a sparse 6 GiB ext4 image of which about 19 % is data, the proportions of a
# freshly installed guest. It is built once (about 2 minutes) and kept.
#
#   scripts/mkimage.sh [-o FILE] [-f] [-n]
#
# Prints the image's path on stdout; everything else goes to stderr.
#   -o FILE  where to put it; default debian-6g.img in $VMDISK_IMAGE_CACHE,
#            else in ${XDG_CACHE_HOME:-$HOME/.cache}/vmdisk
#   -f       build again although it is there
#   -n       do not build: print the path if the image is there, else exit 3
# The Debian mirror and suite are those of this machine's apt; $VMDISK_MIRROR and
# $VMDISK_SUITE override them.
set -eu

size=6442450944          # bytes of the image
percent=19               # of them data
uuid=76d6d469-736b-4d69-6d61-676500000001

say() { echo "mkimage: $*" >&2; }
die() { say "$*"; exit 1; }

out= force=no build=yes
while getopts o:fn opt; do
	case $opt in
	o) out=$OPTARG ;;
	f) force=yes ;;
	n) build=no ;;
	*) exit 2 ;;
	esac
done
shift $((OPTIND - 1))
[ $# -eq 0 ] || { say "unexpected argument $1; usage: mkimage.sh [-o FILE] [-f] [-n]"; exit 2; }
if [ -z "$out" ]; then
	dir=${VMDISK_IMAGE_CACHE:-${XDG_CACHE_HOME:-${HOME:?set HOME or VMDISK_IMAGE_CACHE}/.cache}/vmdisk}
	out=$dir/debian-6g.img
fi

# present: the image is there and whole (it only ever appears by rename).
present() { [ -f "$out" ] && [ "$(stat -c %s "$out")" -eq $size ]; }

done_if_present() {
	if [ $force = no ] && present; then
		echo "$out"
		exit 0
	fi
}
done_if_present
[ $build = yes ] || { say "$out is not there; run scripts/mkimage.sh as root"; exit 3; }

[ "$(id -u)" -eq 0 ] || die "debootstrap needs root (it runs chroot and mknod); run: sudo scripts/mkimage.sh -o $out"
for tool in debootstrap:debootstrap mke2fs:e2fsprogs e2fsck:e2fsprogs openssl:openssl flock:util-linux; do
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
# One builder at a time; the others find the image when they get the lock.
exec 9>"$out.lock"
flock 9
done_if_present

work=$(mktemp -d "$out.build.XXXXXX")
trap 'rm -rf "$work"' EXIT
trap 'exit 130' INT TERM HUP
root=$work/root tmp=$work/image

say "debootstrap $suite from $mirror into $root"
# What a small server has, so that sizes, directories and file kinds are those of a guest.
include=systemd-sysv,dbus,openssh-server,ca-certificates,curl,less,vim-tiny,python3,perl,git,gcc,libc6-dev,make,rsyslog,man-db,linux-image-cloud-amd64
[ "$(dpkg --print-architecture)" = amd64 ] || include=${include%linux-image-cloud-amd64}linux-image-$(dpkg --print-architecture)
if ! debootstrap --variant=minbase --include="$include" "$suite" "$root" "$mirror" >"$work/log" 2>&1; then
	tail -n 5 "$work/log" >&2
	die "debootstrap failed; is $mirror reachable? (set VMDISK_MIRROR and VMDISK_SUITE to use another)"
fi
# Nothing of the builder's machine stays in.
rm -rf "$root"/var/cache/apt/archives/*.deb "$root"/var/lib/apt/lists/* "$root"/etc/resolv.conf "$root"/etc/hostname

# Fill up to the share of data with files of 1 KiB to 16 MiB whose content is an
# AES-CTR stream with a fixed key: it does not compress, and every build has the same.
stream() { # SEED BYTES
	openssl enc -aes-128-ctr -nosalt -K "$(printf '%032x' "$1")" -iv 0 -in /dev/zero 2>/dev/null | head -c "$2"
}
used=$(du -s --block-size=1 "$root" | cut -f1)
metadata=$((5 << 20))    # what bitmaps, directories and the journal take beside the files
left=$((size / 100 * percent - metadata - used))
[ $left -ge 0 ] || say "the packages alone take $used bytes; the image will hold more than $percent % of data"
i=0
mkdir -p "$root/srv/data"
while [ $left -gt 0 ]; do
	case $((i % 8)) in
	0) n=16777216 ;; 1) n=1048576 ;; 2) n=262144 ;; 3) n=65536 ;;
	4) n=12288 ;; 5) n=4096 ;; 6) n=1000 ;; 7) n=5000000 ;;
	esac
	[ $n -le $left ] || n=$left
	mkdir -p "$root/srv/data/$((i / 64))"
	stream $((i + 1)) $n >"$root/srv/data/$((i / 64))/$i"
	left=$((left - n)) i=$((i + 1))
done

say "mke2fs into $tmp"
truncate -s $size "$tmp"
mke2fs -q -F -t ext4 -L vmdisk-real -U $uuid -E "hash_seed=$uuid,lazy_itable_init=1,lazy_journal_init=1" -d "$root" "$tmp"
e2fsck -fn "$tmp" >"$work/fsck" 2>&1 || { cat "$work/fsck" >&2; die "the new file system is not clean"; }
chmod 644 "$tmp"
sync "$tmp"
mv "$tmp" "$out"
data=$(du --block-size=1 "$out" | cut -f1)
say "$out: $((data >> 20)) MiB of $((size >> 20)) MiB are data ($((data * 100 / size)) %)"
echo "$out"
