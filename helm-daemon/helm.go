package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"strings"
	"sync"
	"time"

	"k8s.io/client-go/kubernetes"

	"helm.sh/helm/v4/pkg/action"
	"helm.sh/helm/v4/pkg/chart/loader"
	chart "helm.sh/helm/v4/pkg/chart/v2"
	loaderv2 "helm.sh/helm/v4/pkg/chart/v2/loader"
	"helm.sh/helm/v4/pkg/kube"
	ri "helm.sh/helm/v4/pkg/release"
	"helm.sh/helm/v4/pkg/release/common"
	release "helm.sh/helm/v4/pkg/release/v1"
	"helm.sh/helm/v4/pkg/storage"
	"helm.sh/helm/v4/pkg/storage/driver"
)

// helm runs Helm's actions for calls, each with a configuration of its own.
type helm struct {
	cluster *cluster
	packer  *packer
	mutex   sync.Mutex
	charts  charts
}

func newHelm(cluster *cluster) *helm {
	return &helm{cluster: cluster, packer: newPacker(), charts: charts{}}
}

// charts are the charts that were asked for, by their folders. They are read once, as the API reads them once.
type charts map[string]*readChart

func (h *helm) newGate() *gate { return newGate(h.cluster.transport) }

// run does what the request asks for, and answers as helm would.
func (h *helm) run(asked request, gate *gate) answer {
	printed := &bytes.Buffer{}
	result, err := h.result(asked, gate, printed)
	if err != nil {
		fmt.Fprintf(printed, "Error: %s\n", err)
		return answer{ID: asked.ID, Code: 1, Stderr: printed.String()}
	}
	return answer{ID: asked.ID, Stdout: result}
}

func (h *helm) result(asked request, gate *gate, printed io.Writer) (string, error) {
	timeout, err := time.ParseDuration(asked.Timeout)
	if err != nil {
		return "", err
	}
	config, client, err := h.configuration(asked, gate, printed)
	if err != nil {
		return "", err
	}
	if asked.Do == "uninstall" {
		client.built.Do(func() {}) // An uninstall reads none of its objects.
		return "", uninstall(config, asked.Release, timeout)
	}
	if config.Capabilities, err = h.cluster.known(gate); err != nil {
		return "", err
	}
	requested, err := h.chart(asked.Chart)
	if err != nil {
		return "", err
	}
	values, err := loaderv2.LoadValues(strings.NewReader(asked.Values))
	if err != nil {
		return "", fmt.Errorf("failed to parse -: %w", err)
	}
	values = loaderv2.MergeMaps(map[string]any{}, values)
	rel, err := upgrade(config, asked, requested, values, timeout)
	if err != nil {
		return "", err
	}
	return summary(rel)
}

func (h *helm) configuration(asked request, gate *gate, printed io.Writer) (*action.Configuration, *client, error) {
	transport := newReads(gate)
	getter := &getter{h.cluster, transport, asked.Namespace}
	logs := warnings(printed)
	client := &client{Client: kube.New(getter)}
	client.SetLogger(logs)
	config := action.NewConfiguration(action.ConfigurationSetLogger(logs))
	clients, err := kubernetes.NewForConfig(h.cluster.restConfig(transport))
	if err != nil {
		return nil, nil, err
	}
	config.RESTClientGetter = getter
	config.KubeClient = client
	stored := newRecords(clients.CoreV1().Secrets(asked.Namespace), h.packer)
	if asked.Do == "upgrade" {
		stored.before = func(newest *release.Release) error { return client.tried(newest, asked.ForceConflicts) }
	}
	config.Releases = storage.Init(stored)
	config.HookOutputFunc = func(_, _, _ string) io.Writer { return io.Discard }
	config.CustomTemplateFuncs = map[string]any{"lookup": newLookup(h.cluster, transport).object}
	return config, client, nil
}

// chart is the chart in a folder. It must have no dependencies: with some, Helm changes the chart while it renders it.
func (h *helm) chart(folder string) (*readChart, error) {
	h.mutex.Lock()
	defer h.mutex.Unlock()
	if known, found := h.charts[folder]; found {
		return known, nil
	}
	read, err := loader.LoadDir(folder)
	if err != nil {
		return nil, err
	}
	loaded, ok := read.(*chart.Chart)
	if !ok || len(loaded.Metadata.Dependencies) > 0 || len(loaded.Dependencies()) > 0 {
		return nil, errors.New("helm-daemon takes charts of version 2 without dependencies only")
	}
	h.charts[folder] = newReadChart(loaded)
	return h.charts[folder], nil
}

// upgrade is `helm upgrade --install --reset-values --disable-openapi-validation`, in the order of helm's own command.
func upgrade(config *action.Configuration, asked request, requested *readChart, values map[string]any,
	timeout time.Duration,
) (ri.Releaser, error) {
	revisions, err := action.NewHistory(config).Run(asked.Release)
	uninstalled := err == nil && isUninstalled(revisions)
	if errors.Is(err, driver.ErrReleaseNotFound) || uninstalled {
		install := action.NewInstall(config)
		install.ReleaseName = asked.Release
		install.Namespace = asked.Namespace
		install.Timeout = timeout
		install.WaitStrategy = kube.HookOnlyStrategy
		install.DisableOpenAPIValidation = true
		install.SkipSchemaValidation = requested.accepts(values)
		install.Replace = uninstalled
		return install.Run(requested.Chart, values)
	}
	if err != nil {
		return nil, err
	}
	upgrade := action.NewUpgrade(config)
	upgrade.Install = true
	upgrade.Namespace = asked.Namespace
	upgrade.Timeout = timeout
	upgrade.WaitStrategy = kube.HookOnlyStrategy
	upgrade.ResetValues = true
	upgrade.DisableOpenAPIValidation = true
	upgrade.SkipSchemaValidation = requested.accepts(values)
	upgrade.MaxHistory = asked.HistoryMax
	upgrade.ForceConflicts = asked.ForceConflicts
	rel, err := upgrade.Run(asked.Release, requested.Chart, values)
	if err != nil {
		return nil, fmt.Errorf("UPGRADE FAILED: %w", err)
	}
	return rel, nil
}

// uninstall is `helm uninstall`.
func uninstall(config *action.Configuration, name string, timeout time.Duration) error {
	uninstall := action.NewUninstall(config)
	uninstall.DeletionPropagation = "background"
	uninstall.Timeout = timeout
	uninstall.WaitStrategy = kube.HookOnlyStrategy
	_, err := uninstall.Run(name)
	return err
}

func isUninstalled(revisions []ri.Releaser) bool {
	if len(revisions) == 0 {
		return false
	}
	last, ok := revisions[len(revisions)-1].(*release.Release)
	return ok && last.Info.Status == common.StatusUninstalled
}

// summary is of `--output json` what has no values in it.
func summary(done ri.Releaser) (string, error) {
	rel, ok := done.(*release.Release)
	if !ok {
		return "", errors.New("the release has an unknown version")
	}
	text, err := json.Marshal(map[string]any{
		"name":      rel.Name,
		"namespace": rel.Namespace,
		"version":   rel.Version,
		"info":      map[string]any{"status": rel.Info.Status, "last_deployed": rel.Info.LastDeployed},
		"manifest":  "",
	})
	return string(text), err
}

// key is the name of a revision's Secret.
func key(rel *release.Release) string {
	return fmt.Sprintf("%s.%s.v%d", storage.HelmStorageType, rel.Name, rel.Version)
}

// client is Helm's client. It does not ask before each action whether Kubernetes can be reached: the action itself finds
// out. And of the objects that the chart has rendered, it reads all at once.
type client struct {
	*kube.Client
	built sync.Once
	// last are the objects that were built last: those of the new revision, when an upgrade is about to write.
	last kube.ResourceList
}

func (c *client) IsReachable() error { return nil }

// Build makes objects of manifests. The first that Helm builds in an install or an upgrade are the new ones.
func (c *client) Build(manifests io.Reader, validate bool) (kube.ResourceList, error) {
	resources, err := c.Client.Build(manifests, validate)
	if err == nil {
		c.built.Do(func() { ahead(resources) })
		c.last = resources
	}
	return resources, err
}

// warnings are what helm prints of its log without `--debug`.
func warnings(printed io.Writer) slog.Handler {
	return slog.NewTextHandler(printed, &slog.HandlerOptions{
		Level: slog.LevelInfo,
		ReplaceAttr: func(_ []string, attribute slog.Attr) slog.Attr {
			if attribute.Key == slog.TimeKey {
				return slog.Attr{}
			}
			return attribute
		},
	})
}
