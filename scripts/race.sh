#!/bin/sh
# Runs the tests under the race detector, which needs a C compiler.
#
# It makes them several times as slow, so:
# - short tests alone: the long ones differ in how much they do, not in who does it at once;
# - not what only measures (versus) nor interop, whose servers are programs of their own that the
#   detector of a test does not see. Instead, our servers and clients are built with the detector
#   and meet a few of the peers and all hostile clients: a race ends such a program with status 66.
# - of what takes minutes alone, only what the detector sees: the scripts of cmd/vmdisk whose servers
#   and copies run in the test's process, and lab without its guests and whole experiments. Before, on a
#   busy machine of two processors, these two took 15 of 60 minutes.
set -eu
cd "$(dirname "$0")/.."
export CGO_ENABLED=1

PACKAGES=$(go list ./... | grep -v -e /interop -e /versus -e /cmd/vmdisk -e '/lab$')
export PACKAGES
scripts/test.sh -race -short "$@"
PACKAGES=./cmd/vmdisk scripts/test.sh -race -short -run '^TestScripts$/^(copy|resume|stream|serve|silent|tls|transfer)$' "$@"
PACKAGES=./lab scripts/test.sh -race -short -run '^Test(CheckWhole|Parameters|Segments|ReadLog|Shown|StorageFilters|HostClients|KilledClient|Plans)$' "$@"

bin=$(mktemp -d)
trap 'rm -rf "$bin"' EXIT
go build -race -o "$bin/vmdisk" ./cmd/vmdisk
VMDISK_BIN="$bin/vmdisk" GORACE=halt_on_error=1 PACKAGES=./interop \
	scripts/test.sh -short -run '^(TestHostile|TestDrain|TestStructuredOnly|TestIdleConnections|TestImageioNBD|TestNbdkitInFront)$' "$@"
