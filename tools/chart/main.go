// SPDX-License-Identifier: Apache-2.0

// Command chart checks and renders the project's Helm chart with helm's own
// library. `make deploy` runs it.
//
//	chart lint DIR [-f VALUES]      what helm lint --strict says
//	chart render DIR [-f VALUES]    what helm template prints
//	chart values DIR                the table of values for the chart's README
package main

import (
	"errors"
	"flag"
	"fmt"
	"io"
	"os"

	"sigs.k8s.io/yaml"
)

func main() {
	if err := run(os.Args[1:], os.Stdout); err != nil {
		fmt.Fprintf(os.Stderr, "chart: %v\n", err)
		os.Exit(1)
	}
}

var errUsage = errors.New("use chart lint|render|values DIR [-f VALUES]")

func run(args []string, stdout io.Writer) error {
	if len(args) < 2 {
		return errUsage
	}
	command, dir := args[0], args[1]
	flags := flag.NewFlagSet("chart "+command, flag.ContinueOnError)
	file := flags.String("f", "", "file with values")
	if err := flags.Parse(args[2:]); err != nil {
		return err
	}
	values, err := readValues(*file)
	if err != nil {
		return err
	}
	switch command {
	case "lint":
		return check(dir, values)
	case "render":
		r, err := render(dir, values)
		if err == nil {
			_, err = io.WriteString(stdout, r.Objects+r.Hooks)
		}
		return err
	case "values":
		table, err := valuesTable(dir)
		if err == nil {
			_, err = io.WriteString(stdout, table)
		}
		return err
	}
	return errUsage
}

func readValues(file string) (map[string]any, error) {
	values := map[string]any{}
	if file == "" {
		return values, nil
	}
	data, err := os.ReadFile(file)
	if err != nil {
		return nil, fmt.Errorf("reading values: %w", err)
	}
	if err := yaml.UnmarshalStrict(data, &values); err != nil {
		return nil, fmt.Errorf("reading values: %s: %w", file, err)
	}
	return values, nil
}
