package diskurl

import (
	"math"
	"strings"
	"testing"
)

func TestParse(t *testing.T) {
	t.Parallel()
	for in, want := range map[string]URL{
		"/a b":                                   {Addr: FileAddr{"/a b"}},
		"./x":                                    {Addr: FileAddr{"./x"}},
		"disk.img":                               {Addr: FileAddr{"disk.img"}},
		"./a:b":                                  {Addr: FileAddr{"./a:b"}},
		"1:2":                                    {Addr: FileAddr{"1:2"}},
		":x":                                     {Addr: FileAddr{":x"}},
		"file:/x%20y":                            {Addr: FileAddr{"/x%20y"}},
		"file:///x":                              {Addr: FileAddr{"/x"}},
		"FILE:x":                                 {Addr: FileAddr{"x"}},
		"raw:/dev/loop0":                         {Formats: "raw", Addr: FileAddr{"/dev/loop0"}},
		"raw:x":                                  {Formats: "raw", Addr: FileAddr{"x"}},
		"qcow2:/x":                               {Formats: "qcow2", Addr: FileAddr{"/x"}},
		"luks:/x":                                {Formats: "luks", Addr: FileAddr{"/x"}},
		"vhost-user:/sock":                       {Addr: otherAddr{"vhost-user", "/sock"}},
		"nbd://h":                                {Addr: NBDAddr{Network: "tcp", Host: "h:10809"}},
		"nbd://h/":                               {Addr: NBDAddr{Network: "tcp", Host: "h:10809"}},
		"nbd:///e":                               {Addr: NBDAddr{Network: "tcp", Host: "localhost:10809", Export: "e"}},
		"nbd://h:1/a/b%2f":                       {Addr: NBDAddr{Network: "tcp", Host: "h:1", Export: "a/b/"}},
		"nbd://[::1]:5/e":                        {Addr: NBDAddr{Network: "tcp", Host: "[::1]:5", Export: "e"}},
		"nbd://[::1]/%3f%23":                     {Addr: NBDAddr{Network: "tcp", Host: "[::1]:10809", Export: "?#"}},
		"nbds://h/e?tls-certificates=/pki":       {Addr: NBDAddr{Network: "tcp", Host: "h:10809", TLS: true, Export: "e", TLSDir: "/pki"}},
		"nbds://h/e?tls-hostname=x":              {Addr: NBDAddr{Network: "tcp", Host: "h:10809", TLS: true, Export: "e", TLSHostname: "x"}},
		"nbd+unix:///e?socket=/s%3f":             {Addr: NBDAddr{Network: "unix", Host: "/s?", Export: "e"}},
		"nbd+unix:///a+b%20c?socket=/my+t/a%20b": {Addr: NBDAddr{Network: "unix", Host: "/my+t/a b", Export: "a+b c"}},
		"nbd+vsock:///e":                         {Addr: NBDAddr{Network: "vsock", Host: "2:10809", Export: "e"}},
		"nbds+vsock://7:99999?tls-hostname=x":    {Addr: NBDAddr{Network: "vsock", Host: "7:99999", TLS: true, TLSHostname: "x"}},
		"nbds://h?tls-verify-peer=0":             {Addr: NBDAddr{Network: "tcp", Host: "h:10809", TLS: true, TLSUnverified: true}},
		"nbds://h?tls-verify-peer=1&tls-type=x509": {Addr: NBDAddr{Network: "tcp", Host: "h:10809", TLS: true}},
		"nbd+unix://?socket=/s":                    {Addr: NBDAddr{Network: "unix", Host: "/s"}},
		"nbds+unix:///e?socket=s&tls-hostname=h":   {Addr: NBDAddr{Network: "unix", Host: "s", TLS: true, Export: "e", TLSHostname: "h"}},
		"mem:1G":                                   {Addr: SizeAddr{"mem", 1 << 30}},
		"null:0":                                   {Addr: SizeAddr{"null", 0}},
		"pattern:8T":                               {Addr: SizeAddr{"pattern", 8 << 40}},
		"https://host:54322/images/TICKET":         {Addr: HTTPAddr{"https://host:54322/images/TICKET"}},
		"http://host/disk.img?x=1":                 {Addr: HTTPAddr{"http://host/disk.img?x=1"}},
		"file:////deep":                            {Addr: FileAddr{"/deep"}},
		"raw:///x":                                 {Formats: "raw", Addr: FileAddr{"/x"}},
		"qcow2:nbd://h/e":                          {Formats: "qcow2", Addr: NBDAddr{Network: "tcp", Host: "h:10809", Export: "e"}},
		"RAW:qcow2:file:a:b":                       {Formats: "raw:qcow2", Addr: FileAddr{"a:b"}},
		"luks:qcow2:https://h/images/x":            {Formats: "luks:qcow2", Addr: HTTPAddr{"https://h/images/x"}},
		"qcow2:vhost-user:/sock":                   {Formats: "qcow2", Addr: otherAddr{"vhost-user", "/sock"}},
		"raw:mem:1M":                               {Formats: "raw", Addr: SizeAddr{"mem", 1 << 20}},
		"nbd+unix:///%E2%82%AC?socket=/run/a.sock": {Addr: NBDAddr{Network: "unix", Host: "/run/a.sock", Export: "€"}},
	} {
		got, err := Parse(in)
		if err != nil || got != want {
			t.Errorf("Parse(%q) = %+v, %v, want %+v", in, got, err, want)
			continue
		}
		if again, err := Parse(got.String()); err != nil || again != got {
			t.Errorf("Parse(%q) writes %q, which reads as %+v, %v", in, got.String(), again, err)
		}
	}
}

func TestParseRefuses(t *testing.T) {
	t.Parallel()
	for in, want := range map[string]string{
		"":                                     "empty",
		"file:":                                "empty",
		"raw:":                                 "empty",
		"qcow2:raw:":                           "empty",
		"raw:a:b":                              "write ./a:b",
		strings.Repeat("raw:", 9) + "/x":       "more than 8 formats",
		"a\x00b":                               "NUL",
		"ndb://h/e":                            `did you mean "nbd"?`,
		"qcow:/x":                              `did you mean "qcow2"?`,
		"gopher://x":                           `unknown scheme "gopher"; write ./gopher://x if it is a file`,
		"nbd:h:10809":                          "want nbd://",
		"nbd:/h":                               "want nbd://",
		"nbd://u@h/e":                          "user",
		"nbd://h:0/e":                          "port",
		"nbd://h:99999/e":                      "port",
		"nbd://h/e?socket=/x":                  `unknown parameter "socket"`,
		"nbd://h/e?tls-hostname=x":             "unknown parameter",
		"nbd+unix:///e":                        "no socket",
		"nbd+unix://h/e?socket=/x":             "a host",
		"nbd+unix:///e?sokcet=/x":              `did you mean "socket"?`,
		"nbd+unix:///e?socket=a&socket=b":      "one value",
		"nbd+unix:///e?socket=":                "one value",
		"nbd+vsock://host/e":                   "no number",
		"nbd+vsock://1?socket=/x":              "unknown parameter",
		"nbds://h?tls-type=psk":                "only x509",
		"nbds://h?tls-type=anon":               "only x509",
		"nbds://h?tls-type=gold":               "not one of",
		"nbds://h?tls-username=alice":          "pre-shared keys",
		"nbds://h?tls-verify-peer=no":          "neither 0 nor 1",
		"nbd://h?tls-verify-peer=0":            "unknown parameter",
		"nbd://h/e#f":                          "%23",
		"nbd://h/%ff":                          "UTF-8",
		"nbd://h/%zz":                          "invalid URL escape",
		"nbd://h/" + strings.Repeat("x", 4097): "4096",
		"mem:":                                 "want mem:SIZE",
		"mem:-1":                               "bad size",
		"mem:1X":                               "bad size",
		"pattern:9E":                           "above",
		"file://host/x":                        "no host",
		"https:///x":                           "want https://host/path",
	} {
		_, err := Parse(in)
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("Parse(%.40q): %v, want %q in it", in, err, want)
		}
		if err != nil && strings.Contains(err.Error(), "\n") {
			t.Errorf("Parse(%q): more than one line: %v", in, err)
		}
	}
}

func TestSize(t *testing.T) {
	t.Parallel()
	for in, want := range map[string]int64{
		"0": 0, "1": 1, "512": 512, "1k": 1024, "4K": 4096, "4KiB": 4096, "4kb": 4096, "1.5G": 3 << 29, "8T": 8 << 40,
		"1P": 1 << 50, "7E": 7 << 60, "10B": 10, "9223372036854775807": math.MaxInt64, "0.5K": 512,
	} {
		got, err := ParseSize(in)
		if err != nil || got != want {
			t.Errorf("ParseSize(%q) = %d, %v, want %d", in, got, err, want)
		}
		if back, err := ParseSize(FormatSize(got)); err != nil || back != got {
			t.Errorf("FormatSize(%d) = %q, read as %d, %v", got, FormatSize(got), back, err)
		}
		if back, err := ParseSize(SizeText(got)); err != nil || back != got {
			t.Errorf("SizeText(%d) = %q, read as %d, %v", got, SizeText(got), back, err)
		}
	}
	for n, want := range map[int64]string{0: "0", 1: "1", 1000: "1000", 1024: "1K", 1280: "1.25K", 3 << 39: "1.5T", 3 << 29: "1.5G", 1025 << 20: "1025M",
		math.MaxInt64: "9223372036854775807", math.MaxInt64 - 255: "9007199254740991.75K"} {
		if got := SizeText(n); got != want {
			t.Errorf("SizeText(%d) = %q, want %q", n, got, want)
		}
	}
	for _, in := range []string{"", "K", "B", "iB", "1i", "1iB", "-1", "+1", "1.5", "1.", "1.K", ".5K", "1.0001K", "0x10", "1 K", "8E", "9223372036854775808", "7.999999999999999999E", "1e3", "NaN"} {
		if got, err := ParseSize(in); err == nil {
			t.Errorf("ParseSize(%q) = %d, want an error", in, got)
		}
	}
}

func FuzzParse(f *testing.F) {
	for _, s := range []string{"/x", "file:x", "nbd://h:1/e", "nbd+unix:///e?socket=/s", "nbds://[::1]/%20?tls-hostname=a%26b", "mem:1.5G", "https://h/x", "raw:///x", "nbd://h%00/"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		u, err := Parse(s)
		if err != nil {
			return
		}
		if again, err := Parse(u.String()); err != nil || again != u {
			t.Errorf("Parse(%q) = %+v writes %q, read back as %+v, %v", s, u, u.String(), again, err)
		}
	})
}

func FuzzParseSize(f *testing.F) {
	f.Add("1.5G")
	f.Fuzz(func(t *testing.T, s string) {
		n, err := ParseSize(s)
		if err != nil {
			return
		}
		if n < 0 {
			t.Errorf("ParseSize(%q) = %d", s, n)
		}
		if back, err := ParseSize(FormatSize(n)); err != nil || back != n {
			t.Errorf("%d is written %q and read as %d, %v", n, FormatSize(n), back, err)
		}
		if back, err := ParseSize(SizeText(n)); err != nil || back != n {
			t.Errorf("%d is written %q and read as %d, %v", n, SizeText(n), back, err)
		}
	})
}
