package server

import (
	"sync/atomic"

	"github.com/vmdisk/vmdisk/nbd"
)

// Counters count the requests of one export, over all its connections. A
// request is counted before its reply leaves, whether it succeeded or not, so a
// client that has all its replies finds all its requests counted. Requests that
// validation refused count in Errors alone.
type Counters struct {
	kinds  [nbd.CmdBlockStatus + 1]counter
	errors atomic.Int64
}

type counter struct{ ops, bytes atomic.Int64 }

// Count is a number of requests, and of bytes they covered.
type Count struct {
	Ops   int64 `json:"ops"`
	Bytes int64 `json:"bytes"`
}

// Snapshot is the state of Counters at one time.
type Snapshot struct {
	Read        Count `json:"read"`
	Write       Count `json:"write"`
	Zero        Count `json:"zero"`
	Trim        Count `json:"trim"`
	Flush       Count `json:"flush"`
	Cache       Count `json:"cache"`
	BlockStatus Count `json:"block_status"`
	// Errors counts the replies with an error.
	Errors int64 `json:"errors"`
}

// Snapshot reads the counters.
func (c *Counters) Snapshot() Snapshot {
	get := func(cmd nbd.Command) Count { return Count{c.kinds[cmd].ops.Load(), c.kinds[cmd].bytes.Load()} }
	return Snapshot{
		Read: get(nbd.CmdRead), Write: get(nbd.CmdWrite), Zero: get(nbd.CmdWriteZeroes), Trim: get(nbd.CmdTrim),
		Flush: get(nbd.CmdFlush), Cache: get(nbd.CmdCache), BlockStatus: get(nbd.CmdBlockStatus),
		Errors: c.errors.Load(),
	}
}

func (c *Counters) count(r *nbd.Request) {
	k := &c.kinds[r.Command]
	k.ops.Add(1)
	k.bytes.Add(int64(r.Length))
}
