package server

import (
	"context"
	"sync"
	"sync/atomic"

	"golang.org/x/sync/semaphore"
)

// Sizes of buffers. A workspace belongs to whoever serves a connection for as
// long as its socket has requests; pieces carry the data of large requests.
const (
	inlineMax  = 64 << 10               // larger data is not copied through a workspace
	inSize     = inlineMax + 64<<10     // a whole inline write, and a batch of others
	outSize    = flushAt + inlineMax    // what is coalesced, and room for one more
	flushAt    = 192 << 10              // about what a unix socket takes at once
	headRoom   = 64                     // for a header before inline data
	pieceSmall = inlineMax              // sizes of pieces
	pieceLarge = 1 << 20                //
	spaceCost  = inSize + outSize + 512 //
)

// workspace is what serving a connection takes. in[r:w] has arrived and is not
// yet decoded; out holds replies that have not left.
type workspace struct {
	in   []byte
	r, w int
	out  []byte
	// parked: only a copy of what was not yet decoded, see park.
	parked bool
}

// memory is the budget of all connections. Workspaces and pieces are budgeted
// apart, because who holds a workspace may wait for a piece; who holds a piece
// waits for the disk alone. Half is for clients that are waited for, see slow.go.
type memory struct {
	spaces, pieces *semaphore.Weighted
	crowd, fresh   *semaphore.Weighted // of spaces, what crowded and new connections have
	slow           atomic.Int64        // what slow clients hold
	slowMax        int64
	spacePool      sync.Pool
	small, large   sync.Pool
	starved        func() // called before somebody waits
}

func newMemory(limit int64) *memory {
	limit = max(limit, 16<<20)
	m := &memory{
		crowd:   semaphore.NewWeighted(limit / 4 / spaceCost / 4),
		fresh:   semaphore.NewWeighted(limit / 4 / spaceCost * 5 / 8),
		spaces:  semaphore.NewWeighted(limit / 4 / spaceCost),
		pieces:  semaphore.NewWeighted(limit / 4),
		slowMax: limit / 2,
	}
	m.spacePool.New = func() any {
		return &workspace{in: make([]byte, inSize), out: make([]byte, 0, outSize+headRoom)}
	}
	m.small.New = func() any { b := make([]byte, pieceHead+pieceSmall); return &b }
	m.large.New = func() any { b := make([]byte, pieceHead+pieceLarge); return &b }
	return m
}

// wait takes n from sem.
func (m *memory) wait(ctx context.Context, sem *semaphore.Weighted, n int64) error {
	if sem.TryAcquire(n) {
		return nil
	}
	m.starved()
	return sem.Acquire(ctx, n)
}

func (m *memory) takeSpace(ctx context.Context) (*workspace, error) {
	if err := m.wait(ctx, m.spaces, 1); err != nil {
		return nil, err
	}
	return m.spacePool.Get().(*workspace), nil
}

// trySpace is takeSpace for those who may not wait; nil when there is none.
func (m *memory) trySpace() *workspace {
	if !m.spaces.TryAcquire(1) {
		return nil
	}
	return m.spacePool.Get().(*workspace)
}

// putSpace leaves the budget to the caller.
func (m *memory) putSpace(ws *workspace) {
	ws.r, ws.w, ws.out = 0, 0, ws.out[:0]
	m.spacePool.Put(ws)
}

// pieceCost is the size of the piece for n bytes.
func (m *memory) pieceCost(n int) int64 {
	if n > pieceSmall {
		return pieceHead + pieceLarge
	}
	return pieceHead + pieceSmall
}

// takePiece returns a buffer with room for n bytes, or for pieceLarge if n is
// more, behind pieceHead. The budget for it, and for putPiece, is the caller's.
func (m *memory) takePiece(n int) *[]byte {
	if n > pieceSmall {
		return m.large.Get().(*[]byte)
	}
	return m.small.Get().(*[]byte)
}

func (m *memory) putPiece(p *[]byte) {
	pool := &m.small
	if len(*p) > pieceHead+pieceSmall {
		pool = &m.large
	}
	pool.Put(p)
}
