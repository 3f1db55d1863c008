package qcow2

import (
	"encoding/binary"
	"errors"
	"fmt"
	"math/bits"
	"strings"
)

var errUnsupported = errors.ErrUnsupported

// Types of header extensions.
const (
	extEnd           = 0
	extBackingFormat = 0xe2792aca
	extFeatureNames  = 0x6803f857
	extBitmaps       = 0x23852875
	extCrypto        = 0x0537be77
	extDataFile      = 0x44415441
)

const featureEntry = 48

// extension is one as it is on disk. Those that are not known are kept as they are.
type extension struct {
	kind uint32
	data []byte
}

type extensions []extension

// parse reads the extensions from p, which ends where the backing file's name begins.
func (e *extensions) parse(p []byte) error {
	for len(p) >= 8 {
		kind, n := binary.BigEndian.Uint32(p), int64(binary.BigEndian.Uint32(p[4:]))
		if kind == extEnd {
			return nil
		}
		p = p[8:]
		if n > int64(len(p)) {
			return corrupt("header extension %#x has %d bytes, %d are left", kind, n, len(p))
		}
		if (kind == extBackingFormat || kind == extDataFile) && n > maxNameBytes {
			return corrupt("header extension %#x is a name of %d bytes", kind, n)
		}
		if _, twice := e.find(kind); twice && kind != extFeatureNames {
			return corrupt("header extension %#x is there twice", kind)
		}
		*e = append(*e, extension{kind: kind, data: p[:n:n]})
		p = p[min((n+7)&^7, int64(len(p))):]
	}
	return nil
}

func (e extensions) find(kind uint32) ([]byte, bool) {
	for _, x := range e {
		if x.kind == kind {
			return x.data, true
		}
	}
	return nil, false
}

// text is a string extension.
func (e extensions) text(kind uint32) string {
	data, _ := e.find(kind)
	return string(data)
}

// featureNames names incompatible feature bits as the image itself does.
func (e extensions) featureNames(set uint64) string {
	table, _ := e.find(extFeatureNames)
	var names []string
	for ; set != 0; set &= set - 1 {
		bit := bits.TrailingZeros64(set)
		name := fmt.Sprintf("incompatible bit %d", bit)
		for t := table; len(t) >= featureEntry; t = t[featureEntry:] {
			if t[0] == 0 && int(t[1]) == bit {
				name = fmt.Sprintf("%q", strings.TrimRight(string(t[2:featureEntry]), "\x00"))
				break
			}
		}
		names = append(names, name)
	}
	return strings.Join(names, ", ")
}
