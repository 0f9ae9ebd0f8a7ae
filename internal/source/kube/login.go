// SPDX-License-Identifier: Apache-2.0

package kube

import (
	"context"
	"crypto/sha256"
	"fmt"
	"log/slog"
	"os"
	"time"

	"k8s.io/client-go/rest"

	"github.com/podwall/podwall/internal/wake"
)

// lookEach is how often the kubeconfig is read again. When the server does not
// accept the credentials any more that is done at once.
const lookEach = 10 * time.Second

// login finds out when the address of the server or the credentials are replaced.
// client-go itself reads again only files that a kubeconfig names.
type login struct {
	reload             bool // else nothing is ever read again
	kubeconfig, master string
	log                *slog.Logger
	every              time.Duration
	refused            wake.Signal // holds at most one word that they are not accepted
}

func newLogin(log *slog.Logger) *login {
	return &login{log: log, every: lookEach, refused: wake.New()}
}

// refuse asks for a look at once.
func (l *login) refuse() {
	l.refused.Set()
}

// changed returns the configuration that replaces the present one, or nil when
// ctx ends. One that cannot be used is logged and left.
func (l *login) changed(ctx context.Context, now *rest.Config) *rest.Config {
	if !l.reload {
		<-ctx.Done()
		return nil
	}
	present, bad := fingerprint(now), ""
	look := time.NewTicker(l.every)
	defer look.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-l.refused:
		case <-look.C:
		}
		next, err := l.load()
		switch {
		case err == nil && fingerprint(next) != present:
			l.log.Info("the API server's address or credentials were replaced, connecting again", "server", next.Host)
			return next
		case err == nil:
			bad = ""
		case err.Error() != bad:
			bad = err.Error()
			l.log.Warn("the kubeconfig cannot be used, the one that was read before stays", "err", err)
		}
	}
}

// load reads the configuration, and makes sure that a client can be made of it.
func (l *login) load() (*rest.Config, error) {
	cfg, err := LoadConfig(l.kubeconfig, l.master)
	if err != nil {
		return nil, err
	}
	_, err = newHTTPClient(cfg)
	return cfg, err
}

// fingerprint tells configurations apart by all that a connection is made of. It
// holds no secret. The content of the files of a client's certificate and token
// is left out: client-go reads them again.
func fingerprint(c *rest.Config) [sha256.Size]byte {
	h := sha256.New()
	token := c.BearerToken
	if c.BearerTokenFile != "" {
		token = "" // the content of the file: it is replaced every hour
	}
	ca, err := os.ReadFile(c.CAFile) // of an empty name it is an error, always the same
	fmt.Fprintf(h, "%q %q %q %q %q ", c.Host, token, c.BearerTokenFile, c.Username, c.Password)
	fmt.Fprintf(h, "%t %q %q %q %q ", c.Insecure, c.ServerName, c.CertFile, c.KeyFile, c.CAFile)
	fmt.Fprintf(h, "%q %q %q %q %v", c.CertData, c.KeyData, c.CAData, ca, err)
	return [sha256.Size]byte(h.Sum(nil))
}
