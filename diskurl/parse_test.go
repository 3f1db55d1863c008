package diskurl

import (
	"math"
	"strings"
	"testing"
)

func TestParse(t *testing.T) {
	t.Parallel()
	for in, want := range map[string]URL{
		"/a b":                                   {Scheme: "file", Path: "/a b"},
		"./x":                                    {Scheme: "file", Path: "./x"},
		"disk.img":                               {Scheme: "file", Path: "disk.img"},
		"./a:b":                                  {Scheme: "file", Path: "./a:b"},
		"1:2":                                    {Scheme: "file", Path: "1:2"},
		":x":                                     {Scheme: "file", Path: ":x"},
		"file:/x%20y":                            {Scheme: "file", Path: "/x%20y"},
		"file:///x":                              {Scheme: "file", Path: "/x"},
		"FILE:x":                                 {Scheme: "file", Path: "x"},
		"raw:/dev/loop0":                         {Scheme: "raw", Path: "/dev/loop0"},
		"raw:x":                                  {Scheme: "raw", Path: "x"},
		"qcow2:/x":                               {Scheme: "qcow2", Path: "/x"},
		"luks:/x":                                {Scheme: "luks", Path: "/x"},
		"vhost-user:/sock":                       {Scheme: "vhost-user", Path: "/sock"},
		"nbd://h":                                {Scheme: "nbd", Host: "h:10809"},
		"nbd://h/":                               {Scheme: "nbd", Host: "h:10809"},
		"nbd:///e":                               {Scheme: "nbd", Host: "localhost:10809", Export: "e"},
		"nbd://h:1/a/b%2f":                       {Scheme: "nbd", Host: "h:1", Export: "a/b/"},
		"nbd://[::1]:5/e":                        {Scheme: "nbd", Host: "[::1]:5", Export: "e"},
		"nbd://[::1]/%3f%23":                     {Scheme: "nbd", Host: "[::1]:10809", Export: "?#"},
		"nbds://h/e?tls-certificates=/pki":       {Scheme: "nbds", Host: "h:10809", Export: "e", TLSDir: "/pki"},
		"nbds://h/e?tls-hostname=x":              {Scheme: "nbds", Host: "h:10809", Export: "e", TLSHostname: "x"},
		"nbd+unix:///e?socket=/s%3f":             {Scheme: "nbd+unix", Path: "/s?", Export: "e"},
		"nbd+unix:///a+b%20c?socket=/my+t/a%20b": {Scheme: "nbd+unix", Path: "/my+t/a b", Export: "a+b c"},
		"nbd+vsock:///e":                         {Scheme: "nbd+vsock", Host: "2:10809", Export: "e"},
		"nbds+vsock://7:99999?tls-hostname=x":    {Scheme: "nbds+vsock", Host: "7:99999", TLSHostname: "x"},
		"nbds://h?tls-verify-peer=0":             {Scheme: "nbds", Host: "h:10809", TLSUnverified: true},
		"nbds://h?tls-verify-peer=1&tls-type=x509": {Scheme: "nbds", Host: "h:10809"},
		"nbd+unix://?socket=/s":                    {Scheme: "nbd+unix", Path: "/s"},
		"nbds+unix:///e?socket=s&tls-hostname=h":   {Scheme: "nbds+unix", Path: "s", Export: "e", TLSHostname: "h"},
		"mem:1G":                                   {Scheme: "mem", Size: 1 << 30},
		"null:0":                                   {Scheme: "null"},
		"pattern:8T":                               {Scheme: "pattern", Size: 8 << 40},
		"https://host:54322/images/TICKET":         {Scheme: "https", Raw: "https://host:54322/images/TICKET"},
		"http://host/disk.img?x=1":                 {Scheme: "http", Raw: "http://host/disk.img?x=1"},
		"file:////deep":                            {Scheme: "file", Path: "/deep"},
		"raw:///x":                                 {Scheme: "raw", Path: "/x"},
		"nbd+unix:///%E2%82%AC?socket=/run/a.sock": {Scheme: "nbd+unix", Path: "/run/a.sock", Export: "€"},
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
	})
}
