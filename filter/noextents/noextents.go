package noextents

import "github.com/vmdisk/vmdisk/disk"

// filter embeds the whole Disk: extents apart, every interface is the child's.
// Extents itself is never called, since Maps is empty.
type filter struct{ *disk.Disk }

// New puts the filter over child, which it owns from here on.
func New(child *disk.Disk) *disk.Disk {
	return disk.New(filter{child}, child.Name())
}

// Info implements disk.Driver.
func (f filter) Info() disk.Info {
	in := f.Disk.Info()
	in.Maps, in.KnownZero = nil, false
	return in
}

// Unwrap implements disk.Unwrapper.
func (f filter) Unwrap() *disk.Disk { return f.Disk }
