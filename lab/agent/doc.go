// Package agent is both ends of the channel between the lab and a node. A node is
// a guest (the agent is its init, or a service in it) or a process of the host;
// the channel is one JSON object a line over a virtio-serial port or a unix
// socket. The agent prepares the node's disk, runs fio job files with the built-in
// engine (or fio), tells time, and says each second that it lives.
package agent
