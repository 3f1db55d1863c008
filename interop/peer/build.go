package peer

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
)

// Build compiles a package of this module (for example "./cmd/vmdisk") into
// dir/NAME, static as it is shipped, and returns that path.
func Build(ctx context.Context, pkg, dir string) (string, error) {
	root, err := Root()
	if err != nil {
		return "", err
	}
	bin := filepath.Join(dir, filepath.Base(pkg))
	cmd := exec.CommandContext(ctx, "go", "build", "-o", bin, pkg)
	cmd.Dir = root
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := cmd.CombinedOutput(); err != nil {
		return "", fmt.Errorf("build %s: %w: %s", pkg, err, out)
	}
	return bin, nil
}

// Root is the folder of the module's sources.
func Root() (string, error) {
	out, err := exec.Command("go", "env", "GOMOD").Output()
	if err != nil {
		return "", fmt.Errorf("find the module's root: %w", err)
	}
	mod := strings.TrimSpace(string(out))
	if mod == "" || mod == os.DevNull {
		return "", fmt.Errorf("not inside the module's sources; run this from the repository")
	}
	return filepath.Dir(mod), nil
}

// RealImage returns the path of the real guest image (a Debian root in a sparse
// 6 GiB ext4 image), building it by scripts/mkimage.sh if it is not cached yet,
// which takes some minutes once.
func RealImage(ctx context.Context) (string, error) {
	root, err := Root()
	if err != nil {
		return "", err
	}
	r, err := Run(ctx, filepath.Join(root, "scripts", "mkimage.sh"))
	if err != nil {
		return "", fmt.Errorf("the real image: %w", err)
	}
	return strings.TrimSpace(r.Stdout), nil
}
