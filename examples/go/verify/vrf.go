package verify

import (
	"bytes"
	"crypto/sha512"
	"errors"

	"filippo.io/edwards25519"
)

// What RFC 9381 calls ECVRF-EDWARDS25519-SHA512-TAI, 5.5.
const (
	vrfSuite     = 3
	vrfProofSize = 80
)

var errVRF = errors.New("the VRF proof is not one for this label")

// labelIndex verifies the VRF proof of a label and returns the label's index: FORMATS, "Labels", and RFC 9381, 5.3.
func labelIndex(key []byte, label string, proof []byte) (index Hash, err error) {
	y := validPoint(key)
	if y == nil || len(proof) != vrfProofSize {
		return Hash{}, errVRF
	}
	gamma := validPoint(proof[:32])
	wide := append(bytes.Clone(proof[32:48]), make([]byte, 16)...)
	c, err := new(edwards25519.Scalar).SetCanonicalBytes(wide)
	if err != nil {
		return Hash{}, errVRF
	}
	s, err := new(edwards25519.Scalar).SetCanonicalBytes(proof[48:])
	if err != nil {
		return Hash{}, errVRF
	}
	zero := edwards25519.NewScalar()
	if gamma == nil || c.Equal(zero) == 1 || s.Equal(zero) == 1 {
		return Hash{}, errVRF
	}
	h := encodeToCurve(key, label)
	if h == nil {
		return Hash{}, errVRF
	}
	minusC := new(edwards25519.Scalar).Negate(c)
	u := new(edwards25519.Point).VarTimeDoubleScalarBaseMult(minusC, y, s)
	v := new(edwards25519.Point).ScalarMult(s, h)
	v.Add(v, new(edwards25519.Point).ScalarMult(minusC, gamma))
	challenge := sha512.Sum512(bytes.Join([][]byte{
		{vrfSuite, 2}, key, h.Bytes(), gamma.Bytes(), u.Bytes(), v.Bytes(), {0},
	}, nil))
	if !bytes.Equal(challenge[:16], proof[32:48]) {
		return Hash{}, errVRF
	}
	cleared := new(edwards25519.Point).MultByCofactor(gamma)
	beta := sha512.Sum512(bytes.Join([][]byte{{vrfSuite, 3}, cleared.Bytes(), {0}}, nil))
	return Hash(beta[:32]), nil
}

// encodeToCurve is the point that belongs to label: RFC 9381, 5.4.1.1. There is none with negligible probability.
func encodeToCurve(key []byte, label string) *edwards25519.Point {
	for counter := range 256 {
		digest := sha512.Sum512(bytes.Join([][]byte{
			{vrfSuite, 1}, key, []byte(label), {byte(counter), 0},
		}, nil))
		if point := canonicalPoint(digest[:32]); point != nil {
			if cleared := point.MultByCofactor(point); !isIdentity(cleared) {
				return cleared
			}
		}
	}
	return nil
}
