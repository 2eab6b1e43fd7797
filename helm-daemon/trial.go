package main

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/cli-runtime/pkg/resource"

	"helm.sh/helm/v4/pkg/kube"
	"helm.sh/helm/v4/pkg/release/common"
	release "helm.sh/helm/v4/pkg/release/v1"
)

// tried asks Kubernetes whether it would take all objects of a new revision, before an upgrade writes the first of them:
// after one that is refused, Helm goes on with the others. service/helm/trial.py does the same for a process of helm.
// An upgrade applies in the way of the newest revision. A release that was uninstalled is installed.
func (c *client) tried(newest *release.Release, force bool) error {
	if newest.Info.Status == common.StatusUninstalled || newest.ApplyMethod != string(release.ApplyMethodServerSideApply) {
		return nil
	}
	started := starts(c.last)
	found := make([]error, len(c.last))
	var all sync.WaitGroup
	for i, object := range c.last {
		all.Go(func() { found[i] = try(object, force, started) })
	}
	all.Wait()
	var refusals []string
	for _, err := range found {
		if err != nil {
			refusals = append(refusals, err.Error())
		}
	}
	if len(refusals) == 0 {
		return nil
	}
	return errors.New(strings.Join(refusals, " && "))
}

// starts is whether a game is to run.
func starts(objects kube.ResourceList) bool {
	return slices.ContainsFunc(objects, func(object *resource.Info) bool {
		content, ok := object.Object.(*unstructured.Unstructured)
		if !ok || content.GetKind() != "StatefulSet" {
			return false
		}
		replicas, _, _ := unstructured.NestedFieldNoCopy(content.Object, "spec", "replicas")
		return fmt.Sprint(replicas) != "0"
	})
}

// try sends an object as Helm will, for Kubernetes to answer what would become of it. What is being deleted would be gone
// soon, whatever is written to it: no game starts without it. A claim has rules of its own, which the API knows.
func try(object *resource.Info, force, starts bool) error {
	sent, err := runtime.Encode(unstructured.UnstructuredJSONScheme, object.Object)
	if err != nil {
		return err
	}
	helper := resource.NewHelper(object.Client, object.Mapping).
		DryRun(true).
		WithFieldManager(kube.ManagedFieldsManager).
		WithFieldValidation(string(kube.FieldValidationDirectiveStrict))
	options := &metav1.PatchOptions{Force: &force}
	taken, err := helper.Patch(object.Namespace, object.Name, types.ApplyPatchType, sent, options)
	kind := object.Mapping.GroupVersionKind.Kind
	if err != nil {
		return fmt.Errorf("%s %s: %w", kind, object.Name, err)
	}
	if result, ok := taken.(*unstructured.Unstructured); ok && starts && kind != "PersistentVolumeClaim" &&
		result.GetDeletionTimestamp() != nil {
		return fmt.Errorf("%s %s: object is being deleted", kind, object.Name)
	}
	return nil
}
