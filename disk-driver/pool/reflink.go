package pool

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"
)

// CloneFile makes `to` a copy of `from` that shares its blocks. The file system does it as one step, between two writes.
func CloneFile(from, to string) error {
	source, err := os.OpenFile(from, os.O_RDONLY|unix.O_NOFOLLOW, 0)
	if err != nil {
		return err
	}
	defer source.Close()
	target, err := os.OpenFile(to, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return err
	}
	err = unix.IoctlFileClone(int(target.Fd()), int(source.Fd()))
	if err != nil {
		err = &os.PathError{Op: "FICLONE", Path: from, Err: err}
	}
	return errors.Join(err, target.Sync(), target.Close())
}

// checkReflink tries it, with what to do instead in the error.
func checkReflink(folder string) error {
	probe := filepath.Join(folder, unfinished+"probe")
	if err := os.RemoveAll(probe); err != nil {
		return err
	}
	if err := os.Mkdir(probe, 0o700); err != nil {
		return err
	}
	defer os.RemoveAll(probe)
	from := filepath.Join(probe, "from")
	if err := os.WriteFile(from, make([]byte, 4096), 0o600); err != nil {
		return err
	}
	if err := CloneFile(from, filepath.Join(probe, "to")); err != nil {
		return fmt.Errorf("the pool %s is on a file system whose files cannot share blocks (%w). Give it a file system"+
			" of its own that can: `mkfs.xfs /dev/DEVICE`, then mount it at %s. btrfs does as well", folder, err, folder)
	}
	return nil
}
