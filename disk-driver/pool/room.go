package pool

import (
	"golang.org/x/sys/unix"

	"gameservers.local/disk-driver/fault"
)

// Room is the account of a pool, in bytes.
type Room struct {
	// Size of the pool's file system.
	Size int64
	// Used blocks of it.
	Used int64
	// Reserved is what is promised: the whole sizes of the disks, and what the snapshots held when they were taken.
	Reserved int64
	// Free is what can still be promised.
	Free int64
}

// Room is the pool's account now.
func (p *Pool) Room() (Room, error) {
	p.mutex.Lock()
	defer p.mutex.Unlock()
	return p.room()
}

func (p *Pool) room() (Room, error) {
	var stat unix.Statfs_t
	if err := unix.Statfs(p.path, &stat); err != nil {
		return Room{}, err
	}
	room := Room{
		Size:     int64(stat.Blocks) * stat.Bsize,
		Used:     int64(stat.Blocks-stat.Bfree) * stat.Bsize,
		Reserved: p.pending,
	}
	for _, disk := range p.disks {
		room.Reserved += disk.Size
	}
	for _, snapshot := range p.snapshots {
		room.Reserved += snapshot.Bytes
	}
	room.Free = p.limits.free(room, int64(stat.Bavail)*stat.Bsize)
	return room, nil
}

// free is what can be promised. The blocks that are free limit it too, in case something else fills the pool.
func (l Limits) free(room Room, available int64) int64 {
	reserve := float64(room.Size) * l.ReservePercent / 100
	promised := float64(room.Size)*l.Overcommit - reserve - float64(room.Reserved)
	real := (float64(available) - reserve) * max(1, l.Overcommit)
	return int64(max(0, min(promised, real)))
}

// reserve takes `bytes` out of the room until the returned function is called. What the call has made is counted by
// its record then.
func (p *Pool) reserve(bytes int64) (func(), error) {
	p.mutex.Lock()
	defer p.mutex.Unlock()
	room, err := p.room()
	if err != nil {
		return nil, err
	}
	if bytes > room.Free {
		return nil, fault.New(fault.NoRoom, "the pool of this node has no room: %s asked for, %s free, %s of %s promised",
			human(bytes), human(room.Free), human(room.Reserved), human(room.Size))
	}
	p.pending += bytes
	return func() { p.pending -= bytes }, nil
}

// allowance refuses a snapshot of `bytes` if all of the disk's snapshots would hold more than they may.
func (p *Pool) allowance(disk Disk, bytes int64) error {
	p.mutex.Lock()
	defer p.mutex.Unlock()
	held := int64(0)
	for _, snapshot := range p.snapshots {
		if snapshot.Disk == disk.ID {
			held += snapshot.Bytes
		}
	}
	allowed := int64(float64(disk.Size) * p.limits.AllowancePercent / 100)
	if held+bytes > allowed {
		return fault.New(fault.NoRoom,
			"the snapshots of disk %s may hold %s together: they hold %s, this one would add %s; delete an older one first",
			disk.ID, human(allowed), human(held), human(bytes))
	}
	return nil
}
