package jobfile

const (
	nClones   = "jobs are threads here, never processes"
	nMemory   = "buffers are anonymous memory"
	nTiming   = "the clock is always CLOCK_MONOTONIC"
	nAdvice   = "the kernel gets no such advice"
	nCreation = "files are created one after another before the first job starts"
	nRing     = "the queue chooses its own io_uring set-up"
)

// notedOptions have no effect here, and their absence changes no result that is reported.
var notedOptions = map[string]option{
	"thread": noted(nClones), "threads": noted(nClones), "lockmem": noted(nMemory), "mem": noted(nMemory),
	"iomem_align": noted(nMemory), "hugepage-size": noted(nMemory), "clocksource": noted(nTiming), "gtod_cpu": noted(nTiming),
	"job_start_clock_id": noted(nTiming), "log_alternate_epoch_clock_id": noted("logs with an epoch use CLOCK_REALTIME"),
	"write_hint": noted(nAdvice), "sync_file_range": noted("use fsync= or fdatasync= instead"),
	"create_serialize": noted(nCreation), "create_fsync": noted(nCreation), "create_on_open": noted(nCreation),
	"openfiles": noted("all files of a job stay open"), "lockfile": noted("jobs of one process need no file locks"),
	"opendir":         noted("only the files named are used"),
	"unique_filename": noted("there are no network clients"), "filetype": noted("the target's kind is found out when it is opened"),
	"log_entries": noted("logs grow as needed"), "log_compression": noted("logs are written plain"),
	"log_compression_cpus": noted("logs are written plain"), "log_store_compressed": noted("logs are written plain"),
	"log_issue_time": noted("logs hold the completion time"),
	"disk_util":      noted("device load is always recorded"), "block_error_percentiles": noted("trim errors end the job"),
	"error_dump":            noted("every error is reported with its offset"),
	"nice":                  noted("the host's scheduling is left alone"),
	"uid":                   noted("the process's user does the I/O"),
	"gid":                   noted("the process's user does the I/O"),
	"prio":                  noted("I/O priority is left alone"),
	"prioclass":             noted("I/O priority is left alone"),
	"priohint":              noted("I/O priority is left alone"),
	"cmdprio":               noted("I/O priority is left alone"),
	"cmdprio_class":         noted("I/O priority is left alone"),
	"cmdprio_percentage":    noted("I/O priority is left alone"),
	"cmdprio_hint":          noted("I/O priority is left alone"),
	"cmdprio_bssplit":       noted("I/O priority is left alone"),
	"numa_cpu_nodes":        noted("memory placement is left to the kernel; cpus_allowed works"),
	"numa_mem_policy":       noted("memory placement is left to the kernel; cpus_allowed works"),
	"ioscheduler":           noted("the host's scheduler is left alone"),
	"cgroup":                noted("cgroups are left alone"),
	"cgroup_weight":         noted("cgroups are left alone"),
	"cgroup_nodelete":       noted("cgroups are left alone"),
	"comm":                  noted("threads are not named"),
	"softrandommap":         noted("a random map never fails for lack of memory"),
	"serialize_overlap":     noted("overlapping writes in flight are not held back"),
	"verifysort":            noted("blocks are verified in the order they were written"),
	"verifysort_nr":         noted("blocks are verified in the order they were written"),
	"verify_async":          noted("the job's own thread verifies"),
	"verify_async_cpus":     noted("the job's own thread verifies"),
	"experimental_verify":   noted("written blocks are always remembered"),
	"verify_state_save":     noted("the state of verification is not kept over runs"),
	"verify_write_sequence": noted("the order of writes is always checked where it is known"),
	"verify_header_seed":    noted("the seed in the header is not compared, the checksum is"),
	"verify_policy":         noted("all completed writes are verified"),
	"replay_time_scale":     noted("no trace is replayed"), "replay_skip": noted("no trace is replayed"),
	"fixedbufs": noted(nRing), "registerfiles": noted(nRing),
	"sqthread_poll": noted(nRing), "sqthread_poll_cpu": noted(nRing), "nonvectored": noted(nRing), "uncached": noted(nRing),
	"userspace_reap": noted(nRing), "nowait": noted(nRing), "force_async": noted(nRing), "cmd_type": noted(nRing),
	"libaio_vectored": noted(nRing), "uri": noted("give the server as --disk nbd://… or nbd+unix://…"),
	"dedupe_mode": noted("duplicates repeat recent blocks"), "dedupe_working_set_percentage": noted("duplicates repeat recent blocks"),
	"dedupe_global":     noted("each job has its own duplicates"),
	"atomic":            noted("writes are issued without RWF_ATOMIC; nothing measured depends on tearing"),
	"ss_check_interval": noted("steady state is sampled each second"),
}

const (
	rZoned  = "zoned block devices are not served"
	rReplay = "traces are not replayed; describe the load in a job file"
	rTrimV  = "trims within a verified write job are not generated"
	rShell  = "a job file does not start programs here; run them around vmdisk bench"
	rScsi   = "SCSI commands are not issued"
	rPI     = "protection information is not generated"
	rFDP    = "data placement hints are not sent"
)

// refusedOptions would change the results if they were ignored.
var refusedOptions = map[string]option{
	"zonecapacity": refused(rZoned), "read_beyond_wp": refused(rZoned), "max_open_zones": refused(rZoned),
	"job_max_open_zones": refused(rZoned), "ignore_zone_limits": refused(rZoned), "zone_reset_threshold": refused(rZoned),
	"zone_reset_frequency": refused(rZoned), "recover_zbd_write_error": refused(rZoned), "write_zone_remainder": refused(rZoned),
	"read_iolog": refused(rReplay), "write_iolog": refused(rReplay), "read_iolog_chunked": refused(rReplay),
	"replay_no_stall": refused(rReplay), "replay_redirect": refused(rReplay), "replay_scale": refused(rReplay),
	"replay_align": refused(rReplay), "merge_blktrace_file": refused(rReplay), "merge_blktrace_scalars": refused(rReplay),
	"merge_blktrace_iters": refused(rReplay),
	"trim_percentage":      refused(rTrimV), "trim_verify_zero": refused(rTrimV), "trim_backlog": refused(rTrimV), "trim_backlog_batch": refused(rTrimV),
	"exec_prerun": refused(rShell), "exec_postrun": refused(rShell), "profile": refused("built-in profiles are fio's own"),
	"verify_state_load": refused("the state of verification is not kept over runs"),
	"sg_write_mode":     refused(rScsi), "readfua": refused(rScsi), "writefua": refused(rScsi),
	"md_per_io_size": refused(rPI), "pi_act": refused(rPI), "pi_chk": refused(rPI), "apptag": refused(rPI), "apptag_mask": refused(rPI),
	"fdp": refused(rFDP), "dataplacement": refused(rFDP), "plid_select": refused(rFDP), "plids": refused(rFDP), "dp_scheme": refused(rFDP),
	"sprandom": refused("the SPRandom preconditioning pattern is not generated"), "spr_op": refused("it belongs to sprandom"),
	"spr_num_regions": refused("it belongs to sprandom"), "spr_cs": refused("it belongs to sprandom"),
	"num_range":     refused("a trim covers one range"),
	"write_barrier": refused("barrier writes are gone from Linux; use fdatasync="),
	"file_append":   refused("a disk does not grow"), "unlink_each_loop": refused("files stay until the job ends (unlink=1)"),
	"ramp_size": refused("use ramp_time"), "thinkcycles": refused("use thinktime_spin"), "thinktime_iotime": refused("use thinktime with thinktime_blocks"),
	"percentage_sequential": refused("use percentage_random"), "rwmixcycle": refused("fio dropped it"),
	"gpu_dev_id": refused("it needs a GPU"), "gpu_dev_ids": refused("it needs a GPU"), "verify_pattern_interval": refused("the pattern begins anew in each block"),
}
