package main

// job is one load that both programs run.
type job struct {
	name, options string
	timed         bool // it ends by the clock, so counts differ from run to run
	warm          bool // the file is read into the page cache first
}

// served jobs are bound by the served disk's delay, or by their own rate, never by the
// processor: what differs is the engines' accounting.
var served = []job{
	{name: "randread qd1", options: "--rw=randread --bs=4k --size=1m"},
	{name: "randread qd4", options: "--rw=randread --bs=4k --size=2m --iodepth=4"},
	{name: "randread qd16", options: "--rw=randread --bs=4k --size=8m --iodepth=16"},
	{name: "randwrite qd4", options: "--rw=randwrite --bs=4k --size=2m --iodepth=4"},
	{name: "randrw 70/30 qd4", options: "--rw=randrw --rwmixread=70 --bs=4k --size=2m --iodepth=4"},
	{name: "bssplit qd4", options: "--rw=randread --bssplit=4k/60:16k/30:64k/10 --norandommap --size=8m --iodepth=4"},
	{name: "read 64k qd2", options: "--rw=read --bs=64k --size=16m --iodepth=2"},
	{name: "write 64k end_fsync", options: "--rw=write --bs=64k --size=8m --iodepth=2 --end_fsync=1"},
	{name: "rate_iops 200", options: "--rw=randread --bs=4k --rate_iops=200 --size=512k --iodepth=4"},
	{name: "rate 1 MiB/s", options: "--rw=randwrite --bs=4k --rate=1m --size=1m --iodepth=8"},
	{name: "zipf qd4", options: "--rw=randread --bs=4k --random_distribution=zipf:1.1 --size=2m --iodepth=4"},
	{name: "4 jobs qd2", options: "--rw=randread --bs=4k --size=1m --iodepth=2 --numjobs=4 --group_reporting"},
}

const fileSize = 256 << 20

// timed makes a job one of two seconds.
const timed = " --time_based --runtime=2"

// buffered jobs go through the page cache of one file, where the same load is the
// same only if the cache is dropped and advised at the same times, and completions
// are taken in the same order and number.
var buffered = []job{
	{name: "cold randread, one pass", options: "--rw=randread --bs=4k --size=48m"},
	{name: "cold randread, loops=3", options: "--rw=randread --bs=4k --size=16m --loops=3"},
	{name: "cold randread, time_based", options: "--rw=randread --bs=4k --size=16m" + timed, timed: true},
	{name: "cold randread, fadvise_hint=0", options: "--rw=randread --bs=4k --size=48m --fadvise_hint=0"},
	{name: "cold randread, libaio qd16", options: "--rw=randread --bs=4k --size=48m --ioengine=libaio --iodepth=16"},
	{name: "cold randread, io_uring qd16", options: "--rw=randread --bs=4k --size=48m --ioengine=io_uring --iodepth=16"},
	{name: "cold randread, 4 jobs", options: "--rw=randread --bs=4k --size=12m --offset_increment=12m --numjobs=4 --group_reporting"},
	{name: "cold read 4k, one pass", options: "--rw=read --bs=4k --size=256m"},
	{name: "cold read 64k, one pass", options: "--rw=read --bs=64k --size=256m"},
	{name: "cold read 64k, time_based", options: "--rw=read --bs=64k --size=64m" + timed, timed: true},
	{name: "warm randread", options: "--rw=randread --bs=4k --size=256m --invalidate=0 --loops=4", warm: true},
	{name: "warm randread, libaio qd16", options: "--rw=randread --bs=4k --size=256m --invalidate=0 --loops=4 --ioengine=libaio --iodepth=16", warm: true},
	{name: "warm read 64k", options: "--rw=read --bs=64k --size=256m --invalidate=0 --loops=8", warm: true},
	{name: "randwrite qd1", options: "--rw=randwrite --bs=4k --size=64m --ioengine=libaio --iodepth=1" + timed, timed: true},
	{name: "randwrite qd4", options: "--rw=randwrite --bs=4k --size=64m --ioengine=libaio --iodepth=4" + timed, timed: true},
	{name: "randwrite qd16", options: "--rw=randwrite --bs=4k --size=64m --ioengine=libaio --iodepth=16" + timed, timed: true},
	{name: "randwrite, one pass, psync", options: "--rw=randwrite --bs=4k --size=256m"},
	{name: "randwrite fsync=1", options: "--rw=randwrite --bs=4k --size=4m --fsync=1"},
	{name: "write 64k end_fsync", options: "--rw=write --bs=64k --size=128m --end_fsync=1"},
	{name: "randwrite, 4 jobs", options: "--rw=randwrite --bs=4k --size=64m --numjobs=4 --group_reporting"},
	{name: "randrw 70/30", options: "--rw=randrw --rwmixread=70 --bs=4k --size=48m"},
	{name: "randrw 70/30, libaio qd16", options: "--rw=randrw --rwmixread=70 --bs=4k --size=48m --ioengine=libaio --iodepth=16"},
}
