//go:build !without_readonly

package diskurl

import "github.com/vmdisk/vmdisk/filter/readonly"

var _ = addFilter(&filter{
	name: "readonly", summary: "refuse changes",
	keepsBase: true,
	build:     plain(readonly.New),
})
