package disktest

import "fmt"

// model is what a window of a disk must hold. A byte that was trimmed is
// unknown until it is written.
type model struct {
	base    int64
	data    []byte
	unknown []bool
	frozen  bool // changes are discarded
}

func newModel(base int64, content []byte, frozen bool) *model {
	return &model{base: base, data: content, unknown: make([]bool, len(content)), frozen: frozen}
}

func (m *model) end() int64 { return m.base + int64(len(m.data)) }

func (m *model) write(off int64, p []byte) {
	if m.frozen {
		return
	}
	copy(m.data[off-m.base:], p)
	clear(m.unknown[off-m.base:][:len(p)])
}

func (m *model) zero(off, n int64) {
	if m.frozen {
		return
	}
	clear(m.data[off-m.base:][:n])
	clear(m.unknown[off-m.base:][:n])
}

func (m *model) forget(off, n int64) {
	for i := off - m.base; i < off-m.base+n; i++ {
		m.unknown[i] = !m.frozen
	}
}

// check compares bytes read at off.
func (m *model) check(off int64, got []byte) error {
	at := off - m.base
	for i, b := range got {
		if b != m.data[at+int64(i)] && !m.unknown[at+int64(i)] {
			return fmt.Errorf("offset %d holds %#x, want %#x", off+int64(i), b, m.data[at+int64(i)])
		}
	}
	return nil
}

// checkZero fails unless all known bytes of the range are zeros.
func (m *model) checkZero(off, n int64) error {
	for i := max(off, m.base); i < min(off+n, m.end()); i++ {
		if m.data[i-m.base] != 0 && !m.unknown[i-m.base] {
			return fmt.Errorf("the map says that offset %d is zero, it holds %#x", i, m.data[i-m.base])
		}
	}
	return nil
}
