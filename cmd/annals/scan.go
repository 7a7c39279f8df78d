package main

import (
	"bytes"
	"fmt"

	"github.com/annalsdb/annals"
	"github.com/spf13/cobra"
)

func newScan() *cobra.Command {
	var r annals.Range
	var damage damageFlag
	cmd := verb("scan DIR", "Print keys and values in the order of the keys", func(cmd *cobra.Command, args []string) error {
		if r.Limit < 0 {
			return usageError(cmd, fmt.Errorf("--limit must not be negative"))
		}
		return runScan(cmd, args[0], r, &damage)
	})
	cmd.Long = `Scan prints a line {"key":K,"val":V} for each key: "txt" for a value that is text and
not JSON, "b64" for other bytes, "k64" for a key that is not UTF-8, and "exp" with
the time at which the key expires, if it does. Keys are in bytewise order.`
	cmd.Example = `  annals scan data --prefix user:
  annals scan data --from b --to c --reverse --limit 10
  annals scan data | jq -r 'select(.val.age > 40).key'`
	cmd.Flags().StringVar(&r.Prefix, "prefix", "", "only keys that begin so")
	cmd.Flags().StringVar(&r.From, "from", "", "only this key and those after it")
	cmd.Flags().StringVar(&r.To, "to", "", "only keys before this one")
	cmd.Flags().BoolVar(&r.Reverse, "reverse", false, "from the last key to the first")
	cmd.Flags().IntVar(&r.Limit, "limit", 0, "at most so many keys; 0 is all")
	cmd.Flags().BoolVar(&r.KeysOnly, "keys-only", false, "leave the values out")
	cmd.Flags().Bool("json", true, "one JSON object a line, which is the only form there is")
	damage.register(cmd)
	return cmd
}

func runScan(cmd *cobra.Command, dir string, r annals.Range, damage *damageFlag) error {
	return damage.withReader(cmd, dir, func(reader *annals.Reader) error {
		out := newOutput(cmd)
		return out.closing(func() error {
			for entry, err := range passing(damage, reader.Scan(r)) {
				if err == nil {
					err = cmd.Context().Err()
				}
				if err != nil {
					return err
				}
				spell := entry.AppendJSON
				if r.KeysOnly {
					spell = func(dst []byte) []byte { return appendKey(dst, entry) }
				}
				if err := out.object(spell); err != nil {
					return err
				}
			}
			return nil
		}())
	})
}

// appendKey appends the key alone as a JSON object, as AppendJSON spells it.
func appendKey(dst []byte, entry annals.Entry) []byte {
	key := annals.Entry{Key: entry.Key, Value: []byte("0")}
	return append(bytes.TrimSuffix(key.AppendJSON(dst), []byte(`,"val":0}`)), '}')
}
