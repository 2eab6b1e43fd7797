package disks

import (
	"context"
	"errors"
	"io/fs"
	"os"

	"golang.org/x/sys/unix"

	"gameservers.local/disk-driver/fault"
	"gameservers.local/disk-driver/mounts"
	"gameservers.local/disk-driver/xfs"
)

// Publish mounts a disk at a pod's path. Twice is the same as once.
func (d *Disks) Publish(ctx context.Context, id, target string, readOnly bool) error {
	if _, err := d.pool.Existing(id); err != nil {
		return err
	}
	release, err := d.locks.take(ctx, "disk "+id)
	if err != nil {
		return err
	}
	defer release()
	if err := errors.Join(d.repair(id), d.attach(id)); err != nil {
		return err
	}
	table, err := mounts.Table()
	if err != nil {
		return err
	}
	device, err := d.number(table, id)
	if err != nil {
		return err
	}
	mount, found := mounts.At(table, target)
	if found && mount.Device != device {
		return fault.New(fault.InUse, "something else is mounted at %s", target)
	}
	if !found {
		if err := os.Mkdir(target, 0o750); err != nil && !errors.Is(err, fs.ErrExist) {
			return err
		}
		if err := mounts.Bind(d.pool.Mount(id), target); err != nil {
			return err
		}
	}
	if !readOnly {
		return nil
	}
	// Also where it was mounted already: a call that was killed may have got no further than that.
	return mounts.ReadOnly(target)
}

// Unpublish undoes it.
func (d *Disks) Unpublish(ctx context.Context, id, target string) error {
	release, err := d.locks.take(ctx, "disk "+id)
	if err != nil {
		return err
	}
	defer release()
	for {
		table, err := mounts.Table()
		if err != nil {
			return err
		}
		if _, found := mounts.At(table, target); !found {
			break
		}
		if err := mounts.Unmount(target); err != nil {
			return err
		}
	}
	// Never more than an empty folder.
	if err := unix.Rmdir(target); err != nil && err != unix.ENOENT {
		return &os.PathError{Op: "rmdir", Path: target, Err: err}
	}
	return nil
}

// Published opens a disk where a pod has it; an error if it is not mounted at that path.
func (d *Disks) Published(id, path string) (xfs.Folder, error) {
	if _, err := d.pool.Existing(id); err != nil {
		return xfs.Folder{}, err
	}
	table, err := mounts.Table()
	if err != nil {
		return xfs.Folder{}, err
	}
	device, err := d.number(table, id)
	if err != nil {
		return xfs.Folder{}, err
	}
	if mount, found := mounts.At(table, path); !found || device == 0 || mount.Device != device {
		return xfs.Folder{}, fault.New(fault.NotFound, "disk %s is not mounted at %s", id, path)
	}
	return xfs.Open(path)
}

// Grow makes a disk that is mounted at a path larger while it is in use, and returns its size in bytes. A disk that is
// as large already stays as it is.
func (d *Disks) Grow(ctx context.Context, id, path string, size int64) (int64, error) {
	release, err := d.locks.take(ctx, "disk "+id)
	if err != nil {
		return 0, err
	}
	defer release()
	folder, err := d.Published(id, path)
	if err != nil {
		return 0, err
	}
	folder.Close()
	if err := d.attach(id); err != nil {
		return 0, err
	}
	if err := d.pool.GrowDisk(id, size); err != nil {
		return 0, err
	}
	disk, err := d.pool.Existing(id)
	if err != nil {
		return 0, err
	}
	return disk.Size, d.fit(disk)
}
