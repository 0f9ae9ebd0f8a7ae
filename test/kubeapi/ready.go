// SPDX-License-Identifier: Apache-2.0

package main

import (
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/netip"
	"os"
	"path/filepath"
	"time"
)

const (
	readyTimeout = 2 * time.Minute
	readyPeriod  = 10 * time.Millisecond
)

func serverURL(addr netip.AddrPort) string { return "https://" + addr.String() }

// announce asks /readyz as a client would, until it answers 200, and then
// writes the file "ready", which holds the URL. The file appears whole or not
// at all.
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
	resp, err := client.Get(serverURL(addr) + "/readyz")
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	if _, err := io.Copy(io.Discard, resp.Body); err != nil {
		return err
	}
	if resp.StatusCode != http.StatusOK {
		return fmt.Errorf("/readyz says %s", resp.Status)
	}
	return nil
}
