// Package wire is what the host and the agent in the guest say to each other:
// one JSON object a line over a virtio-serial port.
package wire

// Port is the name of the virtio-serial port.
const Port = "vmdisk.agent"

// Request asks the agent for one operation. It runs one at a time.
type Request struct {
	ID int    `json:"id"`
	Op string `json:"op"`
	// The arguments; which of them an operation takes is said at the agent's
	// function.
	Addr   string   `json:"addr,omitempty"`
	Export string   `json:"export,omitempty"`
	Path   string   `json:"path,omitempty"`
	Target string   `json:"target,omitempty"`
	Argv   []string `json:"argv,omitempty"`
	First  int      `json:"first,omitempty"`
	Count  int      `json:"count,omitempty"`
	Size   int64    `json:"size,omitempty"`
	Seed   uint64   `json:"seed,omitempty"`
	Secs   int      `json:"secs,omitempty"`
}

// Reply is a step or the end of an operation.
type Reply struct {
	ID int `json:"id"`
	// Step > 0: the operation goes on; for writing files, how many are synced.
	Step int `json:"step,omitempty"`
	// Err is the failure; empty at a successful end.
	Err string `json:"err,omitempty"`
	// Text is what the operation tells: output, the list of bad files.
	Text string `json:"text,omitempty"`
}
