package keyring

import (
	"crypto/aes"
	"crypto/cipher"
	"crypto/ecdh"
	"crypto/hkdf"
	"crypto/sha256"
	"encoding/binary"
	"errors"
)

// Public is an X25519 public key that a node sends with a challenge. It serves one order.
type Public [32]byte

// Wrapped is a key that only the node that sent a certain Public can open (X25519,
// HKDF-SHA256, AES-256-GCM). The reason: all packets are sealed with the old key. Without
// the wrapping, anyone who has the old key and recorded the packets would also get the
// new one.
type Wrapped struct {
	From   Public
	Sealed [KeySize + 16]byte
}

var errWrapped = errors.New("the new key cannot be opened: it was meant for another agent")

// Wrap wraps key for the node that sent to.
func Wrap(key []byte, to Public, random func() uint64) (w Wrapped, err error) {
	private, from := newPrivate(random)
	aead, err := wrapping(private, to, from, to)
	if err != nil {
		return w, err
	}
	w.From = from
	copy(w.Sealed[:], aead.Seal(nil, make([]byte, aead.NonceSize()), key, nil))
	return w, nil
}

// unwrap opens a key that was wrapped for private's public key.
func unwrap(private *ecdh.PrivateKey, w Wrapped) ([]byte, error) {
	aead, err := wrapping(private, w.From, w.From, Public(private.PublicKey().Bytes()))
	if err != nil {
		return nil, err
	}
	key, err := aead.Open(nil, make([]byte, aead.NonceSize()), w.Sealed[:], nil)
	if err != nil {
		return nil, errWrapped
	}
	return key, nil
}

// wrapping returns the cipher for one wrapped key. It serves one message only, so the
// nonce is all zeros.
func wrapping(private *ecdh.PrivateKey, other, from, to Public) (cipher.AEAD, error) {
	public, err := ecdh.X25519().NewPublicKey(other[:])
	if err != nil {
		return nil, errWrapped
	}
	secret, err := private.ECDH(public)
	if err != nil {
		return nil, errWrapped // the public key is a point of low order
	}
	k, err := hkdf.Key(sha256.New, secret, nil, "sipalive key rotate"+string(from[:])+string(to[:]), KeySize)
	if err != nil {
		return nil, err
	}
	block, err := aes.NewCipher(k)
	if err != nil {
		return nil, err
	}
	return cipher.NewGCM(block)
}

func newPrivate(random func() uint64) (*ecdh.PrivateKey, Public) {
	var seed [32]byte
	for i := 0; i < len(seed); i += 8 {
		binary.BigEndian.PutUint64(seed[i:], random())
	}
	private, err := ecdh.X25519().NewPrivateKey(seed[:])
	if err != nil {
		panic("keyring: 32 bytes are an X25519 key: " + err.Error())
	}
	return private, Public(private.PublicKey().Bytes())
}
