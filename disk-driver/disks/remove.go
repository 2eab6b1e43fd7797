package disks

import (
	"context"
	"errors"
	"fmt"

	"gameservers.local/disk-driver/fault"
	"gameservers.local/disk-driver/mounts"
	"gameservers.local/disk-driver/pool"
	"gameservers.local/disk-driver/xfs"
)

// Remove removes a disk for good. One that is not there is removed already; one that a pod has stays.
func (d *Disks) Remove(ctx context.Context, id string) error {
	// No disk has such an id.
	if pool.CheckID(id) != nil {
		return nil
	}
	release, err := d.locks.take(ctx, "disk "+id)
	if err != nil {
		return err
	}
	defer release()
	if _, found := d.pool.Disk(id); found {
		published, err := d.published(id)
		if err != nil {
			return err
		}
		if len(published) > 0 {
			return fault.New(fault.InUse, "disk %s is still published at %s", id, published[0])
		}
		if err := d.pool.RetireDisk(id); err != nil {
			return err
		}
		d.mutex.Lock()
		delete(d.broken, id)
		d.mutex.Unlock()
	}
	return d.sweep(id)
}

// discard removes a disk that was made just now and cannot be mounted, and returns what to tell the caller, who will not
// delete it: to them, it does not exist.
func (d *Disks) discard(id string, why error) error {
	err := d.pool.RetireDisk(id)
	if err == nil {
		err = d.sweep(id)
	}
	if err != nil {
		return fault.New(fault.Busy, "the new disk %s cannot be mounted: %v; nor removed: %v", id, why, err)
	}
	return fmt.Errorf("the new disk %s cannot be mounted, and is removed again: %w", id, why)
}

// sweep removes what is left of a disk that has lost its name. It is done after a crash too, so each step may have been
// taken already.
func (d *Disks) sweep(id string) error {
	return errors.Join(d.dismantle(id), d.pool.SweepDisk(id))
}

// dismantle takes the file system of a removed disk away from under whoever has it, and removes its mount point. No
// byte in it is looked at.
func (d *Disks) dismantle(id string) error {
	point := d.pool.Mount(id)
	table, err := mounts.Table()
	if err != nil {
		return err
	}
	if _, found := mounts.At(table, point); found {
		folder, err := xfs.Open(point)
		if err == nil {
			err = errors.Join(folder.Shutdown(), folder.Close())
		}
		// Whatever the file system says to that, it goes.
		if gone := mounts.Detach(point); gone != nil {
			return errors.Join(err, gone)
		}
	}
	return mounts.RemovePoint(point)
}

// published are the places besides its own where this process sees the disk mounted: the pods'.
func (d *Disks) published(id string) ([]string, error) {
	table, err := mounts.Table()
	if err != nil {
		return nil, err
	}
	point := d.pool.Mount(id)
	device, err := d.number(table, id)
	if err != nil || device == 0 {
		return nil, err
	}
	var others []string
	for _, mount := range mounts.Of(table, device) {
		if mount.Point != point {
			others = append(others, mount.Point)
		}
	}
	return others, nil
}

// number is the number of a disk's loop device, 0 if it has none.
func (d *Disks) number(table []mounts.Mount, id string) (uint64, error) {
	if mount, found := mounts.At(table, d.pool.Mount(id)); found {
		return mount.Device, nil
	}
	device, err := mounts.Attached(d.pool.Image(id))
	if err != nil || device == nil {
		return 0, err
	}
	defer device.Close()
	return mounts.Number(device)
}
