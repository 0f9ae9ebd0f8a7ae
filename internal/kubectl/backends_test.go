// SPDX-License-Identifier: Apache-2.0

package kubectl

import (
	"fmt"
	"testing"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
)

// Endpoints get connections that are ready, or do not say; those of another family or port do not.
func TestBackendsAreReadyEndpoints(t *testing.T) {
	yes, no, number, name, other := true, false, int32(8080), "http", "dns"
	tcp := corev1.ProtocolTCP
	slice := func(family discoveryv1.AddressType, port string, ends ...discoveryv1.Endpoint) *discoveryv1.EndpointSlice {
		return &discoveryv1.EndpointSlice{AddressType: family, Endpoints: ends,
			Ports: []discoveryv1.EndpointPort{{Name: &port, Port: &number, Protocol: &tcp}}}
	}
	end := func(addr string, ready *bool) discoveryv1.Endpoint {
		return discoveryv1.Endpoint{Addresses: []string{addr}, Conditions: discoveryv1.EndpointConditions{Ready: ready}}
	}
	list := []*discoveryv1.EndpointSlice{
		slice(discoveryv1.AddressTypeIPv4, name, end("10.0.0.1", &yes), end("10.0.0.2", &no), end("10.0.0.3", nil)),
		slice(discoveryv1.AddressTypeIPv4, other, end("10.0.0.4", &yes)),
		slice(discoveryv1.AddressTypeIPv6, name, end("fd00::1", &yes)),
	}
	got := backends(list, corev1.ServicePort{Name: name, Protocol: tcp}, false)
	if fmt.Sprint(got) != "[10.0.0.1:8080 10.0.0.3:8080]" {
		t.Errorf("backends %v", got)
	}
}
