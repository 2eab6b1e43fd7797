package disks

import (
	"errors"
	"fmt"
	"log/slog"
	"os"
	"time"

	"gameservers.local/disk-driver/fault"
	"gameservers.local/disk-driver/mounts"
	"gameservers.local/disk-driver/pool"
	"gameservers.local/disk-driver/xfs"
)

// The kernel frees a loop device a moment after the last unmount of its file system.
const settling = 2 * time.Second

// attach mounts a disk at its place, unless it is mounted there already. A disk that cannot be mounted is kept as it is.
func (d *Disks) attach(id string) error {
	err := d.mount(id)
	d.mutex.Lock()
	defer d.mutex.Unlock()
	if err == nil {
		delete(d.broken, id)
		return nil
	}
	err = fmt.Errorf("%w. If its file system is damaged, make a copy of %s on the node, then run `xfs_repair` on it", err,
		d.pool.Image(id))
	if known := d.broken[id]; known == nil || known.Error() != err.Error() {
		slog.Error("a disk is not mounted; it is kept as it is", "disk", id, "error", err.Error())
	}
	d.broken[id] = err
	return fmt.Errorf("disk %s is not mounted: %w", id, err)
}

func (d *Disks) mount(id string) error {
	disk, err := d.pool.Existing(id)
	if err != nil {
		return err
	}
	point, image := d.pool.Mount(id), d.pool.Image(id)
	// Where a growth was written down, and the driver then killed.
	if err := pool.Extend(image, disk.Size); err != nil {
		return err
	}
	table, err := mounts.Table()
	if err != nil {
		return err
	}
	if _, found := mounts.At(table, point); found {
		// A call that was killed may have got no further than the mount.
		return d.fit(disk)
	}
	device, err := attached(image)
	if err != nil {
		return err
	}
	defer device.Close()
	if err := mounts.MakePoint(point); err != nil {
		return err
	}
	if err := mounts.XFS(device.Name(), point); err != nil {
		return fmt.Errorf("the kernel does not mount its file system: %w", err)
	}
	return d.fit(disk)
}

// attached is the loop device of a disk's file. If it has one, for example in the agent's mount namespace alone, the file
// system is in use, and a second one would spoil it.
func attached(image string) (*os.File, error) {
	device, err := mounts.Attached(image)
	if device != nil || err != nil {
		return device, err
	}
	return mounts.Attach(image)
}

// fit makes a mounted file system as large as its disk.
func (d *Disks) fit(disk pool.Disk) error {
	folder, err := xfs.Open(d.pool.Mount(disk.ID))
	if err != nil {
		return err
	}
	defer folder.Close()
	number, err := folder.Device()
	if err != nil {
		return err
	}
	device, err := mounts.Open(number)
	if err != nil {
		return err
	}
	defer device.Close()
	if err := mounts.Refresh(device); err != nil {
		return fmt.Errorf("the loop device of disk %s does not grow: %w", disk.ID, err)
	}
	return folder.Grow(disk.Size)
}

// repair mounts a disk anew that XFS has shut down after an error: that replays its journal. A disk that a pod has stays
// as it is.
func (d *Disks) repair(id string) error {
	table, err := mounts.Table()
	if err != nil {
		return err
	}
	mount, found := mounts.At(table, d.pool.Mount(id))
	if !found || len(mounts.Of(table, mount.Device)) > 1 {
		return nil
	}
	folder, err := xfs.Open(mount.Point)
	if err == nil {
		return folder.Close()
	}
	if !xfs.IsDown(err) {
		return err
	}
	slog.Warn("a disk was shut down after an error: it is mounted anew", "disk", id)
	if err := mounts.Detach(mount.Point); err != nil {
		return err
	}
	freed, err := mounts.Freed(d.pool.Image(id), settling)
	if err == nil && !freed {
		err = fault.New(fault.InUse, "disk %s was shut down after an error, and cannot be mounted anew while something still"+
			" has it: end its file sessions", id)
	}
	return err
}

// sync brings what was written to a disk before now into its file.
func (d *Disks) sync(id string) error {
	point := d.pool.Mount(id)
	table, err := mounts.Table()
	if err != nil {
		return err
	}
	if _, found := mounts.At(table, point); !found {
		return d.attach(id)
	}
	folder, err := xfs.Open(point)
	if xfs.IsDown(err) {
		slog.Warn("a disk is copied that was shut down after an error", "disk", id)
		return nil
	}
	if err != nil {
		return err
	}
	return errors.Join(folder.Sync(), folder.Close())
}
