package lab

import (
	"bufio"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"fmt"
	"math/big"
	"net"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/vmdisk/vmdisk/disk"
	"github.com/vmdisk/vmdisk/diskurl"
	"github.com/vmdisk/vmdisk/imageio/server"
)

// labDaemon is a transfer daemon of an experiment.
type labDaemon struct {
	server *server.Server
	port   int
	ca     string // file of the certificate to trust
	log    string
}

// withDaemon runs use beside a daemon over HTTPS that zeroes by writing (zero is
// "write") or as fast as the storage can ("fast"). Each disk takes rate bytes a
// second, or as many as it can if rate is 0.
func (s *imageioStudy) withDaemon(ctx context.Context, zero string, rate int64, use func(*labDaemon) error) error {
	cfg := server.DefaultConfig()
	cfg.Remote = server.RemoteConfig{Host: "127.0.0.1"}
	cfg.Local.Enable, cfg.Control.Enable = false, false
	d := &labDaemon{ca: filepath.Join(s.tmp, "cert.pem"), log: filepath.Join(s.tmp, "daemon.log")}
	cfg.TLS.CertFile, cfg.TLS.KeyFile = d.ca, filepath.Join(s.tmp, "key.pem")
	cfg.Log = server.LogConfig{Level: "DEBUG", File: d.log}
	if err := errors.Join(makeCertificate(cfg.TLS.CertFile, cfg.TLS.KeyFile), os.RemoveAll(d.log)); err != nil {
		return err
	}
	options := diskurl.Options{FileOptions: diskurl.FileOptions{ForceShare: true, Cache: "none"}, Filters: storageFilters(zero, rate)}
	var err error
	d.server, err = server.New(cfg, func(ctx context.Context, u *url.URL, a server.Access) (*disk.Disk, error) {
		o := options
		o.ReadOnly = !a.Write
		return diskurl.OpenTicket(ctx, u, o)
	})
	if err != nil {
		return err
	}
	d.port = cfg.Remote.Port
	stop, cancel := context.WithCancel(ctx)
	defer cancel()
	served := make(chan error, 1)
	go func() { served <- d.server.Serve(stop) }()
	err = use(d)
	cancel()
	return errors.Join(err, <-served)
}

// storageFilters make a device the storage of a load. Zeros that are written
// take their share of its rate.
func storageFilters(zero string, rate int64) (filters []string) {
	if zero == "write" {
		filters = append(filters, "nozero:zeromode=emulate")
	}
	if rate > 0 {
		filters = append(filters, fmt.Sprintf("rate:write-rate=%d", rate))
	}
	return filters
}

// ticket installs a ticket to write the device and returns the image's URL.
func (d *labDaemon) ticket(device string, size int64) (string, error) {
	id := rand.Text()
	text := fmt.Sprintf(`{"uuid": %q, "size": %d, "ops": ["write"], "timeout": 600, "url": "file://%s"}`, id, size, device)
	if _, err := d.server.Tickets().Add([]byte(text)); err != nil {
		return "", err
	}
	return fmt.Sprintf("https://127.0.0.1:%d/images/%s", d.port, id), nil
}

// makeCertificate writes a certificate for 127.0.0.1 that signs itself.
func makeCertificate(certFile, keyFile string) error {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return err
	}
	cert := &x509.Certificate{
		SerialNumber: big.NewInt(time.Now().UnixNano()), Subject: pkix.Name{CommonName: "vmdisk lab"},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(24 * time.Hour), IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)},
		IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign | x509.KeyUsageDigitalSignature,
	}
	der, err := x509.CreateCertificate(rand.Reader, cert, cert, &key.PublicKey, key)
	if err != nil {
		return err
	}
	keyDER, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return err
	}
	return errors.Join(
		os.WriteFile(certFile, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}), 0o600),
		os.WriteFile(keyFile, pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: keyDER}), 0o600))
}

// logged is what the daemon's log tells of a load.
type logged struct {
	Requests int     `json:"requests"`
	Elapsed  float64 `json:"elapsed_seconds"`      // from the first OPTIONS to the last FLUSH
	Latency  float64 `json:"mean_latency_seconds"` // of an operation in the daemon
}

var (
	requestLine = regexp.MustCompile(`^(\S+ \S+) (?:INFO|DEBUG) +\[\w+\] \[\S+\] ([A-Z]+) ticket=`)
	operations  = regexp.MustCompile(`\[(?:read|write|zero|flush) (\d+) ops, ([0-9.]+) s`)
)

// readLog counts lines the way one does with grep and wc.
func readLog(path string) (l logged, err error) {
	f, err := os.Open(path)
	if err != nil {
		return l, err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	var first, last time.Time
	ops, busy := 0, 0.0
	lines := bufio.NewScanner(f)
	for lines.Scan() {
		if m := requestLine.FindStringSubmatch(lines.Text()); m != nil {
			l.Requests++
			at, err := time.Parse("2006-01-02 15:04:05.000", strings.Replace(m[1], ",", ".", 1))
			if err != nil {
				return l, err
			}
			if first.IsZero() && m[2] == "OPTIONS" {
				first = at
			}
			if m[2] == "FLUSH" {
				last = at
			}
		}
		for _, m := range operations.FindAllStringSubmatch(lines.Text(), -1) {
			n, _ := strconv.Atoi(m[1])
			seconds, _ := strconv.ParseFloat(m[2], 64)
			ops, busy = ops+n, busy+seconds
		}
	}
	if err := lines.Err(); err != nil {
		return l, err
	}
	if l.Elapsed = last.Sub(first).Seconds(); l.Requests == 0 || ops == 0 || l.Elapsed <= 0 {
		return l, fmt.Errorf("the daemon's log shows no complete upload: %d requests, %d operations", l.Requests, ops)
	}
	l.Latency = busy / float64(ops)
	return l, nil
}

// loop is a block device over a file of its own.
type loop struct {
	path, file string
	size       int64
}

func newLoop(ctx context.Context, file string, size int64) (*loop, error) {
	l := &loop{file: file, size: size}
	f, err := os.Create(file)
	if err != nil {
		return nil, err
	}
	if err := errors.Join(f.Truncate(size), f.Close()); err != nil {
		return nil, err
	}
	cmd := exec.CommandContext(ctx, "losetup", "--find", "--show", "--direct-io=on", file)
	var stderr strings.Builder
	cmd.Stderr = &stderr
	text, err := cmd.Output()
	if err != nil {
		return nil, fmt.Errorf("losetup (loop devices are needed): %w: %s", err, strings.TrimSpace(stderr.String()))
	}
	l.path = strings.TrimSpace(string(text))
	return l, nil
}

// newLoops returns those that it made even with an error.
func newLoops(ctx context.Context, dir string, n int, size int64) (all []*loop, err error) {
	for i := range n {
		l, err := newLoop(ctx, filepath.Join(dir, fmt.Sprintf("target%d", i)), size)
		if err != nil {
			return all, err
		}
		all = append(all, l)
	}
	return all, nil
}

// clear makes the device empty and waits until nothing is left to be written, so
// that no run pays for the one before.
func (l *loop) clear() error {
	f, err := os.OpenFile(l.file, os.O_RDWR, 0)
	if err != nil {
		return err
	}
	err = unix.Fallocate(int(f.Fd()), unix.FALLOC_FL_PUNCH_HOLE|unix.FALLOC_FL_KEEP_SIZE, 0, l.size)
	if err = errors.Join(err, f.Sync(), f.Close()); err != nil {
		return fmt.Errorf("empty %s: %w", l.file, err)
	}
	unix.Sync()
	return nil
}

// close also runs when the experiment was interrupted.
func (l *loop) close() error {
	if text, err := exec.Command("losetup", "--detach", l.path).CombinedOutput(); err != nil {
		return fmt.Errorf("losetup --detach %s: %w: %s", l.path, err, text)
	}
	return os.Remove(l.file)
}

func closeLoops(all []*loop) (err error) {
	for _, l := range all {
		err = errors.Join(err, l.close())
	}
	return err
}
