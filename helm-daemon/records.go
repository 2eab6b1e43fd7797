package main

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"sync"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	corev1 "k8s.io/client-go/kubernetes/typed/core/v1"

	ri "helm.sh/helm/v4/pkg/release"
	release "helm.sh/helm/v4/pkg/release/v1"
	"helm.sh/helm/v4/pkg/storage/driver"
)

// records is Helm's storage in Secrets, which reads the revisions of a release once in a call: Helm reads and decodes
// them up to four times. What it has read counts until the call writes. And it compresses less, see packer.
//
// A call has one of these, and works on one release. It is not safe for several goroutines, and Helm does not use it so:
// it hands the release from one to the next.
type records struct {
	driver.Driver
	secrets corev1.SecretInterface
	packer  *packer
	// read are the revisions as they were read, if known.
	read  []*release.Release
	known bool
	// before is called before the first write to a release, with its newest revision. If it fails, so does each write.
	before func(*release.Release) error
	begin  func() error
	// seen are the names of the Secrets that exist, as far as this call knows.
	seen map[string]*release.Release
}

func newRecords(secrets corev1.SecretInterface, packer *packer) *records {
	r := &records{
		Driver:  driver.NewSecrets(secrets),
		secrets: secrets,
		packer:  packer,
		seen:    map[string]*release.Release{},
		before:  func(*release.Release) error { return nil },
	}
	r.begin = sync.OnceValue(func() error {
		if len(r.read) == 0 {
			return nil
		}
		return r.before(slices.MaxFunc(r.read, func(a, b *release.Release) int { return a.Version - b.Version }))
	})
	return r
}

// Query finds the revisions with all of these labels.
func (r *records) Query(labels map[string]string) ([]ri.Releaser, error) {
	if !r.known {
		if err := r.readAll(labels["name"]); err != nil {
			return nil, err
		}
	}
	var found []ri.Releaser
	for _, one := range r.read {
		if matches(one.Labels, labels) {
			found = append(found, copied(one))
		}
	}
	if len(found) == 0 {
		return nil, driver.ErrReleaseNotFound
	}
	return found, nil
}

func (r *records) readAll(name string) error {
	all, err := r.Driver.Query(map[string]string{"name": name, "owner": "helm"})
	if err != nil && !errors.Is(err, driver.ErrReleaseNotFound) {
		return err
	}
	r.read, r.known = nil, true
	for _, one := range all {
		if rel, ok := one.(*release.Release); ok {
			r.read = append(r.read, rel)
			r.seen[key(rel)] = rel
		}
	}
	return nil
}

// Create stores a new revision.
func (r *records) Create(key string, rel ri.Releaser) error {
	r.known = false
	one, ok := rel.(*release.Release)
	if !ok {
		return r.Driver.Create(key, rel)
	}
	if err := r.begin(); err != nil {
		return err
	}
	secret, err := r.packer.secret(key, one, "createdAt")
	if err != nil {
		return fmt.Errorf("create: failed to encode release %q: %w", one.Name, err)
	}
	_, err = r.secrets.Create(context.Background(), secret, metav1.CreateOptions{})
	if apierrors.IsAlreadyExists(err) {
		return driver.ErrReleaseExists
	}
	if err != nil {
		return fmt.Errorf("create: failed to create: %w", err)
	}
	return nil
}

// Update stores a revision again.
func (r *records) Update(key string, rel ri.Releaser) error {
	r.known = false
	one, ok := rel.(*release.Release)
	if !ok {
		return r.Driver.Update(key, rel)
	}
	secret, err := r.packer.secret(key, one, "modifiedAt")
	if err != nil {
		return fmt.Errorf("update: failed to encode release %q: %w", one.Name, err)
	}
	if _, err = r.secrets.Update(context.Background(), secret, metav1.UpdateOptions{}); err != nil {
		return fmt.Errorf("update: failed to update: %w", err)
	}
	return nil
}

// Delete removes a revision. Helm's own Delete reads it first, to know whether it exists.
func (r *records) Delete(key string) (ri.Releaser, error) {
	if err := r.begin(); err != nil {
		return nil, err
	}
	r.known = false
	rel, known := r.seen[key]
	if !known {
		return r.Driver.Delete(key)
	}
	delete(r.seen, key)
	err := r.secrets.Delete(context.Background(), key, metav1.DeleteOptions{})
	if apierrors.IsNotFound(err) {
		return nil, driver.ErrReleaseNotFound
	}
	if err != nil {
		return nil, err
	}
	return rel, nil
}

func matches(has, wanted map[string]string) bool {
	for name, value := range wanted {
		if has[name] != value {
			return false
		}
	}
	return true
}

// copied is a revision whose status Helm may change.
func copied(rel *release.Release) *release.Release {
	same := *rel
	if rel.Info != nil {
		info := *rel.Info
		same.Info = &info
	}
	same.Labels = maps.Clone(rel.Labels)
	return &same
}
