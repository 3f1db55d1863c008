#!/bin/sh
# Runs each fuzz target for FUZZTIME (3 s by default), and fails with the first that finds something.
#
# What is found is made shorter by 20 executions at most: the default of a minute each leaves a
# target with long seeds idle for all of its time.
set -eu
cd "$(dirname "$0")/.."
export CGO_ENABLED=0 PATH="$PATH:/usr/sbin:/sbin"

# shellcheck disable=SC2013 # neither paths nor names have blanks
for file in $(git ls-files '*_test.go' | xargs grep -l '^func Fuzz'); do
	for target in $(sed -n 's/^func \(Fuzz[A-Za-z0-9_]*\)(f .*/\1/p' "$file"); do
		echo "fuzz: $target of $(dirname "$file")"
		go test "./$(dirname "$file")" -run '^$' -fuzz "^$target\$" -fuzztime "${FUZZTIME:-3s}" -fuzzminimizetime 20x "$@" >"${log:=$(mktemp)}" 2>&1 || {
			cat "$log"
			rm -f "$log"
			exit 1
		}
		grep -o 'execs: .*' "$log" | tail -1
	done
done
rm -f "${log:-}"
