// Package web serves what the kubelet's probes and Prometheus ask for.
package web

import (
	"fmt"
	"net/http"
	"strings"

	"gameservers.local/disk-driver/disks"
)

// Handler serves /healthz and /metrics.
func Handler(of *disks.Disks) http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /healthz", func(w http.ResponseWriter, _ *http.Request) {
		if _, err := of.Pool().Room(); err != nil {
			http.Error(w, err.Error(), http.StatusServiceUnavailable)
			return
		}
		fmt.Fprintln(w, "ok")
	})
	mux.HandleFunc("GET /metrics", func(w http.ResponseWriter, _ *http.Request) {
		text, err := metrics(of)
		if err != nil {
			http.Error(w, err.Error(), http.StatusServiceUnavailable)
			return
		}
		w.Header().Set("Content-Type", "text/plain; version=0.0.4; charset=utf-8")
		fmt.Fprint(w, text)
	})
	return mux
}

// metrics is the state of the pool in Prometheus' text format.
func metrics(of *disks.Disks) (string, error) {
	room, err := of.Pool().Room()
	if err != nil {
		return "", err
	}
	var text strings.Builder
	family := func(name, help string, samples ...string) {
		fmt.Fprintf(&text, "# HELP %s %s\n# TYPE %s gauge\n", name, help, name)
		for _, sample := range samples {
			fmt.Fprintf(&text, "%s%s\n", name, sample)
		}
	}
	broken := of.Broken()
	family("gameserver_disk_pool_bytes",
		"The pool's size, what is promised of it to disks and snapshots (reserved), its used blocks, and what can still"+
			" be promised (free).",
		fmt.Sprintf(`{kind="size"} %d`, room.Size), fmt.Sprintf(`{kind="reserved"} %d`, room.Reserved),
		fmt.Sprintf(`{kind="used"} %d`, room.Used), fmt.Sprintf(`{kind="free"} %d`, room.Free))
	family("gameserver_disks", "Disks in the pool.", fmt.Sprintf(" %d", len(of.Pool().Disks())))
	family("gameserver_disks_not_mounted", "Disks that could not be mounted; the log says why.", fmt.Sprintf(" %d", broken))
	family("gameserver_disk_snapshots", "Snapshots in the pool.", fmt.Sprintf(" %d", len(of.Pool().Snapshots())))
	return text.String(), nil
}
