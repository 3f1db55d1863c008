package outcome

import (
	"bytes"
	"context"
	"encoding/json"
	"image"
	"image/png"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/vmdisk/vmdisk/report"
)

// chromium opens a page and returns what it printed and logged. Its network is a proxy
// that is not there.
func chromium(t *testing.T, page string, args ...string) (stdout, log string) {
	t.Helper()
	path, err := exec.LookPath("chromium")
	if err != nil {
		t.Fatal("chromium is not installed (scripts/peers.sh installs it)")
	}
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	defer cancel()
	profile := t.TempDir()
	args = append([]string{"--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking",
		"--disable-component-update", "--disable-sync", "--disable-dev-shm-usage", "--proxy-server=127.0.0.1:9", "--user-data-dir=" + profile,
		"--virtual-time-budget=5000", "--enable-logging=stderr", "--v=0"}, args...)
	cmd := exec.CommandContext(ctx, path, append(args, "file://"+page)...)
	// What it writes under its home must not outlive the test.
	cmd.Env = append(os.Environ(), "HOME="+profile, "XDG_CONFIG_HOME="+profile, "XDG_CACHE_HOME="+profile)
	cmd.WaitDelay = 5 * time.Second
	var out, errs bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &errs
	if err := cmd.Run(); err != nil {
		t.Fatalf("chromium: %v\n%s", err, errs.String())
	}
	return out.String(), errs.String()
}

// probe is put into a copy of the page: it writes down errors, and everything that the
// page loaded.
const probe = `<script>
const errors = [];
addEventListener("error", e => errors.push(String(e.message || e.target.outerHTML)), true);
addEventListener("load", () => {
	const pre = document.createElement("pre");
	pre.id = "probe";
	pre.textContent = JSON.stringify({errors, loaded: performance.getEntriesByType("resource").map(e => e.name),
		charts: document.querySelectorAll("figure svg").length,
		drawn: [...document.querySelectorAll("section:not(.sub) svg, section.sub > figure svg")].filter(e => e.getBoundingClientRect().height > 100).length,
		narrow: [...document.querySelectorAll("svg.narrow")].filter(e => e.getBoundingClientRect().height > 100).length,
		wide: document.documentElement.scrollWidth > document.documentElement.clientWidth,
		title: JSON.parse(document.getElementById("data").textContent).title});
	document.body.append(pre);
});
</script>`

type probed struct {
	Errors, Loaded []string
	Charts, Drawn  int
	Narrow         int // drawings for small screens that are shown
	Wide           bool
	Title          string
}

// TestPageInChromium: the page of 4 nodes, 6 cells and 3 repeats opens in a browser
// without an error, loads nothing, is not wider than the window, and shows its charts.
func TestPageInChromium(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	var html bytes.Buffer
	if err := report.HTML(&html, Page(sixCells(), Options{})); err != nil {
		t.Fatal(err)
	}
	page, copied := filepath.Join(dir, "report.html"), filepath.Join(dir, "probed.html")
	for name, text := range map[string][]byte{page: html.Bytes(), copied: bytes.Replace(html.Bytes(), []byte("<head>"), []byte("<head>"+probe), 1)} {
		if err := os.WriteFile(name, text, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	dom, log := chromium(t, copied, "--window-size=1200,900", "--dump-dom")
	noConsoleErrors(t, log)
	p := parseProbe(t, dom)
	if len(p.Errors) != 0 || len(p.Loaded) != 0 {
		t.Errorf("errors %q, loaded %q", p.Errors, p.Loaded)
	}
	if p.Charts != 2*3+6*2 || p.Drawn != 3 || p.Wide || !strings.HasPrefix(p.Title, "falcon-backing") {
		t.Errorf("%+v", p)
	}
	shot := filepath.Join(dir, "shot.png")
	_, log = chromium(t, page, "--window-size=1200,2000", "--screenshot="+shot)
	noConsoleErrors(t, log)
	looksLikeAReport(t, shot, [3]uint32{255, 255, 255}, [3]uint32{0, 114, 178})
	// Charts follow a dark page: nothing of it is white but letters.
	_, _ = chromium(t, page, "--window-size=1200,2000", "--blink-settings=preferredColorScheme=0", "--screenshot="+shot)
	looksLikeAReport(t, shot, [3]uint32{0x14, 0x18, 0x1e}, [3]uint32{0x4a, 0xa8, 0xe0})
	// On a telephone the page is as wide as the screen, and its charts are the narrow ones.
	dom, _ = chromium(t, copied, "--window-size=390,844", "--dump-dom")
	if p := parseProbe(t, dom); p.Narrow != 3 || p.Drawn != 3 || p.Wide {
		t.Errorf("on a narrow screen: %+v", p)
	}
}

func parseProbe(t *testing.T, dom string) probed {
	t.Helper()
	m := regexp.MustCompile(`(?s)<pre id="probe">(.*?)</pre>`).FindStringSubmatch(dom)
	if m == nil {
		t.Fatalf("the probe did not run; the page is\n%.2000s", dom)
	}
	var p probed
	if err := json.Unmarshal([]byte(strings.NewReplacer("&lt;", "<", "&gt;", ">", "&amp;", "&").Replace(m[1])), &p); err != nil {
		t.Fatal(err)
	}
	return p
}

// noConsoleErrors: the page's console goes to the log, beside complaints of the browser
// about the machine, which are not the page's.
func noConsoleErrors(t *testing.T, log string) {
	t.Helper()
	for _, line := range strings.Split(log, "\n") {
		if strings.Contains(line, "CONSOLE") || strings.Contains(line, "Uncaught") {
			t.Errorf("console: %s", line)
		}
	}
}

// TestConsoleErrorsAreSeen: the checks of the page can fail.
func TestConsoleErrorsAreSeen(t *testing.T) {
	t.Parallel()
	page := filepath.Join(t.TempDir(), "bad.html")
	if err := os.WriteFile(page, []byte(`<!DOCTYPE html><html><head>`+probe+`<script type="application/json" id="data">{"title":"bad"}</script></head><body><img src="http://127.0.0.1:9/x.png"><script>nosuch()</script></body></html>`), 0o644); err != nil {
		t.Fatal(err)
	}
	dom, log := chromium(t, page, "--dump-dom")
	if !strings.Contains(log, "Uncaught ReferenceError") {
		t.Errorf("the log does not have the page's error:\n%s", log)
	}
	p := parseProbe(t, dom)
	if len(p.Errors) == 0 || len(p.Loaded) == 0 {
		t.Errorf("%+v", p)
	}
}

// looksLikeAReport: the picture has text and bars of one colour on a ground of another.
func looksLikeAReport(t *testing.T, path string, paper, bar [3]uint32) {
	t.Helper()
	f, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	img, err := png.Decode(f)
	if err != nil {
		t.Fatal(err)
	}
	var ground, bars, all int
	b := img.Bounds()
	for y := b.Min.Y; y < b.Max.Y; y++ {
		for x := b.Min.X; x < b.Max.X; x++ {
			all++
			switch rgb(img, x, y) {
			case paper:
				ground++
			case bar:
				bars++
			}
		}
	}
	if all < 1200*2000 || ground < all/3 || ground > all*98/100 || bars < all/200 {
		t.Errorf("of %d pixels %d are of the ground and %d of a bar", all, ground, bars)
	}
}

func rgb(img image.Image, x, y int) [3]uint32 {
	r, g, b, _ := img.At(x, y).RGBA()
	return [3]uint32{r >> 8, g >> 8, b >> 8}
}
