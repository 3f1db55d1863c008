package outcome

import (
	"fmt"
	"math"
	"strconv"
)

// percent of a share 0..1.
func percent(share float64) string { return fmt.Sprintf("%.0f %%", share*100) }

// duration writes nanoseconds in the unit that suits, three figures.
func duration(ns float64) string {
	for _, u := range []struct {
		size float64
		name string
	}{{1e9, "s"}, {1e6, "ms"}, {1e3, "µs"}} {
		if ns >= u.size {
			return figures(ns/u.size) + " " + u.name
		}
	}
	return figures(ns) + " ns"
}

// bandwidth writes bytes per second as fio does: four figures, KiB/s or MiB/s.
func bandwidth(bytes float64) string {
	switch kib := bytes / 1024; {
	case kib < 10000:
		return fmt.Sprintf("%.0f KiB/s", kib)
	case kib < 1000*1024:
		return fmt.Sprintf("%.1f MiB/s", kib/1024)
	default:
		return fmt.Sprintf("%.2f GiB/s", kib/(1024*1024))
	}
}

// figures writes v with three figures or as a whole number.
func figures(v float64) string {
	switch a := math.Abs(v); {
	case a >= 100 || v == math.Trunc(v):
		return strconv.FormatFloat(v, 'f', 0, 64)
	case a >= 10:
		return strconv.FormatFloat(v, 'f', 1, 64)
	}
	return strconv.FormatFloat(v, 'f', 2, 64)
}
