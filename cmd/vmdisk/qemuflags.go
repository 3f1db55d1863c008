package main

import (
	"fmt"
	"io"
	"regexp"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"github.com/vmdisk/vmdisk/diskcopy"
	"github.com/vmdisk/vmdisk/diskurl"
)

// What qemu-img's users have in their fingers and scripts: the same letters, words and
// forms mean the same here.

// The values of --output.
const (
	outputHuman = "human"
	outputJSON  = "json"
)

func newOutputFlag() *choice { return newChoice("", outputHuman, outputJSON) }

const outputHelp = "print what qemu-img prints: human, or json with its field names"

// imageOptions are those of -o: KEY=VALUE[,...].
type imageOptions struct {
	preallocation string
	size          int64 // -1: not given
}

func parseImageOptions(lists []string) (imageOptions, error) {
	o := imageOptions{size: -1}
	for _, pair := range strings.FieldsFunc(strings.Join(lists, ","), func(r rune) bool { return r == ',' }) {
		key, value, _ := strings.Cut(pair, "=")
		switch key {
		case "preallocation":
			if !slices.Contains(preallocations, value) {
				return o, usagef("-o preallocation=%s: a raw image has one of %s", value, strings.Join(preallocations, ", "))
			}
			o.preallocation = value
		case "size":
			var err error
			if o.size, err = diskurl.ParseSize(value); err != nil {
				return o, usagef("-o size: %w", err)
			}
		default:
			return o, usagef("-o %s: a raw image has the options preallocation and size", pair)
		}
	}
	return o, nil
}

var preallocations = []string{"off", "falloc", "full"}

// percentLines writes qemu-img's progress, which scripts read: (45.00/100%), over itself.
func percentLines(w io.Writer) (report func(diskcopy.Progress), end func()) {
	show := func(percent float64) { _, _ = fmt.Fprintf(w, "    (%.2f/100%%)\r", percent) } // nobody who reads it misses more than that
	report = func(p diskcopy.Progress) {
		if p.Total > 0 {
			show(100 * float64(p.Done) / float64(p.Total))
		}
	}
	show(0)
	return report, func() { _, _ = io.WriteString(w, "\n") }
}

var negativeSize = regexp.MustCompile(`^-[0-9.]+[bkKmMgGtTpPeE]?$`)

// signedSize moves a negative size of resize, which looks like a flag, to the end of the
// line, behind --.
func signedSize(args []string) []string {
	if len(args) == 0 || args[0] != "resize" || slices.Contains(args, "--") {
		return args
	}
	at := slices.IndexFunc(args, negativeSize.MatchString)
	if at < 0 {
		return args
	}
	return append(slices.Delete(slices.Clone(args), at, at+1), "--", args[at])
}

// qcow2Verbs are qemu-img's commands that have no meaning for raw images.
var qcow2Verbs = []string{"amend", "bitmap", "commit", "rebase", "snapshot"}

func newCheck() *cobra.Command {
	var d diskFlags
	c := &cobra.Command{
		Use:   "check DISK",
		Short: "Check an image's structure",
		Long: `Check an image's structure. A raw image has none: the exit status is 63, as qemu-img's is.

Exit status: 63 the format has nothing to check, 1 the image cannot be opened.`,
		Args: args(1, 1, "one DISK"),
		RunE: func(c *cobra.Command, a []string) error {
			o := d.opening(true)
			dk, err := diskurl.Open(c.Context(), a[0], o)
			if err != nil {
				return err
			}
			if err := dk.Close(); err != nil {
				return err
			}
			if o.Format != "" && o.Format != diskurl.FormatRaw {
				return fmt.Errorf("%s: this build cannot check the format %s", a[0], o.Format)
			}
			return &statusError{statusUncheckable, fmt.Errorf("%s: a raw image has no structure to check", a[0])}
		},
	}
	d.register(c)
	return c
}

// statusUncheckable is qemu-img's.
const statusUncheckable = 63

func newMeasure() *cobra.Command {
	var d diskFlags
	var size sizeFlag = -1
	var target string
	output := newOutputFlag()
	c := &cobra.Command{
		Use:   "measure DISK | --size SIZE",
		Short: "Tell how much space an image will take",
		Long:  "Tell how large a new image of a disk, or of a size, will be: at least, and fully allocated.",
		Args:  args(0, 1, "one DISK or --size"),
		RunE: func(c *cobra.Command, a []string) error {
			if (len(a) == 1) == c.Flags().Changed("size") {
				return usagef("want either one DISK or --size SIZE")
			}
			if target != diskurl.FormatRaw {
				return fmt.Errorf("format %s: this build measures raw images only", target)
			}
			n := int64(size)
			if len(a) == 1 {
				dk, err := diskurl.Open(c.Context(), a[0], d.opening(true))
				if err != nil {
					return err
				}
				n = dk.Size()
				if err := dk.Close(); err != nil {
					return err
				}
			}
			n = (n + sector - 1) &^ (sector - 1)
			if output.value == outputJSON {
				_, err := fmt.Fprintf(c.OutOrStdout(), "{\n    \"required\": %d,\n    \"fully-allocated\": %d\n}\n", n, n)
				return err
			}
			_, err := fmt.Fprintf(c.OutOrStdout(), "required size: %d\nfully allocated size: %d\n", n, n)
			return err
		},
	}
	d.register(c)
	c.Flags().Var(&size, "size", "size of a disk that does not exist yet")
	c.Flags().StringVarP(&target, "target-format", "O", diskurl.FormatRaw, "format of the new image: raw")
	c.Flags().Var(output, "output", outputHelp)
	return c
}
