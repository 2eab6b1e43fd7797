// Package pool keeps disks and snapshots as files in one folder, and the account of the room in it.
//
// What it makes is complete before it gets its name, and what it removes loses its name first. So a crash leaves whole
// disks and snapshots, and rests that Sweep removes.
package pool

import (
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"sync"

	"golang.org/x/sys/unix"

	"gameservers.local/disk-driver/fault"
)

const (
	unfinished = ".new-"
	removed    = ".gone-"

	diskImage, diskRecord         = "disk.img", "disk.json"
	snapshotImage, snapshotRecord = "snapshot.img", "snapshot.json"
)

// Limits are the operator's.
type Limits struct {
	// Overcommit is how much of the pool's size may be promised: 1.0 is all of it, 2.0 twice as much.
	Overcommit float64
	// ReservePercent of the pool's size is never promised: the pool's file system needs room for its own records.
	ReservePercent float64
	// AllowancePercent of a disk's size is what all its snapshots together may hold.
	AllowancePercent float64
}

// Pool is a folder of disks and snapshots. It may be used by many goroutines, but calls about one id take turns.
type Pool struct {
	path   string
	limits Limits
	lock   *os.File

	mutex     sync.Mutex
	disks     map[string]Disk
	snapshots map[string]Snapshot
	// What calls that are under way will need, in bytes.
	pending int64
}

// Open reads the pool and keeps other drivers away from it. It waits for one that has it.
func Open(path string, limits Limits) (*Pool, error) {
	real, err := filepath.EvalSymlinks(path)
	if err != nil {
		return nil, err
	}
	if real != path || !filepath.IsAbs(path) {
		return nil, fmt.Errorf("the pool's path %s has to be absolute and without links; %s would do", path, real)
	}
	for _, folder := range []string{"disks", "snapshots", "mounts"} {
		if err := os.MkdirAll(filepath.Join(path, folder), 0o700); err != nil {
			return nil, err
		}
	}
	// The SFTP agent and the kubelet go through these.
	for _, folder := range []string{path, filepath.Join(path, "mounts")} {
		if err := os.Chmod(folder, 0o711); err != nil {
			return nil, err
		}
	}
	lock, err := lockFolder(path)
	if err != nil {
		return nil, err
	}
	pool := &Pool{path: path, limits: limits, lock: lock}
	if pool.disks, err = load(pool.folder("disks"), diskRecord, pool.lostDisk); err != nil {
		return nil, err
	}
	if pool.snapshots, err = load(pool.folder("snapshots"), snapshotRecord, pool.lostSnapshot); err != nil {
		return nil, err
	}
	err = checkReflink(path)
	if errors.Is(err, unix.ENOSPC) && len(pool.disks)+len(pool.snapshots) > 0 {
		// It was found good when these were made, and they can be removed only by a driver that runs.
		slog.Warn("the pool is full: whether its files can share blocks is not tried", "pool", path, "error", err.Error())
		err = nil
	}
	if err != nil {
		return nil, err
	}
	return pool, nil
}

// lockFolder waits until no other driver, and no program that one has started, works on the pool.
func lockFolder(path string) (*os.File, error) {
	file, err := os.OpenFile(filepath.Join(path, ".lock"), os.O_RDWR|os.O_CREATE|unix.O_NOFOLLOW, 0o600)
	if err != nil {
		return nil, err
	}
	if unix.Flock(int(file.Fd()), unix.LOCK_EX|unix.LOCK_NB) == nil {
		return file, nil
	}
	slog.Info("waiting for another driver to leave the pool", "pool", path)
	for {
		if err := unix.Flock(int(file.Fd()), unix.LOCK_EX); err != unix.EINTR {
			return file, err
		}
	}
}

// Lock is the open file whose lock keeps other drivers away: a child that has it keeps them away until it ends.
func (p *Pool) Lock() *os.File { return p.lock }

// Mount is the folder where a disk is mounted.
func (p *Pool) Mount(id string) string { return filepath.Join(p.path, "mounts", id) }

// Mounts is the folder of all mount points.
func (p *Pool) Mounts() string { return filepath.Join(p.path, "mounts") }

// Image is the file of a disk.
func (p *Pool) Image(id string) string { return p.folder("disks", id, diskImage) }

// Disk is a disk by its id.
func (p *Pool) Disk(id string) (Disk, bool) {
	p.mutex.Lock()
	defer p.mutex.Unlock()
	disk, found := p.disks[id]
	return disk, found
}

// Existing is a disk that has to be there.
func (p *Pool) Existing(id string) (Disk, error) {
	disk, found := p.Disk(id)
	if !found {
		return disk, fault.New(fault.NotFound, "this node has no disk %s", id)
	}
	return disk, nil
}

// Disks are all disks, in no order.
func (p *Pool) Disks() []Disk { return values(p, p.disks) }

// Snapshot is a snapshot by its id.
func (p *Pool) Snapshot(id string) (Snapshot, bool) {
	p.mutex.Lock()
	defer p.mutex.Unlock()
	snapshot, found := p.snapshots[id]
	return snapshot, found
}

// Snapshots are all snapshots, in no order.
func (p *Pool) Snapshots() []Snapshot { return values(p, p.snapshots) }

func values[T any](p *Pool, kept map[string]T) []T {
	p.mutex.Lock()
	defer p.mutex.Unlock()
	all := make([]T, 0, len(kept))
	for _, one := range kept {
		all = append(all, one)
	}
	return all
}

func (p *Pool) folder(parts ...string) string {
	return filepath.Join(append([]string{p.path}, parts...)...)
}

// load reads the record of each entry of a folder; `lost` makes one up for an entry whose record cannot be read.
func load[T any](folder, name string, lost func(id string) (T, error)) (map[string]T, error) {
	entries, err := os.ReadDir(folder)
	if err != nil {
		return nil, err
	}
	found := map[string]T{}
	for _, entry := range entries {
		id := entry.Name()
		if strings.HasPrefix(id, ".") {
			continue
		}
		var record T
		if err := read(filepath.Join(folder, id), name, &record); err != nil {
			slog.Error("a record cannot be read, its file tells the size", "id", id, "error", err.Error())
			if record, err = lost(id); err != nil {
				return nil, fmt.Errorf("%s in %s is neither a disk nor a snapshot; move it away: %w", id, folder, err)
			}
		}
		found[id] = record
	}
	return found, nil
}
