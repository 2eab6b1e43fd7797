package main

import (
	"bytes"
	"compress/gzip"
	"encoding/base64"
	"encoding/json"
	"maps"
	"slices"
	"strconv"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	release "helm.sh/helm/v4/pkg/release/v1"
)

// mostCharts bounds the memory for packed charts: a cluster has revisions of few versions of the chart.
const mostCharts = 4

// packer makes the Secret of a revision, as Helm's driver does. Nine tenths of a revision are its chart, which is the
// same in most of them. Helm compresses it each time, up to three times in an upgrade, and that was a third of this
// program's CPU time. Here it is a gzip member of its own, which is kept; gzip files may have several (RFC 1952, 2.2).
type packer struct {
	mutex sync.Mutex
	// charts are packed charts, by their JSON.
	charts map[string][]byte
}

func newPacker() *packer { return &packer{charts: map[string][]byte{}} }

// secret is the Secret with a revision. The label `stamp` says when it was written.
func (p *packer) secret(key string, rel *release.Release, stamp string) (*corev1.Secret, error) {
	packed, err := p.pack(rel)
	if err != nil {
		return nil, err
	}
	labels := map[string]string{stamp: strconv.FormatInt(time.Now().Unix(), 10)}
	maps.Copy(labels, rel.Labels)
	maps.Copy(labels, map[string]string{
		"name":    rel.Name,
		"owner":   "helm",
		"status":  rel.Info.Status.String(),
		"version": strconv.Itoa(rel.Version),
	})
	return &corev1.Secret{
		ObjectMeta: metav1.ObjectMeta{Name: key, Labels: labels},
		Type:       "helm.sh/release.v1",
		Data:       map[string][]byte{"release": []byte(base64.StdEncoding.EncodeToString(packed))},
	}, nil
}

// pack is the revision as compressed JSON: the chart first, then all the rest.
func (p *packer) pack(rel *release.Release) ([]byte, error) {
	chart, err := json.Marshal(rel.Chart)
	if err != nil {
		return nil, err
	}
	packed, err := p.chart(chart)
	if err != nil {
		return nil, err
	}
	rest := *rel
	rest.Chart = nil
	text, err := json.Marshal(&rest)
	if err != nil {
		return nil, err
	}
	end, err := compressed(text[1:])
	if err != nil {
		return nil, err
	}
	return slices.Concat(packed, end), nil
}

// chart is the beginning of a revision's JSON, with the chart in it, compressed.
func (p *packer) chart(text []byte) ([]byte, error) {
	p.mutex.Lock()
	defer p.mutex.Unlock()
	if known, found := p.charts[string(text)]; found {
		return known, nil
	}
	packed, err := compressed([]byte(`{"chart":`), text, []byte(","))
	if err != nil {
		return nil, err
	}
	if len(p.charts) >= mostCharts {
		clear(p.charts)
	}
	p.charts[string(text)] = packed
	return packed, nil
}

func compressed(texts ...[]byte) ([]byte, error) {
	var packed bytes.Buffer
	writer, err := gzip.NewWriterLevel(&packed, gzip.BestCompression)
	if err != nil {
		return nil, err
	}
	for _, text := range texts {
		if _, err = writer.Write(text); err != nil {
			return nil, err
		}
	}
	if err = writer.Close(); err != nil {
		return nil, err
	}
	return packed.Bytes(), nil
}
