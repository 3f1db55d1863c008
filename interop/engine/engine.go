package engine

import (
	"context"
	"crypto/rand"
	"encoding/json"
	"encoding/xml"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"sync"

	"github.com/vmdisk/vmdisk/imageio/client"
)

// Names of what there is one of.
const (
	DataCenter    = "Default"
	Cluster       = "Default"
	StorageDomain = "data"
	HardwareID    = "00000000-0000-4000-8000-00000000c0de" // the host's vdsm.id
)

// Fixed ids of the same.
const (
	dataCenterID    = "11111111-0000-4000-8000-000000000001"
	clusterID       = "11111111-0000-4000-8000-000000000002"
	storageDomainID = "11111111-0000-4000-8000-000000000003"
	hostID          = "11111111-0000-4000-8000-000000000004"
)

// Daemon is a transfer daemon that the engine installs tickets on.
type Daemon struct {
	Control *client.Control
	Images  string // https://HOST:PORT/images/
}

// Config says what the engine manages.
type Config struct {
	User, Password string
	// Storage is the folder of the storage domain.
	Storage string
	// Host is the daemon of the host; Proxy, if set, that of the engine's machine,
	// which passes transfers on for clients that do not reach the host.
	Host  Daemon
	Proxy *Daemon
}

// Engine serves the API below /ovirt-engine/. It is safe for concurrent use.
type Engine struct {
	cfg Config
	mux *http.ServeMux

	mu        sync.Mutex
	tokens    map[string]bool // of the sessions
	calls     []string
	disks     map[string]*disk
	transfers map[string]*transfer
	vms       []vm
	jobs      map[string]string // status by correlation id
}

// New returns an engine that has nothing yet.
func New(cfg Config) *Engine {
	e := &Engine{cfg: cfg, mux: http.NewServeMux(), tokens: map[string]bool{}, disks: map[string]*disk{}, transfers: map[string]*transfer{}, jobs: map[string]string{}}
	e.mux.HandleFunc("POST /ovirt-engine/sso/oauth/token", e.logIn)
	e.mux.HandleFunc("POST /ovirt-engine/services/sso-logout", e.logOut)
	for pattern, h := range map[string]handler{
		"GET datacenters":                     e.listDataCenters,
		"GET datacenters/{id}/storagedomains": e.listStorageDomains,
		"GET datacenters/{id}/clusters":       e.listClusters,
		"GET storagedomains":                  e.listStorageDomains,
		"GET clusters/{id}":                   e.getCluster,
		"GET hosts":                           e.listHosts,
		"POST disks":                          e.addDisk,
		"GET disks/{id}":                      e.getDisk,
		"DELETE disks/{id}":                   e.removeDisk,
		"POST imagetransfers":                 e.addTransfer,
		"GET imagetransfers/{id}":             e.getTransfer,
		"POST imagetransfers/{id}/{action}":   e.actOnTransfer,
		"GET vms":                             e.listVMs,
		"POST vms":                            e.addVM,
		"GET jobs":                            e.listJobs,
	} {
		method, path, _ := strings.Cut(pattern, " ")
		e.mux.HandleFunc(method+" "+root+path, e.serve(h))
	}
	return e
}

const root = "/ovirt-engine/api/"

// ServeHTTP serves one call.
func (e *Engine) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	e.mu.Lock()
	e.calls = append(e.calls, r.Method+" "+strings.TrimPrefix(r.URL.Path, root))
	e.mu.Unlock()
	e.mux.ServeHTTP(w, r)
}

// Calls are the methods and paths of all calls so far.
func (e *Engine) Calls() []string {
	e.mu.Lock()
	defer e.mu.Unlock()
	return append([]string(nil), e.calls...)
}

// handler answers with what is to be encoded as XML; a *fault is an error for
// the client. It is called with the engine's lock held.
type handler func(r *http.Request) (any, error)

// fault is an error of the API.
type fault struct {
	XMLName xml.Name `xml:"fault"`
	Reason  string   `xml:"reason"`
	Detail  string   `xml:"detail"`
	status  int
}

func (f *fault) Error() string { return f.Reason + ": " + f.Detail }

func faultf(status int, format string, args ...any) *fault {
	return &fault{Reason: "Operation Failed", Detail: fmt.Sprintf(format, args...), status: status}
}

func (e *Engine) serve(h handler) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		e.mu.Lock()
		defer e.mu.Unlock()
		status := map[string]int{http.MethodPost: http.StatusAccepted}[r.Method]
		var answer any
		err := e.authorize(r)
		if err == nil {
			answer, err = h(r)
		}
		if err != nil {
			f := new(fault)
			if !errors.As(err, &f) {
				f = faultf(http.StatusInternalServerError, "%v", err)
			}
			answer, status = f, f.status
		}
		w.Header().Set("Content-Type", "application/xml; charset=UTF-8")
		if status != 0 {
			w.WriteHeader(status)
		}
		_ = xml.NewEncoder(w).Encode(answer) // a client that has left needs no answer
	}
}

func (e *Engine) authorize(r *http.Request) error {
	if !e.tokens[strings.TrimPrefix(r.Header.Get("Authorization"), "Bearer ")] {
		return faultf(http.StatusUnauthorized, "the session is unknown or has ended")
	}
	return nil
}

func (e *Engine) logIn(w http.ResponseWriter, r *http.Request) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if r.FormValue("grant_type") != "password" || r.FormValue("username") != e.cfg.User || r.FormValue("password") != e.cfg.Password {
		w.WriteHeader(http.StatusUnauthorized)
		_ = json.NewEncoder(w).Encode(map[string]string{"error_code": "access_denied", "error": "Cannot authenticate user"})
		return
	}
	token := rand.Text()
	e.tokens[token] = true
	_ = json.NewEncoder(w).Encode(map[string]string{"access_token": token, "token_type": "bearer", "scope": r.FormValue("scope")})
}

func (e *Engine) logOut(w http.ResponseWriter, r *http.Request) {
	e.mu.Lock()
	defer e.mu.Unlock()
	delete(e.tokens, r.FormValue("token"))
	_, _ = io.WriteString(w, "{}")
}

// read decodes the body of a call.
func read(r *http.Request, v any) error {
	if err := xml.NewDecoder(io.LimitReader(r.Body, 1<<20)).Decode(v); err != nil {
		return faultf(http.StatusBadRequest, "the body is not the XML it should be: %v", err)
	}
	return nil
}

// matches reports whether an object is what the call searches for:
// "key=value and key=value". A key that the object does not have is a fault.
func matches(r *http.Request, object map[string]string) (bool, error) {
	text := r.FormValue("search")
	if text == "" {
		return true, nil
	}
	for term := range strings.SplitSeq(text, " and ") {
		key, want, ok := strings.Cut(term, "=")
		got, known := object[key]
		if !ok || !known {
			return false, faultf(http.StatusBadRequest, "cannot search for %q", term)
		}
		if got != want {
			return false, nil
		}
	}
	return true, nil
}

// Close takes the tickets of unfinished transfers back.
func (e *Engine) Close(ctx context.Context) error {
	e.mu.Lock()
	defer e.mu.Unlock()
	var errs []error
	for _, t := range e.transfers {
		errs = append(errs, e.removeTickets(ctx, t))
	}
	return errors.Join(errs...)
}
