// Package lab runs experiments: each sets up disks, servers and loads, measures
// them in turn and reports tables, charts and raw numbers into a folder.
package lab
