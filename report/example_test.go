package report_test

import (
	"os"

	"github.com/vmdisk/vmdisk/report"
)

func Example() {
	t := &report.Table{Columns: []report.Column{{Name: "server"}, {Name: "time", Unit: "s", Digits: 2}}}
	t.Add("A", 2.41)
	t.Add("B", 4.2)
	report.TextItem(os.Stdout, t)
	report.CSV(os.Stdout, t)
	// Output:
	// server  time s
	// ────────────────
	// A         2.41
	// B         4.20
	// server,time s
	// A,2.41
	// B,4.2
}
