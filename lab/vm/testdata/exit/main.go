// The first program of a guest that does not get far.
package main

import "os"

func main() {
	println("vmdisk: this init gives up")
	os.Exit(3)
}
