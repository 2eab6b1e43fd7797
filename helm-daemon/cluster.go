package main

import (
	"fmt"
	"net/http"
	"sync"
	"time"

	"k8s.io/apimachinery/pkg/api/meta"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/cli-runtime/pkg/genericclioptions"
	"k8s.io/client-go/discovery"
	"k8s.io/client-go/discovery/cached/memory"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/restmapper"
	"k8s.io/client-go/tools/clientcmd"

	"helm.sh/helm/v4/pkg/action"
	"helm.sh/helm/v4/pkg/chart/common"
)

const (
	// capabilitiesFor is how long Kubernetes' version and kinds are believed: a cluster is upgraded under the API.
	capabilitiesFor = 10 * time.Minute
	// lookAgainAfter is the shortest time between two discoveries for a kind that is unknown.
	lookAgainAfter = 5 * time.Second
)

// cluster is what all calls share: the connections, and what Kubernetes has said about itself.
type cluster struct {
	config    *rest.Config
	loader    clientcmd.ClientConfig
	transport http.RoundTripper
	host      string
	discovery discovery.CachedDiscoveryInterface
	mapper    *mapper

	mutex        sync.Mutex
	capabilities *common.Capabilities
	knownSince   time.Time
}

// connect reads the configuration as helm does, from KUBECONFIG or from the pod's service account, whose token client-go
// reads again before it expires. It sends no request yet.
func connect(getter genericclioptions.RESTClientGetter) (*cluster, error) {
	config, err := getter.ToRESTConfig()
	if err != nil {
		return nil, err
	}
	// Helm's limit of requests is for one command. The API has its own limits, and so has Kubernetes.
	config.QPS = -1
	transport, err := rest.TransportFor(config)
	if err != nil {
		return nil, err
	}
	url, _, err := rest.DefaultServerUrlFor(config)
	if err != nil {
		return nil, err
	}
	c := &cluster{config: config, loader: getter.ToRawKubeConfigLoader(), transport: transport, host: url.String()}
	client, err := discovery.NewDiscoveryClientForConfig(c.restConfig(transport))
	if err != nil {
		return nil, err
	}
	c.discovery = memory.NewMemCacheClient(client)
	c.mapper = &mapper{
		ResettableRESTMapper: restmapper.NewDeferredDiscoveryRESTMapper(c.discovery),
		clock:                time.Now,
	}
	return c, nil
}

// restConfig is the configuration of clients whose requests go through the given transport.
func (c *cluster) restConfig(transport http.RoundTripper) *rest.Config {
	return &rest.Config{
		Host:           c.host,
		Transport:      transport,
		UserAgent:      c.config.UserAgent,
		QPS:            -1,
		WarningHandler: rest.NoWarnings{},
	}
}

// known is what charts may ask about the cluster. What it asks Kubernetes is for all calls, so it does not go through
// the gate of the one that asks; but a call whose gate is closed, maybe while it waited for another to ask, asks nothing.
func (c *cluster) known(gate *gate) (*common.Capabilities, error) {
	c.mutex.Lock()
	defer c.mutex.Unlock()
	if err := gate.refusal(); err != nil {
		return nil, err
	}
	if c.capabilities != nil && time.Since(c.knownSince) < capabilitiesFor {
		return c.capabilities, nil
	}
	version, err := c.discovery.ServerVersion()
	if err != nil {
		return nil, fmt.Errorf("could not get server version from Kubernetes: %w", err)
	}
	c.mapper.Reset()
	kinds, err := action.GetVersionSet(c.discovery)
	if err != nil && !discovery.IsGroupDiscoveryFailedError(err) {
		return nil, fmt.Errorf("could not get apiVersions from Kubernetes: %w", err)
	}
	c.capabilities = &common.Capabilities{
		APIVersions: kinds,
		KubeVersion: common.KubeVersion{Version: version.GitVersion, Major: version.Major, Minor: version.Minor},
		HelmVersion: common.DefaultCapabilities.HelmVersion,
	}
	c.knownSince = time.Now()
	return c.capabilities, nil
}

// mapper finds the resource of a kind. For a kind that it does not know it asks Kubernetes again.
type mapper struct {
	meta.ResettableRESTMapper
	clock func() time.Time
	mutex sync.Mutex
	asked time.Time
}

// RESTMapping is the only method that Helm's way through an upgrade uses.
func (m *mapper) RESTMapping(kind schema.GroupKind, versions ...string) (*meta.RESTMapping, error) {
	mapping, err := m.ResettableRESTMapper.RESTMapping(kind, versions...)
	if meta.IsNoMatchError(err) && m.mayAsk() {
		m.Reset()
		mapping, err = m.ResettableRESTMapper.RESTMapping(kind, versions...)
	}
	return mapping, err
}

func (m *mapper) mayAsk() bool {
	m.mutex.Lock()
	defer m.mutex.Unlock()
	if m.clock().Sub(m.asked) < lookAgainAfter {
		return false
	}
	m.asked = m.clock()
	return true
}

// getter gives Helm's packages the clients of one call.
type getter struct {
	cluster   *cluster
	gate      http.RoundTripper
	namespace string
}

func (g *getter) ToRESTConfig() (*rest.Config, error) { return g.cluster.restConfig(g.gate), nil }

func (g *getter) ToDiscoveryClient() (discovery.CachedDiscoveryInterface, error) {
	return g.cluster.discovery, nil
}

func (g *getter) ToRESTMapper() (meta.RESTMapper, error) { return g.cluster.mapper, nil }

func (g *getter) ToRawKubeConfigLoader() clientcmd.ClientConfig {
	return &namespaced{g.cluster.loader, g.namespace}
}

type kubeconfig = clientcmd.ClientConfig

// namespaced is a configuration whose namespace is that of a call.
type namespaced struct {
	kubeconfig
	namespace string
}

func (n *namespaced) Namespace() (string, bool, error) { return n.namespace, true, nil }
