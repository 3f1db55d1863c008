package main

import (
	"time"

	"github.com/spf13/cobra"

	"github.com/vmdisk/vmdisk/nbd/server"
)

// limitFlags say how many clients may come.
type limitFlags struct {
	connections, perAddress int
	yieldIdle               time.Duration
}

func (l *limitFlags) register(c *cobra.Command) {
	fl := c.Flags()
	fl.IntVar(&l.connections, "max-connections", 4096, "connections at one time at most; further clients are told that there is no place")
	fl.IntVar(&l.perAddress, "max-connections-per-address", 2048, "as many from one IP address, or of one user by unix sockets (0: no such bound)")
	fl.DurationVar(&l.yieldIdle, "yield-idle", 5*time.Minute, "where there is no place, close the session that has made no request for longest, if that is this long (0: never)")
}

func (l *limitFlags) check() error {
	switch {
	case l.connections < 1:
		return usagef("--max-connections %d: want 1 or more", l.connections)
	case l.perAddress < 0:
		return usagef("--max-connections-per-address %d: want 0 (no bound) or more", l.perAddress)
	case l.yieldIdle < 0:
		return usagef("--yield-idle %v: want 0 (never) or more", l.yieldIdle)
	}
	return nil
}

func (l *limitFlags) apply(c *server.Config) {
	c.MaxConnections, c.MaxPerAddress, c.IdleYield = l.connections, l.perAddress, l.yieldIdle
	if l.yieldIdle == 0 {
		c.IdleYield = -1
	}
}
