// Package peer runs the programs that vmdisk is tested and measured against,
// and vmdisk itself, as child processes: it starts servers on unix sockets and
// waits until they greet, accounts the CPU time and memory of both ends, and
// leaves no process behind.
package peer
