//go:build integration

// Package integration drives the compiled driver on a pool of its own: an XFS in a sparse file in memory, in the mount
// and PID namespace that tests/driver gives each test. When a test ends, however it ends, nothing of it is left.
package integration

import (
	"cmp"
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/container-storage-interface/spec/lib/go/csi"
	"golang.org/x/sys/unix"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/status"
)

const (
	mib = int64(1) << 20
	gib = int64(1) << 30
	// small is the size of the smallest disk.
	small = 300 * mib
)

// rig is a node with a pool and a driver.
type rig struct {
	*testing.T
	folder, pool string
	flags        []string
	driver       *exec.Cmd
	ended        chan error
	log          *os.File
	connection   *grpc.ClientConn
	csi.ControllerClient
	node csi.NodeClient
}

// number is a number in the environment, or the usual one.
func number(variable string, usual int) int {
	if number, err := strconv.Atoi(os.Getenv(variable)); err == nil {
		return number
	}
	return usual
}

// newRig makes a pool of so many bytes and starts a driver for it.
func newRig(t *testing.T, size int64, flags ...string) *rig {
	// Short, because a socket's path is 107 bytes at most.
	folder, err := os.MkdirTemp("/tmp", "disks-")
	r := &rig{T: t, folder: folder, flags: flags}
	r.must(err)
	// In memory: quick, and gone with the namespace.
	r.run("mount", "-t", "tmpfs", "-o", "size=4G,mode=755", "none", r.folder)
	r.pool = filepath.Join(r.folder, "pool")
	image := filepath.Join(r.folder, "pool.img")
	r.must(os.WriteFile(image, nil, 0o600))
	r.must(os.Truncate(image, size))
	r.run("mkfs."+cmp.Or(os.Getenv("POOL"), "xfs"), "-q", image)
	for _, name := range []string{"pool", "pods"} {
		r.must(os.Mkdir(filepath.Join(r.folder, name), 0o755))
	}
	r.run("mount", "-o", "loop", image, r.pool)
	r.run("mount", "--make-shared", r.pool)
	r.run("mount", "-t", "tmpfs", "none", filepath.Join(r.folder, "pods"))
	r.run("mount", "--make-shared", filepath.Join(r.folder, "pods"))
	r.log, err = os.Create(filepath.Join(r.folder, "log"))
	r.must(err)
	t.Cleanup(func() {
		if r.driver != nil {
			r.kill()
		}
		if t.Failed() {
			t.Log(r.logged())
		}
		_ = exec.Command("umount", "-R", "-l", r.folder).Run()
		_ = os.Remove(r.folder)
	})
	r.start()
	return r
}

func (r *rig) command() *exec.Cmd {
	arguments := []string{"--node", "node-1", "--pool", r.pool, "--endpoint", "unix://" + r.path("csi.sock"),
		"--registration", r.path("registration.sock"), "--kubelet-socket", "/var/lib/kubelet/plugins/csi.sock",
		"--http", "127.0.0.1:0"}
	command := exec.Command(os.Getenv("DISK_DRIVER"), append(arguments, r.flags...)...)
	command.Stdout, command.Stderr = r.log, r.log
	return command
}

// start starts the driver and waits until it serves and has mounted all disks.
func (r *rig) start() {
	r.Helper()
	before := strings.Count(r.logged(), "the disks are mounted")
	r.driver = r.command()
	r.must(r.driver.Start())
	r.ended = make(chan error, 1)
	go func(driver *exec.Cmd, ended chan<- error) { ended <- driver.Wait() }(r.driver, r.ended)
	r.eventually("the driver mounts its disks", func() bool {
		select {
		case err := <-r.ended:
			r.driver = nil
			r.Fatalf("the driver ended: %v", err)
		default:
		}
		return strings.Count(r.logged(), "the disks are mounted") > before && exists(r.path("registration.sock"))
	})
	if r.connection != nil {
		r.connection.Close()
	}
	var err error
	r.connection, err = grpc.NewClient("unix://"+r.path("csi.sock"),
		grpc.WithTransportCredentials(insecure.NewCredentials()))
	r.must(err)
	r.ControllerClient, r.node = csi.NewControllerClient(r.connection), csi.NewNodeClient(r.connection)
	// The log and the sockets of the driver before may look as if this one served already.
	probe, cancel := context.WithTimeout(context.Background(), 60*time.Second)
	defer cancel()
	_, err = csi.NewIdentityClient(r.connection).Probe(probe, &csi.ProbeRequest{}, grpc.WaitForReady(true))
	r.must(err)
}

// kill ends the driver as a power cut would.
func (r *rig) kill() {
	_ = r.driver.Process.Signal(syscall.SIGKILL)
	<-r.ended
	r.driver = nil
}

func (r *rig) path(name string) string { return filepath.Join(r.folder, name) }

func (r *rig) mount(id string) string { return filepath.Join(r.pool, "mounts", id) }

func (r *rig) pod(id string) string { return filepath.Join(r.folder, "pods", id) }

func (r *rig) logged() string {
	text, _ := os.ReadFile(r.path("log"))
	return string(text)
}

func (r *rig) must(err error) {
	r.Helper()
	if err != nil {
		r.Fatal(err)
	}
}

func (r *rig) run(name string, arguments ...string) string {
	r.Helper()
	output, err := exec.Command(name, arguments...).CombinedOutput()
	if err != nil {
		r.Fatalf("%s %q: %v: %s", name, arguments, err, output)
	}
	return string(output)
}

func (r *rig) eventually(what string, done func() bool) {
	r.Helper()
	for deadline := time.Now().Add(60 * time.Second); !done(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(deadline) {
			r.Fatalf("not within a minute: %s", what)
		}
	}
}

// refused expects a code, and a part of the message if it is not empty.
func (r *rig) refused(err error, code codes.Code, message string) {
	r.Helper()
	if status.Code(err) != code || !strings.Contains(fmt.Sprint(err), message) {
		r.Fatalf("got %v, not %v with %q", err, code, message)
	}
}

func writer() *csi.VolumeCapability {
	return &csi.VolumeCapability{
		AccessType: &csi.VolumeCapability_Mount{Mount: &csi.VolumeCapability_MountVolume{}},
		AccessMode: &csi.VolumeCapability_AccessMode{Mode: csi.VolumeCapability_AccessMode_SINGLE_NODE_WRITER},
	}
}

func fromSnapshot(id string) *csi.VolumeContentSource {
	return &csi.VolumeContentSource{Type: &csi.VolumeContentSource_Snapshot{
		Snapshot: &csi.VolumeContentSource_SnapshotSource{SnapshotId: id},
	}}
}

func fromDisk(id string) *csi.VolumeContentSource {
	return &csi.VolumeContentSource{Type: &csi.VolumeContentSource_Volume{
		Volume: &csi.VolumeContentSource_VolumeSource{VolumeId: id},
	}}
}

func (r *rig) create(id string, size int64, from *csi.VolumeContentSource) error {
	_, err := r.CreateVolume(context.Background(), &csi.CreateVolumeRequest{
		Name: id, CapacityRange: &csi.CapacityRange{RequiredBytes: size}, VolumeContentSource: from,
		VolumeCapabilities: []*csi.VolumeCapability{writer()},
	})
	return err
}

func (r *rig) remove(id string) error {
	_, err := r.DeleteVolume(context.Background(), &csi.DeleteVolumeRequest{VolumeId: id})
	return err
}

func (r *rig) snapshot(id, disk string) error {
	_, err := r.CreateSnapshot(context.Background(), &csi.CreateSnapshotRequest{Name: id, SourceVolumeId: disk})
	return err
}

func (r *rig) removeSnapshot(id string) error {
	_, err := r.DeleteSnapshot(context.Background(), &csi.DeleteSnapshotRequest{SnapshotId: id})
	return err
}

func (r *rig) publish(id string) error {
	_, err := r.node.NodePublishVolume(context.Background(), &csi.NodePublishVolumeRequest{
		VolumeId: id, TargetPath: r.pod(id), VolumeCapability: writer(),
	})
	return err
}

func (r *rig) unpublish(id string) error {
	_, err := r.node.NodeUnpublishVolume(context.Background(), &csi.NodeUnpublishVolumeRequest{
		VolumeId: id, TargetPath: r.pod(id),
	})
	return err
}

func (r *rig) grow(id string, size int64) error {
	_, err := r.node.NodeExpandVolume(context.Background(), &csi.NodeExpandVolumeRequest{
		VolumeId: id, VolumePath: r.pod(id), CapacityRange: &csi.CapacityRange{RequiredBytes: size},
	})
	return err
}

// free is what can still be promised, in bytes.
func (r *rig) free() int64 {
	r.Helper()
	response, err := r.GetCapacity(context.Background(), &csi.GetCapacityRequest{})
	r.must(err)
	return response.AvailableCapacity
}

// used is how many bytes of the pool are used.
func (r *rig) used() int64 {
	var stat unix.Statfs_t
	r.must(unix.Statfs(r.pool, &stat))
	return int64(stat.Blocks-stat.Bfree) * stat.Bsize
}

// size is how large a mounted file system is, in bytes.
func (r *rig) size(point string) int64 {
	var stat unix.Statfs_t
	r.must(unix.Statfs(point, &stat))
	return int64(stat.Blocks) * stat.Bsize
}

// loops is how many loop devices have a file of this pool.
func (r *rig) loops() int {
	files, err := filepath.Glob("/sys/block/loop*/loop/backing_file")
	r.must(err)
	count := 0
	for _, file := range files {
		text, _ := os.ReadFile(file)
		if strings.HasPrefix(string(text), r.pool+"/") {
			count++
		}
	}
	return count
}

// mounted are the lines of the table of mounts about this rig, without those of other tests.
func (r *rig) mounted() []string {
	text, err := os.ReadFile("/proc/self/mountinfo")
	r.must(err)
	var lines []string
	for line := range strings.Lines(string(text)) {
		if strings.Contains(line, r.folder) {
			lines = append(lines, line)
		}
	}
	return lines
}

func exists(path string) bool {
	_, err := os.Lstat(path)
	return err == nil
}

// rests are what is unfinished in the pool.
func (r *rig) rests() []string {
	var found []string
	for _, pattern := range []string{".new-*", ".gone-*"} {
		names, err := filepath.Glob(filepath.Join(r.pool, pattern))
		r.must(err)
		found = append(found, names...)
	}
	return found
}

// write writes a file and brings it to the disk.
func (r *rig) write(path, text string) {
	r.Helper()
	file, err := os.Create(path)
	r.must(err)
	_, err = file.WriteString(text)
	r.must(err)
	r.must(file.Sync())
	r.must(file.Close())
}

func (r *rig) read(path string) string {
	r.Helper()
	text, err := os.ReadFile(path)
	r.must(err)
	return string(text)
}
