package server

import (
	"fmt"
	"sync/atomic"

	"github.com/vmdisk/vmdisk/disk"
	"github.com/vmdisk/vmdisk/disk/behind"
	"github.com/vmdisk/vmdisk/nbd"
)

// Export is a disk under a name.
type Export struct {
	// Name that clients ask for: UTF-8, at most 4096 bytes.
	Name string
	// Description for people, shown by LIST and INFO.
	Description string
	// Disk stays open and belongs to the caller, who keeps it until Shutdown
	// returned.
	Disk *disk.Disk
	// ReadOnly refuses changes even where the disk would allow them.
	ReadOnly bool
}

// Limits that the server announces in BLOCK_SIZE. The minimum is 1, since the
// disk does unaligned I/O; the preferred size tells what is cheap.
const (
	maxPayload   = 64 << 20
	minPreferred = 4096
	maxPreferred = 1 << 20
)

type export struct {
	Export
	Counters
	changed  atomic.Bool // something may need a flush
	noSplice atomic.Bool // splice was refused, or does not pay
	// spliceProbed: it is known whether it pays.
	spliceProbed atomic.Bool
	lease        *Lease // nil for the fixed exports
	filling      *behind.Filling
}

// count counts a request that was done.
func (e *export) count(r *nbd.Request) {
	e.Counters.count(r)
	switch r.Command {
	case nbd.CmdWrite:
		e.filling.Wrote(int64(r.Offset), int64(r.Length))
	case nbd.CmdRead, nbd.CmdCache:
		e.filling.Read()
	}
}

func (s *Server) addExport(e Export) error {
	if e.Disk == nil {
		return fmt.Errorf("nbd server: export %q has no disk", e.Name)
	}
	if len(e.Name) > nbd.MaxString || len(e.Description) > nbd.MaxString {
		return fmt.Errorf("nbd server: the name or description of export %.40q... is longer than %d bytes", e.Name, nbd.MaxString)
	}
	if s.byName[e.Name] != nil {
		return fmt.Errorf("nbd server: two exports are named %q", e.Name)
	}
	x := &export{Export: e, filling: behind.NewFilling(e.Disk)}
	s.exports = append(s.exports, x)
	s.byName[e.Name] = x
	return nil
}

// find returns the export for a name that a client sent, or nil.
func (s *Server) find(name string) *export {
	if e := s.byName[name]; e != nil || name != "" {
		return e
	}
	if s.cfg.Default == "" && len(s.exports) == 1 {
		return s.exports[0]
	}
	return s.byName[s.cfg.Default]
}

// Counters returns the counters of the export with that name, which go on
// counting, or nil.
func (s *Server) Counters(name string) *Counters {
	if e := s.find(name); e != nil {
		return &e.Counters
	}
	return nil
}

func (e *export) readOnly() bool { return e.ReadOnly || e.Disk.Info().ReadOnly }

// flags are what the export offers to a connection in mode m; payload says
// whether it may use block status payloads.
func (e *export) flags(m nbd.Mode, payload bool) nbd.TransmissionFlags {
	info := e.Disk.Info()
	f := nbd.FlagHasFlags | nbd.FlagSendFlush | nbd.FlagSendFUA | nbd.FlagSendCache
	if e.readOnly() {
		f |= nbd.FlagReadOnly | nbd.FlagCanMultiConn
	} else {
		if !info.HideZero {
			f |= nbd.FlagSendWriteZeroes
		}
		if info.Trim != disk.None {
			f |= nbd.FlagSendTrim
		}
		if info.FastZero != disk.None {
			f |= nbd.FlagSendFastZero
		}
	}
	if info.MultiConn {
		f |= nbd.FlagCanMultiConn
	}
	if m >= nbd.Structured {
		f |= nbd.FlagSendDF
	}
	if m == nbd.Extended && payload {
		f |= nbd.FlagBlockStatusPayload
	}
	return f
}

// blockSize is the BLOCK_SIZE information.
func (e *export) blockSize() nbd.Info {
	preferred := uint32(minPreferred)
	for info := e.Disk.Info(); int64(preferred) < max(info.Preferred, info.Min) && preferred < maxPreferred; {
		preferred *= 2
	}
	return nbd.Info{Type: nbd.InfoBlockSize, Min: 1, Preferred: preferred, Max: maxPayload}
}

// metaContext is a metadata context that a connection selected; its id on the wire
// is its index in conn.contexts plus 1.
type metaContext struct {
	name string
	m    disk.MapName
}

// contexts lists what the export can report.
func (e *export) contexts() []metaContext {
	list := []metaContext{{nbd.ContextAllocation, disk.Allocation}}
	info := e.Disk.Info()
	for _, m := range info.Maps {
		switch {
		case m == disk.Depth:
			list = append(list, metaContext{nbd.ContextDepth, m})
		case len(m) > len(disk.DirtyPrefix) && m[:len(disk.DirtyPrefix)] == disk.DirtyPrefix:
			list = append(list, metaContext{nbd.ContextDirtyPrefix + string(m[len(disk.DirtyPrefix):]), m})
		}
	}
	return list
}

// status translates an extent of map m into the wire's status flags. A hole
// that a backing file fills is allocated, as far as a client can tell.
func status(m disk.MapName, e disk.Extent) uint64 {
	switch m {
	case disk.Allocation:
		var s uint64
		if e.Flags&disk.ExtentZero != 0 {
			s |= nbd.StatusZero
		}
		if e.Flags&(disk.ExtentHole|disk.ExtentBacking) == disk.ExtentHole {
			s |= nbd.StatusHole
		}
		return s
	case disk.Depth:
		return uint64(e.Value)
	}
	return uint64(e.Value & nbd.StatusDirty)
}
