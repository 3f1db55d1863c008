package diskurl

import (
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"
)

func TestParseFilter(t *testing.T) {
	t.Parallel()
	for in, want := range map[string]FilterSpec{
		"noextents":                  {"noextents", map[string]string{}},
		"delay:write=40ms,zero=5ms":  {"delay", map[string]string{"write": "40ms", "zero": "5ms"}},
		"log:file=/a,,b,append=on":   {"log", map[string]string{"file": "/a,b", "append": "on"}},
		"log:file=/a=b":              {"log", map[string]string{"file": "/a=b"}},
		"log:file=":                  {"log", map[string]string{"file": ""}},
		"fault:error-rate=50%,op=re": {"fault", map[string]string{"error-rate": "50%", "op": "re"}},
	} {
		got, err := ParseFilter(in)
		if err != nil || !reflect.DeepEqual(got, want) {
			t.Errorf("ParseFilter(%q) = %+v, %v", in, got, err)
		}
	}
	for _, in := range []string{"", ":", ":a=b", "x:", "x:a", "x:=b", "x:a=1,", "x:a=1,a=2", "X", "a b", "x:a =1"} {
		if got, err := ParseFilter(in); err == nil {
			t.Errorf("ParseFilter(%q) = %+v, want an error", in, got)
		}
	}
}

func FuzzParseFilter(f *testing.F) {
	f.Add("delay:write=40ms,zero=5ms")
	f.Add("log:file=/a,,b")
	f.Fuzz(func(t *testing.T, s string) {
		spec, err := ParseFilter(s)
		if err != nil {
			return
		}
		if again, err := ParseFilter(spec.String()); err != nil || !reflect.DeepEqual(again, spec) {
			t.Errorf("ParseFilter(%q) = %+v writes %q, read back as %+v, %v", s, spec, spec.String(), again, err)
		}
	})
}

func TestParams(t *testing.T) {
	t.Parallel()
	p := &params{keys: keysNamed("a", "none", "size", "n", "part", "d", "secs", "on", "mode", "other"), values: map[string]string{
		"a": "x", "size": "4K", "n": "7", "part": "50%", "d": "40ms", "secs": "2", "on": "yes", "mode": "slow",
	}}
	got := []any{p.text("a", ""), p.text("none", "def"), p.size("size", 0), p.count("n", 0), p.fraction("part", 0),
		p.duration("d", 0), p.duration("secs", 0), p.boolean("on", false), p.choice("mode"), p.choice("other")}
	want := []any{"x", "def", int64(4096), int64(7), 0.5, 40 * time.Millisecond, 2 * time.Second, true, "slow", "none"}
	if !reflect.DeepEqual(got, want) || p.finish() != nil {
		t.Errorf("got %v, %v, want %v", got, p.finish(), want)
	}
	for key, read := range map[string]func(p *params){
		"size": func(p *params) { p.size("size", 0) }, "count": func(p *params) { p.count("count", 0) },
		"fraction": func(p *params) { p.fraction("fraction", 0) }, "duration": func(p *params) { p.duration("duration", 0) },
		"boolean": func(p *params) { p.boolean("boolean", false) }, "choice": func(p *params) { p.choice("choice") },
	} {
		for _, bad := range []string{"", "junk", "-1", "NaN"} {
			p := &params{keys: keysNamed(key), values: map[string]string{key: bad}}
			read(p)
			if err := p.finish(); err == nil || !strings.Contains(err.Error(), key) {
				t.Errorf("%s %q: %v", key, bad, err)
			}
		}
	}
	p = &params{keys: keysNamed("write"), values: map[string]string{"wriet": "1"}}
	p.duration("write", 0)
	if err := p.finish(); err == nil || !strings.Contains(err.Error(), `did you mean "write"`) {
		t.Errorf("unknown parameter: %v", err)
	}
}

func keysNamed(names ...string) (keys []Key) {
	for _, name := range names {
		keys = append(keys, Key{Name: name, Values: []string{"none", "slow"}})
	}
	return keys
}

// TestFilterKeys: what is said of the keys of each filter is what the filter takes.
func TestFilterKeys(t *testing.T) {
	t.Parallel()
	for _, f := range Filters() {
		seen := map[string]bool{}
		for _, k := range f.Keys {
			if seen[k.Name] || k.Help == "" || (k.Form == "") == (k.Values == nil) {
				t.Errorf("%s: the key %+v is there twice, or lacks its help, or its form or values", f.Name, k)
			}
			seen[k.Name] = true
			for _, v := range k.Values {
				if k.Name == "logappend" {
					v += ",logfile=/dev/null"
				}
				d, err := Open(t.Context(), "mem:1M", Options{Filters: []string{f.Name + ":" + k.Name + "=" + v}})
				if err != nil {
					t.Errorf("%s: %s=%s: %v", f.Name, k.Name, v, err)
					continue
				}
				d.Close()
			}
		}
		// Whatever is not a value of its form is refused with the key's name; files, folders and names are other than that.
		for _, k := range f.Keys {
			if k.Form == "FILE" || k.Form == "DIR" || k.Form == "PATH" || k.Form == "NAME" {
				continue
			}
			_, err := Open(t.Context(), "mem:1M", Options{Filters: []string{f.Name + ":" + k.Name + "=!"}})
			if err == nil || !strings.Contains(err.Error(), "parameter "+k.Name) {
				t.Errorf("%s: %s=!: %v", f.Name, k.Name, err)
			}
		}
	}
}

func TestCompleteFilter(t *testing.T) {
	t.Parallel()
	for begun, want := range map[string]string{
		"":                                      "readonly\trefuse changes",
		"no":                                    "nozero:\tchange how",
		"rate:":                                 "rate:burst=\tbytes that",
		"nozero:zeromode=":                      "nozero:zeromode=emulate",
		"nozero:zeromode=plugin,fast":           "nozero:zeromode=plugin,fastzeromode=\tas below",
		"nozero:zeromode=plugin,fastzeromode=s": "nozero:zeromode=plugin,fastzeromode=slow",
	} {
		got := CompleteFilter(begun)
		if !slices.ContainsFunc(got, func(s string) bool { return strings.HasPrefix(s, want) }) {
			t.Errorf("%q is completed by %q, want %q among them", begun, got, want)
		}
	}
	if got := CompleteFilter("nosuch:"); got != nil {
		t.Errorf("an unknown filter: %q", got)
	}
}
