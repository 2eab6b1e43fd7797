package xfs

import (
	"errors"
	"os"
	"unsafe"

	"golang.org/x/sys/unix"
)

// From the kernel's fs/xfs/libxfs/xfs_fs.h.
const (
	geometryIoctl = 0x80705864 // XFS_IOC_FSGEOMETRY_V1, _IOR('X', 100, struct xfs_fsop_geom_v1)
	growIoctl     = 0x4010586e // XFS_IOC_FSGROWFSDATA, _IOW('X', 110, struct xfs_growfs_data)
	shutdownIoctl = 0x8004587d // XFS_IOC_GOINGDOWN, _IOR('X', 125, __u32)
	// Nothing of what is in memory is written any more, not even the journal.
	withoutJournal = 2
)

// geometry is struct xfs_fsop_geom_v1, as far as it is read.
type geometry struct {
	_                 [7]uint32
	maximumInodeShare uint32
	blocks            uint64
	_                 [72]byte
}

// growth is struct xfs_growfs_data.
type growth struct {
	blocks            uint64
	maximumInodeShare uint32
	_                 uint32
}

// Folder is the root folder of a mounted file system. What it does, it does to that file system, whatever is in it.
type Folder struct{ file *os.File }

// Open opens the root folder; it must not be a link.
func Open(point string) (Folder, error) {
	file, err := os.OpenFile(point, os.O_RDONLY|unix.O_DIRECTORY|unix.O_NOFOLLOW, 0)
	return Folder{file}, err
}

// IsDown says whether an error of Open means that the file system has shut itself down after an error.
func IsDown(err error) bool { return errors.Is(err, unix.EIO) }

// Close closes it.
func (f Folder) Close() error { return f.file.Close() }

// Device is the number of the file system's device.
func (f Folder) Device() (uint64, error) {
	var stat unix.Stat_t
	err := unix.Fstat(int(f.file.Fd()), &stat)
	return stat.Dev, f.wrapped("fstat", err)
}

// Sync brings all that was written before to the disk's file.
func (f Folder) Sync() error { return f.wrapped("syncfs", unix.Syncfs(int(f.file.Fd()))) }

// Grow makes the file system so many bytes large, while it is in use. The device has to have them already; a file
// system that is that large stays as it is.
//
// xfs_growfs(8) does the same, but finds the file system by names of devices that a container may not have.
func (f Folder) Grow(size int64) error {
	var now geometry
	if err := f.ioctl("XFS_IOC_FSGEOMETRY", geometryIoctl, unsafe.Pointer(&now)); err != nil {
		return err
	}
	blocks := uint64(size / BlockSize)
	if blocks <= now.blocks {
		return nil
	}
	wanted := growth{blocks: blocks, maximumInodeShare: now.maximumInodeShare}
	return f.ioctl("XFS_IOC_FSGROWFSDATA", growIoctl, unsafe.Pointer(&wanted))
}

// Shutdown makes each further read and write of the file system fail, and keeps all that is in memory away from the
// device. It is for a disk that is being removed.
func (f Folder) Shutdown() error {
	how := uint32(withoutJournal)
	return f.ioctl("XFS_IOC_GOINGDOWN", shutdownIoctl, unsafe.Pointer(&how))
}

// Usage is the file system's use, as statfs(2) tells it.
func (f Folder) Usage() (unix.Statfs_t, error) {
	var stat unix.Statfs_t
	err := unix.Fstatfs(int(f.file.Fd()), &stat)
	return stat, f.wrapped("statfs", err)
}

func (f Folder) ioctl(name string, request uint, argument unsafe.Pointer) error {
	_, _, errno := unix.Syscall(unix.SYS_IOCTL, f.file.Fd(), uintptr(request), uintptr(argument))
	if errno != 0 {
		return f.wrapped(name, errno)
	}
	return nil
}

func (f Folder) wrapped(verb string, err error) error {
	if err == nil {
		return nil
	}
	return &os.PathError{Op: verb, Path: f.file.Name(), Err: err}
}
