// Package disks does what is asked of disks and snapshots: with their files in the pool, their file systems, and their
// mounts. Each disk of the node stays mounted as long as it exists, whether a pod has it or not.
package disks

import (
	"context"
	"sync"

	"gameservers.local/disk-driver/fault"
	"gameservers.local/disk-driver/pool"
	"gameservers.local/disk-driver/xfs"
)

// Disks are the disks and snapshots of this node.
type Disks struct {
	pool  *pool.Pool
	tools xfs.Tools
	locks locks

	mutex sync.Mutex
	// Why a disk is not mounted, by its id.
	broken map[string]error
}

// New are the disks of a pool.
func New(of *pool.Pool) *Disks {
	return &Disks{pool: of, tools: xfs.Tools{Lock: of.Lock()}, broken: map[string]error{}}
}

// Pool is where they are kept.
func (d *Disks) Pool() *pool.Pool { return d.pool }

// Broken is how many disks could not be mounted.
func (d *Disks) Broken() int {
	d.mutex.Lock()
	defer d.mutex.Unlock()
	return len(d.broken)
}

// Source is what a new disk begins with: a snapshot, another disk, or nothing.
type Source struct{ Snapshot, Disk string }

func (s Source) String() string {
	switch {
	case s.Snapshot != "":
		return "snapshot/" + s.Snapshot
	case s.Disk != "":
		return "disk/" + s.Disk
	}
	return ""
}

// Create makes a disk of `size` bytes and mounts it. One of that name is taken if it has the same source and its size
// is between `size` and `limit`; a limit of 0 is none.
func (d *Disks) Create(ctx context.Context, id string, size, limit int64, source Source) (pool.Disk, error) {
	if err := pool.CheckID(id); err != nil {
		return pool.Disk{}, err
	}
	names := []string{"disk " + id}
	if source.Disk != "" {
		names = append(names, "disk "+source.Disk)
	}
	if source.Snapshot != "" {
		names = append(names, "snapshot "+source.Snapshot)
	}
	release, err := d.locks.take(ctx, names...)
	if err != nil {
		return pool.Disk{}, err
	}
	defer release()
	disk, found := d.pool.Disk(id)
	if found {
		if disk.Size < size || limit != 0 && disk.Size > limit || disk.Source != source.String() {
			return pool.Disk{}, fault.New(fault.Exists,
				"there is a disk %s of %d bytes made from %q: not what is asked for", id, disk.Size, disk.Source)
		}
		if err := d.attach(id); err != nil {
			// It may have what somebody wrote, so it stays. The caller has to know: after any other code it would take
			// the disk for one that does not exist, and never delete it.
			return pool.Disk{}, fault.New(fault.Busy, "%v", err)
		}
		return disk, nil
	}
	// What a removal of that name has left.
	if err := d.sweep(id); err != nil {
		return pool.Disk{}, err
	}
	disk = pool.Disk{ID: id, Size: size, Source: source.String()}
	if err := d.make(&disk, source, limit); err != nil {
		return pool.Disk{}, err
	}
	disk, _ = d.pool.Disk(id)
	if err := d.mount(id); err != nil {
		return pool.Disk{}, d.discard(id, err)
	}
	return disk, nil
}

func (d *Disks) make(disk *pool.Disk, source Source, limit int64) error {
	if source.String() == "" {
		return d.pool.CreateDisk(*disk, "", d.tools.Make)
	}
	file, size, err := d.original(source)
	if err != nil {
		return err
	}
	disk.Size = max(disk.Size, size)
	if limit != 0 && disk.Size > limit {
		return fault.New(fault.OutOfRange, "%s has %d bytes, and the new disk may have %d at most", source, size, limit)
	}
	return d.pool.CreateDisk(*disk, file, nil)
}

// original is the file that a source stands for, as up to date as it can be, and the size of the disk in it.
func (d *Disks) original(source Source) (string, int64, error) {
	if source.Snapshot != "" {
		snapshot, found := d.pool.Snapshot(source.Snapshot)
		if !found {
			return "", 0, pool.MissingSnapshot(source.Snapshot)
		}
		return d.pool.SnapshotFile(source.Snapshot), snapshot.Size, nil
	}
	disk, err := d.pool.Existing(source.Disk)
	if err != nil {
		return "", 0, err
	}
	return d.pool.Image(disk.ID), disk.Size, d.sync(disk.ID)
}
