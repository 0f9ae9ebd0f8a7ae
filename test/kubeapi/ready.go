// SPDX-License-Identifier: Apache-2.0

package main

import (
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/netip"
	"os"
	"path/filepath"
	"time"

	networkingv1 "k8s.io/api/networking/v1"
	"k8s.io/apimachinery/pkg/api/meta"
)

const (
	readyTimeout = 2 * time.Minute
	readyPeriod  = 10 * time.Millisecond
)

func serverURL(addr netip.AddrPort) string { return "https://" + addr.String() }

// announce asks as a client would until the server is ready and can give addresses
// to Services, and then writes the file "ready", which holds the URL. The file
// appears whole or not at all.
func announce(dir string, addr netip.AddrPort, identity *tls.Config) error {
	client := &http.Client{Timeout: 2 * time.Second, Transport: &http.Transport{TLSClientConfig: identity}}
	defer client.CloseIdleConnections()
	err := errors.New("never asked")
	for deadline := time.Now().Add(readyTimeout); err != nil; time.Sleep(readyPeriod) {
		if time.Now().After(deadline) {
			return fmt.Errorf("waiting %s for the API server: %w", readyTimeout, err)
		}
		err = askReady(client, addr)
	}
	if err := write(dir, "ready.new", []byte(serverURL(addr)+"\n")); err != nil {
		return fmt.Errorf("announcing readiness: %w", err)
	}
	return os.Rename(filepath.Join(dir, "ready.new"), filepath.Join(dir, "ready"))
}

func askReady(client *http.Client, addr netip.AddrPort) error {
	if _, err := ask(client, addr, "/readyz"); err != nil {
		return err
	}
	return askRange(client, addr)
}

// askRange asks whether the range of Services' addresses can be used. /readyz does
// not wait for that, and a Service that is made before is refused: "range is full".
func askRange(client *http.Client, addr netip.AddrPort) error {
	text, err := ask(client, addr, "/apis/networking.k8s.io/v1/servicecidrs/kubernetes")
	if err != nil {
		return err
	}
	var cidr networkingv1.ServiceCIDR
	if err := json.Unmarshal(text, &cidr); err != nil {
		return fmt.Errorf("reading the range of Services: %w", err)
	}
	if !meta.IsStatusConditionTrue(cidr.Status.Conditions, networkingv1.ServiceCIDRConditionReady) {
		return errors.New("the range of Services is not ready")
	}
	return nil
}

func ask(client *http.Client, addr netip.AddrPort, path string) ([]byte, error) {
	resp, err := client.Get(serverURL(addr) + path)
	if err != nil {
		return nil, err
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	if err != nil {
		return nil, err
	}
	if resp.StatusCode != http.StatusOK {
		return nil, fmt.Errorf("%s says %s", path, resp.Status)
	}
	return text, nil
}
