package main

import (
	"errors"

	"github.com/annalsdb/annals"
	"github.com/spf13/cobra"
)

func newDelete() *cobra.Command {
	var key keyFlag
	var f storeFlags
	cmd := verb("delete DIR KEY", "Take a key away", func(cmd *cobra.Command, args []string) error {
		name, err := key.key(args[1])
		if err != nil {
			return err
		}
		return withExisting(args[0], f.options(cmd), func(store *annals.Store) error {
			if _, err := store.Lookup(name); errors.Is(err, annals.ErrNotFound) {
				return answerNo("no key %q in %q", name, args[0])
			} else if err != nil {
				return err
			}
			return store.Delete(name)
		})
	})
	cmd.Long = `Delete takes KEY and its value away. The status is 1, and nothing is written, if
there is no such key.`
	cmd.Example = `  annals delete data user:1
  annals delete data --k64 AAEC`
	f.register(cmd)
	key.register(cmd)
	return cmd
}
