package pool

import (
	"os"
	"path/filepath"
	"time"

	"gameservers.local/disk-driver/fault"
)

// SnapshotFile is the file of a snapshot.
func (p *Pool) SnapshotFile(id string) string { return p.folder("snapshots", id, snapshotImage) }

// CreateSnapshot copies the disk's file as it is at one moment, and returns what is known of the copy.
func (p *Pool) CreateSnapshot(id, diskID string) (Snapshot, error) {
	disk, err := p.Existing(diskID)
	if err != nil {
		return Snapshot{}, err
	}
	image := p.Image(diskID)
	expected, err := Allocated(image)
	if err != nil {
		return Snapshot{}, err
	}
	if err := p.allowance(disk, expected); err != nil {
		return Snapshot{}, err
	}
	release, err := p.reserve(expected)
	if err != nil {
		return Snapshot{}, err
	}
	snapshot := Snapshot{ID: id, Disk: diskID, Size: disk.Size}
	err = p.make("snapshots", id, func(folder string) error {
		copied := filepath.Join(folder, snapshotImage)
		if err := CloneFile(image, copied); err != nil {
			return err
		}
		snapshot.Created = time.Now().UTC()
		// What the game wrote since the look at `expected` is little: the account is right, the limit is only checked late.
		if snapshot.Bytes, err = Allocated(copied); err != nil {
			return err
		}
		return write(folder, snapshotRecord, snapshot)
	})
	p.mutex.Lock()
	defer p.mutex.Unlock()
	release()
	if err == nil {
		p.snapshots[id] = snapshot
	}
	return snapshot, err
}

// RemoveSnapshot removes a snapshot; one that is not there is removed already.
func (p *Pool) RemoveSnapshot(id string) error {
	if _, found := p.Snapshot(id); found {
		if err := p.retire("snapshots", id, func() { delete(p.snapshots, id) }); err != nil {
			return err
		}
	}
	return p.sweep("snapshots", id)
}

func (p *Pool) lostSnapshot(id string) (Snapshot, error) {
	stat, err := os.Lstat(p.SnapshotFile(id))
	if err != nil {
		return Snapshot{}, err
	}
	bytes, err := Allocated(p.SnapshotFile(id))
	return Snapshot{ID: id, Size: stat.Size(), Bytes: bytes, Created: stat.ModTime().UTC()}, err
}

// MissingSnapshot is the error about a snapshot that is not here.
func MissingSnapshot(id string) error {
	return fault.New(fault.NotFound, "this node has no snapshot %s", id)
}
