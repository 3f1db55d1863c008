// Package spec reads what an experiment is: a YAML file (or a built-in one) with
// clients, a guest, disks, workloads and axes. It checks all of it, with
// positions in errors and suggestions for unknown names, and expands the axes
// to cells. It runs nothing and looks at nothing of the host.
package spec
