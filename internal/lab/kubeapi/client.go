// SPDX-License-Identifier: Apache-2.0

//go:build linux

package kubeapi

import (
	"fmt"

	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"
)

// RESTConfig returns a client configuration with all rights and without
// client-side limits. Its connections start inside the server's own network
// namespace, so a test can use it from wherever it runs.
func (s *Server) RESTConfig() (*rest.Config, error) {
	config, err := clientcmd.BuildConfigFromFlags("", s.Kubeconfig)
	if err != nil {
		return nil, fmt.Errorf("reading the kubeconfig of the API server: %w", err)
	}
	config.QPS = -1
	if s.netns != nil {
		config.Dial = s.netns.Dial
	}
	return config, nil
}
