// Cosigns and verifies checkpoints with a library that knows nothing of kt-es.
//
//	cosigner sign NAME SEED < NOTE    prints the note with one cosignature more
//	cosigner verify NAME SEED < NOTE  prints the time of NAME's cosignature
//
// SEED is the hexadecimal seed of an Ed25519 key.
package main

import (
	"crypto/ed25519"
	"encoding/hex"
	"fmt"
	"io"
	"os"

	"filippo.io/torchwood"
	"golang.org/x/mod/sumdb/note"
)

func main() {
	if err := run(os.Args[1], os.Args[2], os.Args[3]); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func run(what, name, seed string) error {
	secret, err := hex.DecodeString(seed)
	if err != nil {
		return err
	}
	signed, err := io.ReadAll(os.Stdin)
	if err != nil {
		return err
	}
	cosigner, err := torchwood.NewCosignatureSigner(name, ed25519.NewKeyFromSeed(secret))
	if err != nil {
		return err
	}
	if what == "sign" {
		// Nothing is verified before it is signed: this is a tool for tests.
		_, err := note.Open(signed, note.VerifierList())
		unverified, ok := err.(*note.UnverifiedNoteError)
		if !ok {
			return fmt.Errorf("this is not a note: %v", err)
		}
		cosigned, err := note.Sign(unverified.Note, cosigner)
		if err != nil {
			return err
		}
		_, err = os.Stdout.Write(cosigned)
		return err
	}
	opened, err := note.Open(signed, note.VerifierList(cosigner.Verifier()))
	if err != nil {
		return err
	}
	when, err := torchwood.CosignatureTimestamp(opened.Sigs[0])
	if err != nil {
		return err
	}
	_, err = fmt.Printf("%d %s\n", when, cosigner.Verifier().String())
	return err
}
