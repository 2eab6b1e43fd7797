package pool

import (
	"os"
	"path/filepath"
	"time"

	"golang.org/x/sys/unix"
)

// CreateDisk makes a disk.
//
// Source is the file whose blocks the disk begins with, "" for an empty one. `fill`, if not nil, gets the disk's file in
// its full size and puts a file system in it; the disk gets its name when that is done.
func (p *Pool) CreateDisk(disk Disk, source string, fill func(image string) error) error {
	release, err := p.reserve(disk.Size)
	if err != nil {
		return err
	}
	disk.Created = time.Now().UTC().Truncate(time.Second)
	err = p.make("disks", disk.ID, func(folder string) error {
		image := filepath.Join(folder, diskImage)
		if err := copyOrMake(source, image); err != nil {
			return err
		}
		if err := Extend(image, disk.Size); err != nil {
			return err
		}
		if fill != nil {
			if err := fill(image); err != nil {
				return err
			}
		}
		if err := syncPath(image); err != nil {
			return err
		}
		return write(folder, diskRecord, disk)
	})
	p.mutex.Lock()
	defer p.mutex.Unlock()
	release()
	if err == nil {
		p.disks[disk.ID] = disk
	}
	return err
}

// GrowDisk writes down a disk's new size, in bytes, and makes its file that long. A smaller size changes nothing.
func (p *Pool) GrowDisk(id string, size int64) error {
	disk, err := p.Existing(id)
	if err != nil {
		return err
	}
	if size > disk.Size {
		release, err := p.reserve(size - disk.Size)
		if err != nil {
			return err
		}
		disk.Size = size
		err = write(p.folder("disks", id), diskRecord, disk)
		p.mutex.Lock()
		release()
		if err == nil {
			p.disks[id] = disk
		}
		p.mutex.Unlock()
		if err != nil {
			return err
		}
	}
	// Also where the record was written and the driver then killed.
	return Extend(p.Image(id), disk.Size)
}

// RetireDisk takes a disk's name away: from now on it does not exist, and SweepDisk frees its blocks.
func (p *Pool) RetireDisk(id string) error {
	return p.retire("disks", id, func() { delete(p.disks, id) })
}

// SweepDisk frees the blocks of a disk that was retired, even if a file system in it is still mounted somewhere.
func (p *Pool) SweepDisk(id string) error { return p.sweep("disks", id) }

// Extend makes a file at least so many bytes long; the new part is a hole.
func Extend(image string, size int64) error {
	stat, err := os.Stat(image)
	if err != nil || stat.Size() >= size {
		return err
	}
	if err := os.Truncate(image, size); err != nil {
		return err
	}
	return syncPath(image)
}

// Allocated is how many bytes of the pool a file has, shared ones too.
func Allocated(image string) (int64, error) {
	var stat unix.Stat_t
	if err := unix.Stat(image, &stat); err != nil {
		return 0, &os.PathError{Op: "stat", Path: image, Err: err}
	}
	return stat.Blocks * 512, nil
}

func copyOrMake(source, image string) error {
	if source != "" {
		return CloneFile(source, image)
	}
	file, err := os.OpenFile(image, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return err
	}
	return file.Close()
}

func (p *Pool) lostDisk(id string) (Disk, error) {
	stat, err := os.Lstat(p.Image(id))
	if err != nil {
		return Disk{}, err
	}
	return Disk{ID: id, Size: stat.Size(), Created: stat.ModTime().UTC()}, nil
}
