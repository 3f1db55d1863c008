package main

import (
	"context"
	"errors"
	"fmt"
	"net/url"
	"path/filepath"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"github.com/vmdisk/vmdisk/disk"
	"github.com/vmdisk/vmdisk/diskurl"
	"github.com/vmdisk/vmdisk/nbd"
)

// export is a disk that is served, whatever the front end.
type export struct {
	// Name and Description are what clients see of it.
	Name, Description string
	Disk              *disk.Disk
	// ReadOnly refuses changes even where the disk would allow them.
	ReadOnly bool
}

// exportFlags say what clients see of the disks besides their content.
type exportFlags struct {
	name         string
	descriptions []string
}

func (e *exportFlags) register(c *cobra.Command) {
	fl := c.Flags()
	fl.StringVarP(&e.name, "export-name", "x", "", "name of a lone DISK, taken as it is")
	fl.StringArrayVarP(&e.descriptions, "description", "D", nil, "TEXT for people who list the exports; of several disks NAME=TEXT; repeatable")
}

// exportArg splits NAME=DISK. What has a slash or colon before the first = is a
// path or URL without a name, so a name has these escaped.
func exportArg(arg string, lone bool) (name, rawURL string, err error) {
	name, rawURL, ok := strings.Cut(arg, "=")
	switch {
	case ok && !strings.ContainsAny(name, "/:"):
		name, err = unescapeName(name)
		return name, rawURL, err
	case lone:
		return "", arg, nil
	}
	u, err := diskurl.Parse(arg)
	if err != nil {
		return "", "", err
	}
	if name = filepath.Base(u.Path()); !u.Local() || nbd.CheckString([]byte(name), "") != nil {
		return "", "", usagef("%s needs a name among several disks: NAME=%s", arg, arg)
	}
	return name, arg, nil
}

// unescapeName turns NAME into the name on the wire.
func unescapeName(text string) (string, error) {
	name, err := url.PathUnescape(text)
	if err != nil {
		return "", usagef("export name %q: %v; a %% itself is written %%25", text, err)
	}
	if name == "" {
		return "", usagef("the name before = is empty; give a lone DISK no name, or write ./=... if it is a file")
	}
	return name, checkName(name)
}

func checkName(name string) error {
	if err := nbd.CheckString([]byte(name), "it"); err != nil {
		return usagef("export name %.60q: %v", name, err)
	}
	return nil
}

// rename gives the lone one of the exports its name.
func (e *exportFlags) rename(exports []export) error {
	switch {
	case e.name == "":
		return nil
	case len(exports) != 1:
		return usagef("--export-name is for a lone DISK; write NAME=DISK for each of several")
	case exports[0].Name != "":
		return usagef("--export-name %q: the disk is named %q already", e.name, exports[0].Name)
	}
	exports[0].Name = e.name
	return checkName(e.name)
}

// describe gives the exports their descriptions.
func (e *exportFlags) describe(exports []export) error {
	for _, text := range e.descriptions {
		of := &exports[0]
		if len(exports) > 1 {
			name, rest, ok := strings.Cut(text, "=")
			if !ok {
				return usagef("--description %q: which of the disks? want NAME=TEXT", text)
			}
			name, err := unescapeName(name)
			if err != nil {
				return err
			}
			if of, text = exportNamed(exports, name), rest; of == nil {
				return usagef("--description: no export is named %q", name)
			}
		}
		if of.Description != "" {
			return usagef("--description %q: the disk has one already", text)
		}
		if err := nbd.CheckString([]byte(text), "it"); err != nil {
			return usagef("--description %.60q: %v", text, err)
		}
		of.Description = text
	}
	return nil
}

func exportNamed(exports []export, name string) *export {
	for i := range exports {
		if exports[i].Name == name {
			return &exports[i]
		}
	}
	return nil
}

// exports names the disks, none of which is open yet; urls are theirs.
func (e *exportFlags) exports(arg []string) (exports []export, urls []string, err error) {
	for _, a := range arg {
		name, rawURL, err := exportArg(a, len(arg) == 1)
		if err != nil {
			return nil, nil, err
		}
		exports, urls = append(exports, export{Name: name}), append(urls, rawURL)
	}
	if err := e.rename(exports); err != nil {
		return nil, nil, err
	}
	return exports, urls, e.describe(exports)
}

// open opens the disks. The exports returned are those that are open, even with an error.
func (f *serveFlags) open(ctx context.Context, arg []string) ([]export, error) {
	o := f.options
	o.Cache, o.AIO, o.Maps = f.cache.value, f.aio.value, f.maps
	exports, urls, err := f.names.exports(arg)
	if err == nil {
		err = f.limits.check()
	}
	if err != nil {
		return nil, err
	}
	for i := range exports {
		d, err := f.openOne(ctx, urls[i], o)
		if err != nil {
			return exports[:i], err
		}
		exports[i].Disk, exports[i].ReadOnly = d, o.ReadOnly
		if err := f.maps.check(d); err != nil {
			return exports[:i+1], err
		}
	}
	return exports, nil
}

// openOne opens a disk, one that can only be read to be read: nothing asks for more
// unless a client does, who is told.
func (f *serveFlags) openOne(ctx context.Context, rawURL string, o diskurl.Options) (*disk.Disk, error) {
	d, err := diskurl.Open(ctx, rawURL, o)
	why := ""
	if !o.ReadOnly && errors.Is(err, disk.ErrReadOnly) {
		why = ": " + err.Error()
		o.ReadOnly = true
		d, err = diskurl.Open(ctx, rawURL, o)
	}
	if err == nil && d.Info().ReadOnly && !f.options.ReadOnly && !slices.Contains(o.Filters, "readonly") {
		fmt.Fprintf(f.notes, "vmdisk: serve: %s is served read-only%s\n", rawURL, why)
	}
	return d, err
}
