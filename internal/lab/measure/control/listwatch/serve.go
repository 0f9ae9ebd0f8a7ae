// SPDX-License-Identifier: Apache-2.0

package listwatch

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/base64"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"log"
	"math/big"
	"net"
	"net/http"
	"net/netip"
	"os"
	"path/filepath"
	"time"

	"github.com/podwall/podwall/internal/lab/netns"
)

// Serving is a server that answers on an address.
type Serving struct {
	http *http.Server
	// Kubeconfig is the text of a kubeconfig file that leads to the server.
	Kubeconfig string
	// File is where that text is, if ServeIn wrote it.
	File string
}

// ServeIn is Serve at an address of a network namespace, with the kubeconfig file in a directory.
func (s *Server) ServeIn(ctx context.Context, ns *netns.NS, at netip.AddrPort, dir string) (*Serving, error) {
	l, err := ns.Listen(ctx, "tcp", at.String())
	if err != nil {
		return nil, fmt.Errorf("serving the cluster: %w", err)
	}
	serving, err := s.Serve(l)
	if err != nil {
		return nil, errors.Join(err, l.Close())
	}
	serving.File = filepath.Join(dir, "kubeconfig")
	if err := os.WriteFile(serving.File, []byte(serving.Kubeconfig), 0o600); err != nil {
		return nil, errors.Join(fmt.Errorf("writing a kubeconfig: %w", err), serving.Close())
	}
	return serving, nil
}

// Serve answers on the listener until Close, with a certificate of its own for
// the listener's address.
func (s *Server) Serve(l net.Listener) (*Serving, error) {
	addr, err := netip.ParseAddrPort(l.Addr().String())
	if err != nil {
		return nil, fmt.Errorf("serving lists: %w", err)
	}
	cert, authority, err := certificate(addr.Addr())
	if err != nil {
		return nil, err
	}
	serving := &Serving{Kubeconfig: kubeconfig(addr, authority), http: &http.Server{
		Handler: s, ErrorLog: log.New(io.Discard, "", 0), ReadHeaderTimeout: time.Minute,
		TLSConfig: &tls.Config{Certificates: []tls.Certificate{cert}, MinVersion: tls.VersionTLS12},
	}}
	go func() { _ = serving.http.ServeTLS(l, "", "") }() // ends with Close
	return serving, nil
}

// Close ends all connections.
func (s *Serving) Close() error { return s.http.Close() }

// certificate makes one that signs itself.
func certificate(addr netip.Addr) (tls.Certificate, []byte, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return tls.Certificate{}, nil, fmt.Errorf("making a key: %w", err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "podwall measurement"},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(48 * time.Hour),
		IsCA: true, BasicConstraintsValid: true, IPAddresses: []net.IP{addr.AsSlice()},
		KeyUsage:    x509.KeyUsageDigitalSignature | x509.KeyUsageCertSign,
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
	if err != nil {
		return tls.Certificate{}, nil, fmt.Errorf("making a certificate: %w", err)
	}
	text := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}, text, nil
}

func kubeconfig(addr netip.AddrPort, authority []byte) string {
	return fmt.Sprintf(`apiVersion: v1
kind: Config
current-context: measurement
clusters: [{name: measurement, cluster: {server: "https://%s", certificate-authority-data: %s}}]
contexts: [{name: measurement, context: {cluster: measurement, user: nobody}}]
users: [{name: nobody, user: {}}]
`, addr, base64.StdEncoding.EncodeToString(authority))
}
