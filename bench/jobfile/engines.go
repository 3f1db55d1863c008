package jobfile

import (
	"fmt"
	"slices"
	"strings"
)

type engineInfo struct {
	sync   bool // one I/O at a time, whatever iodepth says
	polls  polling
	refuse string // why this engine cannot run a job here
}

// polling is what hipri= does to an engine's I/O.
type polling int

const (
	noPolling polling = iota // the engine has no such option
	byRing                   // all completions are polled for
	byCalls                  // each call asks for it, or hipri_percentage of them
)

const (
	notDisk      = "it does no disk I/O"
	remoteMemory = "remote persistent memory is no disk URL"
)

// engines maps fio's I/O engines to what they are here: every disk engine drives
// the same queue, and differs in depth alone.
var engines = map[string]engineInfo{
	"sync": {sync: true}, "psync": {sync: true}, "vsync": {sync: true}, "pvsync": {sync: true},
	"pvsync2": {sync: true, polls: byCalls}, "mmap": {sync: true}, "null": {sync: true}, "splice": {sync: true},
	"libaio": {}, "io_uring": {polls: byRing}, "posixaio": {}, "windowsaio": {}, "solarisaio": {}, "sg": {}, "nbd": {},
	"vmdisk": {polls: byRing},

	"io_uring_cmd": {refuse: "it sends NVMe commands to a character device, which is no disk URL"},
	"net":          {refuse: notDisk}, "netsplice": {refuse: notDisk}, "cpuio": {refuse: notDisk}, "rdma": {refuse: notDisk},
	"http": {refuse: "object stores are no disks"}, "exec": {refuse: notDisk}, "page_fault": {refuse: notDisk},
	"e4defrag": {refuse: notDisk}, "falloc": {refuse: notDisk}, "ftruncate": {refuse: notDisk},
	"filecreate": {refuse: notDisk}, "filestat": {refuse: notDisk}, "filedelete": {refuse: notDisk}, "fileoperations": {refuse: notDisk},
	"dircreate": {refuse: notDisk}, "dirstat": {refuse: notDisk}, "dirdelete": {refuse: notDisk},
	"libhdfs": {refuse: "HDFS is no disk"}, "libcufile": {refuse: "it needs a GPU"}, "libhipfile": {refuse: "it needs a GPU"},
	"external": {refuse: "it loads a shared object into fio"}, "cpp_null": {refuse: "it loads a shared object into fio"},
	"mtd": {refuse: "raw flash is no disk URL"}, "libzbc": {refuse: "zoned block devices are not served"},
	"pmemblk": {refuse: "persistent memory is no disk URL"}, "dev-dax": {refuse: "persistent memory is no disk URL"},
	"libpmem": {refuse: "persistent memory is no disk URL"},
	"xnvme":   {refuse: "it needs a user-space NVMe driver"}, "libblkio": {refuse: "it needs the libblkio library"},
	"librpma_apm_client": {refuse: remoteMemory}, "librpma_apm_server": {refuse: remoteMemory},
	"librpma_gpspm_client": {refuse: remoteMemory}, "librpma_gpspm_server": {refuse: remoteMemory},
	"rbd": {refuse: "it needs Ceph's library"}, "rados": {refuse: "it needs Ceph's library"},
	"gfapi": {refuse: "it needs Gluster's library"}, "gfapi_async": {refuse: "it needs Gluster's library"},
	"libiscsi": {refuse: "it needs the libiscsi library"}, "nfs": {refuse: "it needs the libnfs library"},
	"dfs": {refuse: "it needs the DAOS library"}, "ime_psync": {refuse: "it needs DDN's library"},
	"ime_psyncv": {refuse: "it needs DDN's library"}, "ime_aio": {refuse: "it needs DDN's library"},
	"guasi": {refuse: "it is gone from fio"}, "syslet-rw": {refuse: "it is gone from fio"},
}

func engineNames() []string {
	var names []string
	for n, e := range engines {
		if e.refuse == "" {
			names = append(names, n)
		}
	}
	slices.Sort(names)
	return names
}

func checkEngine(name string) error {
	base, _, _ := strings.Cut(name, ":")
	e, ok := engines[base]
	if !ok {
		return fmt.Errorf("unknown ioengine %q (%s)", name, strings.Join(engineNames(), ", "))
	}
	if e.refuse != "" {
		return fmt.Errorf("ioengine %s is refused: %s", name, e.refuse)
	}
	return nil
}
