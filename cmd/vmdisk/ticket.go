package main

import (
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/vmdisk/vmdisk/diskurl"
	"github.com/vmdisk/vmdisk/imageio/client"
)

// ticketFlags are common to the verbs below ticket.
type ticketFlags struct {
	control string
	json    bool
}

func newTicket() *cobra.Command {
	f := &ticketFlags{}
	c := &cobra.Command{
		Use:   "ticket",
		Short: "Manage the transfer service's tickets",
		Args:  args(0, 0, "one of add, show, extend, remove"),
		RunE: func(c *cobra.Command, _ []string) error {
			return usagef("want one of add, show, extend, remove; see `vmdisk ticket --help`")
		},
	}
	c.PersistentFlags().StringVar(&f.control, "control", "unix:/run/ovirt-imageio/sock", "the daemon's control service: unix:PATH or HOST:PORT")
	c.PersistentFlags().BoolVar(&f.json, "json", false, "print JSON")
	c.AddCommand(f.newAdd(), f.newShow(), f.newExtend(), f.newRemove())
	return c
}

// with calls the daemon.
func (f *ticketFlags) with(do func(*client.Control) error) error {
	control, err := client.DialControl(f.control)
	if err != nil {
		return usage(err)
	}
	defer control.Close()
	if err := do(control); err != nil {
		return fmt.Errorf("%s: %w", f.control, err)
	}
	return nil
}

func (f *ticketFlags) newAdd() *cobra.Command {
	spec := client.TicketSpec{}
	var size sizeFlag
	c := &cobra.Command{
		Use:   "add DISK | add --file FILE.json",
		Short: "Install a ticket and print its id",
		Long: `Install a ticket for DISK and print its id, the only credential of the transfer.

DISK is a path, an NBD URI (nbd://HOST:PORT/NAME, nbd+unix:///NAME?socket=PATH), or a URL as
tickets have them: nbd:unix:PATH[:exportname=NAME], https://HOST:54322/images/TICKET. --size is the size of a local file that
exists, if it is not given.`,
		Example: `  id=$(vmdisk ticket add /var/lib/images/disk.raw)
  vmdisk ticket add nbd:unix:/run/nbd.sock --size 10G --ops read --timeout 3600`,
		Args: args(0, 1, "one DISK, or --file"),
	}
	fl := c.Flags()
	file := fl.String("file", "", "install the ticket in this JSON file, - for standard input")
	fl.StringVar(&spec.UUID, "id", "", "the ticket's id (default: a random one)")
	fl.Var(&size, "size", "bytes of the image that may be transferred")
	fl.StringSliceVar(&spec.Ops, "ops", []string{"write"}, "read, write; write implies reading")
	fl.Int64Var(&spec.Timeout, "timeout", 300, "seconds without activity after which the ticket expires")
	fl.Int64Var(&spec.InactivityTimeout, "inactivity-timeout", 0, "seconds without activity after which a connection is closed (0: the daemon's default)")
	fl.StringVar(&spec.TransferID, "transfer-id", "", "names the transfer in the daemon's log")
	fl.StringVar(&spec.Filename, "filename", "", "name that a browser saves the image under")
	fl.BoolVar(&spec.Sparse, "sparse", false, "zeroing may free the space")
	fl.BoolVar(&spec.Dirty, "dirty", false, "offer the extents of the dirty bitmap")
	c.RunE = func(c *cobra.Command, a []string) error {
		text, err := f.ticketText(c, &spec, a, *file, int64(size))
		if err != nil {
			return err
		}
		if err := f.with(func(t *client.Control) error { return t.Add(c.Context(), text) }); err != nil {
			return err
		}
		return f.printAdded(c, text)
	}
	return c
}

// changedSpec is the first flag given that says something of the ticket itself.
func changedSpec(c *cobra.Command) (name string) {
	c.LocalNonPersistentFlags().VisitAll(func(f *pflag.Flag) {
		if f.Changed && f.Name != "file" && name == "" {
			name = f.Name
		}
	})
	return name
}

func (f *ticketFlags) ticketText(c *cobra.Command, spec *client.TicketSpec, a []string, file string, size int64) ([]byte, error) {
	switch {
	case (file == "") == (len(a) == 0):
		return nil, usagef("want one DISK or --file FILE.json, and not both")
	case file != "" && changedSpec(c) != "":
		return nil, usagef("--%s does not change a ticket of --file; change it in the file", changedSpec(c))
	case file == "-":
		return io.ReadAll(c.InOrStdin())
	case file != "":
		return os.ReadFile(file)
	}
	if len(spec.Ops) == 0 {
		return nil, usagef("--ops is empty: want read, write or both")
	}
	for _, op := range spec.Ops {
		if op != "read" && op != "write" {
			return nil, usagef("--ops %s: want read, write or both", op)
		}
	}
	var err error
	if spec.URL, spec.Size, err = ticketURL(a[0], size); err != nil {
		return nil, err
	}
	if spec.UUID == "" {
		spec.UUID = newUUID()
	}
	return json.Marshal(spec)
}

// ticketURL makes a ticket's url of a path, and finds the size of what exists.
func ticketURL(target string, size int64) (string, int64, error) {
	u, err := diskurl.Parse(target)
	if u.Formats != "" && u.Formats != diskurl.FormatRaw {
		return "", 0, usagef("%s: the transfer service serves the bytes of a disk as they are; write it without %s:", target, u.Formats)
	}
	local := err == nil && u.Local()
	if !local && size <= 0 {
		return "", 0, usagef("--size is needed for %s", target)
	}
	if !local {
		text, err := remoteTicketURL(target, &u)
		return text, size, err
	}
	path, err := filepath.Abs(u.Path())
	if err != nil {
		return "", 0, err
	}
	if size <= 0 {
		f, err := os.Open(path)
		if err != nil {
			return "", 0, fmt.Errorf("find the size (or give --size): %w", err)
		}
		defer f.Close()
		if size, err = f.Seek(0, io.SeekEnd); err != nil {
			return "", 0, fmt.Errorf("find the size (or give --size): %w", err)
		}
	}
	return "file://" + path, size, nil
}

// remoteTicketURL turns an NBD URI into the form of tickets, where no name is escaped.
func remoteTicketURL(target string, u *diskurl.URL) (string, error) {
	a, ok := u.Addr.(diskurl.NBDAddr)
	if !ok {
		return target, nil // one that is a ticket's already, or that the daemon refuses
	}
	export := ""
	if a.Export != "" {
		export = ":exportname=" + a.Export
	}
	switch {
	case a.TLS:
		return "", usagef("%s: the transfer service reaches NBD servers without TLS alone", target)
	case a.Network == "tcp":
		return "nbd:" + a.Host + export, nil
	case a.Network == "unix":
		path, err := filepath.Abs(a.Host)
		if err == nil && strings.Contains(path, ":") {
			err = usagef("%s: a ticket cannot name a socket with a colon in its path", target)
		}
		return "nbd:unix:" + path + export, err
	}
	return target, nil // one that is a ticket's already, or that the daemon refuses
}

// newUUID is a random UUID (RFC 9562, version 4).
func newUUID() string {
	var b [16]byte
	rand.Read(b[:]) // never fails
	b[6], b[8] = b[6]&0x0f|0x40, b[8]&0x3f|0x80
	return fmt.Sprintf("%x-%x-%x-%x-%x", b[:4], b[4:6], b[6:8], b[8:10], b[10:])
}

func (f *ticketFlags) printAdded(c *cobra.Command, text []byte) error {
	var spec client.TicketSpec
	if err := json.Unmarshal(text, &spec); err != nil {
		return err
	}
	if f.json {
		return writeJSON(c.OutOrStdout(), spec)
	}
	_, err := fmt.Fprintln(c.OutOrStdout(), spec.UUID)
	return err
}

func (f *ticketFlags) newShow() *cobra.Command {
	c := &cobra.Command{
		Use:     "show ID",
		Short:   "Show a ticket and how far its transfer is",
		Example: "  vmdisk ticket show \"$id\" --watch",
		Args:    args(1, 1, "one ticket ID"),
	}
	watch := c.Flags().BoolP("watch", "w", false, "show the progress until the clients have left or the ticket is gone")
	every := c.Flags().Duration("interval", time.Second, "time between two lines of --watch")
	c.RunE = func(c *cobra.Command, a []string) error {
		return f.with(func(t *client.Control) error {
			if *watch {
				return f.watch(c, t, a[0], *every)
			}
			info, err := t.Show(c.Context(), a[0])
			if err != nil {
				return err
			}
			return f.print(c.OutOrStdout(), &info)
		})
	}
	return c
}

func (f *ticketFlags) print(w io.Writer, info *client.TicketInfo) error {
	if f.json {
		return writeJSON(w, info)
	}
	state := "idle for " + (time.Duration(info.IdleTime) * time.Second).String()
	if info.Active {
		state = "active"
	}
	if info.Canceled {
		state = "canceled"
	}
	transferred := "not counted (the ticket reads and writes)"
	if info.Transferred != nil {
		transferred = fmt.Sprintf("%s, %.1f %%", sizeText(*info.Transferred), percent(*info.Transferred, info.Size))
	}
	_, err := fmt.Fprintf(w, "transfer:    %s\nurl:         %s\nsize:        %s\nops:         %s\nstate:       %s\nconnections: %d\ntransferred: %s\ntimeout:     %d s\n",
		info.TransferID, info.URL, sizeText(info.Size), strings.Join(info.Ops, ","), state, info.Connections, transferred, info.Timeout)
	return err
}

func percent(part, whole int64) float64 {
	if whole == 0 {
		return 100
	}
	return 100 * float64(part) / float64(whole)
}

// watch prints a line whenever something changed, until the clients that came
// have left or the ticket is gone.
func (f *ticketFlags) watch(c *cobra.Command, t *client.Control, id string, every time.Duration) error {
	if every <= 0 {
		return usagef("--interval %s: want more than 0", every)
	}
	tick := time.NewTicker(every)
	defer tick.Stop()
	start, last := time.Now(), client.TicketInfo{Size: -1}
	for begun := false; ; {
		info, err := t.Show(c.Context(), id)
		var status *client.StatusError
		if last.Size >= 0 && errors.As(err, &status) && status.Status == 404 {
			return nil // removed by whoever installed it
		}
		if err != nil {
			return err
		}
		if changed(&last, &info) {
			if err := f.progressLine(c.OutOrStdout(), &info, time.Since(start)); err != nil {
				return err
			}
		}
		last, begun = info, begun || info.Connections > 0 || moved(&info) > 0
		if info.Canceled || begun && info.Connections == 0 {
			return nil
		}
		select {
		case <-tick.C:
		case <-c.Context().Done():
			return context.Cause(c.Context())
		}
	}
}

func moved(info *client.TicketInfo) int64 {
	if info.Transferred == nil {
		return 0
	}
	return *info.Transferred
}

func changed(a, b *client.TicketInfo) bool {
	return a.Size != b.Size || moved(a) != moved(b) || a.Connections != b.Connections || a.Canceled != b.Canceled
}

func (f *ticketFlags) progressLine(w io.Writer, info *client.TicketInfo, since time.Duration) error {
	if f.json {
		return json.NewEncoder(w).Encode(info)
	}
	_, err := fmt.Fprintf(w, "%6.1fs %5.1f %% %s of %s, %d connections\n", since.Seconds(), percent(moved(info), info.Size),
		diskurl.FormatSize(moved(info)), diskurl.FormatSize(info.Size), info.Connections)
	return err
}

func (f *ticketFlags) newExtend() *cobra.Command {
	c := &cobra.Command{Use: "extend ID", Short: "Let a ticket live on, also one that has expired", Args: args(1, 1, "one ticket ID")}
	timeout := c.Flags().Int64("timeout", 300, "seconds from now")
	c.RunE = func(c *cobra.Command, a []string) error {
		if *timeout < 0 {
			return usagef("--timeout %d: want 0 or more", *timeout)
		}
		return f.with(func(t *client.Control) error { return t.Extend(c.Context(), a[0], *timeout) })
	}
	return c
}

func (f *ticketFlags) newRemove() *cobra.Command {
	c := &cobra.Command{
		Use:   "remove ID... | remove --all",
		Short: "Cancel and remove tickets",
		Long:  "Cancel tickets and remove them once nothing uses them. --all forgets every ticket at once; running requests finish.",
		Args:  args(0, -1, "ticket IDs or --all"),
	}
	all := c.Flags().Bool("all", false, "remove every ticket")
	c.RunE = func(c *cobra.Command, a []string) error {
		if *all == (len(a) > 0) {
			return usagef("want ticket IDs or --all")
		}
		return f.with(func(t *client.Control) error {
			if *all {
				return t.RemoveAll(c.Context())
			}
			for _, id := range a {
				if err := t.Remove(c.Context(), id); err != nil {
					return err
				}
			}
			return nil
		})
	}
	return c
}
