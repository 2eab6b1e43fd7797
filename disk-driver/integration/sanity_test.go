//go:build integration

package integration

import (
	"os"
	"os/exec"
	"strconv"
	"testing"
)

// csi-sanity finds nothing that differs from the CSI specification.
func TestSpecification(t *testing.T) {
	r := newRig(t, 40*gib)
	command := exec.Command(os.Getenv("CSI_SANITY"), "-csi.endpoint", "unix://"+r.path("csi.sock"),
		"-csi.mountdir", r.path("pods/target"), "-csi.stagingdir", r.path("pods/staging"),
		"-csi.testvolumesize", strconv.FormatInt(small, 10), "-csi.testvolumeexpandsize", strconv.FormatInt(2*small, 10),
		"--ginkgo.no-color")
	output, err := command.CombinedOutput()
	t.Logf("%s", output)
	r.must(err)
}
