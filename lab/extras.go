package lab

import "github.com/vmdisk/vmdisk/lab/outcome"

func extras(*outcome.Results) outcome.Options { return outcome.Options{} }

func writeRaw(string, *outcome.Results) error { return nil }
