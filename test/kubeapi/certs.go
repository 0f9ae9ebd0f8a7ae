// SPDX-License-Identifier: Apache-2.0

package main

import (
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
	"math/big"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"time"
)

// The files of the certificates, in the directory of the state.
const (
	authorityCert = "ca.crt"
	authorityKey  = "ca.key"
	serverCert    = "apiserver.crt"
	serverKey     = "apiserver.key"
	accountKey    = "sa.key" // signs the tokens of service accounts
	kubeconfig    = "admin.kubeconfig"
)

const validity = 365 * 24 * time.Hour

// pair is a certificate and its key, both as PEM.
type pair struct{ cert, key []byte }

// writeCertificates writes what the API server needs, and the kubeconfig of
// an administrator. It returns the TLS side of that administrator. The keys
// are ECDSA because the server's own choice, RSA, costs start time. An
// authority and a token key that exist are kept: clients of an earlier start
// still trust them.
func writeCertificates(dir string, addr netip.AddrPort, c config) (*tls.Config, error) {
	ca, err := loadAuthority(dir)
	if err != nil {
		return nil, err
	}
	server, err := ca.issue(&x509.Certificate{
		Subject:     pkix.Name{CommonName: "kube-apiserver"},
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
		DNSNames:    []string{"localhost", "kubernetes", "kubernetes.default", "kubernetes.default.svc"},
		IPAddresses: append([]net.IP{net.IPv4(127, 0, 0, 1), net.IPv6loopback, addr.Addr().AsSlice()}, c.names...),
	})
	if err != nil {
		return nil, err
	}
	admin, err := ca.issue(&x509.Certificate{
		Subject:     pkix.Name{CommonName: "admin", Organization: []string{"system:masters"}},
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth},
	})
	if err != nil {
		return nil, err
	}
	err = errors.Join(
		write(dir, serverCert, server.cert),
		write(dir, serverKey, server.key),
		writeAccountKey(dir),
		write(dir, kubeconfig, kubeconfigText(serverURL(addr), ca.pem, admin)),
		ca.writeUsers(dir, serverURL(addr), c.users),
	)
	if err != nil {
		return nil, err
	}
	return clientTLS(ca, admin)
}

// user is somebody who may ask the API, by a certificate.
type user struct{ file, name, group string }

// parseUser reads FILE=NAME or FILE=NAME/GROUP. A name may hold colons, as in
// system:kube-scheduler, and a file name no slash.
func parseUser(text string) (user, error) {
	file, who, found := strings.Cut(text, "=")
	name, group, _ := strings.Cut(who, "/")
	if !found || file == "" || name == "" || strings.Contains(file, "/") {
		return user{}, fmt.Errorf("user %q is not of the form FILE=NAME or FILE=NAME/GROUP", text)
	}
	return user{file, name, group}, nil
}

// writeUsers writes FILE.kubeconfig, FILE.crt and FILE.key for each user.
func (ca *authority) writeUsers(dir, url string, users []user) (err error) {
	for _, u := range users {
		subject := pkix.Name{CommonName: u.name}
		if u.group != "" {
			subject.Organization = []string{u.group}
		}
		p, issued := ca.issue(&x509.Certificate{Subject: subject,
			ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}})
		err = errors.Join(err, issued,
			write(dir, u.file+".crt", p.cert),
			write(dir, u.file+".key", p.key),
			write(dir, u.file+".kubeconfig", kubeconfigText(url, ca.pem, p)))
	}
	return err
}

func clientTLS(ca *authority, p pair) (*tls.Config, error) {
	cert, err := tls.X509KeyPair(p.cert, p.key)
	if err != nil {
		return nil, fmt.Errorf("reading a client certificate: %w", err)
	}
	roots := x509.NewCertPool()
	roots.AddCert(ca.cert)
	return &tls.Config{RootCAs: roots, Certificates: []tls.Certificate{cert}}, nil
}

// kubeconfigText has the certificates inside, so that the file can be copied.
func kubeconfigText(url string, ca []byte, user pair) []byte {
	data := base64.StdEncoding.EncodeToString
	return fmt.Appendf(nil, `apiVersion: v1
kind: Config
current-context: kubeapi
contexts:
- name: kubeapi
  context: {cluster: kubeapi, user: admin}
clusters:
- name: kubeapi
  cluster:
    server: %q
    certificate-authority-data: %s
users:
- name: admin
  user:
    client-certificate-data: %s
    client-key-data: %s
`, url, data(ca), data(user.cert), data(user.key))
}

func writeAccountKey(dir string) error {
	if _, err := os.Stat(filepath.Join(dir, accountKey)); !errors.Is(err, os.ErrNotExist) {
		return err
	}
	_, text, err := newKey()
	if err != nil {
		return err
	}
	return write(dir, accountKey, text)
}

// authority signs the certificates of one directory.
type authority struct {
	cert *x509.Certificate
	key  *ecdsa.PrivateKey
	pem  []byte
}

// loadAuthority reads the authority of an earlier start, or makes one.
func loadAuthority(dir string) (*authority, error) {
	if _, err := os.Stat(filepath.Join(dir, authorityCert)); errors.Is(err, os.ErrNotExist) {
		return newAuthority(dir)
	}
	p, err := tls.LoadX509KeyPair(filepath.Join(dir, authorityCert), filepath.Join(dir, authorityKey))
	if err != nil {
		return nil, fmt.Errorf("reading the authority of an earlier start: %w", err)
	}
	key, ok := p.PrivateKey.(*ecdsa.PrivateKey)
	if !ok {
		return nil, fmt.Errorf("reading the authority of an earlier start: the key is a %T", p.PrivateKey)
	}
	return &authority{cert: p.Leaf, key: key, pem: encode("CERTIFICATE", p.Leaf.Raw)}, nil
}

func newAuthority(dir string) (*authority, error) {
	key, keyText, err := newKey()
	if err != nil {
		return nil, err
	}
	ca := &authority{key: key}
	ca.cert = &x509.Certificate{
		Subject: pkix.Name{CommonName: "kubeapi"}, IsCA: true, BasicConstraintsValid: true,
		KeyUsage: x509.KeyUsageCertSign | x509.KeyUsageDigitalSignature,
	}
	der, err := ca.sign(ca.cert, key)
	if err != nil {
		return nil, err
	}
	if ca.cert, err = x509.ParseCertificate(der); err != nil {
		return nil, fmt.Errorf("reading the new authority back: %w", err)
	}
	ca.pem = encode("CERTIFICATE", der)
	// The certificate last: where it is, the key is too.
	if err := write(dir, authorityKey, keyText); err != nil {
		return nil, err
	}
	return ca, write(dir, authorityCert, ca.pem)
}

// issue makes a certificate for a new key.
func (ca *authority) issue(template *x509.Certificate) (pair, error) {
	key, keyText, err := newKey()
	if err != nil {
		return pair{}, err
	}
	template.KeyUsage = x509.KeyUsageDigitalSignature
	der, err := ca.sign(template, key)
	return pair{cert: encode("CERTIFICATE", der), key: keyText}, err
}

// sign completes the template and signs it for the key.
func (ca *authority) sign(template *x509.Certificate, key *ecdsa.PrivateKey) ([]byte, error) {
	serial, err := rand.Int(rand.Reader, big.NewInt(1<<62))
	if err != nil {
		return nil, fmt.Errorf("choosing a serial number: %w", err)
	}
	now := time.Now()
	template.SerialNumber = serial
	template.NotBefore, template.NotAfter = now.Add(-time.Hour), now.Add(validity)
	der, err := x509.CreateCertificate(rand.Reader, template, ca.cert, key.Public(), ca.key)
	if err != nil {
		return nil, fmt.Errorf("signing the certificate of %q: %w", template.Subject.CommonName, err)
	}
	return der, nil
}

func newKey() (*ecdsa.PrivateKey, []byte, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, nil, fmt.Errorf("making a key: %w", err)
	}
	der, err := x509.MarshalECPrivateKey(key)
	if err != nil {
		return nil, nil, fmt.Errorf("writing a key: %w", err)
	}
	return key, encode("EC PRIVATE KEY", der), nil
}

func encode(kind string, der []byte) []byte {
	return pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der})
}

func write(dir, name string, data []byte) error {
	return os.WriteFile(filepath.Join(dir, name), data, 0o600)
}
