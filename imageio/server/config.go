package server

import (
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"reflect"
	"sort"
	"strconv"
	"strings"
)

// Config holds the settings that hosts use, under the names of the ini files.
// Times are seconds, sizes bytes. The original's buffer sizes and poll interval
// are tolerated like any unknown key: this server chooses its buffers itself and
// does not poll.
type Config struct {
	Daemon      DaemonConfig  `ini:"daemon"`
	TLS         TLSConfig     `ini:"tls"`
	BackendFile FileConfig    `ini:"backend_file"`
	BackendHTTP HTTPConfig    `ini:"backend_http"`
	Remote      RemoteConfig  `ini:"remote"`
	Local       LocalConfig   `ini:"local"`
	Control     ControlConfig `ini:"control"`
	NBD         NBDConfig     `ini:"nbd"`
	Log         LogConfig     `ini:"-"`

	read iniFile // all that stood in the files
}

// DaemonConfig is [daemon].
type DaemonConfig struct {
	MaxConnections int `ini:"max_connections"`
	// MaxClients bounds the connections of each service, MaxClientsPerAddress those
	// of one IP address or of one user of a unix socket; 0: MaxClients alone.
	MaxClients           int `ini:"max_clients"`
	MaxClientsPerAddress int `ini:"max_clients_per_address"`

	InactivityTimeout int    `ini:"inactivity_timeout"`
	RunDir            string `ini:"run_dir"`
	DropPrivileges    bool   `ini:"drop_privileges"`
	UserName          string `ini:"user_name"`
	GroupName         string `ini:"group_name"`
	SystemdEnable     bool   `ini:"systemd_enable"`
	// Extensions false gives exactly the original's API.
	Extensions bool `ini:"extensions"`
	// LogFormat is "text" (the original's lines) or "json".
	LogFormat string `ini:"log_format"`
}

// TLSConfig is [tls].
type TLSConfig struct {
	Enable   bool   `ini:"enable"`
	KeyFile  string `ini:"key_file"`
	CertFile string `ini:"cert_file"`
	CAFile   string `ini:"ca_file"`
	// EnableTLS11 is read and refused at start: TLS 1.2 is the minimum.
	EnableTLS11 bool `ini:"enable_tls1_1"`
}

// FileConfig is [backend_file].
type FileConfig struct {
	// Cache is the cache mode of files and devices, by QEMU's names. "none", as
	// the original, keeps hosts that share storage coherent.
	Cache string `ini:"cache"`
}

// HTTPConfig is [backend_http].
type HTTPConfig struct {
	// CAFile is trusted for other daemons; [tls] ca_file if empty.
	CAFile string `ini:"ca_file"`
}

// RemoteConfig is [remote].
type RemoteConfig struct {
	Host string `ini:"host"`
	Port int    `ini:"port"`
}

// LocalConfig is [local]; a socket that begins with NUL or @ is abstract.
type LocalConfig struct {
	Enable bool   `ini:"enable"`
	Socket string `ini:"socket"`
}

// ControlConfig is [control].
type ControlConfig struct {
	Enable        bool    `ini:"enable"`
	Transport     string  `ini:"transport"`
	Socket        string  `ini:"socket"`
	Port          int     `ini:"port"`
	PreferIPv4    bool    `ini:"prefer_ipv4"`
	RemoveTimeout float64 `ini:"remove_timeout"`
}

// NBDConfig is [nbd], an extension.
type NBDConfig struct {
	// Address, unix:PATH or HOST:PORT, is where tickets are exports as well; empty: nowhere.
	Address string `ini:"address"`
}

// DefaultConfig returns the original's defaults, with the extensions on.
func DefaultConfig() *Config {
	return &Config{
		Daemon: DaemonConfig{MaxConnections: 8, MaxClients: 1024, MaxClientsPerAddress: 512, InactivityTimeout: 60,
			RunDir: "/run/ovirt-imageio", DropPrivileges: true, UserName: "ovirtimg",
			GroupName: "ovirtimg", SystemdEnable: true, Extensions: true, LogFormat: "text"},
		TLS:         TLSConfig{Enable: true},
		BackendFile: FileConfig{Cache: "none"},
		Remote:      RemoteConfig{Host: "::", Port: 54322},
		Local:       LocalConfig{Enable: true, Socket: "\x00/org/ovirt/imageio"},
		Control:     ControlConfig{Enable: true, Transport: "unix", Socket: "/run/ovirt-imageio/sock", Port: -1, PreferIPv4: true, RemoveTimeout: 60},
		Log:         LogConfig{Level: "INFO", File: "/var/log/ovirt-imageio/daemon.log", MaxBytes: 20 << 20, BackupCount: 10},
	}
}

// vendorDir may override an application's defaults.
const vendorDir = "/usr/lib/ovirt-imageio"

// LoadConfig reads DIR/conf.d/*.conf and the vendor's, in order of their file
// names; later files win. Unknown sections and keys are tolerated. No file in
// DIR is an error.
func LoadConfig(dir string) (*Config, error) {
	cfg, err := ReadConfig(dir)
	if err != nil {
		return nil, err
	}
	return cfg, cfg.Check()
}

// ReadConfig is LoadConfig without the check whether the settings can work together, for
// whoever wants to see why they do not.
func ReadConfig(dir string) (*Config, error) {
	pattern := filepath.Join(dir, "conf.d", "*.conf")
	files, err := filepath.Glob(pattern)
	if err != nil || len(files) == 0 {
		return nil, fmt.Errorf("no configuration file matches %s: create one, or name another directory by --conf-dir", pattern)
	}
	vendor, _ := filepath.Glob(filepath.Join(vendorDir, "conf.d", "*.conf"))
	files = append(files, vendor...)
	sort.SliceStable(files, func(i, j int) bool { return filepath.Base(files[i]) < filepath.Base(files[j]) })
	merged := iniFile{}
	for _, name := range files {
		if err := readINI(name, merged); err != nil {
			return nil, fmt.Errorf("read configuration: %w", err)
		}
	}
	cfg := DefaultConfig()
	if err := merged.apply(reflect.ValueOf(cfg).Elem()); err != nil {
		return nil, fmt.Errorf("read configuration: %w", err)
	}
	if err := merged.applyLog(&cfg.Log); err != nil {
		return nil, fmt.Errorf("read configuration: %w", err)
	}
	cfg.read = merged
	return cfg, nil
}

func readINI(name string, into iniFile) error {
	f, err := os.Open(name)
	if err != nil {
		return err
	}
	defer f.Close()
	return parseINI(f, name, into)
}

// apply fills the sections of a Config.
func (ini iniFile) apply(cfg reflect.Value) error {
	for i := range cfg.NumField() {
		name := cfg.Type().Field(i).Tag.Get("ini")
		if name == "" || name == "-" {
			continue
		}
		values, section := ini.section(name), cfg.Field(i)
		for j := range section.NumField() {
			v, ok := values[section.Type().Field(j).Tag.Get("ini")]
			if !ok {
				continue
			}
			if err := v.set(section.Field(j)); err != nil {
				return err
			}
		}
	}
	return nil
}

func (v iniValue) set(field reflect.Value) (err error) {
	switch field.Kind() {
	case reflect.String:
		field.SetString(strings.ReplaceAll(v.text, `\0`, "\x00"))
	case reflect.Bool:
		var b bool
		b, err = parseBool(v.text)
		field.SetBool(b)
	case reflect.Int:
		var n int
		n, err = strconv.Atoi(v.text)
		field.SetInt(int64(n))
	case reflect.Float64:
		var f float64
		f, err = strconv.ParseFloat(v.text, 64)
		field.SetFloat(f)
	}
	if err != nil {
		return fmt.Errorf("%s: %q is no %s", v.where, v.text, field.Kind())
	}
	return nil
}

func parseBool(s string) (bool, error) {
	switch strings.ToLower(s) {
	case "true", "yes", "1", "on":
		return true, nil
	case "false", "no", "0", "off":
		return false, nil
	}
	return false, errors.New("not a boolean")
}

// Check refuses settings that cannot work.
func (c *Config) Check() error {
	port := func(key string, n int) error {
		if n < 0 || n >= 0xffff {
			return fmt.Errorf("invalid configuration: %s = %d is no port", key, n)
		}
		return nil
	}
	if err := port("remote.port", c.Remote.Port); err != nil {
		return err
	}
	switch strings.ToLower(c.Control.Transport) {
	case "unix":
	case "tcp":
		if err := port("control.port", c.Control.Port); c.Control.Enable && err != nil {
			return err
		}
	default:
		return fmt.Errorf("invalid configuration: control.transport = %s: use unix or tcp", c.Control.Transport)
	}
	if c.TLS.Enable && (c.TLS.KeyFile == "" || c.TLS.CertFile == "") {
		return fmt.Errorf("TLS is enabled in [tls], but key_file = %q and cert_file = %q: name both, or set enable = false", c.TLS.KeyFile, c.TLS.CertFile)
	}
	if c.Daemon.MaxConnections < 1 {
		return fmt.Errorf("invalid configuration: daemon.max_connections = %d: use 1 or more", c.Daemon.MaxConnections)
	}
	if c.Daemon.MaxClients < 1 || c.Daemon.MaxClientsPerAddress < 0 {
		return fmt.Errorf("invalid configuration: daemon.max_clients = %d and daemon.max_clients_per_address = %d: use 1 or more, and 0 or more", c.Daemon.MaxClients, c.Daemon.MaxClientsPerAddress)
	}
	if err := c.NBD.check(c.Daemon.Extensions); err != nil {
		return err
	}
	if f := c.Daemon.LogFormat; f != "text" && f != "json" {
		return fmt.Errorf("invalid configuration: daemon.log_format = %s: use text or json", f)
	}
	return nil
}

func (c NBDConfig) check(extensions bool) error {
	path, local := strings.CutPrefix(c.Address, "unix:")
	if c.Address == "" || local && path != "" && extensions {
		return nil
	}
	if !extensions {
		return errors.New("invalid configuration: nbd.address is set, but daemon.extensions is false: NBD is an extension")
	}
	if _, port, err := net.SplitHostPort(c.Address); err != nil || port == "" {
		return fmt.Errorf("invalid configuration: nbd.address = %s: use unix:PATH or HOST:PORT", c.Address)
	}
	return nil
}

// Map is the configuration in force under the names of the ini files, and what the files
// hold besides, which is tolerated.
func (c *Config) Map() map[string]map[string]any {
	sections := map[string]map[string]any{}
	for name, values := range c.read {
		keys := map[string]any{}
		for key, v := range values {
			keys[key] = v.text
		}
		if name != iniDefault {
			sections[name] = keys
		}
	}
	v := reflect.ValueOf(c).Elem()
	for i := range v.NumField() {
		field := v.Type().Field(i)
		name := field.Tag.Get("ini")
		if !field.IsExported() {
			continue
		}
		if name == "-" {
			name = "log"
		}
		if sections[name] == nil {
			sections[name] = map[string]any{}
		}
		addFields(sections[name], v.Field(i))
	}
	return sections
}

func addFields(keys map[string]any, section reflect.Value) {
	for j := range section.NumField() {
		key := section.Type().Field(j).Tag.Get("ini")
		if key == "" {
			key = strings.ToLower(section.Type().Field(j).Name)
		}
		keys[key] = section.Field(j).Interface()
	}
}
