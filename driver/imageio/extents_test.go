package imageio

import (
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"syscall"
	"testing"

	"github.com/vmdisk/vmdisk/disk"
	"github.com/vmdisk/vmdisk/imageio/client"
)

// A server that fails at its extents alone has data throughout; of one that refuses
// the ticket the refusal is told.
func TestMapRefused(t *testing.T) {
	t.Parallel()
	const size = 200 << 20
	for status, want := range map[int]error{500: nil, 404: nil, 403: syscall.EACCES} {
		s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			switch {
			case r.Method == http.MethodOptions:
				w.Header().Set("Allow", "GET")
				fmt.Fprint(w, `{"features":["extents","zero","flush"]}`)
			case strings.HasSuffix(r.URL.Path, "/extents"):
				http.Error(w, "no map", status)
			default:
				w.Header().Set("Content-Range", fmt.Sprintf("bytes 0-0/%d", size))
				w.WriteHeader(206)
				fmt.Fprint(w, "x")
			}
		}))
		defer s.Close()
		d, err := Open(t.Context(), client.Config{URL: s.URL + "/images/t"}, Options{})
		if err != nil {
			t.Fatal(err)
		}
		for off := int64(0); off < size && err == nil; {
			var e []disk.Extent
			if e, err = d.Extents(t.Context(), disk.Allocation, off, size-off, nil); err == nil {
				if off += e[0].Len; len(e) != 1 || e[0].Flags != 0 {
					t.Errorf("%+v", e)
				}
			}
		}
		if !errors.Is(err, want) || (err == nil) != (want == nil) {
			t.Errorf("%d: %v", status, err)
		}
		if err := d.Close(); err != nil {
			t.Error(err)
		}
	}
}
