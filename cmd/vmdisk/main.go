// Command vmdisk serves, copies, measures and inspects virtual machines' disks.
//
// Each verb is one file here: flags in, one call down, text or JSON out.
package main

import (
	"io"
	"os"

	"github.com/spf13/cobra"

	"github.com/vmdisk/vmdisk/lab/agent"
)

func main() {
	if os.Getpid() == 1 && os.Args[0] == "/init" {
		// A guest of the lab, whose init this program is: not merely the first process
		// of a container, which does not want its machine powered off.
		agent.Init(agent.Options{Version: buildVersion().Version})
	}
	exit(run(os.Args[1:], os.Stdout, os.Stderr))
}

// The groups of commands, in the order of the help.
const (
	groupImages   = "images"
	groupCopying  = "copying"
	groupServing  = "serving"
	groupMeasures = "measures"
	groupProgram  = "program"
)

// verbs are the commands of this build, in the order of the help. A verb is
// listed once its code works.
var verbs = []struct {
	group string
	make  func() *cobra.Command
}{
	{groupImages, newCreate},
	{groupImages, newInfo},
	{groupImages, newMap},
	{groupImages, newResize},
	{groupImages, newMeasure},
	{groupImages, newCheck},
	{groupCopying, newCopy},
	{groupCopying, newConvert},
	{groupCopying, newDD},
	{groupCopying, newCompare},
	{groupCopying, newChecksum},
	{groupServing, newServe},
	{groupServing, newDaemon},
	{groupServing, newTicket},
	{groupMeasures, newBench},
	{groupMeasures, newLab},
	{groupProgram, newVersion},
	{groupProgram, newMan},
}

// run is the program without the process around it; it returns the exit status.
func run(args []string, stdout, stderr io.Writer) int {
	ctx, stop := untilSignal()
	defer stop()
	root, args := newRoot(), signedSize(args)
	root.SetArgs(args)
	root.SetOut(stdout)
	root.SetErr(stderr)
	if err := knownVerb(root, args); err != nil {
		return finish(ctx, root, err, stderr)
	}
	cmd, err := root.ExecuteContextC(ctx)
	return finish(ctx, cmd, err, stderr)
}

func newRoot() *cobra.Command {
	var version bool
	root := &cobra.Command{
		Use:   "vmdisk",
		Short: "Serve, copy, measure and inspect virtual machines' disks",
		Long: `vmdisk serves, copies, measures and inspects virtual machines' disks.

A DISK is a path or a URL:
  /path  ./path  file:/path       local file or block device
  FORMAT:DISK                     a format over a disk: qcow2:nbd://host/export;
                                  raw: takes the bytes as they are; or -f FORMAT
  nbd://host[:10809]/export       NBD server; nbds:// with TLS
  nbd+unix:///export?socket=PATH  NBD server on a unix socket
  nbd+vsock://CID:PORT/export     NBD server by vsock; a guest calls its host 2
  nbds+unix://  nbds+vsock://     the same with TLS
  mem:SIZE null:SIZE pattern:SIZE RAM disk, discard-all, self-describing data

Exit status: 0 done, 1 failed, 2 wrong usage, 130 after SIGINT, 143 after SIGTERM.
compare: 1 different, 2 any error.`,
		SilenceUsage:  true,
		SilenceErrors: true,
		Args:          cobra.ArbitraryArgs, // knownVerb refuses them
		RunE: func(c *cobra.Command, _ []string) error {
			if version {
				return printVersion(c.OutOrStdout())
			}
			return c.Help()
		},
	}
	root.Flags().BoolVarP(&version, "version", "V", false, "print the version of this program")
	root.SetFlagErrorFunc(flagError)
	for _, verb := range verbs {
		c := verb.make()
		c.GroupID = verb.group
		root.AddCommand(c)
	}
	setHelp(root)
	completeAll(root)
	return root
}
