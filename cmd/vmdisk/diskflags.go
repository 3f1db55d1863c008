package main

import (
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/vmdisk/vmdisk/diskurl"
)

// choice is a flag that takes one of some words; with Set it is a pflag.Value.
type choice struct {
	value   string
	allowed []string
	// other, if not nil, checks what is none of the words.
	other func(string) error
}

func newChoice(def string, allowed ...string) *choice { return &choice{value: def, allowed: allowed} }

func (c *choice) String() string { return c.value }

// Type lists the words, unless they are too many for a line of help; the flag's text does then.
func (c *choice) Type() string {
	if words := strings.Join(c.allowed, "|"); len(words) <= 50 {
		return words
	}
	return "NAME"
}

func (c *choice) Set(s string) error {
	for _, a := range c.allowed {
		if s == a {
			c.value = s
			return nil
		}
	}
	if c.other == nil {
		return fmt.Errorf("want one of %s", strings.Join(c.allowed, ", "))
	}
	if err := c.other(s); err != nil {
		return err
	}
	c.value = s
	return nil
}

// named is a text that is not empty: a variable that is not set, in --tls-ca "$CA", would
// otherwise switch off what the flag asks for.
type named string

func (n *named) String() string { return string(*n) }

func (*named) Type() string { return "string" }

func (n *named) Set(s string) error {
	if s == "" {
		return errors.New("it is empty; leave the flag out, or give it a value")
	}
	*n = named(s)
	return nil
}

// sizeFlag is a size in bytes with an optional unit.
type sizeFlag int64

func (s *sizeFlag) String() string { return diskurl.FormatSize(int64(*s)) }

func (*sizeFlag) Type() string { return "SIZE" }

func (s *sizeFlag) Set(text string) error {
	n, err := diskurl.ParseSize(text)
	*s = sizeFlag(n)
	return err
}

// defaultPatience is the drivers' default of reconnecting and of time-outs.
const defaultPatience = time.Minute

// patienceFlag is a duration in the form of diskurl.Options.Reconnect and Timeout.
type patienceFlag time.Duration

func (r *patienceFlag) String() string {
	switch d := time.Duration(*r); {
	case d == 0:
		return defaultPatience.String()
	case d < 0:
		return "0s"
	default:
		return d.String()
	}
}

func (*patienceFlag) Type() string { return "DURATION" }

func (r *patienceFlag) Set(text string) error {
	d, err := time.ParseDuration(text)
	if err != nil || d < 0 {
		return fmt.Errorf("want a duration such as 30s")
	}
	if d == 0 {
		d = -1
	}
	*r = patienceFlag(d)
	return nil
}

func registerBacking(f *pflag.FlagSet, o *diskurl.Options) {
	f.Var((*backingFlag)(&o.References), "backing", "open the backing and data files that an image names, if they are regular files beneath DIR and it names their format: allow=DIR; repeatable")
}

// backingFlag is what images may name.
type backingFlag diskurl.References

func (*backingFlag) String() string { return "" }

func (*backingFlag) Type() string { return "allow=DIR" }

func (b *backingFlag) Set(text string) error {
	dir, ok := strings.CutPrefix(text, "allow=")
	if !ok || dir == "" {
		return errors.New("want allow=DIR")
	}
	return (*diskurl.References)(b).Allow(dir)
}

func newCacheFlag() *choice {
	return newChoice("writeback", "writeback", "none", "writethrough", "directsync", "unsafe")
}

func newAIOFlag() *choice { return newChoice("auto", "auto", "io_uring", "threads") }

// diskFlags are the flags of verbs that open one disk to look at it.
type diskFlags struct {
	options diskurl.Options
	cache   *choice
	aio     *choice
}

func (d *diskFlags) register(c *cobra.Command) { d.registerBut(c, timeoutFlag) }

// registerBut is register with another name for --timeout.
func (d *diskFlags) registerBut(c *cobra.Command, timeout string) {
	f := c.Flags()
	d.cache, d.aio = newCacheFlag(), newAIOFlag()
	f.StringVarP(&d.options.Format, "format", "f", "", "format of the disk: raw or qcow2 (a file that begins like an image needs it)")
	f.Var(d.cache, "cache", "cache mode of a local file, as QEMU names them")
	f.Var(d.aio, "aio", "asynchronous I/O of a local file")
	f.StringArrayVar(&d.options.Filters, "filter", nil, "put a filter over the disk: NAME[:KEY=VALUE,...]; repeatable, first is outermost")
	registerServer(f, &d.options)
	registerTimeout(f, &d.options, timeout)
}

// timeoutFlag is the name of a flag that fio has for something else.
const timeoutFlag = "timeout"

func registerTimeout(f *pflag.FlagSet, o *diskurl.Options, name string) {
	f.Var((*patienceFlag)(&o.Timeout), name, "give a server up that is silent for this long over a request, ten times as long over a flush, zero or trim (0: never)")
}

// registerShared adds the flags that every verb has which opens a disk.
func registerShared(f *pflag.FlagSet, o *diskurl.Options) {
	registerServer(f, o)
	registerTimeout(f, o, timeoutFlag)
}

func registerServer(f *pflag.FlagSet, o *diskurl.Options) {
	o.FormatFlag = "-f"
	registerBacking(f, o)
	f.BoolVarP(&o.ForceShare, "force-share", "U", false, "read a local disk although others use it")
	f.IntVar(&o.Connections, "connections", 0, "connections to a server at most (0: the default)")
	f.Var((*patienceFlag)(&o.Reconnect), "reconnect", "try this long to get a lost server back (0: not at all)")
	f.BoolVar(&o.NoUnixSocket, "no-unix-socket", false, "keep an https transfer on the network though the daemon runs on this host")
	f.Var((*named)(&o.TLS.CA), "tls-ca", "trust the certificates of this PEM file for nbds and https (default: the system's)")
	f.Var((*named)(&o.TLS.CA), "cafile", "the same as --tls-ca, by the name of oVirt's tools")
	f.Var((*named)(&o.TLS.Cert), "tls-cert", "client certificate, PEM")
	f.Var((*named)(&o.TLS.Key), "tls-key", "key of the client certificate, PEM")
	f.Var((*named)(&o.TLS.Hostname), "tls-hostname", "name that the server's certificate must have (default: the host)")
}

// opening returns the options for a disk that is only read, or not.
func (d *diskFlags) opening(readOnly bool) diskurl.Options {
	o := d.options
	o.ReadOnly = readOnly
	o.Cache, o.AIO = d.cache.value, d.aio.value
	return o
}
