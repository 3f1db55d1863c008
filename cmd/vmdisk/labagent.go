package main

import (
	"errors"

	"github.com/spf13/cobra"

	"github.com/vmdisk/vmdisk/lab/agent"
)

// labAgent are the ways to the lab, of which one is taken.
type labAgent struct {
	port, socket string
	vsock        uint32
}

func newLabAgent() *cobra.Command {
	var a labAgent
	c := &cobra.Command{
		Use:   "agent",
		Short: "Be a node of an experiment, in a guest or on this host",
		Long: `Serve an experiment that runs elsewhere: prepare this node's disk, run job files
when told to, and say what they did. In a guest it finds the vsock port or the
virtio-serial port that the lab gives it, so a guest image takes part when its
init system starts "vmdisk lab agent".
Whoever holds the other end can write to this machine's disks.`,
		Args: args(0, 0, "no arguments"),
		RunE: func(c *cobra.Command, _ []string) error {
			err := a.serve(c, agent.Options{Version: buildVersion().Version})
			if errors.Is(err, agent.ErrPowerOff) {
				return nil
			}
			return err
		},
	}
	c.Flags().StringVar(&a.port, "port", agent.Port, "use the virtio-serial port of this `name`, not vsock")
	c.Flags().Uint32Var(&a.vsock, "vsock", 0, "connect to this vsock `port` of the host, and no other way (default: the port that QEMU tells the guest)")
	c.Flags().StringVar(&a.socket, "socket", "", "connect to the unix socket at this `path` instead")
	return c
}

func (a labAgent) serve(c *cobra.Command, o agent.Options) error {
	given := 0
	for _, name := range []string{"port", "vsock", "socket"} {
		if c.Flags().Changed(name) {
			given++
		}
	}
	switch {
	case given > 1:
		return usagef("--port, --vsock and --socket are three ways to the lab: give one of them")
	case given == 0:
		return agent.ServeGuest(c.Context(), o)
	case a.socket != "":
		return agent.ServeSocket(c.Context(), a.socket, o)
	case c.Flags().Changed("port"):
		return agent.ServePort(c.Context(), a.port, o)
	case a.vsock == 0:
		return usagef("--vsock 0, --socket \"\": want a port of the host from 1 to 4294967295, or the path of a socket")
	}
	return agent.ServeVsock(c.Context(), a.vsock, o)
}
