// Package store makes the disks of an experiment's nodes: a golden disk, the
// backings that copy, clone or share it, and the servers between disk and client.
//
// Everything lies below one folder, which one [Store] owns at a time. Whatever
// outlives a process, which are loop devices, mounts, volume groups, pools and a
// user's device, is written into a ledger in that folder before it is made, so
// that a killed run is cleaned up by the next [Open]. Servers die with the
// process that started them.
//
// What a disk holds at first: backings that are new (sparse, falloc, full) are
// zeros, unless the disk has a file system; all others, and those then, are the
// golden disk, byte for byte.
package store
