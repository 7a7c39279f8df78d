package main

import (
	"errors"

	"github.com/annalsdb/annals"
	"github.com/spf13/cobra"
)

func newGet() *cobra.Command {
	var key keyFlag
	var raw bool
	cmd := verb("get DIR KEY", "Print the value of a key", func(cmd *cobra.Command, args []string) error {
		name, err := key.key(args[1])
		if err != nil {
			return err
		}
		return withReader(args[0], func(reader *annals.Reader) error {
			value, err := reader.Get(name)
			if errors.Is(err, annals.ErrNotFound) {
				return answerNo("no key %q in %q", name, args[0])
			}
			if err != nil {
				return err
			}
			out := newOutput(cmd)
			if raw {
				out = newOutputTo(cmd.OutOrStdout())
			}
			out.Write(value) // a failure shows at Flush
			if !raw {
				out.WriteByte('\n')
			}
			return out.Flush()
		})
	})
	cmd.Long = `Get prints the value's bytes and a newline. On a terminal, control characters in it are
spelled as \u001b and the like, unless --raw is given. The status is 1 if there is no such key.`
	cmd.Example = `  annals get data user:1 | jq .name
  annals get data photo --raw > photo.jpg`
	key.register(cmd)
	cmd.Flags().BoolVar(&raw, "raw", false, "print the value's bytes and nothing else")
	return cmd
}
