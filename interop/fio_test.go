package interop

import (
	"path/filepath"
	"testing"
)

// TestFioVerify: fio writes blocks that carry their own checksums over our
// server and reads them back, several jobs at once.
func TestFioVerify(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name string
		args []string
	}{
		{"small", []string{"--bs=4k", "--iodepth=32", "--rw=randwrite"}},
		{"mixed sizes", []string{"--bssplit=512/20:4k/40:17k/20:256k/20", "--bs_unaligned=1", "--iodepth=16", "--rw=randwrite", "--norandommap=0", "--verify_async=0"}},
		{"large", []string{"--bs=4M", "--iodepth=4", "--rw=write"}},
		{"with trims", []string{"--bs=16k", "--iodepth=1", "--rw=randtrimwrite"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			s := serve(t, "raw:"+empty(t, 64<<20))
			argv := append([]string{"fio", "--name=v", "--ioengine=nbd", "--uri=" + s.URI(), "--size=32M", "--verify=crc32c",
				"--do_verify=1", "--verify_fatal=1", "--verify_state_save=0", "--output=" + filepath.Join(tempDir(t), "out")}, c.args...)
			run(t, argv...)
			stop(t, s)
		})
	}
}
