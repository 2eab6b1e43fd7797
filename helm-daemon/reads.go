package main

import (
	"bytes"
	"context"
	"io"
	"net/http"
	"sync"

	"k8s.io/apimachinery/pkg/api/meta"

	"helm.sh/helm/v4/pkg/kube"
)

// reads are the objects that a call has read, so that it reads each once: a template looks the Secret up, Helm asks
// whether it exists, and whether it exists still. What a call writes itself it reads again.
type reads struct {
	wrapped http.RoundTripper
	mutex   sync.Mutex
	known   map[string]*read
}

// read is the answer to a request, which is there once done is closed.
type read struct {
	done     chan struct{}
	response http.Response
	content  []byte
	err      error
}

func newReads(wrapped http.RoundTripper) *reads {
	return &reads{wrapped: wrapped, known: map[string]*read{}}
}

// RoundTrip sends a request, unless it reads an object that the call has read.
func (r *reads) RoundTrip(request *http.Request) (*http.Response, error) {
	path := request.URL.Path
	if request.URL.Query().Has("dryRun") {
		return r.wrapped.RoundTrip(request)
	}
	if request.Method != http.MethodGet || request.URL.RawQuery != "" {
		r.forget(path)
		// Also what another goroutine reads while this is under way: it may have been read before.
		defer r.forget(path)
		return r.wrapped.RoundTrip(request)
	}
	r.mutex.Lock()
	one, known := r.known[path]
	if !known {
		one = &read{done: make(chan struct{})}
		r.known[path] = one
	}
	r.mutex.Unlock()
	if known {
		<-one.done
	} else {
		one.fill(r.wrapped, request)
		close(one.done)
		if one.err != nil || isRefusal(one.response.StatusCode) {
			r.forget(path)
		}
	}
	return one.answer(request)
}

// isRefusal is whether a status says nothing of the object: the server was too busy, or failed. client-go asks again.
func isRefusal(status int) bool {
	return status == http.StatusTooManyRequests || status >= http.StatusInternalServerError
}

func (r *reads) forget(path string) {
	r.mutex.Lock()
	defer r.mutex.Unlock()
	delete(r.known, path)
}

func (o *read) fill(wrapped http.RoundTripper, request *http.Request) {
	response, err := wrapped.RoundTrip(request)
	if err != nil {
		o.err = err
		return
	}
	defer response.Body.Close()
	o.response = *response
	o.content, o.err = io.ReadAll(response.Body)
}

func (o *read) answer(request *http.Request) (*http.Response, error) {
	if o.err != nil {
		return nil, o.err
	}
	response := o.response
	response.Header = o.response.Header.Clone()
	response.Request = request
	response.Body = io.NopCloser(bytes.NewReader(o.content))
	return &response, nil
}

// ahead reads all these objects at once, of which Helm will ask for one after the other.
func ahead(resources kube.ResourceList) {
	for _, info := range resources {
		if info.Name == "" {
			continue
		}
		namespaced := info.Mapping.Scope.Name() == meta.RESTScopeNameNamespace
		request := info.Client.Get().NamespaceIfScoped(info.Namespace, namespaced).
			Resource(info.Mapping.Resource.Resource).Name(info.Name)
		// Whoever asks for it gets the error.
		go func() { _, _ = request.DoRaw(context.Background()) }()
	}
}
