package diskurl

import (
	"maps"
	"slices"
)

type kind int

const (
	kindNone kind = iota
	kindProtocol
	kindFormat
	kindFilter
)

// names are those that some build of this program has, and another may lack: a row that is
// left out by its build tag, or that is to come. A URL of one is refused as what it is,
// and not as a mistake of spelling.
var names = map[string]kind{
	SchemeFile: kindProtocol, SchemeHTTP: kindProtocol, SchemeHTTPS: kindProtocol,
	SchemeMem: kindProtocol, SchemeNull: kindProtocol, SchemePattern: kindProtocol,
	SchemeNBD: kindProtocol, SchemeNBDS: kindProtocol, SchemeNBDUnix: kindProtocol, SchemeNBDSUnix: kindProtocol,
	SchemeNBDVsock: kindProtocol, SchemeNBDSVsock: kindProtocol,
	SchemeVhostUser: kindProtocol,

	FormatRaw: kindFormat, FormatQcow2: kindFormat, FormatLUKS: kindFormat,

	"cow": kindFilter, "delay": kindFilter, "fault": kindFilter, "limit": kindFilter, "log": kindFilter,
	"noextents": kindFilter, "nozero": kindFilter, "rate": kindFilter, "readonly": kindFilter,
	"stats": kindFilter, "volatile": kindFilter,
}

// The schemes of disk URLs.
const (
	SchemeFile      = "file"
	SchemeNBD       = "nbd"
	SchemeNBDS      = "nbds"
	SchemeNBDUnix   = "nbd+unix"
	SchemeNBDSUnix  = "nbds+unix"
	SchemeNBDVsock  = "nbd+vsock"
	SchemeNBDSVsock = "nbds+vsock"
	SchemeHTTP      = "http"
	SchemeHTTPS     = "https"
	SchemeMem       = "mem"
	SchemeNull      = "null"
	SchemePattern   = "pattern"
	SchemeVhostUser = "vhost-user"
)

// The formats.
const (
	FormatRaw   = "raw"
	FormatQcow2 = "qcow2"
	FormatLUKS  = "luks"
)

// Built reports whether this build has the protocol, format or filter of a name; a
// protocol's names are its schemes.
func Built(name string) bool {
	_, p := protocols[name]
	_, f := formats[name]
	_, l := filters[name]
	return p || f || l
}

// kindOf is what a name is the name of, whether it is in this build or not.
func kindOf(name string) kind {
	if _, ok := protocols[name]; ok {
		return kindProtocol
	}
	if _, ok := formats[name]; ok {
		return kindFormat
	}
	if _, ok := filters[name]; ok {
		return kindFilter
	}
	return names[name]
}

// allOf are the names of a kind, in order.
func allOf(k kind) []string {
	all := maps.Clone(names)
	for _, name := range slices.Concat(slices.Collect(maps.Keys(protocols)), slices.Collect(maps.Keys(formats)), slices.Collect(maps.Keys(filters))) {
		all[name] = kindOf(name)
	}
	var out []string
	for name, is := range all {
		if is == k {
			out = append(out, name)
		}
	}
	slices.Sort(out)
	return out
}

// allFormats has raw first, which is what people want most.
func allFormats() []string {
	others := slices.DeleteFunc(allOf(kindFormat), func(name string) bool { return name == FormatRaw })
	return append([]string{FormatRaw}, others...)
}

// Formats lists the formats of this build.
func Formats() []string {
	return slices.DeleteFunc(allFormats(), func(name string) bool { return !Built(name) })
}

// allSchemes are what a URL may begin with.
func allSchemes() []string { return append(allOf(kindProtocol), allOf(kindFormat)...) }
