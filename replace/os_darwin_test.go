package replace

import (
	"testing"

	"github.com/stretchr/testify/assert"
)

func TestNetworkKind(t *testing.T) {
	assert.Equal(t, "", networkKind("apfs", true))
	assert.Equal(t, "", networkKind("hfs", true))
	assert.Equal(t, "nfs", networkKind("nfs", false))
	assert.Equal(t, "smbfs", networkKind("smbfs", false))
	assert.Equal(t, "macfuse", networkKind("macfuse", true))
}
