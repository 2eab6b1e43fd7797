package disks

import (
	"context"

	"gameservers.local/disk-driver/fault"
	"gameservers.local/disk-driver/pool"
)

// Snapshot takes a snapshot of a disk: what is on it is what a power cut would leave at this moment. Programs go on.
func (d *Disks) Snapshot(ctx context.Context, id, disk string) (pool.Snapshot, error) {
	if err := pool.CheckID(id); err != nil {
		return pool.Snapshot{}, err
	}
	release, err := d.locks.take(ctx, "snapshot "+id, "disk "+disk)
	if err != nil {
		return pool.Snapshot{}, err
	}
	defer release()
	if snapshot, found := d.pool.Snapshot(id); found {
		if snapshot.Disk != disk {
			return pool.Snapshot{}, fault.New(fault.Exists, "there is a snapshot %s of disk %s", id, snapshot.Disk)
		}
		return snapshot, nil
	}
	if _, err := d.pool.Existing(disk); err != nil {
		return pool.Snapshot{}, err
	}
	if err := d.sync(disk); err != nil {
		return pool.Snapshot{}, err
	}
	return d.pool.CreateSnapshot(id, disk)
}

// RemoveSnapshot removes a snapshot; one that is not there is removed already.
func (d *Disks) RemoveSnapshot(ctx context.Context, id string) error {
	if pool.CheckID(id) != nil {
		return nil
	}
	release, err := d.locks.take(ctx, "snapshot "+id)
	if err != nil {
		return err
	}
	defer release()
	return d.pool.RemoveSnapshot(id)
}
