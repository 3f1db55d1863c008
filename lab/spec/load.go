package spec

import (
	"crypto/sha256"
	"embed"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"
)

//go:embed builtin/*.yaml
var builtin embed.FS

// Builtin lists the names of the built-in experiments.
func Builtin() []string {
	files, err := fs.Glob(builtin, "builtin/*.yaml")
	if err != nil {
		return nil // the pattern is right
	}
	var names []string
	for _, f := range files {
		names = append(names, strings.TrimSuffix(path.Base(f), ".yaml"))
	}
	return names
}

// BuiltinText returns the YAML of a built-in experiment, to begin one's own with.
func BuiltinText(name string) ([]byte, error) {
	if !slices.Contains(Builtin(), name) {
		return nil, fmt.Errorf("no built-in experiment %q%s; there are: %s", name, didYouMean(name, Builtin()), strings.Join(Builtin(), ", "))
	}
	return builtin.ReadFile("builtin/" + name + ".yaml")
}

// Load reads a built-in experiment by its name, else a file. A file called like a
// built-in is loaded by a name with a slash: ./tuning.
func Load(nameOrFile string) (*Spec, error) {
	if slices.Contains(Builtin(), nameOrFile) {
		data, err := BuiltinText(nameOrFile)
		if err != nil {
			return nil, err
		}
		return Parse("built-in "+nameOrFile+".yaml", data)
	}
	data, err := readFile(nameOrFile)
	if errors.Is(err, fs.ErrNotExist) && !strings.ContainsAny(nameOrFile, "/.") {
		_, err := BuiltinText(nameOrFile)
		return nil, fmt.Errorf("%w, and no file of that name", err)
	}
	if err != nil {
		return nil, fmt.Errorf("cannot read the experiment: %w", err)
	}
	return Parse(filepath.Clean(nameOrFile), data)
}

// readFile reads no more than Parse takes, and nothing that has no end.
func readFile(name string) ([]byte, error) {
	st, err := os.Stat(name)
	if err == nil && st.IsDir() {
		err = &fs.PathError{Op: "read", Path: name, Err: errors.New("is a folder")}
	}
	if err != nil {
		return nil, err
	}
	f, err := os.Open(name)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	return io.ReadAll(io.LimitReader(f, maxFile+1))
}

// Fingerprint is the same for two experiments that measure the same: a hash of all
// but names and texts for people, of nothing that depends on where the file
// lies, and not of the repeats, which may be added to a finished experiment. A run is
// resumed only with the same one.
func (s *Spec) Fingerprint() (string, error) {
	cells, err := s.Cells()
	if err != nil {
		return "", err
	}
	type work struct{ Name, JobFile, Precondition string }
	var works []work
	for _, w := range s.Workloads {
		works = append(works, work{w.Name, w.JobFile, w.Precondition})
	}
	text, err := json.Marshal(struct {
		Version   int // of this list
		Name      string
		Guest     Guest
		Disk      Disk
		Workloads []work
		Cells     []Cell
	}{2, s.Name, s.Guest, s.Disk, works, cells})
	if err != nil {
		return "", err
	}
	sum := sha256.Sum256(text)
	return hex.EncodeToString(sum[:16]), nil
}
