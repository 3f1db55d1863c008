#!/bin/sh
# Runs the tests under the race detector, which needs a C compiler.
#
# It makes them several times as slow, so:
# - short tests alone: the long ones differ in how much they do, not in who does it at once;
# - not what only measures (versus) nor interop, whose servers are programs of their own that the
#   detector of a test does not see. Instead, our servers and clients are built with the detector
#   and meet a few of the peers and all hostile clients: a race ends such a program with status 66.
set -eu
cd "$(dirname "$0")/.."
export CGO_ENABLED=1

PACKAGES=$(go list ./... | grep -v -e /interop -e /versus)
export PACKAGES
scripts/test.sh -race -short "$@"

bin=$(mktemp -d)
trap 'rm -rf "$bin"' EXIT
go build -race -o "$bin/vmdisk" ./cmd/vmdisk
VMDISK_BIN="$bin/vmdisk" GORACE=halt_on_error=1 PACKAGES=./interop \
	scripts/test.sh -short -run '^(TestHostile|TestDrain|TestStructuredOnly|TestIdleConnections|TestImageioNBD|TestNbdkitInFront)$' "$@"
