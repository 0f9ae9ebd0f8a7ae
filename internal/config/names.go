// SPDX-License-Identifier: Apache-2.0

package config

import (
	"errors"
	"fmt"
	"net/netip"
	"net/url"
	"path"
	"path/filepath"
	"strconv"
	"strings"
	"unicode"
)

// parsedText is a text that is checked when the command line is read.
func parsedText(target *string, check func(string) error) value[string] {
	parse := func(s string) (string, error) { return s, check(s) }
	return value[string]{target, parse, func(s string) string { return s }, false}
}

// server is the address of an API server: a URL, or a host with or without a port,
// which client-go takes too.
func server(target *string) value[string] { return parsedText(target, checkServer) }

func checkServer(s string) error {
	if s == "" {
		return nil
	}
	const cure = "; write for example https://10.0.0.10:6443"
	text := s
	if scheme, _, ok := strings.Cut(s, "://"); !ok {
		text = "https://" + s
	} else if scheme != "https" && scheme != "http" {
		return fmt.Errorf("%q has the scheme %q, which is neither https nor http%s", s, scheme, cure)
	}
	u, err := url.Parse(text)
	switch {
	case err != nil:
		return fmt.Errorf("%q is no address of a server: %s%s", s, reasonOf(err), cure)
	case u.Hostname() == "":
		return fmt.Errorf("%q names no host%s", s, cure)
	case u.RawQuery != "" || u.Fragment != "" || u.User != nil:
		return fmt.Errorf("%q has more than a scheme, a host, a port and a path%s", s, cure)
	case text != s && strings.Trim(u.Path, "/") != "":
		return fmt.Errorf("%q has a path and no scheme%s", s, cure)
	}
	if err := checkHost(u.Hostname()); err != nil {
		return fmt.Errorf("%q is no address of a server: %w%s", s, err, cure)
	}
	if n, err := strconv.ParseUint(u.Port(), 10, 16); u.Port() != "" && (err != nil || n == 0) {
		return fmt.Errorf("%q has the port %s, which is not in 1 to 65535%s", s, u.Port(), cure)
	}
	return nil
}

// reasonOf leaves out what url.Error repeats.
func reasonOf(err error) string {
	var wrong *url.Error
	if errors.As(err, &wrong) {
		return wrong.Err.Error()
	}
	return err.Error()
}

// checkHost refuses what is neither an IP address nor can be a host name.
func checkHost(s string) error {
	if _, err := netip.ParseAddr(s); err == nil {
		return nil
	}
	last := s[strings.LastIndexByte(strings.TrimSuffix(s, "."), '.')+1:]
	switch {
	case len(s) > 253 || strings.ContainsFunc(s, notOfAName) || strings.HasPrefix(s, ".") || strings.Contains(s, ".."):
		return fmt.Errorf("%q is neither an IP address nor a host name", s)
	case strings.Trim(last, "0123456789.") == "":
		return fmt.Errorf("%q is no IP address, and no host name ends with a number", s)
	}
	return nil
}

// notOfAName reports what stands in no host name. The underscore does in some.
func notOfAName(r rune) bool {
	return r > unicode.MaxASCII || !unicode.IsLetter(r) && !unicode.IsDigit(r) && !strings.ContainsRune("-._", r)
}

// nodeName is the name of a Node. Capital letters are no Node's, but the agent, which
// sees the Nodes, can say more about such a name than a check of its form.
func nodeName(target *string) value[string] {
	return parsedText(target, func(s string) error {
		if len(s) > 253 || strings.ContainsFunc(s, notOfAName) {
			return fmt.Errorf("%q cannot be the name of a Node; kubectl get nodes lists the names", s)
		}
		return nil
	})
}

// maxSocket is how long the path of a Unix socket can be in Linux.
const maxSocket = 107

// socket is the path of a Unix socket.
func socket(target *string) value[string] {
	return parsedText(target, func(s string) error {
		switch {
		case s == "":
			return nil
		case !filepath.IsAbs(s) || strings.HasSuffix(s, "/"):
			return fmt.Errorf("%q is not the absolute path of a file; write for example /run/podwall/gate.sock", s)
		case len(s) > maxSocket:
			return fmt.Errorf("%q has %d bytes; the path of a socket can have %d", s, len(s), maxSocket)
		}
		return nil
	})
}

// maxInterface is how long the name of an interface can be in Linux.
const maxInterface = 15

// checkInterface refuses what can name no interface: path.Match reads the pattern.
func checkInterface(name string) error {
	_, err := path.Match(name, "")
	switch {
	case err != nil:
		return fmt.Errorf("%q is no name and no pattern: a bracket is not closed", name)
	case strings.ContainsRune(name, '/') || strings.ContainsFunc(name, unicode.IsSpace):
		return fmt.Errorf("%q can be no interface: its name has no slash and no space; separate names by commas", name)
	case len(name) > maxInterface && !strings.ContainsAny(name, `*?[\`):
		return fmt.Errorf("%q can be no interface: a name has at most %d bytes; shorten it with *", name, maxInterface)
	}
	return nil
}

// checkPagePath refuses a path under which no page can be reached: the server cleans
// the paths of requests, and compares them without a query.
func checkPagePath(p string) error {
	clean := path.Clean(p)
	if clean != "/" && strings.HasSuffix(p, "/") {
		clean += "/"
	}
	switch {
	case !strings.HasPrefix(p, "/") || strings.ContainsAny(p, " {}"):
		return fmt.Errorf("--metrics-path=%s: must start with a slash and hold no space and no brace", p)
	case strings.ContainsAny(p, "?#%") || strings.ContainsFunc(p, unicode.IsControl):
		return fmt.Errorf("--metrics-path=%q: is reached by no request; leave out ?, #, %% and control characters", p)
	case p != clean:
		return fmt.Errorf("--metrics-path=%s: is reached by no request; write %s", p, clean)
	}
	return nil
}
