//go:build !without_volatile

package diskurl

import "github.com/vmdisk/vmdisk/filter/volatile"

var _ = addFilter(&filter{
	name: "volatile", summary: "keep writes in RAM until a flush or FUA; killed, it forgets them",
	build: plain(volatile.New),
})
