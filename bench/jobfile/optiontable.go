package jobfile

import (
	"math"
	"time"
)

const maxInt = math.MaxInt32

// options is the whole table: what applies, what is accepted and noted, what is refused.
var options map[string]option

func init() {
	options = map[string]option{}
	for _, group := range []map[string]option{
		targetOptions, patternOptions, timeOptions, engineOptions, verifyOptions,
		bufferOptions, reportOptions, notedOptions, refusedOptions,
	} {
		for name, o := range group {
			if _, ok := options[name]; ok {
				panic("option " + name + " is in the table twice")
			}
			options[name] = o
		}
	}
}

var targetOptions = map[string]option{
	"description":            isText(func(j *Job) *string { return &j.Description }),
	"name":                   isText(func(j *Job) *string { return &j.Name }),
	"filename":               {apply: applyFilename},
	"directory":              isText(func(j *Job) *string { return &j.Directory }),
	"filename_format":        isText(func(j *Job) *string { return &j.FilenameFormat }),
	"nrfiles":                isInt(1, 65536, func(j *Job) *int { return &j.Files }),
	"file_service_type":      {apply: applyFileService},
	"overwrite":              isBool(func(j *Job) *bool { return &j.Overwrite }),
	"allow_file_create":      isBool(func(j *Job) *bool { return &j.AllowCreate }),
	"allow_mounted_write":    isBool(func(j *Job) *bool { return &j.AllowMounted }),
	"unlink":                 isBool(func(j *Job) *bool { return &j.Unlink }),
	"create_only":            isBool(func(j *Job) *bool { return &j.CreateOnly }),
	"pre_read":               isBool(func(j *Job) *bool { return &j.PreRead }),
	"fadvise_hint":           {apply: applyAdvice},
	"invalidate":             isBool(func(j *Job) *bool { return &j.Invalidate }),
	"fallocate":              isEnum(func(j *Job) *string { return &j.Fallocate }, "none", "native", "posix", "keep", "truncate", "0", "1"),
	"filesize":               {apply: applyFileSize},
	"size":                   isAmount(func(j *Job) *Amount { return &j.Size }),
	"io_size":                isAmount(func(j *Job) *Amount { return &j.IOSize }),
	"offset":                 isAmount(func(j *Job) *Amount { return &j.Offset }),
	"offset_increment":       isAmount(func(j *Job) *Amount { return &j.OffsetIncrement }),
	"zonemode":               {apply: applyZoneMode},
	"zonesize":               isInt64(0, math.MaxInt64, func(j *Job) *int64 { return &j.ZoneSize }),
	"zonerange":              isInt64(0, math.MaxInt64, func(j *Job) *int64 { return &j.ZoneRange }),
	"zoneskip":               isInt64(0, math.MaxInt64, func(j *Job) *int64 { return &j.ZoneSkip }),
	"offset_align":           isInt64(0, math.MaxInt64, func(j *Job) *int64 { return &j.OffsetAlign }),
	"fill_device":            isBool(func(j *Job) *bool { return &j.FillDevice }),
	"number_ios":             isInt64(0, math.MaxInt64, func(j *Job) *int64 { return &j.NumberIOs }),
	"random_sequence_stride": isBool(func(j *Job) *bool { return &j.SequenceStride }),
}

var patternOptions = map[string]option{
	"rw":                  {apply: applyRW},
	"rw_sequencer":        isEnum(func(j *Job) *string { return &j.Sequencer }, "sequential", "identical"),
	"rwmixread":           {apply: applyMix(false)},
	"rwmixwrite":          {apply: applyMix(true)},
	"bs":                  {apply: applyBS},
	"ba":                  isPerDir(1, ",:-", func(j *Job) *[Dirs]int64 { return &j.Align }),
	"bsrange":             {apply: applyBSRange},
	"bssplit":             {apply: applyBSSplit},
	"bs_unaligned":        isFlag(func(j *Job) *bool { return &j.BSUnaligned }),
	"bs_is_seq_rand":      isBool(func(j *Job) *bool { return &j.BSIsSeqRand }),
	"norandommap":         isFlag(func(j *Job) *bool { return &j.NoRandomMap }),
	"random_generator":    isEnum(func(j *Job) *string { return &j.Generator }, "tausworthe", "lfsr", "tausworthe64"),
	"random_distribution": {apply: applyDistribution},
	"percentage_random":   {apply: applyPercentRandom},
	"randrepeat":          isBool(func(j *Job) *bool { return &j.RandRepeat }),
	"randseed":            {apply: applySeed},
}

var timeOptions = map[string]option{
	"runtime":               isTime(time.Second, func(j *Job) *time.Duration { return &j.Runtime }),
	"time_based":            isFlag(func(j *Job) *bool { return &j.TimeBased }),
	"ramp_time":             isTime(time.Second, func(j *Job) *time.Duration { return &j.RampTime }),
	"startdelay":            {apply: applyStartDelay},
	"loops":                 isInt(1, maxInt, func(j *Job) *int { return &j.Loops }),
	"numjobs":               {apply: applyNumJobs},
	"stonewall":             {bare: true, apply: applySectionFlag("stonewall")},
	"new_group":             {bare: true, apply: applySectionFlag("new_group")},
	"wait_for":              isText(func(j *Job) *string { return &j.WaitFor }),
	"thinktime":             isTime(time.Microsecond, func(j *Job) *time.Duration { return &j.ThinkTime }),
	"thinktime_spin":        isTime(time.Microsecond, func(j *Job) *time.Duration { return &j.ThinkSpin }),
	"thinktime_blocks":      isInt64(1, maxInt, func(j *Job) *int64 { return &j.ThinkBlocks }),
	"thinktime_blocks_type": {apply: applyThinkType},
	"rate":                  isPerDir(0, ",:-", func(j *Job) *[Dirs]int64 { return &j.Rate }),
	"rate_min":              isPerDir(0, ",:-", func(j *Job) *[Dirs]int64 { return &j.RateMin }),
	"rate_iops":             isPerDir(0, ",:-", func(j *Job) *[Dirs]int64 { return &j.RateIOPS }),
	"rate_iops_min":         isPerDir(0, ",:-", func(j *Job) *[Dirs]int64 { return &j.RateIOPSMin }),
	"rate_cycle":            isTime(time.Millisecond, func(j *Job) *time.Duration { return &j.RateCycle }),
	"rate_process":          {apply: applyRateProcess},
	"io_submit_mode":        {apply: applySubmitMode},
	"rate_ignore_thinktime": isBool(func(j *Job) *bool { return &j.RateIgnoresThink }),
	"flow":                  isInt64(0, 1000, func(j *Job) *int64 { return &j.Flow }),
	"flow_id":               isInt64(0, maxInt, func(j *Job) *int64 { return &j.FlowID }),
	"flow_sleep":            isTime(time.Microsecond, func(j *Job) *time.Duration { return &j.FlowSleep }),
	"exitall":               isFlag(func(j *Job) *bool { return &j.ExitAll }),
	"exitall_on_error":      isFlag(func(j *Job) *bool { return &j.ExitAllOnError }),
	"exit_what":             isEnum(func(j *Job) *string { return &j.ExitWhat }, "group", "stonewall", "all"),
	"ss":                    {apply: applySteady},
	"ss_dur":                {apply: applySteadyTime(func(s *SteadyState) *time.Duration { return &s.Duration })},
	"ss_ramp":               {apply: applySteadyTime(func(s *SteadyState) *time.Duration { return &s.Ramp })},
}

var engineOptions = map[string]option{
	"ioengine":                   {apply: applyEngine},
	"iodepth":                    isInt(1, 65536, func(j *Job) *int { return &j.Depth }),
	"iodepth_batch":              isInt(0, 65536, func(j *Job) *int { return &j.Batch }),
	"iodepth_batch_complete_min": isInt(0, 65536, func(j *Job) *int { return &j.BatchMin }),
	"iodepth_batch_complete_max": isInt(0, 65536, func(j *Job) *int { return &j.BatchMax }),
	"hipri":                      isFlag(func(j *Job) *bool { return &j.Hipri }),
	"hipri_percentage":           isInt(0, 100, func(j *Job) *int { return &j.HipriShare }),
	"iodepth_low":                isInt(0, 65536, func(j *Job) *int { return &j.DepthLow }),
	"direct":                     isBool(func(j *Job) *bool { return &j.Direct }),
	"buffered":                   {apply: applyBuffered},
	"sync":                       {apply: applySync},
	"fsync":                      isInt64(0, maxInt, func(j *Job) *int64 { return &j.Fsync }),
	"fdatasync":                  isInt64(0, maxInt, func(j *Job) *int64 { return &j.Fdatasync }),
	"end_fsync":                  isBool(func(j *Job) *bool { return &j.EndFsync }),
	"fsync_on_close":             isBool(func(j *Job) *bool { return &j.FsyncOnClose }),
	"max_latency":                isTime(time.Microsecond, func(j *Job) *time.Duration { return &j.MaxLatency }),
	"latency_target":             isTime(time.Microsecond, func(j *Job) *time.Duration { return &j.LatencyTarget }),
	"latency_window":             isTime(time.Microsecond, func(j *Job) *time.Duration { return &j.LatencyWindow }),
	"latency_percentile":         {apply: applyLatencyPct},
	"latency_run":                isBool(func(j *Job) *bool { return &j.LatencyRun }),
	"cpus_allowed":               {apply: applyCPUs},
	"cpumask":                    {apply: applyCPUMask},
	"cpus_allowed_policy":        {apply: applyCPUPolicy},
	"continue_on_error":          {apply: applyContinue},
	"ignore_error":               {apply: applyIgnoreError},
}

var verifyOptions = map[string]option{
	"verify":               {apply: applyVerify},
	"do_verify":            isBool(func(j *Job) *bool { return &j.DoVerify }),
	"verify_only":          isFlag(func(j *Job) *bool { return &j.VerifyOnly }),
	"verify_fatal":         isBool(func(j *Job) *bool { return &j.VerifyFatal }),
	"verify_dump":          isBool(func(j *Job) *bool { return &j.VerifyDump }),
	"verify_interval":      isInt64(80, maxInt, func(j *Job) *int64 { return &j.VerifyInterval }),
	"verify_offset":        isInt64(40, maxInt, func(j *Job) *int64 { return &j.VerifyOffset }),
	"verify_pattern":       {apply: applyPattern(func(j *Job) *[]byte { return &j.VerifyPattern })},
	"verify_backlog":       isInt64(0, math.MaxInt64, func(j *Job) *int64 { return &j.VerifyBacklog }),
	"verify_backlog_batch": isInt64(0, math.MaxInt64, func(j *Job) *int64 { return &j.VerifyBatch }),
}

var bufferOptions = map[string]option{
	"zero_buffers":               isFlag(func(j *Job) *bool { return &j.ZeroBuffers }),
	"refill_buffers":             isFlag(func(j *Job) *bool { return &j.RefillBuffers }),
	"scramble_buffers":           isBool(func(j *Job) *bool { return &j.Scramble }),
	"buffer_pattern":             {apply: applyPattern(func(j *Job) *[]byte { return &j.BufferPattern })},
	"buffer_compress_percentage": isInt(0, 100, func(j *Job) *int { return &j.Compress }),
	"buffer_compress_chunk":      isInt64(1, maxInt, func(j *Job) *int64 { return &j.CompressChunk }),
	"dedupe_percentage":          isInt(0, 100, func(j *Job) *int { return &j.Dedupe }),
}

var reportOptions = map[string]option{
	"group_reporting":        isFlag(func(j *Job) *bool { return &j.GroupReporting }),
	"unified_rw_reporting":   {apply: applyUnified},
	"percentile_list":        {apply: applyPercentiles},
	"significant_figures":    isInt(1, 10, func(j *Job) *int { return &j.Figures }),
	"clat_percentiles":       isBool(func(j *Job) *bool { return &j.ClatPct }),
	"lat_percentiles":        isBool(func(j *Job) *bool { return &j.LatPct }),
	"slat_percentiles":       isBool(func(j *Job) *bool { return &j.SlatPct }),
	"disable_lat":            isBool(func(j *Job) *bool { return &j.NoLat }),
	"disable_clat":           isBool(func(j *Job) *bool { return &j.NoClat }),
	"disable_slat":           isBool(func(j *Job) *bool { return &j.NoSlat }),
	"disable_bw_measurement": isBool(func(j *Job) *bool { return &j.NoBW }),
	"gtod_reduce":            {apply: applyGtodReduce},
	"stats":                  isBool(func(j *Job) *bool { return &j.Stats }),
	"kb_base":                {apply: applyKBBase},
	"unit_base":              isInt64(0, 8, func(j *Job) *int64 { return &j.UnitBase }),
	"write_bw_log":           {bare: true, apply: applyLog(func(j *Job) **string { return &j.BWLog })},
	"write_lat_log":          {bare: true, apply: applyLog(func(j *Job) **string { return &j.LatLog })},
	"write_iops_log":         {bare: true, apply: applyLog(func(j *Job) **string { return &j.IOPSLog })},
	"write_hist_log":         {bare: true, apply: applyLog(func(j *Job) **string { return &j.HistLog })},
	"per_job_logs":           isBool(func(j *Job) *bool { return &j.PerJobLogs }),
	"log_avg_msec":           isTime(time.Millisecond, func(j *Job) *time.Duration { return &j.LogAvg }),
	"log_hist_msec":          isTime(time.Millisecond, func(j *Job) *time.Duration { return &j.LogHist }),
	"log_hist_coarseness":    isInt(0, 6, func(j *Job) *int { return &j.LogHistCoarse }),
	"log_window_value":       {apply: applyLogWindow},
	"log_offset":             isBool(func(j *Job) *bool { return &j.LogOffset }),
	"log_prio":               isBool(func(j *Job) *bool { return &j.LogPrio }),
	"log_alternate_epoch":    isBool(func(j *Job) *bool { return &j.LogUnixEpoch }),
	"bwavgtime":              isTime(time.Millisecond, func(j *Job) *time.Duration { return &j.BWAvg }),
	"iopsavgtime":            isTime(time.Millisecond, func(j *Job) *time.Duration { return &j.IOPSAvg }),
	"load":                   {apply: applyLoad},
}
