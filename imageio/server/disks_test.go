package server

import (
	"context"
	"net/url"
	"slices"
	"testing"

	"github.com/vmdisk/vmdisk/disk"
	"github.com/vmdisk/vmdisk/driver/mem"
)

// Tickets of one URL share a disk, but not one that lacks the bitmap which a dirty ticket
// wants. Writers share one in any case: its locks keep their writes apart.
func TestDirtyTicketsHaveTheirDisk(t *testing.T) {
	var opened []Access
	p := newDisks(func(_ context.Context, _ *url.URL, a Access) (*disk.Disk, error) {
		opened = append(opened, a)
		return mem.Open(4096)
	})
	u, err := parseTicketURL("nbd:unix:/sock:exportname=e")
	if err != nil {
		t.Fatal(err)
	}
	var held []*sharedDisk
	for _, spec := range []ticketSpec{
		{Ops: []string{"read"}}, {Ops: []string{"read"}, Dirty: true}, {Ops: []string{"read"}},
		{Ops: []string{"write"}}, {Ops: []string{"read", "write"}, Dirty: true}, {Ops: []string{"read"}, Dirty: true},
	} {
		s, err := p.acquire(t.Context(), u, spec.access(u))
		if err != nil {
			t.Fatal(err)
		}
		held = append(held, s)
	}
	if want := []Access{{}, {Dirty: true}, {Write: true, Dirty: true}}; !slices.Equal(opened, want) {
		t.Errorf("opened %+v, want %+v", opened, want)
	}
	if held[0] != held[2] || held[3] != held[4] || held[1] != held[5] {
		t.Error("tickets of one image do not share its disk")
	}
	for _, s := range held {
		if err := p.release(s); err != nil {
			t.Error(err)
		}
	}
	if len(p.images) != 0 {
		t.Errorf("%d images stay open", len(p.images))
	}
}
