package main

import (
	"context"
	"reflect"
	"strconv"
	"testing"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes/fake"

	chartcommon "helm.sh/helm/v4/pkg/chart/common"
	chart "helm.sh/helm/v4/pkg/chart/v2"
	"helm.sh/helm/v4/pkg/release/common"
	release "helm.sh/helm/v4/pkg/release/v1"
	"helm.sh/helm/v4/pkg/storage"
	"helm.sh/helm/v4/pkg/storage/driver"
)

func withChart(name string) *chart.Chart {
	return &chart.Chart{
		Metadata:  &chart.Metadata{Name: name, Version: "1.0.0"},
		Templates: []*chartcommon.File{{Name: "templates/service.yaml", Data: []byte("kind: Service")}},
		Schema:    []byte(`{"type": "object", "properties": {"players": {"type": "integer"}}}`),
	}
}

// What the packer writes is what Helm's own driver writes, once it is read.
func TestHelmReadsWhatThePackerWrites(t *testing.T) {
	secrets := fake.NewClientset().CoreV1().Secrets("games")
	labels := func(name string) map[string]string {
		secret, err := secrets.Get(context.Background(), name, metav1.GetOptions{})
		if err != nil {
			t.Fatal(err)
		}
		delete(secret.Labels, "name")
		for _, stamp := range []string{"createdAt", "modifiedAt"} {
			if number := secret.Labels[stamp]; len(number) > 1 {
				secret.Labels[stamp] = "now"
			}
		}
		return secret.Labels
	}
	ours, theirs := storage.Init(newRecords(secrets, newPacker())), storage.Init(driver.NewSecrets(secrets))
	for number, rel := range []*release.Release{
		{Chart: withChart("game"), Config: map[string]any{"motd": `"chart":{}, 😀`}, Manifest: "kind: Service\n"},
		{Chart: withChart("game"), Labels: map[string]string{"createdAt": "1", "team": "eu"}},
		{Chart: withChart("other"), Hooks: []*release.Hook{{Name: "ping"}}},
		{},
	} {
		rel.Info = &release.Info{Status: common.StatusDeployed}
		rel.Name, rel.Namespace, rel.ApplyMethod = "ours", "games", "ssa"
		rel.Version = number + 1
		if err := ours.Create(rel); err != nil {
			t.Fatal(err)
		}
		same := *rel
		same.Name = "theirs"
		if err := theirs.Create(&same); err != nil {
			t.Fatal(err)
		}
		for range 2 {
			read, err := theirs.Get("ours", rel.Version)
			if err != nil {
				t.Fatal(err)
			}
			expected, err := theirs.Get("theirs", rel.Version)
			if err != nil {
				t.Fatal(err)
			}
			one, other := read.(*release.Release), expected.(*release.Release)
			one.Name = "theirs"
			if !reflect.DeepEqual(one, other) {
				t.Errorf("ours is %v, helm's is %v", one, other)
			}
			if key := ".v" + strconv.Itoa(rel.Version); !reflect.DeepEqual(
				labels("sh.helm.release.v1.ours"+key), labels("sh.helm.release.v1.theirs"+key),
			) {
				t.Errorf("revision %d has other labels than helm's", rel.Version)
			}
			// The second time, after an update.
			rel.Info.Status, same.Info.Status = common.StatusSuperseded, common.StatusSuperseded
			if ours.Update(rel) != nil || theirs.Update(&same) != nil {
				t.Error("no update")
			}
		}
	}
}

// The memory for packed charts is bounded.
func TestFewChartsAreKept(t *testing.T) {
	packer := newPacker()
	for _, name := range []string{"a", "b", "c", "d", "e", "f"} {
		if _, err := packer.pack(&release.Release{Chart: withChart(name)}); err != nil {
			t.Fatal(err)
		}
	}
	if len(packer.charts) > mostCharts {
		t.Errorf("%d charts are kept", len(packer.charts))
	}
}

func TestValuesThatTheSchemaAccepts(t *testing.T) {
	read := newReadChart(withChart("game"))
	for players, accepted := range map[any]bool{8: true, "eight": false} {
		if read.accepts(map[string]any{"players": players}) != accepted {
			t.Errorf("%v: %v", players, !accepted)
		}
	}
	// Without a schema, or with one that does not compile, Helm looks.
	for _, schema := range []string{"", "{", `{"type": 7}`} {
		other := withChart("game")
		other.Schema = []byte(schema)
		if newReadChart(other).accepts(map[string]any{}) {
			t.Errorf("%q accepts", schema)
		}
	}
}
