package peer

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
)

// Build compiles a package of this module (for example "./cmd/vmdisk") into
// a new folder of dir, static as it is shipped, and returns the program's path.
func Build(ctx context.Context, pkg, dir string) (string, error) {
	root, err := Root()
	if err != nil {
		return "", err
	}
	out, err := os.MkdirTemp(dir, "bin")
	if err != nil {
		return "", fmt.Errorf("build %s: %w", pkg, err)
	}
	bin := filepath.Join(out, filepath.Base(pkg))
	cmd := exec.CommandContext(ctx, "go", "build", "-o", bin, pkg)
	cmd.Dir = root
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	if err := asCaller(cmd, dir, out); err != nil {
		return "", fmt.Errorf("build %s: %w", pkg, err)
	}
	if out, err := cmd.CombinedOutput(); err != nil {
		return "", fmt.Errorf("build %s: %w: %s", pkg, err, out)
	}
	return bin, nil
}

// asCaller has the command run as the user who called sudo, if that is how we
// became root, so that the user's build cache stays the user's. The folder out
// in dir becomes writable to that user.
func asCaller(cmd *exec.Cmd, dir, out string) error {
	uid, errU := strconv.ParseUint(os.Getenv("SUDO_UID"), 10, 32)
	gid, errG := strconv.ParseUint(os.Getenv("SUDO_GID"), 10, 32)
	if os.Geteuid() != 0 || uid == 0 || errU != nil || errG != nil {
		return nil
	}
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: uint32(uid), Gid: uint32(gid)}}
	return errors.Join(os.Chmod(dir, 0o755), os.Chown(out, int(uid), int(gid)))
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
