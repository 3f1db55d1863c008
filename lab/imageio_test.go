package lab

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/vmdisk/vmdisk/diskurl"
)

// The pattern has the published disk's numbers, scaled.
func TestSegments(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		size    int64
		percent int
	}{{100 << 30, 33}, {100 << 30, 66}, {1 << 30, 19}, {1 << 20, 50}} {
		l := segments(c.size, c.percent)
		sum, least, most := int64(0), l[0], int64(0)
		for i, n := range l {
			sum += n
			least = min(least, n)
			if i%2 == 0 {
				most = max(most, n)
			}
			if n%4096 != 0 {
				t.Fatalf("a segment of %d bytes", n)
			}
		}
		if sum != c.size || least < 4096 {
			t.Errorf("%+v: the segments have %d bytes, the least %d", c, sum, least)
		}
		if off := l.data() - c.size/100*int64(c.percent); off > 1<<20 || off < -1<<20 {
			t.Errorf("%+v: %d bytes of data", c, l.data())
		}
		if c.size == 100<<30 && (len(l) < 21000 || len(l) > 21400 || most < 300<<20 || most > 6<<30) {
			t.Errorf("%+v: %d segments, the largest data %d", c, len(l), most)
		}
	}
}

func TestReadLog(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "log")
	text := `2018-08-12 01:27:30,000 INFO    [services] remote.service listening on 127.0.0.1:1
2018-08-12 01:27:32,500 INFO    [images] [10.0.0.1] OPTIONS ticket=8f30a6b0 transfer=x
2018-08-12 01:27:33,000 DEBUG   [images] [10.0.0.1] WRITE ticket=8f30a6b0 size=5 offset=0 flush=n transfer=x
2018-08-12 01:27:34,000 INFO    [images] [10.0.0.1] FLUSH ticket=8f30a6b0 transfer=x
2018-08-12 01:27:35,000 INFO    [http] CLOSE connection=1 client=10.0.0.1 [connection 1 ops, 2.500000 s] [write 3 ops, 0.300000 s, 12.00 MiB, 10.91 MiB/s] [flush 1 ops, 0.100000 s]
`
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	got, err := readLog(path)
	if err != nil || got != (logged{Requests: 3, Elapsed: 1.5, Latency: 0.1}) {
		t.Errorf("%+v, %v", got, err)
	}
	if err := os.WriteFile(path, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := readLog(path); err == nil {
		t.Error("an empty log is taken for a load")
	}
}

// No credential, and no folder, is in what is reported.
func TestShown(t *testing.T) {
	t.Parallel()
	got := shown([]string{"/usr/bin/vmdisk", "copy", "--cafile", "/tmp/x/cert.pem", "if=/tmp/y", "of=/dev/loop0", "https://h:1/images/SECRET"})
	if strings.Contains(got, "SECRET") || strings.Contains(got, "/tmp") || !strings.Contains(got, "of=/dev/loop0") {
		t.Error(got)
	}
}

// Zeros that are written pass the limit of the rate; zeros that are fast do not.
func TestStorageFilters(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		zero        string
		rate        int64
		least, most time.Duration
	}{
		{"write", 1 << 20, 400 * time.Millisecond, time.Hour}, // the first is let through and owed
		{"fast", 1 << 10, 0, time.Minute},
		{"write", 0, 0, time.Minute},
	} {
		d, err := diskurl.Open(t.Context(), "mem:1M", diskurl.Options{Filters: storageFilters(c.zero, c.rate)})
		if err != nil {
			t.Fatal(err)
		}
		start := time.Now()
		err = errors.Join(d.Zero(t.Context(), 0, 1<<19, 0), d.Zero(t.Context(), 1<<19, 1<<19, 0))
		if took := time.Since(start); err != nil || took < c.least || took > c.most {
			t.Errorf("zero=%s, rate %d: %v after %v", c.zero, c.rate, err, took)
		}
		if err := d.Close(); err != nil {
			t.Error(err)
		}
	}
}
