// SPDX-License-Identifier: Apache-2.0

package command

import (
	"bytes"
	"context"
	"errors"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/spf13/cobra"
)

func newProgram() *cobra.Command {
	does := func(*cobra.Command, []string) error { return nil }
	root := &cobra.Command{Use: "program", RunE: does}
	group := &cobra.Command{Use: "group", RunE: does}
	group.AddCommand(&cobra.Command{Use: "inner", RunE: does})
	root.AddCommand(&cobra.Command{Use: "answer", Aliases: []string{"reply"}, RunE: does, Long: "one\ntwo"}, group)
	return root
}

func TestCommandsThatDoNotExistAreRefused(t *testing.T) {
	for _, tt := range []struct{ line, want string }{
		{"", ""},
		{"-h", ""},
		{"answer what ever", ""},
		{"reply", ""},
		{"group", ""},
		{"group -h", ""},
		{"group inner what", ""},
		{"help", ""},
		{"help group inner", ""},
		{"completion bash", ""},
		{"__complete an", ""},
		{"frob", `unknown command "frob"; program --help lists the commands`},
		{"frob -h", `unknown command "frob"`},
		{"answr", "did you mean answer?"},
		{"help frob", `unknown command "frob"`},
		{"group frob -h", `unknown command "frob"; program group --help lists the commands`},
	} {
		root := newProgram()
		Setup(root, io.Discard, io.Discard)
		err := Check(root, strings.Fields(tt.line))
		if tt.want == "" && err != nil || tt.want != "" && (err == nil || !strings.Contains(err.Error(), tt.want)) {
			t.Errorf("%s: %v, want %q", tt.line, err, tt.want)
		}
	}
}

func TestHelpGoesToStandardOutputWithFilledLines(t *testing.T) {
	root := newProgram()
	var out, said bytes.Buffer
	Setup(root, &out, &said)
	root.SetArgs([]string{"answer", "--help"})
	if err := root.Execute(); err != nil || said.Len() > 0 || !strings.HasPrefix(out.String(), "one two\n") {
		t.Errorf("%v, stdout %q, stderr %q", err, out.String(), said.String())
	}
}

func TestAWrongNumberOfArgumentsHasTheForm(t *testing.T) {
	root := newProgram()
	root.AddCommand(&cobra.Command{Use: "files -f PATH", Args: NoArgs, RunE: root.RunE},
		&cobra.Command{Use: "two A B", Args: cobra.ExactArgs(2), RunE: root.RunE})
	Setup(root, io.Discard, io.Discard)
	for line, want := range map[string]string{
		"files":       "",
		"two a b":     "",
		"files ./dir": `unexpected argument "./dir"; the form is: program files -f PATH [flags]`,
		"two a":       "accepts 2 arg(s), received 1; the form is: program two A B [flags]",
	} {
		root.SetArgs(strings.Fields(line))
		if err := root.Execute(); (err == nil) != (want == "") || err != nil && err.Error() != want {
			t.Errorf("%s: %v, want %q", line, err, want)
		}
	}
}

func TestReadingEndsWithTheContext(t *testing.T) {
	r, w := io.Pipe()
	defer w.Close()
	ctx, cancel := context.WithCancelCause(t.Context())
	in := Input(ctx, r)
	go func() { _, _ = w.Write([]byte("text")) }()
	b := make([]byte, 10)
	if n, err := in.Read(b); string(b[:n]) != "text" || err != nil {
		t.Errorf("read %q, %v", b[:n], err)
	}
	interrupted := errors.New("interrupted")
	cancel(interrupted)
	if n, err := in.Read(b); n != 0 || !errors.Is(err, interrupted) {
		t.Errorf("after the end: %d bytes, %v", n, err)
	}
	all, err := io.ReadAll(Input(t.Context(), strings.NewReader("all of it")))
	if string(all) != "all of it" || err != nil {
		t.Errorf("a whole text: %q, %v", all, err)
	}
}

func TestAFailureAfterASignalIsTheSignals(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	if got := Status(ctx, 2); got != 2 {
		t.Errorf("without a signal: %d", got)
	}
	cancel()
	if failed, done := Status(ctx, 2), Status(ctx, 0); failed != StatusInterrupted || done != 0 {
		t.Errorf("after a signal: %d for a failure, %d for an answer", failed, done)
	}
}

func TestProgramsAreFound(t *testing.T) {
	dir := t.TempDir()
	write := func(path string) {
		t.Helper()
		if err := os.WriteFile(path, []byte("#!/bin/sh\n"), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	write(filepath.Join(dir, "in-path"))
	write(filepath.Join(dir, "both"))
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	next := filepath.Join(filepath.Dir(self), "both")
	write(next)
	t.Cleanup(func() { _ = os.Remove(next) }) // the directory is the test program's
	t.Setenv("PATH", dir)
	for _, tt := range []struct{ name, named, want string }{
		{"both", "", next},
		{"in-path", "", filepath.Join(dir, "in-path")},
		{"other", "in-path", filepath.Join(dir, "in-path")},
		{"both", filepath.Join(dir, "both"), filepath.Join(dir, "both")},
		{"nowhere", "", ""},
		{"both", filepath.Join(dir, "nowhere"), ""},
	} {
		got, err := Find(tt.name, tt.named)
		if got != tt.want || (err == nil) != (tt.want != "") {
			t.Errorf("Find(%q, %q) = %q, %v, want %q", tt.name, tt.named, got, err, tt.want)
		}
		if err != nil && !strings.Contains(err.Error(), "looking for "+tt.name) {
			t.Errorf("the error does not name the program: %v", err)
		}
	}
}
