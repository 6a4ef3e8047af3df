package main

import (
	"fmt"
	"reflect"
	"runtime"
	"runtime/debug"
	"strings"

	"github.com/spf13/cobra"
)

// version and revision are set by the linker in releases; otherwise they come
// from the build information of the toolchain.
var version, revision string

// versionInfo is the output of `version -o json`, a contract.
type versionInfo struct {
	Version  string `json:"version"`
	Revision string `json:"revision,omitempty"`
	Go       string `json:"go"`
	Platform string `json:"platform"`
}

func readVersion() versionInfo {
	v := versionInfo{Version: "devel", Revision: revision, Go: runtime.Version(), Platform: runtime.GOOS + "/" + runtime.GOARCH}
	if info, ok := debug.ReadBuildInfo(); ok {
		if info.Main.Version != "" && info.Main.Version != "(devel)" {
			v.Version = info.Main.Version
		}
		for _, s := range info.Settings {
			if s.Key == "vcs.revision" && v.Revision == "" {
				v.Revision = s.Value
			}
		}
	}
	if version != "" {
		v.Version = version
	}
	return v
}

func (p *program) versionCommand() *cobra.Command {
	cmd := &cobra.Command{Use: "version", Short: "Print version, revision, Go and platform", Args: cobra.NoArgs}
	output := outputFlag(cmd)
	cmd.RunE = func(*cobra.Command, []string) error {
		v := readVersion()
		if *output == outputJSON {
			return p.printJSON(v)
		}
		_, err := fmt.Fprintf(p.stdout, "notifier %s\nrevision %s\n%s %s\n", v.Version, v.Revision, v.Go, v.Platform)
		return err
	}
	return cmd
}

// configCommand documents every setting; the output is a valid configuration.
func (p *program) configCommand() *cobra.Command {
	cmd := &cobra.Command{Use: "config", Short: "Print every setting with its default and environment variable", Args: cobra.NoArgs}
	cmd.RunE = func(*cobra.Command, []string) error {
		group := ""
		for _, s := range settingsOf("", reflect.ValueOf(&Config{}).Elem()) {
			parts := strings.Split(s.path, ".")
			depth := len(parts) - 1
			if head := strings.Join(parts[:depth], "."); head != group {
				group = head
				if depth > 0 {
					fmt.Fprintf(p.stdout, "%s%s:\n", strings.Repeat("  ", depth-1), parts[depth-1])
				}
			}
			fmt.Fprintf(p.stdout, "%s%s: %s # %s (%s)\n", strings.Repeat("  ", depth), parts[depth], s.initial, s.doc, s.env())
		}
		return nil
	}
	return cmd
}
