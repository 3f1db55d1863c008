package diskurl

import (
	"context"
	"errors"
	"strings"
	"testing"

	"github.com/vmdisk/vmdisk/disk"
	"github.com/vmdisk/vmdisk/driver/mem"
)

// A protocol that is added by this file alone: RAM behind a password.
var _ = addProtocol(&protocol{
	schemes: []string{"toy"},
	parse: func(s string) (Addr, error) {
		password, ok := strings.CutPrefix(s, "toy://")
		if !ok || password == "" {
			return nil, errors.New("want toy://PASSWORD")
		}
		return toyAddr{password}, nil
	},
	open: func(context.Context, Addr, *Options) (*disk.Disk, error) { return mem.Open(1 << 20) },
	list: func(_ context.Context, a Addr, _ *Options) ([]Export, error) {
		return []Export{{Name: "only", URL: a.String()}}, nil
	},
})

type toyAddr struct{ password string }

func (toyAddr) Scheme() string           { return "toy" }
func (a toyAddr) String() string         { return "toy://" + a.password }
func (toyAddr) Redacted() string         { return "toy://…" }
func (toyAddr) Server() (string, string) { return "tcp", "toy.example:1" }
func (toyAddr) Guard() Guard             { return Guard{Secured: "toys://"} }

func TestToyProtocol(t *testing.T) {
	t.Parallel()
	u, err := Parse("raw:toy://secret")
	if err != nil || u.String() != "raw:toy://secret" || u.Redacted() != "raw:toy://…" || u.Scheme() != "toy" || u.Local() || !Built("toy") {
		t.Fatalf("%v %v: scheme %s, local %v, built %v", u.Redacted(), err, u.Scheme(), u.Local(), Built("toy"))
	}
	if network, address := u.Server(); network != "tcp" || address != "toy.example:1" {
		t.Errorf("the server is %s %s", network, address)
	}
	d, err := Open(t.Context(), "raw:toy://secret", Options{Filters: []string{"readonly"}})
	if err != nil || d.Size() != 1<<20 {
		t.Fatalf("open: %v", err)
	}
	if err := d.Close(); err != nil {
		t.Error(err)
	}
	if list, err := Exports(t.Context(), "toy://secret", Options{}); err != nil || len(list) != 1 {
		t.Errorf("exports: %v %v", list, err)
	}
	for _, c := range []struct {
		err  error
		want string
	}{
		{Create(t.Context(), "toy://secret", CreateOptions{}), "only local files"},
		{second(Open(t.Context(), "toy:x", Options{})), "want toy://PASSWORD"},
		{second(Open(t.Context(), "tou://x", Options{})), `did you mean "toy"?`},
		{second(Open(t.Context(), "toy://secret", Options{ServerOptions: ServerOptions{TLS: TLS{CA: "x"}}})), "write toys://"},
	} {
		if c.err == nil || !strings.Contains(c.err.Error(), c.want) || strings.Contains(c.err.Error(), "secret") {
			t.Errorf("%v, want %q and no password", c.err, c.want)
		}
	}
}

func second(_ *disk.Disk, err error) error { return err }
