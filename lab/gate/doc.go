// Package gate makes several nodes do the same work at the same time: all lay out
// their files, one time to start is set on every node's clock, and only the time
// in which all of them ran is counted. Clocks are checked against the host's.
package gate
