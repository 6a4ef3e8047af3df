package main

import (
	"encoding/json"
	"fmt"
	"runtime"
	"runtime/debug"

	"github.com/spf13/cobra"
)

// version and revision are set by the linker in releases
// (-ldflags "-X main.version=1.2.3 -X main.revision=abc"); otherwise they come
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
	v := versionInfo{Version: "devel", Go: runtime.Version(), Platform: runtime.GOOS + "/" + runtime.GOARCH}
	if info, ok := debug.ReadBuildInfo(); ok {
		if info.Main.Version != "" && info.Main.Version != "(devel)" {
			v.Version = info.Main.Version
		}
		for _, s := range info.Settings {
			if s.Key == "vcs.revision" {
				v.Revision = s.Value
			}
		}
	}
	if version != "" {
		v.Version = version
	}
	if revision != "" {
		v.Revision = revision
	}
	return v
}

func (p *program) versionCommand() *cobra.Command {
	var output string
	cmd := &cobra.Command{
		Use:   "version",
		Short: "Print version, revision, Go and platform",
		Args:  cobra.NoArgs,
	}
	cmd.Flags().StringVarP(&output, "output", "o", "text", "text or json")
	cmd.RunE = func(*cobra.Command, []string) error {
		v := readVersion()
		switch output {
		case "json":
			encoder := json.NewEncoder(p.stdout)
			encoder.SetIndent("", "  ")
			return encoder.Encode(v)
		case "text":
			fmt.Fprintf(p.stdout, "payment-api %s\n", v.Version)
			if v.Revision != "" {
				fmt.Fprintf(p.stdout, "revision %s\n", v.Revision)
			}
			fmt.Fprintf(p.stdout, "%s %s\n", v.Go, v.Platform)
			return nil
		}
		return usageError{fmt.Errorf("-o: want text or json")}
	}
	return cmd
}
