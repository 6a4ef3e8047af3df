package main

import (
	"fmt"
	"io"
	"strings"
	"text/tabwriter"

	"github.com/spf13/cobra"
)

func (p *program) configCommand() *cobra.Command {
	group := &cobra.Command{Use: "config", Short: "Validate, show or print an example of the configuration"}
	group.Args = func(cmd *cobra.Command, args []string) error {
		if len(args) == 0 {
			return nil
		}
		var names []string
		for _, sub := range cmd.Commands() {
			names = append(names, sub.Name())
		}
		return fmt.Errorf("unknown command %q for %q%s", args[0], cmd.CommandPath(), suggestion(args[0], names))
	}
	group.RunE = func(cmd *cobra.Command, _ []string) error { return cmd.Help() }
	group.AddCommand(p.configValidateCommand(), p.configShowCommand(), p.configExampleCommand())
	return group
}

func (p *program) configValidateCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "validate",
		Short: "Check the configuration and report all problems at once",
		Args:  cobra.NoArgs,
		RunE: func(*cobra.Command, []string) error {
			if _, err := p.config(); err != nil {
				return err
			}
			fmt.Fprintln(p.stdout, "the configuration is valid")
			return nil
		},
	}
	p.configFlagsFor(cmd.Flags())
	return cmd
}

// shownSetting is one element of `config show -o json`, a contract.
type shownSetting struct {
	Path   string `json:"path"`
	Value  string `json:"value"` // as in the file; secrets are ***
	Source string `json:"source"`
}

func (p *program) configShowCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "show",
		Short: "Print every setting with the source of its value, secrets masked",
		Args:  cobra.NoArgs,
	}
	p.configFlagsFor(cmd.Flags())
	output := outputFlag(cmd)
	cmd.RunE = func(*cobra.Command, []string) error {
		// A wrong configuration is shown too: it is when one looks at it.
		c, err := p.config()
		shown := make([]shownSetting, 0, len(c.settings))
		for _, s := range c.settings {
			shown = append(shown, shownSetting{Path: s.path, Value: s.text(), Source: s.origin.text})
		}
		if *output == outputJSON {
			if printErr := p.printJSON(shown); printErr != nil {
				return printErr
			}
			return err
		}
		w := tabwriter.NewWriter(p.stdout, 0, 0, 2, ' ', 0)
		for _, s := range shown {
			fmt.Fprintf(w, "%s = %s\t(%s)\n", s.Path, s.Value, s.Source)
		}
		if printErr := w.Flush(); printErr != nil {
			return printErr
		}
		return err
	}
	return cmd
}

func (p *program) configExampleCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "example",
		Short: "Print a commented configuration file with every setting",
		Args:  cobra.NoArgs,
		RunE: func(*cobra.Command, []string) error {
			writeExample(p.stdout)
			return nil
		},
	}
}

// writeExample prints the file: what has to be set stands free, everything else
// is commented out with its default.
func writeExample(w io.Writer) {
	const relay = "payments"
	fmt.Fprintln(w, "# Configuration of cdc-relay. What is commented out shows its default.")
	fmt.Fprintln(w, "# Precedence: flags, environment, this file, defaults. Every setting has an")
	fmt.Fprintln(w, "# environment variable: postgres.slot is CDC_RELAY_POSTGRES_SLOT.")
	var group []string
	for _, s := range settingsOf(&Config{}) {
		keys := strings.Split(s.path, ".")
		parents, key := keys[:len(keys)-1], keys[len(keys)-1]
		if len(parents) == 0 {
			fmt.Fprintln(w)
		}
		for depth, parent := range parents {
			if depth >= len(group) || group[depth] != parent {
				if depth == 0 {
					fmt.Fprintln(w)
				}
				fmt.Fprintf(w, "%s%s:\n", strings.Repeat("  ", depth), parent)
			}
		}
		group = parents
		indent := strings.Repeat("  ", len(parents))
		doc := s.doc
		if len(s.oneof) > 1 {
			doc += " One of " + strings.Join(s.oneof, ", ") + "."
		}
		for _, line := range wrap(doc, 90-len(indent)) {
			fmt.Fprintf(w, "%s# %s\n", indent, line)
		}
		switch {
		case s.example != "":
			fmt.Fprintf(w, "%s%s: %s\n", indent, key, s.example)
		case s.derived != "":
			fmt.Fprintf(w, "%s#%s: %s\n", indent, key, derive(s.derived, relay))
		default:
			fmt.Fprintf(w, "%s#%s: %s\n", indent, key, exampleValue(s))
		}
	}
}

// exampleValue is the default as YAML.
func exampleValue(s *setting) string {
	text := s.text()
	if strings.ContainsAny(text, "{}[]:#") && !s.isMap() && s.value.Kind().String() != "slice" || text == "" {
		return fmt.Sprintf("%q", text)
	}
	return text
}

// wrap breaks a text into lines of at most width.
func wrap(text string, width int) []string {
	var lines []string
	line := ""
	for word := range strings.FieldsSeq(text) {
		if line != "" && len(line)+1+len(word) > width {
			lines = append(lines, line)
			line = ""
		}
		if line != "" {
			line += " "
		}
		line += word
	}
	return append(lines, line)
}
