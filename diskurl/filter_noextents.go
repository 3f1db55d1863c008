//go:build !without_noextents

package diskurl

import "github.com/vmdisk/vmdisk/filter/noextents"

var _ = addFilter(&filter{
	name: "noextents", summary: "hide what is known of the content",
	build: plain(noextents.New),
})
