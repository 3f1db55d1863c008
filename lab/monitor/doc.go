// Package monitor measures the host beside a load: CPU by process, load averages,
// context switches, disk utilisation, PSI pressure, steal, and guest exits where
// KVM has them. It also describes the host for reports.
package monitor
