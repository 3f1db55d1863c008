//go:build !race

package gen

const raced = false
