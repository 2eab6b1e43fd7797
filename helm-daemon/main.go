// Helm-daemon does what `helm upgrade --install` and `helm uninstall` do, for many calls in one process. README.md says
// why, and what it promises.
package main

import (
	"fmt"
	"io"
	"log"
	"log/slog"
	"os"

	_ "k8s.io/client-go/plugin/pkg/client/auth"
	"k8s.io/klog/v2"

	"helm.sh/helm/v4/pkg/cli"
	"helm.sh/helm/v4/pkg/kube"
)

func main() {
	// As in Helm's own main: the field manager's name, whatever this program is called.
	kube.ManagedFieldsManager = "helm"
	// Helm and its libraries log parts of values. What a call has to say goes into its answer.
	slog.SetDefault(slog.New(slog.DiscardHandler))
	log.SetOutput(io.Discard)
	klog.LogToStderr(false)
	klog.SetOutput(io.Discard)

	settings := cli.New()
	cluster, err := connect(settings.RESTClientGetter())
	if err != nil {
		fmt.Fprintln(os.Stderr, "helm-daemon:", err)
		os.Exit(1)
	}
	if err := serve(os.Stdin, os.Stdout, newHelm(cluster)); err != nil {
		fmt.Fprintln(os.Stderr, "helm-daemon:", err)
		os.Exit(1)
	}
}
