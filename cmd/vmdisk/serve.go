package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"os"
	"strconv"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/sync/errgroup"

	"github.com/vmdisk/vmdisk/diskurl"
	"github.com/vmdisk/vmdisk/internal/confine"
)

// drainTime is how long requests in flight may take after a signal.
const drainTime = 10 * time.Second

type serveFlags struct {
	options   diskurl.Options
	cache     *choice
	aio       *choice
	nbd       []string
	maps      mapsFlag
	tls       *choice
	sockets   socketFlags
	sandbox   sandboxFlags
	cert, key string
	clientCA  string
	run       string
	pidFile   string
	json      bool
	verbose   bool
	names     exportFlags
	limits    limitFlags
	notes     io.Writer // what people should know
}

func newServe() *cobra.Command {
	f := serveFlags{cache: newCacheFlag(), aio: newAIOFlag(), tls: newChoice("", "off", "on", "require")}
	c := &cobra.Command{
		Use:   "serve DISK... | NAME=DISK...",
		Short: "Serve disks over NBD",
		Long: `Serve disks over NBD until SIGINT or SIGTERM, then finish what has begun and flush.

A lone DISK is the default export; of several disks, one without NAME takes its file's name. NAME
is any UTF-8; in it, / : = and % are written %2F %3A %3D and %25 (--export-name takes the name of a
lone DISK as it is). A second signal, half a second later or more, ends the program at once.

Without --nbd, sockets handed over by systemd (LISTEN_FDS) are served; else --run makes a
private unix socket, and otherwise ` + defaultListen + ` is used.

Filters (--filter NAME[:KEY=VALUE,...], the first is outermost):
` + filterHelp(),
		Example: `  vmdisk serve disk.raw --nbd unix:/run/disk.sock
  vmdisk serve a=a.raw b=/dev/vg/b --nbd :10809 --tls-cert c.pem --tls-key k.pem
  vmdisk serve 'Server 1%2Froot=a.raw' b=b.raw --description 'b=the second disk'
  vmdisk serve mem:1G --filter delay:write=40ms --run 'nbdinfo "$uri"'`,
		Args: args(1, -1, "at least one DISK"),
		RunE: func(c *cobra.Command, a []string) error { return f.serve(c, a) },
	}
	fl := c.Flags()
	fl.StringArrayVar(&f.nbd, "nbd", nil, "listen on unix:PATH or HOST:PORT; repeatable")
	fl.BoolVarP(&f.options.ReadOnly, "read-only", "r", false, "let nobody write")
	fl.Var(&f.maps, "map", "pass on a map of the disks besides allocation: dirty:NAME or depth; repeatable")
	fl.StringVarP(&f.options.Format, "format", "f", "", "format of the disks: raw or qcow2")
	fl.StringArrayVar(&f.options.Filters, "filter", nil, "put a filter over every disk; repeatable")
	fl.BoolVarP(&f.options.ForceShare, "force-share", "U", false, "serve local disks although others use them")
	registerBacking(fl, &f.options)
	fl.Var(f.cache, "cache", "cache mode of local files, as QEMU names them")
	fl.Var(f.aio, "aio", "asynchronous I/O of local files")
	fl.IntVar(&f.options.Connections, "connections", 0, "connections to the NBD server behind a disk at most (0: the default)")
	fl.Var((*patienceFlag)(&f.options.Reconnect), "reconnect", "try this long to get a lost NBD server behind a disk back (0: not at all)")
	registerTimeout(fl, &f.options, timeoutFlag)
	fl.Var(f.tls, "tls", "TLS: off, on (the client chooses) or require (default: require if there is a certificate)")
	fl.Var((*named)(&f.cert), "tls-cert", "certificate of this server, PEM")
	fl.Var((*named)(&f.key), "tls-key", "key of the certificate, PEM")
	fl.Var((*named)(&f.clientCA), "tls-ca", "demand client certificates signed by one of this PEM file")
	f.sockets.register(fl)
	f.sandbox.register(fl)
	fl.StringVar(&f.run, "run", "", "run a shell command with $uri set, end when it ends, with its exit status")
	fl.StringVar(&f.pidFile, "pid-file", "", "write the process id here once connections are accepted")
	fl.BoolVar(&f.json, "json", false, "print what is served as JSON")
	fl.BoolVarP(&f.verbose, "verbose", "v", false, "log clients that come to nothing too, not only trouble")
	f.names.register(c)
	f.limits.register(c)
	return c
}

type servedExport struct {
	Name     string   `json:"name"`
	Disk     string   `json:"disk"`
	Size     int64    `json:"size"`
	ReadOnly bool     `json:"read_only"`
	URIs     []string `json:"uris"`
}

func (f *serveFlags) serve(c *cobra.Command, arg []string) (err error) {
	ctx := c.Context()
	fronts := f.frontEnds()
	for _, front := range fronts {
		if err := front.prepare(); err != nil {
			return err
		}
	}
	account, err := f.sandbox.account()
	if err != nil {
		return err
	}
	f.notes = c.ErrOrStderr()
	exports, err := f.open(ctx, arg)
	defer func() {
		for _, e := range exports {
			err = errors.Join(err, e.Disk.Close())
		}
	}()
	if err != nil {
		return err
	}
	given, err := activated()
	if err != nil {
		return err
	}
	level := slog.LevelWarn
	if f.verbose {
		level = slog.LevelInfo
	}
	log := slog.New(slog.NewTextHandler(c.ErrOrStderr(), &slog.HandlerOptions{Level: level}))
	defer endAll(fronts)
	for _, front := range fronts {
		if err := front.listen(serving{exports, given, account, log}); err != nil {
			return err
		}
	}
	served := describe(exports, fronts)
	command, err := f.begin(served, account, log, f.needs(disksOf(arg), fronts))
	if err != nil {
		return errors.Join(err, f.removePID())
	}
	// Standard output is the command's under --run, and the client's where it
	// handed over the sockets; unless JSON is asked for.
	announce := f.json || f.run == "" && len(given) == 0
	return f.until(ctx, fronts, func(ctx context.Context) error {
		if announce {
			if err := f.announce(c.OutOrStdout(), served); err != nil {
				command.end()
				return err
			}
		}
		if command != nil {
			return command.wait(ctx)
		}
		<-ctx.Done()
		return nil
	})
}

// begin does the last that needs rights, and gives them up.
func (f *serveFlags) begin(served []servedExport, account *confine.Account, log *slog.Logger, needs confine.Needs) (command *runCommand, err error) {
	if f.run != "" {
		if command, err = startCommand(f.run, served[0].URIs[0], account); err != nil {
			return nil, err
		}
	}
	err = f.writePID()
	if err == nil {
		err = f.sandbox.restrict(needs, account, func(lacks string) { log.Info(lacks) })
	}
	if err != nil {
		command.end()
		return nil, err
	}
	return command, nil
}

// until runs the front ends while work lasts, and drains them after it.
func (f *serveFlags) until(ctx context.Context, fronts []frontEnd, work func(context.Context) error) error {
	group, inner := errgroup.WithContext(ctx)
	for _, front := range fronts {
		group.Go(func() error { return front.run(context.WithoutCancel(ctx)) })
	}
	group.Go(func() error {
		err := work(inner)
		late, cancel := context.WithTimeout(context.WithoutCancel(ctx), drainTime)
		defer cancel()
		for _, front := range fronts {
			err = errors.Join(err, front.drain(late))
		}
		return errors.Join(err, f.removePID())
	})
	return group.Wait()
}

// disksOf are the disks' URLs of serve's arguments.
func disksOf(arg []string) (disks []string) {
	for _, a := range arg {
		if _, rawURL, err := exportArg(a, len(arg) == 1); err == nil {
			disks = append(disks, rawURL)
		}
	}
	return disks
}

func describe(exports []export, fronts []frontEnd) []servedExport {
	var out []servedExport
	for _, e := range exports {
		s := servedExport{Name: e.Name, Disk: e.Disk.Name(), Size: e.Disk.Size(), ReadOnly: e.ReadOnly || e.Disk.Info().ReadOnly}
		for _, front := range fronts {
			s.URIs = append(s.URIs, front.describe(e)...)
		}
		out = append(out, s)
	}
	return out
}

func (f *serveFlags) announce(w io.Writer, served []servedExport) error {
	if f.json {
		return writeJSON(w, served)
	}
	for _, s := range served {
		for _, u := range s.URIs {
			if _, err := fmt.Fprintf(w, "serving %s (%s) at %s\n", s.Disk, sizeText(s.Size), u); err != nil {
				return err
			}
		}
	}
	return nil
}

func (f *serveFlags) writePID() error {
	if f.pidFile == "" {
		return nil
	}
	// Never there half-written: whoever waits for the file reads it at once.
	part := f.pidFile + ".new"
	if err := os.WriteFile(part, []byte(strconv.Itoa(os.Getpid())+"\n"), 0o644); err != nil {
		return fmt.Errorf("--pid-file: %w", err)
	}
	if err := os.Rename(part, f.pidFile); err != nil {
		return fmt.Errorf("--pid-file: %w", errors.Join(err, os.Remove(part)))
	}
	return nil
}

func (f *serveFlags) removePID() error {
	if f.pidFile == "" {
		return nil
	}
	err := os.Remove(f.pidFile)
	if errors.Is(err, fs.ErrPermission) || errors.Is(err, fs.ErrNotExist) {
		return nil // the right was given up with --user; the next server writes it anew
	}
	return err
}
