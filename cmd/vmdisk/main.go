// Command vmdisk serves, copies, measures and inspects virtual machines' disks.
//
// Each verb is one file here: flags in, one call down, text or JSON out.
package main

import (
	"context"
	"io"
	"os"
	"os/signal"
	"syscall"
	"time"

	"github.com/spf13/cobra"

	"github.com/vmdisk/vmdisk/lab/agent"
)

func main() {
	if os.Getpid() == 1 && os.Args[0] == "/init" {
		// A guest of the lab, whose init this program is: not merely the first process
		// of a container, which does not want its machine powered off.
		agent.Init(agent.Options{Version: buildVersion().Version})
	}
	os.Exit(run(os.Args[1:], os.Stdout, os.Stderr))
}

// verbs are the commands of this build, in the order of the help. A verb is
// listed once its code works.
var verbs = []func() *cobra.Command{
	newServe,
	newCopy,
	newCompare,
	newChecksum,
	newCreate,
	newInfo,
	newMap,
	newResize,
	newLab,
	newDaemon,
	newTicket,
	newBench,
	newVersion,
	newMan,
}

// sameSignal is how long a signal that follows another is taken for the same one:
// timeout(1) sends its signal to the process and once more to the group, and a copy that
// was ended by both left no word and no checkpoint.
const sameSignal = 500 * time.Millisecond

// run is the program without the process around it; it returns the exit status.
func run(args []string, stdout, stderr io.Writer) int {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	// A second signal ends the process at once.
	context.AfterFunc(ctx, func() { time.AfterFunc(sameSignal, stop) })

	root := newRoot()
	root.SetArgs(args)
	root.SetOut(stdout)
	root.SetErr(stderr)
	cmd, err := root.ExecuteContextC(ctx)
	return finish(ctx, cmd, err, stderr)
}

func newRoot() *cobra.Command {
	root := &cobra.Command{
		Use:   "vmdisk",
		Short: "Serve, copy, measure and inspect virtual machines' disks",
		Long: `vmdisk serves, copies, measures and inspects virtual machines' disks.

A DISK is a path or a URL:
  /path  ./path  file:/path       local file or block device
  raw:/path                       the same, content taken as it is
  nbd://host[:10809]/export       NBD server; nbds:// with TLS
  nbd+unix:///export?socket=PATH  NBD server on a unix socket; nbds+unix:// with TLS
  nbd+vsock://CID:PORT/export     NBD server by vsock; a guest calls its host 2; nbds+vsock:// with TLS
  mem:SIZE null:SIZE pattern:SIZE RAM disk, discard-all, self-describing data

Exit status: 0 done, 1 failed, 2 wrong usage. compare: 1 different, 2 any error.`,
		SilenceUsage:  true,
		SilenceErrors: true,
		Args:          rootArgs,
		RunE:          func(c *cobra.Command, _ []string) error { return c.Help() },
	}
	root.SetFlagErrorFunc(func(_ *cobra.Command, err error) error { return usage(err) })
	for _, verb := range verbs {
		root.AddCommand(verb())
	}
	return root
}

// rootArgs reports an unknown verb in one line.
func rootArgs(c *cobra.Command, args []string) error {
	if len(args) == 0 {
		return nil
	}
	c.SuggestionsMinimumDistance = 2
	hint := ""
	if near := c.SuggestionsFor(args[0]); len(near) > 0 {
		hint = "; did you mean " + near[0] + "?"
	}
	return usagef("unknown command %q%s; `vmdisk help` lists them", args[0], hint)
}
