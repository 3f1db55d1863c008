#!/bin/sh
# Make a root with the NBD tools of a later Debian than this machine's, whose
# QEMU and libnbd speak extended headers. The tests enter it by chroot.
#
#   scripts/mkpeers.sh
#
# Prints the root's path on stdout. It is made once (some minutes, 400 MB) and
# kept in $VMDISK_IMAGE_CACHE, else in ${XDG_CACHE_HOME:-$HOME/.cache}/vmdisk.
# $VMDISK_MIRROR and $VMDISK_NEWER_SUITE (default trixie) choose another source.
set -eu

die() { echo "mkpeers: $*" >&2; exit 1; }

suite=${VMDISK_NEWER_SUITE:-trixie}
mirror=${VMDISK_MIRROR:-http://deb.debian.org/debian}
dir=${VMDISK_IMAGE_CACHE:-${XDG_CACHE_HOME:-${HOME:?set HOME or VMDISK_IMAGE_CACHE}/.cache}/vmdisk}
out=$dir/peers-$suite

[ ! -d "$out" ] || { echo "$out"; exit 0; }
[ "$(id -u)" -eq 0 ] || die "debootstrap needs root (it runs chroot and mknod)"
command -v debootstrap >/dev/null || die "debootstrap is missing; run: apt-get install debootstrap"
mkdir -p "$dir"
exec 9>"$out.lock"
flock 9
[ ! -d "$out" ] || { echo "$out"; exit 0; }

# A short name: sockets lie below it.
work=$(mktemp -d "$dir/p.XXXXXX")
trap 'rm -rf "$work"' EXIT
trap 'exit 130' INT TERM HUP
if ! debootstrap --variant=minbase --include=qemu-utils,libnbd-bin,python3-libnbd "$suite" "$work/root" "$mirror" >"$work/log" 2>&1; then
	tail -n 5 "$work/log" >&2
	die "debootstrap failed; is $mirror reachable?"
fi
rm -rf "$work"/root/var/cache/apt/archives/*.deb "$work"/root/var/lib/apt/lists/*
mv "$work/root" "$out"
echo "$out"
