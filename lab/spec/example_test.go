package spec_test

import (
	"fmt"

	"github.com/vmdisk/vmdisk/lab/spec"
)

// An experiment in a few lines, scaled by what a user sets.
func Example() {
	s, err := spec.Parse("aio.yaml", []byte(`
name: aio
workloads:
- name: randread
  job: |
    [randread]
    ioengine=libaio
    rw=randread
    time_based
    runtime=60
axes:
  aio: [native, io_uring]
  cache: [none, writeback]
`))
	if err != nil {
		fmt.Println(err)
		return
	}
	fmt.Println(s.Set("runtiem", "5"))
	if err := s.Set("runtime", "5"); err != nil {
		fmt.Println(err)
		return
	}
	cells, err := s.Cells()
	if err != nil {
		fmt.Println(err)
		return
	}
	for _, c := range cells {
		fmt.Printf("%v %s %s|\n", s.Runtime(c), c.ID, c.Impossible)
	}
	// Output:
	// --set runtiem=5: no field, axis or fio option is called "runtiem" (did you mean "runtime"?)
	// 5s aio/randread/aio=native,cache=none |
	// 5s aio/randread/aio=native,cache=writeback aio=native needs cache=none or cache=directsync|
	// 5s aio/randread/aio=io_uring,cache=none |
	// 5s aio/randread/aio=io_uring,cache=writeback |
}
