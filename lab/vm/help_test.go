package vm

import (
	"slices"
	"strings"
	"testing"
)

// TestHelp: what QEMU lists is read as names, with and without what stands around them.
func TestHelp(t *testing.T) {
	t.Parallel()
	const devices = "Controller/Bridge/Hub devices:\nname \"i82801b11-bridge\", bus PCI\n\nStorage devices:\n" +
		"name \"virtio-blk-pci\", bus PCI, alias \"virtio-blk\"\nname \"\"\nname \"cut"
	if got := parseDevices(devices); !slices.Equal(got, []string{"i82801b11-bridge", "virtio-blk-pci"}) {
		t.Errorf("devices: %q", got)
	}
	const machines = "Supported machines are:\nmicrovm              microvm (i386)\n more of it\npc                   Standard PC (alias of pc-i440fx-7.2)\n"
	if got := parseMachines(machines); !slices.Equal(got, []string{"microvm", "pc"}) {
		t.Errorf("machines: %q", got)
	}
}

// FuzzHelp: whatever QEMU prints, what is read are names that stand in it.
func FuzzHelp(f *testing.F) {
	f.Fuzz(func(t *testing.T, text string) {
		for what, names := range map[string][]string{"device": parseDevices(text), "machine": parseMachines(text)} {
			if len(names) > strings.Count(text, "\n")+1 {
				t.Errorf("%d %ss in %d lines", len(names), what, strings.Count(text, "\n")+1)
			}
			for _, name := range names {
				if name == "" || strings.ContainsAny(name, "\"\n") && what == "device" || strings.ContainsAny(name, " \n") && what == "machine" || !strings.Contains(text, name) {
					t.Errorf("%s %q", what, name)
				}
			}
		}
	})
}
