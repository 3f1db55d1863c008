package jobfile

import (
	"errors"
	"fmt"
	"strings"
)

// Strided zones are a pattern that any file can have; zbd is a kind of device.
func applyZoneMode(a *applier, s string) error {
	if s = strings.TrimSpace(s); s == "zbd" {
		return fmt.Errorf("zbd is refused: %s", rZoned)
	}
	v, err := a.enum(s, []string{"none", "strided", "0"})
	if v == "0" {
		v = "none"
	}
	a.job.ZoneMode = v
	return err
}

// fixZones completes strided zones. zonesize= alone asks for them, as it does in newer
// releases of fio; 3.33 calls that a contradiction.
func (r *resolver) fixZones(a *applier) error {
	j := a.job
	switch {
	case j.ZoneMode == "none" && j.ZoneSize > 0:
		return errors.New("zonesize= contradicts zonemode=none")
	case j.ZoneMode == "strided" && j.ZoneSize == 0:
		return errors.New("zonemode=strided needs zonesize=")
	case j.ZoneSize == 0 && (j.ZoneRange > 0 || j.ZoneSkip > 0):
		return errors.New("zonerange= and zoneskip= need zonesize=")
	case j.ZoneSize == 0:
		j.ZoneMode = "none"
		return nil
	}
	j.ZoneMode = "strided"
	if j.ZoneRange == 0 {
		j.ZoneRange = j.ZoneSize
	}
	for d := range Dirs {
		if j.Mode.Has(d) && j.ZoneRange < j.MaxBS[d] {
			return fmt.Errorf("zonerange=%d is less than a block of %d bytes", j.ZoneRange, j.MaxBS[d])
		}
	}
	if !r.target && max(j.Files, len(j.Filenames)) > 1 {
		r.note(j.Pos, true, "zonemode=strided is for one file: as in fio, it has no effect on a job with several")
		j.ZoneMode = "none"
	}
	return nil
}
