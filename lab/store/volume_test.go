package store

import (
	"os"
	"strings"
	"testing"

	"github.com/vmdisk/vmdisk/lab/spec"
)

// TestVolumes makes LVM and ZFS volumes on hosts that have them; command lines are
// tested everywhere.
func TestVolumes(t *testing.T) {
	t.Parallel()
	for _, kind := range []string{"lvm", "lvm-snapshot", "lvm-thin", "zvol", "zvol-clone"} {
		t.Run(kind, func(t *testing.T) {
			s := newStore(t, Options{Size: 64 * mib, Data: 8 * mib})
			su := setup(func(su *spec.Setup) { su.Backing = kind })
			if why := s.Missing(t.Context(), su, spec.ClientHost, 2, 0); len(why) > 0 {
				t.Skip(strings.Join(why, "; "))
			}
			set := prepare(t, s, su, spec.ClientHost, 2)
			checkIsolation(t, s, set)
			group := strings.Split(set.Disks[0].Source.Path, "/")[2]
			if err := set.Close(t.Context()); err != nil {
				t.Fatal(err)
			}
			if _, err := os.Stat("/dev/" + group); !os.IsNotExist(err) {
				t.Errorf("/dev/%s is left: %v", group, err)
			}
		})
	}
}

// TestVhostSCSI makes targets where the kernel has them.
func TestVhostSCSI(t *testing.T) {
	t.Parallel()
	s := newStore(t, Options{Size: 64 * mib, Data: 8 * mib})
	su := parseSetup(t, "loop device=vhost-scsi")
	if why := s.Missing(t.Context(), su, spec.ClientGuest, 2, 0); len(why) > 0 {
		t.Skip(strings.Join(why, "; "))
	}
	set := prepare(t, s, su, spec.ClientGuest, 2)
	for _, d := range set.Disks {
		if !exists(configFS+"/vhost/"+d.Source.Path) || d.Source.Driver != "vhost-scsi" {
			t.Errorf("no target for %+v", d.Source)
		}
	}
	if err := set.Close(t.Context()); err != nil {
		t.Fatal(err)
	}
	for _, d := range set.Disks {
		if exists(configFS + "/vhost/" + d.Source.Path) {
			t.Errorf("target %s is left", d.Source.Path)
		}
	}
}
