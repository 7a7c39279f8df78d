module github.com/annalsdb/annals/fuzz/model

go 1.26.0

require (
	github.com/anishathalye/porcupine v1.3.1
	github.com/annalsdb/annals v0.0.0
	github.com/stretchr/testify v1.12.1
	pgregory.net/rapid v1.3.0
)

require (
	github.com/google/btree v1.1.3 // indirect
	github.com/klauspost/crc32 v1.3.0 // indirect
	go.yaml.in/yaml/v3 v3.0.5 // indirect
	golang.org/x/sys v0.49.0 // indirect
)

replace github.com/annalsdb/annals => ../..
