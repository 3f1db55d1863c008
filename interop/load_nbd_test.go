package interop

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"testing"
	"time"

	"github.com/vmdisk/vmdisk/interop/peer"
	"github.com/vmdisk/vmdisk/interop/rawnbd"
)

// TestHostileLoad: many clients of one hostile kind make an honest one wait
// little, and the server take little memory. Not parallel: it measures time.
func TestHostileLoad(t *testing.T) {
	sc := loadScale()
	untouched := serve(t, "raw:"+holey(t, 8<<20, 7))
	for _, k := range []struct {
		name string
		full bool     // in the full test alone
		args []string // of serve, before the disk
		do   hostile
	}{
		{"flushes whose replies nobody reads", false, nil, entered(flood(rawnbd.Command{Type: cmdFlush}))},
		{"zeroes whose replies nobody reads", false, nil, entered(flood(rawnbd.Command{Type: cmdZero, Length: 4096}))},
		{"reads whose replies nobody reads", true, nil, entered(flood(rawnbd.Command{Type: cmdRead, Length: 4096}))},
		{"large reads whose replies nobody reads", false, nil, entered(flood(rawnbd.Command{Type: cmdRead, Length: 1 << 20}))},
		{"structured errors nobody reads", false, nil, structured(flood(rawnbd.Command{Type: cmdRead, Offset: 1 << 40, Length: 4096}))},
		{"one option of 32,700 equal requests", false, nil, option(infoFlood)},
		{"options without end", true, nil, option(optionFlood)},
		{"sessions without requests", false, nil, entered(linger)},
		{"connections without a greeting", true, nil, linger},
		{"payloads a byte at a time", false, nil, entered(trickle(rawnbd.Command{Type: cmdWrite, Length: 64 << 10}))},
		{"large payloads a byte at a time", true, nil, entered(trickle(rawnbd.Command{Type: cmdWrite, Length: 4 << 20}))},
		{"headers a byte at a time", true, nil, entered(slowHeader)},
		{"replies read a little at a time", false, nil, entered(sip)},
		{"writes that fail", false, []string{"--filter", "fault:error=EIO,op=write"}, entered(failing)},
		{"sessions that end at once", true, nil, entered(func(net.Conn) error { return nil })},
	} {
		if !k.full || sc.full {
			t.Run(k.name, func(t *testing.T) { hostileLoad(t, sc, untouched, append(k.args, "raw:"+holey(t, 8<<20, 7)), k.do) })
		}
	}
}

func hostileLoad(t *testing.T, sc scale, untouched *peer.Server, args []string, do hostile) {
	attacked := serve(t, args...)
	reads, others := reading(t, attacked), reading(t, untouched)
	alone := inTurn(t, sc.measure, reads, others)[0]
	h := unleash(t, sc.clients, func(ctx context.Context) (net.Conn, error) {
		var d net.Dialer
		return d.DialContext(ctx, "unix", attacked.Socket)
	}, do)
	time.Sleep(sc.settle) // not awaited: what hostile clients reach in a while is what is measured
	bearable(t, sc.measure, alone, reads, others)
	if !t.Failed() {
		newcomers(t, attacked, untouched)
	}
	h.stop()
	t.Logf("%d hostile connections, ended by: %v", h.in.Load(), h.err)
	smallEnough(t, attacked.Proc)
	quiet(t, attacked.Proc, sc)
}

// reading is an honest client that reads 4 KiB here and there.
func reading(t *testing.T, s *peer.Server) probe {
	t.Helper()
	c, _, err := rawnbd.Dial(t.Context(), "unix", s.Socket, "")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Close() })
	p := make([]byte, 4096)
	return func(ctx context.Context) error { return readOnce(ctx, c, p) }
}

func readOnce(ctx context.Context, c net.Conn, p []byte) error {
	deadline, _ := ctx.Deadline()
	_ = c.SetDeadline(deadline)
	r := rawnbd.Command{Type: cmdRead, Cookie: rand.Uint64(), Offset: rand.Uint64N(1024) * 4096, Length: uint32(len(p))}
	if err := r.Send(c); err != nil {
		return err
	}
	errno, cookie, err := rawnbd.ReadSimple(c)
	if err != nil {
		return err
	}
	if errno != 0 || cookie != r.Cookie {
		return fmt.Errorf("read: error %d, cookie %x of %x", errno, cookie, r.Cookie)
	}
	_, err = io.ReadFull(c, p)
	return err
}

// newcomers: an honest client gets in, too, and is served.
func newcomers(t *testing.T, attacked, untouched *peer.Server) {
	t.Helper()
	come := func(s *peer.Server) probe {
		return func(ctx context.Context) error {
			c, _, err := rawnbd.Dial(ctx, "unix", s.Socket, "")
			if err != nil {
				return err
			}
			defer func() { _ = c.Close() }()
			return readOnce(ctx, c, make([]byte, 4096))
		}
	}
	got := inTurn(t, 0, come(attacked), come(untouched))
	t.Logf("newcomers: %v; at another server: %v", got[0], got[1])
	if wait := got[0].at(50); wait > loadFactor*got[1].at(50)+time.Second {
		t.Errorf("newcomers wait for %v", wait)
	}
}

// quiet: what the hostile clients did has not filled the log.
func quiet(t *testing.T, p *peer.Proc, sc scale) {
	t.Helper()
	if n, limit := p.Printed(), int64(64<<10)+int64(sc.clients)<<10; n > limit {
		t.Errorf("the server logged %d KiB; at most %d are expected", n>>10, limit>>10)
	}
}

// flood sends a request for ever and reads no reply.
func flood(r rawnbd.Command) hostile {
	return func(c net.Conn) error {
		var many []byte
		for range 500 {
			many = append(many, r.Header()...)
		}
		for {
			if err := send(c, many); err != nil {
				return err
			}
		}
	}
}

// infoFlood asks 32,700 times for the same in one option and waits for the end.
func infoFlood(c net.Conn) error {
	const requests = 32700
	data := binary.BigEndian.AppendUint32(nil, 0)
	data = binary.BigEndian.AppendUint16(data, requests)
	for range requests {
		data = binary.BigEndian.AppendUint16(data, 3)
	}
	if err := rawnbd.SendOption(c, 6, data); err != nil {
		return err
	}
	return linger(c)
}

func optionFlood(c net.Conn) error {
	for {
		if err := rawnbd.SendOption(c, 0x7fff, make([]byte, 4096)); err != nil {
			return err
		}
	}
}

// linger reads what comes, and does nothing, until the server hangs up.
func linger(c net.Conn) error {
	_, err := io.Copy(io.Discard, c)
	return errors.Join(err, io.EOF)
}

// structured does f after structured replies were agreed on.
func structured(f hostile) hostile {
	return option(func(c net.Conn) error {
		if err := rawnbd.SendOption(c, 8, nil); err != nil {
			return err
		}
		if kind, _, err := rawnbd.ReadReply(c, 8); kind != 1 || err != nil {
			return errors.Join(err, errors.New("structured replies are refused"))
		}
		return enter(c, f)
	})
}

// drip sends p a byte at a time.
func drip(c net.Conn, p []byte) error {
	for i := range p {
		if err := send(c, p[i:i+1]); err != nil {
			return err
		}
		time.Sleep(200 * time.Millisecond)
	}
	return nil
}

func trickle(r rawnbd.Command) hostile {
	return func(c net.Conn) error {
		if err := send(c, r.Header()); err != nil {
			return err
		}
		return drip(c, make([]byte, r.Length))
	}
}

func slowHeader(c net.Conn) error {
	for {
		if err := drip(c, rawnbd.Command{Type: cmdRead, Length: 512}.Header()); err != nil {
			return err
		}
	}
}

// sip asks for much and reads it slowly.
func sip(c net.Conn) error {
	if err := sendTimes(c, 16, rawnbd.Command{Type: cmdRead, Length: 1 << 20}); err != nil {
		return err
	}
	p := make([]byte, 512)
	for {
		if _, err := io.ReadFull(c, p); err != nil {
			return err
		}
		time.Sleep(100 * time.Millisecond)
	}
}

func sendTimes(c net.Conn, n int, r rawnbd.Command) error {
	for range n {
		if err := r.Send(c); err != nil {
			return err
		}
	}
	return nil
}

// failing writes what cannot be written, sixteen times in a row.
func failing(c net.Conn) error {
	for {
		if err := sendTimes(c, 16, rawnbd.Command{Type: cmdWrite, Length: 512, Data: make([]byte, 512)}); err != nil {
			return err
		}
		for range 16 {
			if _, _, err := rawnbd.ReadSimple(c); err != nil {
				return err
			}
		}
		time.Sleep(100 * time.Millisecond)
	}
}
