package agent

import (
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"math"
	"net"
	"strings"
	"sync"
	"testing"
	"time"
	"unicode"
)

// babble is a node that sends what reader gives and takes anything.
type babble struct {
	io.Reader
	closed chan struct{}
}

func (babble) Write(p []byte) (int, error) { return len(p), nil }
func (b babble) Close() error {
	close(b.closed)
	return nil
}

// endless repeats a text for ever.
type endless string

func (e endless) Read(p []byte) (int, error) {
	n := 0
	for n < len(p) {
		n += copy(p[n:], e)
	}
	return n, nil
}

// TestBrokenNodes: whatever a node sends, every call ends with one line that says why.
func TestBrokenNodes(t *testing.T) {
	t.Parallel()
	hello := `{"op":"hello","body":{"cpus":1}}` + "\n"
	for name, c := range map[string]struct {
		from io.Reader
		want string
	}{
		"nothing":        {strings.NewReader(""), "closed the channel"},
		"half a line":    {strings.NewReader(`{"op":"hel`), "unexpected EOF"},
		"no JSON":        {strings.NewReader(hello + "Kernel panic - not syncing\n"), "invalid character"},
		"an empty line":  {strings.NewReader(hello + "\n"), "unexpected end of JSON"},
		"a wrong hello":  {strings.NewReader(`{"op":"hello","body":[]}` + "\n"), "hello: json"},
		"a wrong sample": {strings.NewReader(hello + `{"op":"progress","body":7}` + "\n"), "progress: json"},
		"a reset":        {strings.NewReader(hello + hello), "began anew"},
		"no end of line": {endless("x"), "longer than 64 MiB"},
		"small objects":  {io.MultiReader(strings.NewReader(`{"op":"done","body":[`), io.LimitReader(endless("{},"), 3*maxObjects), strings.NewReader("{}]}\n")), "parts"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			b := babble{c.from, make(chan struct{})}
			conn := NewConn(b)
			conn.wg.Wait() // the node has said all, or is not listened to any more
			for _, call := range []func() error{
				func() error { _, err := conn.Prepare(t.Context(), Prepare{}); return err },
				func() error { _, err := conn.Clock(t.Context()); return err },
				func() error { _, err := conn.Start(t.Context(), Run{}); return err },
			} {
				if err := call(); err == nil || !strings.Contains(err.Error(), c.want) || strings.Contains(err.Error(), "\n") {
					t.Errorf("%v, want %q", err, c.want)
				}
			}
			if err := conn.Close(); err != nil {
				t.Error(err)
			}
			<-b.closed
		})
	}
}

// TestDeafNode: a node that reads nothing does not hold the lab.
func TestDeafNode(t *testing.T) {
	t.Parallel()
	near, far := net.Pipe()
	defer far.Close()
	c := NewConn(near)
	defer c.Close()
	c.lines.patience = 20 * time.Millisecond
	if _, err := c.Prepare(t.Context(), Prepare{}); err == nil || !strings.Contains(err.Error(), "timeout") {
		t.Errorf("prepare: %v", err)
	}
}

// TestCutOff: where a message went out in part, nothing follows it, and all that is
// under way learns why.
func TestCutOff(t *testing.T) {
	t.Parallel()
	near, far := net.Pipe()
	defer far.Close()
	c := NewConn(near)
	defer c.Close()
	c.lines.patience = 20 * time.Millisecond
	const want = "channel to the node: a message was cut off after 5 of "
	_, waiting, err := readsThen(t, far, 1<<20, func() (int, *call, error) { return c.begin(opRun, nil, nil) })
	if err != nil {
		t.Fatal(err)
	}
	_, _, err = readsThen(t, far, 5, func() (int, *call, error) { return c.begin(opPing, nil, nil) })
	if err == nil || !strings.Contains(err.Error(), "ping: a message was cut off after 5 of ") || !strings.Contains(err.Error(), "timeout") {
		t.Errorf("the message itself: %v", err)
	}
	if m, ok := <-waiting.done; ok {
		t.Errorf("what was under way was answered by %+v", m)
	}
	for range 2 {
		if _, err := c.Clock(t.Context()); !errors.Is(err, ErrChannel) || !strings.Contains(err.Error(), want) {
			t.Errorf("the next message: %v, want %q", err, want)
		}
	}
	if n, err := far.Read(make([]byte, 100)); err != io.EOF {
		t.Errorf("%d bytes came behind a message that was cut off, %v", n, err)
	}
}

// readsThen reads up to so many bytes of what f writes.
func readsThen[A, B any](t *testing.T, from net.Conn, most int, f func() (A, B, error)) (A, B, error) {
	t.Helper()
	read := make(chan struct{})
	go func() {
		defer close(read)
		_, _ = from.Read(make([]byte, most))
	}()
	a, b, err := f()
	<-read
	return a, b, err
}

// TestDeafFor: a node that took nothing of a message can take the next one.
func TestDeafFor(t *testing.T) {
	t.Parallel()
	near, far := net.Pipe()
	defer far.Close()
	c := NewConn(near)
	defer c.Close()
	c.lines.patience = 20 * time.Millisecond
	if _, _, err := c.begin(opPing, nil, nil); err == nil || !strings.Contains(err.Error(), "timeout") {
		t.Fatal(err)
	}
	if _, _, err := readsThen(t, far, 1<<20, func() (int, *call, error) { return c.begin(opPing, nil, nil) }); err != nil {
		t.Errorf("the next message: %v", err)
	}
}

// halfway takes part of the first message, and is closed by who wrote it.
type halfway struct {
	closed chan struct{}
	once   sync.Once
}

func (h *halfway) Read([]byte) (int, error)    { <-h.closed; return 0, io.ErrClosedPipe }
func (h *halfway) Write(p []byte) (int, error) { return len(p) / 2, io.ErrShortWrite }
func (h *halfway) Close() error                { h.once.Do(func() { close(h.closed) }); return nil }

// TestAgentCutOff: an agent whose message was cut off ends.
func TestAgentCutOff(t *testing.T) {
	t.Parallel()
	h := &halfway{closed: make(chan struct{})}
	if err := Serve(t.Context(), h, Options{}); err == nil || !strings.Contains(err.Error(), "agent: a message was cut off") {
		t.Errorf("%v", err)
	}
	<-h.closed
}

// TestTooLarge: an answer that cannot be sent is an error, not silence.
func TestTooLarge(t *testing.T) {
	t.Parallel()
	var out bytes.Buffer
	s := &server{lines: newLines(&out)}
	if err := s.done(7, strings.Repeat("x", maxLine), nil); err != nil {
		t.Fatal(err)
	}
	if got := out.String(); !strings.HasPrefix(got, `{"id":7,"op":"done","error":"the answer cannot be sent`) {
		t.Errorf("sent %.200s", got)
	}
}

// TestClean: what a guest says cannot act on a terminal, nor fill it.
func TestClean(t *testing.T) {
	t.Parallel()
	if got := clean("a\x1b[2Jb\r\nc\u202ed\x00"); got != "a [2Jb  c d " {
		t.Errorf("%q", got)
	}
	if got := clean(strings.Repeat("é", maxText)); len(got) > maxText+8 || !strings.HasSuffix(got, "é…") {
		t.Errorf("%d bytes, %q", len(got), got[len(got)-8:])
	}
	r := Result{Err: "\a", Text: "1\n\t\x1b2", Notes: []string{"\b"}, Jobs: []JobResult{{Name: "\n", Err: "\v"}}}
	r.clean()
	if r.Err != " " || r.Text != "1\n\t 2" || r.Notes[0] != " " || r.Jobs[0].Name != " " || r.Jobs[0].Err != " " {
		t.Errorf("%+v", r)
	}
}

// FuzzRead: no line of a guest makes the host fail otherwise than with an error.
func FuzzRead(f *testing.F) {
	for _, seed := range []string{
		`{"op":"hello","body":{"version":"1","cpus":1}}`,
		`{"op":"progress","id":1,"body":{"ready":true}}`,
		`{"op":"done","id":1,"body":{"now_ns":1}}`,
		`{"op":"done","id":2,"error":"no\u001b[0m"}`,
		`{"op":"done","id":3,"body":{"start_ns":1,"jobs":[{"name":"a","dirs":[{"ios":1,"clat":{"n":1,"bins":[100,1]}}],"points":[{"at_ns":1,"took_ns":1,"ios":[1,0,0]}],"hists":[{"at_ns":1,"dir":200,"bins":[5,1,7,2]}],"stalls":[{"at_ns":-1}]}],"json":{}}}`,
		`{"op":"done","id":3,"body":{"jobs":[{"hists":[{"bins":[18446744073709551615,1]}]}]}}`,
		`{"op":"beat","unknown":{"x":[]}}`, "{", "[]", "null", "\x00",
	} {
		f.Add([]byte(seed + "\n" + seed))
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		l := newLines(struct {
			io.Reader
			io.Writer
		}{bytes.NewReader(data), io.Discard})
		for {
			m, err := l.read()
			if err != nil {
				return
			}
			var h Hello
			var p Prepared
			_, _ = json.Unmarshal(m.Body, &h), json.Unmarshal(m.Body, &p)
			h.clean()
			p.clean()
			var r Result
			if json.Unmarshal(m.Body, &r) != nil {
				continue
			}
			r.clean()
			if strings.ContainsFunc(r.Err+h.Kernel+p.Device+clean(m.Err), unicode.IsControl) {
				t.Errorf("a control character is left: %q %q %q", r.Err, h.Kernel, p.Device)
			}
			if text, err := json.Marshal(&r); err != nil {
				t.Errorf("%+v cannot be kept: %v", r, err)
			} else if err := json.Unmarshal(text, new(Result)); err != nil {
				t.Errorf("%s cannot be read again: %v", text, err)
			}
		}
	})
}

// TestBins: the flat list goes both ways, and nothing else is read as one.
func TestBins(t *testing.T) {
	t.Parallel()
	b := Bins{{Value: 0, Count: 1}, {Value: 1 << 40, Count: math.MaxUint64}}
	text, err := json.Marshal(b)
	if err != nil || string(text) != "[0,1,1099511627776,18446744073709551615]" {
		t.Fatalf("%s, %v", text, err)
	}
	var got Bins
	if err := json.Unmarshal(text, &got); err != nil || len(got) != 2 || got[1] != b[1] {
		t.Errorf("%v, %v", got, err)
	}
	for _, bad := range []string{"[1]", "[-1,2]", "[18446744073709551615,1]", `{"a":1}`} {
		if err := json.Unmarshal([]byte(bad), &got); err == nil {
			t.Errorf("%s was read as %v", bad, got)
		}
	}
	sum := Bins{{Value: 1, Count: 1}, {Value: 5, Count: 2}}.plus(Bins{{Value: 3, Count: 4}, {Value: 5, Count: 8}, {Value: 9, Count: 16}})
	want := Bins{{Value: 1, Count: 1}, {Value: 3, Count: 4}, {Value: 5, Count: 10}, {Value: 9, Count: 16}}
	if len(sum) != len(want) {
		t.Fatalf("%v", sum)
	}
	for i := range want {
		if sum[i] != want[i] {
			t.Errorf("%v, want %v", sum, want)
		}
	}
}

// long is a result of a run of many intervals, with a gap in the middle.
func long(intervals int) *Result {
	r := &Result{StartNS: 1, JSON: json.RawMessage(`"` + strings.Repeat("j", 2000) + `"`), Text: "text"}
	j := JobResult{Name: "j"}
	for i := range int64(intervals) {
		at := (i + 1) * 1e9
		if i >= int64(intervals)/2 {
			at += 7e9
		}
		p := Point{AtNS: at, TookNS: 1e9}
		p.IOs[0] = uint64(i)
		j.Points = append(j.Points, p)
		for dir := range uint8(2) {
			j.Hists = append(j.Hists, HistPoint{AtNS: at, TookNS: 1e9, Dir: dir, Bins: Bins{{Value: 100 + i, Count: 1}, {Value: 500, Count: uint64(dir) + 1}}})
		}
	}
	r.Jobs = []JobResult{j}
	return r
}

// TestFit: a result that is too large loses detail, not counts.
func TestFit(t *testing.T) {
	t.Parallel()
	count := func(r *Result) (ios uint64, took int64, lat [2]uint64) {
		for _, p := range r.Jobs[0].Points {
			ios, took = ios+p.IOs[0], took+p.TookNS
		}
		for _, h := range r.Jobs[0].Hists {
			for _, b := range h.Bins {
				lat[h.Dir] += b.Count
			}
		}
		return ios, took, lat
	}
	ios, took, lat := count(long(101))
	for _, limit := range []int{1 << 20, 20000, 6000, 4500} {
		r := long(101)
		if err := r.fit(limit); err != nil {
			t.Fatal(err)
		}
		size, err := r.size()
		if err != nil || size > limit {
			t.Errorf("limit %d: %d bytes, %v", limit, size, err)
		}
		if i, s, l := count(r); i != ios || s != took || l != lat {
			t.Errorf("limit %d: %d I/Os in %d ns and %v latencies, want %d, %d, %v", limit, i, s, l, ios, took, lat)
		}
		if whole := limit == 1<<20; whole != (r.JSON != nil) || whole != (len(r.Notes) == 0) {
			t.Errorf("limit %d: %d bytes of JSON, notes %v", limit, len(r.JSON), r.Notes)
		}
		end := int64(0)
		for _, p := range r.Jobs[0].Points {
			if p.AtNS-p.TookNS < end {
				t.Errorf("limit %d: intervals overlap at %d", limit, end)
			}
			end = p.AtNS
		}
	}
	if err := long(101).fit(500); err == nil || !strings.Contains(err.Error(), "group_reporting") {
		t.Errorf("500 bytes: %v", err)
	}
}
