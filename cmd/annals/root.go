package main

import (
	"errors"
	"fmt"
	"strings"

	"github.com/spf13/cobra"
)

const rootHelp = `annals keeps keys and series of samples in a directory of checksummed JSON lines
that survives crashes and that cat, grep and an editor can read.

DIR is the directory of one store; the writing verbs make it if it is missing.
Data goes to standard output, one JSON object a line; everything else to standard
error. Exit status: 0 done, 1 the answer is no (no such key, damage found),
2 wrong use or an error.`

const rootExample = `  annals put data greeting '{"hello":"world"}'
  annals get data greeting
  vmstat 1 | annals append data vmstat
  annals samples data vmstat --since 10m
  annals tail data --follow`

// newRoot builds the whole command tree.
func newRoot() *cobra.Command {
	root := &cobra.Command{
		Use:     "annals",
		Short:   "An append-only, checksummed log store",
		Long:    rootHelp,
		Example: rootExample,
		Version: version(),
		// report prints errors once, in one form; help is one flag away.
		SilenceErrors: true,
		SilenceUsage:  true,
	}
	root.PersistentFlags().BoolP("verbose", "v", false, "say more on standard error: the store's events, and a line for each tick of record")
	root.SetFlagErrorFunc(func(cmd *cobra.Command, err error) error { return usageError(cmd, flagError(err)) })
	root.AddGroup(
		&cobra.Group{ID: "keys", Title: "Keys:"},
		&cobra.Group{ID: "series", Title: "Series:"},
		&cobra.Group{ID: "log", Title: "The log:"},
		&cobra.Group{ID: "care", Title: "Looking after a store:"},
		&cobra.Group{ID: "other", Title: "In and out, and the rest:"},
	)
	root.SetHelpCommandGroupID("other")
	root.SetCompletionCommandGroupID("other")
	add := func(group string, cmds ...*cobra.Command) {
		for _, cmd := range cmds {
			cmd.GroupID = group
			cmd.DisableFlagsInUseLine = true
			root.AddCommand(cmd)
		}
	}
	add("keys", newPut(), newGet(), newDelete(), newScan())
	add("series", newAppend(), newSamples(), newSeries(), newPlot(), newRecord(), newRuns())
	add("log", newLoad(), newIngest(), newTail())
	add("care", newVerify(), newStats(), newCompact(), newBackup(), newRepair())
	add("other", newImport(), newExport(), newDemo(), newVersion())
	refuseOtherShells(root)
	return root
}

// refuseOtherShells makes "completion" alone, and for a shell there is none for,
// wrong use: cobra takes both for a wish for help.
func refuseOtherShells(root *cobra.Command) {
	root.InitDefaultCompletionCmd()
	completion, _, err := root.Find([]string{"completion"})
	if err != nil {
		return
	}
	completion.Example = "  annals completion bash > /etc/bash_completion.d/annals"
	completion.RunE = func(cmd *cobra.Command, _ []string) error {
		return usageError(cmd, errors.New("the shell is missing: bash, zsh, fish or powershell"))
	}
}

// verb makes the command of one verb. Its usage line, such as "get DIR KEY" or
// "put DIR KEY [VALUE]", also fixes how many arguments it takes; the first is
// the store's directory, which fn's errors are explained with.
func verb(use, short string, fn func(cmd *cobra.Command, args []string) error) *cobra.Command {
	names := strings.Fields(use)[1:] // of which the last may be repeated: "SERIES..."
	return &cobra.Command{
		Use:   use + " [flags]",
		Short: short,
		Args:  func(cmd *cobra.Command, args []string) error { return checkArgs(cmd, names, args) },
		RunE: func(cmd *cobra.Command, args []string) error {
			if len(args) == 0 {
				return fn(cmd, args)
			}
			return explain(fn(cmd, args), args[0])
		},
		ValidArgsFunction: completeArgs(names),
	}
}

// checkArgs says which argument is missing, or which one is too much. An empty one is a
// variable that was not set: DIR must not mean the current directory. Only a KEY and a
// VALUE may be empty.
func checkArgs(cmd *cobra.Command, names, args []string) error {
	for i, name := range names {
		if i >= len(args) && !strings.HasPrefix(name, "[") {
			return usageError(cmd, fmt.Errorf("%s is missing", strings.TrimSuffix(name, "...")))
		}
	}
	for i := range min(len(args), len(names)) {
		switch name := strings.Trim(names[i], "[]."); name {
		case "DIR", "DEST", "FILE", "SPOOL", "SERIES", "NAME", "RUN", "A", "B":
			if args[i] == "" {
				return usageError(cmd, fmt.Errorf("%s is empty", name))
			}
		}
	}
	if len(args) > len(names) && !(len(names) > 0 && strings.HasSuffix(names[len(names)-1], "...")) {
		return usageError(cmd, fmt.Errorf("%q is one argument too many", args[len(names)]))
	}
	return nil
}

// completeArgs lets the shell complete directories and files where one is meant.
func completeArgs(names []string) cobra.CompletionFunc {
	return func(_ *cobra.Command, args []string, _ string) ([]cobra.Completion, cobra.ShellCompDirective) {
		if len(args) < len(names) {
			switch strings.Trim(names[len(args)], "[]") {
			case "DIR", "DEST", "SPOOL":
				return nil, cobra.ShellCompDirectiveFilterDirs
			case "FILE":
				return nil, cobra.ShellCompDirectiveDefault
			}
		}
		return nil, cobra.ShellCompDirectiveNoFileComp
	}
}

// verbose reports whether --verbose was given.
func verbose(cmd *cobra.Command) bool {
	on, err := cmd.Flags().GetBool("verbose")
	return err == nil && on
}
