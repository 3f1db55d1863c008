package monitor

// Process names a process to be watched; its threads count with it.
type Process struct {
	Name string `json:"name"` // "qemu a", "server b", "client c", "vmdisk"
	PID  int    `json:"pid"`
}

// Usage is what one process used during a load.
type Usage struct {
	Name        string  `json:"name"`
	UserNS      int64   `json:"user_ns"`
	SystemNS    int64   `json:"system_ns"`
	CPUs        float64 `json:"cpus"` // mean number of CPUs used
	Voluntary   uint64  `json:"voluntary_switches"`
	Involuntary uint64  `json:"involuntary_switches"`
	MaxRSS      int64   `json:"max_rss"` // bytes
}

// Device is the use of one block device of the host.
type Device struct {
	Name        string  `json:"name"`        // loop3
	Utilization float64 `json:"utilization"` // 0..1
	ReadIOPS    float64 `json:"read_iops"`
	WriteIOPS   float64 `json:"write_iops"`
	ReadBW      float64 `json:"read_bytes_per_second"`
	WriteBW     float64 `json:"write_bytes_per_second"`
}

// Pressure is the share of the time (0..1) in which some, or all, tasks waited
// for a resource (PSI).
type Pressure struct {
	CPUSome, IOSome, IOFull, MemorySome, MemoryFull float64
}

// Point is one sample of the host.
type Point struct {
	AtNS   int64   `json:"at_ns"` // since Host.StartedNS
	Busy   float64 `json:"busy"`  // 0..1 of all CPUs
	IOWait float64 `json:"iowait"`
	Steal  float64 `json:"steal"`
	Device float64 `json:"device"` // the busiest watched device, 0..1
	Load1  float64 `json:"load1"`
	IOFull float64 `json:"io_full"`
}

// Host is what was measured between Start and Stop.
type Host struct {
	StartedNS int64      `json:"started_ns"` // CLOCK_MONOTONIC
	ElapsedNS int64      `json:"elapsed_ns"`
	CPUs      int        `json:"cpus"`
	Busy      float64    `json:"busy"` // 0..1 of all CPUs
	IOWait    float64    `json:"iowait"`
	Steal     float64    `json:"steal"`
	Load      [3]float64 `json:"load"` // right after
	Switches  float64    `json:"context_switches_per_second"`
	Processes []Usage    `json:"processes"`
	Devices   []Device   `json:"devices"`
	Pressure  *Pressure  `json:"pressure,omitempty"` // nil where the kernel has no PSI
	// Exits per second of all KVM guests, -1 where it can't be known.
	Exits  float64 `json:"kvm_exits_per_second"`
	Points []Point `json:"points"`
}
