// Package null is the driver of `null:SIZE`: it forgets what is written and
// reads as zeros, at no cost. It is the floor that harnesses are measured
// against, and a target for reading a disk as fast as it goes.
package null
