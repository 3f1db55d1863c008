package interop

import (
	"bytes"
	"encoding/json"
	"fmt"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/vmdisk/vmdisk/imageio/client"
	"github.com/vmdisk/vmdisk/interop/engine"
	"github.com/vmdisk/vmdisk/interop/peer"
)

const engineUser, enginePassword = "admin@internal", "secret & more"

// site is an oVirt of one host: the engine's stand-in, the host's daemon, and one
// beside the engine that passes transfers on.
type site struct {
	*engine.Engine
	host, proxy *peer.Daemon
	dir         string
	origin      string // of the engine
	password    string // file
}

func newSite(t *testing.T) *site {
	t.Helper()
	s := &site{host: daemon(t, true, ""), dir: tempDir(t)}
	s.proxy = daemon(t, true, fmt.Sprintf("[tls]\nkey_file = %s\ncert_file = %s\nca_file = %s\n",
		filepath.Join(s.host.Dir, "server-key.pem"), filepath.Join(s.host.Dir, "server-cert.pem"), s.host.CA()))
	storage := filepath.Join(s.dir, "storage")
	s.password = filepath.Join(s.dir, "password")
	if err := os.Mkdir(storage, 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(s.password, []byte(enginePassword+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	proxy := managed(t, s.proxy)
	s.Engine = engine.New(engine.Config{User: engineUser, Password: enginePassword, Storage: storage, Host: managed(t, s.host), Proxy: &proxy})
	origin, stop, err := peer.Serve(s.Engine, s.host.Dir)
	if err != nil {
		t.Fatal(err)
	}
	s.origin = origin
	t.Cleanup(func() {
		if err := stop(); err != nil {
			t.Error(err)
		}
	})
	return s
}

// managed is a daemon as the engine knows it.
func managed(t *testing.T, d *peer.Daemon) engine.Daemon {
	t.Helper()
	control, err := client.DialControl(d.Control())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = control.Close() })
	return engine.Daemon{Control: control, Images: d.Remote + "/images/"}
}

// disks are the paths of all disks of the storage domain.
func (s *site) disks(t *testing.T) []string {
	t.Helper()
	paths, err := filepath.Glob(filepath.Join(s.dir, "storage", "*"))
	if err != nil {
		t.Fatal(err)
	}
	return paths
}

// script names virt-v2v's scripts by a part of their first line, in which they say what they are.
var scripts = map[string]string{"precheck": "pre-upload checks", "vmcheck": "VM existence check", "transfer": "upload start transfer",
	"plugin": "upload nbdkit plugin", "finalize": "upload finalize", "cancel": "upload cancel", "createvm": "upload create VM"}

// extractScripts writes virt-v2v's own Python scripts, which lie within its program, to dir.
func extractScripts(t *testing.T, dir string) {
	t.Helper()
	need(t, "virt-v2v", "python3")
	path, err := exec.LookPath("virt-v2v")
	if err != nil {
		t.Fatal(err)
	}
	program, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	found := map[string]bool{}
	for _, part := range bytes.Split(program, []byte("# -*- python -*-\n"))[1:] {
		text, _, _ := bytes.Cut(part, []byte{0})
		title, _, _ := bytes.Cut(text, []byte{'\n'})
		for name, title2 := range scripts {
			if strings.Contains(string(title), title2) {
				found[name] = true
				if err := os.WriteFile(filepath.Join(dir, name+".py"), text, 0o600); err != nil {
					t.Fatal(err)
				}
			}
		}
	}
	if len(found) != len(scripts) {
		t.Fatalf("%s has the scripts %v, want all of %v", path, found, scripts)
	}
}

// v2v runs virt-v2v's scripts with the parameters that virt-v2v gives them.
type v2v struct {
	*site
	params map[string]any
}

func newV2V(t *testing.T, s *site, more map[string]any) *v2v {
	t.Helper()
	extractScripts(t, s.dir)
	v := &v2v{s, map[string]any{"verbose": true, "output_conn": s.origin + "/ovirt-engine/api", "output_password": s.password,
		"output_storage": engine.StorageDomain, "rhv_cafile": s.host.CA(), "rhv_cluster": engine.Cluster, "rhv_direct": true, "insecure": false}}
	for k, value := range more {
		v.params[k] = value
	}
	return v
}

// argv is the command that runs a script.
func (v *v2v) argv(t *testing.T, name string, args ...string) []string {
	t.Helper()
	params := filepath.Join(v.dir, name+".json")
	text, err := json.Marshal(v.params)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(params, text, 0o600); err != nil {
		t.Fatal(err)
	}
	sdk, err := filepath.Abs("testdata/sdk")
	if err != nil {
		t.Fatal(err)
	}
	return append([]string{"env", "PYTHONPATH=" + sdk, "PYTHONDONTWRITEBYTECODE=1", "python3", filepath.Join(v.dir, name+".py"), params}, args...)
}

// script runs one; its answer becomes parameters of the next, as with virt-v2v.
func (v *v2v) script(t *testing.T, name string, args ...string) {
	t.Helper()
	out := run(t, v.argv(t, name, args...)...)
	if out == "" {
		return
	}
	if err := json.Unmarshal([]byte(out), &v.params); err != nil {
		t.Fatalf("%s: %v: %s", name, err, out)
	}
}

// upload copies image to where the transfer script said, through the real plugin.
func (v *v2v) upload(t *testing.T, image string, size int) {
	t.Helper()
	socket := filepath.Join(v.dir, "nbdkit.sock")
	plugin, err := peer.Start("nbdkit", []string{"nbdkit", "--foreground", "--exit-with-parent", "--unix", socket, "python",
		"script=" + filepath.Join(v.dir, "plugin.py"), fmt.Sprint("size=", size), fmt.Sprint("url=", v.params["destination_url"]),
		fmt.Sprint("cafile=", v.params["rhv_cafile"]), fmt.Sprint("insecure=", v.params["insecure"]),
		fmt.Sprint("is_ovirt_host=", v.params["is_ovirt_host"])}, nil)
	if err != nil {
		t.Fatal(err)
	}
	defer plugin.Kill()
	eventually(t, "nbdkit's socket", func() bool {
		_, err := os.Stat(socket)
		return err == nil
	})
	run(t, "nbdcopy", "--flush", image, "nbd+unix:///?socket="+socket)
	if err := plugin.Stop(); err != nil {
		t.Error(err)
	}
}

// virt-v2v -o rhv-upload is scripts around an nbdkit plugin. They are the real
// ones here, run in virt-v2v's order with its parameters, against the engine's
// stand-in; only the engine's SDK is a stand-in too, as Debian has no package
// of it. TestVirtV2V runs the whole program.
func TestImageioVirtV2VScripts(t *testing.T) {
	t.Parallel()
	need(t, "virt-v2v", "nbdkit", "nbdcopy")
	for name, c := range map[string]struct {
		direct, host bool
		served       string // in the log of the host's daemon
	}{
		"to the host": {direct: true, served: "[images] [127.0.0.1] WRITE ticket="},
		"on the host": {direct: true, host: true, served: "[images] [local] WRITE ticket="},
		// The proxy finds out that the host is the machine that it runs on.
		"through the proxy": {served: "[images] [local] WRITE ticket="},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := newSite(t)
			image := filepath.Join(s.dir, "image")
			data := dataFile(t, image, 8<<20)
			disk := "c0ffee00-1234-4000-8000-00000000000a"
			v := newV2V(t, s, map[string]any{"rhv_direct": c.direct, "rhv_disk_uuids": []string{disk}, "output_name": "guest", "disk_name": "guest-000",
				"disk_format": "raw", "disk_size": len(data), "disk_uuid": disk, "disk_uuids": []string{disk}})
			for _, name := range []string{"precheck", "vmcheck", "transfer"} {
				v.script(t, name)
			}
			v.params["transfer_ids"] = []any{v.params["transfer_id"]}
			via := fmt.Sprint(v.params["destination_url"])
			if strings.HasPrefix(via, s.host.Remote) != c.direct {
				t.Errorf("rhv-direct=%t goes to %s", c.direct, via)
			}
			v.params["is_ovirt_host"] = c.host
			v.upload(t, image, len(data))
			v.script(t, "finalize")
			v.createVM(t, disk)
			if now, err := os.ReadFile(s.DiskPath(disk)); err != nil || !bytes.Equal(now, data) {
				t.Errorf("the disk: %v, equal %t", err, bytes.Equal(now, data))
			}
			s.check(t, disk, c.served)
			s.refused(t, via)
			if log, err := os.ReadFile(s.proxy.Log()); err != nil || strings.Contains(string(log), "[127.0.0.1] WRITE ticket=") == c.direct {
				t.Errorf("rhv-direct=%t, and the log of the proxy: %v\n%s", c.direct, err, log[max(0, len(log)-1000):])
			}
		})
	}
}

// createVM runs the last script, and once more the one that looks for machines of the name.
func (v *v2v) createVM(t *testing.T, disk string) {
	t.Helper()
	ovf := filepath.Join(v.dir, "ovf")
	text := fmt.Sprintf(`<Envelope><DiskSection><Disk diskId="%s"/></DiskSection><VirtualSystem><Name>guest</Name></VirtualSystem></Envelope>`, disk)
	if err := os.WriteFile(ovf, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	v.script(t, "createvm", ovf)
	if out := fail(t, 1, v.argv(t, "vmcheck")...); !strings.Contains(out, "VM already exists") {
		t.Errorf("a second machine of the name: %s", out)
	}
}

// check looks at what a conversion left: a machine with the disk, and in the log
// of the host's daemon how it was served, without the credential.
func (s *site) check(t *testing.T, disk, served string) {
	t.Helper()
	if vms := s.VMs(); len(vms) != 1 || !strings.Contains(vms[0].OVF, disk) {
		t.Errorf("machines: %+v", vms)
	}
	log, err := os.ReadFile(s.host.Log())
	if err != nil || !strings.Contains(string(log), served) || !strings.Contains(string(log), " FLUSH ticket=") {
		t.Errorf("the log of the host's daemon has no %q: %v\n%s", served, err, log[max(0, len(log)-1000):])
	}
	if whole := regexp.MustCompile(`ticket=[0-9a-f]{8}-`).Find(log); whole != nil {
		t.Errorf("the log shows more than the beginning of a ticket: %s", whole)
	}
	calls := strings.Join(s.Calls(), "\n")
	for _, want := range []string{"GET datacenters\n", "GET vms\n", "POST disks\n", "POST imagetransfers\n", "/finalize\n", "POST vms\n", "GET jobs"} {
		if !strings.Contains(calls, want) {
			t.Errorf("the engine was not asked for %q:\n%s", want, calls)
		}
	}
}

// refused checks that a transfer's URL, which came out of the engine, is worth nothing any more.
func (s *site) refused(t *testing.T, image string) {
	t.Helper()
	web, err := peer.Trusting(s.host.CA())
	if err != nil {
		t.Fatal(err)
	}
	answer, err := web.Get(image)
	if err != nil {
		t.Fatal(err)
	}
	_ = answer.Body.Close()
	if answer.StatusCode != http.StatusForbidden {
		t.Errorf("the ticket of a transfer that has ended: %s", answer.Status)
	}
}

// A conversion that fails in the middle of the upload cancels it: nothing stays.
func TestImageioVirtV2VCancel(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	disk := "c0ffee00-1234-4000-8000-00000000000b"
	v := newV2V(t, s, map[string]any{"disk_name": "guest-000", "disk_format": "raw", "disk_size": 1 << 20, "disk_uuid": disk, "disk_uuids": []string{disk}})
	v.script(t, "transfer")
	v.params["transfer_ids"] = []any{v.params["transfer_id"]}
	if len(s.disks(t)) != 1 {
		t.Fatalf("disks: %v", s.disks(t))
	}
	v.script(t, "cancel")
	if left := s.disks(t); len(left) != 0 {
		t.Errorf("left: %v", left)
	}
	s.refused(t, fmt.Sprint(v.params["destination_url"]))
	out := fail(t, 1, v.argv(t, "finalize")...)
	if !strings.Contains(out, "409") {
		t.Errorf("finalizing what was canceled: %s", out)
	}
}

// What the engine refuses, the scripts report.
func TestImageioVirtV2VRefused(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	for name, c := range map[string]struct {
		params map[string]any
		want   string
	}{
		"no such storage": {map[string]any{"output_storage": "elsewhere"}, "The storage domain ‘elsewhere’ does not exist"},
		"no such cluster": {map[string]any{"rhv_cluster": "other"}, "The cluster ‘other’ is not part of the DC"},
		"wrong user":      {map[string]any{"output_conn": strings.Replace(s.origin, "https://", "https://"+url.QueryEscape("bad@internal")+"@", 1) + "/ovirt-engine/api"}, "Cannot authenticate user"},
	} {
		v := newV2V(t, s, c.params)
		if out := fail(t, 1, v.argv(t, "precheck")...); !strings.Contains(out, c.want) {
			t.Errorf("%s: %s", name, out)
		}
	}
}
