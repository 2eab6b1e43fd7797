package mounts

import (
	"errors"
	"io/fs"
	"os"

	"golang.org/x/sys/unix"
)

// immutableFlag is FS_IMMUTABLE_FL of the kernel's include/uapi/linux/fs.h.
const immutableFlag = 0x10

// XFS mounts the file system of a device, after replaying its journal. Programs on it get no rights from its files'
// modes, and devices on it do not work. What is deleted on it is given back to the pool (discard). Copies of a disk have
// its UUID too, and it would be refused a second time (nouuid).
func XFS(device, point string) error {
	err := unix.Mount(device, point, "xfs", unix.MS_NOSUID|unix.MS_NODEV, "discard,nouuid")
	return wrapped("mount", point, err)
}

// Bind mounts a folder at another place too.
func Bind(folder, point string) error {
	return wrapped("bind mount", point, unix.Mount(folder, point, "", unix.MS_BIND, ""))
}

// ReadOnly makes a mount by Bind read-only. The kernel ignores that flag while it makes one. Twice is the same as once.
func ReadOnly(point string) error {
	const flags = unix.MS_BIND | unix.MS_REMOUNT | unix.MS_RDONLY | unix.MS_NOSUID | unix.MS_NODEV
	return wrapped("read-only mount", point, unix.Mount("", point, "", flags, ""))
}

// Unmount undoes a mount; EBUSY if something here is at work in it.
func Unmount(point string) error {
	return wrapped("umount", point, unix.Unmount(point, unix.UMOUNT_NOFOLLOW))
}

// Detach undoes all mounts at a path, at work or not: who has a file open keeps it until it is closed.
func Detach(point string) error {
	for {
		err := unix.Unmount(point, unix.MNT_DETACH|unix.UMOUNT_NOFOLLOW)
		if errors.Is(err, unix.EINVAL) || errors.Is(err, unix.ENOENT) {
			return nil
		}
		if err != nil {
			return wrapped("umount", point, err)
		}
	}
}

// MakePoint makes an empty folder to mount on, in which nobody can put anything while nothing is mounted there: a file
// that is uploaded then would be hidden by the mount, and on no disk.
func MakePoint(point string) error {
	if err := os.Mkdir(point, 0o711); err != nil && !errors.Is(err, fs.ErrExist) {
		return err
	}
	return immutable(point, true)
}

// RemovePoint removes an empty folder on which nothing is mounted; one that is not there is removed already.
func RemovePoint(point string) error {
	if err := immutable(point, false); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	// Never more than an empty folder, whatever is mounted there by mistake.
	err := unix.Rmdir(point)
	if errors.Is(err, unix.ENOENT) {
		return nil
	}
	return wrapped("rmdir", point, err)
}

func immutable(point string, on bool) error {
	folder, err := os.OpenFile(point, os.O_RDONLY|unix.O_DIRECTORY|unix.O_NOFOLLOW, 0)
	if err != nil {
		return err
	}
	defer folder.Close()
	flags, err := unix.IoctlGetUint32(int(folder.Fd()), unix.FS_IOC_GETFLAGS)
	if err != nil {
		return wrapped("get flags", point, err)
	}
	if on {
		flags |= immutableFlag
	} else {
		flags &^= immutableFlag
	}
	return wrapped("set flags", point, unix.IoctlSetPointerInt(int(folder.Fd()), unix.FS_IOC_SETFLAGS, int(flags)))
}

func wrapped(verb, path string, err error) error {
	if err == nil {
		return nil
	}
	return &os.PathError{Op: verb, Path: path, Err: err}
}
