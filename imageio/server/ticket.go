package server

import (
	"context"
	"fmt"
	"io/fs"
	"net/url"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/vmdisk/vmdisk/disk"
	"github.com/vmdisk/vmdisk/imageio/pyjson"
)

// Opener opens the disk behind a ticket's url. The path of a file's and the Opaque
// part of an nbd URL are as they stand in the ticket: nothing in them is escaped. It
// should return soon after ctx ended.
type Opener func(ctx context.Context, u *url.URL, a Access) (*disk.Disk, error)

// Ticket is the permission to transfer one image, and the account of what was
// transferred. Its id is the only credential, so no log line shows it whole.
// All methods are safe for concurrent use.
type Ticket struct {
	spec  ticketSpec
	url   *url.URL
	clock func() time.Duration // monotonic time since boot
	disks *disks
	gone  context.Context // ends when the ticket is canceled
	leave context.CancelFunc

	mu          sync.Mutex
	expires     time.Duration
	accessed    time.Duration
	ongoing     map[*operation]struct{}
	completed   rangeSet
	canceled    bool
	idle        chan struct{} // closed once the ticket is canceled and nothing runs
	connections map[uint64]struct{}

	opening gate // held while opening or closing the disk
	disk    *sharedDisk
}

// ticketSpec is the JSON form of a ticket as it is installed.
type ticketSpec struct {
	UUID              string
	Size              int64
	Ops               []string
	Timeout           int64
	InactivityTimeout int64
	URL               string
	TransferID        string
	Filename          string
	Sparse, Dirty     bool
}

// operation is one running request of a ticket.
type operation struct {
	off    int64
	done   atomic.Int64 // bytes
	cancel context.CancelFunc
}

// authError is the 403 of the API.
type authError struct{ reason string }

func (e *authError) Error() string { return "You are not allowed to access this resource: " + e.reason }

// Is makes it a permission error for NBD clients.
func (e *authError) Is(target error) bool { return target == fs.ErrPermission }

// invalidTicket says what is wrong with a ticket that was to be installed.
type invalidTicket struct{ reason string }

func (e *invalidTicket) Error() string { return e.reason }

// prefix is at most n bytes of an id, and never more than half of it.
func prefix(id string, n int) string { return id[:min(n, len(id)/2)] }

func newTicket(spec ticketSpec, disks *disks, clock func() time.Duration) (*Ticket, error) {
	u, err := parseTicketURL(spec.URL)
	if err != nil {
		return nil, &invalidTicket{fmt.Sprintf("Invalid ticket: Invalid value for 'url': %q: %v", spec.URL, err)}
	}
	now := clock()
	gone, leave := context.WithCancel(context.Background())
	return &Ticket{spec: spec, url: u, clock: clock, disks: disks, gone: gone, leave: leave, opening: make(gate, 1),
		expires: now + seconds(spec.Timeout), accessed: now,
		ongoing: map[*operation]struct{}{}, idle: make(chan struct{}), connections: map[uint64]struct{}{}}, nil
}

// seconds converts without overflow: a timeout may be any integer.
func seconds(n int64) time.Duration {
	return time.Duration(min(max(n, -1<<30), 1<<30)) * time.Second
}

// may reports whether the ticket allows op; write implies read.
func (t *Ticket) may(op string) bool {
	return slices.Contains(t.spec.Ops, op) || op == "read" && slices.Contains(t.spec.Ops, "write")
}

// authorize fails with an authError unless op may begin now.
func (t *Ticket) authorize(op string) error {
	t.mu.Lock()
	defer t.mu.Unlock()
	switch {
	case t.canceled:
		return t.errCanceled()
	case t.expires <= t.clock():
		return &authError{fmt.Sprintf("Transfer=%s expired", t.spec.TransferID)}
	case !t.may(op):
		return &authError{fmt.Sprintf("Transfer=%s forbids %s", t.spec.TransferID, op)}
	}
	return nil
}

func (t *Ticket) errCanceled() error {
	return &authError{fmt.Sprintf("Transfer=%s was canceled", t.spec.TransferID)}
}

// run performs f as an operation that starts at off: it counts as activity, its
// progress shows in the ticket, and canceling the ticket cancels f's context. It
// fails with an authError when the ticket was canceled before or meanwhile.
func (t *Ticket) run(ctx context.Context, off int64, f func(ctx context.Context, op *operation) error) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	op := &operation{off: off, cancel: cancel}
	if err := t.begin(op); err != nil {
		return err
	}
	err := f(ctx, op)
	if ended := t.end(op); ended != nil {
		return ended
	}
	return err
}

func (t *Ticket) begin(op *operation) error {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.canceled {
		return t.errCanceled()
	}
	t.ongoing[op] = struct{}{}
	return nil
}

// end is remove for what the client asked for: it counts as activity.
func (t *Ticket) end(op *operation) error {
	if err := t.remove(op); err != nil {
		return err
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	if len(t.spec.Ops) == 1 {
		t.completed.add(op.off, op.off+op.done.Load())
	}
	t.touchLocked()
	return nil
}

// remove fails with an authError when the ticket was canceled meanwhile.
func (t *Ticket) remove(op *operation) error {
	t.mu.Lock()
	defer t.mu.Unlock()
	delete(t.ongoing, op)
	if !t.canceled {
		return nil
	}
	if len(t.ongoing) == 0 {
		close(t.idle)
	}
	return t.errCanceled()
}

// touch counts as activity of the client: the ticket lives on for its timeout.
func (t *Ticket) touch() {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.touchLocked()
}

func (t *Ticket) touchLocked() {
	t.accessed = t.clock()
	t.expires = t.accessed + seconds(t.spec.Timeout)
}

// extend lets the ticket live for timeout from now, an expired one too.
func (t *Ticket) extend(timeout int64) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.expires = t.clock() + seconds(timeout)
}

// info is what GET /tickets/ID tells.
func (t *Ticket) info() pyjson.Object {
	t.mu.Lock()
	defer t.mu.Unlock()
	active := len(t.ongoing) > 0
	idle := int64(0)
	if !active {
		idle = int64((t.clock() - t.accessed) / time.Second)
	}
	info := pyjson.Object{}.With(
		"active", active, "canceled", t.canceled, "connections", len(t.connections),
		"expires", int64(t.expires/time.Second), "idle_time", idle,
		"inactivity_timeout", t.spec.InactivityTimeout, "ops", t.spec.Ops, "size", t.spec.Size,
		"sparse", t.spec.Sparse, "dirty", t.spec.Dirty, "timeout", t.spec.Timeout,
		"url", t.spec.URL, "uuid", t.spec.UUID, "transfer_id", t.spec.TransferID,
	)
	if t.spec.Filename != "" {
		info = info.With("filename", t.spec.Filename)
	}
	if len(t.spec.Ops) == 1 {
		info = info.With("transferred", t.completed.sumWith(t.ongoingRanges()))
	}
	return info
}

func (t *Ticket) ongoingRanges() (ranges [][2]int64) {
	for op := range t.ongoing {
		if done := op.done.Load(); done > 0 {
			ranges = append(ranges, [2]int64{op.off, op.off + done})
		}
	}
	return ranges
}
