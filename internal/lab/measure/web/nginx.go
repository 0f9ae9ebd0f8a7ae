// SPDX-License-Identifier: Apache-2.0

//go:build linux

package web

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"

	"github.com/podwall/podwall/internal/lab/process"
)

// nginxConfig is one worker and no access log. The worker is the only process,
// so that nothing can stay behind; every path is in a directory of ours. It stays
// root, who is the only user of a user namespace.
const nginxConfig = `
user root;
daemon off;
master_process off;
worker_processes 1;
pid DIR/pid;
error_log DIR/error.log warn;
events { worker_connections 1000; }
http {
	access_log off;
	sendfile on;
	tcp_nopush on;
	client_body_temp_path DIR/body;
	proxy_temp_path DIR/proxy;
	fastcgi_temp_path DIR/fastcgi;
	uwsgi_temp_path DIR/uwsgi;
	scgi_temp_path DIR/scgi;
	server {
		listen ADDRESS:80 backlog=4096;
		root DIR/html;
	}
}
`

// page has the length of the page that a fresh nginx shows.
func page() []byte {
	const length = 615
	return []byte("<!DOCTYPE html>\n" + strings.Repeat(" ", length-len("<!DOCTYPE html>\n")-1) + "\n")
}

// startServers wires the two pods that ab asks, and starts nginx in them.
func (s *stage) startServers(context.Context) error {
	for _, p := range servers() {
		e, err := s.wire(p)
		if err != nil {
			return err
		}
		dir := filepath.Join(s.dir, p.name)
		config := filepath.Join(dir, "nginx.conf")
		text := strings.NewReplacer("DIR", dir, "ADDRESS", p.addr.String()).Replace(nginxConfig)
		err = errors.Join(os.MkdirAll(filepath.Join(dir, "html"), 0o700),
			os.WriteFile(filepath.Join(dir, "html", "index.html"), page(), 0o600),
			os.WriteFile(config, []byte(text), 0o600))
		if err != nil {
			return fmt.Errorf("configuring %s: %w", p.name, err)
		}
		cmd := exec.Command(s.Nginx, "-p", dir, "-c", config, "-e", filepath.Join(dir, "error.log"))
		n, err := process.Start(cmd, process.Options{Name: p.name, Log: filepath.Join(dir, "*.log"), NS: e.NS,
			Group: true})
		if err != nil {
			return err
		}
		s.servers = append(s.servers, n)
	}
	return nil
}
