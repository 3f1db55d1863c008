package server

import (
	"slices"

	"github.com/vmdisk/vmdisk/imageio/pyjson"
)

// message is the JSON object of a PATCH, whose values are read with the original's
// errors: clients show them, and its own tests compare them.
type message struct{ pyjson.Object }

func parseMessage(text []byte) (message, error) {
	v, err := pyjson.Parse(text)
	if err != nil {
		return message{}, err
	}
	o, ok := v.(pyjson.Object)
	if !ok {
		return message{}, failf(400, "%.100s: an object is expected", pyjson.Repr(v))
	}
	return message{o}, nil
}

func (m message) oneOf(key string, values ...string) (string, error) {
	v, ok := m.Get(key)
	if !ok {
		return "", failf(400, "Missing required value for %s", key)
	}
	if s, ok := v.(string); ok && slices.Contains(values, s) {
		return s, nil
	}
	return "", unsupported(v, key, values)
}

func unsupported(v any, key string, values []string) error {
	return failf(400, "Unsupported value %.200s for '%s', expecting one of %s", pyjson.Repr(v), key, pyjson.Repr(slices.Sorted(slices.Values(values))))
}

// natural reads an integer from 0 on, clamped to the int64s; below 0 a fallback says
// that the key is required.
func (m message) natural(key string, fallback int64) (int64, error) {
	v, given := m.Get(key)
	if !given && fallback < 0 {
		return 0, failf(400, "Missing required value for '%s'", key)
	}
	if !given {
		return fallback, nil
	}
	n, ok := toInteger(v)
	if !ok {
		return 0, failf(400, "Integer required %.200s", pyjson.Repr(v))
	}
	if n < 0 {
		return 0, failf(400, "Invalid value %.200s < 0", pyjson.Repr(v))
	}
	return n, nil
}

func (m message) boolean(key string) (bool, error) {
	v, given := m.Get(key)
	b, ok := v.(bool)
	if given && !ok {
		return false, failf(400, "Boolean required %.200s", pyjson.Repr(v))
	}
	return b, nil
}
