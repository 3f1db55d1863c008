package engine

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"encoding/json"
	"encoding/xml"
	"errors"
	"net/http"
	"path/filepath"

	"github.com/vmdisk/vmdisk/imageio/client"
)

// ticketTimeout is how long a ticket lives without activity, in seconds.
const ticketTimeout = 300

// Phases of a transfer.
const (
	initializing = "initializing"
	transferring = "transferring"
	finalizing   = "finalizing_success"
	succeeded    = "finished_success"
	failed       = "finished_failure"
)

type transfer struct {
	XMLName xml.Name `xml:"image_transfer"`
	entity
	Disk       entity  `xml:"disk"`
	Host       *entity `xml:"host,omitempty"`
	Format     string  `xml:"format,omitempty"`
	Inactivity int64   `xml:"inactivity_timeout,omitempty"`
	Direction  string  `xml:"direction,omitempty"`
	Phase      string  `xml:"phase"`
	URL        string  `xml:"transfer_url,omitempty"`
	ProxyURL   string  `xml:"proxy_url,omitempty"`
	ticket     string  // the credential, which is not the transfer's id
}

type action struct {
	XMLName xml.Name `xml:"action"`
	Status  string   `xml:"status"`
}

func newID() string {
	var b [16]byte
	_, _ = rand.Read(b[:]) // never fails
	b[6], b[8] = b[6]&0x0f|0x40, b[8]&0x3f|0x80
	h := hex.EncodeToString(b[:])
	return h[:8] + "-" + h[8:12] + "-" + h[12:16] + "-" + h[16:20] + "-" + h[20:]
}

func (e *Engine) diskPath(id string) string {
	return filepath.Join(e.cfg.Storage, filepath.Base(filepath.Clean("/"+id)))
}

// DiskPath is the file of a disk.
func (e *Engine) DiskPath(id string) string { return e.diskPath(id) }

// transferOf finds the transfer under way that holds the disk.
func (e *Engine) transferOf(diskID string) *transfer {
	for _, t := range e.transfers {
		if t.Disk.ID == diskID && t.Phase != succeeded && t.Phase != failed {
			return t
		}
	}
	return nil
}

// addTransfer locks the disk and installs tickets for it.
func (e *Engine) addTransfer(r *http.Request) (any, error) {
	t := new(transfer)
	if err := read(r, t); err != nil {
		return nil, err
	}
	d, err := e.diskOf(t.Disk.ID)
	switch {
	case err != nil:
		return nil, err
	case d.Status != diskOK:
		return nil, faultf(http.StatusConflict, "the disk %s is %s", d.ID, d.Status)
	case t.Host != nil && t.Host.ID != hostID:
		return nil, faultf(http.StatusNotFound, "no host %s", t.Host.ID)
	case t.Direction != "" && t.Direction != "upload" && t.Direction != "download":
		return nil, faultf(http.StatusBadRequest, "direction %q", t.Direction)
	}
	t.ID, t.ticket, t.Phase = newID(), newID(), initializing
	t.Href = root + "imagetransfers/" + t.ID
	if err := e.addTickets(r.Context(), t, d); err != nil {
		return nil, errors.Join(err, e.removeTickets(r.Context(), t))
	}
	d.Status = diskLocked
	e.transfers[t.ID] = t
	return *t, nil
}

// addTickets installs a ticket for the disk on the host, and one for that
// ticket on the proxy.
func (e *Engine) addTickets(ctx context.Context, t *transfer, d *disk) error {
	spec := client.TicketSpec{UUID: t.ticket, URL: "file://" + d.path, Size: d.Provisioned, Ops: []string{"write"}, Timeout: ticketTimeout,
		InactivityTimeout: t.Inactivity, TransferID: t.ID, Sparse: d.Sparse}
	if t.Direction == "download" {
		spec.Ops = []string{"read"}
	}
	if err := install(ctx, e.cfg.Host, spec); err != nil {
		return err
	}
	t.URL = e.cfg.Host.Images + t.ticket
	if e.cfg.Proxy == nil {
		return nil
	}
	spec.URL = t.URL
	t.ProxyURL = e.cfg.Proxy.Images + t.ticket
	return install(ctx, *e.cfg.Proxy, spec)
}

func install(ctx context.Context, d Daemon, spec client.TicketSpec) error {
	text, err := json.Marshal(spec)
	if err != nil {
		return err
	}
	return d.Control.Add(ctx, text)
}

func (e *Engine) removeTickets(ctx context.Context, t *transfer) error {
	var err error
	if e.cfg.Proxy != nil {
		err = e.cfg.Proxy.Control.Remove(ctx, t.ticket)
	}
	return errors.Join(err, e.cfg.Host.Control.Remove(ctx, t.ticket))
}

func (e *Engine) transferByID(id string) (*transfer, error) {
	t := e.transfers[id]
	if t == nil {
		return nil, faultf(http.StatusNotFound, "no image transfer %s", id)
	}
	return t, nil
}

// getTransfer goes on to the phase that follows, as if time had passed.
func (e *Engine) getTransfer(r *http.Request) (any, error) {
	t, err := e.transferByID(r.PathValue("id"))
	if err != nil {
		return nil, err
	}
	switch t.Phase {
	case initializing:
		t.Phase = transferring
	case finalizing:
		t.Phase = succeeded
		e.disks[t.Disk.ID].Status = diskOK
	}
	return *t, nil
}

// abandon frees the disk of a canceled transfer; what was uploaded goes with it.
func (e *Engine) abandon(t *transfer) error {
	d := e.disks[t.Disk.ID]
	if t.Direction == "download" {
		d.Status = diskOK
		return nil
	}
	return e.drop(d)
}

func (e *Engine) actOnTransfer(r *http.Request) (any, error) {
	t, err := e.transferByID(r.PathValue("id"))
	if err != nil {
		return nil, err
	}
	if t.Phase != transferring && t.Phase != initializing {
		return nil, faultf(http.StatusConflict, "the transfer %s is %s", t.ID, t.Phase)
	}
	switch name := r.PathValue("action"); name {
	case "extend":
		err = e.cfg.Host.Control.Extend(r.Context(), t.ticket, ticketTimeout)
		if e.cfg.Proxy != nil {
			err = errors.Join(err, e.cfg.Proxy.Control.Extend(r.Context(), t.ticket, ticketTimeout))
		}
	case "finalize":
		if err = e.removeTickets(r.Context(), t); err == nil {
			t.Phase = finalizing
		}
	case "cancel":
		if err = e.removeTickets(r.Context(), t); err == nil {
			t.Phase = failed
			err = e.abandon(t)
		}
	default:
		err = faultf(http.StatusNotFound, "no action %s", name)
	}
	return action{Status: "complete"}, err
}
