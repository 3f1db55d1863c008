#!/bin/sh
# Runs every test, as root where that can be had: loop devices, mounts and
# network namespaces need it. The test binaries are built by the caller and only
# run as root, so the caller's build cache stays the caller's.
# Arguments go to go test; PACKAGES, if set, are tested instead of all.
set -eu
cd "$(dirname "$0")/.."
export CGO_ENABLED="${CGO_ENABLED:-0}" PATH="$PATH:/usr/sbin:/sbin"
# shellcheck disable=SC2086 # one word per package
set -- -timeout 20m "$@" ${PACKAGES:-./...}

if [ "$(id -u)" -eq 0 ]; then
	exec go test "$@"
fi
if sudo -n true 2>/dev/null; then
	exec go test -exec "sudo -E env PATH=$PATH" "$@"
fi
echo "test: not root and no sudo without a password: tests of mounts, loop devices and namespaces are skipped" >&2
exec go test "$@"
