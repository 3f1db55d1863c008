package agent

import "golang.org/x/sys/unix"

// Clock is how the clocks of host and node stand to each other.
type Clock struct {
	// AtNS is the host's monotonic time of the measurement.
	AtNS int64
	// OffsetNS is the host's monotonic clock minus the node's, true within ErrNS.
	OffsetNS, ErrNS int64
}

// Monotonic is this machine's CLOCK_MONOTONIC in nanoseconds. The processes of a
// host share it; a guest has its own.
func Monotonic() int64 {
	var ts unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_MONOTONIC, &ts); err != nil {
		return 0 // the clock is always there
	}
	return ts.Nano()
}
