package main

import (
	"context"
	"fmt"
	"net/url"
	"os"
	"time"

	"github.com/spf13/cobra"

	"github.com/vmdisk/vmdisk/disk"
	"github.com/vmdisk/vmdisk/diskurl"
	"github.com/vmdisk/vmdisk/imageio/server"
)

func newDaemon() *cobra.Command {
	var confDir, ticket string
	var show bool
	sandbox := newSandboxFlag()
	c := &cobra.Command{
		Use:   "daemon",
		Short: "Run the image transfer service, a drop-in for oVirt's",
		Long: `Run the image transfer service of oVirt: tickets installed over a control socket, images read
and written over HTTPS and a unix socket. It reads the same DIR/conf.d/*.conf files.

SIGINT or SIGTERM lets the running requests finish and ends it.`,
		Example: `  vmdisk daemon --conf-dir /etc/ovirt-imageio
  vmdisk daemon --conf-dir conf --show-config`,
		Args: args(0, 0, "no arguments"),
		RunE: func(c *cobra.Command, _ []string) error {
			cfg, err := server.ReadConfig(confDir)
			if err == nil && show {
				return writeJSON(c.OutOrStdout(), cfg.Map())
			}
			if err == nil {
				err = cfg.Check()
			}
			if err != nil {
				return err
			}
			return runDaemon(c.Context(), cfg, ticket, sandbox.value)
		},
	}
	c.Flags().StringVarP(&confDir, "conf-dir", "c", "/etc/ovirt-imageio", "directory that holds conf.d/*.conf")
	c.Flags().BoolVar(&show, "show-config", false, "print the configuration in force as JSON, and end")
	c.Flags().StringVarP(&ticket, "ticket", "t", "", "install the ticket of this JSON file at the start")
	c.Flags().Var(sandbox, "sandbox", "run no programs, make no files but the log's and gain no privileges: auto (as far as the kernel can), on (or fail) or off")
	return c
}

func runDaemon(ctx context.Context, cfg *server.Config, ticket, sandbox string) error {
	s, err := server.New(cfg, openTicket(cfg))
	if err != nil {
		return err
	}
	if err := s.DropPrivileges(); err != nil {
		s.Close()
		return err
	}
	if ticket != "" {
		if err := addTicketFile(s, ticket); err != nil {
			s.Close()
			return err
		}
	}
	if err := restrictTo(sandbox, daemonNeeds(cfg), s.LogDebug); err != nil {
		s.Close()
		return err
	}
	confined()
	return s.Serve(ctx)
}

func addTicketFile(s *server.Server, path string) error {
	text, err := os.ReadFile(path)
	if err == nil {
		_, err = s.Tickets().Add(text)
	}
	if err != nil {
		return fmt.Errorf("ticket of %s: %w", path, err)
	}
	return nil
}

// backEndLimit is how long a request waits for a back end that is gone: the
// daemon's clients give up after 60 s without an answer, and had better be told.
const backEndLimit = 20 * time.Second

// openTicket opens tickets' disks as the configuration says. Local files are
// shared: other tickets of the daemon and other programs of the host may use
// them, as with the original.
func openTicket(cfg *server.Config) server.Opener {
	ca := cfg.BackendHTTP.CAFile
	if ca == "" {
		ca = cfg.TLS.CAFile
	}
	return func(ctx context.Context, u *url.URL, a server.Access) (*disk.Disk, error) {
		maps := []disk.MapName{disk.Depth}
		if a.Dirty {
			maps = append(maps, disk.DirtyPrefix)
		}
		return diskurl.OpenTicket(ctx, u, diskurl.Options{
			ReadOnly:      !a.Write,
			FileOptions:   diskurl.FileOptions{ForceShare: true, Cache: cfg.BackendFile.Cache},
			ServerOptions: diskurl.ServerOptions{Maps: maps, Connections: cfg.Daemon.MaxConnections, Reconnect: backEndLimit, TLS: diskurl.TLS{CA: ca}},
		})
	}
}
