#!/bin/sh
# Makes sure that the programs the tests and benchmarks meet are there.
#
# As root, or through sudo without a password, what is missing is installed by
# apt. Otherwise one line says what to install, and the exit status is 1.
set -eu

# Command or file that proves the package, and the Debian package.
peers='
gcc                     gcc
/usr/include/stdlib.h   libc6-dev
fio                     fio
gnuplot                 gnuplot-nox
nbdkit                  nbdkit
nbdcopy                 libnbd-bin
nbdsh                   python3-libnbd
nbd-client              nbd-client
qemu-img                qemu-utils
/usr/lib/*/qemu/block-iscsi.so  qemu-block-extra
tgtd                    tgt
qemu-system-x86_64      qemu-system-x86
mkfs.xfs                xfsprogs
mkfs.btrfs              btrfs-progs
mkfs.ext4               e2fsprogs
losetup                 mount
debootstrap             debootstrap
certtool                gnutls-bin
jq                      jq
strace                  strace
systemd-analyze         systemd
virt-v2v                virt-v2v
/usr/lib/*/nbdkit/plugins/nbdkit-python-plugin.so  nbdkit-plugin-python
chromium                chromium
/usr/lib/modules/*-cloud-*/kernel/drivers/block/nbd.ko*  linux-image-cloud-amd64
'

PATH=$PATH:/usr/sbin:/sbin
missing=
set -f
while read -r proof package; do
	[ -n "$proof" ] || continue
	case $proof in
	/*) set +f; set -- $proof; set -f; [ -e "$1" ] && continue ;;
	*) command -v "$proof" >/dev/null && continue ;;
	esac
	missing="$missing $package"
done <<EOF
$peers
EOF
[ -n "$missing" ] || exit 0

as_root=
if [ "$(id -u)" -ne 0 ]; then
	as_root=sudo
	if ! sudo -n true 2>/dev/null; then
		echo "peers: missing, install them as root: apt-get install -y --no-install-recommends$missing" >&2
		exit 1
	fi
fi
if ! command -v apt-get >/dev/null; then
	echo "peers: missing, and this machine has no apt-get; install the equivalents of:$missing" >&2
	exit 1
fi
export DEBIAN_FRONTEND=noninteractive
echo "peers: installing$missing" >&2
$as_root apt-get update -qq
# shellcheck disable=SC2086 # one word per package
$as_root apt-get install -y -qq --no-install-recommends $missing >&2
