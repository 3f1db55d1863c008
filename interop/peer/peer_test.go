package peer

import (
	"crypto/tls"
	"crypto/x509"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

func TestNeed(t *testing.T) {
	t.Parallel()
	if err := Need("sh", "cat"); err != nil {
		t.Error(err)
	}
	packages["no-such-program"] = "its-package"
	err := Need("sh", "no-such-program")
	if err == nil || !strings.Contains(err.Error(), "apt-get install its-package") {
		t.Errorf("got %v", err)
	}
}

func TestRun(t *testing.T) {
	t.Parallel()
	r, err := Run(t.Context(), "sh", "-c", "echo out; echo why >&2; i=0; while [ $i -lt 30000 ]; do i=$((i+1)); done; exit 3")
	if err == nil || r.Code != 3 || r.Stdout != "out\n" || !strings.Contains(err.Error(), "why") {
		t.Errorf("got %+v, %v", r, err)
	}
	if r.CPU() <= 0 || r.CPU() > 2*r.Wall+50*time.Millisecond {
		t.Errorf("used %v of %v", r.CPU(), r.Wall)
	}
}

// TestCPU: the clock of a running process counts what it works, in better than
// ticks of 10 ms, and not what it sleeps.
func TestCPU(t *testing.T) {
	t.Parallel()
	busy, err := Start("busy", []string{"sh", "-c", "while :; do :; done"}, nil)
	if err != nil {
		t.Fatal(err)
	}
	defer busy.Kill()
	idle, err := Start("idle", []string{"sleep", "60"}, nil)
	if err != nil {
		t.Fatal(err)
	}
	defer idle.Kill()
	for worked := time.Duration(0); worked < 50*time.Millisecond; {
		if worked, err = busy.CPU(); err != nil {
			t.Fatal(err)
		}
		time.Sleep(time.Millisecond)
	}
	slept, err := idle.CPU()
	if err != nil || slept > 40*time.Millisecond || slept == 0 || slept%(10*time.Millisecond) == 0 {
		t.Errorf("a sleeping process used %v (%v)", slept, err)
	}
	if now, top, err := idle.Memory(); err != nil || now <= 0 || top < now {
		t.Errorf("memory %d, peak %d, %v", now, top, err)
	}
}

func TestStop(t *testing.T) {
	t.Parallel()
	p, err := Start("failing", []string{"sh", "-c", "echo reason >&2; exit 1"}, nil)
	if err != nil {
		t.Fatal(err)
	}
	if err := p.Wait(); err == nil || !strings.Contains(err.Error(), "reason") {
		t.Errorf("got %v", err)
	}
	p, err = Start("plain", []string{"sleep", "60"}, nil)
	if err != nil {
		t.Fatal(err)
	}
	if err := p.Stop(); err != nil {
		t.Errorf("SIGTERM is not a failure: %v", err)
	}
	if _, err := Start("missing", []string{"/no/such/program"}, nil); err == nil {
		t.Error("a missing program started")
	}
}

func TestServerThatDoesNotStart(t *testing.T) {
	t.Parallel()
	_, err := startServer("broken", t.TempDir(), func(string) []string { return []string{"sh", "-c", "echo no disk >&2; exit 1"} })
	if err == nil || !strings.Contains(err.Error(), "no disk") {
		t.Errorf("got %v", err)
	}
}

// TestCerts: the certificates hold for what they are made for, and no more.
func TestCerts(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	if err := Certs(dir); err != nil {
		t.Fatal(err)
	}
	pem, err := os.ReadFile(filepath.Join(dir, "ca-cert.pem"))
	if err != nil {
		t.Fatal(err)
	}
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM(pem)
	for name, usage := range map[string]x509.ExtKeyUsage{"server": x509.ExtKeyUsageServerAuth, "client": x509.ExtKeyUsageClientAuth} {
		pair, err := tls.LoadX509KeyPair(filepath.Join(dir, name+"-cert.pem"), filepath.Join(dir, name+"-key.pem"))
		if err != nil {
			t.Fatal(err)
		}
		if _, err := pair.Leaf.Verify(x509.VerifyOptions{Roots: roots, KeyUsages: []x509.ExtKeyUsage{usage}}); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
	server, err := tls.LoadX509KeyPair(filepath.Join(dir, "server-cert.pem"), filepath.Join(dir, "server-key.pem"))
	if err != nil {
		t.Fatal(err)
	}
	if err := server.Leaf.VerifyHostname("elsewhere"); err == nil {
		t.Error("the server's certificate holds for any name")
	}
}
