package main

import (
	"context"
	"errors"
	"testing"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes/fake"

	ri "helm.sh/helm/v4/pkg/release"
	"helm.sh/helm/v4/pkg/release/common"
	release "helm.sh/helm/v4/pkg/release/v1"
	"helm.sh/helm/v4/pkg/storage"
	"helm.sh/helm/v4/pkg/storage/driver"
)

func revision(number int, status common.Status) *release.Release {
	return &release.Release{Name: "server-1", Version: number, Info: &release.Info{Status: status}}
}

func lists(clients *fake.Clientset) int {
	count := 0
	for _, action := range clients.Actions() {
		if action.GetVerb() == "list" {
			count++
		}
	}
	return count
}

// The revisions are read once, whatever Helm asks for, and again after a write.
func TestRevisionsAreReadOnce(t *testing.T) {
	clients := fake.NewClientset()
	store := storage.Init(newRecords(clients.CoreV1().Secrets("games"), newPacker()))
	for number, status := range []common.Status{common.StatusSuperseded, common.StatusDeployed} {
		if err := store.Create(revision(number+1, status)); err != nil {
			t.Fatal(err)
		}
	}
	clients.ClearActions()
	last, err := store.Last("server-1")
	if err != nil || version(last) != 2 {
		t.Fatalf("%v %v", last, err)
	}
	// What Helm does to what it has read is not what is stored.
	last.(*release.Release).Info.Status = common.StatusFailed
	if deployed, err := store.Deployed("server-1"); err != nil || version(deployed) != 2 {
		t.Errorf("%v %v", deployed, err)
	}
	if all, err := store.History("server-1"); err != nil || len(all) != 2 {
		t.Errorf("%v %v", all, err)
	}
	if lists(clients) != 1 {
		t.Errorf("read %d times", lists(clients))
	}
	if err := store.Update(last); err != nil {
		t.Fatal(err)
	}
	if _, err := store.Deployed("server-1"); !errors.Is(err, driver.ErrNoDeployedReleases) {
		t.Errorf("after a write: %v", err)
	}
}

// A revision that was read is deleted without being read again; one that is gone by then is not found.
func TestARevisionIsDeleted(t *testing.T) {
	clients := fake.NewClientset()
	secrets := clients.CoreV1().Secrets("games")
	store := storage.Init(newRecords(secrets, newPacker()))
	for number := 1; number <= 2; number++ {
		if err := store.Create(revision(number, common.StatusDeployed)); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := store.History("server-1"); err != nil {
		t.Fatal(err)
	}
	clients.ClearActions()
	if rel, err := store.Delete("server-1", 1); err != nil || version(rel) != 1 {
		t.Errorf("%v %v", rel, err)
	}
	if actions := clients.Actions(); len(actions) != 1 || actions[0].GetVerb() != "delete" {
		t.Errorf("it sent %v", actions)
	}
	if err := secrets.Delete(context.Background(), "sh.helm.release.v1.server-1.v2", metav1.DeleteOptions{}); err != nil {
		t.Fatal(err)
	}
	for number := 1; number <= 2; number++ {
		if _, err := store.Delete("server-1", number); !errors.Is(err, driver.ErrReleaseNotFound) {
			t.Errorf("revision %d: %v", number, err)
		}
	}
	if _, err := store.History("server-1"); !errors.Is(err, driver.ErrReleaseNotFound) {
		t.Errorf("history: %v", err)
	}
}

func version(rel ri.Releaser) int { return rel.(*release.Release).Version }

// What is asked before the first write is told the newest revision, and asked once; its refusal refuses every write.
func TestNothingIsWrittenIfThatIsRefused(t *testing.T) {
	clients := fake.NewClientset()
	filled := storage.Init(newRecords(clients.CoreV1().Secrets("games"), newPacker()))
	for number := range 2 {
		if err := filled.Create(revision(number+1, common.StatusSuperseded)); err != nil {
			t.Fatal(err)
		}
	}
	records := newRecords(clients.CoreV1().Secrets("games"), newPacker())
	var asked []int
	refusal := errors.New("no")
	records.before = func(newest *release.Release) error {
		asked = append(asked, newest.Version)
		return refusal
	}
	store := storage.Init(records)
	// It would remove a revision first.
	store.MaxHistory = 2
	for range 2 {
		if err := store.Create(revision(3, common.StatusPendingUpgrade)); !errors.Is(err, refusal) {
			t.Error(err)
		}
	}
	if len(asked) != 1 || asked[0] != 2 {
		t.Errorf("asked about %v", asked)
	}
	if kept, err := filled.History("server-1"); err != nil || len(kept) != 2 {
		t.Errorf("%v %v", kept, err)
	}
}
