package mounts

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

const (
	loopMajor = 7
	// Another process may take the free device that the kernel named; so many times in a row it will not.
	tries = 50
	// The file systems have blocks of this size, and it suits direct I/O on every pool.
	blockSize = 4096
)

// Attach gives a file a loop device that frees itself after its last use. Close it once it is mounted.
func Attach(image string) (*os.File, error) {
	file, err := os.OpenFile(image, os.O_RDWR|unix.O_NOFOLLOW, 0)
	if err != nil {
		return nil, err
	}
	defer file.Close()
	control, err := os.OpenFile("/dev/loop-control", os.O_RDWR, 0)
	if err != nil {
		return nil, err
	}
	defer control.Close()
	for range tries {
		var number int
		if number, err = unix.IoctlRetInt(int(control.Fd()), unix.LOOP_CTL_GET_FREE); err != nil {
			return nil, fmt.Errorf("no free loop device: %w", err)
		}
		var device *os.File
		if device, err = open(number); err != nil {
			return nil, err
		}
		config := unix.LoopConfig{Fd: uint32(file.Fd()), Size: blockSize}
		config.Info.Flags = unix.LO_FLAGS_AUTOCLEAR | unix.LO_FLAGS_DIRECT_IO
		copy(config.Info.File_name[:len(config.Info.File_name)-1], image)
		if err = unix.IoctlLoopConfigure(int(device.Fd()), &config); err == nil {
			return device, nil
		}
		device.Close()
		if !errors.Is(err, unix.EBUSY) {
			break
		}
	}
	return nil, fmt.Errorf("%s gets no loop device: %w", image, err)
}

// Attached opens the loop device that has the file already, in whichever mount namespace it is mounted; nil if none.
// A file with two devices, or checked while it has one, would lose its file system.
func Attached(image string) (*os.File, error) {
	var stat unix.Stat_t
	if err := unix.Lstat(image, &stat); err != nil {
		return nil, &os.PathError{Op: "lstat", Path: image, Err: err}
	}
	used, err := filepath.Glob("/sys/block/loop*/loop/backing_file")
	if err != nil {
		return nil, err
	}
	for _, file := range used {
		var number int
		if _, err := fmt.Sscanf(strings.TrimPrefix(file, "/sys/block/loop"), "%d/", &number); err != nil {
			continue
		}
		device, err := open(number)
		if err != nil {
			return nil, err
		}
		info, err := unix.IoctlLoopGetStatus64(int(device.Fd()))
		if err == nil && info.Device == stat.Dev && info.Inode == stat.Ino {
			return device, nil
		}
		device.Close()
		if err != nil && !errors.Is(err, unix.ENXIO) {
			return nil, fmt.Errorf("loop device %d tells nothing of its file: %w", number, err)
		}
	}
	return nil, nil
}

// Open opens the loop device with this number.
func Open(device uint64) (*os.File, error) {
	if unix.Major(device) != loopMajor {
		return nil, fmt.Errorf("device %d:%d is no loop device", unix.Major(device), unix.Minor(device))
	}
	return open(int(unix.Minor(device)))
}

// Number is the device's number.
func Number(device *os.File) (uint64, error) {
	var stat unix.Stat_t
	if err := unix.Fstat(int(device.Fd()), &stat); err != nil {
		return 0, err
	}
	return stat.Rdev, nil
}

// Refresh tells the device that its file has grown.
func Refresh(device *os.File) error {
	return unix.IoctlSetInt(int(device.Fd()), unix.LOOP_SET_CAPACITY, 0)
}

// Freed waits until no loop device has the file any more; whether that was so within the time.
func Freed(image string, within time.Duration) (bool, error) {
	for deadline := time.Now().Add(within); ; time.Sleep(5 * time.Millisecond) {
		device, err := Attached(image)
		if err != nil || device == nil {
			return err == nil, err
		}
		device.Close()
		if time.Now().After(deadline) {
			return false, nil
		}
	}
}

// open opens /dev/loopN. A container's /dev has only the devices that were there when it started: one that came later
// is added.
func open(number int) (*os.File, error) {
	path := fmt.Sprintf("/dev/loop%d", number)
	device, err := os.OpenFile(path, os.O_RDWR|unix.O_NOFOLLOW, 0)
	if errors.Is(err, os.ErrNotExist) {
		made := unix.Mknod(path, unix.S_IFBLK|0o600, int(unix.Mkdev(loopMajor, uint32(number))))
		if made != nil && !errors.Is(made, unix.EEXIST) {
			return nil, &os.PathError{Op: "mknod", Path: path, Err: made}
		}
		device, err = os.OpenFile(path, os.O_RDWR|unix.O_NOFOLLOW, 0)
	}
	return device, err
}
