package main

import (
	"context"
	"crypto/ed25519"
	"crypto/rand"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"time"

	"google.golang.org/protobuf/types/known/durationpb"

	"kt-es/examples/go/ktv1"
	"kt-es/examples/go/verify"
)

const wait = 15 * time.Second

// publish publishes the first version of a label, with a profile of one key of the type "raw". The file KEY has
// the Ed25519 key that signs it (PKCS #8), which kt reads, too; the file is made if it does not exist.
func publish(ctx context.Context, d *directory, trusted verify.Trusted, arguments []string) error {
	label, keyFile, name, text := arguments[0], arguments[1], arguments[2], arguments[3]
	after, found, err := d.lookup(ctx, trusted, label, 0)
	if err != nil {
		return err
	}
	if err := storeTrusted(*stateFile, d.pinned, after); err != nil {
		return err
	}
	if found.Version != 0 {
		return fmt.Errorf("%s has an entry already", label)
	}
	key, err := ownKey(keyFile)
	if err != nil {
		return err
	}
	opening := make([]byte, 16)
	rand.Read(opening)
	profile := verify.EncodeProfile([]verify.ProfileKey{{Name: name, Type: "raw", Data: []byte(text)}})
	commitment := verify.Commitment(opening, label, 1, profile)
	submission := &ktv1.SubmitRequest{
		Label:    label,
		Mutation: verify.FirstMutation(d.pinned.Origin, found.Index, commitment, key),
		Opening:  opening,
		Profile:  profile,
	}
	ctx, cancel := context.WithTimeout(ctx, wait+patience)
	defer cancel()
	request := &ktv1.SubmitAndWaitRequest{Submission: submission, Wait: durationpb.New(wait)}
	answer, err := d.service.SubmitAndWait(ctx, request)
	if err != nil {
		return explained(err)
	}
	decided := answer.GetDecided()
	if decided == nil {
		return fmt.Errorf("%s: in the queue as %s, and not decided yet", label, answer.GetQueued().GetEvent())
	}
	// The verdict of a front end is no proof. The lookup is one.
	after, found, err = d.lookup(ctx, after, label, 0)
	if err != nil {
		return err
	}
	if err := storeTrusted(*stateFile, d.pinned, after); err != nil {
		return err
	}
	if len(found.Profile) != 1 || string(found.Profile[0].Data) != text {
		return fmt.Errorf("%s: something else stands there", label)
	}
	fmt.Printf("%s: %s in epoch %d\n", label, decided.Verdict, decided.Epoch)
	return nil
}

func ownKey(file string) (ed25519.PrivateKey, error) {
	data, err := os.ReadFile(file)
	if errors.Is(err, fs.ErrNotExist) {
		return newKey(file)
	}
	if err != nil {
		return nil, err
	}
	block, _ := pem.Decode(data)
	if block == nil {
		return nil, fmt.Errorf("%s is no PEM file", file)
	}
	parsed, err := x509.ParsePKCS8PrivateKey(block.Bytes)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", file, err)
	}
	key, ok := parsed.(ed25519.PrivateKey)
	if !ok {
		return nil, fmt.Errorf("%s has no Ed25519 key", file)
	}
	return key, nil
}

func newKey(file string) (ed25519.PrivateKey, error) {
	_, key, err := ed25519.GenerateKey(nil)
	if err != nil {
		return nil, err
	}
	encoded, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return nil, err
	}
	made, err := os.OpenFile(file, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return nil, err
	}
	err = pem.Encode(made, &pem.Block{Type: "PRIVATE KEY", Bytes: encoded})
	return key, errors.Join(err, made.Sync(), made.Close())
}
