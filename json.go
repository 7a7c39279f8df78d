package annals

import (
	"bytes"
	"encoding/json"
	"fmt"
)

// Putter is what PutJSON writes to: a Store or a Tx.
type Putter interface {
	Put(key string, value []byte, opts ...PutOption) error
}

// Getter is what GetJSON reads from: a Store, Reader, Snapshot or Tx.
type Getter interface {
	Get(key string) ([]byte, error)
}

// PutJSON gives key the JSON encoding of v.
func PutJSON(p Putter, key string, v any, opts ...PutOption) error {
	var buf bytes.Buffer
	enc := json.NewEncoder(&buf)
	enc.SetEscapeHTML(false) // the log is for people
	if err := enc.Encode(v); err != nil {
		return fmt.Errorf("annals: encoding the value of key %q: %w", key, err)
	}
	return p.Put(key, bytes.TrimSuffix(buf.Bytes(), []byte("\n")), opts...)
}

// GetJSON decodes the JSON value of key into a T.
func GetJSON[T any](g Getter, key string) (T, error) {
	var v T
	value, err := g.Get(key)
	if err != nil {
		return v, err
	}
	if err := json.Unmarshal(value, &v); err != nil {
		return v, fmt.Errorf("annals: decoding the value of key %q: %w", key, err)
	}
	return v, nil
}
