package main

import (
	"fmt"
	"runtime"
	"runtime/debug"

	"github.com/spf13/cobra"
)

func newVersion() *cobra.Command {
	cmd := verb("version", "Print the version", func(cmd *cobra.Command, _ []string) error {
		out := newOutput(cmd)
		fmt.Fprintf(out, "annals %s\n", version())
		return out.Flush()
	})
	cmd.Example = `  annals version`
	return cmd
}

// version is the module's version if it was installed as one, else the commit it
// was built from as far as the build knows it.
func version() string {
	name := "(unknown)"
	if info, ok := debug.ReadBuildInfo(); ok {
		name = info.Main.Version
		for _, setting := range info.Settings {
			if setting.Key == "vcs.revision" && name == "(devel)" {
				name = setting.Value[:min(12, len(setting.Value))]
			}
		}
	}
	return fmt.Sprintf("%s, format 1, %s, %s/%s", name, runtime.Version(), runtime.GOOS, runtime.GOARCH)
}
