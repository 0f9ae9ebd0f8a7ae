// SPDX-License-Identifier: Apache-2.0

package kubectl

import (
	"encoding/json"
	"fmt"
	"strings"

	"github.com/spf13/cobra"
	"sigs.k8s.io/yaml"

	"github.com/podwall/podwall/internal/logging"
	"github.com/podwall/podwall/internal/terminal"
)

// output is the form of an answer.
type output struct{ form string }

func (o *output) bind(cmd *cobra.Command) {
	cmd.Flags().StringVarP(&o.form, "output", "o", "text", "form of the answer: `text|json|yaml`")
}

func (o *output) check() error {
	switch o.form {
	case "text", "json", "yaml":
		return nil
	}
	return fmt.Errorf("unknown output %q, want text, json or yaml", o.form)
}

// print writes an answer: its text, or the value. Names come from files and from the API,
// so control characters are replaced.
func (o *output) print(s Streams, text string, value any) error {
	if o.form == "text" {
		for line := range strings.Lines(text) {
			line = logging.Plain(strings.TrimSuffix(line, "\n"))
			if _, err := fmt.Fprintln(s.Out, terminal.Hang(line)); err != nil {
				return fmt.Errorf("printing the answer: %w", err)
			}
		}
		return nil
	}
	list, err := json.MarshalIndent(value, "", "  ")
	if err == nil && o.form == "yaml" {
		list, err = yaml.JSONToYAML(list)
	} else {
		list = append(list, '\n')
	}
	if err == nil {
		_, err = s.Out.Write(list)
	}
	if err != nil {
		return fmt.Errorf("printing the answer: %w", err)
	}
	return nil
}

// say writes a line for people to Err.
func (s *source) say(text string) {
	fmt.Fprintln(s.streams.Err, terminal.Wrap(logging.Plain(text), "  "))
}
