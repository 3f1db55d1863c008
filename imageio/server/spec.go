package server

import (
	"fmt"
	"math"
	"math/big"

	"github.com/vmdisk/vmdisk/imageio/pyjson"
)

// parseTicket reads the JSON of PUT /tickets/ID. Unknown keys are tolerated; a value of
// another type than a key's own, null too, is not.
func parseTicket(text []byte, defaultInactivity int64) (spec ticketSpec, err error) {
	v, err := pyjson.Parse(text)
	if err != nil {
		return spec, fmt.Errorf("Ticket is not in a json format: %w", err)
	}
	raw, ok := v.(pyjson.Object)
	if !ok {
		return spec, &invalidTicket{fmt.Sprintf("Invalid ticket: %.100s, expecting a dict", pyjson.Repr(v))}
	}
	f := fields{raw: raw}
	spec = ticketSpec{
		UUID: f.str("uuid", true), Size: f.integer("size", true, 0), Ops: f.ops(), Timeout: f.integer("timeout", true, 0),
		InactivityTimeout: f.integer("inactivity_timeout", false, defaultInactivity),
		URL:               f.str("url", true), TransferID: f.str("transfer_id", false), Filename: f.str("filename", false),
		Sparse: f.boolean("sparse"), Dirty: f.boolean("dirty"),
	}
	if f.err == nil && spec.Size < 0 {
		f.invalid("size", big.NewInt(spec.Size), "expecting a value >= 0")
	}
	if f.err != nil {
		return spec, &invalidTicket{"Invalid ticket: " + f.err.Error()}
	}
	if spec.TransferID == "" {
		// Older engines send none; half of the id names the transfer in logs
		// without giving the credential away.
		spec.TransferID = fmt.Sprintf("(ticket/%s)", prefix(spec.UUID, 18))
	}
	return spec, nil
}

// fields reads typed values out of decoded JSON; the first error stays.
type fields struct {
	raw pyjson.Object
	err error
}

func (f *fields) get(key string, required bool) (v any, ok bool) {
	v, ok = f.raw.Get(key)
	if !ok && required && f.err == nil {
		f.err = fmt.Errorf("Required ticket parameter is missing: %s", key) //nolint:staticcheck // the original's text, which clients see
	}
	return v, ok
}

func (f *fields) invalid(key string, v any, reason string) {
	if f.err == nil {
		f.err = fmt.Errorf("Invalid value for '%s': %.200s: %s", key, pyjson.Repr(v), reason) //nolint:staticcheck // the original's text, which clients see
	}
}

func (f *fields) str(key string, required bool) string {
	v, given := f.get(key, required)
	s, ok := v.(string)
	if given && !ok {
		f.invalid(key, v, "expecting a <class 'str'> value")
	}
	return s
}

func (f *fields) boolean(key string) bool {
	v, given := f.get(key, false)
	b, ok := v.(bool)
	if given && !ok {
		f.invalid(key, v, "expecting a <class 'bool'> value")
	}
	return b
}

// integer clamps what does not fit: the engine sends sizes beyond 2^64.
func (f *fields) integer(key string, required bool, fallback int64) int64 {
	v, given := f.get(key, required)
	if !given {
		return fallback
	}
	n, ok := toInteger(v)
	if !ok {
		f.invalid(key, v, "expecting a <class 'int'> value")
	}
	return n
}

// toInteger clamps to the int64s. To the original a boolean is an integer.
func toInteger(v any) (n int64, ok bool) {
	switch v := v.(type) {
	case bool:
		if v {
			return 1, true
		}
		return 0, true
	case *big.Int:
		switch {
		case v.IsInt64():
			return v.Int64(), true
		case v.Sign() < 0:
			return math.MinInt64, true
		}
		return math.MaxInt64, true
	}
	return 0, false
}

func (f *fields) ops() []string {
	v, given := f.get("ops", true)
	list, ok := v.([]any)
	if given && !ok {
		f.invalid("ops", v, "expecting a <class 'list'> value")
	}
	ops := []string{}
	for _, item := range list {
		op, _ := item.(string)
		if op != "read" && op != "write" {
			f.invalid("ops", v, `expecting a list of "read" and "write"`)
		}
		ops = append(ops, op)
	}
	return ops
}
