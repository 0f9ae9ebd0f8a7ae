// SPDX-License-Identifier: Apache-2.0

//go:build linux

package apiserver

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"reflect"
	"strings"
	"time"

	"golang.org/x/sync/errgroup"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/yaml"
)

const (
	patience = 2 * time.Minute // for one answer
	writers  = 16              // objects that are written at the same time
)

// object is what writing one needs to know of it.
type object struct {
	APIVersion string `json:"apiVersion"`
	Kind       string `json:"kind"`
	Metadata   struct {
		Name      string `json:"name"`
		Namespace string `json:"namespace"`
	} `json:"metadata"`
	// whole is the text.
	whole []byte
}

// Apply creates the objects of a text of YAML documents, in no order but that
// namespaces come first, and gives them the status that they have there.
func (s *Server) Apply(ctx context.Context, manifests []byte) error {
	var first, rest []object
	for _, text := range strings.Split(string(manifests), "---\n") {
		o := object{}
		whole, err := yaml.YAMLToJSON([]byte(text))
		if err == nil {
			err = json.Unmarshal(whole, &o)
		}
		if err != nil {
			return fmt.Errorf("reading an object: %w", err)
		}
		o.whole = whole
		if o.Kind == "Namespace" {
			first = append(first, o)
		} else {
			rest = append(rest, o)
		}
	}
	for _, list := range [][]object{first, rest} {
		if err := s.inParallel(ctx, list); err != nil {
			return err
		}
	}
	return nil
}

// Fill creates objects of the API's Go types, many at the same time, and gives
// pods and nodes their status. What follows each other and is of one kind is in
// no order; a pod comes after its namespace if that is of an earlier kind.
func (s *Server) Fill(ctx context.Context, objects []metav1.Object) error {
	var list []object
	for i, o := range objects {
		one, err := typed(o)
		if err != nil {
			return err
		}
		if list = append(list, one); i+1 < len(objects) && reflect.TypeOf(objects[i+1]) == reflect.TypeOf(o) {
			continue
		}
		if err := s.inParallel(ctx, list); err != nil {
			return err
		}
		list = nil
	}
	return nil
}

func (s *Server) inParallel(ctx context.Context, list []object) error {
	g, ctx := errgroup.WithContext(ctx)
	g.SetLimit(writers)
	for _, o := range list {
		g.Go(func() error {
			_, err := s.create(ctx, o)
			return err
		})
	}
	return g.Wait()
}

// Create writes an object and then, as a kubelet does, the status of a pod or a
// node. It returns when the last of the two writes began.
func (s *Server) Create(ctx context.Context, o metav1.Object) (time.Time, error) {
	one, err := typed(o)
	if err != nil {
		return time.Time{}, err
	}
	return s.create(ctx, one)
}

// Replace writes a new state of an object, but for its status, and returns when
// that began.
func (s *Server) Replace(ctx context.Context, o metav1.Object) (time.Time, error) {
	one, err := typed(o)
	if err != nil {
		return time.Time{}, err
	}
	return s.send(ctx, http.MethodPut, one.path()+"/"+o.GetName(), plain, one.whole)
}

// Relabel gives an object its new labels, beside the old ones, and returns when
// that began.
func (s *Server) Relabel(ctx context.Context, o metav1.Object) (time.Time, error) {
	return s.change(ctx, http.MethodPatch, "application/merge-patch+json", o,
		map[string]any{"metadata": map[string]any{"labels": o.GetLabels()}})
}

// Remove deletes an object at once, as a kubelet does that has stopped the
// containers, and returns when that began.
func (s *Server) Remove(ctx context.Context, o metav1.Object) (time.Time, error) {
	now := int64(0)
	return s.change(ctx, http.MethodDelete, plain, o, &metav1.DeleteOptions{GracePeriodSeconds: &now})
}

func (s *Server) change(ctx context.Context, method, kind string, o metav1.Object, what any) (time.Time, error) {
	one, err := typed(o)
	if err != nil {
		return time.Time{}, err
	}
	body, err := json.Marshal(what)
	if err != nil {
		return time.Time{}, fmt.Errorf("encoding a request: %w", err)
	}
	return s.send(ctx, method, one.path()+"/"+o.GetName(), kind, body)
}

const plain = "application/json"

// create writes an object, and then its status: a creation drops that. The
// server may have made a namespace by itself.
func (s *Server) create(ctx context.Context, o object) (time.Time, error) {
	start, err := s.send(ctx, http.MethodPost, o.path(), plain, o.whole)
	if err != nil || (o.Kind != "Pod" && o.Kind != "Node") {
		return start, err
	}
	return s.send(ctx, http.MethodPut, o.path()+"/"+o.Metadata.Name+"/status", plain, o.whole)
}

// typed writes an object of a Go type as one of the API: the type is called as
// the kind, and its package tells group and version.
func typed(o metav1.Object) (object, error) {
	t := reflect.TypeOf(o).Elem()
	one := object{Kind: t.Name()}
	parts := strings.Split(t.PkgPath(), "/") // as in k8s.io/api/core/v1
	group, version := parts[len(parts)-2], parts[len(parts)-1]
	if one.APIVersion = version; group != "core" {
		one.APIVersion = group + ".k8s.io/" + version
	}
	one.Metadata.Name, one.Metadata.Namespace = o.GetName(), o.GetNamespace()
	var err error
	if one.whole, err = json.Marshal(o); err != nil {
		return one, fmt.Errorf("encoding %s %s: %w", one.Kind, o.GetName(), err)
	}
	return one, nil
}

// path is where objects of the kind are created.
func (o object) path() string {
	path := "/apis/" + o.APIVersion
	if !strings.Contains(o.APIVersion, "/") {
		path = "/api/" + o.APIVersion
	}
	if o.Metadata.Namespace != "" {
		path += "/namespaces/" + o.Metadata.Namespace
	}
	plural := strings.ToLower(o.Kind) + "s"
	if strings.HasSuffix(plural, "ys") {
		plural = strings.TrimSuffix(plural, "ys") + "ies"
	}
	return path + "/" + plural
}

// send makes one request and returns when it began.
func (s *Server) send(ctx context.Context, method, path, kind string, body []byte) (time.Time, error) {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, method, s.running.URL+path, bytes.NewReader(body))
	if err != nil {
		return time.Time{}, fmt.Errorf("making a request: %w", err)
	}
	req.Header.Set("Content-Type", kind)
	start := time.Now()
	resp, err := s.client.Do(req)
	if err != nil {
		return start, fmt.Errorf("asking the API server: %w", err)
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	// The server makes a namespace of its own, default, at some time.
	exists := resp.StatusCode == http.StatusConflict && strings.HasSuffix(path, "/namespaces")
	if err == nil && resp.StatusCode/100 != 2 && !exists {
		err = fmt.Errorf("%s %s: %s %.300s", method, path, resp.Status, text)
	}
	return start, err
}
