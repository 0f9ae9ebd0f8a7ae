// SPDX-License-Identifier: Apache-2.0

package cases

import (
	"bufio"
	"bytes"
	"compress/gzip"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"slices"

	"github.com/podwall/podwall/internal/cluster"
)

// maxLine bounds one line: a step of the largest cluster that is still a test.
const maxLine = 64 << 20

// Read reads all cases from JSON lines, plain or compressed with gzip. Empty
// lines are skipped. An error names the line.
func Read(r io.Reader) ([]Case, error) {
	plain, err := decompress(r)
	if err != nil {
		return nil, err
	}
	var list []Case
	lines := bufio.NewScanner(plain)
	lines.Buffer(make([]byte, 0, 64<<10), maxLine)
	for n := 1; lines.Scan(); n++ {
		if len(bytes.TrimSpace(lines.Bytes())) == 0 {
			continue
		}
		step, err := parse(lines.Bytes())
		if err != nil {
			return nil, fmt.Errorf("reading line %d: %w", n, err)
		}
		list = add(list, step)
	}
	if err := lines.Err(); err != nil {
		return nil, fmt.Errorf("reading cases: %w", err)
	}
	return list, nil
}

func decompress(r io.Reader) (io.Reader, error) {
	b := bufio.NewReader(r)
	if magic, err := b.Peek(2); err != nil || !bytes.Equal(magic, []byte{0x1f, 0x8b}) {
		return b, nil // shorter than two bytes: the scanner says what is wrong
	}
	z, err := gzip.NewReader(b)
	if err != nil {
		return nil, fmt.Errorf("reading gzip: %w", err)
	}
	return z, nil
}

// add appends the step to its case, or opens the next case with it.
func add(list []Case, s *Step) []Case {
	if len(list) > 0 {
		c := &list[len(list)-1]
		last := c.Steps[len(c.Steps)-1]
		if last.Case == s.Case && last.Source == s.Source && last.Step == s.Step-1 {
			c.Steps = append(c.Steps, s)
			return list
		}
	}
	return append(list, Case{Steps: []*Step{s}})
}

func parse(line []byte) (*Step, error) {
	s := &Step{}
	if err := json.Unmarshal(line, s); err != nil {
		return nil, err
	}
	if err := s.validate(); err != nil {
		return nil, fmt.Errorf("case %q: %w", s.ID, err)
	}
	return s, nil
}

// validate checks what a comparison relies on: a matrix of another shape, or
// an address of another family, would compare nothing without anybody noticing.
func (s *Step) validate() error {
	if s.Schema != Schema {
		return fmt.Errorf("schema is %q, want %q", s.Schema, Schema)
	}
	if s.ID == "" {
		return errors.New("the id is empty")
	}
	if s.Family != "IPv4" && s.Family != "IPv6" {
		return fmt.Errorf("family is %q, want IPv4 or IPv6", s.Family)
	}
	ends, err := s.Ends()
	if err != nil {
		return err
	}
	for _, e := range ends {
		if !e.Addr.IsValid() || e.Addr.Is4() != (s.Family == "IPv4") {
			return fmt.Errorf("endpoint %s: address %s is not %s", e.Name, e.Addr, s.Family)
		}
	}
	for i := range s.Probes {
		if err := s.Probes[i].validate(len(ends)); err != nil {
			return fmt.Errorf("probe %d: %w", i, err)
		}
	}
	return nil
}

func (p *Probe) validate(ends int) error {
	if _, ok := cluster.ParseProtocol(p.Protocol); !ok {
		return fmt.Errorf("unknown protocol %q", p.Protocol)
	}
	if p.Port == 0 {
		return errors.New("the port is missing")
	}
	if !square(p.Expected, ends) {
		return fmt.Errorf("expected is not %d rows of %d cells", ends, ends)
	}
	return nil
}

func square(rows []string, n int) bool {
	return len(rows) == n && !slices.ContainsFunc(rows, func(row string) bool { return len(row) != n })
}

func sortedUnique(list []string) []string {
	slices.Sort(list)
	return slices.Compact(list)
}
