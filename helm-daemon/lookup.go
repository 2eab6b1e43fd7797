package main

import (
	"context"
	"fmt"
	"net/http"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/client-go/dynamic"
)

// lookup is the templates' function of that name. Helm's own asks Kubernetes for all kinds of the object's group first,
// each time.
type lookup struct {
	cluster *cluster
	gate    http.RoundTripper
}

func newLookup(cluster *cluster, gate http.RoundTripper) *lookup { return &lookup{cluster, gate} }

// object is the object of that name, or a list of all if the name is empty; empty if there is none.
func (l *lookup) object(version, kind, namespace, name string) (map[string]any, error) {
	none := map[string]any{}
	gvk := schema.FromAPIVersionAndKind(version, kind)
	mapping, err := l.cluster.mapper.RESTMapping(gvk.GroupKind(), gvk.Version)
	if err != nil {
		return none, fmt.Errorf("unable to get apiresource from unstructured: %s: %w", gvk, err)
	}
	clients, err := dynamic.NewForConfig(l.cluster.restConfig(l.gate))
	if err != nil {
		return none, err
	}
	var client dynamic.ResourceInterface = clients.Resource(mapping.Resource)
	if mapping.Scope.Name() == meta.RESTScopeNameNamespace && namespace != "" {
		client = clients.Resource(mapping.Resource).Namespace(namespace)
	}
	var found interface{ UnstructuredContent() map[string]any }
	if name != "" {
		found, err = client.Get(context.Background(), name, metav1.GetOptions{})
	} else {
		found, err = client.List(context.Background(), metav1.ListOptions{})
	}
	if apierrors.IsNotFound(err) {
		return none, nil
	}
	if err != nil {
		return none, err
	}
	return found.UnstructuredContent(), nil
}
