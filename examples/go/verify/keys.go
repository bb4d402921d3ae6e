package verify

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/sha256"
	"math/big"

	"filippo.io/edwards25519"
)

// The algorithms of FORMATS, "Keys and signatures".
const (
	algorithmEd25519 = 1
	algorithmP256    = 2
)

// PublicKey is a key of FORMATS, "Keys and signatures".
type PublicKey struct {
	Algorithm uint64
	Raw       []byte
}

func (k PublicKey) encode() []byte {
	return appendBytes(appendHead(appendHead(nil, majorArray, 2), majorUint, k.Algorithm), k.Raw)
}

// ID is the first 8 bytes of the hash of the encoded key.
func (k PublicKey) ID() [8]byte {
	hash := hashOf(k.encode())
	return [8]byte(hash[:8])
}

func (k PublicKey) equals(other PublicKey) bool {
	return k.Algorithm == other.Algorithm && bytes.Equal(k.Raw, other.Raw)
}

func (r *reader) publicKey() PublicKey {
	r.array(2, 2)
	key := PublicKey{Algorithm: r.uint()}
	switch key.Algorithm {
	case algorithmEd25519:
		key.Raw = r.fixed(32)
	case algorithmP256:
		key.Raw = r.fixed(33)
	default:
		r.fail("unknown algorithm %d", key.Algorithm)
	}
	return key
}

// publicKeys reads 1 to most keys, all different.
func (r *reader) publicKeys(most uint64) (keys []PublicKey) {
	for range r.array(1, most) {
		key := r.publicKey()
		for _, other := range keys {
			if key.equals(other) {
				r.fail("a key occurs twice")
			}
		}
		keys = append(keys, key)
	}
	return keys
}

// verifies returns whether signature is one by this key over message, strictly.
func (k PublicKey) verifies(message, signature []byte) bool {
	switch k.Algorithm {
	case algorithmEd25519:
		return verifiesEd25519(k.Raw, message, signature)
	case algorithmP256:
		return verifiesP256(k.Raw, message, signature)
	}
	return false
}

// verifiesEd25519 adds to the standard library that neither the key nor R is of small order, and that the key
// is in its canonical encoding. The library demands a canonical S, compares the encoding of R, and uses the
// equation without the cofactor.
func verifiesEd25519(key, message, signature []byte) bool {
	if len(signature) != ed25519.SignatureSize || !isLargeOrder(key) || !isLargeOrder(signature[:32]) {
		return false
	}
	return ed25519.Verify(key, message, signature)
}

func canonicalPoint(data []byte) *edwards25519.Point {
	point, err := new(edwards25519.Point).SetBytes(data)
	if err != nil || !bytes.Equal(point.Bytes(), data) {
		return nil
	}
	return point
}

func isIdentity(point *edwards25519.Point) bool {
	return point.Equal(edwards25519.NewIdentityPoint()) == 1
}

func isLargeOrder(data []byte) bool {
	point := canonicalPoint(data)
	return point != nil && !isIdentity(new(edwards25519.Point).MultByCofactor(point))
}

// validPoint returns the point of the group of prime order, without its identity, that data encodes, or nil.
func validPoint(data []byte) *edwards25519.Point {
	point := canonicalPoint(data)
	if point == nil || isIdentity(point) {
		return nil
	}
	// The scalar -1 is the order of the group minus one.
	one, _ := new(edwards25519.Scalar).SetCanonicalBytes(append([]byte{1}, make([]byte, 31)...))
	minusOne := new(edwards25519.Scalar).Negate(one)
	times := new(edwards25519.Point).ScalarMult(minusOne, point)
	if !isIdentity(times.Add(times, point)) {
		return nil
	}
	return point
}

func verifiesP256(key, message, signature []byte) bool {
	curve := elliptic.P256()
	x, y := elliptic.UnmarshalCompressed(curve, key)
	if x == nil || len(signature) != 64 {
		return false
	}
	r, s := new(big.Int).SetBytes(signature[:32]), new(big.Int).SetBytes(signature[32:])
	if s.Cmp(new(big.Int).Rsh(curve.Params().N, 1)) > 0 {
		return false
	}
	digest := sha256.Sum256(message)
	return ecdsa.Verify(&ecdsa.PublicKey{Curve: curve, X: x, Y: y}, digest[:], r, s)
}

// signature is one of a list, and names its key.
type signature struct {
	key   [8]byte
	value []byte
}

func (r *reader) signatures() (signatures []signature) {
	for range r.array(1, 32) {
		r.array(2, 2)
		key := r.fixed(8)
		value := r.fixed(64)
		if r.err != nil {
			return nil
		}
		signatures = append(signatures, signature{[8]byte(key), value})
	}
	return signatures
}

// signedMessage is what a signature covers.
func signedMessage(kind, origin string, payload []byte) []byte {
	return append([]byte("kt-es/v1 "+kind+"\n"+origin+"\n"), payload...)
}

// isSignedBy returns whether one of the signatures is a valid one by key.
func isSignedBy(signatures []signature, key PublicKey, message []byte) bool {
	id := key.ID()
	for _, signature := range signatures {
		if signature.key == id && key.verifies(message, signature.value) {
			return true
		}
	}
	return false
}
