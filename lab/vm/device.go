package vm

import (
	"encoding/json"
	"fmt"
	"strconv"
)

// onOff is QEMU's word for a switch.
func onOff(on bool) string {
	if on {
		return "on"
	}
	return "off"
}

// disk adds the guest's disk: its nodes and its device.
func (a *argv) disk(c Config) error {
	if !blockless(c.Setup.Device) {
		if c.Disk.Format == formatLUKS {
			a.add("-object", "secret,id="+keySecret+",format=raw,file="+quote(c.Disk.KeyFile))
		}
		list, err := nodes(c)
		if err != nil {
			return err
		}
		for _, n := range list {
			text, err := json.Marshal(n)
			if err != nil {
				return fmt.Errorf("describe node %v: %w", n["node-name"], err)
			}
			a.add("-blockdev", string(text))
		}
	}
	if c.Setup.IOThread {
		thread := "iothread,id=" + idThread
		if c.Setup.PollMaxNS >= 0 {
			thread += ",poll-max-ns=" + strconv.FormatInt(c.Setup.PollMaxNS, 10)
		}
		a.add("-object", thread)
	}
	a.device(c)
	return nil
}

func (a *argv) device(c Config) {
	drive := ",drive=" + diskNode + ",serial=" + DataSerial + ",write-cache=" + onOff(cacheModes[c.Setup.Cache].writeCache)
	thread := ""
	if c.Setup.IOThread {
		thread = ",iothread=" + idThread
	}
	switch c.Setup.Device {
	case virtioBlk, nvmeUserspace:
		a.add("-device", virtio(c, "virtio-blk")+",id="+idData+thread+queues(c, "num-queues")+drive)
	case virtioSCSI:
		a.add("-device", virtio(c, "virtio-scsi")+",id=scsi"+thread+queues(c, "num_queues"),
			"-device", "scsi-hd,id="+idData+",bus=scsi.0"+drive)
	case ide:
		a.ide(c, drive)
	case nvme:
		a.add("-device", "nvme,id="+idData+queues(c, "max_ioqpairs")+drive)
	case vhostUserBlk:
		a.add("-chardev", "socket,id=vhost,path="+quote(c.Disk.Socket),
			"-device", virtio(c, vhostUserBlk)+",id="+idData+",chardev=vhost"+queues(c, "num-queues"))
	case vhostSCSI:
		a.add("-device", virtio(c, vhostSCSI)+",id="+idData+",wwpn="+quote(c.Disk.Path)+queues(c, "num_queues"))
	case vfioPCI:
		a.add("-device", "vfio-pci,id="+idData+",host="+quote(c.Disk.Path))
	}
}

// ide puts the disk on the machine's own controller. Debian's cloud kernels drive
// the PIIX of a pc but not the AHCI of a q35, which then gets a PIIX as well.
func (a *argv) ide(c Config, drive string) {
	bus := "ide.0"
	if c.piixOnQ35() {
		a.add("-device", "piix3-ide,id=piix")
		bus = "piix.0"
	}
	a.add("-device", "ide-hd,id="+idData+",bus="+bus+drive)
}

func (c Config) piixOnQ35() bool {
	return c.Guest.Machine == machineQ35 && c.Guest.Boot == bootKernel && !c.Kit.has("ahci")
}

func queues(c Config, property string) string {
	if c.Setup.Queues == 0 {
		return ""
	}
	return "," + property + "=" + strconv.Itoa(c.Setup.Queues)
}
