package main

import (
	"errors"

	"github.com/spf13/cobra"

	"github.com/vmdisk/vmdisk/lab/agent"
)

func newLabAgent() *cobra.Command {
	var port, socket string
	c := &cobra.Command{
		Use:   "agent",
		Short: "Be a node of an experiment, in a guest or on this host",
		Long: `Serve an experiment that runs elsewhere: prepare this node's disk, run job files
when told to, and say what they did. In a guest it uses the virtio-serial port that
the lab gives it, so a guest image takes part when its init system starts
"vmdisk lab agent". Whoever holds the other end can write to this machine's disks.`,
		Args: args(0, 0, "no arguments"),
		RunE: func(c *cobra.Command, _ []string) error {
			o := agent.Options{Version: buildVersion().Version}
			var err error
			if socket != "" {
				err = agent.ServeSocket(c.Context(), socket, o)
			} else {
				err = agent.ServePort(c.Context(), port, o)
			}
			if errors.Is(err, agent.ErrPowerOff) {
				return nil
			}
			return err
		},
	}
	c.Flags().StringVar(&port, "port", agent.Port, "`name` of the virtio-serial port")
	c.Flags().StringVar(&socket, "socket", "", "connect to the unix socket at this `path` instead")
	return c
}
