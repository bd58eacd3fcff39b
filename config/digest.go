package config

import (
	"crypto/sha256"
	"encoding/binary"
	"encoding/json"
)

// Digest is the first 8 bytes, big endian, of SHA-256 over the configuration as it was
// understood. Comments, the order of keys, the spelling of a duration and a default
// written out do not change it. The order of nodes and of VIPs does, since it breaks ties
// (design §4.8). The file's name does not count.
//
// The field names are part of the hashed form. Nodes whose versions differ in them see
// different digests, which moves nothing (design §7).
func (c *Config) Digest() uint64 {
	canonical := *c
	canonical.File = ""
	text, err := json.Marshal(&canonical)
	if err != nil {
		panic("config: strings, numbers and addresses always marshal: " + err.Error())
	}
	sum := sha256.Sum256(text)
	return binary.BigEndian.Uint64(sum[:8])
}
