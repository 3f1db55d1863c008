// Package confine takes from a running process what it no longer needs: the right to
// open files, capabilities, new privileges, its user.
package confine
