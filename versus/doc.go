// Command versus measures vmdisk and the programs it is compared with, in turn,
// in one run:
//
//	go run ./versus [-run REGEX] [-rounds N] [-short] [-dir DIR] [-json FILE] [-bin VMDISK]
//
// Each round runs every contender of a case once, in an order that turns from
// round to round, so that a slow spell of the machine meets all of them. A ratio
// is the median over the rounds of ours divided by the peer's of the same round.
// Processor time is counted apart for the two ends of a connection. The first
// cases measure the harness itself: both sides against a disk that does nothing.
//
// A case has goals; each is reported as met or missed. The exit status is 0 also
// when goals are missed, 1 when a case could not be run.
package main
